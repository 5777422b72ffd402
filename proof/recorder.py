"""A pytest plugin: one line of JSON for each test that has ended, and a list of those to leave out.

Lines are written as tests end, so that a run which is cut off need not be repeated as a whole.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the two files."""
    parser.addoption("--ended", type=Path, help="append a line of JSON for each test that ended")
    parser.addoption("--leave-out", type=Path, help="node ids not to run, one a line")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what has passed already."""
    path: Path | None = config.getoption("--leave-out")
    if path is None:
        return
    done = set(path.read_text(encoding="utf-8").splitlines())
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in done])
    items[:] = [item for item in items if item.nodeid not in done]


class Recorder:
    """Collects the phases of each test and writes its line at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a phase; after the last one write the line."""
        row = self.open.setdefault(
            report.nodeid, {"id": report.nodeid, "outcome": "passed", "reason": "", "seconds": 0.0}
        )
        row["seconds"] += report.duration
        if report.outcome != "passed" and row["outcome"] != "failed":
            row["outcome"], row["reason"] = report.outcome, _reason(report)
        if report.when == "teardown":
            row["figures"] = {str(name): str(value) for name, value in report.user_properties}
            row["seconds"] = round(row["seconds"], 2)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self.open.pop(report.nodeid)) + "\n")


def _reason(report: pytest.TestReport) -> str:
    """Return one line of why it did not pass."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    lines = [line for line in report.longreprtext.splitlines() if line.startswith("E ")]
    return (lines or ["failed"])[0].removeprefix("E ").strip()[:200]


def pytest_configure(config: pytest.Config) -> None:
    """Record where the results of all workers come together, and there only."""
    path: Path | None = config.getoption("--ended")
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(path))
