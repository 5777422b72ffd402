"""The laws of the record in messages: the report's figures, by closing, of what was told."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import messages, performance, views
from core.app import App
from core.bootstrap import SEED
from core.config_file import load_config
from core.jobs import learning, record, standing, summary, tell, tools
from core.messages import plain, streak_lines
from core.store.models import insert_bundle, update_bundle
from core.store.operation import label_of
from core.timeframe import DAY_MS, HOUR_MS
from tests.engine_world import opened, write_config
from tests.message_world import LOOK
from tests.seed_database import END_MS, seed
from tests.test_report import Page
from tests.tiny_database import T0, add, won

NOW = T0 + 60 * DAY_MS


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """An engine without candles, and a strategy of its own."""
    made = opened(write_config(tmp_path, exchange={"id": "x"}, symbols=["A/USDT"]))
    yield made
    made.close()


def test_the_record_of_messages_is_that_of_the_report(tmp_path: Path) -> None:
    """Of the same trades: every figure of a Record equals the book's in `views.results`."""
    seeded = seed(tmp_path)
    with_views = views.results(seeded.path, strategy=seeded.strategy)
    app = opened(seeded.config)
    assert app.strategy == seeded.strategy
    app.db.run("UPDATE signals SET origin = 'live'")
    for book, name in ((record.FOLLOWED, "followed"), ("LIVE", "live"), ("PAPER", "paper")):
        found = record.record(app, book, end_ms=END_MS + 1)
        wanted = with_views.books[name]
        assert found.n_closed == wanted.n_closed > 0
        assert found.total_r == pytest.approx(wanted.total_r)
        assert wanted.metrics is not None
        for figure in ("n", "n_eff", "win_rate", "win_rate_lo", "p_mart", "mean_r", "mean_r_hi"):
            got, want = getattr(found, figure), getattr(wanted.metrics, figure)
            assert got == pytest.approx(want, nan_ok=True), (book, figure)
    app.close()


def test_a_record_holds_what_was_told_and_closed_in_time(app: App) -> None:
    """Three told trades; one of a retro-scan, one closed later and one of PAPER do not count."""
    add(app.db, app.strategy, 1, delivery="LIVE", ev_r=0.2, **won(1.5))
    add(app.db, app.strategy, 2, delivery="LIVE", ev_r=0.4)
    add(app.db, app.strategy, 3, delivery="LIVE", ev_r=0.3)
    add(app.db, app.strategy, 4, delivery="LIVE", origin="retro", **won(9.0))
    add(app.db, app.strategy, 5, delivery="PAPER", **won(9.0))
    add(app.db, app.strategy, 20, delivery="LIVE", **won(9.0))
    found = record.record(app, "LIVE", end_ms=T0 + 15 * DAY_MS)
    assert (found.n_closed, found.run, found.n) == (3, 2, 3)
    assert found.total_r == pytest.approx(1.5 - 1.1 - 1.1)
    assert found.promised_r == pytest.approx(0.3)
    assert found.win_rate == pytest.approx(1 / 3)
    later = record.record(app, "LIVE", start_ms=T0 + 15 * DAY_MS, end_ms=NOW)
    assert (later.n_closed, later.total_r) == (1, 9.0)
    assert math.isnan(later.promised_r)


def test_young_trades_count_in_totals_only(app: App) -> None:
    """Until validity and the longest hold are over, a stop proves nothing about rates."""
    add(app.db, app.strategy, 1, delivery="LIVE")
    found = record.record(app, "LIVE", end_ms=T0 + 2 * DAY_MS)
    assert (found.n_closed, found.n) == (1, 0)
    assert math.isnan(found.win_rate)
    assert streak_lines(found) == []


def year_lift(app: App) -> performance.Lift | None:
    """What the weekly message says of the gate: the figure of the pages."""
    return summary.lift_of(views.gate_record(summary.year_of(app, now_ms=NOW)))


def test_the_lift_is_of_scored_trades_on_both_sides(app: App) -> None:
    """Nothing without rejected ones; then the difference of the means."""
    for day in range(40):
        good = day % 2 == 0
        gate = {"gate": "PASS" if good else "REJECT", "ml_p": 0.5}
        add(app.db, app.strategy, day, **gate, **(won(1.0) if good else {}))
    add(app.db, app.strategy, 41, gate="REJECT", gate_reason="max_cost_r", **won(50.0))
    found = year_lift(app)
    assert found is not None
    assert (found.n_passed, found.n_rejected) == (20, 20)
    assert found.lift_r == pytest.approx(2.1)
    app.db.run("UPDATE signals SET ml_p = NULL WHERE gate = 'REJECT'")
    assert year_lift(app) is None


