"""Holes found by SQLite itself are those of the bars, whatever is stored and asked."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from core.candle_law import holes_in
from core.domain import Candles, Series
from core.store import candles as store
from core.store import gaps as gap_store
from core.store import open_database
from core.timeframe import tf_ms

ORIGIN = 1_700_000_100_000 // 300_000 * 300_000


def bars_at(timeframe: str, places: list[int]) -> Candles:
    """Return bars at some grid places from the origin on."""
    ts = ORIGIN + np.array(sorted(places), np.int64) * tf_ms(timeframe)
    one = np.ones(len(ts))
    return Candles(timeframe, ts, one, one, one, one, one)


@settings(deadline=None, max_examples=60)
@given(
    timeframe=st.sampled_from(["1m", "5m"]),
    places=st.sets(st.integers(0, 40), max_size=30),
    window=st.tuples(st.integers(-5, 45), st.integers(-5, 50)),
)
def test_stored_holes_are_the_holes_of_the_bars(
    timeframe: str, places: set[int], window: tuple[int, int]
) -> None:
    """Asked of the database or of the arrays: the same runs; a neighbour series does not count."""
    step = tf_ms(timeframe)
    start, end = (ORIGIN + place * step for place in window)
    bars = bars_at(timeframe, list(places))
    with tempfile.TemporaryDirectory() as name, open_database(Path(name) / "x.db") as db:
        series = Series("x", "BTC/USDT", timeframe)
        store.upsert_candles(db, Series("x", "AAA/USDT", timeframe), bars_at(timeframe, [1, 2, 3]))
        store.upsert_candles(db, series, bars)
        store.upsert_candles(db, Series("x", "ZZZ/USDT", timeframe), bars_at(timeframe, [4, 5]))
        found = gap_store.stored_holes(db, series, start_ms=start, end_ms=end)
    wanted = holes_in(bars, start_ms=start, end_ms=end) if end > start else []
    assert found == wanted
