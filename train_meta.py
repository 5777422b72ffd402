"""Train the meta-model on every matured candidate: a draft, with walk-forward scores.

Example:  python train_meta.py && python calibrate_meta.py && python tune_thresholds.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from core import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Train and print the figures."""
    args = cli.parser(__doc__).parse_args(argv)
    with cli.app(args) as app, cli.progress() as progress:
        from core.jobs import explain, learning

        figures = learning.train(
            app.db,
            app.config,
            models_dir=app.models_dir,
            now_ms=explain.data_now_ms(app),
            progress=progress,
        )
        cli.show(figures, as_json=args.json)
    return 0


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
