"""Indicators are causal, and agree with slow oracles written from their definitions."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.avwap import avwap, first_reclaim
from core.domain import Floats
from core.indicators import (
    activities,
    atr,
    efficiency,
    ema,
    furthest,
    last_atrs,
    mean,
    means,
    median_span,
    path_length,
    path_lengths,
    rank_of_last,
    spans_above,
    trends,
    true_range,
)
from core.regime import EFFICIENCY_BARS, regimes
from tests.worlds import random_candles


@pytest.mark.parametrize("n", [1, 5, 14, 15, 200])
def test_ranges_and_means_agree_with_pandas(n: int) -> None:
    """True range, Wilder's ATR and the EMA are what pandas makes of their definitions."""
    bars = random_candles(n, seed=1)
    frame = pd.DataFrame({"h": bars.high, "l": bars.low, "c": bars.close})
    before = frame.c.shift()
    spans = pd.concat(
        [frame.h - frame.l, (frame.h - before).abs(), (frame.l - before).abs()], axis=1
    )
    expected_tr = spans.max(axis=1)
    np.testing.assert_array_equal(true_range(bars.high, bars.low, bars.close), expected_tr)

    expected_atr = np.full(n, np.nan)
    if n >= 14:
        seeded = expected_tr.copy()
        seeded[13] = expected_tr[:14].mean()
        expected_atr[13:] = seeded[13:].ewm(alpha=1 / 14, adjust=False).mean()
    found = atr(bars.high, bars.low, bars.close, period=14)
    np.testing.assert_allclose(found, expected_atr, rtol=1e-12)

    expected_ema = frame.c.ewm(span=50, adjust=False).mean()
    np.testing.assert_allclose(ema(bars.close, period=50), expected_ema, rtol=1e-12)


def test_atr_by_hand() -> None:
    """The first value is the plain mean, the next is (2 x it + the new range) / 3."""
    high = np.array([11.0, 12, 14, 13])
    low = np.array([10.0, 11, 12, 10])
    close = np.array([10.0, 12, 13, 11])
    # ranges 1, 2, 2, 3; mean of three 5/3; then (2 * 5/3 + 3) / 3 = 19/9
    np.testing.assert_allclose(
        atr(high, low, close, period=3), [np.nan, np.nan, 5 / 3, 19 / 9], rtol=1e-15
    )


