"""The laws of commands: each carried out once, only for the owner, and a pause is a fact."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from core.app import App
from core.delivery import is_paused
from core.jobs import commands
from core.jobs.scheduler import beside
from core.messages import WIDTH, plain
from core.notify import BotApi, ChannelError, Inbox, inbox_of
from core.store import operation
from core.store.operation import pauses, set_paused, write_clock
from core.store.signals import record_strategy
from core.timeframe import DAY_MS, HOUR_MS
from tests.config_keys import turned
from tests.engine_world import opened, write_config
from tests.outbox_world import CANARY, Killed
from tests.telegram_server import Bot, bot_server
from tests.tiny_database import T0, add

NOW = T0 + 3 * DAY_MS
TELEGRAM: dict[str, Any] = {
    "enabled": True,
    "bot_token": CANARY,
    "chat_id": 42,
    "api_base": "http://127.0.0.1:9",
    "commands": True,
}


@pytest.fixture
def bot() -> Iterator[Bot]:
    """A Bot API to which people write."""
    with bot_server(CANARY) as server:
        yield server


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """An engine with an open, a waiting and some closed signals."""
    config = write_config(
        tmp_path,
        exchange={"id": "replay"},
        symbols=["A/USDT", "B/USDT"],
        timeframes=["1h"],
        notify={"telegram": TELEGRAM},
    )
    made = opened(config)
    strategy = record_strategy(made.db, made.config, now_ms=T0)
    write_clock(made.db, market_ms=NOW, wall_ms=NOW, speed=1.0)
    add(made.db, strategy, 0.5)
    add(made.db, strategy, 1, status="TP", r_multiple=1.4)
    still: dict[str, Any] = {"closed_ts_ms": None, "exit_price": None, "r_multiple": None}
    add(made.db, strategy, 2, status="OPEN", **still)
    add(made.db, strategy, 2.5, status="PENDING", opened_ts_ms=None, **still)
    made.db.run("UPDATE signals SET exchange = 'replay'")
    yield made
    made.close()


def inbox(bot: Bot, *, read_s: float = 30.0) -> Inbox:
    """The bot's inbox as a process sees it that has just begun."""
    api = BotApi(requests.Session(), api_base=bot.base, token=CANARY, timeouts_s=(9.0, read_s))
    return Inbox(api, chat_id="42")


def polled(app: App, bot: Bot) -> int:
    """One poll by a process that has just begun."""
    return commands.poll_once(app, inbox(bot), wait_s=0)


def answered(app: App) -> list[str]:
    """What was answered, in order."""
    return [plain(text) for (text,) in app.db.rows("SELECT text FROM outbox ORDER BY id")]


@pytest.mark.parametrize(
    ("asked", "begins", "holds"),
    [
        ("/status", "STATUS\nUNGATED", "Open 1, waiting for entry 1"),
        ("/signals", "LONG A/USDT\n#S3 · 1h limit · PAPER", "waits for its entry until"),
        ("/signal 2", "LONG A/USDT\n#S2 ", "TP, net +1.40 R"),
        ("/signal #S3", "LONG A/USDT\n#S3 ", "OPEN"),
        ("/signal", "Which one? Ask like /signal 123.", ""),
        ("/signal ²", "There is no signal ²", ""),
        ("/why a", "A/USDT\nsince 2025-01-03 00:00 UTC", "candidates: 2\ntold PAPER: 2"),
        ("/why", "Ask like /why A.", ""),
        ("/performance", "PERFORMANCE\n\nLIVE: no trade closed yet", "PAPER: 2 closed, +0.30 R"),
        ("/pause", "PAUSED\n", "/resume ends it"),
        ("/resume", "It was not paused.", ""),
        ("/help", "/status\n", "/why SYMBOL"),
        ("/STATUS@my_bot", "STATUS\n", ""),
        ("/nonsense <b>", "I do not know /nonsense.\n", "/performance"),
    ],
)
def test_each_command_is_answered(asked: str, begins: str, holds: str, app: App, bot: Bot) -> None:
    """To the owner's chat, in lines that fit, by the outbox of Telegram alone."""
    bot.write(7, asked)
    assert polled(app, bot) == 1
    (text,) = answered(app)
    assert text.startswith(begins)
    assert holds in text
    assert all(len(line) <= WIDTH for line in text.split("\n"))
    assert app.db.rows("SELECT channel, kind FROM outbox") == [("telegram", "answer")]


