"""Opening the database: the pragmas, the transaction, the migration and the writer lock file.

`apsw` is the only SQLite in the process: see docs/decisions/sqlite-driver.md.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

import apsw
import numpy as np

from core import schema
from core.domain import Floats, Ints
from core.errors import StoreError

Params = Sequence[Any] | dict[str, Any]

_MANY_ROWS = 64  # from here on compiled stepping wins over its set-up
_WAL_PAGES = 2000  # the WAL is moved into the file when a commit finds it longer: 8 MB
_WRITER = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    "journal_size_limit = 67108864",
    "temp_store = MEMORY",
)


class Database:
    """One connection; not to be used by two threads at the same time, a reader's least of all."""

    def __init__(self, connection: apsw.Connection, path: Path, *, read_only: bool) -> None:
        self._connection = connection
        self.path = path
        self.read_only = read_only

    def rows(self, sql: str, params: Params = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query as tuples."""
        return list(self._connection.execute(sql, params))

    def stream(self, sql: str, params: Params = ()) -> Iterator[tuple[Any, ...]]:
        """Yield rows as SQLite finds them; read it to the end at once, it pins the WAL."""
        return iter(self._connection.execute(sql, params))

    def columns(
        self, sql: str, params: tuple[int, ...], *, n_floats: int, room: int
    ) -> tuple[Ints, Floats]:
        """Return a query's first column, whole numbers (n,), and its other ones (n_floats, n).

        `room` is how many rows to expect; for more than a few no Python object is made per value.
        """
        firsts, others, _ = self.columns_with_marks(
            sql, params, n_floats=n_floats, n_words=0, room=room
        )
        return firsts, others

    def columns_with_marks(
        self, sql: str, params: tuple[int, ...], *, n_floats: int, n_words: int, room: int
    ) -> tuple[Ints, Floats, Ints]:
        """Return `columns`, and of `n_words` texts after them marks (n_words, n).

        Equal texts of a column have equal marks, others have others; NULL is as ''.
        """
        if room >= _MANY_ROWS:
            from core.store.stepping import stepped

            found = stepped(
                self._connection, sql, params, n_floats=n_floats, n_words=n_words, room=room
            )
            if found is not None:
                return found
        rows, n_numbers = self.rows(sql, params), n_floats + 1
        flat = np.fromiter(chain.from_iterable(row[:n_numbers] for row in rows), np.float64)
        matrix = flat.reshape(-1, n_numbers).T
        marks = [[hash(row[n_numbers + i] or "") for row in rows] for i in range(n_words)]
        texts = np.array(marks, np.int64).reshape(n_words, len(rows))
        return matrix[0].astype(np.int64), np.ascontiguousarray(matrix[1:]), texts

    def dicts(self, sql: str, params: Params = ()) -> list[dict[str, Any]]:
        """Return all rows of a query as mappings of column to value."""
        cursor = self._connection.execute(sql, params)
        first = cursor.fetchone()
        if first is None:
            return []
        names = [column[0] for column in cursor.get_description()]
        found = [dict(zip(names, first, strict=True))]
        found.extend(dict(zip(names, row, strict=True)) for row in cursor)
        return found

    def value(self, sql: str, params: Params = ()) -> Any:
        """Return the first column of the first row, or None."""
        row = self._connection.execute(sql, params).fetchone()
        return None if row is None else row[0]

    def run(self, sql: str, params: Params = ()) -> int:
        """Execute one statement and return how many rows it changed."""
        before = self._connection.total_changes()
        self._connection.execute(sql, params).fetchall()
        return self._connection.total_changes() - before

    def run_many(self, sql: str, rows: Iterable[Params]) -> int:
        """Execute one statement for each row and return how many rows changed in all."""
        before = self._connection.total_changes()
        self._connection.executemany(sql, rows).fetchall()
        return self._connection.total_changes() - before

    def upsert_columns(self, sql: str, firsts: Ints, others: Floats) -> None:
        """Execute an upsert for each whole number of (n,) and its floats, of (n_floats, n).

        To be called inside `write()`: some rows may be written twice.
        """
        if len(firsts) >= _MANY_ROWS:
            from core.store.stepping import fed

            if fed(self._connection, sql, firsts, others):
                return
        columns = (column.tolist() for column in (firsts, *others))
        self._connection.executemany(sql, zip(*columns, strict=True)).fetchall()

    def last_id(self) -> int:
        """Return the id of the row inserted last."""
        return self._connection.last_insert_rowid()

    @contextmanager
    def write(self) -> Iterator[None]:
        """Hold the write lock for a block: all of it is committed, or none.

        Inside an open block it joins that one. Raises StoreError when another writer keeps the
        lock for longer than the busy time-out.
        """
        if self._connection.in_transaction:
            yield
            return
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except apsw.BusyError as error:
            raise StoreError(
                f"{self.path} is locked by another process;", remedy="wait for it or stop it"
            ) from error
        try:
            yield
            self._connection.execute("COMMIT")  # it may fail, and leave the block open
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def checkpoint(self, *, truncate: bool = False) -> tuple[int, int]:
        """Move the WAL into the file; returns (pages in the WAL, pages moved)."""
        mode = apsw.SQLITE_CHECKPOINT_TRUNCATE if truncate else apsw.SQLITE_CHECKPOINT_PASSIVE
        try:
            return self._connection.wal_checkpoint(mode=mode)
        except apsw.BusyError:
            return -1, -1

    def backup_to(self, target: Path) -> None:
        """Copy the database to a new file while it is in use; the copy is one file, no WAL.

        The copy is of one instant: without the open read it would begin anew at every commit. That
        read is a connection's of its own: however it ends, no transaction stays open on ours.
        """
        with open_reader(self.path) as source, closing(apsw.Connection(str(target))) as copy:
            source.rows("BEGIN")
            source.value("SELECT 1 FROM sqlite_schema")
            with copy.backup("main", source._connection, "main") as backup:
                while not backup.done:
                    backup.step(4096)
            copy.execute("PRAGMA journal_mode = DELETE").fetchall()

    def close(self) -> None:
        """Release the connection."""
        self._connection.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _connect(path: Path, *, flags: int) -> apsw.Connection:
    try:
        connection = apsw.Connection(str(path), flags=flags)
    except apsw.CantOpenError as error:
        raise StoreError(
            f"cannot open database {path};", remedy="run: python init_db.py"
        ) from error
    connection.set_busy_timeout(5000)
    return connection


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say what SQLite found wrong with a file, and the way back, instead of SQLite's own error."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError) as error:
        raise StoreError(
            f"{path} is damaged: {error};",
            remedy="restore a backup: python maintenance.py restore --file FILE",
        ) from error
    except (apsw.CantOpenError, apsw.FullError, apsw.IOError, apsw.ReadOnlyError) as error:
        raise StoreError(
            f"{path} cannot be read or written: {error};", remedy="check the disk and its rights"
        ) from error


def open_database(
    path: Path,
    *,
    checkpointer: bool = True,
    before_migration: Callable[[Database, int], object] = lambda *_: None,
) -> Database:
    """Open (and create or migrate) the database for writing.

    Only a `checkpointer`, the process that holds the writer lock file, may move the WAL, as it
    grows and on close. `before_migration` is called with a database of an older schema and that
    schema, before anything is changed; where it raises, nothing is. Raises StoreError, and changes
    nothing, where the file is not ours.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _want_no_half_restore(path)
    connection = _connect(path, flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    database = Database(connection, path, read_only=False)
    try:
        version = _version_of(database)
        for pragma in _WRITER:
            database.rows(f"PRAGMA {pragma}")
        database.rows(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES if checkpointer else 0}")
        if not checkpointer:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        if version < schema.VERSION:
            if version:
                before_migration(database, version)
            with database.write():
                now = int(database.value("PRAGMA user_version"))
                schema.migrate(connection.execute, version=now)
    except BaseException:
        database.close()
        raise
    return database


def set_aside_by_restore(path: Path) -> Path:
    """Return where a restore keeps the database it replaces; the next one adds a number."""
    return path.with_name(f"{path.name}.before-restore")


def _want_no_half_restore(path: Path) -> None:
    """Raise StoreError where a restore has moved the database away and put none in its place."""
    names = path.parent.glob(f"{set_aside_by_restore(path).name}*")
    aside = [name for name in names if not name.name.endswith(("-wal", "-shm"))]
    if aside and not path.exists():
        newest = max(aside, key=lambda name: name.stat().st_mtime_ns)
        raise StoreError(
            f"{path} is set aside for a restore that was cut short;",
            remedy=f"restore again, or rename {newest.name}",
        )


def _version_of(database: Database) -> int:
    """Return the schema's version, 0 for a new file. Raises StoreError unless it is ours."""
    try:
        version = int(database.value("PRAGMA user_version"))
        tables = {name for (name,) in database.rows("SELECT name FROM sqlite_schema")}
    except apsw.NotADBError as error:
        raise StoreError(
            f"{database.path} is not a SQLite database;", remedy="move it away or restore a backup"
        ) from error
    except (apsw.CorruptError, apsw.SQLError) as error:  # also of a format that is none
        raise StoreError(
            f"{database.path} is damaged;",
            remedy="restore a backup: python maintenance.py restore --file FILE",
        ) from error
    if version > schema.VERSION:
        raise StoreError(
            f"{database.path} has schema {version}, this program knows {schema.VERSION};",
            remedy="update the program",
        )
    if tables and "ohlcv" not in tables:
        raise StoreError(
            f"{database.path} is the database of another program;",
            remedy="set app.db_path to a file of its own",
        )
    return version


def open_reader(path: Path) -> Database:
    """Open the database read-only, without looking inside. Raises StoreError when it is missing."""
    if not path.exists():
        raise StoreError(f"database {path} does not exist;", remedy="run: python init_db.py")
    # Without SQLite's lock around each value that is handed over, candles come in twice as fast.
    connection = _connect(path, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_NOMUTEX)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    for pragma in ("query_only = ON", "wal_autocheckpoint = 0"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return Database(connection, path, read_only=True)


def open_current(path: Path) -> Database:
    """Open the database read-only, for a command that only looks.

    Raises StoreError, with the remedy, unless it is ours and of the present schema.
    """
    database = open_reader(path)
    try:
        version = _version_of(database)
        if version < schema.VERSION:
            raise StoreError(
                f"{path} has schema {version}, this program wants {schema.VERSION};",
                remedy="run: make upgrade, or: python init_db.py",
            )
    except BaseException:
        database.close()
        raise
    return database


class WriterLock:
    """The lock file of the one long-lived writer; it dies with its process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def acquire(self) -> bool:
        """Take the lock and write our pid into it; False when another process holds it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
        except BaseException:
            os.close(descriptor)
            raise
        self._file = descriptor
        return True

    def holder(self) -> str:
        """Return the pid written in the lock file, or '?'."""
        try:
            return self.path.read_text().strip() or "?"
        except OSError:
            return "?"

    def release(self) -> None:
        """Give the lock back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
