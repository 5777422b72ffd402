"""The database keeps candles exactly, once, in whole transactions, with one writer at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import schema
from core.domain import Candles, Series
from core.errors import StoreError
from core.store import Database, open_database, open_reader
from core.store import candles as store
from core.store import gaps as gap_store
from core.store.db import WriterLock
from core.timeframe import MINUTE_MS
from tests.store_world import BASE, TRUTH, Row, bars_of, minutes, rows_of, same, scratch, viewed
from tests.worlds import MONDAY_MS, random_candles

ROOT = Path(__file__).parents[1]


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """An empty database."""
    with open_database(tmp_path / "a.db") as database:
        yield database


writes = st.lists(
    st.tuples(st.sampled_from(["A/USDT", "B/USDT"]), minutes, st.integers(0, 3)),
    min_size=1,
    max_size=8,
)


@settings(deadline=None, max_examples=120)
@given(writes)
def test_upserts_equal_a_plain_dictionary(ops: list[tuple[str, list[int], int]]) -> None:
    """Rows, counts, first, last, revisions and the view are those of a dictionary of bars."""
    db = scratch()
    oracle: dict[Series, dict[int, Row]] = {}
    n_revised: dict[Series, int] = {}
    for symbol, opens, level in ops:
        series = Series("x", symbol, "1m")
        mine = oracle.setdefault(series, {})
        rows = {
            MONDAY_MS + m * MINUTE_MS: (1.0 + level, 2.0 + level, 0.5, 1.5, float(m)) for m in opens
        }
        changed = sorted(ts for ts in rows if ts in mine and mine[ts] != rows[ts])
        new = len(rows.keys() - mine.keys())
        mine.update(rows)
        n_revised[series] = n_revised.get(series, 0) + len(changed)
        written = store.upsert_candles(db, series, bars_of(rows))
        assert (written.n_new, written.revised_ms.tolist()) == (new, changed)
    for series, mine in oracle.items():
        row = store.series_row(db, series)
        assert row is not None
        assert (row.n_rows, row.first_ms, row.last_ms) == (len(mine), min(mine), max(mine))
        assert row.n_revised == n_revised[series]
        assert viewed(db, series) == mine
        cut = (MONDAY_MS + 10 * MINUTE_MS, MONDAY_MS + 30 * MINUTE_MS)
        part = store.read_candles(db, series, start_ms=cut[0], end_ms=cut[1])
        assert rows_of(part) == {ts: mine[ts] for ts in mine if cut[0] <= ts < cut[1]}
        latest = store.last_candles(db, series, 5, known_at_ms=cut[1])
        assert list(rows_of(latest)) == [ts for ts in sorted(mine) if ts < cut[1]][-5:]


def test_every_float_comes_back_bit_for_bit(db: Database) -> None:
    """Prices that need all 53 bits, tiny and huge ones, are stored as they are."""
    rng = np.random.default_rng(1)
    values = np.sort(rng.uniform(1e-9, 1e12, (500, 5)), axis=1)
    ts_ms = MONDAY_MS + MINUTE_MS * np.arange(500)
    bars = Candles("1m", ts_ms, *np.ascontiguousarray(values.T))
    store.upsert_candles(db, BASE, bars)
    assert same(store.read_candles(db, BASE, end_ms=int(ts_ms[-1]) + 1), bars)


def test_the_same_bars_twice_are_the_same_as_once(db: Database) -> None:
    """A repeat changes no row, count or revision."""
    store.upsert_candles(db, BASE, TRUTH)
    before = db.rows("SELECT * FROM series"), db.rows("SELECT * FROM ohlcv")
    assert store.upsert_candles(db, BASE, TRUTH).n_new == 0
    assert (db.rows("SELECT * FROM series"), db.rows("SELECT * FROM ohlcv")) == before


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=20))
def test_a_checkpoint_never_moves_back(instants: list[int]) -> None:
    """It stands at the latest instant it was ever moved to."""
    db = scratch()
    assert store.checkpoint_of(db, BASE) is None
    for i, instant in enumerate(instants):
        store.move_checkpoint(db, BASE, next_ms=instant, now_ms=i)
        assert store.checkpoint_of(db, BASE) == max(instants[: i + 1])


def test_a_block_that_raises_leaves_nothing_behind(db: Database) -> None:
    """All of a write, nested blocks included, or none of it."""

    def write_half() -> None:
        with db.write():
            store.upsert_candles(db, BASE, TRUTH)
            store.move_checkpoint(db, BASE, next_ms=5, now_ms=0)
            with db.write():
                gap_store.record_gaps(db, BASE, [(0, 5)], state="missing", now_ms=0)
            raise KeyError("half way")

    with pytest.raises(KeyError):
        write_half()
    for table in ("ohlcv", "series", "sync_checkpoint", "gaps"):
        assert db.value(f"SELECT count(*) FROM {table}") == 0
    store.upsert_candles(db, BASE, TRUTH)
    assert db.value("SELECT count(*) FROM ohlcv") == len(TRUTH)


def test_a_second_writer_waits_or_is_told(tmp_path: Path) -> None:
    """While one holds the lock the other gets one line; afterwards both can write."""
    path = tmp_path / "a.db"
    with open_database(path) as one, open_database(path, checkpointer=False) as two:
        two.rows("PRAGMA busy_timeout = 20")
        with one.write():
            store.upsert_candles(one, BASE, TRUTH[:10])
            with pytest.raises(StoreError, match="locked by another process"), two.write():
                pass
        with two.write():
            store.upsert_candles(two, BASE, TRUTH[10:20])
        assert one.value("SELECT count(*) FROM ohlcv") == 20


def test_a_reader_sees_whole_states_and_writes_nothing(tmp_path: Path) -> None:
    """Beside an open write it sees the state before; no statement of its own changes anything."""
    path = tmp_path / "a.db"
    with open_database(path) as db:
        store.upsert_candles(db, BASE, TRUTH[:10])
        with open_reader(path) as reader:
            with db.write():
                store.upsert_candles(db, BASE, TRUTH[10:20])
                assert reader.value("SELECT count(*) FROM ohlcv") == 10
            assert reader.value("SELECT count(*) FROM ohlcv") == 20
            for sql in ("DELETE FROM ohlcv", "CREATE TABLE t (a)", "PRAGMA user_version = 9"):
                with pytest.raises(apsw.ReadOnlyError):
                    reader.run(sql)


def test_a_missing_database_is_not_made_by_a_reader(tmp_path: Path) -> None:
    """Only a writer creates the file."""
    with pytest.raises(StoreError, match=r"init_db\.py"):
        open_reader(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()


def test_files_that_are_not_ours_are_refused_untouched(tmp_path: Path) -> None:
    """A text, another program's database and a newer schema: one line, not one byte changed."""
    text, foreign, newer = (tmp_path / name for name in ("t.db", "f.db", "n.db"))
    text.write_text("hello " * 999)
    with closing(apsw.Connection(str(foreign))) as other:
        other.execute("CREATE TABLE recipes (name TEXT); INSERT INTO recipes VALUES ('soup')")
    with open_database(newer) as db:
        db.run(f"PRAGMA user_version = {schema.VERSION + 1}")
    for path, said in ((text, "not a"), (foreign, "another program"), (newer, "update")):
        before = path.read_bytes()
        with pytest.raises(StoreError, match=said):
            open_database(path)
        assert path.read_bytes() == before


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    """Opening is creating, migrating and repeating all at once."""
    path = tmp_path / "a.db"
    shapes = []
    for _ in range(2):
        with open_database(path) as db:
            shapes.append(db.rows("SELECT name, sql FROM sqlite_schema ORDER BY name"))
            schema.migrate(db.rows, version=0)
            assert db.value("PRAGMA user_version") == schema.VERSION
    assert shapes[0] == shapes[1]