def test_strangers_are_counted_and_get_no_answer(app: App, bot: Bot) -> None:
    """Nor does chatter in the owner's own chat; neither comes again, nor holds up a command."""
    bot.write(1, "/pause", chat=66)
    bot.write(2, "good morning")
    bot.inbox.append({"update_id": 3, "edited_message": {"text": "/pause"}})
    bot.inbox.append({"update_id": 4, "message": {"chat": {"id": 42}, "sticker": {}}})
    bot.write(5, "/status")
    asked = inbox(bot)
    assert commands.poll_once(app, asked, wait_s=0) == 1
    assert commands.poll_once(app, asked, wait_s=0) == 0
    assert not bot.inbox
    assert len(answered(app)) == 1
    assert operation.label_of(app.db, "foreign_messages") == "2"
    assert pauses(app.db) == []


def test_only_messages_are_asked_for_and_offsets_only_confirm(app: App, bot: Bot) -> None:
    """After a quiet week Telegram's numbers begin anew: a lower one must not be hidden."""
    asked = inbox(bot)
    bot.write(900, "/pause")
    assert commands.poll_once(app, asked, wait_s=0) == 1
    assert commands.poll_once(app, asked, wait_s=3) == 0
    bot.write(5, "/resume")
    assert commands.poll_once(app, asked, wait_s=0) == 1
    assert [one.get("offset") for one in bot.polled] == [None, 901, None]
    assert bot.polled[1]["timeout"] == 3
    assert bot.polled[0]["allowed_updates"] == ["message"]


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_process_carries_out_each_command_once(
    seed: int, app: App, bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before or after a commit, before the server knows: none is lost, none comes twice."""
    chance = random.Random(seed)
    words = [chance.choice(["/pause", "/resume", "/status"]) for _ in range(12)]
    for number, word in enumerate(words):
        bot.write(number, word)
    queue = operation.queue_messages
    confirm = Inbox.confirm

    def before(*args: Any, **more: Any) -> int:
        if chance.random() < 0.25:
            raise Killed
        return queue(*args, **more)

    def after(*args: Any) -> None:
        if chance.random() < 0.25:
            raise Killed
        confirm(*args)

    monkeypatch.setattr(operation, "queue_messages", before)
    monkeypatch.setattr(Inbox, "confirm", after)
    n_kills = 0
    while bot.inbox:
        try:
            asked = inbox(bot)
            for _ in range(3):
                commands.poll_once(app, asked, wait_s=0)
        except Killed:
            n_kills += 1
    assert n_kills
    assert [word for (word,) in app.db.rows("SELECT command FROM commands")] == words
    assert len(answered(app)) == len(words)
    changes = [word for word in words if word != "/status"]
    begun = sum(
        word == "/pause" and (i == 0 or changes[i - 1] != "/pause")
        for i, word in enumerate(changes)
    )
    assert len(pauses(app.db)) == begun


def test_an_outage_loses_no_command(app: App, bot: Bot) -> None:
    """Wrong token, a second reader, a proxy's page, silence: later it is there."""
    bot.write(1, "/status")
    bot.polls.extend(["401", "409", "429:3", "html", "reset", "hang"])
    for _ in range(6):
        with pytest.raises(ChannelError):
            commands.poll_once(app, inbox(bot, read_s=0.5), wait_s=0)
    assert polled(app, bot) == 1


def test_a_question_that_fails_is_answered_and_not_asked_again(app: App, bot: Bot) -> None:
    """A damaged row: a sentence, and the next command is carried out."""
    app.db.run("UPDATE signals SET why = 'damaged' WHERE id = 2")
    bot.write(1, "/signal 2")
    bot.write(2, "/status")
    assert polled(app, bot) == 2
    first, second = answered(app)
    assert first.startswith("That could not be answered")
    assert second.startswith("STATUS")


@pytest.mark.parametrize("seed", range(20))
def test_a_pause_is_what_the_scan_saw(seed: int, app: App) -> None:
    """However stale the clock of the command: no decision was told otherwise than its pauses say.

    So a retro-scan, which knows the pauses alone, gives every row the delivery it got.
    """
    chance = random.Random(seed)
    app.db.run("DELETE FROM features")
    app.db.run("DELETE FROM signals")
    seen: dict[int, bool] = {}
    step, step_ms = 0, DAY_MS // 1024  # parts of a day that floats hold exactly
    for _ in range(120):
        step += chance.randint(0, 2)
        decided = T0 + step * step_ms
        if chance.random() < 0.5 and decided not in seen:
            with app.db.write():
                seen[decided] = is_paused(pauses(app.db), decided)
                add(app.db, app.strategy, step / 1024)
        elif chance.random() < 0.4:
            stale_ms = decided - chance.randint(0, 90_000)
            with app.db.write():
                set_paused(app.db, chance.random() < 0.5, now_ms=stale_ms)
            step += 1
    assert len(pauses(app.db)) > 2
    assert {at: is_paused(pauses(app.db), at) for at in seen} == seen
    assert len(set(seen.values())) == 2


def test_pausing_twice_is_pausing_once(app: App) -> None:
    """And resuming what was not paused changes nothing."""
    with app.db.write():
        assert not set_paused(app.db, False, now_ms=NOW)
        assert set_paused(app.db, True, now_ms=NOW)
        assert not set_paused(app.db, True, now_ms=NOW + HOUR_MS)
        assert set_paused(app.db, False, now_ms=NOW + 2 * HOUR_MS)
    assert pauses(app.db) == [(NOW + 1, NOW + 2 * HOUR_MS + 1)]


def test_nobody_listens_unless_told_to(app: App) -> None:
    """Off by default, without Telegram, and in a copied database, where another one listens."""
    for changes in ({"commands": False}, {"enabled": False}):
        assert inbox_of(turned("notify.telegram", TELEGRAM | changes)) is None
    app.muted = True
    assert commands.listen(app, beside(app), stop=threading.Event()) is None


@contextmanager
def listening(app: App) -> Iterator[None]:
    """An engine that takes commands as it runs."""
    stop = threading.Event()
    thread = commands.listen(app, beside(app), stop=stop)
    assert thread is not None
    try:
        yield
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


def until(holds: Callable[[], Any]) -> None:
    """Wait for something to come true."""
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def edited(app: App, **changes: Any) -> None:
    """The settings in force are others, as an edit of the file makes them."""
    config = turned("notify.telegram", TELEGRAM | changes)
    app.config = app.config.model_copy(update={"notify": config.notify})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long between looks."""
    monkeypatch.setattr(commands, "_IDLE_S", 0.01)


@pytest.mark.usefixtures("quick")
def test_edits_are_taken_while_it_listens(app: App, bot: Bot) -> None:
    """Off, on, a chat that may command no longer, another that may, off: without a restart."""
    edited(app, api_base=bot.base, commands=False)
    bot.write(1, "/help")
    with listening(app):
        edited(app, api_base=bot.base, commands=False, link_template="https://x/{symbol}")
        assert bot.polled == []
        edited(app, api_base=bot.base)
        until(lambda: len(answered(app)) == 1)
        until(lambda: not bot.inbox)
        edited(app, api_base=bot.base, chat_id=43)
        bot.write(2, "/pause", chat=42)
        bot.write(3, "/help", chat=43)
        until(lambda: len(answered(app)) == 2)
        until(lambda: not bot.inbox)
        assert pauses(app.db) == []
        edited(app, api_base=bot.base, commands=False)
        n_polled = len(bot.polled)
        bot.write(4, "/pause", chat=43)
        time.sleep(0.1)
    assert len(bot.polled) <= n_polled + 1
    assert pauses(app.db) == []


@pytest.mark.usefixtures("quick")
def test_what_comes_while_the_chat_changes_is_not_obeyed(app: App, bot: Bot) -> None:
    """A poll under way has the old allow-list: its commands come again, and are a stranger's."""
    edited(app, api_base=bot.base)
    bot.write(1, "/pause", chat=42)
    bot.write(2, "/help", chat=43)
    answer = bot.updates

    def updates(payload: dict[str, Any]) -> dict[str, Any]:
        edited(app, api_base=bot.base, chat_id=43)
        return answer(payload)

    bot.updates = updates  # type: ignore[method-assign]
    with listening(app):
        until(lambda: not bot.inbox)
    assert pauses(app.db) == []
    assert len(answered(app)) == 1
    assert operation.label_of(app.db, "foreign_messages") == "1"


@pytest.mark.usefixtures("quick")
def test_a_mended_token_is_used_at_once(app: App, bot: Bot) -> None:
    """Also while it rests after the refusal of the old one."""
    edited(app, api_base=bot.base, bot_token=f"{CANARY}x")
    bot.write(1, "/help")
    with listening(app):
        until(lambda: bot.n_connections)
        edited(app, api_base=bot.base)
        until(lambda: len(answered(app)) == 1)


def test_the_listening_thread_answers_and_ends(app: App, bot: Bot) -> None:
    """What is written is taken without anybody's doing; after `stop` nothing is."""
    edited(app, api_base=bot.base)
    bot.write(1, "/help")
    with listening(app):
        until(lambda: not bot.inbox)
    bot.write(2, "/help")
    assert len(answered(app)) == 1
    assert len(bot.inbox) == 1
