"""Print what the engine costs beside bare yardsticks: `python -m benchmarks` (or `make bench`).

`python -m benchmarks NAME...` prints some of the tables only, `--json FILE` writes them too.
Machines are noisy: read the ratios, not the seconds. Every figure is the median of three runs
unless its table says otherwise.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core import cli

NAMES = (
    "store",
    "resample",
    "cycle",
    "latency",
    "resident",
    "rate",
    "layouts",
    "inspect",
    "scan",
    "meta",
    "pages",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the tables asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the tables, by name")
    args = parser.parse_args(argv)
    cli.check_known("table", args.names, NAMES)
    found = {name: _shown(name) for name in args.names or NAMES}
    if args.json:
        args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


def _shown(name: str) -> dict[str, Any]:
    """Print the tables of one name; returns them with the seconds that they took."""
    begun, tables = time.monotonic(), list[dict[str, Any]]()
    for table in importlib.import_module(f"benchmarks.{name}").tables():
        cli.show(table.rows, as_json=False, title=f"\n{table.title}")
        sys.stdout.flush()
        tables.append(table._asdict())
    return {"tables": tables, "seconds": round(time.monotonic() - begun, 1)}


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
