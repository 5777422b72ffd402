"""Derived bars are what pandas makes of complete groups, and nothing is invented in a hole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.domain import Candles
from core.errors import DataError
from core.resample import resample
from core.timeframe import tf_ms
from tests.pandas_bars import assert_same, pandas_bars
from tests.worlds import MONDAY_MS, picked, random_candles

# Every length in minutes that divides a day, as ccxt would write it.
LENGTHS = [n for n in range(1, 1441) if 1440 % n == 0]


def named(minutes: int) -> str:
    """A length as a timeframe."""
    return f"{minutes}m" if minutes < 1440 else "1d"


@st.composite
def routes(draw: st.DrawFn) -> tuple[str, str, str]:
    """A base, a longer timeframe made of it, and one made of that."""
    base = draw(st.sampled_from([n for n in LENGTHS if n <= 60]))
    middle = draw(st.sampled_from([n for n in LENGTHS if n > base and n % base == 0 and n < 1440]))
    last = draw(st.sampled_from([n for n in LENGTHS if n > middle and n % middle == 0]))
    return named(base), named(middle), named(last)


@given(
    seed=st.integers(0, 99),
    n=st.integers(1, 900),
    offset=st.integers(0, 300),
    share=st.sampled_from([0.0, 0.01, 0.3]),
    timeframe=st.sampled_from(["5m", "15m", "1h", "4h"]),
)
@settings(max_examples=80, deadline=None)
def test_agrees_with_pandas(seed: int, n: int, offset: int, share: float, timeframe: str) -> None:
    """Every complete group of base bars is a bar, and no other, wherever holes and edges are."""
    base = random_candles(n, seed=seed, start_ms=MONDAY_MS + offset * 60_000)
    keep = np.random.default_rng(seed).random(n) >= share
    base = picked(base, keep)
    bars = resample(base, timeframe)
    assert bars.timeframe == timeframe
    assert_same(bars, pandas_bars(base, timeframe))


def test_by_hand() -> None:
    """Five minutes: first open, highest high, lowest low, last close, summed volume."""
    rows = np.array(
        [[MONDAY_MS + 60_000 * i, 10 + i, 20 - i, 9 - i, 11 + i, 0.5 * i] for i in range(5)]
    )
    bars = resample(Candles.of_matrix("1m", rows), "5m")
    assert [column.tolist() for column in bars.columns()] == [
        [MONDAY_MS],
        [10],
        [20],
        [5],
        [15],
        [5.0],
    ]


@given(
    route=routes(),
    seed=st.integers(0, 99),
    offset=st.integers(0, 100),
    share=st.sampled_from([0.0, 0.002, 0.05]),
)
@settings(max_examples=80, deadline=None)
def test_any_multiple_by_any_route(
    route: tuple[str, str, str], seed: int, offset: int, share: float
) -> None:
    """Any length that divides a day, direct or over another: pandas' bars, on the UTC grid."""
    base_tf, middle, last = route
    step = tf_ms(base_tf)
    n = 3 * tf_ms(last) // step
    base = random_candles(n, seed=seed, timeframe=base_tf, start_ms=MONDAY_MS + offset * step)
    base = picked(base, np.random.default_rng(seed).random(n) >= share)
    direct, chained = resample(base, last), resample(resample(base, middle), last)
    assert_same(direct, pandas_bars(base, last))
    assert_same(chained, pandas_bars(base, last))
    assert not np.any(direct.ts_ms % tf_ms(last))
    assert share or len(direct) >= 2


def test_a_minute_without_trades_is_covered_and_not_invented() -> None:
    """Confirmed empty minutes do not make a bar absent, but a bar of nothing else is."""
    base = random_candles(20, seed=6)
    base = picked(base, np.array([i not in {0, 3, 5, 6, 7, 8, 9, 11} for i in range(20)]))
    minutes = MONDAY_MS + 60_000 * np.array([0, 3, 5, 6, 7, 8, 9], dtype=np.int64)
    bars = resample(base, "5m", covered_ms=minutes)
    assert ((bars.ts_ms - MONDAY_MS) // 300_000).tolist() == [0, 3]
    assert bars.open[0] == base.open[0]
    assert len(resample(base, "5m")) == 1
    elsewhere = resample(base, "5m", covered_ms=minutes[2:3])  # minute 5 does not stand for 11
    assert len(elsewhere) == 1


def test_prefix() -> None:
    """With k base bars known, the derived bars are those of the whole that had closed by then."""
    base = random_candles(400, seed=7)
    whole = resample(base, "15m")
    for k in (0, 1, 14, 15, 16, 44, 45, 399, 400):
        part = resample(base[:k], "15m")
        n_closed = whole.closed_by(MONDAY_MS + k * 60_000)
        assert len(part) == n_closed
        for one, other in zip(part.columns(), whole.columns(), strict=True):
            np.testing.assert_array_equal(one, other[:n_closed])


def test_own_and_impossible_timeframes() -> None:
    """The same timeframe is the same bars; one that cannot be made is refused by name."""
    base = random_candles(30, seed=8, timeframe="15m")
    assert resample(base, "15m") is base
    for timeframe in ("5m", "20m"):
        with pytest.raises(DataError, match=timeframe):
            resample(base, timeframe)
    assert len(resample(Candles.empty("1m"), "1h")) == 0
