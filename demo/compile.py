"""Compile every kernel once, by running a tiny market through the whole of preparation."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from core import cli
from core.timeframe import DAY_MS
from demo.market import ASSETS, MarketSpec, generate, planted
from demo.stage import START_MS, Stage, prepare, write_candles, write_config


def main() -> int:
    """Run the tiny market; numba keeps the compiled code beside the sources."""
    cli.setup_logging("error")
    spec = planted(MarketSpec(start_ms=START_MS, days=12, seed=1, assets=ASSETS[:2]))
    with tempfile.TemporaryDirectory() as name:
        stage = Stage(
            folder=Path(name),
            symbols=tuple(asset.symbol for asset in spec.assets),
            start_ms=START_MS,
            split_ms=START_MS + 11 * DAY_MS,
            end_ms=spec.end_ms,
            banner="",
        )
        write_config(stage, speed=0, timeframes=("15m",), paper=1)
        write_candles(stage, generate(spec))
        prepare(stage, [stage.folder / "history"])
    return 0


if __name__ == "__main__":
    sys.exit(cli.guarded(lambda _: main()))
