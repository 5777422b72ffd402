"""Compiled stepping reads and writes what SQLite's own Python rows hold, bit for bit."""

from __future__ import annotations

import struct
from contextlib import closing
from pathlib import Path

import apsw
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.domain import Candles
from core.store import Database, open_database, open_reader
from core.store import candles as store
from core.store.stepping import fed, stepped
from tests.store_world import BASE, TRUTH, same, scratch

QUERY = "SELECT a, x, y FROM t WHERE a BETWEEN ? AND ? ORDER BY a"
ALL = (-(1 << 63), (1 << 63) - 1)
floats = st.floats(allow_nan=False).map(lambda value: value + 0.0)  # SQLite keeps no -0.0


def filled(rows: dict[int, tuple[float, float]]) -> apsw.Connection:
    """A table of whole numbers and floats; SQLite keeps 2.0 as a whole number, too."""
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, x REAL NOT NULL, y REAL NOT NULL)")
    connection.executemany("INSERT INTO t VALUES (?, ?, ?)", [(a, *xy) for a, xy in rows.items()])
    return connection


@settings(deadline=None, max_examples=60)
@given(
    rows=st.dictionaries(
        st.integers(-(1 << 63), (1 << 63) - 1),
        st.tuples(floats, floats | st.integers(-9, 9).map(float)),
        max_size=200,
    ),
    room=st.integers(0, 300),
)
def test_stepped_columns_are_the_rows(rows: dict[int, tuple[float, float]], room: int) -> None:
    """Any int64, any float, more rows than there was room for, or none at all."""
    with closing(filled(rows)) as connection:
        found = stepped(connection, QUERY, ALL, n_floats=2, room=room)
    assert found is not None
    firsts, others, marks = found
    assert marks.shape == (0, len(rows))
    assert firsts.tolist() == sorted(rows)
    assert others.shape == (2, len(rows))
    bits = [struct.pack("<dd", *rows[a]) for a in sorted(rows)]
    assert [pair.tobytes() for pair in np.ascontiguousarray(others.T)] == bits


@settings(deadline=None, max_examples=60)
@given(
    texts=st.lists(st.tuples(*[st.text(max_size=12) | st.none()] * 2), max_size=90),
    room=st.sampled_from([0, 16, 80]),
)
def test_marks_tell_texts_apart(texts: list[tuple[str | None, ...]], room: int) -> None:
    """Compiled or not, rows have one mark where their texts are equal, and only there."""
    with closing(apsw.Connection(":memory:")) as connection:
        connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, x TEXT, y TEXT)")
        connection.executemany("INSERT INTO t (x, y) VALUES (?, ?)", texts)
        db = Database(connection, Path(":memory:"), read_only=True)
        query = "SELECT a, 0.5, x, y FROM t ORDER BY a"
        ids, floats_of, marks = db.columns_with_marks(query, (), n_floats=1, n_words=2, room=room)
    assert ids.tolist() == list(range(1, len(texts) + 1))
    assert floats_of.tolist() == [[0.5] * len(texts)]
    for k in range(2):
        words = [row[k] or "" for row in texts]
        pairs = set(zip(words, marks[k].tolist(), strict=True))
        assert len(pairs) == len(set(words)) == len(set(marks[k].tolist()))


UPSERT = "INSERT INTO t VALUES (?, ?, ?) ON CONFLICT (a) DO UPDATE SET x = excluded.x"


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(-(1 << 63), (1 << 63) - 1), floats, floats), max_size=100))
def test_fed_rows_are_those_of_executemany(rows: list[tuple[int, float, float]]) -> None:
    """Any int64, any float, the same key more than once."""
    firsts = np.array([a for a, _, _ in rows], np.int64)
    others = np.array([xy for _, *xy in rows], np.float64).reshape(-1, 2).T
    with closing(filled({})) as one, closing(filled({})) as other:
        assert fed(one, UPSERT, firsts, np.ascontiguousarray(others))
        other.executemany(UPSERT, rows)
        everything = "SELECT a, x, y, typeof(x), typeof(y) FROM t ORDER BY a"
        assert list(one.execute(everything)) == list(other.execute(everything))


def test_a_row_that_is_refused_is_apsws_to_explain() -> None:
    """A price that is no number: SQLite's own error, and nothing of the block is left."""
    db = scratch()
    broken = Candles("1m", TRUTH.ts_ms, *(column.copy() for column in TRUTH.columns()[1:]))
    broken.low[300] = np.nan
    with pytest.raises(apsw.ConstraintError, match="low"):
        store.upsert_candles(db, BASE, broken)
    assert db.value("SELECT count(*) FROM ohlcv") == 0
    with closing(filled({})) as connection:
        nothing = np.empty(0, np.int64)
        assert not fed(connection, "INSERT INTO nowhere VALUES (?)", nothing, np.empty((0, 0)))


def test_both_ways_through_the_store_agree() -> None:
    """`columns` with and without compiled code: the same arrays."""
    db = scratch()
    store.upsert_candles(db, BASE, TRUTH)
    sql = "SELECT key & 67108863, open, high, low, close, volume FROM ohlcv WHERE key > ?"
    quick = db.columns(sql, (0,), n_floats=5, room=len(TRUTH))
    slow = db.columns(sql, (0,), n_floats=5, room=0)
    assert quick[1].shape == (5, len(TRUTH))
    for one, other in zip(quick, slow, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_array_equal(one, other)


def test_a_bad_query_is_apsws_to_explain() -> None:
    """Compiled code declines; the caller then hears SQLite's own words."""
    with closing(filled({})) as connection:
        assert stepped(connection, "SELECT a FROM nowhere", (), n_floats=0, room=99) is None
        assert stepped(connection, QUERY, (1, 2, 3), n_floats=2, room=99) is None
        db = Database(connection, Path(":memory:"), read_only=True)
        with pytest.raises(apsw.SQLError, match="nowhere"):
            db.columns("SELECT a FROM nowhere", (), n_floats=0, room=99)


def test_it_reads_in_its_connections_snapshot(tmp_path: Path) -> None:
    """Inside a write it sees what is not committed yet; a reader beside it does not."""
    path, end = tmp_path / "a.db", int(TRUTH.ts_ms[-1]) + 1
    with open_database(path) as db, open_reader(path) as reader:
        store.upsert_candles(db, BASE, TRUTH[:100])
        with db.write():
            store.upsert_candles(db, BASE, TRUTH)
            assert same(store.read_candles(db, BASE, end_ms=end), TRUTH)
            assert same(store.read_candles(reader, BASE, end_ms=end), TRUTH[:100])
        assert same(store.read_candles(reader, BASE, end_ms=end), TRUTH)
        assert db.checkpoint(truncate=True)[0] == 0  # nothing is left open that pins the WAL
