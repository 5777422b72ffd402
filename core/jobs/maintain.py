"""The owner's tools: checkpoint, vacuum, backup, restore check and doctor."""

from __future__ import annotations

import logging
import platform
from collections import Counter
from pathlib import Path
from typing import Any

import apsw

from core import drafts
from core.app import App, wall_ms
from core.domain import Series
from core.errors import StoreError
from core.jobs.holders import holders
from core.jobs.invariants import invariants
from core.jobs.scan import lacks_history, leader_of
from core.messages import answers
from core.messages.phone import span
from core.notify import channels
from core.store import candles as store
from core.store import operation
from core.store.copies import drop_oldest, stamp, want_whole, write_copy
from core.store.db import open_reader, set_aside_by_restore
from core.store.signals import followed as followed_rows
from core.timeframe import MINUTE_MS

__all__ = [
    "backup",
    "checkpoint",
    "daily_backup",
    "doctor",
    "invariants",
    "restore",
    "tidy",
    "vacuum",
    "want_small_wal",
]

log = logging.getLogger("trader.maintain")

WAL_WARN_BYTES = 64 << 20  # it is cut back to this when nobody reads
_FRESH_MS = 5 * MINUTE_MS
VACUUM_SHARE = 0.2  # free pages of all pages above which rewriting the file pays


def checkpoint(app: App) -> dict[str, Any]:
    """Move the WAL into the file. Only the holder of the writer lock may."""
    if not app.holds_lock:
        raise StoreError(
            f"the scheduler (pid {app.lock_file.holder()}) keeps the database;",
            remedy="it checkpoints by itself every 30 minutes",
        )
    app.db.checkpoint()
    in_wal, moved = app.db.checkpoint(truncate=True)
    size = wal_bytes(app.db.path)
    if in_wal < 0:
        log.warning("a reader holds the WAL (%.1f MB); it is tried again later", size / 1e6)
    return {"pages_in_wal": in_wal, "pages_moved": moved, "wal_bytes": size}


def wal_bytes(path: Path) -> int:
    """Return the size of a database's write-ahead log."""
    wal = path.with_name(path.name + "-wal")
    return wal.stat().st_size if wal.exists() else 0


def want_small_wal(app: App) -> None:
    """Raise StoreError where the WAL has grown because a reader does not let go of it."""
    size = wal_bytes(app.db.path)
    if size > WAL_WARN_BYTES:
        raise StoreError(
            f"a reader holds the database: its WAL is {size / 1e6:.0f} MB and grows;",
            remedy=f"{_closing(app.db.path)}; it shrinks by itself then",
        )


def _closing(path: Path) -> str:
    """Return what the owner is to close, by its process where the system says."""
    found = holders(path)
    return f"end {', '.join(found)}" if found else "close old dashboards and tools"


def vacuum(app: App, *, force: bool = False) -> dict[str, Any]:
    """Rewrite the file where enough of it is free; an append-mostly file has nothing to gain."""
    if not app.holds_lock:
        raise StoreError(
            f"the scheduler (pid {app.lock_file.holder()}) keeps the database;",
            remedy="stop it before a vacuum",
        )
    free = int(app.db.value("PRAGMA freelist_count"))
    total = int(app.db.value("PRAGMA page_count"))
    share = free / max(total, 1)
    if share <= VACUUM_SHARE and not force:
        return {"free_share": round(share, 4), "vacuumed": False}
    app.db.run("VACUUM")
    app.db.checkpoint(truncate=True)
    return {"free_share": round(share, 4), "vacuumed": True}


def backup(app: App, *, now_wall_ms: int) -> dict[str, Any]:
    """Copy the database while it is in use, verify the copy, and drop the oldest ones."""
    folder, stem = app.root / app.config.backup.dir, app.db.path.stem
    target = folder / f"{stem}-{stamp(now_wall_ms)}.db"
    write_copy(app.db, target)
    n_kept = drop_oldest(folder, f"{stem}-*.db", keep=app.config.backup.keep)
    return {"file": str(target), "bytes": target.stat().st_size, "kept": n_kept}


