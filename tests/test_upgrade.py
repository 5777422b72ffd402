"""Taking a new version into use: the same decisions, or a word on every one that is not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import maintenance
from core import signals
from core.app import App
from core.errors import StoreError
from core.jobs import retro
from core.jobs import upgrade as upgrades
from core.jobs.redecide import redecide
from core.schema import VERSION
from core.store import open_reader
from core.store.db import WriterLock
from core.timeframe import DAY_MS
from tests.engine_world import opened
from tests.old_databases import contents, handed_back, lived_in
from tests.replay_world import ReplayWorld, replayed
from tests.test_replay_learning import learning_world

Rows = list[tuple[Any, ...]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ReplayWorld:
    """Two weeks of scanned history and some hours lived, some of it with holes filled late."""
    return lived_in(tmp_path_factory.mktemp("upgrade") / "world")


@pytest.fixture
def app(world: ReplayWorld, tmp_path: Path) -> App:
    """An engine on a copy of that world."""
    shutil.copytree(world.folder, tmp_path / "app", ignore=shutil.ignore_patterns("history"))
    return opened(tmp_path / "app" / "config.yaml")


def run(app: App, **asked: Any) -> tuple[dict[str, Any], bool]:
    """Upgrade, and see that no stored decision, nor anything else, was written."""
    before = written(app)
    answer = upgrades.upgrade(app, **asked)
    assert written(app) == before
    return answer


def written(app: App) -> Rows:
    """What changes with every row that anybody writes."""
    return app.db.rows("SELECT total_changes()") + app.db.rows("PRAGMA data_version")


def test_the_same_program_takes_the_same_decisions(app: App) -> None:
    """Of hundreds, live and retro, none changed; the copy is proven, nothing left out in silence.

    What was decided before a hole was filled, or the market's record changed, is counted apart.
    """
    answer, ok = run(app)
    assert ok
    n = app.db.value("SELECT count(*) FROM signals WHERE strategy_id = ?", (app.strategy,))
    found = redecide(app, start_ms=0, end_ms=1 << 52)
    assert (found.n_changed, found.n_ended_otherwise, found.differences) == (0, 0, [])
    assert found.n + sum(found.left_out.values()) >= n > 1000
    assert found.n > 0.9 * n
    assert answer["decisions"] == f"0 of {found.n:,} decisions changed"
    assert answer["ends"] == f"0 of {found.n_ended:,} trades end otherwise"
    assert found.n_ended > 1000
    with open_reader(Path(answer["copy"])) as copy:
        assert copy.value("PRAGMA integrity_check") == "ok"


Change = Callable[[App, pytest.MonkeyPatch], None]


def _sql(statement: str) -> Change:
    def change(app: App, _: pytest.MonkeyPatch) -> None:
        assert app.db.run(statement) == 1

    return change


def _other_stop(_: App, patch: pytest.MonkeyPatch) -> None:
    """The code that makes plans puts the stop elsewhere; nobody raised its version."""
    genuine: Callable[..., Any] = vars(signals)["planned"]

    def planned(*arguments: Any) -> Any:
        rows = genuine(*arguments)
        rows["stop"] *= 1.0 + 1e-12
        return rows

    patch.setattr(signals, "planned", planned)


def _other_end(_: App, patch: pytest.MonkeyPatch) -> None:
    """The code that follows trades charges a little more."""
    genuine: Callable[..., Any] = vars(retro)["fates"]

    def fates(*arguments: Any, **named: Any) -> Any:
        rows = genuine(*arguments, **named)
        return [
            row | {"r_multiple": row["r_multiple"] and row["r_multiple"] - 1e-9} for row in rows
        ]

    patch.setattr(retro, "fates", fates)


NEWEST = "(SELECT max(id) FROM signals WHERE origin = 'retro' AND status = 'SL')"


def _other_feature(app: App, _: pytest.MonkeyPatch) -> None:
    """The last bit of the first feature of one row."""
    where = f"WHERE signal_id = {NEWEST}"
    vector = np.frombuffer(app.db.value(f"SELECT vector FROM features {where}"), "<f8").copy()
    vector[0] = np.nextafter(vector[0], 9.0)
    app.db.run(f"UPDATE features SET vector = ? {where}", (vector.tobytes(),))


CHANGES: dict[str, tuple[Change, str, int]] = {
    "the code moves every stop": (_other_stop, "sl", 1000),
    "the code ends trades otherwise": (_other_end, "r_multiple", 500),
    "one price": (_sql(f"UPDATE signals SET tp1 = tp1 * 1.0000001 WHERE id = {NEWEST}"), "tp1", 1),
    "one word": (_sql(f"UPDATE signals SET rationale = 'x' WHERE id = {NEWEST}"), "rationale", 1),
    "one feature": (_other_feature, "feature", 1),
    "one too many": (_sql(f"UPDATE signals SET p0_ms = p0_ms + 1 WHERE id = {NEWEST}"), "row", 2),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_decision_that_comes_out_otherwise_is_named_with_the_way_back(
    name: str, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit of any column; the first three, and the command that restores the copy."""
    change, column, n_least = CHANGES[name]
    change(app, monkeypatch)
    answer, ok = run(app)
    assert not ok
    rows = answer["first differences"]
    assert rows[0]["column"].startswith(column)
    assert rows[0]["stored"] != rows[0]["now"]
    assert len(rows) <= 3
    words = (answer["decisions"], answer["ends"])
    counts = [int(text.partition(" ")[0].replace(",", "")) for text in words]
    assert sum(counts) >= n_least
    assert f"maintenance.py restore --file {answer['copy']}" in answer["to go back"]


