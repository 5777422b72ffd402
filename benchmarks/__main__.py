"""Print what the engine costs beside bare yardsticks: `python -m benchmarks` (or `make bench`).

`python -m benchmarks NAME...` prints some of the tables only. Machines are noisy: read the ratios,
not the seconds. Every figure is the median of three runs unless its table says otherwise.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

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
    wanted = parser.parse_args(argv).names
    cli.check_known("table", wanted, NAMES)
    for name in wanted or NAMES:
        for table in importlib.import_module(f"benchmarks.{name}").tables():
            cli.show(table.rows, as_json=False, title=f"\n{table.title}")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
