"""Emptying the outbox: each attempt is committed before it is made.

At least once: what was certainly not accepted is tried until it is; what may have been accepted
is sent again with REPEAT in front. In the order of the outbox, per channel; only a message that
failed again and again is passed by, and by no other of its own signal. See
docs/decisions/outbox.md.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TextIO
from zoneinfo import ZoneInfo

from core import messages
from core.config import Config
from core.notify.bot_api import (
    BotApi,
    ChannelError,
    ClosedError,
    DoubtError,
    LaterError,
    RefusedError,
)
from core.notify.redaction import redact
from core.notify.sinks import ConsoleSink, Sink, Sinks, TelegramSink
from core.store.db import Database
from core.store.operation import (
    claim_message,
    hurry_messages,
    label_of,
    rest_channel,
    rest_of,
    update_message,
    waiting_messages,
)
from core.store.signals import mark_late, signal_of

REPEAT = "(possible repeat)"
_ANY_TIME = 1 << 62
_CLOSED_WAIT_MS = 600_000
_LEASE_MS = 90_000  # longer than an attempt can take: connecting, sending, and once more plain
_PASSED_BY = 5  # attempts after which a message may be the fault, and not its channel
_SOON_MS = 1000
_BACKOFF_MAX_S = 300


class Accepted(NamedTuple):
    """A message a channel has taken; `is_too_late` when it was no call any more by then."""

    channel: str
    kind: str
    signal_id: int | None
    is_too_late: bool


@dataclass(slots=True, kw_only=True)
class SendReport:
    """What one round of sending came to; keys are channels.

    `n_doubtful` counts attempts whose outcome is unknown, `n_dead` messages given up. `closed`
    says why a channel takes nothing until the owner acts; `next_wall_ms` when it is tried again.
    """

    accepted: list[Accepted] = field(default_factory=list)
    n_doubtful: int = 0
    n_dead: int = 0
    closed: dict[str, str] = field(default_factory=dict)
    next_wall_ms: dict[str, int] = field(default_factory=dict)

    def wait(self, channel: str, until_wall_ms: int) -> None:
        """Note the earliest instant at which a channel has something to try."""
        known = self.next_wall_ms.get(channel, until_wall_ms)
        self.next_wall_ms[channel] = min(known, until_wall_ms)

    @property
    def n_sent(self) -> int:
        """How many messages were accepted."""
        return len(self.accepted)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    """What all attempts of one round share."""

    db: Database
    config: Config
    market_ms: int | None
    wall_now_ms: Callable[[], int]
    jitter: Callable[[], float]
    report: SendReport = field(default_factory=SendReport)

    def note(self, number: int, **changes: Any) -> None:
        """Commit what is known of a message."""
        with self.db.write():
            update_message(self.db, number, changes)


def channels(config: Config) -> tuple[str, ...]:
    """Return the names of the channels that are switched on."""
    wanted = (("console", config.notify.console), ("telegram", config.notify.telegram.enabled))
    return tuple(name for name, on in wanted if on)


def sinks_of(config: Config, *, stream: TextIO | None = None) -> dict[str, Sink]:
    """Return the sinks of the channels that are switched on; the console is stdout by default."""
    makers: dict[str, Callable[[], Sink]] = {
        "console": lambda: ConsoleSink(stream or sys.stdout),
        "telegram": lambda: _telegram(config),
    }
    return {name: makers[name]() for name in channels(config)}


def _telegram(config: Config) -> Sink:
    import requests  # 35 ms, and most commands send nothing

    telegram = config.notify.telegram
    api = BotApi(
        requests.Session(),
        api_base=telegram.api_base,
        token=telegram.bot_token.get_secret_value(),
    )
    return TelegramSink(api, chat_id=telegram.chat_id)


def send_waiting(
    db: Database,
    config: Config,
    sinks: Sinks,
    *,
    wall_ms: int,
    market_ms: int | None = None,
    n: int = 20,
    budget_s: float = 15.0,
    monotonic: Callable[[], float] = time.monotonic,
    jitter: Callable[[], float] = random.random,
) -> SendReport:
    """Send up to `n` waiting messages per channel and say how it went.

    To be called outside a transaction, by any number of processes. Each attempt is committed before
    it is made, with a lease: a row in `sending` whose lease is over was left by a crash, and is in
    doubt. None is started after `budget_s`. A message past its `expires_ms` at `market_ms` is told
    as too late instead.
    """
    start_s = monotonic()
    this = _Round(
        db=db,
        config=config,
        market_ms=market_ms,
        wall_now_ms=lambda: wall_ms + round(1000 * (monotonic() - start_s)),
        jitter=jitter,
    )
    for channel, sink in sinks.items():
        _empty(this, channel, sink, n=n, is_over=lambda: monotonic() - start_s > budget_s)
    return this.report


def _empty(this: _Round, channel: str, sink: Sink, *, n: int, is_over: Callable[[], bool]) -> None:
    """Try what waits for one channel, until it has to wait as a whole."""
    rest_ms, _ = rest_of(this.db, channel)
    if rest_ms > this.wall_now_ms():
        this.report.wait(channel, rest_ms)
        return
    held: set[int | None] = set()  # signals whose next message waits while others go on
    for row in waiting_messages(this.db, channel, wall_ms=_ANY_TIME, n=n):
        if row["signal_id"] in held:
            continue
        is_sending, passed_by = row["state"] == "sending", row["attempts"] >= _PASSED_BY
        due_ms = row["lease_wall_ms"] if is_sending else row["next_wall_ms"]
        if due_ms > this.wall_now_ms():
            this.report.wait(channel, due_ms)
            if not (is_sending or passed_by):
                return
            held.add(row["signal_id"])
            continue
        if is_over():
            return
        if _attempt(this, channel, sink, row):
            continue
        if not passed_by or rest_of(this.db, channel)[0] > this.wall_now_ms():
            return
        held.add(row["signal_id"])


def _attempt(this: _Round, channel: str, sink: Sink, row: Mapping[str, Any]) -> bool:
    """Try one message; False when it has to wait."""
    doubtful = row["state"] != "pending"
    text, is_old = _text_now(this, row, doubtful=doubtful)
    try:
        if doubtful:
            sink.check()  # a repeat is not to be spent on a channel that is down
        lease_ms = this.wall_now_ms() + _LEASE_MS
        if not claim_message(this.db, row, text=text, lease_wall_ms=lease_ms):
            return True  # another process was quicker
        thread = _thread(this.db, channel, row["signal_id"])
        sent = sink.send(text, silent=bool(row["silent"]), reply_to=thread)
    except ChannelError as error:
        return _settle(this, channel, row, error, repeated=text.startswith(REPEAT))
    _accepted(this, channel, row, sent.message_id, is_late=is_old)
    this.report.accepted.append(Accepted(channel, row["kind"], row["signal_id"], is_old))
    return True


def _accepted(
    this: _Round, channel: str, row: Mapping[str, Any], message_id: str | None, *, is_late: bool
) -> None:
    """Write down that a message was taken: so the channel is well, and others may hurry."""
    now_ms = this.wall_now_ms()
    with this.db.write():
        changes = {"sent_id": message_id, "sent_wall_ms": now_ms, "last_error": None}
        update_message(this.db, row["id"], {"state": "sent", "lease_wall_ms": 0, **changes})
        if is_late:
            mark_late(this.db, row["signal_id"])
        hurry_messages(this.db, channel, wall_ms=now_ms + _SOON_MS)
        if rest_of(this.db, channel)[0]:
            rest_channel(this.db, channel, until_wall_ms=0, reason="")


def _settle(
    this: _Round, channel: str, row: Mapping[str, Any], error: ChannelError, *, repeated: bool
) -> bool:
    """Write down a failed attempt; True when the next message may be tried."""
    attempts = row["attempts"] + 1
    said = redact(error.message, this.config)
    if isinstance(error, DoubtError):
        this.report.n_doubtful += 1
    unanswered = isinstance(error, DoubtError) and error.silent and repeated
    if unanswered or isinstance(error, RefusedError):
        said = f"no answer twice, it may have arrived: {said}" if unanswered else said
        this.note(row["id"], state="dead", attempts=attempts, lease_wall_ms=0, last_error=said)
        this.report.n_dead += 1
        return True
    wait_ms = round(1000 * min(_BACKOFF_MAX_S, 2 ** min(attempts, 10)) * (1 + this.jitter()) / 2)
    rests = isinstance(error, ClosedError)
    if isinstance(error, ClosedError):
        wait_ms = _CLOSED_WAIT_MS
        this.report.closed[channel] = said
    elif isinstance(error, LaterError) and error.after_s is not None:
        wait_ms, rests = round(1000 * (error.after_s + this.jitter())), True
    doubtful = isinstance(error, DoubtError) or row["state"] != "pending"
    next_ms = this.wall_now_ms() + wait_ms
    with this.db.write():
        this.note(
            row["id"],
            state="ambiguous" if doubtful else "pending",
            attempts=attempts,
            lease_wall_ms=0,
            next_wall_ms=next_ms,
            last_error=said,
        )
        if rests:
            rest_channel(this.db, channel, until_wall_ms=next_ms, reason=said)
    this.report.wait(channel, next_ms)
    return False


def _text_now(this: _Round, row: Mapping[str, Any], *, doubtful: bool) -> tuple[str, bool]:
    """Return what is to be said now, and whether the message is past its time."""
    text = str(row["text"]).removeprefix(f"{REPEAT}\n")
    is_old = None not in (this.market_ms, row["expires_ms"]) and this.market_ms > row["expires_ms"]
    signal = signal_of(this.db, row["signal_id"]) if is_old and row["signal_id"] else None
    if signal is not None:
        zone = ZoneInfo(this.config.app.timezone)
        look = messages.Look(zone=zone, banner=label_of(this.db, "banner"))
        text = messages.too_late(signal, look)
    return (f"{REPEAT}\n{text}" if doubtful else text), signal is not None


def _thread(db: Database, channel: str, signal_id: int | None) -> str | None:
    """Return the id of the first message about a signal, which later ones answer."""
    found = db.value(
        "SELECT sent_id FROM outbox WHERE channel = ? AND signal_id = ? AND sent_id IS NOT NULL"
        " ORDER BY id LIMIT 1",
        (channel, signal_id),
    )
    return None if found is None else str(found)
