"""Candles that need every bit, written to files, for tests of history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from core import candle_files
from core.app import App
from core.domain import Candles
from core.timeframe import MINUTE_MS
from tests.engine_world import opened, write_config
from tests.worlds import MONDAY_MS, random_candles

SWAP, SPOT = "BTC/USDT:USDT", "BTC/USDT"
DERIVED: dict[str, Any] = {
    "data": {"derived_timeframes": ["5m", "15m", "1h"]},
    "timeframes": ["15m"],
}


def bits(n: int, seed: int, timeframe: str = "1m") -> Candles:
    """Lawful candles whose prices need every bit."""
    bars = random_candles(n, seed, timeframe)
    rng = np.random.default_rng(seed)
    for column in bars.columns()[1:5]:
        np.multiply(column, np.pi, out=column)
    bars.volume[:] = rng.uniform(0, 1, n)
    return bars


def written(folder: Path, *series: tuple[str, Candles], year: int | None = None) -> Path:
    """A folder of candle files."""
    for symbol, bars in series:
        candle_files.write(folder / candle_files.name_of(symbol, bars.timeframe, year=year), bars)
    return folder


def engine(folder: Path, **settings: Any) -> App:
    """An engine without an exchange."""
    return opened(write_config(folder, symbols=[SWAP], **{**DERIVED, **settings}))


def at(minute: int) -> int:
    """A minute of the test's world."""
    return MONDAY_MS + minute * MINUTE_MS