def test_what_other_settings_decide_is_told_apart(app: App) -> None:
    """Another equity is another size of the same plan: said, but no change of a decision."""
    risk = app.config.risk.model_copy(update={"equity_usd": 5_000.0})
    app.config = app.config.model_copy(update={"risk": risk})
    answer, ok = run(app)
    assert ok
    assert answer["decisions"].startswith("0 of ")
    assert "size" in answer["told otherwise now"]


def test_what_came_or_changed_later_is_left_out_and_counted(app: App) -> None:
    """A revised candle, or a market's record that changed, is no change of the code."""
    app.db.run(f"UPDATE signals SET data_revised = 1, tp1 = tp1 * 2 WHERE id = {NEWEST}")
    answer, ok = run(app)
    assert ok
    assert answer["not compared"]["its candles or funding came or changed later"] == 1
    last_ms = app.db.value("SELECT max(decided_ms) FROM signals")
    app.db.run("INSERT INTO market_changes VALUES ('replay', 'ETH/USDT:USDT', ?, '{}')", (last_ms,))
    later, _ = run(app)
    assert later["not compared"]["the exchange changed the market's record since"] > 300


def test_a_feature_that_is_known_only_now_is_no_change(app: App) -> None:
    """A leader or a spot pair that came later tells a row nothing it could have known."""
    where = f"WHERE signal_id = {NEWEST}"
    vector = np.frombuffer(app.db.value(f"SELECT vector FROM features {where}"), "<f8").copy()
    vector[np.flatnonzero(~np.isnan(vector))[-1]] = np.nan
    app.db.run(f"UPDATE features SET vector = ? {where}", (vector.tobytes(),))
    answer, ok = run(app)
    assert ok
    assert list(answer["not compared"].values()) == [1]


