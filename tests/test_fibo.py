"""Pivots and impulses agree with brute force from their definitions, and know no future."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.domain import Bools, Floats
from core.fibo import extension, impulse_start, pivot_highs, retracement

COARSE = st.lists(st.integers(0, 9), min_size=1, max_size=60)


def brute_pivots(high: Floats, w: int) -> list[int]:
    """Find pivots by their definition."""
    return [
        j
        for j in range(len(high))
        if j - w >= 0
        and j + w < len(high)
        and all(high[j] > high[k] for k in range(j - w, j + w + 1) if k != j)
    ]


@given(values=COARSE, w=st.integers(1, 6))
@settings(max_examples=200, deadline=None)
def test_pivots_agree_with_brute_force(values: list[int], w: int) -> None:
    """A pivot is strictly above every one of w neighbours on both sides; ties make none."""
    high = np.array(values, dtype=float)
    assert np.flatnonzero(pivot_highs(high, piv_window=w)).tolist() == brute_pivots(high, w)


@given(values=COARSE, w=st.integers(1, 4), k=st.integers(0, 60))
@settings(max_examples=200, deadline=None)
def test_pivots_are_known_w_bars_later_and_not_before(values: list[int], w: int, k: int) -> None:
    """With k bars known, exactly the pivots at least w bars back are known."""
    high = np.array(values, dtype=float)
    whole, part = pivot_highs(high, piv_window=w), pivot_highs(high[:k], piv_window=w)
    known = max(min(k, len(high)) - w, 0)
    np.testing.assert_array_equal(part[:known], whole[:known])
    assert not part[known:].any()


def test_a_missing_value_makes_no_pivot() -> None:
    """NaN in a neighbourhood refuses the pivot instead of granting it."""
    assert not pivot_highs(np.array([1.0, np.nan, 5, 2, 1]), piv_window=2).any()


def brute_start(
    high: Floats, low: Floats, bottoms: Bools, i_p1: int, i_floor: int, n_anchors: int
) -> int:
    """Find P0 by its definition."""
    inside = [
        j
        for j in range(i_floor, i_p1)
        if bottoms[j] and all(high[k] <= high[i_p1] for k in range(j, i_p1))
    ]
    lasting = [
        j for j in inside[-n_anchors:] if all(low[k] >= low[j] for k in range(j + 1, i_p1 + 1))
    ]
    return max(lasting, key=lambda j: (-low[j], j), default=-1)


@given(
    lows=st.lists(st.integers(0, 9), min_size=8, max_size=60),
    spans=st.lists(st.integers(0, 3), min_size=60, max_size=60),
    n_anchors=st.integers(1, 5),
    i_floor=st.integers(0, 20),
)
@settings(max_examples=300, deadline=None)
def test_impulse_start_agrees_with_brute_force(
    lows: list[int], spans: list[int], n_anchors: int, i_floor: int
) -> None:
    """P0 is the deepest of the last pivots with nothing beyond P1 or beyond P0 in between."""
    low = np.array(lows, dtype=float)
    high = low + np.array(spans[: len(lows)])
    bottoms = pivot_highs(-low, piv_window=1)
    for i_p1 in range(len(low)):
        found = impulse_start(high, low, bottoms, i_p1=i_p1, i_floor=i_floor, n_anchors=n_anchors)
        assert found == brute_start(high, low, bottoms, i_p1, i_floor, n_anchors)


def test_impulse_start_by_hand() -> None:
    """One anchor takes the nearest low; two the deeper one; a higher high between bars the way."""
    low = np.array([9.0, 1, 9, 3, 9, 9])
    high = np.array([9.5, 9, 9.5, 9, 9.5, 10])
    bottoms = np.array([False, True, False, True, False, False])
    floor = {"i_p1": 5, "i_floor": 0}
    assert impulse_start(high, low, bottoms, **floor, n_anchors=1) == 3
    assert impulse_start(high, low, bottoms, **floor, n_anchors=2) == 1
    assert impulse_start(high, low, bottoms, i_p1=5, i_floor=2, n_anchors=2) == 3
    high[2] = 10.5
    assert impulse_start(high, low, bottoms, **floor, n_anchors=2) == 3
    high[4] = 10.5
    assert impulse_start(high, low, bottoms, **floor, n_anchors=2) == -1


@given(p0=st.floats(1, 1e5), p1=st.floats(1, 1e5), ratio=st.floats(0, 3))
@settings(max_examples=100, deadline=None)
def test_levels_are_two_readings_of_one_line(p0: float, p1: float, ratio: float) -> None:
    """Giving back r of an impulse is the extension by 1 - r; 0 and 1 are the pivots."""
    tolerance = 1e-9 * (p0 + p1)
    assert retracement(p0, p1, ratio) == pytest.approx(extension(p0, p1, 1 - ratio), abs=tolerance)
    assert retracement(p0, p1, 0) == p1
    assert extension(p0, p1, 0) == p0
