"""Calibrate the newest draft: raw scores become probabilities, from out-of-fold scores only.

Example:  python calibrate_meta.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from core import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Calibrate and print the figures before and after."""
    args = cli.parser(__doc__).parse_args(argv)
    with cli.app(args) as app:
        from core.jobs import explain, learning

        figures = learning.calibrate(
            app.db, app.config, models_dir=app.models_dir, now_ms=explain.data_now_ms(app)
        )
        cli.show(figures, as_json=args.json)
    return 0


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
