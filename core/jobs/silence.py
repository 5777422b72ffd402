"""Data that does not come: told once with what that blinds us to, and once when it is back."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from zoneinfo import ZoneInfo

from core import notices
from core.app import App, wall_ms
from core.domain import Series
from core.jobs.episodes import tell
from core.jobs.readings import SETTLE_MS
from core.jobs.sync import synced_symbols
from core.jobs.tell import TOLD
from core.store import candles as store
from core.store import operation
from core.timeframe import MINUTE_MS

OLD_MS = 3 * MINUTE_MS
_JOB, _KIND = "candles", "old"
_TOLD = ", ".join(f"'{word}'" for word in TOLD)
_EVENTS = ("new_signal", "filled", "tp1", "stop_moved", "closed", "expired", "cancelled")


def watch(app: App, *, now_ms: int, is_complete: bool) -> None:
    """Tell of data that stopped, or that it is back once all that came late is worked through.

    The feed is old when no symbol has anything of the last three minutes. A single symbol may be
    quiet for ten minutes before silence is settled; only beyond that, and only where a signal is
    open that the owner knows of, is it told of. A replay's market waits and is never old.
    """
    if app.config.exchange.id == "replay":
        return
    with app.busy:
        newest = _newest(app)
        blind = _blind(app, newest, now_ms=now_ms)
        known = operation.open_episodes(app.db, _JOB)
        if blind and not known:
            _tell_old(app, {symbol: newest[symbol] for symbol in blind}, now_ms=now_ms)
        elif known and not blind and is_complete:
            _tell_back(app, known[0])


def came_back(app: App, *, now_ms: int) -> None:
    """Open an episode where nobody looked for longer than three minutes: it ends with its story."""
    row = operation.clock_row(app.db)
    if app.config.exchange.id == "replay" or row is None or now_ms - row[0] <= OLD_MS:
        return
    if not operation.open_episodes(app.db, _JOB):
        with app.db.write():
            operation.extend_episode(app.db, _JOB, _KIND, detail=str(row[0]), wall_ms=wall_ms())


def _newest(app: App) -> dict[str, int]:
    """Return the instant up to which each symbol is known, of those that ever were."""
    base = app.config.data.base_timeframe
    found = {
        symbol: store.checkpoint_of(app.db, Series(app.config.exchange.id, symbol, base))
        for symbol in synced_symbols(app)
    }
    return {symbol: known_ms for symbol, known_ms in found.items() if known_ms is not None}


def _blind(app: App, newest: dict[str, int], *, now_ms: int) -> list[str]:
    old = [symbol for symbol, known_ms in newest.items() if now_ms - known_ms > OLD_MS]
    if len(old) == len(newest):
        return old
    silent = [symbol for symbol in old if now_ms - newest[symbol] > OLD_MS + SETTLE_MS]
    return [symbol for symbol in silent if _unfollowed(app, [symbol])]


def _unfollowed(app: App, symbols: Collection[str]) -> list[dict[str, Any]]:
    """Return the open signals of some symbols that the owner knows of."""
    rows = app.db.dicts(
        "SELECT id AS signal_id, symbol, timeframe, direction FROM signals"
        " WHERE exchange = ? AND status IN ('PENDING', 'OPEN') AND origin = 'live'"
        f" AND delivery IN ({_TOLD}) ORDER BY id",
        (app.config.exchange.id,),
    )
    return [row for row in rows if row["symbol"] in symbols]


def _tell_old(app: App, newest: dict[str, int], *, now_ms: int) -> None:
    since_ms = min(newest.values())
    text = notices.data_old(
        newest, _unfollowed(app, newest), zone=ZoneInfo(app.config.app.timezone)
    )
    with app.db.write():
        operation.extend_episode(app.db, _JOB, _KIND, detail=str(since_ms), wall_ms=wall_ms())
        tell(app, "data_old", f"data_old:{now_ms}", text)


def _tell_back(app: App, episode: dict[str, Any]) -> None:
    since_ms = int(episode["detail"])
    marks = ", ".join("?" for _ in _EVENTS)
    happened = app.db.dicts(
        "SELECT o.kind, o.created_ms AS at_ms, o.signal_id, s.symbol, s.timeframe, s.direction"
        " FROM outbox o JOIN signals s ON s.id = o.signal_id"
        f" WHERE o.created_ms > ? AND o.kind IN ({marks})"
        " GROUP BY o.dedupe_key ORDER BY o.created_ms, min(o.id)",
        (since_ms, *_EVENTS),
    )
    zone = ZoneInfo(app.config.app.timezone)
    with app.db.write():
        operation.update_episode(app.db, episode["id"], {"ended_wall_ms": wall_ms()})
        text = notices.data_back(happened, since_ms=since_ms, zone=zone)
        tell(app, "data_back", f"data_back:{episode['id']}", text)
