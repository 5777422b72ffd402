"""The volume-weighted average price summed forward from an anchor bar."""

from __future__ import annotations

import numpy as np
from numba import njit

from core.domain import Floats


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def avwap(high: Floats, low: Floats, close: Floats, volume: Floats, *, i_anchor: int) -> Floats:
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
    *,
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
