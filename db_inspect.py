"""Show what the database holds: rows, ranges, holes, signals, jobs, messages and file sizes.

Example:  python db_inspect.py --json
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from core import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Read the counts and print them."""
    args = cli.parser(__doc__).parse_args(argv)
    with cli.reader(args) as (_, db):
        from core.jobs import maintain

        found = maintain.inspect(db)
    if not args.json:
        for row in found["series"]:
            row["first"], row["last"] = cli.when(row.pop("first_ms")), cli.when(row.pop("last_ms"))
        for row in found["jobs"]:
            row["last run"] = cli.when(row.pop("last_wall_ms"))
    cli.show(found, as_json=args.json)
    return 0


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
