"""Laws of the daily look at the champion: what it reads, when it speaks, and how often."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.app import App
from core.cadence import DIGEST, PIPELINE, STATS
from core.jobs import monitor
from core.jobs.run import run_due
from core.proof_state import Proof, StateRow, is_degraded_at
from core.store import operation
from core.store import states as store
from core.store.db import Database
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from tests.engine_world import fake_engine, opened, table, write_config
from tests.tiny_database import T0, add, flat_bars, won

CHAMPION, OTHER = "champion-1", "other-2"
PROMOTED_MS = T0 - HOUR_MS
N_DAYS = 70
SCORE = {"ml_p": 0.55, "ml_p_raw": 0.5, "ev_r": 0.3, "ev_lo_r": 0.2, "ml_model": CHAMPION}
CERTIFICATE = {
    "cells": {
        "* *": {
            "certified": True,
            "mode": "ev",
            "estimate": 0.2,
            "lower": 0.05,
            "n_eff": 120.0,
            "reason": "certified",
        }
    }
}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """An engine whose champion was promoted, certified, just before T0."""
    engine = opened(write_config(tmp_path, notify={"console": True}))
    with engine.db.write():
        promote(engine, CHAMPION, PROMOTED_MS)
    yield engine
    engine.lock_file.release()
    engine.db.close()


def promote(app: App, bundle: str, at_ms: int) -> None:
    """What a promotion writes."""
    app.db.run(
        "INSERT INTO promotions (at_ms, strategy_id, bundle, reason) VALUES (?, ?, ?, '')",
        (at_ms, app.strategy, bundle),
    )
    monitor.set_promoted_state(
        app.db,
        app.config,
        app.strategy,
        bundle=bundle,
        thresholds=CERTIFICATE,
        window_days=365,
        now_ms=at_ms,
    )


def traded(app: App, *, share_won: float, n_days: int = N_DAYS, **changes: Any) -> None:
    """Two trades a day that win or lose 1 R net; the target is at 3 R."""
    rng = np.random.default_rng(8)
    with app.db.write():
        for day in range(n_days):
            for hour in (6, 16):
                end = won(1.0) if rng.random() < share_won else {"r_multiple": -1.0}
                add(app.db, app.strategy, day + hour / 24, **SCORE | end | changes)


def looked(app: App, day: int) -> int:
    """A look on a day."""
    return monitor.monitor(app, now_ms=at(day))


def at(day: int) -> int:
    """00:05 UTC of a day after T0."""
    return T0 + day * DAY_MS + 5 * MINUTE_MS


def told(db: Database) -> list[str]:
    """The first lines of the messages of states, in their order."""
    rows = db.rows("SELECT text FROM outbox WHERE kind = 'state' ORDER BY id")
    return [text.split("\n")[0] for (text,) in rows]


def states(app: App) -> list[tuple[str, str]]:
    """Bundle and state of every row, oldest first."""
    return [(row.bundle, row.state.value) for row in store.states_of(app.db, app.strategy)]


def test_a_champion_that_loses_is_degraded_once_and_the_owner_told_once(app: App) -> None:
    """Certified trades that win a third of the time at 1:1: one row and one message, for good."""
    traded(app, share_won=0.33)
    for day in range(1, N_DAYS + 1):
        looked(app, day)
        looked(app, day)
    assert states(app) == [(CHAMPION, "CERTIFIED"), (CHAMPION, "DEGRADED")]
    assert len(told(app.db)) == 2
    assert told(app.db)[1] == "<b>DEGRADED</b>"
    row = store.states_of(app.db, app.strategy)[1]
    assert T0 + 10 * DAY_MS < row.at_ms < at(N_DAYS)
    assert row.at_ms % DAY_MS == 5 * MINUTE_MS
    assert "promised at least +0.20" in row.reason
    assert "20 is enough" in row.reason
    found = store.newest_figures(app.db, app.strategy)
    assert found is not None
    assert (found["bundle"], found["at_ms"]) == (CHAMPION, at(N_DAYS))
    assert found["figures"]["evidence"]["rejected_ms"] < row.at_ms
    assert found["figures"]["evidence"]["n"] == 2 * N_DAYS
    history = store.states_of(app.db, app.strategy)
    assert not is_degraded_at(history, row.at_ms)
    assert is_degraded_at(history, row.at_ms + 1)


def test_days_looked_at_late_or_never_change_nothing_of_the_last(app: App) -> None:
    """One look at the end stores the figures of daily ones; the withdrawal then is of that day."""
    traded(app, share_won=0.33)
    looked(app, N_DAYS)
    once = store.newest_figures(app.db, app.strategy)
    assert states(app)[-1] == (CHAMPION, "DEGRADED")
    for day in (20, 45, N_DAYS):
        looked(app, day)
    assert store.newest_figures(app.db, app.strategy) == once
    assert len(states(app)) == 2


def test_a_champion_that_keeps_its_word_stays_certified(app: App) -> None:
    """Two wins of three at 1:1 earn more than the .2 R promised: no row, no message."""
    traded(app, share_won=0.67)
    for day in range(1, N_DAYS + 1):
        looked(app, day)
    assert states(app) == [(CHAMPION, "CERTIFIED")]
    assert len(told(app.db)) == 1
    found = store.newest_figures(app.db, app.strategy)
    assert found is not None
    assert found["figures"]["evidence"]["e_peak"] < 20


@pytest.mark.parametrize(
    "changes",
    [
        {"gate": "REJECT"},
        {"ml_model": OTHER},
        {"ml_p": None},
        {"scan_stride": 3},
        {"strategy_id": "another"},
        {"status": "OPEN", "closed_ts_ms": None, "r_multiple": None},
        {"closed_ts_ms": at(N_DAYS) + 1},
        {"status": "EXPIRED", "r_multiple": None},
    ],
)
def test_only_what_the_champion_passed_and_is_known_counts(
    app: App, changes: dict[str, Any]
) -> None:
    """Losses it rejected, did not score, or whose end is not known or none, prove nothing."""
    traded(app, share_won=0.0, **changes)
    looked(app, N_DAYS)
    assert states(app) == [(CHAMPION, "CERTIFIED")]
    found = store.newest_figures(app.db, app.strategy)
    assert found is not None
    assert found["figures"]["evidence"]["n"] == 0
    assert found["figures"]["evidence"]["e_peak"] == pytest.approx(1.0)


def test_what_was_decided_before_the_promotion_does_not_count(app: App) -> None:
    """Nor what a champion did before another spoke: its life starts when it comes back."""
    traded(app, share_won=0.0, n_days=30)
    with app.db.write():
        promote(app, OTHER, T0 + 31 * DAY_MS)
        promote(app, CHAMPION, T0 + 32 * DAY_MS)
    assert looked(app, 40) == 0
    assert states(app)[-1] == (CHAMPION, "CERTIFIED")
    assert store.champion_at(app.db, app.strategy, now_ms=at(40)) == (CHAMPION, T0 + 32 * DAY_MS)
    assert store.champion_at(app.db, app.strategy, now_ms=at(20)) == (CHAMPION, PROMOTED_MS)
    assert store.champion_at(app.db, app.strategy, now_ms=PROMOTED_MS) is None


def test_degraded_ends_with_another_bundle_and_comes_back_with_the_refuted_one(app: App) -> None:
    """And an UNCERTIFIED champion is never DEGRADED: it had nothing to lose."""
    traded(app, share_won=0.1, n_days=40)
    looked(app, 40)
    with app.db.write():
        promote(app, OTHER, at(41))
        promote(app, CHAMPION, at(42))
    want = ["CERTIFIED", "DEGRADED", "CERTIFIED", "DEGRADED"]
    assert [state for _, state in states(app)] == want
    assert [line.split("<b>")[1] for line in told(app.db)] == [f"{s}</b>" for s in want]


def test_a_belated_look_leaves_the_successor_alone(app: App) -> None:
    """Another bundle spoke before the look at an earlier day was done: its state stands."""
    traded(app, share_won=0.0)
    with app.db.write():
        promote(app, OTHER, at(N_DAYS) + MINUTE_MS)
    assert looked(app, N_DAYS) > 0
    assert states(app) == [(CHAMPION, "CERTIFIED"), (OTHER, "CERTIFIED")]


def test_the_scheduler_looks_at_five_past_midnight(tmp_path: Path) -> None:
    """Days passed by are looked at one by one: the withdrawal stands at the day it was due."""
    bars = flat_bars(T0, 60, MINUTE_MS, "1m")
    app, _, clock = fake_engine(tmp_path, {"A/USDT": bars}, notify={"console": True})
    with app.db.write():
        promote(app, CHAMPION, PROMOTED_MS)
        for job in (*PIPELINE, STATS, DIGEST):  # far ahead: only the looks are due here
            operation.move_mark(app.db, job, done_ms=at(N_DAYS))
    traded(app, share_won=0.2)
    for now_ms in (T0, at(N_DAYS) - 1, at(N_DAYS)):
        clock.at_ms = now_ms
        run_due(app)
    runs = app.db.rows("SELECT due_ms, outcome FROM job_runs WHERE job = 'monitor' ORDER BY id")
    assert runs == [(at(day), "ok") for day in range(N_DAYS + 1)]
    assert [state for _, state in states(app)] == ["CERTIFIED", "DEGRADED"]
    assert store.states_of(app.db, app.strategy)[1].at_ms < at(N_DAYS // 2)
    app.lock_file.release()
    app.db.close()


def test_an_uncertified_champion_is_watched_and_has_nothing_to_withdraw(app: App) -> None:
    """The figures say it all the same."""
    row = StateRow(at_ms=T0, bundle=CHAMPION, state=Proof.UNCERTIFIED, reason="not certified")
    monitor.set_state(app.db, app.config, app.strategy, row)
    traded(app, share_won=0.0)
    looked(app, N_DAYS)
    assert states(app)[-1] == (CHAMPION, "UNCERTIFIED")
    found = store.newest_figures(app.db, app.strategy)
    assert found is not None
    assert found["figures"]["evidence"]["e_peak"] > 20


def test_a_state_is_stored_once_and_told_only_when_it_changes(app: App) -> None:
    """The same again: nothing. Another bundle in the same state: a row and no message."""
    n_told = len(told(app.db))
    again = StateRow(at_ms=T0 + 1, bundle=CHAMPION, state=Proof.CERTIFIED, reason="as before")
    other = StateRow(at_ms=T0 + 2, bundle=OTHER, state=Proof.CERTIFIED, reason="as before")
    assert not monitor.set_state(app.db, app.config, app.strategy, again)
    assert monitor.set_state(app.db, app.config, app.strategy, other)
    assert states(app) == [(CHAMPION, "CERTIFIED"), (OTHER, "CERTIFIED")]
    assert len(told(app.db)) == n_told == 1


def test_a_state_and_its_news_are_one_commit(app: App) -> None:
    """Rolled back with the transaction that set it."""
    before = [table(app.db, name) for name in ("states", "outbox")]
    row = StateRow(at_ms=T0, bundle=CHAMPION, state=Proof.DEGRADED, reason="r")
    with suppress(KeyboardInterrupt), app.db.write():
        assert monitor.set_state(app.db, app.config, app.strategy, row)
        raise KeyboardInterrupt
    assert [table(app.db, name) for name in ("states", "outbox")] == before


def test_the_figures_are_those_of_the_matured_trades(app: App) -> None:
    """By hand: three of four scored trades passed and one is too young for the record."""
    with app.db.write():
        add(app.db, app.strategy, 1, **SCORE | won(1.0))
        add(app.db, app.strategy, 2, **SCORE | {"r_multiple": -1.0})
        add(app.db, app.strategy, 3, **SCORE | {"gate": "REJECT", "r_multiple": -1.0})
        add(app.db, app.strategy, 14, **SCORE | won(1.0))
    assert looked(app, 15) == 3  # the bets know every end; validity and 96 hours to hold go by
    found = store.newest_figures(app.db, app.strategy)
    assert found is not None
    figures = found["figures"]
    assert [figures[part]["n"] for part in ("scored", "passed")] == [3, 2]
    passed = figures["passed"]
    assert (passed["win_rate"], passed["p"], passed["p_mart"]) == pytest.approx((0.5, 0.55, 0.4))
    assert passed["brier"] == pytest.approx((0.45**2 + 0.55**2) / 2)
    assert (passed["ev_r"], passed["ev_lo_r"], passed["r"]) == pytest.approx((0.3, 0.2, 0.0))
    assert passed["r_lo"] is None
    assert figures["scored"]["r"] == pytest.approx(-1 / 3)
    assert figures["evidence"]["mean_r"] == pytest.approx(1 / 3)
    assert figures["time_to_proof"] is None
    assert figures["time_to_proof_sentence"].startswith("Too early to say")
    assert figures["since_ms"] == PROMOTED_MS


def test_the_pace_is_that_of_the_last_year_whoever_spoke(app: App) -> None:
    """Trades an earlier champion passed count for the time to proof, not for the present record."""
    traded(app, share_won=0.6, n_days=90, ml_model=OTHER)
    looked(app, 120)
    found = store.newest_figures(app.db, app.strategy)
    assert found is not None
    time = found["figures"]["time_to_proof"]
    assert time["n"] == 180
    # a day of validity and 96 hours to hold before 2025-05-01 it was Saturday: from Monday
    # 2024-12-30 to Monday 2025-04-21
    assert time["n_weeks"] == 16
    assert found["figures"]["passed"]["n"] == 0


def test_without_a_champion_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    """No figures, no state."""
    engine = opened(write_config(tmp_path))
    traded(engine, share_won=0.0, n_days=3)
    assert looked(engine, 5) == 0
    assert store.newest_figures(engine.db, engine.strategy) is None
    assert store.current_state(engine.db, engine.strategy) is None
    engine.lock_file.release()
    engine.db.close()
