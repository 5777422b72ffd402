"""Derived bars by pandas: an independent reading of the resample law."""

from __future__ import annotations

import numpy as np
import pandas as pd

from core.domain import Candles
from core.timeframe import tf_ms


def pandas_bars(base: Candles, timeframe: str) -> pd.DataFrame:
    """Complete groups only, on the UTC grid."""
    names = ["ts_ms", "open", "high", "low", "close", "volume"]
    frame = pd.DataFrame(dict(zip(names, base.columns(), strict=True)))
    groups = frame.groupby(frame.ts_ms - frame.ts_ms % tf_ms(timeframe))
    bars = groups.agg(
        open=("open", "first"),
        high=("high", "max"),
        low=("low", "min"),
        close=("close", "last"),
        volume=("volume", "sum"),
    )
    return bars[groups.size() == tf_ms(timeframe) // tf_ms(base.timeframe)]


def assert_same(bars: Candles, expected: pd.DataFrame) -> None:
    """Assert equality: exact in opens and prices, up to rounding in volume."""
    assert bars.ts_ms.tolist() == expected.index.tolist()
    for name in ("open", "high", "low", "close"):
        np.testing.assert_array_equal(getattr(bars, name), expected[name])
    np.testing.assert_allclose(bars.volume, expected.volume, rtol=1e-12)
