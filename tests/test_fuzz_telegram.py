"""Whatever comes from Telegram: strangers change nothing, and nothing odd holds up the owner."""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from core.app import App
from core.jobs import commands
from core.messages import plain
from core.notify import BotApi, ChannelError, Inbox
from core.notify.chats import seen_chat
from core.store import operation
from core.store.operation import pauses, write_clock
from core.store.signals import record_strategy
from core.timeframe import DAY_MS
from tests.engine_world import opened, write_config
from tests.mutations import MORE, ODD, TEXTS, bent, contents, mutated, refused
from tests.tiny_database import T0, add

WORDS = ("/status", "/signals", "/signal", "/why", "/performance", "/help", "/start", "/", "/x")
ARGUMENTS = (*TEXTS, "1", "#S1", "S" * 50, "-1", "9" * 15, "A", "A/USDT", "a b c", "<b>", "@bot")
TOLD = ("outbox", "commands", "labels", "job_runs")  # what an answer may change


class Answer:
    """What `requests` returns, of a body made by hand."""

    reason = "OK"

    def __init__(self, body: bytes, status: int = 200) -> None:
        self.body, self.status_code = body, status

    def json(self) -> Any:
        return json.loads(self.body)


class Line(requests.Session):
    """A connection that gives the prepared answers, one for each call, then empty ones."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: deque[Answer] = deque()

    def post(self, *_: Any, **__: Any) -> Any:
        return self.answers.popleft() if self.answers else Answer(b'{"ok": true, "result": []}')

    def told(self, *updates: Any) -> None:
        """Let the next call return these updates."""
        self.answers.append(Answer(json.dumps({"ok": True, "result": list(updates)}).encode()))


@pytest.fixture
def line() -> Line:
    """A connection."""
    return Line()


@pytest.fixture
def inbox(line: Line) -> Inbox:
    """The inbox at the end of it."""
    return Inbox(BotApi(line, api_base="http://127.0.0.1:9", token="1:x"), chat_id="42")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """An engine with a closed and an open signal."""
    config = write_config(
        tmp_path_factory.mktemp("telegram"),
        exchange={"id": "replay"},
        symbols=["A/USDT"],
        timeframes=["1h"],
    )
    made = opened(config)
    strategy = record_strategy(made.db, made.config, now_ms=T0)
    write_clock(made.db, market_ms=T0 + 3 * DAY_MS, wall_ms=T0, speed=1.0)
    add(made.db, strategy, 1)
    add(made.db, strategy, 2, status="OPEN", closed_ts_ms=None, exit_price=None, r_multiple=None)
    made.db.run("UPDATE signals SET exchange = 'replay'")
    yield made
    made.close()


def message(number: Any, text: Any, *, chat: Any = 42) -> dict[str, Any]:
    """An update as Telegram sends it."""
    return {
        "update_id": number,
        "message": {
            "message_id": 7,
            "date": 1_700_000_000,
            "from": {"id": chat, "is_bot": False, "first_name": "O"},
            "chat": {"id": chat, "type": "private", "first_name": "O"},
            "text": text,
        },
    }


def truth(app: App) -> dict[str, str]:
    """All tables but those that answers go into."""
    return {name: digest for name, digest in contents(app.db).items() if name not in TOLD}


def n_answers(app: App) -> int:
    """How many messages have been queued."""
    return int(app.db.value("SELECT count(*) FROM outbox"))


def polled(app: App, inbox: Inbox, line: Line) -> str:
    """Poll once, as the thread does; returns what was said of an answer that is none."""
    return refused(lambda: commands.poll_once(app, inbox, wait_s=0))


def odd_updates(app: App, inbox: Inbox, line: Line, cases: range) -> None:
    """Bent updates, and among them the owner's question, which is answered in the same poll."""
    before = truth(app)
    for number in cases:
        chance = random.Random(number)
        first = 10 * number + 10**6
        good = [
            message(first, "/help", chat=chance.choice((42, 66))),
            {"update_id": first + 1, "callback_query": {"id": "1", "data": "/pause"}},
            {"update_id": first + 2, "edited_message": message(1, "/pause")["message"]},
        ]
        line.told(*[bent(one, chance) for one in good], message(first + 9, "/signal 1"))
        assert polled(app, inbox, line) == ""
        assert operation.is_taken(app.db, first + 9)
    assert truth(app) == before


def test_an_odd_update_does_not_hold_up_the_owner(app: App, inbox: Inbox, line: Line) -> None:
    """Wrong types, missing fields, other chats, edits and buttons: passed over or answered."""
    odd_updates(app, inbox, line, range(150))


@pytest.mark.long
def test_many_odd_updates_do_not_hold_up_the_owner(app: App, inbox: Inbox, line: Line) -> None:
    """The same with more of them."""
    odd_updates(app, inbox, line, range(150, 150 + 150 * MORE))


