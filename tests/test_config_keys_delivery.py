"""Every key of the settings has an effect: what the owner is told, when, where and how."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from core.app import App
from core.cadence import DIGEST, PIPELINE, WEEKLY, next_due
from core.config import Config
from core.delivery import Decision
from core.domain import Delivery, Evidence, Gate, Side
from core.execution import Event
from core.jobs.guards import run_guards
from core.jobs.tell import queue_events, queue_new_signals
from core.notify import ClosedError, channels, inbox_of, sinks_of
from core.notify.deadman import sign_of_life
from core.store.signals import insert_signal, record_strategy, signal_of
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from tests.config_keys import shows, turned
from tests.engine_world import opened, write_config
from tests.telegram_server import bot_server
from tests.tiny_database import T0, add, tiny

TOKEN = "12345678:" + "t" * 35
OFF = {  # every guard, but the one that is turned
    "cooldown_minutes": 0,
    "max_open": 0,
    "max_open_per_side": 0,
    "max_consecutive_stops": 0,
    "stop_pause_hours": 0,
    "max_drawdown_r": 0,
}


def certified(hour: float, symbol: str = "A/USDT", **changes: Any) -> Decision:
    """A proven long, some hours after T0; it is still open unless its end is given."""
    values: dict[str, Any] = {
        "identity": ("x", symbol, "15m", "limit", "long", 1, int(hour * HOUR_MS)),
        "symbol": symbol,
        "side": Side.LONG,
        "decided_ms": T0 + int(hour * HOUR_MS),
        "gate": Gate.PASS,
        "evidence": Evidence.CERTIFIED,
        "ev_lo_pct": 0.5,
        "cost_r": 0.05,
    }
    return Decision(**values | changes)


def unproven(hour: float, symbol: str = "A/USDT", **changes: Any) -> Decision:
    """The same without a certificate."""
    return certified(hour, symbol, evidence=Evidence.UNCERTIFIED, **changes)


def stopped(hour: float, r: float = -1.0) -> Decision:
    """A proven one that was stopped half an hour later."""
    end = {"closed_ts_ms": T0 + int((hour + 0.5) * HOUR_MS), "r_multiple": r, "stopped": True}
    return certified(hour, f"S{hour}/USDT", **end)


def guarded(key: str, value: Any, rows: list[Decision]) -> list[str]:
    """Why each row is delivered as it is, with one guard turned and the others off."""
    return [why for _, why in run_guards(turned(f"guards.{key}", value, guards=OFF), rows)]


@shows("guards.cooldown_minutes")
def test_a_pair_is_quiet_for_a_while() -> None:
    """An hour after the last one: too soon for 90 minutes, not for 60."""
    rows = [certified(0), certified(1)]
    assert guarded("cooldown_minutes", 90, rows) == ["certified", "cooldown"]
    assert guarded("cooldown_minutes", 60, rows) == ["certified", "certified"]


@shows("guards.max_open", "guards.max_open_per_side")
def test_only_so_many_are_open_at_once() -> None:
    """A third one beside two; a short beside two longs takes a place of its own side."""
    rows = [certified(0, "A/USDT"), certified(1, "B/USDT"), certified(2, "C/USDT")]
    assert guarded("max_open", 2, rows)[-1] == "max_open"
    assert guarded("max_open", 3, rows)[-1] == "certified"
    assert guarded("max_open_per_side", 2, rows)[-1] == "max_open_per_side"
    short = [*rows[:2], certified(2, "C/USDT", side=Side.SHORT)]
    assert guarded("max_open_per_side", 2, short)[-1] == "certified"


@shows("guards.max_consecutive_stops", "guards.stop_pause_hours")
def test_stops_in_a_row_bring_a_pause() -> None:
    """After two stops six hours of it, not after three; twelve hours are longer."""
    for n, pause, hour, why in (
        (2, 6, 5, "stop_streak"),
        (3, 6, 5, "certified"),
        (2, 6, 9, "certified"),
        (2, 12, 9, "stop_streak"),
    ):
        guards = OFF | {"max_consecutive_stops": n, "stop_pause_hours": pause}
        config = turned("guards", guards)
        rows = [stopped(0), stopped(1), certified(hour)]
        assert run_guards(config, rows)[-1][1] == why


@shows("guards.max_drawdown_r")
def test_nothing_is_sent_so_far_below_the_peak() -> None:
    """2.5 R below."""
    rows = [stopped(0), stopped(1, -1.5), certified(9)]
    assert guarded("max_drawdown_r", 2.5, rows)[-1] == "drawdown"
    assert guarded("max_drawdown_r", 2.6, rows)[-1] == "certified"


@shows("guards.locked_symbols")
def test_a_locked_pair_is_never_sent() -> None:
    """The others are."""
    rows = [certified(0, "A/USDT"), certified(1, "B/USDT")]
    assert guarded("locked_symbols", ["A/USDT"], rows) == ["locked", "certified"]


@shows("notify.paper_per_day")
def test_so_many_of_the_best_are_shown_as_paper() -> None:
    """Each better than all before, twelve hours long: at most twice the number on one day."""
    rows = [unproven(hour, f"P{hour}/USDT", ev_lo_pct=float(hour)) for hour in range(12)]
    for n in (0, 1, 3):
        config = turned("notify.paper_per_day", n, guards=OFF)
        sent = [how for how, _ in run_guards(config, rows)]
        assert sent.count(Delivery.PAPER) == 2 * n


@shows("notify.telegram.send")
def test_what_is_sent_is_what_is_wanted() -> None:
    """The worst of four unproven ones: nothing, among the best one a day, or everything."""
    rows = [unproven(h, f"P{h}/USDT", ev_lo_pct=float(9 - h)) for h in range(4)]
    for send, n in (("certified", 0), ("paper", 1), ("all", 4)):
        notify = {"paper_per_day": 1}
        config = turned("notify.telegram.send", send, guards=OFF, notify=notify)
        assert [how for how, _ in run_guards(config, rows)].count(Delivery.PAPER) == n


@shows("notify.console", "notify.telegram.enabled")
def test_messages_go_to_the_channels_that_are_on() -> None:
    """Both, one, or none; then it is said why nothing was sent."""
    telegram = {"bot_token": TOKEN, "chat_id": "42"}
    for console, enabled in ((True, True), (True, False), (False, True), (False, False)):
        notify = {"console": console, "telegram": telegram | {"enabled": enabled}}
        config = turned("notify", notify)
        wanted = {name for name, on in (("console", console), ("telegram", enabled)) if on}
        assert set(channels(config)) == set(sinks_of(config)) == wanted
        assert (run_guards(config, [certified(0)])[0][1] == "muted") == (not wanted)


@shows("notify.telegram.api_base", "notify.telegram.bot_token", "notify.telegram.chat_id")
def test_telegram_is_reached_there_as_that_bot_in_that_chat() -> None:
    """The server of the address takes it, unless the bot is not the one it knows."""
    with bot_server(TOKEN) as bot:
        for chat in ("42", "-1007"):
            telegram_sink(bot.base, TOKEN, chat).send("hello", silent=False)
        assert [str(message["chat_id"]) for message in bot.accepted] == ["42", "-1007"]
        with pytest.raises(ClosedError):
            telegram_sink(bot.base, TOKEN.replace("t", "u"), "42").send("hello", silent=False)
    assert len(bot.accepted) == 2


@shows("notify.telegram.commands")
def test_commands_are_read_where_they_are_wanted() -> None:
    """From the bot's inbox; without the key nobody asks for it."""
    keys = {"enabled": True, "bot_token": TOKEN, "chat_id": "42"}
    with bot_server(TOKEN) as bot:
        bot.write(1, "/status")
        assert inbox_of(turned("notify.telegram", keys | {"api_base": bot.base})) is None
        assert not bot.polled
        wanted = keys | {"api_base": bot.base, "commands": True}
        inbox = inbox_of(turned("notify.telegram", wanted))
        assert inbox is not None
        assert [update.text for update in inbox.updates(wait_s=0)] == ["/status"]


