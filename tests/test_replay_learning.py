"""A replay that learns on its way says what a retro-scan with the same models says afterwards."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.app import App
from core.jobs import files, learning, promotion, retro
from core.store import models
from core.timeframe import DAY_MS, HOUR_MS
from tests.engine_world import QUIET, gap_states, opened, same, stored
from tests.figures import Record
from tests.replay_world import (
    ReplayWorld,
    agreeing,
    market,
    prepared,
    replayed,
)

WEEKLY = {name: {"enabled": True} for name in ("train", "calibrate", "tune")}
GATING = {"min_ev_pct": -50.0, "min_closed_samples": 50}  # so that a driftless market passes some
_MODELS = ("bundles", "promotions", "states")


@dataclass(frozen=True)
class Agreed:
    """Both engines, and who spoke for each candidate of the replay."""

    live: App
    past: App
    speakers: list[str]

    def close(self) -> None:
        self.live.close()
        self.past.close()


def learning_world(folder: Path, *, n_symbols: int, days: int, replay_days: int) -> ReplayWorld:
    """A market whose past was learnt from; the weekly work is on."""
    world = prepared(
        folder,
        market(n_symbols, days, 9),
        replay_days=replay_days,
        auto={**QUIET["auto"], **WEEKLY},
        models={"meta": {"gating": GATING}},
    )
    app = opened(world.folder / "config.yaml")
    done = learning.weekly(
        app.db,
        app.config,
        models_dir=app.models_dir,
        config_path=app.config_path,
        now_ms=world.split_ms,
    )
    assert done["tune"]["promotion"]["promoted"]
    app.close()
    return world


def take_models(past: App, live: App) -> None:
    """Give an engine the models of another, and the dates at which they spoke."""
    shutil.copytree(live.models_dir, past.models_dir, dirs_exist_ok=True)
    for table in _MODELS:
        rows = live.db.rows(f"SELECT * FROM {table}")
        past.db.run(f"DELETE FROM {table}")
        past.db.run_many(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)


def speakers_agree(world: ReplayWorld, patch: pytest.MonkeyPatch) -> Agreed:
    """Replay with a second promotion on the way, and scan the same as history; nothing is late."""
    live, past = opened(world.copy("live")), opened(world.copy("past"))
    monday_ms = world.split_ms - world.split_ms % DAY_MS  # markets begin on one, days are whole
    sunday_ms = monday_ms + (6 - (monday_ms // DAY_MS + 3) % 7) * DAY_MS
    replayed(live, sunday_ms + 6 * HOUR_MS)
    runs = dict(live.db.rows("SELECT job, outcome FROM job_runs WHERE job LIKE 'auto_%'"))
    assert runs == dict.fromkeys(("auto_train", "auto_calibrate", "auto_tune"), "ok")
    challenger = models.bundles(live.db, state="kept_out")[0]["id"]
    promotion.promote(
        live.db,
        live.config,
        models_dir=live.models_dir,
        config_path=live.config_path,
        bundle=challenger,
        now_ms=live.market()[1].now_ms(),
    )
    replayed(live)
    take_models(past, live)
    files.import_files(past, [world.files], origin="replay")
    retro.retro_scan(past, start_ms=world.split_ms, end_ms=world.end_ms, workers=1)
    ours = agreeing(live, past, world.end_ms, patch)
    fresh = [row for row in ours if row["decided_ms"] > world.split_ms]
    promoted = {name for _, name in models.promotions(live.db, live.strategy)}
    assert len(promoted) >= 2
    assert {row["ml_model"] for row in fresh} <= promoted
    assert challenger in {row["ml_model"] for row in fresh}
    assert {row["why"] == "" for row in fresh} == {False}
    assert sum(row["gate"] == "PASS" for row in fresh) >= 10
    return Agreed(live, past, [str(row["ml_model"]) for row in fresh])


@pytest.mark.small
def test_a_replay_that_learns_equals_its_retro_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores, reasons, verdicts and deliveries of both models' times, column by column."""
    world = learning_world(tmp_path / "start", n_symbols=2, days=78, replay_days=8)
    found = speakers_agree(world, monkeypatch)
    assert len(found.speakers) >= 20
    found.close()


@pytest.mark.long(minutes=9)
def test_thirty_days_of_ten_symbols_equal_their_retro_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Record
) -> None:
    """The same at length, bars and holes too: four Sundays of training, an outage on the way."""
    world = learning_world(tmp_path / "start", n_symbols=10, days=90, replay_days=30)
    found = speakers_agree(world, monkeypatch)
    assert len(found.speakers) >= 1500
    n_models = len(set(found.speakers))
    assert n_models >= 2
    n_bars = 0
    for symbol, truth in world.truth.items():
        for timeframe in ("1m", "15m", "1h"):
            bars = stored(found.live, symbol, timeframe)
            assert same(bars, stored(found.past, symbol, timeframe))
            n_bars += len(bars)
        assert same(stored(found.live, symbol), truth)
        assert gap_states(found.live, symbol) == gap_states(found.past, symbol)
    record_property("candidates alike", f"{len(found.speakers):,}, judged by {n_models} models")
    record_property("bars alike", f"{n_bars:,}")
    found.close()
