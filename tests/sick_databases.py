"""Databases that are not fit for use, each with the state it must be told apart as."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from core.store import open_database
from core.views import Health


def _empty_schema(path: Path) -> None:
    apsw.Connection(str(path)).execute("PRAGMA journal_mode = WAL").fetchall()


def _foreign_tables(path: Path) -> None:
    apsw.Connection(str(path)).execute("CREATE TABLE recipes (name TEXT)")


def _damaged(path: Path) -> None:
    with open_database(path) as db:
        db.checkpoint(truncate=True)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


def _versioned(version: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with open_database(path) as db:
            db.run(f"PRAGMA user_version = {version}")

    return make


def _absent(path: Path) -> None:
    assert not path.exists()


SICK: dict[str, tuple[Callable[[Path], object], Health, str]] = {
    "missing": (_absent, Health.MISSING, "init_db.py"),
    "empty file": (lambda path: path.write_bytes(b""), Health.EMPTY, "init_db.py"),
    "no tables": (_empty_schema, Health.EMPTY, "init_db.py"),
    "a folder": (lambda path: path.mkdir(), Health.FOREIGN, "app.db_path"),
    "a text file": (lambda path: path.write_text("hello " * 999), Health.FOREIGN, "not a database"),
    "another program's": (_foreign_tables, Health.FOREIGN, "not a database of this program"),
    "damaged": (_damaged, Health.DAMAGED, "restore"),
    "older schema": (_versioned(0), Health.MIGRATING, "migrated"),
    "newer schema": (_versioned(99), Health.NEWER, "update"),
    "no candles": (lambda path: open_database(path).close(), Health.NO_CANDLES, "download_data.py"),
}


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep every reader out, as a repair or a foreign tool would."""
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode = DELETE").fetchall()
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()