HOLDER = """
import sys
from pathlib import Path
from core.store import open_database
from core.store.db import WriterLock
path = Path(sys.argv[1])
lock = WriterLock(path.with_name("a.db.lock"))
assert lock.acquire()
db = open_database(path)
db.run("INSERT INTO labels VALUES ('a', 'b')")
print("ready", flush=True)
sys.stdin.read()
"""


def test_the_lock_is_one_processs_and_dies_with_it(tmp_path: Path) -> None:
    """The second is refused with the first one's pid; after kill -9 the lock is free."""
    path = tmp_path / "a.db"
    command = [sys.executable, "-c", HOLDER, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": ROOT}
    with subprocess.Popen(command, **pipes) as holder:  # type: ignore[call-overload]
        assert holder.stdout.readline() == b"ready\n"
        lock = WriterLock(tmp_path / "a.db.lock")
        assert not lock.acquire()
        assert lock.holder() == str(holder.pid)
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    assert lock.acquire()
    assert lock.holder() == str(os.getpid())
    lock.release()
    with open_database(path) as db:
        assert db.value("SELECT value FROM labels") == "b"


def test_only_the_lock_holder_moves_the_wal(tmp_path: Path) -> None:
    """The last connection to close leaves the WAL alone unless it holds the lock."""
    path, wal = tmp_path / "a.db", tmp_path / "a.db-wal"
    open_database(path).close()
    size = path.stat().st_size
    with open_database(path, checkpointer=False) as db:
        store.upsert_candles(db, BASE, TRUTH)
    assert wal.stat().st_size > 0
    assert path.stat().st_size == size
    with open_database(path, checkpointer=True) as db:
        assert db.value("SELECT count(*) FROM ohlcv") == len(TRUTH)
        db.checkpoint(truncate=True)
        assert wal.stat().st_size == 0
    assert path.stat().st_size > size


def test_the_wal_stays_short_under_many_commits(tmp_path: Path) -> None:
    """The lock holder moves it as it grows; a reader that comes and goes does not hinder that."""
    path, wal = tmp_path / "a.db", tmp_path / "a.db-wal"
    bars = random_candles(4000, seed=9)  # about 200 kB of pages a commit
    with open_database(path) as db:
        db.rows("PRAGMA synchronous = OFF")
        for i in range(100):
            bars.volume[:] = i
            store.upsert_candles(db, BASE, bars)
            with open_reader(path) as reader:
                assert reader.value("SELECT volume FROM ohlcv") == i
            assert wal.stat().st_size < 12e6
    with open_database(path, checkpointer=False) as db:
        for i in range(5):
            bars.volume[:] = -i
            size = wal.stat().st_size if wal.exists() else 0
            store.upsert_candles(db, BASE, bars)
            assert wal.stat().st_size > size


def test_a_copy_made_while_writing_is_whole(tmp_path: Path) -> None:
    """`backup_to` inside someone else's open transaction copies the state before it."""
    with open_database(tmp_path / "a.db") as db:
        store.upsert_candles(db, BASE, TRUTH[:50])
        with open_database(tmp_path / "a.db", checkpointer=False) as other, other.write():
            store.upsert_candles(other, BASE, TRUTH[50:])
            db.backup_to(tmp_path / "copy.db")
    with open_reader(tmp_path / "copy.db") as copy:
        assert copy.value("PRAGMA integrity_check") == "ok"
        assert viewed(copy, BASE) == rows_of(TRUTH[:50])