def telegram_sink(base: str, token: str, chat: str) -> Any:
    """The sink of settings with this address, bot and chat."""
    keys = {"enabled": True, "api_base": base, "bot_token": token, "chat_id": chat}
    return sinks_of(turned("notify.telegram", keys))["telegram"]


@contextmanager
def told_signal(folder: Path, **settings: Any) -> Iterator[tuple[App, dict[str, Any]]]:
    """A new signal that was told, decided at midnight UTC and valid for a day."""
    app = opened(write_config(folder, **settings))
    strategy = record_strategy(app.db, app.config, now_ms=T0)
    with tiny(folder / "model.db")[0] as other:
        row = signal_of(other, add(other, strategy, 0))
    assert row is not None
    row = {key: value for key, value in row.items() if key != "id"} | {"delivery": "PAPER"}
    with app.db.write():
        number = insert_signal(app.db, row, np.zeros(2), version=1)
        queue_new_signals(app, [row | {"id": number}], now_ms=T0)
    yield app, row | {"id": number}
    app.close()


def first_message(folder: Path, **settings: Any) -> str:
    """The text that is queued for a new signal."""
    with told_signal(folder, **settings) as (app, _):
        return str(app.db.value("SELECT text FROM outbox"))


KINDS = ("filled", "tp1", "stop_moved", "expired", "cancelled", "closed")


