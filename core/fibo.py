"""Local pivots, the impulse between two of them, and the levels drawn on it."""

from __future__ import annotations

import numpy as np

from core.compiled import njit
from core.domain import Bools, Floats, Ints, Price


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def pivot_highs(high: Floats, *, piv_window: int) -> Bools:
    """Mark the bars strictly higher than every one of the `piv_window` bars on either side.

    Shapes (n,). A mark at bar j is known only at bar j + piv_window: use it from there. Bars
    without a full neighbourhood are never marked. Pass negated lows for pivot lows.

    >>> pivot_highs(np.array([1.0, 2, 5, 3, 1]), piv_window=2)
    array([False, False,  True, False, False])
    """
    out = np.zeros(len(high), dtype=np.bool_)
    for j in range(piv_window, len(high) - piv_window):
        is_peak = True
        for k in range(1, piv_window + 1):
            # Written so that a NaN neighbour refuses the pivot instead of granting it.
            if not (high[j] > high[j - k] and high[j] > high[j + k]):
                is_peak = False
                break
        out[j] = is_peak
    return out


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def impulse_start(
    ahead: Floats, behind: Floats, bottoms: Bools, i_p1: int, i_floor: int, n_anchors: int
) -> int:
    """Return the bar of P0 for the impulse that ends at P1, or -1 if there is none.

    P0 is the most extreme of the last `n_anchors` opposite pivots at or after `i_floor`, with
    nothing beyond P1 from P0's bar on and nothing beyond P0 up to P1's bar; of equals the latest.

    Shapes (n,). For an up-impulse `ahead` is high, `behind` is low and `bottoms` marks pivot lows;
    for a down-impulse `ahead` is -low, `behind` is -high and `bottoms` marks pivot highs.
    """
    best, n_seen = -1, 0
    extreme = behind[i_p1]  # the furthest behind of the bars after j
    for j in range(i_p1 - 1, i_floor - 1, -1):
        if ahead[j] > ahead[i_p1] or n_seen == n_anchors:
            break
        if bottoms[j]:
            n_seen += 1
            is_deepest = best < 0 or behind[j] < behind[best]
            if is_deepest and behind[j] <= extreme:
                best = j
        extreme = min(extreme, behind[j])
    return best


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def impulse_starts(
    ahead: Floats, behind: Floats, bottoms: Bools, i_p1: Ints, i_floor: Ints, *, n_anchors: int
) -> Ints:
    """Return `impulse_start` for each P1 and its floor."""
    out = np.empty(len(i_p1), np.int64)
    for k in range(len(i_p1)):
        out[k] = impulse_start(ahead, behind, bottoms, i_p1[k], i_floor[k], n_anchors)
    return out


def retracement(p0: Price, p1: Price, ratio: float) -> Price:
    """Return the price that gives back `ratio` of the impulse; 0 is P1 and 1 is P0.

    >>> retracement(100.0, 200.0, 0.25)
    175.0
    """
    return p1 - ratio * (p1 - p0)


def extension(p0: Price, p1: Price, ratio: float) -> Price:
    """Return the price `ratio` impulses away from P0; 1 is P1.

    >>> extension(100.0, 200.0, 1.5)
    250.0
    """
    return p0 + ratio * (p1 - p0)
