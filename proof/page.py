"""docs/proof.md: each claim, the command, the figure and the verdict; none typed by hand."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

from proof.claim import Subject
from proof.runs import ROOT, Shelf, fingerprint, versions
from proof.verdicts import FAILED, Row, row_of

HEAD = """# Proof

Written by `make proof`, which runs the long suite, the benchmarks, the evaluation on recorded
candles and the demo's markets, and copies their figures; nothing here is typed by hand. A test
passes or fails; a figure is measured, with nothing asserted, beside what it must reach where there
is such a mark. The command of a row shows that row alone.
"""


def page(subjects: Sequence[Subject], shelf: Shelf) -> str:
    """Return the page as the stored outputs have it."""
    parts = [HEAD, _circumstances(shelf)]
    for subject in subjects:
        rows = [row_of(claim, shelf) for claim in subject.claims]
        parts.append(f"## {subject.title}\n\n{table(rows)}")
    others = failed_elsewhere(subjects, shelf)
    if others:
        parts.append("## Failed beside these\n\n" + "\n".join(f"- `{name}`" for name in others))
    return "\n".join(f"{part.rstrip()}\n" for part in parts)


def table(rows: Sequence[Row]) -> str:
    """Return rows as a table of Markdown."""
    lines = ["| claim | command | figure | verdict |", "| --- | --- | --- | --- |"]
    for row in rows:
        cells = (row.says, f"`{row.command}`", row.figure, row.verdict)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def rows_of(text: str) -> dict[str, Row]:
    """Read a page back: its rows by what they claim."""
    found = {}
    for line in text.splitlines():
        cells = [part.strip() for part in line.replace("\\|", "\0").strip("| ").split(" | ")]
        if line.startswith("| ") and len(cells) == 4:
            says, command, figure, verdict = (cell.replace("\0", "|") for cell in cells)
            found[says] = Row(says=says, command=command.strip("`"), figure=figure, verdict=verdict)
    return found


def failed_elsewhere(subjects: Sequence[Subject], shelf: Shelf) -> list[str]:
    """Return the tests that failed without being named by a claim that says so."""
    failed = [name for name, row in shelf.tests().items() if row["outcome"] == "failed"]
    shown = [
        name
        for subject in subjects
        for claim in subject.claims
        if row_of(claim, shelf).verdict.startswith(FAILED)
        for name in getattr(claim.by, "ids", ())
    ]
    return [name for name in failed if name.partition("[")[0] not in shown]


def write(path: Path, text: str) -> None:
    """Write the page whole or not at all."""
    aside = path.with_suffix(".tmp")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def _circumstances(shelf: Shelf) -> str:
    log, tests = shelf.log(), shelf.tests().values()
    days = sorted({row["ended"] for row in log.values()})
    when = " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "no day yet"
    outcomes = [row["outcome"] for row in tests]
    counts = ", ".join(f"{outcomes.count(o)} {o}" for o in ("passed", "failed", "skipped"))
    took = ", ".join(
        f"{run} {row['seconds'] / 60:.1f}" for run, row in log.items() if row["seconds"] >= 1
    )
    total_s = sum(row["seconds"] for row in log.values())
    library, found = versions(), fingerprint(ROOT, versions())
    named = ", ".join(f"{name} {version}" for name, version in library.items())
    return (
        "| | |\n| --- | --- |\n"
        f"| run on | {when} |\n"
        f"| commit | {_commit()}, code and libraries {found} |\n"
        f"| machine | {os.cpu_count()} cores, {platform.system()} {platform.machine()} |\n"
        f"| versions | {named} |\n"
        f"| tests | {counts} |\n"
        f"| minutes | {total_s / 60:.0f}: {took} |\n"
    )


def _commit() -> str:
    """Return the commit of the code; a dash outside a repository."""
    done = subprocess.run(
        ["git", "rev-parse", "--short=10", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "-"
