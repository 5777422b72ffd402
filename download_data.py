"""Download the candles that are missing; or import them from files, or export them.

Resumes where it was interrupted, fetches only what is missing, and says what it could not get.

Examples:
  python download_data.py                                  # all symbols, from backfill.start_date
  python download_data.py --symbols BTC/USDT:USDT --start 2024-01-01
  python download_data.py --import data/parquet            # files or folders, Parquet or CSV
  python download_data.py --export backup_candles          # one Parquet file per symbol
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core import cli
from core.errors import UsageError

if TYPE_CHECKING:
    from core.jobs.backfill import Plan


def main(argv: Sequence[str] | None = None) -> int:
    """Backfill, import or export, and print a row per symbol or file."""
    parser = cli.parser(__doc__)
    parser.add_argument("--symbols", nargs="+", default=[], metavar="S")
    parser.add_argument(
        "--start", type=cli.day, help="first day, UTC (default: backfill.start_date)"
    )
    parser.add_argument("--end", type=cli.day, help="day after the last one, UTC (default: now)")
    parser.add_argument("--import", dest="paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument("--export", type=Path, metavar="DIR")
    args = parser.parse_args(argv)
    if args.paths and args.export:
        raise UsageError("--import and --export exclude each other;", remedy="run it twice")
    with cli.app(args) as app, cli.progress() as progress:
        from core.jobs import backfill, files

        if args.paths:
            rows = files.import_files(app, args.paths, progress=progress)
        elif args.export:
            rows = files.export_files(app, args.export, args.symbols)
        else:
            with cli.progress_side_by_side() as progress_of_each:
                rows = backfill.backfill(
                    app,
                    symbols=args.symbols or app.config.symbols,
                    start_ms=cli.day_ms(args.start or app.config.backfill.start_date),
                    end_ms=cli.day_ms(args.end) if args.end else None,
                    progress=progress_of_each,
                    announce=_announce,
                )
    if not args.json:
        rows = [
            {k: cli.when(v) if k.endswith("_ms") else v for k, v in row.items()} for row in rows
        ]
    cli.show(rows if rows or args.json else "nothing to do", as_json=args.json)
    return 1 if any(row.get("error") for row in rows) else 0


def _announce(plan: Plan) -> None:
    """Say what the download will cost before it begins."""
    sys.stderr.write(
        f"{plan.n_symbols} symbols, history from {cli.when(plan.first_ms)} UTC:"
        f" {plan.n_bars:,} candles are missing, about {plan.n_requests:,} requests,"
        f" {cli.span(plan.seconds)}, {plan.n_bytes / 1e6:,.0f} MB on disk\n"
    )


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