def restore(path: Path, target: Path) -> dict[str, Any]:
    """Put a backup in place of the database, which is kept beside it; nobody may hold either.

    The copy is checked before and after; the old file's WAL goes with it. Raises StoreError.
    """
    if not path.exists():
        raise StoreError(f"backup {path} does not exist;", remedy="see data/backups")
    want_whole(path)
    drafts.sweep([target.parent])
    partial, aside = drafts.draft_of(target), drafts.unused(set_aside_by_restore(target))
    try:
        with open_reader(path) as source:
            source.backup_to(partial)
        want_whole(partial)
        with drafts.moves() as move:
            for suffix in ("", "-wal", "-shm"):
                old = target.with_name(target.name + suffix)
                if old.exists():
                    move(old, aside.with_name(aside.name + suffix))
            move(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return {"restored": str(target), "from": str(path), "old database kept as": str(aside)}


def daily_backup(app: App, *, now_wall_ms: int) -> None:
    """Make the day's backup, where enabled."""
    if app.config.backup.enabled:
        done = backup(app, now_wall_ms=now_wall_ms)
        log.info("backup %s, %.1f MB", done["file"], done["bytes"] / 1e6)


def tidy(app: App) -> None:
    """Reclaim space where there is some, and let SQLite look at its statistics."""
    vacuum(app)
    app.db.run("PRAGMA optimize")


def doctor(app: App) -> list[tuple[str, str, str]]:
    """Look at everything an owner would ask about; rows of (ok | warn | bad, what, remedy)."""
    found = [
        ("ok", f"Python {platform.python_version()}, SQLite {apsw.sqlite_lib_version()}", ""),
        ("ok", f"config {app.config_path}, strategy {app.strategy}", ""),
    ]
    said = str(app.db.value("PRAGMA quick_check"))
    found.append(
        ("ok", f"database {app.db.path} is whole", "")
        if said == "ok"
        else ("bad", f"database: {said}", "restore a backup: python maintenance.py restore FILE")
    )
    size = wal_bytes(app.db.path)
    is_large = size > WAL_WARN_BYTES
    close = f"a reader holds it: {_closing(app.db.path)}" if is_large else ""
    found.append(("warn" if is_large else "ok", f"WAL {size / 1e6:.1f} MB", close))
    if app.holds_lock:
        found.append(("warn", "no scheduler runs", "start it: python scheduler_run.py"))
    else:
        found.append(("ok", f"a scheduler runs (pid {app.lock_file.holder()})", ""))
    for row in operation.bootstrap_steps(app.db):
        state = "warn" if row["state"] == "failed" else "ok"
        found.extend((state, said, "") for said in answers.working_up([row]))
    found.extend(_doctor_series(app))
    found.extend(_doctor_outbox(app))
    return found


def _doctor_series(app: App) -> list[tuple[str, str, str]]:
    found = []
    row = operation.clock_row(app.db)
    now = row[0] if row else wall_ms()
    for symbol in app.config.symbols:
        base = store.base_series(app.db, app.config.exchange.id, symbol)
        stored = store.series_row(app.db, base)
        if stored is None or stored.last_ms is None:
            found.append(("bad", f"{symbol}: no candles", "run: python download_data.py"))
            continue
        age_ms = max(0, now - stored.last_ms)
        state = "ok" if age_ms < _FRESH_MS else "warn"
        remedy = "" if state == "ok" else "start the scheduler, or run: python download_data.py"
        found.append((state, f"{symbol}: newest candle {span(age_ms)} old", remedy))
        for timeframe in app.config.timeframes:
            lack = lacks_history(app.db, app.config, Series(base.exchange, symbol, timeframe))
            if lack:
                found.append(("warn", f"{symbol} {timeframe} waits: {lack}", ""))
    followed = Counter(
        row["symbol"] for row in followed_rows(app.db, exchange=app.config.exchange.id)
    )
    for symbol in sorted(set(followed) - set(app.config.symbols)):
        n = followed[symbol]
        said = "1 open signal is" if n == 1 else f"{n} open signals are"
        found.append(("ok", f"{symbol}: not scanned any more, {said} followed", ""))
    absent = {leader for s in app.config.symbols if (leader := leader_of(s))}
    absent -= set(app.config.symbols)
    found.extend(("warn", f"no {name} among symbols: no leader features", "") for name in absent)
    return found


def _doctor_outbox(app: App) -> list[tuple[str, str, str]]:
    counts = operation.outbox_counts(app.db)
    waiting = sum(counts.get(state, 0) for state in ("pending", "sending", "ambiguous"))
    errors = app.db.rows(
        "SELECT job, detail FROM job_runs WHERE outcome <> 'ok' AND started_wall_ms > ?"
        " ORDER BY id DESC LIMIT 3",
        (wall_ms() - 86_400_000,),
    )
    found = [("ok" if waiting < 20 else "warn", f"outbox: {waiting} waiting", "")]
    for channel in channels(app.config):
        until_wall_ms, reason = operation.rest_of(app.db, channel)
        if until_wall_ms > wall_ms():
            remedy = "401, 403, 404: see notify.telegram; 429: it goes on by itself"
            found.append(("warn", f"{channel} takes no messages: {reason}", remedy))
    found.extend(("warn", f"{job} failed: {detail}", "") for job, detail in errors)
    return found
