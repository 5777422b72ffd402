"""Run what shows the claims of README.md, and write docs/proof.md: `python -m proof` (make proof).

The long suite, the benchmarks, the evaluation on recorded candles and the demo's markets over
seeds: under an hour on two cores. What has ended is kept in build/proof, so an interrupted run
goes on.

Examples:
  python -m proof --data FOLDER
  python -m proof --only bench:rate tests/test_risk.py
  python -m proof --page-only
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from core import cli
from proof import page, runs
from proof.claims import SUBJECTS
from proof.quoted import at_odds
from proof.verdicts import FAILED, row_of

PAGE, README = runs.ROOT / "docs" / "proof.md", runs.ROOT / "README.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is still to do and write the page; 1 where anything failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of recorded candles; else not evaluated")
    parser.add_argument("--only", nargs="+", default=(), metavar="WHAT", help="runs, or tests/…")
    parser.add_argument("--page-only", action="store_true", help="run nothing, write the page")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE", help="docs/proof.md")
    args = parser.parse_args(argv)
    tests = [name for name in args.only if name.startswith("tests/")]
    wanted = [name for name in args.only if name not in tests]
    cli.check_known("run", wanted, runs.NAMES)
    shelf = shelf_of_now()
    all_ended = args.page_only or _run(shelf, wanted if args.only else runs.NAMES, tests, args.data)
    page.write(args.page, page.page(SUBJECTS, shelf))
    return 0 if _told(shelf, args.page) and all_ended else 1


def shelf_of_now() -> runs.Shelf:
    """Return where the outputs of the present code lie."""
    name = runs.fingerprint(runs.ROOT, runs.versions())
    return runs.Shelf(folder=runs.ROOT / "build" / "proof" / name)


def _run(shelf: runs.Shelf, wanted: Sequence[str], tests: Sequence[str], data: Path | None) -> bool:
    """Run what is still to do; say whether all of it ended well."""
    data, codes = data.resolve() if data else None, list[int]()
    for number, name in enumerate(wanted, start=1):
        _say(f"[{number} of {len(wanted)}] {name}")
        codes.append(runs.carry_out(shelf, name, data=data))
        _say(f"[{number} of {len(wanted)}] {name}: {f'code {codes[-1]}' if codes[-1] else 'done'}")
    if tests:
        codes.append(runs.carry_out(shelf, runs.TESTS, data=data, chosen=tests))
    return not any(codes)


def _told(shelf: runs.Shelf, path: Path) -> bool:
    """Say what failed, and which sentences of README.md are at odds; True where nothing failed."""
    rows = [row_of(claim, shelf) for subject in SUBJECTS for claim in subject.claims]
    failed = [row for row in rows if row.verdict.startswith(FAILED)]
    others = page.failed_elsewhere(SUBJECTS, shelf)
    for row in failed:
        _say(f"{row.verdict}: {row.says}")
    for name in others:
        _say(f"{FAILED}: {name}")
    for line in at_odds(SUBJECTS, README.read_text(encoding="utf-8"), path.read_text("utf-8")):
        _say(line)
    _say(f"written: {path.relative_to(runs.ROOT) if path.is_relative_to(runs.ROOT) else path}")
    return not (failed or others)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