@pytest.mark.parametrize("number", [None, "7", -1, 2**63, 10**400, 7.5, [7]])
def test_updates_that_cannot_be_confirmed_are_waited_out(
    app: App, inbox: Inbox, line: Line, number: Any
) -> None:
    """They would come again at once, and again: a channel error pauses the next poll."""
    before = contents(app.db)
    line.told(message(number, "/pause"), {"message": {}}, None)
    assert "no update that has a number" in polled(app, inbox, line)
    assert contents(app.db) == before


def odd_answers(app: App, inbox: Inbox, line: Line, cases: range) -> int:
    """Answers that are none, whole or in pieces; returns how many were refused."""
    before, n_refused = contents(app.db), 0
    whole = {"ok": True, "result": [], "parameters": {"retry_after": 3}, "description": "no"}
    for number in cases:
        chance = random.Random(number)
        body = json.dumps(bent(whole, chance)).encode()
        if chance.random() < 0.4:
            body = mutated(json.dumps(whole).encode(), chance)
        line.answers.append(Answer(body, chance.choice((200, 200, 400, 403, 408, 429, 500))))
        n_refused += bool(polled(app, inbox, line))
        line.answers.clear()
    assert contents(app.db) == before
    return n_refused


def test_an_answer_that_is_none_is_a_channel_error(app: App, inbox: Inbox, line: Line) -> None:
    """Half a body, another shape, a wait that is no number: tried again later."""
    assert odd_answers(app, inbox, line, range(200)) > 50


@pytest.mark.long
def test_many_answers_that_are_none_are_channel_errors(app: App, inbox: Inbox, line: Line) -> None:
    """The same with more of them."""
    assert odd_answers(app, inbox, line, range(200, 200 + 200 * MORE)) > 1000


@pytest.mark.parametrize("wait", [float("nan"), float("inf"), -5, 10**400, True, "3", [3], 1e300])
def test_a_wait_that_is_no_number_of_seconds_is_none(line: Line, wait: Any) -> None:
    """Nobody waits for ever, nor less than nothing."""
    body = {"ok": False, "description": "slow", "parameters": {"retry_after": wait}}
    line.answers.append(Answer(json.dumps(body).encode(), 429))
    with pytest.raises(ChannelError) as caught:
        BotApi(line, api_base="http://127.0.0.1:9", token="1:x").call("getMe", {})
    after_s = getattr(caught.value, "after_s", None)
    assert after_s is None or 0 <= after_s <= 86_400


@pytest.mark.parametrize("body", [b"[" * 100_000, b"9" * 5000, b"\xff\xfe", b"NaN", b'"x"', b""])
def test_a_body_that_cannot_be_read_is_a_channel_error(
    app: App, inbox: Inbox, line: Line, body: bytes
) -> None:
    """Too deep, a number alone, no text."""
    line.answers.append(Answer(body))
    assert polled(app, inbox, line)


def test_every_argument_is_answered_in_plain_lines(app: App, inbox: Inbox, line: Line) -> None:
    """10 000 characters, SQL, markup, minus one: one answer each, the books stay as they are."""
    before, number = truth(app), 10**8
    for word in WORDS:
        for argument in ARGUMENTS:
            number += 1
            n_before = n_answers(app)
            line.told(message(number, f"{word} {argument}"))
            assert polled(app, inbox, line) == ""
            assert n_answers(app) == n_before + 1
    assert truth(app) == before
    texts = [text for (text,) in app.db.rows("SELECT text FROM outbox")]
    assert max(map(len, texts)) <= 4096
    assert not any("<html>" in text or "could not be answered" in plain(text) for text in texts)


@pytest.mark.parametrize("chat", [66, "42 ", "042", 42.5, None, True, [42], {"id": 42}, "", -42])
def test_nobody_else_commands(app: App, inbox: Inbox, line: Line, chat: Any) -> None:
    """A chat that is nearly the owner's is not the owner's."""
    before = pauses(app.db)
    line.told(message(5, "/pause", chat=chat))
    assert polled(app, inbox, line) == ""
    assert pauses(app.db) == before
    assert not operation.is_taken(app.db, 5)


def test_whoever_wrote_last_is_found_among_odd_updates(line: Line) -> None:
    """Setting up: no update stops the search, and what is found is a chat."""
    api = BotApi(line, api_base="http://127.0.0.1:9", token="1:x")
    for number in range(200):
        line.told(message(1, "hello"), bent(message(2, "hello", chat=43), random.Random(number)))
        found = seen_chat(api, for_s=0, sleep=lambda _: None)
        assert found is not None
        assert int(found.chat_id)
    for odd in ODD:
        line.answers.append(Answer(json.dumps({"ok": True, "result": odd}).encode()))
        assert refused(lambda: seen_chat(api, for_s=0, sleep=lambda _: None)) == ""
