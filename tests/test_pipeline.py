"""The scheduler on a replay gives what the retro-scan gives, however often it is interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from core.app import App
from core.cadence import PIPELINE
from core.domain import Candles
from core.errors import TraderError
from core.jobs import files, follow, maintain, retro, run, scan, sync, tell
from core.store import markets as market_store
from core.store import open_reader, operation
from core.timeframe import HOUR_MS, MINUTE_MS
from tests.engine_world import (
    FakeExchange,
    HandClock,
    gap_states,
    opened,
    same,
    stored,
    table,
)
from tests.replay_world import (
    ReplayWorld,
    agreeing,
    market,
    prepared,
    replayed,
    signals,
    walked_on,
    without_minutes,
)
from tests.worlds import picked

TIMEFRAMES = ("1m", "5m", "15m", "1h", "4h", "1d")
TABLES = ("candles", "gaps", "signals", "features", "scan_positions", "funnel", "outbox")
LONE = "SOL/USDT:USDT"
QUARTER_MS = 6 * HOUR_MS
OUTAGE_MINUTES = 12


@dataclass
class Replayed:
    """The world, the engine that replayed all of it, and its state after a quarter of a day."""

    world: ReplayWorld
    app: App
    at_dawn: Path
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
    replayed(app, world.split_ms + QUARTER_MS)
    app.db.backup_to(folder / "dawn.db")
    replayed(app)
    yield Replayed(world, app, folder / "dawn.db", outage_ms)
    app.close()


@pytest.fixture(scope="module")
def past(live: Replayed) -> Iterator[App]:
    """The same bars imported into a database that starts alike, and scanned as history."""
    app = opened(live.world.copy("past"))
    files.import_files(app, [live.world.files], origin="replay")
    retro.retro_scan(app, start_ms=live.world.split_ms, end_ms=live.world.end_ms, workers=1)
    yield app
    app.close()


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
    ours = agreeing(live.app, past, live.outage_ms, monkeypatch)
    fresh = [row for row in ours if row["decided_ms"] > live.world.split_ms]
    assert len(fresh) >= 30
    assert len({row["status"] for row in fresh}) >= 5
    assert len({row["timeframe"] for row in fresh}) == 2
    assert sum(row["delivery"] == "PAPER" for row in fresh) >= 3
    assert len({row["delivery_reason"] for row in fresh}) >= 3


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
    tables = (*TABLES, "sync_checkpoint", "series")
    before = {name: table(app.db, name) for name in tables}
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
    """Six hours in three runs, stopped at odd minutes, are six hours in one."""
    path, world = live.world.copy("halves"), live.world
    for at_ms in (world.split_ms + 77 * MINUTE_MS, world.split_ms + 4 * HOUR_MS, None):
        app = opened(path)
        replayed(app, world.split_ms + QUARTER_MS if at_ms is None else at_ms)
        app.close()
    app = opened(path)
    with open_reader(live.at_dawn) as dawn:
        for name in TABLES:
            unlike = ("sent_wall_ms", "next_wall_ms", "sent_id") if name == "outbox" else ()
            ours, theirs = (table(db, name, without=unlike) for db in (app.db, dawn))
            assert ours == theirs, name
    app.close()


def awake(app: App, clock: HandClock, *instants: int) -> None:
    """Look at what is due twenty seconds into some minutes."""
    for at_ms in instants:
        clock.at_ms = at_ms + 20_000
        run.run_due(app)


def test_a_stage_that_fails_is_tried_again_and_nothing_overtakes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the scan fails no later stage and no later minute runs; then all catch up in order."""
    split_ms, truth = _short_world()
    world = prepared(tmp_path / "start", truth, replay_days=1 / 24, exchange={"id": "bitget"})
    clock = HandClock(split_ms)
    app = opened(world.copy("a"), (FakeExchange(truth, clock), clock))
    awake(app, clock, split_ms + MINUTE_MS)
    with monkeypatch.context() as patch:
        patch.setattr(scan, "scan_all", _broken)
        awake(app, clock, *(split_ms + m * MINUTE_MS for m in range(2, 6)))
    marks = operation.marks(app.db)
    assert marks["resample"] == split_ms + 2 * MINUTE_MS
    assert marks["scan_signals"] == marks["execute_signals"] == split_ms + MINUTE_MS
    awake(app, clock, split_ms + 6 * MINUTE_MS)
    assert {operation.marks(app.db)[job] for job in PIPELINE} == {split_ms + 6 * MINUTE_MS}
    runs = app.db.rows(
        "SELECT job, due_ms FROM job_runs WHERE outcome = 'ok' AND due_ms > ? ORDER BY id",
        (split_ms + 2 * MINUTE_MS,),
    )
    stages = [(due_ms, PIPELINE.index(job)) for job, due_ms in runs if job != PIPELINE[0]]
    assert stages == sorted(stages)
    assert len(stages) == 4 * 3
    errors = app.db.rows("SELECT job, detail FROM job_runs WHERE outcome = 'error'")
    assert errors == [("scan_signals", "RuntimeError: broken")] * 4
    app.close()


