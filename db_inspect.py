"""Show what the database holds: rows, ranges, holes, freshness, sources, signals, jobs, file sizes.

Example:  python db_inspect.py --json
          python db_inspect.py --holes BTC/USDT:USDT
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from core import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Read the counts, or the holes one by one, and print them."""
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--holes",
        nargs="?",
        const="",
        metavar="SYMBOL",
        help="list every hole, perhaps of one symbol: start, end, state, reads, next try",
    )
    args = parser.parse_args(argv)
    with cli.reader(args) as (_, db):
        from core.jobs import holdings

        found: Any
        if args.holes is None:
            found = holdings.inspect(db)
        else:
            wanted = [args.holes] if args.holes else []
            cli.check_known("symbol", wanted, holdings.symbols_stored(db))
            found = holdings.holes(db, args.holes or None)
    cli.show(found if args.json else _dated(found), as_json=args.json)
    return 0


def _dated(found: Any) -> Any:
    """Return the same with instants as people read them, an instant 0 being none."""
    if isinstance(found, list):
        return [_dated(row) for row in found]
    if not isinstance(found, dict):
        return found
    dated = {}
    for name, value in found.items():
        if name.endswith("_ms"):
            dated[name.removesuffix("_ms")] = cli.when(value or None)
        else:
            dated[name] = _dated(value)
    return dated


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
