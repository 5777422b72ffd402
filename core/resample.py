"""Bars of a longer timeframe from bars of a shorter one, on the UTC grid."""

from __future__ import annotations

import numpy as np

from core.compiled import njit
from core.domain import Candles, Floats, Ints
from core.errors import DataError
from core.timeframe import is_derivable, tf_ms

_NO_OPENS: Ints = np.empty(0, np.int64)


def resample(base: Candles, timeframe: str, *, covered_ms: Ints = _NO_OPENS) -> Candles:
    """Return the bars of a longer timeframe that their base bars fill completely.

    A bar with a missing base bar is absent, so a partial first or last bar is too. `covered_ms`
    holds sorted opens of base bars confirmed to be without trades: they do not count as missing,
    and a bar of nothing else is absent. Prices are the same by every route (1m to 15m, or over
    5m); volume is summed in time order and agrees between routes up to float rounding only.

    Raises DataError if the timeframe is no whole multiple of the base's.
    """
    if timeframe == base.timeframe:
        return base
    if not is_derivable(timeframe, base.timeframe):
        raise DataError(
            f"{timeframe} bars cannot be made from {base.timeframe} bars;",
            remedy="use a whole multiple",
        )
    columns = _buckets(
        *base.columns(),
        covered_ms=covered_ms,
        step_ms=tf_ms(base.timeframe),
        long_ms=tf_ms(timeframe),
    )
    return Candles(timeframe, *columns)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _buckets(
    ts_ms: Ints,
    open_: Floats,
    high: Floats,
    low: Floats,
    close: Floats,
    volume: Floats,
    *,
    covered_ms: Ints,
    step_ms: int,
    long_ms: int,
) -> tuple[Ints, Floats, Floats, Floats, Floats, Floats]:
    n, n_covered, n_wanted = len(ts_ms), len(covered_ms), long_ms // step_ms
    size = min(n, (ts_ms[n - 1] - ts_ms[0]) // long_ms + 2) if n > 0 else 0
    out_ms = np.empty(size, np.int64)
    out = np.empty((5, size))
    n_out, i, i_covered = 0, 0, 0
    while i < n:
        start_ms = ts_ms[i] - ts_ms[i] % long_ms
        end_ms = start_ms + long_ms
        first, top, bottom, traded = i, high[i], low[i], 0.0
        while i < n and ts_ms[i] < end_ms:
            top = max(top, high[i])
            bottom = min(bottom, low[i])
            traded += volume[i]
            i += 1
        n_have = i - first
        while i_covered < n_covered and covered_ms[i_covered] < end_ms:
            if covered_ms[i_covered] >= start_ms:
                n_have += 1
            i_covered += 1
        if n_have == n_wanted:
            out_ms[n_out] = start_ms
            out[0, n_out], out[1, n_out], out[2, n_out] = open_[first], top, bottom
            out[3, n_out], out[4, n_out] = close[i - 1], traded
            n_out += 1
    # Copies, so that a short result does not keep the whole buffer alive.
    return (
        out_ms[:n_out].copy(),
        out[0, :n_out].copy(),
        out[1, :n_out].copy(),
        out[2, :n_out].copy(),
        out[3, :n_out].copy(),
        out[4, :n_out].copy(),
    )
