"""Download the candles that are missing; or import them from files, or export them.

Resumes where it was interrupted, fetches only what is missing, and says what it could not get.

Examples:
  python download_data.py                                  # all symbols, from backfill.start_date
  python download_data.py --symbols BTC/USDT:USDT --start 2024-01-01
  python download_data.py --import data/parquet            # files or folders, Parquet or CSV
  python download_data.py --import BTCUSDT-1m-2024-01.zip --market spot
  python download_data.py --export backup_candles          # one Parquet file per symbol and year
  python download_data.py --export out --format csv --timeframes 1h 1d --start 2024-01-01

Files that --import takes, each Parquet, .csv, .csv.gz or .csv.zip, times in UTC milliseconds:
  BTC_USDT-1m-2024.parquet        spot BTC/USDT; columns timestamp, open, high, low, close, volume
  BTC_USDT_USDT-1m-2024.csv.gz    perpetual BTC/USDT:USDT
  BTCUSDT-1m-2024-01.zip, .csv    Binance's public archive, monthly or daily; spot or perpetual by
                                  its folder (spot, futures/um) or by --market
  candles-1m.parquet              many symbols: one more column, symbol, says BTC/USDT:USDT
All files are checked before the first candle is stored. Importing again skips what is in already.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core import cli
from core.errors import UsageError

if TYPE_CHECKING:
    from core.jobs.backfill_plan import Plan

_ONLY_WITH = {
    "market": "import",
    "origin": "import",
    "format": "export",
    "one_file": "export",
    "timeframes": "export",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Backfill, import or export, and print a row per symbol or file."""
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--symbols", nargs="+", default=[], metavar="S", help="not of an import: it takes all"
    )
    parser.add_argument(
        "--start",
        type=cli.day,
        help="first day, UTC (default: backfill.start_date; of files: all there is)",
    )
    parser.add_argument("--end", type=cli.day, help="day after the last one, UTC (default: now)")
    _add_file_arguments(parser)
    args = parser.parse_args(argv)
    _check_file_arguments(args)
    is_download = not (args.paths or args.export)
    with cli.app(args) as app, cli.progress(side_by_side=is_download) as progress:
        from core.jobs import backfill, files

        window = {
            "start_ms": cli.day_ms(args.start) if args.start else None,
            "until_ms": cli.day_ms(args.end) if args.end else None,
        }
        if args.paths:
            rows = files.import_paths(
                app,
                args.paths,
                **window,
                origin=args.origin or "",
                market=args.market,
                progress=progress,
            )
        elif args.export:
            rows = files.export_files(
                app,
                args.export,
                args.symbols,
                **window,
                timeframes=args.timeframes or (),
                suffix=f".{args.format or 'parquet'}",
                one_file=args.one_file,
                progress=progress,
            )
        else:
            rows = backfill.backfill(
                app,
                symbols=args.symbols or app.config.symbols,
                start_ms=cli.day_ms(args.start or app.config.backfill.start_date),
                end_ms=cli.day_ms(args.end) if args.end else None,
                progress=progress,
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


def _add_file_arguments(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument(
        "--import",
        dest="paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="store the candles of files and folders, whatever `symbols` says",
    )
    files.add_argument(
        "--market",
        choices=("spot", "swap"),
        help="what archive files hold whose folder does not say it",
    )
    files.add_argument(
        "--origin",
        type=_exchange,
        metavar="EXCHANGE",
        help="the exchange that the imported candles were traded on: binance",
    )
    files.add_argument(
        "--export",
        type=Path,
        metavar="DIR",
        help="write stored candles, a file per symbol and year",
    )
    files.add_argument("--format", choices=("parquet", "csv"), help="of an export (parquet)")
    files.add_argument(
        "--timeframes",
        nargs="+",
        type=cli.timeframe,
        metavar="TF",
        help="what to export, if not the finest candles of each symbol: 15m 1h",
    )
    files.add_argument(
        "--one-file",
        action="store_true",
        help="export all symbols into candles-1m.parquet, with a column symbol",
    )


def _check_file_arguments(args: argparse.Namespace) -> None:
    """Raise UsageError for options that do not go together."""
    if args.paths and args.export:
        raise UsageError("--import and --export exclude each other;", remedy="run it twice")
    given = {"import": bool(args.paths), "export": bool(args.export)}
    for name, other in _ONLY_WITH.items():
        if getattr(args, name) and not given[other]:
            option = name.replace("_", "-")
            raise UsageError(f"--{option} is for --{other} only;", remedy=f"add --{other}")


def _exchange(text: str) -> str:
    """Return the name of an exchange as ccxt writes it."""
    name = text.lower()
    if not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is no exchange; write binance")
    return name


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
