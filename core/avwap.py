"""The volume-weighted average price summed forward from an anchor bar."""

from __future__ import annotations

import numpy as np

from core.compiled import njit
from core.domain import Floats, Ints


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def avwap(high: Floats, low: Floats, close: Floats, volume: Floats, i_anchor: int) -> Floats:
    """Return the mean of (high + low + close) / 3 since the anchor, weighted by volume.

    Shapes (n,), price units; NaN before the anchor. While nothing was traded since the anchor the
    bars count equally.
    """
    out = np.full(len(close), np.nan)
    money, traded, plain = 0.0, 0.0, 0.0
    for i in range(i_anchor, len(close)):
        typical = (high[i] + low[i] + close[i]) / 3.0
        money += typical * volume[i]
        traded += volume[i]
        plain += typical
        out[i] = money / traded if traded > 0 else plain / (i - i_anchor + 1)
    return out


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def first_reclaim(
    ahead: Floats,
    behind: Floats,
    gap: Floats,
    i_p0: int,
    i_p1: int,
    i_confirmed: int,
    i_last: int,
) -> int:
    """Return the first bar that closes back across the AVWAP of P0, or -1.

    Looks at bars `i_confirmed` to `i_last`: one must close behind the AVWAP and a later one ahead
    of it. The impulse is void, and the answer -1, once a bar after P1 trades beyond P1 or P0.
    `gap` is close minus AVWAP, signed so that above 0 is ahead; `ahead` and `behind` are as in
    `fibo.impulse_start`. Shapes (n,).
    """
    was_behind = False
    for i in range(i_p1 + 1, i_last + 1):
        if ahead[i] > ahead[i_p1] or behind[i] < behind[i_p0]:
            return -1
        if i < i_confirmed:
            continue
        if was_behind and gap[i] > 0:
            return i
        if gap[i] < 0:
            was_behind = True
    return -1


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def last_avwaps(
    high: Floats, low: Floats, close: Floats, volume: Floats, first: Ints, end: Ints
) -> Floats:
    """Return, for each run of bars `first[k]` to `end[k] - 1`, its AVWAP anchored at its start."""
    out = np.empty(len(end))
    for k in range(len(end)):
        part = slice(first[k], end[k])
        line = avwap(high[part], low[part], close[part], volume[part], 0)
        out[k] = line[len(line) - 1]
    return out


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def reclaim_bars(
    high: Floats,
    low: Floats,
    close: Floats,
    volume: Floats,
    i_p0: Ints,
    i_p1: Ints,
    i_last: Ints,
    *,
    side: int,
    n_confirming: int,
) -> Ints:
    """Return `first_reclaim` of each impulse, looking at the bars from its P0 to `i_last` only.

    P1 is known `n_confirming` bars after it. Bar indices throughout; `side` is +1 or -1.
    """
    out = np.full(len(i_p0), -1, np.int64)
    for k in range(len(i_p0)):
        start = i_p0[k]
        part = slice(start, i_last[k] + 1)
        line = avwap(high[part], low[part], close[part], volume[part], 0)
        i_bar = first_reclaim(
            high[part] if side > 0 else -low[part],
            low[part] if side > 0 else -high[part],
            side * (close[part] - line),
            0,
            i_p1[k] - start,
            i_p1[k] + n_confirming - start,
            i_last[k] - start,
        )
        if i_bar >= 0:
            out[k] = i_bar + start
    return out
