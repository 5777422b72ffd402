"""Records, funding, open interest and basis in the database, against what was put in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from core.domain import FundingRate, Market, Series
from core.store import candles as candle_store
from core.store import markets as store
from core.store.db import Database
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from tests.store_world import scratch
from tests.worlds import MONDAY_MS, mapped, picked, random_candles

SWAP, SPOT = "A/USDT:USDT", "A/USDT"
BASE = random_candles(300, seed=3)


def with_both(db: Database) -> None:
    """A perpetual a per mille above its spot pair, each with minutes the other lacks."""
    swap = picked(mapped(BASE, scale=1.001), np.arange(300) % 7 != 0)
    spot = picked(BASE, np.arange(300) % 5 != 0)
    with db.write():
        candle_store.upsert_candles(db, Series("x", SPOT, "1m"), spot)
        candle_store.upsert_candles(db, Series("y", SPOT, "1m"), mapped(BASE, scale=3))
        candle_store.upsert_candles(db, Series("x", SWAP, "1m"), swap)
        candle_store.upsert_candles(db, Series("x", "B/USDT:USDT", "1m"), swap)


def test_the_basis_is_the_premium_over_spot_where_both_have_the_bar() -> None:
    """The view and the function agree, to the bit; other exchanges and pairs have no part."""
    db = scratch()
    with_both(db)
    both = (np.arange(300) % 7 != 0) & (np.arange(300) % 5 != 0)
    ts_ms, basis_pct = store.basis_of(
        db, "x", SWAP, "1m", start_ms=MONDAY_MS, end_ms=MONDAY_MS + DAY_MS
    )
    assert len(ts_ms) > 200
    np.testing.assert_array_equal(ts_ms, BASE.ts_ms[both])
    np.testing.assert_allclose(basis_pct, 0.1, rtol=1e-9)
    viewed = db.rows("SELECT exchange, symbol, timeframe, ts_ms, basis_pct FROM basis ORDER BY 4")
    rows = zip(ts_ms.tolist(), basis_pct.tolist(), strict=True)
    assert viewed == [("x", SWAP, "1m", *row) for row in rows]


def test_a_window_of_the_basis_is_that_part_of_it() -> None:
    """Bounds as for candles; no series, no pair, no window: nothing."""
    db = scratch()
    with_both(db)
    whole = store.basis_of(db, "x", SWAP, "1m", start_ms=0, end_ms=1 << 52)
    for start, end in ((0, 10), (11, 12), (17, 300), (40, 40), (250, 999)):
        window = {"start_ms": MONDAY_MS + start * MINUTE_MS, "end_ms": MONDAY_MS + end * MINUTE_MS}
        inside = (whole[0] >= window["start_ms"]) & (whole[0] < window["end_ms"])
        got = store.basis_of(db, "x", SWAP, "1m", **window)
        np.testing.assert_array_equal(got[0], whole[0][inside])
        np.testing.assert_array_equal(got[1], whole[1][inside])
    for symbol, timeframe in ((SPOT, "1m"), ("B/USDT:USDT", "1m"), (SWAP, "5m"), ("A/USD:A", "1m")):
        assert not len(store.basis_of(db, "x", symbol, timeframe, start_ms=0, end_ms=1 << 52)[0])


def test_what_a_window_knows_is_what_the_whole_knows_of_it() -> None:
    """A context read for one bar and one read for all give each decision the same values."""
    from core.market_context import context_values

    db = scratch()
    with_both(db)
    rng = np.random.default_rng(1)
    first_ms = MONDAY_MS - 4 * DAY_MS
    rates = [FundingRate(first_ms + i * 8 * HOUR_MS, float(rng.normal(0, 1e-4))) for i in range(13)]
    with db.write():
        store.upsert_funding(db, "x", SWAP, rates)
        for at_ms in range(first_ms, MONDAY_MS + 300 * MINUTE_MS, 15 * MINUTE_MS):
            store.insert_interest(db, "x", SWAP, at_ms + 6000, float(rng.uniform(90, 110)))
    series, end_ms = Series("x", SWAP, "1m"), MONDAY_MS + 300 * MINUTE_MS
    whole = store.context_of(db, series, first_ms=MONDAY_MS, known_ms=end_ms)
    n_full = 0
    for ts_ms in BASE.ts_ms.tolist():
        known_ms = ts_ms + MINUTE_MS
        alone = store.context_of(db, series, first_ms=ts_ms, known_ms=known_ms)
        ours, theirs = (context_values(c, side=1, decided_ms=known_ms) for c in (alone, whole))
        np.testing.assert_array_equal(ours, theirs)
        n_full += not np.isnan(ours).any()
    assert n_full > 200
    spot = store.context_of(db, Series("x", SPOT, "1m"), first_ms=MONDAY_MS, known_ms=end_ms)
    assert len(spot.basis_ms) == len(spot.funding_ms) == 0


def test_upserts_say_what_is_new_and_may_be_repeated() -> None:
    """A second time nothing is new; another rate replaces, unless it is a file's."""
    db, rate = scratch(), FundingRate(MONDAY_MS, 1e-4)
    assert store.upsert_funding(db, "x", SWAP, [rate]) == [MONDAY_MS]
    assert store.upsert_funding(db, "x", SWAP, [rate]) == []
    other = [FundingRate(MONDAY_MS, 2e-4), FundingRate(MONDAY_MS + HOUR_MS, 3e-4)]
    assert store.upsert_funding(db, "x", SWAP, other, replace=False) == [MONDAY_MS + HOUR_MS]
    assert db.value("SELECT rate_frac FROM funding ORDER BY ts_ms") == 1e-4
    assert store.upsert_funding(db, "x", SWAP, other) == [MONDAY_MS]
    assert db.value("SELECT rate_frac FROM funding ORDER BY ts_ms") == 2e-4


def test_a_changed_record_is_kept_beside_the_one_that_counts() -> None:
    """What it said until then, once for each change; the same record is no change."""
    db, first = scratch(), Market(symbol=SWAP, kind="swap", tick=0.5)
    dearer = replace(first, taker_frac=0.001)
    said = [
        store.upsert_markets(db, "x", [market], now_ms=now_ms)
        for now_ms, market in enumerate((first, first, dearer, dearer, first), start=1)
    ]
    assert said == [[], [], [SWAP], [], [SWAP]]
    assert store.market_of(db, "x", SWAP) == first
    kept = db.rows("SELECT at_ms, json_extract(before, '$.taker_frac') FROM market_changes")
    assert kept == [(3, first.taker_frac), (5, 0.001)]
