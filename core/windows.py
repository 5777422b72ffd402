"""What a decision may read: the arrays of a series, and the window of each decision in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from core.domain import Candles, Ints, Market, Series
from core.market_context import NOTHING_STORED, MarketContext
from core.timeframe import tf_ms

NOISE_BARS = 240  # base bars whose median span is the noise of a series


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanInput:
    """All that is known of one series; arrays may reach past the bars that are decided.

    `bars` are the signal timeframe's, `higher` the two context timeframes' (see
    `timeframe.higher_timeframes`), `base` the finest ones stored (noise and tick), `leader` the
    leader's on the signal timeframe, None when it is this series or absent. `missing_ms` holds the
    sorted opens of base bars that are missing or unknown, `seams_ms` the sorted opens from which on
    bars come from another market. `context` may reach past them as well.
    """

    series: Series
    bars: Candles
    higher: tuple[Candles, Candles]
    base: Candles
    leader: Candles | None
    market: Market
    missing_ms: Ints
    seams_ms: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    context: MarketContext = NOTHING_STORED


class Windows(NamedTuple):
    """One window of `bars` per decision: the bars `first[k]` to `end[k] - 1`."""

    bars: Candles
    first: Ints
    end: Ints


def ending_at(bars: Candles, i_bar: Ints, n_bars: int) -> Windows:
    """Return the last `n_bars` bars up to each bar; fewer where the arrays begin later."""
    return Windows(bars, np.maximum(0, i_bar - n_bars + 1), i_bar + 1)


def latest(bars: Candles, instant_ms: Ints, n_bars: int) -> Windows:
    """Return the last `n_bars` bars known at each instant; a bar is known at its close."""
    last_open_ms = instant_ms - tf_ms(bars.timeframe)
    end = np.searchsorted(bars.ts_ms, last_open_ms, side="right").astype(np.int64)
    return Windows(bars, np.maximum(0, end - n_bars), end)
