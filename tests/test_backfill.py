"""Backfills resume wherever they were interrupted and end the same."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from core.domain import Series
from core.errors import ExchangeUnavailable
from core.jobs import backfill, files, sync
from core.resample import resample
from core.store import candles as store
from core.timeframe import DAY_MS
from tests.engine_world import (
    FAR_MS,
    fake_engine,
    gap_states,
    opened,
    part,
    same,
    stored,
)
from tests.history_world import DERIVED, SPOT, SWAP, at, bits, written
from tests.worlds import MONDAY_MS, picked


class Dead(BaseException):
    """The process is gone."""


def test_a_backfill_interrupted_anywhere_resumes_to_the_same_end(tmp_path: Path) -> None:
    """Deaths between and inside requests, and failures in between, cost nothing but time."""
    rng = random.Random(3)
    kept = np.ones(4 * 1440, np.bool_)
    kept[2000:2400] = kept[3000:3003] = False
    truth = {SWAP: picked(bits(4 * 1440, 12), kept), SPOT: bits(4 * 1440, 13)[900:]}
    app, exchange, clock = fake_engine(tmp_path, truth, page=40, **DERIVED)
    clock.at_ms = MONDAY_MS + 4 * DAY_MS
    exchange.hidden = {(SPOT, at(5000))}
    files.import_files(app, [written(tmp_path / "in", (SWAP, truth[SWAP][1000:1500]))])
    deaths = failures = 0
    left = 0

    def disturb(symbol: str, start_ms: int, end_ms: int) -> None:
        del symbol, start_ms, end_ms
        nonlocal left
        left -= 1
        if left == 0:
            raise Dead if rng.random() < 0.5 else ExchangeUnavailable("cut", remedy="again")

    exchange.before = disturb
    for _ in range(100):
        left = rng.randrange(1, 60)
        try:
            rows = backfill.backfill(
                app, symbols=list(truth), start_ms=MONDAY_MS, end_ms=None, passes=1
            )
        except Dead:
            deaths += 1
            app.close()
            app = opened(app.config_path, (exchange, clock))
            continue
        failures += sum(bool(row["error"]) for row in rows)
        if not any(row["error"] for row in rows):
            break
    assert deaths >= 3
    assert failures >= 3
    assert gap_states(app, SWAP) == [
        (at(2000), at(2400), "missing"),
        (at(3000), at(3003), "no_trades"),
    ]
    assert gap_states(app, SPOT) == [(at(5000), at(5001), "no_trades")]
    quiet = {SWAP: [at(3000 + n) for n in range(3)], SPOT: [at(5000)]}
    for symbol, bars in truth.items():
        shown = picked(bars, ~np.isin(bars.ts_ms, [ts for s, ts in exchange.hidden if s == symbol]))
        assert same(stored(app, symbol), shown)
        five = resample(shown, "5m", covered_ms=np.array(quiet[symbol]))
        assert same(stored(app, symbol, "5m"), five)
        assert same(stored(app, symbol, "15m"), resample(five, "15m"))


def test_a_download_fills_the_holes_an_import_left(tmp_path: Path) -> None:
    """`missing` is asked for again: the exchange may have what the file had not."""
    kept = np.ones(1440, np.bool_)
    kept[100:400] = False
    truth = bits(1440, 14)
    app, _, clock = fake_engine(tmp_path, {SWAP: truth}, **DERIVED)
    clock.at_ms = MONDAY_MS + DAY_MS
    files.import_files(app, [written(tmp_path / "in", (SWAP, picked(truth, kept)))])
    rows = backfill.backfill(app, symbols=[SWAP], start_ms=MONDAY_MS, end_ms=None)
    assert [row["new"] for row in rows] == [300]
    assert gap_states(app, SWAP) == []
    assert same(stored(app, SWAP), truth)
    assert same(stored(app, SWAP, "5m"), resample(truth, "5m"))
    assert backfill.backfill(app, symbols=[SWAP], start_ms=MONDAY_MS, end_ms=None)[0]["new"] == 0


def test_a_sync_goes_on_where_a_backfill_ended(tmp_path: Path) -> None:
    """Backfill to an end date, then minutes: one series without a seam."""
    truth = bits(3 * 1440, 15)
    app, _, clock = fake_engine(tmp_path, {SWAP: truth}, **DERIVED)
    clock.at_ms = MONDAY_MS + 2 * DAY_MS + 30_000
    backfill.backfill(app, symbols=[SWAP], start_ms=MONDAY_MS, end_ms=MONDAY_MS + DAY_MS)
    assert same(stored(app, SWAP), part(truth, 0, MONDAY_MS + DAY_MS))
    sync.sync_all(app, now_ms=clock.at_ms)
    assert same(stored(app, SWAP), part(truth, 0, MONDAY_MS + 2 * DAY_MS))
    assert gap_states(app, SWAP) == []
    assert len(store.read_candles(app.db, Series("bitget", SWAP, "1d"), end_ms=FAR_MS)) == 0


def test_a_symbol_that_is_down_at_first_is_fetched_by_the_next_pass(tmp_path: Path) -> None:
    """Also where not even its beginning could be sought: it is not taken for done."""
    bars = bits(3 * 1440, 3)
    app, exchange, clock = fake_engine(tmp_path, {"AAA/USDT": bars, "BBB/USDT": bars})
    clock.at_ms = MONDAY_MS + 3 * DAY_MS
    exchange.failing = {"BBB/USDT"}
    rows = backfill.backfill(
        app,
        symbols=["AAA/USDT", "BBB/USDT"],
        start_ms=MONDAY_MS,
        end_ms=None,
        pause=lambda _: exchange.failing.clear(),
    )
    assert [row["error"] for row in rows] == ["", ""]
    for symbol in ("AAA/USDT", "BBB/USDT"):
        assert same(stored(app, symbol), bars)
    app.close()
