"""Measure what the followed trades earned, with intervals, and write it where others can read it.

Writes report.html (opens without a network), metrics.json, every trade and equity curve as CSV, and
one CSV per breakdown.

Examples:
  python analyze_results.py
  python analyze_results.py --start 2024-01-01 --end 2024-12-31 --out reports/2024
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from core import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Compute the figures, write the files and print the headline."""
    parser = cli.parser(__doc__)
    parser.add_argument("--start", type=cli.day, help="first day of the decisions, UTC")
    parser.add_argument("--end", type=cli.day, help="last day, UTC, included")
    parser.add_argument("--out", type=Path, default=Path("reports"), metavar="DIR")
    args = parser.parse_args(argv)
    with cli.reader(args) as (config, db):
        from core.config import strategy_id
        from core.report import FILES, write_report

        written = write_report(
            db.path,
            args.out,
            strategy=strategy_id(config),
            start_ms=cli.day_ms(args.start) if args.start else None,
            end_ms=cli.day_ms(args.end) + 86_400_000 if args.end else None,
            zone=config.app.timezone,
        )
    cli.show(written.figures if args.json else written.table, as_json=args.json)
    if not args.json:
        cli.show(f"\n{written.gate}", as_json=False)
        cli.show(f"written to {args.out}: {FILES}", as_json=False)
    return 0


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