@given(k=st.integers(1, 299), seed=st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_prefix(k: int, seed: int) -> None:
    """What an indicator says of the first k bars does not change when more are known."""
    bars = random_candles(300, seed=seed)
    h, low, c, v = bars.high, bars.low, bars.close, bars.volume
    pairs = [
        (true_range(h, low, c), true_range(h[:k], low[:k], c[:k])),
        (atr(h, low, c, period=14), atr(h[:k], low[:k], c[:k], period=14)),
        (ema(c, period=50), ema(c[:k], period=50)),
        (
            avwap(h, low, c, v, i_anchor=k // 2),
            avwap(h[:k], low[:k], c[:k], v[:k], i_anchor=k // 2),
        ),
    ]
    for whole, part in pairs:
        np.testing.assert_array_equal(whole[:k], part)


def test_efficiency_by_hand() -> None:
    """A straight fall is -1, a return to the start 0, and half the way back a third."""
    assert efficiency(np.array([9.0, 5, 4, 3, 2]), span=3) == -1
    assert efficiency(np.array([1.0, 2, 1]), span=2) == 0
    assert efficiency(np.array([0.0, 2, 1]), span=2) == pytest.approx(1 / 3)
    assert efficiency(np.array([4.0, 4, 4]), span=2) == 0
    assert np.isnan(efficiency(np.array([0.0, 2, 1]), span=3))


def test_rank_by_hand() -> None:
    """The rank counts ties half, leaves NaN out, and is NaN where nothing can be compared."""
    assert rank_of_last(np.array([np.nan, 1, 2, 3, 4])) == 3.5 / 4
    assert rank_of_last(np.array([4.0, 3, 2, 1])) == 0.5 / 4
    assert rank_of_last(np.array([5.0, 5])) == 0.5
    assert np.isnan(rank_of_last(np.array([np.nan, 1.0])))
    assert np.isnan(rank_of_last(np.array([1.0, np.nan])))


def test_mean_and_path_by_hand() -> None:
    """The mean of nothing is NaN; the path adds every step whatever its sign."""
    assert mean(np.array([1.0, 2, 6])) == 3
    assert np.isnan(mean(np.empty(0)))
    assert path_length(np.array([1.0, 4, 2])) == 5
    assert path_length(np.array([1.0])) == 0


@given(spans=st.lists(st.integers(0, 99), min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_median_span_agrees_with_the_sorted_middle(spans: list[int]) -> None:
    """Half the spans are at or below it, half at or above; two middles are averaged."""
    ordered, n = sorted(spans), len(spans)
    low = np.full(n, 7.0)
    expected = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    assert median_span(low + np.array(spans), low) == expected


def test_avwap_is_the_weighted_mean_since_its_anchor() -> None:
    """Every value is sum(typical x volume) / sum(volume) from the anchor, NaN before it."""
    bars = random_candles(80, seed=4)
    typical = (bars.high + bars.low + bars.close) / 3
    line = avwap(bars.high, bars.low, bars.close, bars.volume, i_anchor=20)
    assert np.isnan(line[:20]).all()
    for i in (20, 21, 50, 79):
        expected = np.average(typical[20 : i + 1], weights=bars.volume[20 : i + 1])
        assert line[i] == pytest.approx(expected, rel=1e-12)


def test_avwap_without_volume_is_the_plain_mean() -> None:
    """Bars count equally until something is traded; then only what was traded counts."""
    price = np.array([3.0, 5, 10, 20])
    line = avwap(price, price, price, np.array([0.0, 0, 2, 2]), i_anchor=0)
    assert line.tolist() == [3, 4, 10, 15]


def test_first_reclaim_needs_a_close_behind_first() -> None:
    """It is the first close ahead after one behind, both once P1 is known, unless void before."""
    high = np.array([0.0, 9, 8, 8, 8, 8, 8])
    low = np.array([1.0, 5, 5, 5, 5, 5, 5])
    gap = np.array([0.0, 1, -1, 1, -1, 0, 1])
    where = {"i_p0": 0, "i_p1": 1, "i_last": 6}
    assert first_reclaim(high, low, gap, **where, i_confirmed=2) == 3
    assert first_reclaim(high, low, gap, **where, i_confirmed=3) == 6
    assert first_reclaim(high, low, gap, i_p0=0, i_p1=1, i_confirmed=3, i_last=5) == -1
    assert first_reclaim(high, low, np.abs(gap), **where, i_confirmed=2) == -1
    beyond_p1, beyond_p0 = high.copy(), low.copy()
    beyond_p1[4], beyond_p0[4] = 9.5, 0.5
    assert first_reclaim(beyond_p1, low, gap, **where, i_confirmed=3) == -1
    assert first_reclaim(high, beyond_p0, gap, **where, i_confirmed=3) == -1
    assert first_reclaim(beyond_p1, low, gap, **where, i_confirmed=2) == 3
    before_known = low.copy()
    before_known[2] = 0.5
    assert first_reclaim(high, before_known, gap, **where, i_confirmed=3) == -1


def regime(close: Floats, line: Floats) -> str:
    """The state a window ends in, from its closes and their ATR."""
    travel, rank = efficiency(close, span=EFFICIENCY_BARS), rank_of_last(line / close)
    return regimes(np.array([travel]), np.array([rank]))[0]


def test_regime_words() -> None:
    """A straight line is a trend, a zigzag a range; volatility is ranked within its own window."""
    line = np.arange(100.0, 160)
    zigzag: Floats = 100 + np.arange(60.0) % 2
    rising, falling = np.arange(1.0, 61), np.arange(60.0, 0, -1)
    assert regime(line, rising * line) == "trend/vol_high"
    assert regime(line[::-1].copy(), falling * line[::-1]) == "trend/vol_low"
    assert regime(zigzag, rising * zigzag) == "range/vol_high"
    middle: Floats = np.append(rising, 30.5) * np.append(zigzag, 100.0)
    assert regime(np.append(zigzag, 100.0), middle) == "range/vol_normal"
    assert regime(line[:10], np.full(10, np.nan)) == "range/vol_normal"
    assert rank_of_last(np.array([1.0, 1]) / np.array([50.0, 100])) == 0.25


@given(seed=st.integers(0, 50), cuts=st.lists(st.integers(0, 119), min_size=2, max_size=12))
@settings(max_examples=30, deadline=None)
def test_many_windows_at_once_are_each_alone(seed: int, cuts: list[int]) -> None:
    """A batch of windows holds what the measure of one says of a copy of each, to the bit."""
    bars = random_candles(120, seed=seed)
    ends = np.array(sorted([*cuts, 119, 119]), np.int64) + 1
    firsts = np.maximum(0, ends - 70)
    spans = {"ema_bars": 20, "slope_bars": 5, "travel_bars": 48}
    h, low, c = bars.high, bars.low, bars.close
    atrs = last_atrs(h, low, c, firsts, ends, period=14)
    states = trends(c, firsts, ends, atrs, **spans)
    ranks = activities(h, low, c, firsts, ends, period=14, short_bars=10, long_bars=40)
    least = np.linspace(2.0, 4.0, len(ends)) * np.median(h - low)
    above = spans_above(h, low, firsts, ends, least, times=3.0)
    lows = furthest(h, low, firsts, ends, np.ones(len(ends), np.int64))
    tops = furthest(h, low, firsts, ends, np.full(len(ends), -1))
    for k, (first, end) in enumerate(zip(firsts.tolist(), ends.tolist(), strict=True)):
        ah, al, ac = (line[first:end].copy() for line in (h, low, c))
        line, size, ranges = ema(ac, 20), atr(ah, al, ac, 14)[-1], true_range(ah, al, ac)
        long_enough = len(ac) >= 20
        slope = (line[-1] - line[-6]) / size if len(ac) >= 25 else np.nan
        away = (ac[-1] - line[-1]) / size if long_enough else np.nan
        pairs = [
            (atrs[k], size),
            (states[k], [away, slope, efficiency(ac, 48)]),
            (
                ranks[k],
                [rank_of_last(atr(ah, al, ac, 14) / ac), mean(ranges[-10:]) / mean(ranges[-40:])],
            ),
            (above[k], usual if 3.0 * (usual := median_span(ah, al)) > least[k] else 0.0),
            (means(c, firsts, ends)[k], mean(ac)),
            (path_lengths(c, firsts, ends)[k], path_length(ac)),
            ((lows[k], tops[k]), (al.min(), ah.max())),
        ]
        for many, alone in pairs:
            np.testing.assert_array_equal(many, alone)
