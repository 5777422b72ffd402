"""Scan every closed bar that was not scanned yet, and store its candidates.

--explain prints the funnel of the last days: bars, setups, refusals, gate, picks, guards and
delivery, each step with its share of the one before, in all, by series and by day; and the nearest
miss of each test: the setup it kept back that came closest.

Examples:
  python scan_signals.py
  python scan_signals.py --symbols BTC/USDT:USDT --timeframes 1h --dry-run --explain --days 30
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from core import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run one scan and print what it found."""
    parser = cli.parser(__doc__)
    parser.add_argument("--symbols", nargs="+", default=[], metavar="S")
    parser.add_argument("--timeframes", nargs="+", type=cli.timeframe, default=[], metavar="TF")
    parser.add_argument("--dry-run", action="store_true", help="store nothing")
    parser.add_argument("--explain", action="store_true", help="print the funnel of the last days")
    parser.add_argument("--days", type=cli.positive, default=7, help="how many, today included")
    args = parser.parse_args(argv)
    with cli.app(args) as app:
        from core.jobs import explain, funnel, scan

        cli.check_known("symbol", args.symbols, app.config.symbols)
        cli.check_known("timeframe", args.timeframes, app.config.timeframes)
        report = scan.scan_all(
            app,
            now_ms=explain.market_now_ms(app),
            symbols=args.symbols,
            timeframes=args.timeframes,
            dry_run=args.dry_run,
        )
        result = report.as_dict()
        if args.explain:
            result |= funnel.funnel(
                app, symbols=args.symbols, timeframes=args.timeframes, days=args.days
            )
        cli.show(result, as_json=args.json)
    return 0


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