def test_a_new_strategy_keeps_the_old_record_and_freezes_it(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the code's version was raised, or settings edited, it says which; no row moves."""
    old, n = app.strategy, app.db.value("SELECT count(*) FROM signals")
    monkeypatch.setattr("core.config.STRATEGY_VERSION", 2)
    app._strategy = None
    answer, ok = run(app)
    assert ok
    assert app.strategy != old
    said = answer["decisions"]
    assert said.startswith(f"new strategy_id {app.strategy}: ")
    assert "the code that decides is of version 2, was 1" in said
    assert f"the old record ({n:,} signals) is kept and frozen" in said
    monkeypatch.undo()
    wider = app.config.signals.model_copy(update={"atr_mult_sl": 2.0})
    app.config = app.config.model_copy(update={"signals": wider})
    assert "its settings were edited" in run(app)[0]["decisions"]


def test_repeating_it_keeps_one_copy_until_something_was_written(app: App) -> None:
    """The copy of before is good while nothing is newer than it."""
    app.db.checkpoint(truncate=True)
    first = run(app)[0]["copy"]
    assert run(app)[0]["copy"] == first
    app.db.run("INSERT INTO labels VALUES ('a', 'b')")
    assert run(app)[0]["copy"] != first


def test_it_is_refused_while_a_scheduler_runs(world: ReplayWorld, tmp_path: Path) -> None:
    """Its pid is named; after it has stopped the same command works."""
    shutil.copytree(world.folder, tmp_path / "app", ignore=shutil.ignore_patterns("history"))
    lock = WriterLock(tmp_path / "app" / "ohlcv.db.lock")
    assert lock.acquire()
    app = opened(tmp_path / "app" / "config.yaml")
    with pytest.raises(StoreError, match=rf"pid {os.getpid()}\).*make upgrade"):
        upgrades.upgrade(app)
    lock.release()


@pytest.mark.parametrize("kind", ["1", "3, its first day"])
def test_the_command_migrates_an_old_engine_and_its_copy_brings_it_back(
    kind: str, world: ReplayWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One command from the oldest database to a verdict; one more and it is as it was."""
    folder = tmp_path / "app"
    shutil.copytree(world.folder, folder, ignore=shutil.ignore_patterns("*.db*", "history"))
    path = handed_back(world.folder / "ohlcv.db", folder / "ohlcv.db", kind)
    before = contents(path)
    place = ["--config", str(folder / "config.yaml")]
    assert maintenance.main(["upgrade", "--days", "5", "--json", *place]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"].startswith(f"{kind[0]} -> ")
    assert answer["decisions"].startswith("0 of ")
    assert int(answer["decisions"].split()[2].replace(",", "")) > 300
    assert contents(path) != before
    assert maintenance.main(["restore", "--file", answer["copy"], *place]) == 0
    assert contents(path) == before


def test_the_way_back_names_the_copy_that_the_older_program_reads(
    world: ReplayWorld, tmp_path: Path
) -> None:
    """Also at the second try, when nothing is left to migrate."""
    shutil.copytree(
        world.folder, tmp_path / "app", ignore=shutil.ignore_patterns("*.db*", "history")
    )
    handed_back(world.folder / "ohlcv.db", tmp_path / "app" / "ohlcv.db", "7")
    app = opened(tmp_path / "app" / "config.yaml")
    assert app.kept is not None
    kept = app.kept.path
    app.close()
    again = opened(tmp_path / "app" / "config.yaml")
    again.db.run(f"UPDATE signals SET tp1 = tp1 * 2 WHERE id = {NEWEST}")
    answer, ok = run(again)
    assert not ok
    assert answer["copy"] != str(kept)
    assert answer["to go back"].endswith(f"; for a program before schema {VERSION}: {kept}")


def test_an_engine_without_a_record_has_nothing_to_compare(tmp_path: Path) -> None:
    """A new database is no error."""
    (tmp_path / "config.yaml").write_text("app: {db_path: ohlcv.db}")
    answer, ok = run(opened(tmp_path / "config.yaml"), days=30)
    assert ok
    assert answer["decisions"] == "0 of 0 decisions changed"


def test_only_the_days_asked_for_are_decided_again(app: App) -> None:
    """Fewer days, fewer decisions; all of them are of those days."""
    few, many = (int(run(app, days=n)[0]["decisions"].split()[2].replace(",", "")) for n in (2, 9))
    newest = app.db.value("SELECT max(ts_ms) FROM signals WHERE strategy_id = ?", (app.strategy,))
    stored = app.db.value(
        "SELECT count(*) FROM signals WHERE strategy_id = ? AND ts_ms > ?",
        (app.strategy, newest - 4 * DAY_MS),
    )
    assert 0 < few <= stored < many


@pytest.mark.long(minutes=2)
def test_what_a_model_said_is_said_again(tmp_path: Path) -> None:
    """Scores, reasons and verdicts of two models' times, in a replay that learns on its way."""
    world = learning_world(tmp_path / "start", n_symbols=2, days=78, replay_days=8)
    app = opened(world.folder / "config.yaml")
    replayed(app)
    scored = "SELECT count(*) FROM signals WHERE origin = 'live' AND ml_p IS NOT NULL"
    assert app.db.value(scored) >= 20
    found = redecide(app, start_ms=0, end_ms=1 << 52)
    assert (found.n_changed, found.n_ended_otherwise, found.n_settings) == (0, 0, 0)
    app.db.run("UPDATE signals SET ml_p = ml_p + 1e-9 WHERE origin = 'live' AND ml_p IS NOT NULL")
    again = redecide(app, start_ms=world.split_ms, end_ms=1 << 52)
    assert {one.column for one in again.differences} == {"ml_p"}
    assert again.n_changed >= 20