@shows(*(f"notify.events.{kind}" for kind in KINDS))
@pytest.mark.parametrize("kind", KINDS)
def test_each_later_message_comes_as_loudly_as_wanted(kind: str, tmp_path: Path) -> None:
    """Of a LIVE row: with a sound, without one, or not at all; the others as they were."""
    changes = {"delivery": "LIVE", "pnl_pct": -1.0, "exit_reason": "stop", "tp1_hit": 0}
    events = [Event(kind=name, at_ms=T0 + i, price=100.0) for i, name in enumerate(KINDS)]
    for loudness, silent in (("on", [0]), ("silent", [1]), ("off", [])):
        notify = {"events": {kind: loudness}}
        with told_signal(tmp_path / loudness, notify=notify) as (app, row):
            with app.db.write():
                queue_events(app, row | changes, events)
            found = app.db.rows("SELECT kind, silent FROM outbox WHERE kind <> 'new_signal'")
            assert [flag for name, flag in found if name == kind] == silent
            assert {name for name, _ in found} | {kind} == set(KINDS)


def test_yaml_may_write_on_and_off_bare() -> None:
    """Which it reads as truth values."""
    events = turned("notify.events", {"filled": False, "expired": True}).notify.events
    assert (events.filled, events.expired, events.closed) == ("off", "on", "on")
    with pytest.raises(ValidationError):
        turned("notify.events.filled", "loud")


@shows("notify.telegram.link_template")
def test_a_signal_has_the_link_of_the_template(tmp_path: Path) -> None:
    """With the pair and timeframe filled in; none without a template."""
    template = "https://example.com/{base}{quote}?tf={timeframe}"
    notify = {"telegram": {"link_template": template}}
    text = first_message(tmp_path / "one", notify=notify)
    assert 'href="https://example.com/AUSDT?tf=1h"' in text
    assert "href" not in first_message(tmp_path / "two")


@shows("app.timezone")
def test_times_are_shown_in_the_zone(tmp_path: Path) -> None:
    """Midnight UTC is 09:00 in Tokyo."""
    for zone, hour in (("UTC", "00:00"), ("Asia/Tokyo", "09:00")):
        text = first_message(tmp_path / zone, app={"db_path": "x.db", "timezone": zone})
        (line,) = [line for line in text.splitlines() if line.startswith("Valid until")]
        assert hour in line


@shows("notify.digest_hour", "app.timezone")
def test_the_digest_is_due_at_its_hour_of_the_zone() -> None:
    """At 5 in Tokyo it is 20:00 UTC of the day before."""
    for zone, hour, utc in (("UTC", 8, 8), ("UTC", 5, 5), ("Asia/Tokyo", 5, 20)):
        config = turned("notify.digest_hour", hour, app={"timezone": zone})
        marks = dict.fromkeys((*PIPELINE, *WEEKLY), 1 << 60) | {DIGEST: T0}
        due = next_due(T0 + DAY_MS - MINUTE_MS, marks, config)
        assert due is not None
        assert (due.job, due.due_ms) == (DIGEST, T0 + utc * HOUR_MS)


@contextmanager
def listening(status: int) -> Iterator[tuple[str, list[str]]]:
    """A server that answers every GET so, and notes the paths."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Stay silent."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", paths
        finally:
            server.shutdown()
            thread.join()


@shows("notify.deadman_url")
def test_a_sign_of_life_is_sent_to_the_address(caplog: pytest.LogCaptureFixture) -> None:
    """One request to it; without an address none; a refusal or silence never raises."""
    with listening(200) as (base, paths):
        assert sign_of_life(turned("notify.deadman_url", f"{base}/ping/abcdef"))
        assert not sign_of_life(Config())
        assert paths == ["/ping/abcdef"]
    assert not caplog.records
    with listening(500) as (base, paths):
        assert not sign_of_life(turned("notify.deadman_url", f"{base}/ping/abcdef"))
        assert paths
    assert not sign_of_life(turned("notify.deadman_url", f"{base}/ping/abcdef"))
    assert len(caplog.records) == 2
    assert "abcdef" not in caplog.text
