"""The owner's tools say what is true, keep copies that work, and catch a planted leak."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import features, market_context
from core.app import App
from core.domain import FundingRate, Series
from core.errors import StoreError
from core.jobs import holdings, maintain, verify
from core.jobs.invariants import DERIVED, POINTER
from core.store import Database, open_database, open_reader
from core.store import gaps as gap_store
from core.store import markets as market_store
from core.store.candles import upsert_candles
from core.store.signals import update_signal
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from tests.engine_world import opened, stored, table, write_config
from tests.replay_world import ReplayWorld, market, prepared, replayed, without_minutes

ROOT = Path(__file__).parents[1]
NOW_MS = 1_700_000_000_000
SYMBOLS = ("BTC/USDT:USDT", "ETH/USDT:USDT")
Peek = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ReplayWorld:
    """Two symbols, two weeks of scanned history with a hole, and three hours to come."""
    truth = dict(market(2, 14, 5))
    hole_ms = int(truth[SYMBOLS[0]].ts_ms[0]) + 3 * DAY_MS
    truth[SYMBOLS[0]] = without_minutes(truth[SYMBOLS[0]], hole_ms, 30)
    return prepared(tmp_path_factory.mktemp("maintain") / "w", truth, replay_days=3 / 24)


@pytest.fixture
def app(world: ReplayWorld, tmp_path: Path) -> Iterator[App]:
    """An engine on a copy of that world."""
    folder = tmp_path / "app"
    path = write_config(folder, **_settings(world))
    with open_reader(world.folder / "ohlcv.db") as source:
        source.backup_to(folder / "ohlcv.db")
    engine = opened(path)
    yield engine
    engine.lock_file.release()
    engine.db.close()


def _settings(world: ReplayWorld) -> dict[str, Any]:
    replay = {"path": str(world.files), "speed": 0}
    return {
        "exchange": {"id": "replay", "replay": replay},
        "symbols": list(SYMBOLS),
        "timeframes": ["15m", "1h"],
        "backup": {"enabled": True, "keep": 3},
    }


def everything(db: Database) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables."""
    names = db.rows("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    return {name: table(db, name) for (name,) in names}


def test_a_backup_holds_everything_and_leaves_no_crumbs(app: App) -> None:
    """Row for row the same, one file, whole by SQLite's own check."""
    done = maintain.backup(app, now_wall_ms=NOW_MS)
    path = Path(done["file"])
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert done["bytes"] == path.stat().st_size > 100_000
    with open_reader(path) as copy:
        assert copy.value("PRAGMA integrity_check") == "ok"
        assert everything(copy) == everything(app.db)


def test_a_restored_backup_goes_on_as_if_nothing_had_been(app: App) -> None:
    """Back to the backup's rows, the later database kept aside, and the replay runs from there."""
    before = everything(app.db)
    backup = Path(maintain.backup(app, now_wall_ms=NOW_MS)["file"])
    replayed(app)
    after = everything(app.db)
    assert after["ohlcv"] != before["ohlcv"]
    app.db.checkpoint(truncate=True)
    app.db.close()
    app.lock_file.release()
    maintain.restore(backup, app.db.path)
    assert {p.name for p in app.root.iterdir()} >= {"ohlcv.db", "ohlcv.db.before-restore"}
    again = opened(app.config_path)
    assert everything(again.db) == before
    replayed(again)
    for name in ("ohlcv", "signals", "gaps", "scan_positions", "job_marks"):
        assert table(again.db, name) == after[name]
    again.close()
    with open_database(app.root / "ohlcv.db.before-restore") as old:
        assert everything(old) == after


def test_a_damaged_backup_is_not_restored(app: App) -> None:
    """It is named as damaged; the database stays as it is."""
    path = Path(maintain.backup(app, now_wall_ms=NOW_MS)["file"])
    raw = path.read_bytes()
    middle, head = path.with_name("middle.db"), path.with_name("head.db")
    middle.write_bytes(raw[: 5 * 4096] + b"\xa5" * (4 * 4096) + raw[9 * 4096 :])
    head.write_bytes(b"\xa5" * 4096 + raw[4096:])
    before = everything(app.db)
    for bad in (middle, head, path.with_name("none.db")):
        with pytest.raises(StoreError, match=r"damaged|not exist"):
            maintain.restore(bad, app.db.path)
    assert everything(app.db) == before
    assert {p.name for p in path.parent.iterdir()} == {path.name, middle.name, head.name}


def test_old_backups_are_dropped_and_nothing_else(app: App) -> None:
    """The newest three stay; other files in the folder are not touched."""
    folder = app.root / app.config.backup.dir
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    (folder / "other-20200101.db").write_text("mine")
    made = [maintain.backup(app, now_wall_ms=NOW_MS + n * DAY_MS)["file"] for n in range(5)]
    left = {path.name for path in folder.iterdir()}
    assert left == {"notes.txt", "other-20200101.db", *(Path(f).name for f in made[-3:])}


def test_vacuum_rewrites_only_what_has_room(app: App) -> None:
    """Up to a fifth free nothing happens; above it the file shrinks and holds the same rows."""
    assert maintain.vacuum(app)["vacuumed"] is False
    app.db.run("CREATE TABLE ballast AS SELECT * FROM ohlcv")
    app.db.run("DROP TABLE ballast")
    app.db.checkpoint(truncate=True)
    before, size = everything(app.db), app.db.path.stat().st_size
    done = maintain.vacuum(app)
    assert done["vacuumed"] is True
    assert done["free_share"] > maintain.VACUUM_SHARE
    assert app.db.path.stat().st_size < 0.8 * size
    assert everything(app.db) == before
    assert maintain.vacuum(app) == {"free_share": 0.0, "vacuumed": False}
    assert maintain.vacuum(app, force=True)["vacuumed"] is True


def test_without_the_lock_the_wal_and_the_file_are_left_alone(app: App) -> None:
    """Checkpoint and vacuum name who keeps the database; a backup needs no lock."""
    other = opened(app.config_path)
    assert not other.holds_lock
    for step in (maintain.checkpoint, maintain.vacuum):
        with pytest.raises(StoreError, match=f"pid {app.lock_file.holder()}"):
            step(other)
    assert Path(maintain.backup(other, now_wall_ms=NOW_MS)["file"]).exists()
    other.close()


def test_a_checkpoint_empties_the_wal_unless_a_reader_holds_it(app: App) -> None:
    """Held, it says so and nothing is lost; released, the WAL is empty."""
    with open_reader(app.db.path) as reader:
        reader.run("BEGIN")
        n = reader.value("SELECT count(*) FROM labels")
        app.db.rows("PRAGMA busy_timeout = 20")
        app.db.run("INSERT INTO labels VALUES ('a', 'b')")
        assert maintain.checkpoint(app)["pages_in_wal"] == -1
        assert reader.value("SELECT count(*) FROM labels") == n
    assert maintain.checkpoint(app)["wal_bytes"] == 0
    assert app.db.value("SELECT value FROM labels WHERE name = 'a'") == "b"


def test_the_daily_slot_backs_up_where_enabled(app: App) -> None:
    """One backup when on, none when off."""
    maintain.daily_backup(app, now_wall_ms=NOW_MS)
    assert len(list((app.root / app.config.backup.dir).iterdir())) == 1
    backup = app.config.backup.model_copy(update={"enabled": False})
    app.config = app.config.model_copy(update={"backup": backup})
    maintain.daily_backup(app, now_wall_ms=NOW_MS + DAY_MS)
    assert len(list((app.root / app.config.backup.dir).iterdir())) == 1


def test_verify_finds_live_and_retro_alike(app: App) -> None:
    """All points and rows of all, candidates and trades among them; nothing is written."""
    before = everything(app.db)
    found = verify.verify(app, n_points=60, seed=1)
    assert (found["checked"], found["same"], found["ok"]) == (60, 60, True)
    assert found["candidates_compared"] >= 20
    assert found["failed"] == []
    n_rows, n_trades = (
        sum(int(stretch[name].partition("/")[2]) for stretch in found["stretches"])
        for name in ("rows", "trades")
    )
    assert len(found["stretches"]) == 3
    assert n_rows >= 10
    assert n_trades >= 3
    assert found["verified"] == (
        f"decisions 60/60, live = retro {n_rows}/{n_rows} rows, trades {n_trades}/{n_trades}"
    )
    assert everything(app.db) == before


@pytest.mark.parametrize("leaks", [False, True])
def test_verify_covers_what_is_stored_beside_the_candles(
    app: App, monkeypatch: pytest.MonkeyPatch, *, leaks: bool
) -> None:
    """Funding, open interest and basis of later than the decision change nothing, or it is said."""
    rng = np.random.default_rng(1)
    for symbol in SYMBOLS:
        ts_ms = stored(app, symbol).ts_ms
        days = range(int(ts_ms[0]) - 4 * DAY_MS, int(ts_ms[-1]) + DAY_MS, 8 * HOUR_MS)
        rates = [FundingRate(t, float(rng.normal(0, 1e-4))) for t in days]
        market_store.upsert_funding(app.db, "replay", symbol, rates)
        for at_ms in range(int(ts_ms[0]), int(ts_ms[-1]), 15 * MINUTE_MS):
            qty = float(rng.uniform(90, 110))
            market_store.insert_interest(app.db, "replay", symbol, at_ms + 6000, qty)
    spot = Series("replay", SYMBOLS[0].partition(":")[0], "15m")
    upsert_candles(app.db, spot, stored(app, SYMBOLS[1], "15m"))
    honest = market_context.context_values
    if leaks:

        def early(context: Any, *, side: int, decided_ms: int) -> tuple[float, ...]:
            return honest(context, side=side, decided_ms=decided_ms + 30 * MINUTE_MS)

        monkeypatch.setattr(features, "context_values", early)
    found = verify.verify(app, n_points=40, seed=1)
    assert found["candidates_compared"] >= 10
    assert found["ok"] is not leaks


def test_what_cannot_be_checked_is_named(tmp_path: Path) -> None:
    """Without candles nothing is proven: not all right, and each series says why."""
    empty = opened(write_config(tmp_path / "empty", symbols=["ETH/USDT"], timeframes=["1h", "4h"]))
    found = verify.verify(empty, n_points=5)
    assert not found["ok"]
    assert found["verified"] == "decisions 0/0, live = retro 0/0 rows, trades 0/0"
    why = "no candles; run: python download_data.py"
    assert found["not checked"] == {"ETH/USDT 1h": why, "ETH/USDT 4h": why}
    empty.close()


def _more_faults(app: App, number: int) -> dict[str, Callable[[], object]]:
    """Faults beside those of the row itself: its state, its messages, the ends of things."""
    run = app.db.run
    other = "SELECT id FROM signals WHERE status = '{}' ORDER BY id LIMIT 1"
    expired = app.db.value(other.format("EXPIRED"))
    state = "UPDATE signals SET exec_state = json_set(exec_state, '$.closed_ms', 1) WHERE id = ?"
    message = (
        "INSERT INTO outbox (dedupe_key, channel, kind, signal_id, text, created_ms, state,"
        " attempts) VALUES (?, 'x', ?, ?, '', 0, ?, 0)"
    )
    bundle = "INSERT INTO bundles (id, strategy_id, state, created_ms, data_until_ms) VALUES"
    return {
        "rows are open once entered": lambda: run(
            "UPDATE signals SET status = 'PENDING', closed_ts_ms = NULL, exec_state = '{}'"
            " WHERE id = ?",
            (number,),
        ),
        "unfilled rows have no result": lambda: update_signal(app.db, expired, {"r_multiple": 1.0}),
        "rows are what their state says": lambda: run(state, (number,)),
        "one call opens the messages of a signal": lambda: (
            run(message, ("a", "closed", number, "pending")),
            run(message, ("b", "new_signal", number, "pending")),
        ),
        "sent messages were tried": lambda: run(message, ("a", "test", None, "sent")),
        "series end where they say": lambda: run("UPDATE series SET first_ms = 0 WHERE id = 1"),
        "no scan is beyond the checkpoint": lambda: run(
            "INSERT INTO scan_positions SELECT exchange, symbol, '1d', 'x', 1 << 50"
            " FROM sync_checkpoint LIMIT 1"
        ),
        "nothing is counted below zero": lambda: run(
            "INSERT INTO funnel VALUES ('x', 'x', 'x', 'x', 0, 'x', -1)"
        ),
        "scores and promotions are of a bundle": lambda: run(
            "INSERT INTO promotions (at_ms, strategy_id, bundle, reason) VALUES (0, '', 'x', '')"
        ),
        "one bundle is the champion": lambda: run(
            f"{bundle} ('a', '', 'champion', 0, 0), ('b', '', 'champion', 0, 0)"
        ),
        POINTER: lambda: run(f"{bundle} ('a', '', 'champion', 0, 0)"),
        DERIVED: lambda: run(
            "UPDATE ohlcv SET high = high + 1 WHERE key = (SELECT (id << 26) + last_ms / 60000"
            " FROM series WHERE derived_to_ms IS NOT NULL ORDER BY id LIMIT 1)"
        ),
    }


def test_invariants_name_what_is_broken(app: App) -> None:
    """Clean after a replay; each planted fault is named, and only it."""
    replayed(app)
    assert maintain.invariants(app)["broken"] == {}
    number = app.db.value("SELECT id FROM signals WHERE status = 'SL'")
    row = app.db.dicts("SELECT * FROM signals WHERE id = ?", (number,))[0]
    series = Series("replay", SYMBOLS[0], "1m")
    gap, bare = gap_store.gaps(app.db, series)[0], {"exec_state": "{}"}
    faults: dict[str, Callable[[], object]] = {
        "closed rows have an exit": lambda: update_signal(app.db, number, {"r_multiple": None}),
        "followed rows have no exit": lambda: update_signal(
            app.db, number, bare | {"status": "OPEN"}
        ),
        "entries come after the message": lambda: update_signal(
            app.db, number, bare | {"opened_ts_ms": row["actionable_ms"]}
        ),
        "every candidate has its features": lambda: app.db.run(
            "DELETE FROM features WHERE signal_id = ?", (number,)
        ),
        "told rows have a message": lambda: update_signal(
            app.db, number, {"delivery": "PAPER", "origin": "live"}
        ),
        "series counts are true": lambda: app.db.run(
            "UPDATE series SET n_rows = n_rows - 1 WHERE id = 1"
        ),
        "gaps cover no bar": lambda: app.db.run(
            "UPDATE gaps SET end_ms = end_ms + 60000 WHERE start_ms = ?", (gap.start_ms,)
        ),
        "gaps do not overlap": lambda: app.db.run(
            "INSERT INTO gaps VALUES (?, ?, ?, ?, ?, 'missing', 1, 0, 0)",
            (*series, gap.start_ms + MINUTE_MS, gap.end_ms),
        ),
        **_more_faults(app, number),
    }
    assert maintain.invariants(app)["rules"] == len(faults)
    two = {"one bundle is the champion": {POINTER: 1}}  # two champions, and no pointer to either
    for name, plant in faults.items():
        app.db.run("SAVEPOINT fault")
        plant()
        assert maintain.invariants(app)["broken"] == {name: 1} | two.get(name, {})
        app.db.run("ROLLBACK TO fault")
        app.db.run("RELEASE fault")


def test_the_doctor_tells_a_well_engine_from_a_sick_one(app: App, tmp_path: Path) -> None:
    """Well: no row is bad. Empty: every symbol without candles is, with its remedy."""
    replayed(app)
    rows = maintain.doctor(app)
    assert {state for state, _, _ in rows} <= {"ok", "warn"}
    said = {what: state for state, what, _ in rows}
    assert said["no scheduler runs"] == "warn"
    for symbol in SYMBOLS:
        assert said[f"{symbol}: newest candle 1 min old"] == "ok"
    other = opened(app.config_path)
    assert (f"a scheduler runs (pid {app.lock_file.holder()})") in {
        r[1] for r in maintain.doctor(other)
    }
    other.close()
    empty = opened(write_config(tmp_path / "empty", symbols=["ETH/USDT"]))
    bad = [(what, remedy) for state, what, remedy in maintain.doctor(empty) if state == "bad"]
    assert bad == [("ETH/USDT: no candles", "run: python download_data.py")]
    empty.close()


def test_inspect_counts_what_is_there(app: App) -> None:
    """Maintained counts equal counted ones, after a replay with a hole."""
    replayed(app)
    found = holdings.inspect(app.db)
    n_rows = sum(row["rows"] for row in found["series"])
    assert n_rows == app.db.value("SELECT count(*) FROM ohlcv")
    for row in found["series"]:
        bars = stored(app, row["symbol"], row["timeframe"])
        assert (row["rows"], row["first_ms"], row["last_ms"]) == (
            len(bars),
            bars.ts_ms[0],
            bars.ts_ms[-1],
        )
    minutes = {row["symbol"]: row for row in found["series"] if row["timeframe"] == "1m"}
    assert minutes[SYMBOLS[0]]["missing"] >= 30
    assert 0 <= minutes[SYMBOLS[1]]["age_min"] <= 1
    counted = dict(app.db.rows("SELECT status, count(*) FROM signals GROUP BY status"))
    assert found["signals"] == counted
    assert len(counted) >= 3
    jobs = {row["job"]: (row["runs"], row["failed"]) for row in found["jobs"]}
    assert jobs["scan_signals"][0] >= 175
    assert jobs["scan_signals"][1] == 0
