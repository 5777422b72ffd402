"""The scheduler on a replay gives what the retro-scan gives, however often it is interrupted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from core.app import App
from core.jobs import follow, history, maintain, retro, run, scan, sync, tell
from core.timeframe import HOUR_MS, MINUTE_MS
from tests.engine_world import (
    FakeExchange,
    HandClock,
    gap_states,
    opened,
    same,
    stored,
    table,
    write_config,
)
from tests.replay_world import (
    ReplayWorld,
    market,
    prepared,
    replayed,
    signals,
    without_minutes,
)

TIMEFRAMES = ("1m", "5m", "15m", "1h", "4h", "1d")
HALF_DAY_MS = 12 * HOUR_MS
OUTAGE_MINUTES = 12


@dataclass
class Replayed:
    """The world, the engine that replayed all of it, and its state after half a day."""

    world: ReplayWorld
    app: App
    at_noon: Path
    outage_ms: int


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replayed]:
    """Two days of three symbols, 40 days of history before; an outage in the last evening."""
    truth = dict(market(3, 42, 5))
    end_ms = max(int(bars.ts_ms[-1]) for bars in truth.values()) + MINUTE_MS
    outage_ms = end_ms - 6 * HOUR_MS - 7 * MINUTE_MS
    truth = {s: without_minutes(bars, outage_ms, OUTAGE_MINUTES) for s, bars in truth.items()}
    folder = tmp_path_factory.mktemp("pipeline")
    world = prepared(folder / "start", truth, replay_days=2)
    app = opened(world.copy("live"))
    replayed(app, world.split_ms + HALF_DAY_MS)
    app.db.backup_to(folder / "noon.db")
    replayed(app)
    yield Replayed(world, app, folder / "noon.db", outage_ms)
    app.close()


@pytest.fixture(scope="module")
def past(live: Replayed) -> Iterator[App]:
    """The same bars imported into a database that starts alike, and scanned as history."""
    app = opened(live.world.copy("past"))
    history.import_files(app, [live.world.files])
    retro.retro_scan(app, start_ms=live.world.split_ms, end_ms=live.world.end_ms, workers=1)
    yield app
    app.close()


def walked_on(app: App, patch: pytest.MonkeyPatch) -> None:
    """Write the state of every open row, also where nothing happened for less than an hour."""
    patch.setattr(follow, "_SAVE_EVERY_MS", 0)
    follow.follow_all(app, now_ms=1 << 52)


def test_the_bars_are_the_same_bit_for_bit(live: Replayed, past: App) -> None:
    """Minute by minute or imported at once: candles, derived bars and settled holes."""
    for symbol, truth in live.world.truth.items():
        assert same(stored(live.app, symbol), truth)
        for timeframe in TIMEFRAMES:
            bars = stored(live.app, symbol, timeframe)
            assert len(bars) >= 40
            assert same(bars, stored(past, symbol, timeframe))
        assert gap_states(live.app, symbol) == gap_states(past, symbol)
        hole = (live.outage_ms, live.outage_ms + OUTAGE_MINUTES * MINUTE_MS, "missing")
        assert gap_states(live.app, symbol)[-1] == hole


def test_the_scheduler_and_the_retro_scan_agree_on_every_column(
    live: Replayed, past: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every candidate, its features and what became of it; only id, origin and lateness may differ.

    Before the outage nothing was late: there what is delivered, and why, agrees as well.
    """
    walked_on(live.app, monkeypatch)
    walked_on(past, monkeypatch)
    ours, theirs = (signals(app, "id", "origin") for app in (live.app, past))
    fresh = [row for row in ours if row["decided_ms"] > live.world.split_ms]
    assert len(fresh) >= 30
    assert len({row["status"] for row in fresh}) >= 5
    assert len({row["timeframe"] for row in fresh}) == 2
    assert sum(row["delivery"] == "PAPER" for row in fresh) >= 3
    assert len({row["delivery_reason"] for row in fresh}) >= 3
    late = [row for row in ours if row["delivery_reason"] == "late"]
    assert all(row["decided_ms"] >= live.outage_ms for row in late)
    delivery = ("delivery", "delivery_reason")
    assert [bare(row, delivery) for row in ours] == [bare(row, delivery) for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        if mine["decided_ms"] <= live.outage_ms:
            assert mine == other


def bare(row: dict[str, Any], without: tuple[str, ...]) -> dict[str, Any]:
    """A row without some of its columns."""
    return {name: value for name, value in row.items() if name not in without}


def test_the_rows_found_live_are_marked_live(live: Replayed) -> None:
    """What the replay found is `live`, what the history held is `retro`."""
    for row in live.app.db.dicts("SELECT origin, decided_ms FROM signals"):
        assert (row["origin"] == "live") == (row["decided_ms"] > live.world.split_ms)


def test_told_rows_and_their_fates_are_in_the_outbox_once(live: Replayed) -> None:
    """Each PAPER row has its message, each thing that happened to it one more; all were sent."""
    assert maintain.invariants(live.app)["broken"] == {}
    told = live.app.db.dicts(
        "SELECT * FROM signals WHERE delivery = 'PAPER' AND origin = 'live' ORDER BY id"
    )
    assert len(told) >= 3
    kinds = live.app.db.rows("SELECT signal_id, kind FROM outbox WHERE signal_id IS NOT NULL")
    for row in told:
        mine = [kind for number, kind in kinds if number == row["id"]]
        assert mine.count("new_signal") == 1
        assert ("filled" in mine) == (row["opened_ts_ms"] is not None)
        ended = {"EXPIRED": "expired", "CANCELLED": "cancelled", "PENDING": "", "OPEN": ""}
        end = ended.get(row["status"], "closed")
        assert [kind for kind in mine if kind in ("expired", "cancelled", "closed")] == [end][
            : bool(end)
        ]
    assert live.app.db.rows("SELECT DISTINCT state FROM outbox") == [("sent",)]


def test_doing_any_job_again_changes_nothing(live: Replayed) -> None:
    """Every stage, the retro-scan, the import and the digest, repeated: the same tables."""
    app, world = live.app, live.world
    now_ms = app.market()[1].now_ms()
    tables = ("candles", "gaps", "signals", "features", "scan_positions", "funnel", "outbox")
    tables += ("sync_checkpoint", "series")
    before = {name: table(app.db, name) for name in tables}
    for _ in range(2):
        sync.sync_all(app, now_ms=now_ms)
        sync.resample_all(app, now_ms=now_ms)
        scan.scan_all(app, now_ms=now_ms)
        follow.follow_all(app, now_ms=now_ms)
        report = retro.retro_scan(app, start_ms=0, end_ms=world.end_ms, workers=1)
        assert report.n_stored == 0
        tell.queue_digest(app, now_ms=digest_ms(app))
    for name in tables:
        assert table(app.db, name) == before[name], name


def digest_ms(app: App) -> int:
    """The instant of the last digest."""
    key = app.db.value("SELECT dedupe_key FROM outbox WHERE kind = 'digest' ORDER BY id DESC")
    return int(str(key).removeprefix("digest:"))


def test_a_restart_on_the_way_leaves_no_trace(live: Replayed) -> None:
    """Half a day in three runs, stopped at odd minutes, is half a day in one."""
    path, world = live.world.copy("halves"), live.world
    for at_ms in (world.split_ms + 77 * MINUTE_MS, world.split_ms + 6 * HOUR_MS, None):
        app = opened(path)
        replayed(app, world.split_ms + HALF_DAY_MS if at_ms is None else at_ms)
        app.close()
    shutil.copy(live.at_noon, path.parent / "noon.db")
    settings = {**json.loads(path.read_text()), "app": {"db_path": "noon.db"}}
    noon = opened(write_config(path.parent / "noon", **settings, ) if False else _beside(path, settings))
    app = opened(path)
    for name in ("candles", "gaps", "signals", "features", "scan_positions", "funnel", "outbox"):
        skip = [c for c in ("sent_wall_ms", "next_wall_ms", "sent_id") if name == "outbox"]
        assert table(app.db, name, without=skip) == table(noon.db, name, without=skip), name
    noon.close()
    app.close()


def _beside(path: Path, settings: dict[str, Any]) -> Path:
    other = path.with_name("noon.yaml")
    other.write_text(json.dumps(settings))
    return other
