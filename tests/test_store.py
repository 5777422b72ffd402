"""The database keeps candles exactly, once, in whole transactions, with one writer at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import apsw
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import schema
from core.domain import Candles, Series
from core.errors import StoreError
from core.resample import resample
from core.store import Database, open_database, open_reader
from core.store import candles as store
from core.store import gaps as gap_store
from core.store.db import WriterLock
from core.timeframe import MINUTE_MS, tf_ms
from tests.worlds import MONDAY_MS, picked, random_candles

BASE = Series("x", "A/USDT", "1m")
Row = tuple[float, float, float, float, float]
TRUTH = random_candles(60 * 8, seed=3)
ROOT = Path(__file__).parents[1]


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """An empty database."""
    with open_database(tmp_path / "a.db") as database:
        yield database


def scratch() -> Database:
    """A database in memory, for properties that need many."""
    connection = apsw.Connection(":memory:")
    schema.migrate(connection.execute, version=0)
    return Database(connection, Path(":memory:"), read_only=False)


def bars_of(rows: dict[int, Row], timeframe: str = "1m") -> Candles:
    """The rows of an oracle as candles."""
    matrix = [[ts, *values] for ts, values in sorted(rows.items())]
    return Candles.of_matrix(timeframe, np.array(matrix, np.float64).reshape(-1, 6))


def rows_of(bars: Candles) -> dict[int, Row]:
    """Candles as an oracle keeps them."""
    ts_ms, *prices = (column.tolist() for column in bars.columns())
    return dict(zip(ts_ms, zip(*prices, strict=True), strict=True))


def viewed(db: Database, series: Series) -> dict[int, Row]:
    """What the view `candles` shows of a series."""
    found = db.rows(
        "SELECT ts_ms, open, high, low, close, volume FROM candles WHERE exchange = ?"
        " AND symbol = ? AND timeframe = ?",
        series,
    )
    return {row[0]: row[1:] for row in found}


def same(left: Candles, right: Candles) -> bool:
    """Say whether two series are equal bit for bit."""
    pairs = zip(left.columns(), right.columns(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


minutes = st.lists(st.integers(0, 40), min_size=1, max_size=12, unique=True)
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


spans = st.tuples(st.integers(0, 60), st.integers(1, 15)).map(lambda s: (s[0], s[0] + s[1]))
gap_ops = st.lists(
    st.one_of(
        st.tuples(st.just("hole"), spans, st.sampled_from(["unknown", "missing"])),
        st.tuples(st.just("bars"), minutes, st.just("")),
        st.tuples(st.just("settle"), spans, st.sampled_from(["missing", "no_trades"])),
    ),
    max_size=14,
)


@settings(deadline=None, max_examples=150)
@given(gap_ops)
def test_gaps_are_disjoint_and_cover_no_stored_bar(ops: list[tuple[str, list[int], str]]) -> None:
    """After any holes, bars and verdicts each minute has the state a dictionary says."""
    db = scratch()
    oracle: dict[int, str] = {}
    stored: set[int] = set()
    for kind, what, state in ops:
        if kind == "bars":
            rows = {MONDAY_MS + m * MINUTE_MS: (1.0, 1.0, 1.0, 1.0, 1.0) for m in what}
            store.upsert_candles(db, BASE, bars_of(rows))
            stored |= rows.keys()
            oracle = {ts: state for ts, state in oracle.items() if ts not in stored}
            continue
        low, high = (MONDAY_MS + m * MINUTE_MS for m in what)
        if kind == "hole":
            if stored & set(range(low, high, MINUTE_MS)):
                continue  # a hole is never where a bar is
            gap_store.record_gaps(db, BASE, [(low, high)], state=state, now_ms=0)
            for ts in range(low, high, MINUTE_MS):
                oracle.setdefault(ts, state)
            continue
        for gap in gap_store.gaps_between(db, BASE, start_ms=low, end_ms=high):
            gap_store.settle_gap(db, BASE, gap, state=state)
            oracle.update(dict.fromkeys(range(gap.start_ms, gap.end_ms, MINUTE_MS), state))
    runs = [(g.start_ms, g.end_ms, g.state) for g in gap_store.gaps(db, BASE)]
    assert all(a[1] <= b[0] for a, b in pairwise(runs))
    found = {ts: state for low, high, state in runs for ts in range(low, high, MINUTE_MS)}
    assert found == oracle
    lost = [ts for ts in sorted(oracle) if oracle[ts] != "no_trades"]
    end = MONDAY_MS + 100 * MINUTE_MS
    assert gap_store.missing_ms(db, BASE, start_ms=0, end_ms=end).tolist() == lost


def test_missing_runs_that_touch_are_one_row(db: Database) -> None:
    """An outage settled minute by minute ends as one gap."""
    for m in range(5):
        hole = (MONDAY_MS + m * MINUTE_MS, MONDAY_MS + (m + 1) * MINUTE_MS)
        gap_store.record_gaps(db, BASE, [hole], state="unknown", now_ms=m)
        (gap,) = gap_store.gaps(db, BASE, state="unknown")
        gap_store.settle_gap(db, BASE, gap, state="missing")
    assert [(g.start_ms, g.end_ms) for g in gap_store.gaps(db, BASE)] == [
        (MONDAY_MS, MONDAY_MS + 5 * MINUTE_MS)
    ]


def resampled(db: Database, until: list[int]) -> None:
    """Chain 5m and 15m from 1m, in steps that end at the given minutes."""
    for minute in until:
        instant = MONDAY_MS + minute * MINUTE_MS
        store.resample_series(db, BASE, "5m", until_ms=instant)
        store.resample_series(db, BASE._replace(timeframe="5m"), "15m", until_ms=instant)


@settings(deadline=None, max_examples=60)
@given(
    cuts=st.lists(st.integers(0, 480), max_size=8),
    holes=st.lists(st.integers(0, 479), max_size=4),
    quiet=st.lists(st.tuples(st.integers(0, 474), st.integers(1, 5)), max_size=3),
    offset=st.integers(0, 20),
)
def test_resampling_in_any_steps_equals_resampling_arrays(
    cuts: list[int], holes: list[int], quiet: list[tuple[int, int]], offset: int
) -> None:
    """Stored derived bars are those of `resample`, whatever calls made them."""
    lost = {m for low, n in quiet for m in range(low, low + n)}
    kept = np.ones(480, np.bool_)
    kept[:offset] = False
    kept[[*holes, *lost]] = False
    truth = picked(TRUTH, kept)
    db = scratch()
    store.upsert_candles(db, BASE, truth)
    covered = [MONDAY_MS + m * MINUTE_MS for m in sorted(lost)]
    runs = [(MONDAY_MS + m * MINUTE_MS, MONDAY_MS + (m + n) * MINUTE_MS) for m, n in quiet]
    gap_store.record_gaps(db, BASE, runs, state="no_trades", now_ms=0)
    resampled(db, [*sorted(cuts), 480])
    end = MONDAY_MS + 480 * MINUTE_MS
    five = store.read_candles(db, BASE._replace(timeframe="5m"), end_ms=end)
    fifteen = store.read_candles(db, BASE._replace(timeframe="15m"), end_ms=end)
    oracle = resample(truth, "5m", covered_ms=np.array(covered, np.int64))
    empty = [ts for ts in range(MONDAY_MS, end, 5 * MINUTE_MS) if is_quiet(ts, covered)]
    assert same(five, oracle)
    assert same(fifteen, resample(oracle, "15m", covered_ms=np.array(empty, np.int64)))


def is_quiet(start_ms: int, covered: list[int]) -> bool:
    """Say whether none of five minutes was traded in."""
    return {start_ms + i * MINUTE_MS for i in range(5)} <= {*covered}


@settings(deadline=None, max_examples=80)
@given(
    order=st.permutations(range(8)),
    stops=st.lists(st.booleans(), min_size=8, max_size=8),
    revised=st.lists(st.integers(0, 479), max_size=3),
)
def test_bars_that_come_late_or_change_reach_the_derived_ones(
    order: list[int], stops: list[bool], revised: list[int]
) -> None:
    """Hours stored in any order, and revisions, end in the derived bars of the final truth."""
    db = scratch()
    end = MONDAY_MS + 480 * MINUTE_MS
    for hour, stop in zip(order, stops, strict=True):
        store.upsert_candles(db, BASE, picked(TRUTH, slice(60 * hour, 60 * hour + 60)))
        if stop:
            resampled(db, [480])
    truth = picked(TRUTH, slice(None))
    for i in revised:
        truth.high[i] += 5.0
        store.upsert_candles(db, BASE, picked(truth, slice(i, i + 1)))
    resampled(db, [480])
    fifteen = store.read_candles(db, BASE._replace(timeframe="15m"), end_ms=end)
    assert same(fifteen, resample(resample(truth, "5m"), "15m"))


def test_a_minute_without_trades_is_covered_and_a_missing_one_is_not(db: Database) -> None:
    """`no_trades` lets a derived bar be made, a whole 5m of it too; `missing` does not."""
    kept = np.ones(60, np.bool_)
    kept[[7, *range(20, 25), 33, 52]] = False
    truth = picked(TRUTH[:60], kept)
    store.upsert_candles(db, BASE, truth)
    at = {m: MONDAY_MS + m * MINUTE_MS for m in range(61)}
    quiet = [(at[7], at[8]), (at[20], at[25]), (at[33], at[34])]
    gap_store.record_gaps(db, BASE, quiet, state="no_trades", now_ms=0)
    gap_store.record_gaps(db, BASE, [(at[52], at[53])], state="missing", now_ms=0)
    resampled(db, [60])
    five = store.read_candles(db, BASE._replace(timeframe="5m"), end_ms=at[60])
    fifteen = store.read_candles(db, BASE._replace(timeframe="15m"), end_ms=at[60])
    assert five.ts_ms.tolist() == [at[m] for m in range(0, 60, 5) if m not in (20, 50)]
    assert fifteen.ts_ms.tolist() == [at[m] for m in (0, 15, 30)]
    second = [15, 16, 17, 18, 19, 25, 26, 27, 28, 29]
    assert fifteen.high[1] == max(TRUTH.high[m] for m in second)
    assert fifteen.close[2] == TRUTH.close[44]


def test_an_imported_bar_wins_over_a_derived_one(db: Database) -> None:
    """Whichever came first, and after a revision below it, the imported values stand."""
    five = BASE._replace(timeframe="5m")
    mine = resample(TRUTH[:30], "5m")
    mine.close[2:4] += 0.25
    inside = {"first_ms": int(mine.ts_ms[2]), "last_ms": int(mine.ts_ms[3])}
    store.upsert_candles(db, BASE, TRUTH[:30])
    store.resample_series(db, BASE, "5m", until_ms=MONDAY_MS + 30 * MINUTE_MS)
    store.record_source(db, five, kind="import", name="f", n_rows=2, **inside)
    store.upsert_candles(db, five, mine[2:4])
    changed = picked(TRUTH, slice(10, 20))
    changed.volume[:] += 1.0
    store.upsert_candles(db, BASE, changed)
    store.resample_series(db, BASE, "5m", until_ms=MONDAY_MS + 30 * MINUTE_MS)
    assert same(store.read_candles(db, five, end_ms=MONDAY_MS + tf_ms("1d")), mine)


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
            schema.migrate(db.run, version=0)
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
