"""Create the database, or bring it to this program's schema. Safe to repeat.

Example:  python init_db.py --config config.yaml
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from core import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Create or migrate, and say where."""
    args = cli.parser(__doc__).parse_args(argv)
    with cli.app(args) as app:
        from core.jobs import holdings

        found = holdings.inspect(app.db)
        cli.show(
            {
                "database": found["file"],
                "schema": app.db.value("PRAGMA user_version"),
                "series": len(found["series"]),
                "signals": sum(found["signals"].values()),
            },
            as_json=args.json,
        )
    return 0


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
