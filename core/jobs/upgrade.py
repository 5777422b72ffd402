"""Taking a new version of the program into use: a proven copy, the migration, the same decisions.

Opening the database copies and migrates it (`core/app.py`); here the copy is made where nothing was
to be migrated, and the last decisions are taken again. It may be repeated, and killed anywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.app import App, keep_copy
from core.config import strategy_settings
from core.domain import Progress, no_progress
from core.errors import StoreError
from core.jobs.explain import data_now_ms
from core.jobs.redecide import Redecided, record_of_others, redecide, shown
from core.schema import VERSION
from core.store.copies import newest_before
from core.store.db import open_reader
from core.timeframe import DAY_MS, floor_ms

_SHOWN = 3  # differences that are named


def upgrade(
    app: App, *, days: int = 30, progress: Progress = no_progress
) -> tuple[dict[str, Any], bool]:
    """Return what an owner wants to know before he starts the new program, and whether all is well.

    Raises StoreError where another process keeps the database.
    """
    if not app.holds_lock:
        raise StoreError(
            f"a scheduler (pid {app.lock_file.holder()}) keeps the database;",
            remedy="stop it, then repeat: make upgrade",
        )
    progress("copy", 0, 1)
    copy = app.kept or keep_copy(app.db, app.config, app.root)
    progress("copy", 1, 1)
    with open_reader(copy.path) as old:
        before, now = (int(db.value("PRAGMA user_version")) for db in (old, app.db))
    answer: dict[str, Any] = {
        "schema": f"{before} -> {now}" if before != now else f"{now}, as before",
        "copy": str(copy.path),
        "rows put back from it": copy.n_rows,
        "strategy": app.strategy,
    }
    new = _new_strategy(app)
    if new:
        return answer | {"decisions": new, "ok": True}, True
    end_ms = data_now_ms(app)
    start_ms = floor_ms(end_ms - days * DAY_MS, DAY_MS)
    found = redecide(app, start_ms=start_ms, end_ms=end_ms, progress=progress)
    return answer | _said(found, days=days) | _way_back(app, found, copy.path), found.ok


def _new_strategy(app: App) -> str:
    """Return what becomes of the record where the present strategy has none yet, or ''."""
    own = app.db.value("SELECT 1 FROM signals WHERE strategy_id = ? LIMIT 1", (app.strategy,))
    n, n_open, settings = record_of_others(app.db, app.strategy)
    if own or not n:
        return ""
    now, was = strategy_settings(app.config)["version"], settings.get("version")
    why = "its settings were edited"
    if now != was:
        why = f"the code that decides is of version {now}, was {was}"
    return (
        f"new strategy_id {app.strategy}: {why}; the old record ({n:,} signals) is kept and frozen,"
        f" its open trades ({n_open:,}) end under their own rules; retro-scan and training start"
        " with the scheduler"
    )


def _said(found: Redecided, *, days: int) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "days": days,
        "decisions": f"{found.n_changed:,} of {found.n:,} decisions changed",
        "ends": f"{found.n_ended_otherwise:,} of {found.n_ended:,} trades end otherwise",
    }
    if found.n_settings:
        answer["told otherwise now"] = (
            f"{found.n_settings:,}, in size, expected value or gate only:"
            " by settings that do not make the strategy"
        )
    if found.left_out:
        answer["not compared"] = dict(found.left_out)
    return answer | {"ok": found.ok}


def _way_back(app: App, found: Redecided, copy: Path) -> dict[str, Any]:
    """Return the first differences, and how to go on as before them."""
    if found.ok:
        return {}
    older = newest_before(copy.parent, app.db.path.stem, VERSION)
    before = (
        f"; for a program before schema {VERSION}: {older}" if older not in (None, copy) else ""
    )
    return {
        "to go back": "put the program back to its version before, then:"
        f" python maintenance.py restore --file {copy}{before}",
        "first differences": [shown(one) for one in found.differences[:_SHOWN]],
    }
