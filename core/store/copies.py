"""Copies of a database that are known to be whole: made while it is in use, and proven."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import apsw

from core import drafts
from core.errors import StoreError
from core.store.db import Database, open_reader


def write_copy(db: Database, target: Path) -> None:
    """Write a copy of one instant that passes SQLite's integrity check; all of it or nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    drafts.sweep([target.parent])
    partial = drafts.draft_of(target)
    try:
        db.backup_to(partial)
        want_whole(partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def stamp(now_wall_ms: int) -> str:
    """Return an instant as the names of copies carry it: sorted by name is sorted by time.

    >>> stamp(1_704_067_200_123)
    '20240101-000000-123'
    """
    return datetime.fromtimestamp(now_wall_ms / 1000, UTC).strftime("%Y%m%d-%H%M%S-%f")[:-3]


class Kept(NamedTuple):
    """A copy that was put back as a scratch database, and how many rows came back."""

    path: Path
    n_rows: int


def kept_as_it_is(db: Database, folder: Path, *, keep: int, now_wall_ms: int) -> Kept:
    """Keep a copy under the name of its schema, proven by putting it back.

    To be called by the holder of the writer lock file. Of each schema the newest `keep` stay, so
    that no later copy takes the place of the last one that an older program can read. A copy that
    is newer than everything in the database is not made again.
    """
    version = int(db.value("PRAGMA user_version"))
    kind = f"schema{version}-{db.path.stem}-"
    known = sorted(folder.glob(f"{kind}*.db"))
    target = known[-1] if known else folder / f"{kind}{stamp(now_wall_ms)}.db"
    if not known or _changed_ns(db.path) >= target.stat().st_mtime_ns:
        target = folder / f"{kind}{stamp(now_wall_ms)}.db"
        write_copy(db, target)
    n_rows = put_back(target)
    drop_oldest(folder, f"{kind}*.db", keep=keep)
    return Kept(target, n_rows)


def newest_before(folder: Path, stem: str, version: int) -> Path | None:
    """Return the newest copy of the latest schema before one, or None."""
    for older in range(version - 1, 0, -1):
        if found := sorted(folder.glob(f"schema{older}-{stem}-*.db")):
            return found[-1]
    return None


def _changed_ns(path: Path) -> int:
    """Return when a database's file or its log was last written."""
    places = (path, path.with_name(path.name + "-wal"))
    return max(
        place.stat().st_mtime_ns for place in places if place.exists() and place.stat().st_size
    )


def want_whole(path: Path) -> None:
    """Raise StoreError unless a copy passes SQLite's integrity check."""
    with open_reader(path) as copy:
        try:
            said = " ".join(str(copy.value("PRAGMA integrity_check")).split())
        except apsw.Error as error:
            said = str(error)
    if said != "ok":
        raise StoreError(f"backup {path} is damaged: {said[:200]};", remedy="check the disk")


def drop_oldest(folder: Path, pattern: str, *, keep: int) -> int:
    """Delete all but the newest of the copies whose names end in their time; returns how many stay.

    The newest is the last by name.
    """
    kept = sorted(folder.glob(pattern))
    for old in kept[:-keep]:
        old.unlink()
    return min(len(kept), keep)


def put_back(path: Path) -> int:
    """Put a copy back as a scratch database and compare it; returns how many rows it holds.

    Raises StoreError unless it is whole, of the same schema, and has as many rows in every table.
    """
    scratch = drafts.draft_of(path)
    try:
        with open_reader(path) as copy:
            copy.backup_to(scratch)
            wanted = _counts(copy)
        want_whole(scratch)
        with open_reader(scratch) as restored:
            found = _counts(restored)
    finally:
        scratch.unlink(missing_ok=True)
    if found != wanted:
        raise StoreError(f"backup {path} comes back otherwise;", remedy="check the disk")
    return sum(n for name, n in wanted.items() if name)


def _counts(db: Database) -> dict[str, int]:
    """Return the rows of each table, and under '' the schema's version."""
    names = db.rows("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    counts = {name: int(db.value(f'SELECT count(*) FROM "{name}"')) for (name,) in names}
    return counts | {"": int(db.value("PRAGMA user_version"))}
