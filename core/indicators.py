"""Causal measures of a window of bars: true range, ATR, EMA, efficiency, rank and mean.

Every sum runs in array order, so a slice and a copy of it give the same bits. The functions at the
end measure many windows in one call; window k is the bars `first[k]` to `end[k] - 1`. A compiled
function calls those of its own file only: the cache on disk does not see changes in another.
"""

from __future__ import annotations

import numpy as np

from core.compiled import njit
from core.domain import Floats, Ints


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def true_range(high: Floats, low: Floats, close: Floats) -> Floats:
    """Return each bar's true range, in price units.

    Shapes (n,), no NaN. Bar 0 has no previous close, so it is its own span;
    value i depends on bars i-1 and i only.

    Source: Wilder 1978, New Concepts in Technical Trading Systems, ch. 3.

    >>> true_range(np.array([11.0, 12]), np.array([10.0, 11]), np.array([10.0, 12]))
    array([1., 2.])
    """
    out = np.empty(len(close))
    for i in range(len(close)):
        before = close[i - 1] if i > 0 else close[0]
        if i == 0:
            out[i] = high[i] - low[i]
        else:
            out[i] = max(high[i], before) - min(low[i], before)
    return out


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def atr(high: Floats, low: Floats, close: Floats, period: int) -> Floats:
    """Return Wilder's average true range, in price units.

    Shapes (n,). The first value, at bar `period - 1`, is the mean of the first `period` true
    ranges; bars before it are NaN. The recursion starts at the array's first bar, so the same
    bar in a longer array has another value: pass the decision's own window.

    Source: Wilder 1978, ch. 3.
    """
    ranges = true_range(high, low, close)
    out = np.full(len(close), np.nan)
    if len(close) < period:
        return out
    total = 0.0
    for i in range(period):
        total += ranges[i]
    out[period - 1] = total / period
    for i in range(period, len(close)):
        out[i] = (out[i - 1] * (period - 1) + ranges[i]) / period
    return out


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def ema(values: Floats, period: int) -> Floats:
    """Return the exponential mean with weight 2 / (period + 1), started at the first value.

    Shapes (n,), no warm-up: value 0 is the input's own, so early values lean on it.
    """
    out = np.empty(len(values))
    weight = 2.0 / (period + 1)
    for i in range(len(values)):
        out[i] = values[i] if i == 0 else out[i - 1] + weight * (values[i] - out[i - 1])
    return out


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def efficiency(close: Floats, span: int) -> float:
    """Return the signed efficiency ratio of the last `span` changes: net move over path, -1 to 1.

    NaN with fewer than span + 1 values; 0 if nothing moved.

    Source: Kaufman 1995, Smarter Trading, ch. 3 (there without the sign).
    """
    n = len(close)
    if n <= span:
        return np.nan
    path = 0.0
    for i in range(n - span, n):
        path += abs(close[i] - close[i - 1])
    return (close[n - 1] - close[n - 1 - span]) / path if path > 0 else 0.0


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def rank_of_last(values: Floats) -> float:
    """Return where the last value stands among all finite ones, in (0, 1); ties count half.

    NaN if the last value is NaN or stands alone.
    """
    last = values[len(values) - 1] if len(values) > 0 else np.nan
    below, n = 0.0, 0
    for value in values:
        if np.isnan(value):
            continue
        n += 1
        if value < last:
            below += 1.0
        elif value == last:
            below += 0.5
    return np.nan if np.isnan(last) or n < 2 else below / n


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def mean(values: Floats) -> float:
    """Return the mean, summed in array order; NaN of nothing."""
    total = 0.0
    for value in values:
        total += value
    return total / len(values) if len(values) > 0 else np.nan


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def median_span(high: Floats, low: Floats) -> float:
    """Return the median of high minus low, in price units; NaN of nothing."""
    return np.median(high - low) if len(high) > 0 else np.nan


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def path_length(close: Floats) -> float:
    """Return the sum of absolute changes, in price units; 0 with fewer than two values."""
    total = 0.0
    for i in range(1, len(close)):
        total += abs(close[i] - close[i - 1])
    return total


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def last_atr(high: Floats, low: Floats, close: Floats, period: int) -> float:
    """Return the last value of `atr`, to the bit, without the line; NaN while it warms up."""
    if len(close) < period:
        return np.nan
    value: float = high[0] - low[0]
    for i in range(1, period):
        value += max(high[i], close[i - 1]) - min(low[i], close[i - 1])
    value /= period
    for i in range(period, len(close)):
        span = max(high[i], close[i - 1]) - min(low[i], close[i - 1])
        value = (value * (period - 1) + span) / period
    return value


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def last_atrs(
    high: Floats, low: Floats, close: Floats, first: Ints, end: Ints, *, period: int
) -> Floats:
    """Return `last_atr` of each window."""
    out = np.empty(len(end))
    for k in range(len(end)):
        if k > 0 and first[k] == first[k - 1] and end[k] == end[k - 1]:
            out[k] = out[k - 1]
            continue
        part = slice(first[k], end[k])
        out[k] = last_atr(high[part], low[part], close[part], period)
    return out


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def spans_above(
    high: Floats, low: Floats, first: Ints, end: Ints, least: Floats, *, times: float
) -> Floats:
    """Return `median_span` of each window where `times` it is more than `least`, else 0.

    Few windows need the median itself: where more than half of the spans are not above `least`,
    it is not either.
    """
    out = np.zeros(len(end))
    for k in range(len(end)):
        n_calm = 0
        for i in range(first[k], end[k]):
            n_calm += times * (high[i] - low[i]) <= least[k]
        if n_calm <= (end[k] - first[k]) // 2:
            part = slice(first[k], end[k])
            span = median_span(high[part], low[part])
            out[k] = span if times * span > least[k] else 0.0
    return out


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def trends(
    close: Floats,
    first: Ints,
    end: Ints,
    size: Floats,
    *,
    ema_bars: int,
    slope_bars: int,
    travel_bars: int,
) -> Floats:
    """Return distance from the EMA, its slope over `slope_bars`, and the efficiency; (n, 3).

    The first two in units of `size`, the window's ATR; NaN where it is shorter than they need or
    its ATR is not above 0.
    """
    out = np.full((len(end), 3), np.nan)
    for k in range(len(end)):
        if k > 0 and first[k] == first[k - 1] and end[k] == end[k - 1]:
            out[k] = out[k - 1]
            continue
        part, n = slice(first[k], end[k]), end[k] - first[k]
        out[k, 2] = efficiency(close[part], travel_bars)
        if n < ema_bars or not size[k] > 0:
            continue
        line = ema(close[part], ema_bars)
        out[k, 0] = (close[end[k] - 1] - line[n - 1]) / size[k]
        if n >= ema_bars + slope_bars:
            out[k, 1] = (line[n - 1] - line[n - 1 - slope_bars]) / size[k]
    return out


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def activities(
    high: Floats,
    low: Floats,
    close: Floats,
    first: Ints,
    end: Ints,
    *,
    period: int,
    short_bars: int,
    long_bars: int,
) -> Floats:
    """Return the rank of the last ATR, and the short over the long mean of true ranges; (n, 2).

    The rank is that of the ATR as a fraction of price within the window, as `rank_of_last`.
    """
    out = np.empty((len(end), 2))
    for k in range(len(end)):
        part = slice(first[k], end[k])
        line = atr(high[part], low[part], close[part], period)
        ranges = true_range(high[part], low[part], close[part])
        out[k, 0] = rank_of_last(line / close[part])
        out[k, 1] = mean(ranges[-short_bars:]) / mean(ranges[-long_bars:])
    return out


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def means(values: Floats, first: Ints, end: Ints) -> Floats:
    """Return `mean` of each window."""
    out = np.empty(len(end))
    for k in range(len(end)):
        out[k] = mean(values[first[k] : end[k]])
    return out


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def path_lengths(close: Floats, first: Ints, end: Ints) -> Floats:
    """Return `path_length` of each window."""
    out = np.empty(len(end))
    for k in range(len(end)):
        out[k] = path_length(close[first[k] : end[k]])
    return out


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def furthest(high: Floats, low: Floats, first: Ints, end: Ints, side: Ints) -> Floats:
    """Return each window's lowest low where its side is above 0, else its highest high."""
    out = np.empty(len(end))
    for k in range(len(end)):
        part = slice(first[k], end[k])
        out[k] = low[part].min() if side[k] > 0 else high[part].max()
    return out
