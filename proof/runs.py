"""What is run for the figures, once each, and where the outputs are kept: build/proof/FINGERPRINT.

A run that is cut off goes on: of the tests only those are run again that had not passed, of all
else what had not ended. Code that changed, or a library, begins anew.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.__main__ import NAMES as TABLES

ROOT = Path(__file__).resolve().parents[1]
CODE = ("core", "demo", "benchmarks", "tests")  # what is claimed of it changes no output
TESTS, EVALUATE, RECORDED, SEEDS, BENCH = "tests", "evaluate", "recorded", "seeds", "bench:"
NAMES = (TESTS, *(BENCH + name for name in TABLES), EVALUATE, RECORDED, SEEDS)
LIBRARIES = (
    *("numpy", "numba", "pandas", "pyarrow", "scikit-learn", "xgboost-cpu", "apsw", "ccxt"),
    *("apscheduler", "pydantic", "streamlit", "plotly", "pytest", "pytest-xdist", "hypothesis"),
)
COMMANDS = {  # as people would type them
    EVALUATE: "make evaluate DATA=FOLDER",
    RECORDED: "python -m proof.recorded FOLDER",
    SEEDS: "python -m demo --seeds 20",
}


def versions() -> dict[str, str]:
    """Return the version of Python and of each library that is installed."""
    found = {"Python": ".".join(map(str, sys.version_info[:3]))}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def fingerprint(root: Path, libraries: Mapping[str, str]) -> str:
    """Return twelve digits that change with any code, setting or library, and not with docs."""
    files = [path for folder in CODE for path in (root / folder).rglob("*") if path.is_file()]
    files += [p for p in root.iterdir() if p.suffix in {".py", ".yaml", ".toml"}]
    files += (root / "proof").glob("record*.py")
    whole = hashlib.sha256(json.dumps(dict(libraries)).encode())
    for path in sorted(files):
        if "__pycache__" not in path.parts:
            whole.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return whole.hexdigest()[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """The stored outputs of one state of the code."""

    folder: Path

    def log(self) -> dict[str, dict[str, Any]]:
        """Return the newest entry of each run that has ended."""
        return {row["run"]: row for row in _lines(self.folder / "runs.jsonl")}

    def tests(self) -> dict[str, dict[str, Any]]:
        """Return the newest result of each test, by node id."""
        return {row["id"]: row for row in _lines(self.folder / "tests.jsonl")}

    def output(self, run: str) -> Any:
        """Return the JSON of a run that succeeded; None where there is none."""
        path = self.path(run)
        done = self.log().get(run, {}).get("code") == 0
        return json.loads(path.read_text(encoding="utf-8")) if done and path.exists() else None

    def path(self, run: str) -> Path:
        """Return where the output of a run lies."""
        return self.folder / f"{run.replace(':', '-')}.json"

    def note(self, run: str, **entry: Any) -> None:
        """Write down that a run has ended."""
        with (self.folder / "runs.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"run": run, **entry}) + "\n")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read lines of JSON; the last may have been cut off."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def command_of(run: str, shelf: Shelf, *, data: Path | None, chosen: Sequence[str]) -> list[str]:
    """Return the command of a run; `chosen` are the tests to run instead of all."""
    python, out = sys.executable, str(shelf.path(run))
    if run == TESTS:
        done = shelf.folder / "passed.txt"
        passed = [name for name, row in shelf.tests().items() if row["outcome"] == "passed"]
        done.write_text("\n".join(passed), encoding="utf-8")
        recorded = ["-p", "proof.recorder", "--ended", str(shelf.folder / "tests.jsonl")]
        workers = [] if chosen else ["-n", "2", "--dist", "worksteal", "-m", "not small"]
        return [python, "-m", "pytest", *recorded, "--leave-out", str(done), *workers, *chosen]
    if run.startswith(BENCH):
        return [python, "-m", "benchmarks", run.removeprefix(BENCH), "--json", out]
    if run == SEEDS:
        return [python, "-m", "demo", "--seeds", "20", "--json", out]
    if run == RECORDED:
        return [python, "-m", "proof.recorded", str(data), "--json", out]
    return [python, "maintenance.py", "evaluate", "--data", str(data), "--json"]


def carry_out(shelf: Shelf, run: str, *, data: Path | None, chosen: Sequence[str] = ()) -> int:
    """Run one command, note how it ended, and return its exit code; what has ended is left alone.

    Chosen tests are noted under the name of their own, so that the whole suite is still to do.
    """
    shelf.folder.mkdir(parents=True, exist_ok=True)
    name = "some tests" if chosen else run
    before = shelf.log().get(run, {})
    if before.get("code") == 0 and not chosen:
        return 0
    if run in (EVALUATE, RECORDED) and data is None:
        shelf.note(run, code=None, reason="no candles: make proof DATA=FOLDER", **_now(0.0))
        return 0
    command = command_of(run, shelf, data=data, chosen=chosen)
    begun = time.monotonic()
    if run == EVALUATE:
        with shelf.path(run).open("w", encoding="utf-8") as out:
            code = subprocess.run(command, cwd=ROOT, stdout=out, check=False).returncode
    else:
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if run == TESTS and code == 5:  # nothing was left to run
        code = 0
    spent = float(before.get("seconds", 0.0)) if run == TESTS else 0.0
    shelf.note(name, code=code, **_now(spent + time.monotonic() - begun))
    return code


def _now(seconds: float) -> dict[str, Any]:
    return {"seconds": round(seconds, 1), "ended": f"{datetime.now(UTC):%Y-%m-%d}"}
