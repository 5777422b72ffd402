"""Turning what happened into rows of the outbox, inside the transaction that made it true."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from core import messages
from core.app import App
from core.costs import cost_rates
from core.domain import Market, Message, Side
from core.execution import Event
from core.jobs import record, standing
from core.messages import Look
from core.notify import channels
from core.risk import latest_entry, on_tick
from core.store import markets as market_store
from core.store import operation
from core.timeframe import DAY_MS

TOLD = ("LIVE", "PAPER")


def look_of(app: App, row: Mapping[str, Any] | None = None) -> Look:
    """Return how a message is written, about a row where one is given."""
    zone, banner = ZoneInfo(app.config.app.timezone), operation.label_of(app.db, "banner")
    if row is None:
        return Look(zone=zone, banner=banner)
    market = market_store.market_of(app.db, row["exchange"], row["symbol"])
    return Look(zone=zone, banner=banner, decimals=messages.decimals_of(_tick(market, row)))


def _tick(market: Market, row: Mapping[str, Any]) -> float:
    """Return the market's tick, else the finest step, 1e-8 at the least, that shows its prices."""
    if market.tick > 0 and not market.fallback:
        return market.tick
    texts = (f"{row[name]:.8f}".rstrip("0") for name in ("entry", "sl", "tp1", "tp2"))
    return float(10.0 ** -max(len(text.partition(".")[2]) for text in texts))


def latest_of(app: App, row: Mapping[str, Any]) -> float:
    """Return the last price still worth entering a row at, rounded to the tick against us."""
    market = market_store.market_of(app.db, row["exchange"], row["symbol"])
    side = Side.of(row["direction"])
    price = latest_entry(
        side,
        stop=row["sl"],
        tp1=row["tp1"],
        rates=cost_rates(app.config.signals, market),
        min_tp_net_pct=app.config.signals.min_tp_net_pct,
        p_win=row["ml_p"],
    )
    tick = np.array([_tick(market, row)])
    return float(on_tick(np.array([price]), tick, up=np.array([side is Side.SHORT]))[0])


def queue_new_signals(app: App, rows: Sequence[Mapping[str, Any]], *, now_ms: int) -> None:
    """Queue a message for each new row that is delivered LIVE or PAPER."""
    for row in rows:
        if row["delivery"] not in TOLD:
            continue
        text = messages.new_signal(
            row,
            look_of(app, row),
            execution=app.config.execution,
            now=standing.price_now(app.db, row, now_ms=now_ms),
            latest=latest_of(app, row),
            link_template=app.config.notify.telegram.link_template,
        )
        message = Message(
            dedupe_key=f"new:{row['id']}",
            kind="new_signal",
            text=text,
            signal_id=row["id"],
            silent=row["delivery"] == "PAPER",
        )
        _queue(app, message, now_ms=now_ms, expires_ms=row["actionable_ms"])


def queue_events(app: App, row: Mapping[str, Any], happened: Sequence[Event]) -> None:
    """Queue what happened to a row that was told before; the others are followed in silence.

    `notify.events` says how loudly each kind comes, or that it does not.
    """
    if row["delivery"] not in TOLD or row["origin"] != "live" or not happened:
        return
    look = look_of(app, row)
    for event in happened:
        loudness = getattr(app.config.notify.events, event.kind)
        if loudness == "off":
            continue
        message = Message(
            dedupe_key=f"{event.kind}:{row['id']}:{event.at_ms}",
            kind=event.kind,
            text=_event_text(app, row, event, look),
            signal_id=row["id"],
            silent=row["delivery"] == "PAPER" or loudness == "silent",
        )
        _queue(app, message, now_ms=event.at_ms)


def _event_text(app: App, row: Mapping[str, Any], event: Event, look: Look) -> str:
    if event.kind == "filled":
        return messages.filled(row, look, price=event.price)
    if event.kind == "tp1":
        return messages.tp1(row, look, execution=app.config.execution)
    if event.kind == "stop_moved":  # told when it is known; the row says what is in force
        return messages.stop_moved({**row, "stop_now": event.price}, look)
    if event.kind == "closed":
        running = record.record(app, row["delivery"], end_ms=event.at_ms + 1)
        return messages.closed(row, look, record=running)
    ends = {"expired": messages.expired, "cancelled": messages.cancelled}
    return ends[event.kind](row, look)


def queue_digest(app: App, *, now_ms: int) -> int:
    """Queue the day's digest: what was found, what was delivered, and that we are alive."""
    start = now_ms - DAY_MS
    found = app.db.dicts(
        "SELECT * FROM signals WHERE decided_ms >= ? AND decided_ms < ? AND origin = 'live'"
        " ORDER BY decided_ms, id",
        (start, now_ms),
    )
    ended = app.db.dicts(
        "SELECT * FROM signals WHERE closed_ts_ms >= ? AND closed_ts_ms < ?"
        " AND r_multiple IS NOT NULL AND delivery IN ('LIVE', 'PAPER') AND origin = 'live'"
        " ORDER BY closed_ts_ms, id",
        (start, now_ms),
    )
    day = messages.Day(
        start_ms=start, end_ms=now_ms, found=found, ended=ended, records=told_records(app, now_ms)
    )
    text = messages.digest(day, look_of(app), standing=standing.standing(app, now_ms=now_ms))
    return queue_notice(app, "digest", text, now_ms=now_ms, silent=True)


def told_records(app: App, now_ms: int) -> list[messages.Record]:
    """Return the running records of what was told, without those of nothing."""
    found = [record.record(app, book, end_ms=now_ms) for book in TOLD]
    return [one for one in found if one.n_closed]


def queue_weekly_work(app: App, tuned: Mapping[str, Any], *, now_ms: int) -> int:
    """Queue what the weekly work changed, from what the tuner says; once for each instant."""
    name = tuned.get("bundle")
    found = app.db.value("SELECT metrics FROM bundles WHERE id = ?", (name,))
    text = messages.weekly_work(tuned, json.loads(found or "{}"), look_of(app))
    return queue_notice(app, "weekly_work", text, now_ms=now_ms, silent=True)


def queue_notice(app: App, kind: str, text: str, *, now_ms: int, silent: bool = False) -> int:
    """Queue a message that is about no single signal; once for each kind and instant."""
    message = Message(dedupe_key=f"{kind}:{now_ms}", kind=kind, text=text, silent=silent)
    with app.db.write():
        return _queue(app, message, now_ms=now_ms)


def _queue(app: App, message: Message, *, now_ms: int, expires_ms: int | None = None) -> int:
    return operation.queue_messages(
        app.db,
        [message],
        channels=channels(app.config),
        created_ms=now_ms,
        expires_ms=expires_ms,
    )
