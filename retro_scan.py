"""Scan history with the live scan's own function, follow every trade to its end, store it all.

Repeating it changes nothing. --stride and --limit-per-pair give quick looks; their rows are marked
and never used for training.

Examples:
  python retro_scan.py --start 2024-01-01 --end 2024-12-31
  python retro_scan.py --start 2024-01-01 --end 2024-02-01 --symbols BTC/USDT --timeframes 1h
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

from core import cli
from core.errors import UsageError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the retro-scan and print what it found."""
    parser = cli.parser(__doc__)
    parser.add_argument("--start", type=cli.day, required=True, help="first day, UTC")
    parser.add_argument("--end", type=cli.day, required=True, help="last day, UTC, included")
    parser.add_argument("--stride", type=cli.positive, default=1, help="decide every N-th bar only")
    parser.add_argument(
        "--limit-per-pair", type=cli.positive, default=0, help="keep the newest N per pair only"
    )
    parser.add_argument("--symbols", nargs="+", default=[], metavar="S")
    parser.add_argument("--timeframes", nargs="+", type=cli.timeframe, default=[], metavar="TF")
    parser.add_argument("--workers", type=cli.positive, default=0, help="processes (default: all)")
    parser.add_argument("--dry-run", action="store_true", help="store nothing")
    args = parser.parse_args(argv)
    if args.end < args.start:
        raise UsageError(f"--end {args.end} lies before --start {args.start};", remedy="swap them")
    with cli.app(args) as app, cli.progress() as progress:
        from core.jobs import retro

        report = retro.retro_scan(
            app,
            start_ms=cli.day_ms(args.start),
            end_ms=cli.day_ms(args.end) + 86_400_000,
            symbols=args.symbols,
            timeframes=args.timeframes,
            stride=args.stride,
            limit_per_pair=args.limit_per_pair,
            workers=args.workers,
            dry_run=args.dry_run,
            progress=progress,
        )
        cli.show(report.as_dict(), as_json=args.json)
    return 0


if __name__ == "__main__":
    gc.disable()  # a chunk leaves no cycles, and searching Numba's objects for some takes 0.2 s
    code = cli.guarded(main)
    gc.freeze()  # nor is there a point in searching what ends with the process: 0.1 s
    sys.exit(code)
