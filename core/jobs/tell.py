"""Turning what happened into rows of the outbox, inside the transaction that made it true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

from core import messages
from core.app import App
from core.domain import Message
from core.execution import Event
from core.notify import channels
from core.store import markets as market_store
from core.store import operation
from core.timeframe import DAY_MS

TOLD = ("LIVE", "PAPER")


def _words(app: App, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what every message of a row takes besides the row itself."""
    market = market_store.market_of(app.db, row["exchange"], row["symbol"])
    prices = [row[name] for name in ("entry", "sl", "tp1", "tp2")]
    tick = market.tick if market.tick > 0 and not market.fallback else 0.0
    return {
        "zone": ZoneInfo(app.config.app.timezone),
        "banner": operation.label_of(app.db, "banner"),
        "decimals": messages.decimals_of(tick) if tick else _decimals_in(prices),
    }


def _decimals_in(prices: Sequence[float]) -> int:
    """Return the decimals that show prices exactly, eight at the most."""
    return max(len(f"{price:.8f}".rstrip("0").partition(".")[2]) for price in prices)


def queue_new_signals(app: App, rows: Sequence[Mapping[str, Any]], *, now_ms: int) -> None:
    """Queue a message for each new row that is delivered LIVE or PAPER."""
    for row in rows:
        if row["delivery"] not in TOLD:
            continue
        text = messages.new_signal(
            row,
            execution=app.config.execution,
            link_template=app.config.notify.telegram.link_template,
            **_words(app, row),
        )
        message = Message(
            dedupe_key=f"new:{row['id']}",
            kind="new_signal",
            text=text,
            signal_id=row["id"],
            silent=row["delivery"] == "PAPER",
        )
        operation.queue_messages(
            app.db,
            [message],
            channels=channels(app.config),
            created_ms=now_ms,
            expires_ms=row["valid_until_ms"],
        )


def queue_events(app: App, row: Mapping[str, Any], happened: Sequence[Event]) -> None:
    """Queue what happened to a row that was told before; the others are followed in silence."""
    if row["delivery"] not in TOLD or row["origin"] != "live" or not happened:
        return
    words = _words(app, row)
    told = [
        Message(
            dedupe_key=f"{event.kind}:{row['id']}:{event.at_ms}",
            kind=event.kind,
            text=_event_text(app, row, event, words),
            signal_id=row["id"],
            silent=row["delivery"] == "PAPER",
        )
        for event in happened
    ]
    for event, message in zip(happened, told, strict=True):
        operation.queue_messages(
            app.db, [message], channels=channels(app.config), created_ms=event.at_ms
        )


def _event_text(app: App, row: Mapping[str, Any], event: Event, words: dict[str, Any]) -> str:
    if event.kind == "filled":
        return messages.filled(row, price=event.price, **words)
    if event.kind == "tp1":
        return messages.tp1(row, execution=app.config.execution, **words)
    if event.kind == "stop_moved":  # told when it is known; the row says what is in force
        return messages.stop_moved({**row, "stop_now": event.price}, **words)
    ends = {
        "closed": messages.closed,
        "expired": messages.expired,
        "cancelled": messages.cancelled,
    }
    return ends[event.kind](row, **words)


def queue_digest(app: App, *, now_ms: int) -> int:
    """Queue the day's digest: what was found, what was delivered, and that we are alive."""
    start = now_ms - DAY_MS
    found = app.db.dicts(
        "SELECT * FROM signals WHERE decided_ms >= ? AND decided_ms < ? AND origin = 'live'"
        " ORDER BY decided_ms, id",
        (start, now_ms),
    )
    closed = app.db.dicts(
        "SELECT * FROM signals WHERE closed_ts_ms >= ? AND closed_ts_ms < ?"
        " AND r_multiple IS NOT NULL AND delivery IN ('LIVE', 'PAPER') ORDER BY closed_ts_ms, id",
        (start, now_ms),
    )
    text = messages.digest(
        found,
        closed_rows=closed,
        start_ms=start,
        end_ms=now_ms,
        zone=ZoneInfo(app.config.app.timezone),
        banner=operation.label_of(app.db, "banner"),
    )
    message = Message(dedupe_key=f"digest:{now_ms}", kind="digest", text=text, silent=True)
    with app.db.write():
        return operation.queue_messages(
            app.db, [message], channels=channels(app.config), created_ms=now_ms
        )