def test_a_stepped_replay_that_cannot_go_on_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with the error instead of trying for ever."""
    _, truth = _short_world()
    app = opened(prepared(tmp_path / "start", truth, replay_days=1 / 24).copy("a"))
    monkeypatch.setattr(scan, "scan_all", _broken)
    monkeypatch.setattr(run, "_STUCK_WAIT_S", 0.0)
    with pytest.raises(TraderError, match="RuntimeError: broken"):
        replayed(app)
    app.close()


def test_a_bar_completed_behind_the_scan_is_scanned_once_as_late(tmp_path: Path) -> None:
    """Its minute comes an hour after: the candidate is stored like any other, and not sent."""
    truth = {s: market(3, 42, 5)[s][-10 * 1440 :] for s in ("BTC/USDT:USDT", LONE)}
    end_ms = int(truth[LONE].ts_ms[-1]) + MINUTE_MS
    world = prepared(tmp_path / "start", truth, replay_days=0.5, exchange={"id": "bitget"})
    clock = HandClock(world.split_ms)
    exchange = FakeExchange(truth, clock)
    whole = opened(world.copy("whole"))
    records = exchange.markets(tuple(truth)).values()
    market_store.upsert_markets(whole.db, "bitget", records, now_ms=world.split_ms)
    files.import_files(whole, [world.files], origin="bitget")
    retro.retro_scan(whole, start_ms=world.split_ms, end_ms=end_ms, workers=1)
    want = next(
        row
        for row in signals(whole, "id", "origin", "delivery", "delivery_reason", "exec_state")
        if row["gate"] == "PASS" and row["decided_ms"] > world.split_ms + HOUR_MS
    )
    whole.close()
    app = opened(world.copy("late"), (exchange, clock))
    bars = "SELECT sum(n) FROM funnel WHERE reason = 'bars' AND symbol = ? AND timeframe = '15m'"
    before = app.db.value(bars, (LONE,))
    at_ms, bar_ms = want["decided_ms"], want["ts_ms"]
    exchange.hidden = {(s, bar_ms + n * MINUTE_MS) for s in truth for n in range(3, 9)}
    awake(app, clock, *range(world.split_ms + MINUTE_MS, at_ms + 61 * MINUTE_MS, MINUTE_MS))
    found = "SELECT * FROM signals WHERE decided_ms = ? AND symbol = ?"
    assert app.db.rows(found, (at_ms, want["symbol"])) == []
    exchange.hidden = set()
    awake(app, clock, *range(at_ms + 61 * MINUTE_MS, at_ms + 70 * MINUTE_MS, MINUTE_MS))
    rows = [r for r in app.db.dicts(found, (at_ms, want["symbol"])) if r["p1_ms"] == want["p1_ms"]]
    assert [(r["delivery"], r["delivery_reason"], r["origin"]) for r in rows] == [
        ("DIGEST", "late", "live")
    ]
    for name in ("p0_ms", "entry", "sl", "tp1", "tp2", "cost_r", "regime", "valid_until_ms"):
        assert rows[0][name] == want[name]
    assert app.db.rows("SELECT * FROM skipped_bars") == []
    scanned = (at_ms + 60 * MINUTE_MS - world.split_ms) // (15 * MINUTE_MS)
    assert app.db.value(bars, (LONE,)) - before == scanned
    app.close()


def _broken(*_: object, **__: object) -> None:
    raise RuntimeError("broken")


def _short_world() -> tuple[int, dict[str, Candles]]:
    """Two days of one symbol, and the instant of its last hour."""
    bars = market(3, 42, 5)["BTC/USDT:USDT"][-2 * 1440 :]
    return int(bars.ts_ms[-1]) - 59 * MINUTE_MS, {"BTC/USDT:USDT": bars}


def test_four_hours_away_change_only_what_is_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Live, with holes: the same candles, candidates and trades; what is found late is not sent."""
    truth = dict(market(3, 42, 5))
    split_ms = max(int(bars.ts_ms[-1]) for bars in truth.values()) + MINUTE_MS - 7 * HOUR_MS
    quiet = [
        without_minutes(truth[LONE], split_ms + n * HOUR_MS + 3 * MINUTE_MS, n) for n in (1, 2)
    ]
    truth[LONE] = picked(truth[LONE], np.isin(truth[LONE].ts_ms, quiet[0].ts_ms))
    truth[LONE] = picked(truth[LONE], np.isin(truth[LONE].ts_ms, quiet[1].ts_ms))
    outage_ms = split_ms + 3 * HOUR_MS + 50 * MINUTE_MS
    truth = {s: without_minutes(bars, outage_ms, OUTAGE_MINUTES) for s, bars in truth.items()}
    world = prepared(tmp_path / "start", truth, replay_days=7 / 24, exchange={"id": "bitget"})
    minutes = range(split_ms + MINUTE_MS, world.end_ms + MINUTE_MS, MINUTE_MS)
    asleep = range(split_ms + HOUR_MS, split_ms + 5 * HOUR_MS, MINUTE_MS)
    apps = []
    for name, missed in (("always", range(0)), ("away", asleep)):
        clock = HandClock(split_ms)
        exchange = FakeExchange(truth, clock)
        app = opened(world.copy(name), (exchange, clock))
        awake(app, clock, *(m for m in minutes if m <= asleep[-1] and m not in missed))
        exchange.n_asked = 0
        awake(app, clock, asleep[-1] + MINUTE_MS)
        assert exchange.n_asked <= 30  # one sync serves all minutes that were missed
        awake(app, clock, *(m for m in minutes if m > asleep[-1] + MINUTE_MS))
        walked_on(app, monkeypatch)
        apps.append(app)
    always, away = apps
    for symbol in truth:
        for timeframe in TIMEFRAMES:
            assert same(stored(always, symbol, timeframe), stored(away, symbol, timeframe))
        assert gap_states(always, symbol) == gap_states(away, symbol)
    assert [state for _, _, state in gap_states(away, LONE)][-3:] == [
        "no_trades",
        "no_trades",
        "missing",
    ]
    ours, theirs = (signals(app, "id", "delivery", "delivery_reason") for app in apps)
    missed_rows = [r for r in theirs if asleep[0] < r["decided_ms"] <= asleep[-1] - 2 * MINUTE_MS]
    assert len(missed_rows) >= 5
    assert ours == theirs
    told = [r for r in signals(away) if r["decided_ms"] in {m["decided_ms"] for m in missed_rows}]
    assert {r["delivery"] for r in told} == {"DIGEST"}
    assert {r["delivery_reason"] for r in told} <= {"late", "rejected"}
    assert any(r["gate"] == "PASS" for r in told)
    for app in apps:
        assert maintain.invariants(app)["broken"] == {}
        app.close()