def test_the_proof_is_the_newest_state(app: App) -> None:
    """Nothing is proven before a model is promoted; then the states as they come."""
    assert standing.proof(app.db, app.strategy)[0] == "UNGATED"
    insert_bundle(
        app.db,
        "b1",
        strategy=app.strategy,
        parent=None,
        created_ms=1,
        data_until_ms=T0,
        metrics={"calibration": {"brier": 0.21, "brier_mart": 0.23}},
    )
    update_bundle(app.db, "b1", {"state": "champion"})
    for i, state in enumerate(("CERTIFIED", "DEGRADED")):
        app.db.run(
            "INSERT INTO states (at_ms, strategy_id, bundle, state, reason) VALUES (?, ?, ?, ?, ?)",
            (i, app.strategy, "b1", state, f"because {i}"),
        )
    assert standing.proof(app.db, app.strategy) == ("DEGRADED", "because 1")
    health = summary.health(app, start_ms=T0, now_ms=NOW)
    assert (health.model, health.model_age_ms, health.brier) == ("b1", 60 * DAY_MS, 0.21)


def test_the_summary_is_a_message_and_a_page_with_the_same_figures(tmp_path: Path) -> None:
    """The page opens without a network, escapes foreign text, and says what the message says."""
    seeded = seed(tmp_path)
    app = opened(seeded.config)
    app.db.run("UPDATE signals SET origin = 'live'")
    standing.note_verified(
        app.db, "decisions 60/60, live = retro 41/41 rows", ok=True, now_ms=END_MS
    )
    done = summary.summarise(app, now_ms=END_MS)
    week = summary.week_of(app, summary.year_of(app, now_ms=END_MS), now_ms=END_MS)
    page = Path(done["page"]).read_text(encoding="utf-8")
    text = plain(app.db.value("SELECT text FROM outbox WHERE kind = 'weekly_summary'"))
    assert Path(done["page"]).parent == tmp_path / "reports"
    for found in week.year:
        assert f"{found.title}: {found.n_closed} closed, {found.total_r:+.2f} R" in text
        assert f"<td>{found.n} ({found.n_eff:.0f})</td>" in page
        assert f"<td>{found.n_closed}</td>" in page
    for line in messages.health_lines(week.health, LOOK):
        assert line in page
        assert plain(line) in text
    assert "live = retro 41/41" in text
    assert Page(page).fetched == []
    assert text.count("\n") < 80
    assert len(text) < 4096
    app.close()


def test_an_empty_database_has_a_summary_too(app: App) -> None:
    """No candle, no model, no trade: it says so and does not fail."""
    summary.summarise(app, now_ms=NOW)
    text = plain(app.db.value("SELECT text FROM outbox"))
    for said in ("UNGATED", "Data: no candles yet", "LIVE: no trade closed yet", "no model yet"):
        assert said in text
    assert "nothing was promised" in text
    assert label_of(app.db, standing.VERIFIED) == ""


def test_the_digest_tells_how_things_stand(app: App) -> None:
    """State with its reason, what closed, the running record, and that signals are paused."""
    add(app.db, app.strategy, 0.2, **won(1.2))
    app.db.run("INSERT INTO pauses (from_ms) VALUES (?)", (T0 + HOUR_MS,))
    tell.queue_digest(app, now_ms=T0 + DAY_MS)
    text = plain(app.db.value("SELECT text FROM outbox"))
    for said in (
        "UNGATED",
        "PAUSED since",
        "Closed paper 1: won 1, net +1.20 R",
        "PAPER: 1 closed",
    ):
        assert said in text


def test_the_seed_of_intervals_is_shared() -> None:
    """The same trades give the same interval wherever they are judged."""
    trades = performance.Trades(
        **{name: np.arange(40.0) for name in ("r", "gross_r", "p_mart")},
        decided_ms=np.arange(40) * DAY_MS,
        closed_ms=np.arange(40) * DAY_MS + HOUR_MS,
        symbol=np.zeros(40, np.int64),
        ambiguous=np.zeros(40, np.bool_),
    )
    one, two = (performance.metrics(trades, np.random.default_rng(SEED)) for _ in range(2))
    assert one == two


def test_weekly_work_is_told_by_the_tools(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tuner says goes to the owner as well as to the screen."""

    def tuned(*_: Any, **__: Any) -> dict[str, Any]:
        decided = {"promoted": True, "reason": "no champion yet"}
        return {"bundle": "b9", "mode": "ev", "n_certified": 0, "cells": {}, "promotion": decided}

    monkeypatch.setattr(learning, "tune", tuned)
    tools._learning(app, Namespace(step="tune"), lambda *_: None)
    text = plain(app.db.value("SELECT text FROM outbox WHERE kind = 'weekly_work'"))
    assert "PROMOTED: it speaks from now on\nno champion yet" in text
    assert load_config(app.config_path) == app.config
