"""Find the thresholds that can be proved, then promote the draft or keep the champion.

--mode ev tunes the least expected value, p the least win probability (default: as configured).

Examples:
  python tune_thresholds.py
  python tune_thresholds.py --mode p --window-days 180 --dry-run
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from core import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Tune and print what was certified and what was not."""
    parser = cli.parser(__doc__)
    parser.add_argument("--mode", choices=("ev", "p"))
    parser.add_argument("--window-days", type=cli.positive)
    parser.add_argument("--dry-run", action="store_true", help="change nothing")
    args = parser.parse_args(argv)
    with cli.app(args) as app:
        from core.jobs import explain, learning

        figures = learning.tune(
            app.db,
            app.config,
            models_dir=app.models_dir,
            config_path=app.config_path,
            now_ms=explain.data_now_ms(app),
            mode=args.mode,
            window_days=args.window_days,
            dry_run=args.dry_run,
        )
        cli.show(figures, as_json=args.json)
    return 0


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
