"""A trade pays what was settled: it is walked past a settlement once the rate is known, or late."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core import funding_files
from core.app import App
from core.domain import Candles, FundingRate, Series
from core.errors import ExchangeUnavailable
from core.execution import new_states, order_of, state_to_json
from core.jobs import files, follow, market_stats, retro, run
from core.store import candles as store
from core.store import markets as market_store
from core.store import operation
from core.store.signals import insert_signal, record_strategy
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from tests.candidate_world import candidate
from tests.engine_world import FakeExchange, HandClock, opened, write_config
from tests.replay_world import market, prepared, replayed, signals
from tests.trades import MIDNIGHT_MS, PLAN

SWAP = "A/USDT:USDT"
BASE = Series("bitget", SWAP, "1m")
EIGHT_MS = MIDNIGHT_MS + 8 * HOUR_MS
STOP_MS = EIGHT_MS + 3 * MINUTE_MS  # the end of the minute in which the stop is hit
CONSTANT = 0.0001


def path_of(symbol_minutes: int = 30) -> Candles:
    """Filled at 100 before 08:00, quiet at 101, stopped at 95 in the third minute after."""
    start_ms = EIGHT_MS - 20 * MINUTE_MS
    rows = [[start_ms, 101.0, 101.0, 99.0, 101.0, 1.0]]
    rows += [[start_ms + n * MINUTE_MS, 101, 101, 101, 101, 1] for n in range(1, symbol_minutes)]
    rows[22] = [start_ms + 22 * MINUTE_MS, 101.0, 101.0, 94.0, 96.0, 1.0]
    return Candles.of_matrix("1m", np.array(rows))


def engine(folder: Path, *, spaced_h: int = 8, n_rates: int = 3) -> App:
    """An engine with a pending trade and the rates of the settlements before 08:00."""
    app = opened(write_config(folder, symbols=[SWAP], signals={"fees": {"funding_pct_8h": 0.01}}))
    decided_ms = EIGHT_MS - 22 * MINUTE_MS
    plan = replace(
        PLAN,
        decided_ms=decided_ms,
        actionable_ms=decided_ms + 2 * MINUTE_MS,
        valid_until_ms=decided_ms + HOUR_MS,
    )
    row = candidate(0, app.strategy, p_mart=0.5, won=True, filled=False) | {
        "symbol": SWAP,
        "timeframe": "15m",
        "status": "PENDING",
        "closed_ts_ms": None,
        **{name: getattr(plan, name) for name in ("entry", "tp1", "tp2", "atr", "liquidation")},
        **{n: getattr(plan, n) for n in ("decided_ms", "actionable_ms", "valid_until_ms")},
        "sl": plan.stop,
        "exec_state": state_to_json(new_states(order_of(plan, "15m"))),
    }
    with app.db.write():
        before = [EIGHT_MS - n * spaced_h * HOUR_MS for n in range(n_rates, 0, -1)]
        market_stats.store_funding(app.db, "bitget", SWAP, [FundingRate(t, 1e-3) for t in before])
        record_strategy(app.db, app.config, now_ms=decided_ms)
        insert_signal(app.db, row, np.zeros(3), version=0)
        store.upsert_candles(app.db, BASE, path_of())
    return app


def walk(app: App, at_ms: int) -> dict[str, Any]:
    """Follow the trade at an instant up to which the candles are there; returns its row."""
    store.move_checkpoint(app.db, BASE, next_ms=at_ms, now_ms=at_ms)
    follow.follow_all(app, now_ms=at_ms)
    row = app.db.dicts("SELECT * FROM signals")[0]
    return row | {"state": json.loads(row["exec_state"])}


def settle(app: App, rate_frac: float) -> None:
    """The rate of 08:00 arrives."""
    with app.db.write():
        market_stats.store_funding(app.db, "bitget", SWAP, [FundingRate(EIGHT_MS, rate_frac)])


def test_a_trade_is_not_walked_past_a_settlement_that_is_awaited(tmp_path: Path) -> None:
    """Stopped at 08:03, the rate comes at 08:05: then the stop is told, with what was settled."""
    app = engine(tmp_path)
    assert walk(app, EIGHT_MS - MINUTE_MS)["status"] == "OPEN"
    for minute in range(6):
        row = walk(app, EIGHT_MS + minute * MINUTE_MS)
        assert (row["status"], row["state"]["n_funding_constant"]) == ("OPEN", 0)
    settle(app, 0.002)
    row = walk(app, EIGHT_MS + 5 * MINUTE_MS)
    assert (row["status"], row["closed_ts_ms"], row["data_revised"]) == ("SL", STOP_MS, 0)
    assert (row["state"]["n_funding_stored"], row["state"]["n_funding_constant"]) == (1, 0)
    assert row["state"]["funding_frac"] == pytest.approx(0.002 * 1.01)
    app.close()


def test_after_ten_minutes_the_constant_is_taken_and_never_taken_back(tmp_path: Path) -> None:
    """A rate that comes later is stored and marks the row; what the owner was told stands."""
    app = engine(tmp_path)
    assert walk(app, EIGHT_MS + 10 * MINUTE_MS - 1)["status"] == "OPEN"
    told = walk(app, EIGHT_MS + 10 * MINUTE_MS)
    assert (told["status"], told["state"]["n_funding_constant"]) == ("SL", 1)
    assert told["state"]["funding_frac"] == pytest.approx(CONSTANT * 1.01)
    settle(app, 0.002)
    again = walk(app, EIGHT_MS + 10 * MINUTE_MS)
    assert again["data_revised"] == 1
    assert {k: v for k, v in again.items() if told[k] != v} == {"data_revised": 1}
    app.close()


@pytest.mark.parametrize(("spaced_h", "n_rates"), [(8, 0), (25, 2)])
def test_where_nobody_publishes_nothing_is_waited_for(
    tmp_path: Path, spaced_h: int, n_rates: int
) -> None:
    """Without a rate in the day before, 08:00 costs the constant at once."""
    app = engine(tmp_path, spaced_h=spaced_h, n_rates=n_rates)
    row = walk(app, STOP_MS)
    assert (row["status"], row["state"]["n_funding_constant"]) == ("SL", 1)
    app.close()


@pytest.mark.parametrize("arrives", [0, 1, 4, 9])
def test_looked_at_each_minute_or_once_it_comes_to_the_same(tmp_path: Path, arrives: int) -> None:
    """Whenever within its ten minutes the rate arrives, the trade is that of one late look."""
    app, once = engine(tmp_path / "live"), engine(tmp_path / "once")
    for minute in range(-18, 10):
        if minute == arrives:
            settle(app, -0.003)
        walk(app, EIGHT_MS + minute * MINUTE_MS)
    settle(once, -0.003)
    rows = [walk(a, EIGHT_MS + 9 * MINUTE_MS) for a in (app, once)]
    assert rows[0] == rows[1]
    assert rows[0]["status"] == "SL"
    assert app.db.value("SELECT count(*) FROM funding") == 4
    for one in (app, once):
        one.close()


class Publishing(FakeExchange):
    """An exchange of arrays that settles every eight hours, and says so; some reads fail."""

    n_failing = 0

    def funding(self, *_: object, **window: object) -> list[FundingRate]:
        start_ms, end_ms = (int(str(window[name])) for name in ("start_ms", "end_ms"))
        if self.n_failing:
            self.n_failing -= 1
            raise ExchangeUnavailable("no funding now;", remedy="wait")
        end_ms = min(end_ms, self.clock.at_ms + 1)
        stamps = range(EIGHT_MS - 30 * DAY_MS, end_ms, 8 * HOUR_MS)
        return [FundingRate(t, 1e-3) for t in stamps if t >= start_ms]


@pytest.mark.parametrize("n_failing", [0, 3])
def test_after_hours_away_the_missed_rates_come_before_the_missed_minutes(
    tmp_path: Path, n_failing: int
) -> None:
    """Asleep from 07:52 to 11:07: the stop of 08:03 pays what was settled at 08:00.

    Also when the first reads fail: each due instant of the hours away tries again.
    """
    app, clock = engine(tmp_path, n_rates=12), HandClock(EIGHT_MS - 8 * MINUTE_MS)
    exchange = Publishing({SWAP: path_of(300)}, clock)
    app._market = exchange, clock
    run.run_due(app)
    exchange.n_failing = n_failing
    clock.at_ms = EIGHT_MS + 187 * MINUTE_MS + 20_000
    run.run_due(app)
    row = app.db.dicts("SELECT * FROM signals")[0]
    state = json.loads(row["exec_state"])
    assert (row["status"], row["closed_ts_ms"], row["data_revised"]) == ("SL", STOP_MS, 0)
    assert (state["n_funding_stored"], state["n_funding_constant"]) == (1, 0)
    runs = app.db.rows("SELECT due_ms, outcome FROM job_runs WHERE job = 'market_stats'")
    assert runs == [
        (EIGHT_MS + n * MINUTE_MS, "error" if n < n_failing else "ok") for n in range(n_failing + 1)
    ]
    assert operation.marks(app.db)["market_stats"] == EIGHT_MS + 187 * MINUTE_MS
    app.close()


def funded(folder: Path, symbols: list[str], start_ms: int, end_ms: int) -> None:
    """Write rates of every eight hours, another one each, as files beside the candles."""
    (folder / "funding").mkdir()
    rng = np.random.default_rng(9)
    stamps = list(range(start_ms - start_ms % DAY_MS, end_ms + 1, 8 * HOUR_MS))
    for symbol in symbols:
        columns = {"timestamp": stamps, "funding_rate": rng.normal(0, 1e-3, len(stamps)).tolist()}
        pq.write_table(pa.table(columns), folder / "funding" / funding_files.name_of(symbol))


def test_the_scheduler_and_the_retro_scan_pay_and_know_the_same_funding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rates that appear with market time or lie there as a whole: the same features and trades."""
    truth = {s: bars[-25 * 1440 :] for s, bars in market(3, 42, 5).items()}
    world = prepared(tmp_path / "start", truth, replay_days=1.25)
    funded(world.files, list(truth), world.split_ms - 20 * DAY_MS, world.end_ms)
    live, past = opened(world.copy("live")), opened(world.copy("past"))
    replayed(live)
    files.import_files(past, [world.files], origin="replay")
    market_stats.import_funding(past, [world.files])
    retro.retro_scan(past, start_ms=world.split_ms, end_ms=world.end_ms, workers=1)
    monkeypatch.setattr(follow, "_SAVE_EVERY_MS", 0)
    for app in (live, past):
        follow.follow_all(app, now_ms=1 << 52)
    ours, theirs = (
        [r for r in signals(app, "id", "origin") if r["decided_ms"] > world.split_ms]
        for app in (live, past)
    )
    assert len(ours) >= 15
    assert ours == theirs
    states = [json.loads(row["exec_state"]) for row in ours]
    assert sum(state["n_funding_stored"] for state in states) >= 3
    assert not any(state["n_funding_constant"] for state in states)
    assert not any(row["data_revised"] for row in ours)
    known = np.array([np.frombuffer(row["vector"], "<f8")[-4:] for row in ours])
    assert np.isfinite(known[:, :2]).all()
    assert np.isnan(known[:, 2:]).all()
    stored = [market_store.funding_of(a.db, "replay", s, start_ms=0, end_ms=1 << 52)[0]
              for a in (live, past) for s in truth]  # fmt: skip
    assert len({tuple(ts_ms[-5:]) for ts_ms in stored}) == 1
    for app in (live, past):
        app.close()
