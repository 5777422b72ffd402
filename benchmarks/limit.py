"""The limit: a bare compiled loop over the same arrays, which keeps nothing and explains nothing.

At every signal bar it updates Wilder's ATR, the last confirmed pivots and the AVWAP of the last
low, opens one position where the market closes above that AVWAP, and walks it on base candles to
its stop or target. No program that decides and follows trades does less per candle.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from core.domain import Candles, Floats, Ints


@njit(cache=True, nogil=True)
def bare_loop(  # noqa: C901, PLR0912 - one loop is what it is about
    ts_ms: Ints,
    high: Floats,
    low: Floats,
    close: Floats,
    volume: Floats,
    step_ms: int,
    base_ms: Ints,
    base_high: Floats,
    base_low: Floats,
    piv_window: int,
) -> tuple[int, float]:
    """Return how many trades there were and the sum of their results in R."""
    atr, peak, money, traded = high[0] - low[0], 0.0, 0.0, 0.0
    stop, target, risk, total, n_trades, j = 0.0, 0.0, 0.0, 0.0, 0, 0
    is_open = False
    n_base = len(base_ms)
    for i in range(1, len(close)):
        span = max(high[i], close[i - 1]) - min(low[i], close[i - 1])
        atr = (atr * 13.0 + span) / 14.0
        typical = (high[i] + low[i] + close[i]) / 3.0
        money += typical * volume[i]
        traded += volume[i]
        p = i - piv_window
        if p >= piv_window:
            is_peak, is_trough = True, True
            for k in range(1, piv_window + 1):
                if not (high[p] > high[p - k] and high[p] > high[p + k]):
                    is_peak = False
                if not (low[p] < low[p - k] and low[p] < low[p + k]):
                    is_trough = False
                if not (is_peak or is_trough):
                    break
            if is_peak:
                peak = high[p]
            if is_trough:
                money, traded = 0.0, 0.0
                for k in range(p, i + 1):
                    money += (high[k] + low[k] + close[k]) / 3.0 * volume[k]
                    traded += volume[k]
        if not is_open and peak > close[i] and close[i] * traded > money:
            is_open, risk = True, 3.0 * atr
            stop, target = close[i] - risk, close[i] + 1.5 * risk
            n_trades += 1
        end_ms = ts_ms[i] + 2 * step_ms
        while j < n_base and base_ms[j] < ts_ms[i] + step_ms:
            j += 1
        while is_open and j < n_base and base_ms[j] < end_ms:
            if base_low[j] <= stop:
                is_open, total = False, total - 1.0
            elif base_high[j] >= target:
                is_open, total = False, total + 1.5
            j += 1
    return n_trades, total


def walked(bars: Candles, base: Candles, *, step_ms: int) -> tuple[int, float]:
    """Run the loop over a signal timeframe's bars and the base candles below them."""
    ts_ms, _, high, low, close, volume = (np.ascontiguousarray(x) for x in bars.columns())
    n_trades, total = bare_loop(
        ts_ms, high, low, close, volume, step_ms, base.ts_ms, base.high, base.low, 5
    )
    return int(n_trades), float(total)
