"""Every database that ever was becomes one of today, whole, whatever happens on the way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest

from core import schema
from core.app import open_app
from core.errors import StoreError
from core.jobs import maintain
from core.schema import VERSION
from core.store import open_database, open_reader
from core.store.db import WriterLock
from core.timeframe import MINUTE_MS
from tests.engine_world import opened
from tests.old_databases import (
    KINDS,
    LIVED_MS,
    contents,
    copy_of,
    each_statement,
    handed_back,
    lived_in,
    slimmed,
)
from tests.replay_world import ReplayWorld, replayed

ROOT = Path(__file__).parents[1]
STATUSES = {"PENDING", "OPEN", "TP", "SL", "TP1_TRAIL", "TIMEOUT", "EXPIRED", "CANCELLED"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ReplayWorld:
    """A world of today, lived in, with rows in every table."""
    return lived_in(tmp_path_factory.mktemp("old") / "world")


@pytest.fixture(scope="module")
def slim(world: ReplayWorld) -> Path:
    """The same with few candles."""
    return slimmed(world.folder / "ohlcv.db", world.folder.parent / "slim" / "ohlcv.db")


@pytest.fixture(scope="module")
def oldest(slim: Path) -> tuple[Path, dict[str, Any]]:
    """A database of the first schema, and what migrating it must come to."""
    folder = slim.parent
    want = handed_back(slim, folder / "want.db", "1", today=True)
    return handed_back(slim, folder / "oldest.db", "1"), contents(want)


def test_the_worlds_hold_rows_of_every_kind(world: ReplayWorld) -> None:
    """No table is empty, and signals are in every status: else the laws here would say little."""
    found = contents(world.folder / "ohlcv.db")
    assert [
        name for name, value in found.items() if isinstance(value, tuple) and not value[1]
    ] == []
    with open_reader(world.folder / "ohlcv.db") as db:
        assert {status for (status,) in db.rows("SELECT DISTINCT status FROM signals")} == STATUSES
        states = {state for (state,) in db.rows("SELECT DISTINCT state FROM outbox")}
    assert states == {"pending", "sending", "sent", "ambiguous", "dead"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_migrated_database_is_one_of_today_with_the_same_rows(
    kind: str, slim: Path, tmp_path: Path
) -> None:
    """Bit for bit, column order included, what a new database with these rows put in holds."""
    path = handed_back(slim, tmp_path / "old.db", kind)
    want = contents(handed_back(slim, tmp_path / "want.db", kind, today=True))
    before = contents(path)
    open_database(path).close()
    after = contents(path)
    assert after == want
    for table, (columns, rows) in ((t, v) for t, v in before.items() if isinstance(v, tuple)):
        kept = [i for i, name in enumerate(columns) if name != "is_market"]
        now = after[table][0]
        place = [now.index(columns[i]) for i in kept]
        assert [now[i] for i in place] == [columns[i] for i in kept]
        ours = [[value for i in kept for value in row[2 * i : 2 * i + 2]] for row in rows]
        theirs = [[v for i in place for v in row[2 * i : 2 * i + 2]] for row in after[table][1]]
        assert theirs == ours, table


SOME = ("1", "3, its first day", "7")


@pytest.mark.parametrize(
    "kind", [*SOME, *(pytest.param(k, marks=pytest.mark.long) for k in KINDS if k not in SOME)]
)
def test_the_engine_goes_on_in_a_migrated_database(
    kind: str, world: ReplayWorld, tmp_path: Path
) -> None:
    """It syncs, scans, follows and tells for a quarter of an hour, and no invariant breaks."""
    folder = tmp_path / "app"
    shutil.copytree(world.folder, folder, ignore=shutil.ignore_patterns("*.db*", "history"))
    handed_back(world.folder / "ohlcv.db", folder / "ohlcv.db", kind)
    app = opened(folder / "config.yaml")
    assert maintain.invariants(app)["broken"] == {}
    n_bars = app.db.value("SELECT count(*) FROM ohlcv")
    replayed(app, world.split_ms + LIVED_MS + 17 * MINUTE_MS)
    assert maintain.invariants(app)["broken"] == {}
    done = "SELECT min(done_ms) FROM job_marks WHERE job IN ('scan_signals', 'execute_signals')"
    assert app.db.value(done) > world.split_ms + LIVED_MS
    assert app.db.value("SELECT count(*) FROM ohlcv") >= n_bars + 2 * 16
    assert app.db.value("SELECT count(*) FROM outbox WHERE state <> 'sent'") < 5
    app.close()


class BrokenError(Exception):
    """What is raised in the middle of a migration."""


def statements_of(path: Path) -> list[str]:
    """The statements that opening a database executes."""
    said: list[str] = []
    with each_statement(said.append):
        open_database(path).close()
    return said


@pytest.mark.parametrize("kind", ["1", "3, its first day", "7"])
def test_a_failure_at_any_statement_changes_nothing_and_the_next_try_completes(
    kind: str, slim: Path, tmp_path: Path
) -> None:
    """An exception before each statement in turn: the old database stands, then becomes today's."""
    old = handed_back(slim, tmp_path / "old.db", kind)
    want = contents(handed_back(slim, tmp_path / "want.db", kind, today=True))
    before = contents(old)
    n = len(statements_of(copy_of(old, tmp_path / "count")))
    assert n > {"1": 60, "7": 20}.get(kind, 40)
    path = copy_of(old, tmp_path / "tried")
    for i in range(n):
        left = [i]

        def fail(_: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise BrokenError

        with each_statement(fail), pytest.raises(BrokenError):
            open_database(path)
        if i % 10 == 0:
            assert contents(path) == before
    assert contents(path) == before
    open_database(path).close()
    assert contents(path) == want


# A process that dies by SIGKILL before the n-th statement, for each n it is given: one interpreter,
# a fork for each death.
KILLED = """
import os, signal, sys
from pathlib import Path
from tests.old_databases import copy_of, each_statement
from core.app import open_app
from core.store import open_database

how, old, folder, *numbers = sys.argv[1:]
for number in map(int, numbers):
    left = [number]
    def count(sql):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    place = Path(folder) / str(number)
    path = copy_of(Path(old), place)
    pid = os.fork()
    if pid == 0:
        with each_statement(count):
            if how == "open_app":
                (place / "config.yaml").write_text("app: {db_path: ohlcv.db}")
                open_app(place / "config.yaml")
            else:
                open_database(path)
        os._exit(7)
    _, status = os.waitpid(pid, 0)
    print(number, os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status))
"""


def killed_at(how: str, old: Path, folder: Path, numbers: list[int]) -> dict[int, int]:
    """Open copies of a database and die; returns the signal by which each ended, or - its code."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, how, str(old), str(folder), *map(str, numbers)],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    pairs = (line.split() for line in done.stdout.splitlines())
    return {int(number): int(ended) for number, ended in pairs}


def test_killed_in_the_midst_of_the_migration_the_next_start_completes(
    oldest: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """SIGKILL: what is found is the old database or today's, whole, and then today's."""
    old, want = oldest
    before = contents(old)
    n = len(statements_of(copy_of(old, tmp_path / "count")))
    some = range(0, n, 4)  # all of them, and the copy's, are for the long suite
    ended = killed_at("open_database", old, tmp_path, [*some, n])
    assert ended == dict.fromkeys(some, signal.SIGKILL) | {n: -7}
    for number in some:
        path = tmp_path / str(number) / "ohlcv.db"
        assert contents(path) == before
        open_database(path).close()
        assert contents(path) == want


@pytest.fixture
def app_folder(slim: Path, tmp_path: Path) -> Path:
    """An engine's folder with a database of schema 7."""
    handed_back(slim, tmp_path / "app" / "ohlcv.db", "7")
    (tmp_path / "app" / "config.yaml").write_text("app: {db_path: ohlcv.db}")
    return tmp_path / "app"


def test_before_a_migration_a_proven_copy_is_kept_and_restoring_it_is_the_way_back(
    app_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its place is told, it is the old database row for row, and no crumb lies beside it.

    An open that migrates nothing keeps none.
    """
    before = contents(app_folder / "ohlcv.db")
    with caplog.at_level("WARNING"):
        app = open_app(app_folder / "config.yaml")
    assert app.kept is not None
    kept = app.kept.path
    app.close()
    assert str(kept) in caplog.text
    assert [p.name for p in kept.parent.iterdir()] == [kept.name]
    assert kept.name.startswith("schema7-ohlcv-")
    assert contents(kept) == before
    again = open_app(app_folder / "config.yaml")
    assert again.kept is None
    again.close()
    maintain.restore(kept, app_folder / "ohlcv.db")
    assert contents(app_folder / "ohlcv.db") == before


def test_copies_of_a_schema_are_rotated_among_themselves(app_folder: Path) -> None:
    """Neither daily backups nor copies of a later schema take the place of the way back."""
    with (app_folder / "config.yaml").open("a") as file:
        file.write("\nbackup: {keep: 1}")
    first = open_app(app_folder / "config.yaml")
    assert first.kept is not None
    kept = first.kept.path
    for day in range(3):
        maintain.backup(first, now_wall_ms=1_700_000_000_000 + day)
    first.close()
    folder = kept.parent
    assert len(list(folder.iterdir())) == 2
    maintain.restore(kept, app_folder / "ohlcv.db")
    with apsw.Connection(str(app_folder / "ohlcv.db")) as db:
        db.execute("DELETE FROM labels")  # it is no longer what was copied
    second = open_app(app_folder / "config.yaml")
    second.close()
    assert second.kept is not None
    assert second.kept.path != kept
    assert list(folder.glob("schema7-*")) == [second.kept.path]


def test_a_copy_that_cannot_be_made_stops_the_migration(
    app_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database stays as it is, and the lock is free again."""
    before = contents(app_folder / "ohlcv.db")

    def full(*_: object) -> None:
        raise StoreError("the disk is full;", remedy="make room")

    monkeypatch.setattr("core.store.copies.want_whole", full)
    with pytest.raises(StoreError, match="the disk is full"):
        open_app(app_folder / "config.yaml")
    assert contents(app_folder / "ohlcv.db") == before
    assert list((app_folder / "data" / "backups").iterdir()) == []
    lock = WriterLock(app_folder / "ohlcv.db.lock")
    assert lock.acquire()
    lock.release()


def test_nobody_migrates_under_a_running_scheduler(app_folder: Path) -> None:
    """The remedy names its pid and the command; nothing is changed and no copy made."""
    before = contents(app_folder / "ohlcv.db")
    lock = WriterLock(app_folder / "ohlcv.db.lock")
    assert lock.acquire()
    with pytest.raises(StoreError, match=rf"schema 7.*pid {os.getpid()}.*make upgrade"):
        open_app(app_folder / "config.yaml")
    lock.release()
    assert contents(app_folder / "ohlcv.db") == before
    assert not (app_folder / "data").exists()


def test_a_database_of_a_later_program_is_refused_with_a_remedy(app_folder: Path) -> None:
    """Not a bit of it is changed."""
    path = app_folder / "ohlcv.db"
    with apsw.Connection(str(path)) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    raw = path.read_bytes()
    with pytest.raises(StoreError, match=rf"has schema {VERSION + 1}, .*update the program"):
        open_app(app_folder / "config.yaml")
    assert path.read_bytes() == raw


@pytest.mark.long
def test_killed_before_any_statement_of_copy_and_migration_the_next_start_completes(
    oldest: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """The copy is part of it: afterwards there is one of the old database, and no crumbs."""
    old, want = oldest
    before = contents(old)
    (tmp_path / "count").mkdir()
    said: list[str] = []
    path = copy_of(old, tmp_path / "count")
    (path.parent / "config.yaml").write_text("app: {db_path: ohlcv.db}")
    with each_statement(said.append):
        open_app(path.parent / "config.yaml").close()
    n = len(said) - 4  # closing is not opening
    ended = killed_at("open_app", old, tmp_path, list(range(n)))
    dead = [number for number, how in ended.items() if how == signal.SIGKILL]
    assert len(dead) > 100
    for number in dead:
        folder = tmp_path / str(number)
        assert contents(folder / "ohlcv.db") in (before, want)
        open_app(folder / "config.yaml").close()
        assert contents(folder / "ohlcv.db") == want
        copies = list((folder / "data" / "backups").iterdir())
        assert {path.suffix for path in copies} == {".db"}
        assert all(contents(path) == before for path in copies)


def test_every_step_may_be_repeated(tmp_path: Path) -> None:
    """On a database of today all of them together change nothing."""
    with open_database(tmp_path / "x.db") as db:
        schema.migrate(db.rows, version=0)
    with open_database(tmp_path / "fresh.db"):
        pass
    assert contents(tmp_path / "x.db") == contents(tmp_path / "fresh.db")
