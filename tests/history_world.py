"""Candles that need every bit, written to files, for tests of history."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from core import candle_files
from core.app import App
from core.domain import Candles
from core.timeframe import MINUTE_MS, tf_ms
from tests.engine_world import opened, write_config
from tests.worlds import MONDAY_MS, random_candles

RECORDED = Path(
    os.environ.get("TRADER_RECORDED", Path(__file__).parents[2] / "shared" / "data" / "ohlcv")
)
MONTH = "BTCUSDT-1m-2024-01"
SWAP, SPOT = "BTC/USDT:USDT", "BTC/USDT"
ARCHIVE_HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,"
    "taker_buy_quote_volume,ignore"
)
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


def archived(bars: Candles, *, unit: int = 1, header: bool = False) -> bytes:
    """Bars as an exchange's archive writes them: twelve columns, times in ms or finer units."""
    lines = [ARCHIVE_HEADER] if header else []
    step = tf_ms(bars.timeframe)
    for ts_ms, *row in zip(*(column.tolist() for column in bars.columns()), strict=True):
        close_time = (ts_ms + step) * unit - 1
        lines.append(
            f"{ts_ms * unit},{','.join(map(repr, row))},{close_time},1.5,3,0.50000000,0.7,0"
        )
    return ("\n".join(lines) + "\n").encode()


def zipped(path: Path, **members: bytes) -> Path:
    """A zip of some files, named NAME.csv."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.csv", content)
    return path


def engine(folder: Path, **settings: Any) -> App:
    """An engine without an exchange."""
    return opened(write_config(folder, symbols=[SWAP], **{**DERIVED, **settings}))


def at(minute: int) -> int:
    """A minute of the test's world."""
    return MONDAY_MS + minute * MINUTE_MS
