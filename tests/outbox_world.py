"""An outbox to play with: settings, sinks that take no time, and rounds of sending."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import requests

from core.config import Config, config_from
from core.domain import Message
from core.messages import plain
from core.notify import (
    REPEAT,
    BotApi,
    DoubtError,
    SendReport,
    Sent,
    Sink,
    TelegramSink,
    send_waiting,
)
from core.store.db import Database
from core.store.operation import queue_messages

CANARY = "987654321:CANARYcanaryCANARYcanary-CANARY_ca"


class FakeTime:
    """Waits that take no time."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, length_s: float) -> None:
        self.now_s += length_s


def settings(base: str = "http://127.0.0.1:9", **notify: Any) -> Config:
    """Telegram on, with the canary as its token."""
    telegram = {"enabled": True, "bot_token": CANARY, "chat_id": 42, "api_base": base}
    return config_from({"notify": {"telegram": telegram, **notify}})


def telegram(base: str, *, read_s: float = 5.0, time: FakeTime | None = None) -> TelegramSink:
    """The sink, with waits that take no time but those for an answer."""
    time = time or FakeTime()
    return TelegramSink(
        BotApi(requests.Session(), api_base=base, token=CANARY, timeouts_s=(2.0, read_s)),
        chat_id="42",
        monotonic=time.monotonic,
        sleep=time.sleep,
    )


def queue(db: Database, texts: list[str], channel: str = "telegram", **more: Any) -> None:
    """Queue texts under keys of their own; `more` goes to Message but for `expires_ms`."""
    expires_ms = more.pop("expires_ms", None)
    n = db.value("SELECT count(*) FROM outbox")
    found = [
        Message(dedupe_key=f"{n + i}", kind="test", text=text, **more)
        for i, text in enumerate(texts)
    ]
    with db.write():
        queue_messages(db, found, channels=[channel], created_ms=0, expires_ms=expires_ms)


def one_round(
    db: Database, sink: Sink, wall_ms: int = 0, *, channel: str = "telegram", **more: Any
) -> SendReport:
    """One round with jitter at its middle and a clock that stands still."""
    options: dict[str, Any] = {"n": 1000, "jitter": lambda: 0.5, "monotonic": lambda: 0.0}
    return send_waiting(db, settings(), {channel: sink}, wall_ms=wall_ms, **{**options, **more})


def until_empty(db: Database, sink: Sink, *, channel: str = "telegram") -> int:
    """Rounds until nothing waits, jumping from wait to wait; returns the wall time then."""
    wall_ms = 0
    for _ in range(2000):
        report = one_round(db, sink, wall_ms, channel=channel)
        if channel not in report.next_wall_ms:
            return wall_ms
        assert report.next_wall_ms[channel] > wall_ms
        wall_ms = report.next_wall_ms[channel]
    raise AssertionError("the outbox does not empty")


def states(db: Database) -> list[str]:
    """The states of the outbox, in its order."""
    return [str(state) for (state,) in db.rows("SELECT state FROM outbox ORDER BY id")]


def unmarked(text: str) -> str:
    """A message without the mark of a repeat."""
    return text.removeprefix(f"{REPEAT}\n")


class Watched:
    """A sink that counts, for each text, how often its sender was left in doubt."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.doubts: Counter[str] = Counter()

    def check(self) -> None:
        """As the sink itself."""
        self.sink.check()

    def send(self, text: str, *, silent: bool, reply_to: str | None = None) -> Sent:
        try:
            return self.sink.send(text, silent=silent, reply_to=reply_to)
        except DoubtError:
            self.doubts[unmarked(plain(text))] += 1
            raise


class Killed(BaseException):
    """The process is gone."""


class Recorder:
    """A sink that takes everything, and dies before or after it where told."""

    def __init__(self, deaths: dict[int, str]) -> None:
        self.texts: list[str] = []
        self.deaths = deaths
        self.attempt = itertools.count()

    def check(self) -> None:
        """Always there."""

    def send(self, text: str, *, silent: bool, reply_to: str | None = None) -> Sent:
        del silent, reply_to
        how = self.deaths.get(next(self.attempt))
        if how == "before":
            raise Killed
        self.texts.append(text)
        if how == "after":
            raise Killed
        return Sent(None)
