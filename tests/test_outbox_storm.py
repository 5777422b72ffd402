"""The outbox in bad weather: every fault at once and kills in between, through a real server.

Nothing is lost, repeats are marked and come only after doubt, each signal's story keeps its order.
"""

from __future__ import annotations

import random
import threading
from argparse import Namespace
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.app import settle_home, wall_ms
from core.config import Config, config_from
from core.domain import Message, no_progress
from core.jobs import maintain, tools
from core.jobs.scheduler import Sending
from core.messages import plain
from core.notify import REPEAT, ChannelError, DoubtError, LaterError, Sent, Sink
from core.store import open_database
from core.store.db import Database
from core.store.operation import end_leases, queue_messages, rest_of
from tests.engine_world import opened, write_config
from tests.figures import Record
from tests.outbox_world import (
    CANARY,
    Killed,
    Recorder,
    one_round,
    queue,
    states,
    telegram,
    unmarked,
    until_empty,
)
from tests.telegram_server import Bot, bot_server
from tests.tiny_database import add, tiny

VICES = ["ok"] * 24 + [
    "429:7",
    "429:60",
    "500",
    "500",
    "html",
    "reset",
    "late_reset",
    "hang",
    "400",
]
EACH = 4  # messages of a signal


@pytest.fixture
def bot() -> Iterator[Bot]:
    """A Bot API that accepts everything until it is given a script."""
    with bot_server(CANARY) as server:
        yield server


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """An empty database."""
    with open_database(tmp_path / "test.db") as database:
        yield database


class Mortal:
    """A sink whose process dies before or after some attempts; it counts what left doubt."""

    def __init__(self, sink: Sink, deaths: dict[int, str]) -> None:
        self.sink, self.deaths = sink, deaths
        self.n_attempts = self.n_kills = 0
        self.doubts: Counter[str] = Counter()

    def check(self) -> None:
        self.sink.check()

    def send(self, text: str, *, silent: bool, reply_to: str | None = None) -> Sent:
        how, self.n_attempts = self.deaths.get(self.n_attempts), self.n_attempts + 1
        try:
            sent = None if how == "before" else self._sent(text, silent, reply_to, how)
        except DoubtError:
            self.doubts[unmarked(plain(text))] += 1
            raise
        if sent is None:
            self.doubts[unmarked(plain(text))] += 1
            self.n_kills += 1
            raise Killed
        return sent

    def _sent(self, text: str, silent: bool, reply_to: str | None, how: str | None) -> Sent | None:
        """What the sink says, unless nobody is there any more to hear it."""
        try:
            sent = self.sink.send(text, silent=silent, reply_to=reply_to)
        except ChannelError:
            if how == "after":
                return None
            raise
        return None if how == "after" else sent


def stories(path: Path, n: int) -> list[str]:
    """Queue messages, `EACH` of a signal, as they come over time: mixed."""
    db, strategy = tiny(path)
    texts = []
    with db, db.write():
        numbers = [add(db, strategy, i / 16) for i in range(n // EACH)]
        mixed = [number for number in numbers for _ in range(EACH)]
        random.Random(n).shuffle(mixed)
        told: Counter[int] = Counter()
        for i, number in enumerate(mixed):
            told[number] += 1
            texts.append(f"<b>#S{number}</b> part {told[number]}")
            message = Message(dedupe_key=f"m{i}", kind="test", text=texts[-1], signal_id=number)
            queue_messages(db, [message], channels=["telegram"], created_ms=0)
    return [plain(text) for text in texts]


def weathered(path: Path, bot: Bot, *, n: int, n_kills: int, seed: int) -> tuple[Mortal, list[str]]:
    """Send `n` messages through every vice and so many kills; returns the sink and the texts."""
    chance = random.Random(seed)
    texts = stories(path, n)
    for vice in (chance.choice(VICES) for _ in range(2 * n)):
        bot.script.extend([vice, "ok"] if vice == "400" else [vice])  # plain text is accepted
    bot.checks.extend(chance.choice(["ok", "ok", "500", "reset"]) for _ in range(n // 4))
    deaths = {at: chance.choice(["before", "after"]) for at in chance.sample(range(n), n_kills)}
    sink = Mortal(telegram(bot.base, read_s=0.3), deaths)
    while True:
        with open_database(path) as db:
            end_leases(db)  # as every start does
            try:
                until_empty(db, sink)
            except Killed:
                continue
            assert set(states(db)) <= {"sent", "dead"}
            return sink, texts


def check_weathered(sink: Mortal, texts: list[str], bot: Bot) -> None:
    """All arrived, each signal's in order, and only what was in doubt more than once, marked."""
    got = [plain(payload["text"]) for payload in bot.accepted]
    copies: dict[str, list[str]] = defaultdict(list)
    for said in got:
        copies[unmarked(said)].append(said)
    assert set(copies) == set(texts), "lost or invented"
    first = list(dict.fromkeys(map(unmarked, got)))
    for signal in {text.partition(" ")[0] for text in texts}:
        own = [text for text in first if text.partition(" ")[0] == signal]
        assert own == sorted(own), own
    for text, came in copies.items():
        assert len(came) <= 1 + sink.doubts[text]
        assert all(one.startswith(REPEAT) for one in came[1:])
        assert sink.doubts[text] or not came[0].startswith(REPEAT)


@pytest.mark.small
@pytest.mark.parametrize("seed", [1, 2])
def test_a_storm_with_kills_loses_nothing(seed: int, tmp_path: Path, bot: Bot) -> None:
    """100 messages, 5 kills."""
    sink, texts = weathered(tmp_path / "x.db", bot, n=100, n_kills=5, seed=seed)
    assert sink.n_kills == 5
    check_weathered(sink, texts, bot)


@pytest.mark.long
def test_a_long_storm_with_kills_loses_nothing(
    tmp_path: Path, bot: Bot, record_property: Record
) -> None:
    """1000 messages, 50 kills."""
    sink, texts = weathered(tmp_path / "x.db", bot, n=1000, n_kills=50, seed=3)
    assert sink.n_kills == 50
    check_weathered(sink, texts, bot)
    n_copies = len(bot.accepted) - len(texts)
    record_property("messages", f"{len(texts):,}, lost 0, repeated {n_copies}, all marked")


def signalled(db: Database, n: int) -> list[int]:
    """Some signals to speak of."""
    made, strategy = tiny(db.path)
    with made:
        return [add(made, strategy, i / 16) for i in range(n)]


def test_who_is_sending_is_not_disturbed(db: Database) -> None:
    """Its signal waits for the lease, others go on; when it is over the message is in doubt."""
    one, two = signalled(db, 2)
    queue(db, ["a1", "a2"], signal_id=one)
    queue(db, ["b"], signal_id=two)
    db.run("UPDATE outbox SET state = 'sending', attempts = 1, lease_wall_ms = 5000 WHERE id = 1")
    sink = Recorder({})
    report = one_round(db, sink, 4999)
    assert sink.texts == ["b"]
    assert report.next_wall_ms == {"telegram": 5000}
    one_round(db, sink, 5000)
    assert sink.texts == ["b", f"{REPEAT}\na1", "a2"]


def test_a_message_is_claimed_before_it_goes_out(db: Database) -> None:
    """While it is on its way it is leased to its sender, longer than it can take."""
    seen: list[tuple[str, int]] = []

    class Looking(Recorder):
        def send(self, text: str, *, silent: bool, reply_to: str | None = None) -> Sent:
            seen.append(db.rows("SELECT state, lease_wall_ms FROM outbox")[0])
            return super().send(text, silent=silent, reply_to=reply_to)

    queue(db, ["a"])
    one_round(db, Looking({}), 1000)
    assert seen == [("sending", 91_000)]


def test_two_processes_send_everything_once(db: Database, bot: Bot) -> None:
    """Both empty the same outbox at the same time: no message is taken twice."""
    signals = signalled(db, 10)
    for i in range(40):
        queue(db, [f"m{i}"], signal_id=signals[i % 10])

    def empty() -> None:
        with open_database(db.path) as own:
            for _ in range(20):
                one_round(own, telegram(bot.base, read_s=30.0))

    threads = [threading.Thread(target=empty) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one["text"] for one in bot.accepted) == sorted(f"m{i}" for i in range(40))
    assert states(db) == ["sent"] * 40


def test_a_start_knows_that_whoever_was_sending_is_gone(tmp_path: Path) -> None:
    """The scheduler does not wait for the leases of the one before it."""
    app = opened(write_config(tmp_path))
    queue(app.db, ["a"])
    app.db.run("UPDATE outbox SET state = 'sending', lease_wall_ms = 9999999999999")
    settle_home(app, take_over=False)
    assert one_round(app.db, Recorder({}), 0).n_sent == 1
    app.close()


@pytest.mark.parametrize(("step", "n_sent"), [("401", 2), ("429:30", 0)])
def test_a_test_message_tries_a_channel_that_was_mended(
    step: str, n_sent: int, tmp_path: Path, bot: Bot
) -> None:
    """After a wrong token nobody waits ten minutes to see whether it is right now; a 429 does."""
    keys = {"enabled": True, "bot_token": CANARY, "chat_id": 42, "api_base": bot.base}
    app = opened(write_config(tmp_path, notify={"console": False, "telegram": keys}))
    bot.script.append(step)
    queue(app.db, ["a"])
    one_round(app.db, telegram(bot.base), wall_ms())
    shown, ok = tools.run_tool(app, Namespace(step="notify-test"), progress=no_progress)
    app.close()
    assert ok
    assert shown == {"sent": n_sent}
    assert len(bot.accepted) == n_sent
    assert len(bot.seen) == 1 + n_sent


def test_one_bad_message_does_not_block_the_others(db: Database) -> None:
    """One that fails again and again: others pass it by, those of its own signal wait for it."""
    bad, good = signalled(db, 2)
    queue(db, ["bad"], signal_id=bad)
    queue(db, ["good"], signal_id=good)
    queue(db, ["after the bad one"], signal_id=bad)

    class Picky(Recorder):
        healed = False

        def send(self, text: str, *, silent: bool, reply_to: str | None = None) -> Sent:
            if text == "bad" and not self.healed:
                raise LaterError("500 Internal Server Error")
            return super().send(text, silent=silent, reply_to=reply_to)

    sink, wall_ms = Picky({}), 0
    for _ in range(8):
        wall_ms = one_round(db, sink, wall_ms).next_wall_ms["telegram"]
    assert sink.texts == ["good"]
    assert states(db) == ["pending", "sent", "pending"]
    sink.healed = True
    until_empty(db, sink)
    assert sink.texts == ["good", "bad", "after the bad one"]


def test_when_the_channel_is_well_again_nobody_waits_out_a_long_pause(db: Database) -> None:
    """After an outage of hours the first success lets the others be tried within a second."""
    first, second = signalled(db, 2)
    queue(db, ["old"], signal_id=first)
    db.run("UPDATE outbox SET attempts = 9, next_wall_ms = 290000")
    queue(db, ["new"], signal_id=second)
    sink = Recorder({})
    one_round(db, sink, 1000)
    assert sink.texts == ["new"]
    one_round(db, sink, 2000)
    assert sink.texts == ["new", "old"]


@pytest.mark.parametrize(("step", "rest_ms"), [("429:30", 30_500), ("401", 600_000)])
def test_a_channel_rests_as_a_whole_also_after_a_restart(
    step: str, rest_ms: int, tmp_path: Path, bot: Bot
) -> None:
    """No message of any signal is tried before its time; the reason is kept until then."""
    bot.script.append(step)
    path = tmp_path / "x.db"
    with open_database(path) as db:
        queue(db, ["a"])
        db.run("UPDATE outbox SET attempts = 9")  # would be passed by, were it the fault
        queue(db, ["b"], signal_id=signalled(db, 1)[0])
        assert one_round(db, telegram(bot.base)).next_wall_ms == {"telegram": rest_ms}
    with open_database(path) as db:
        assert one_round(db, telegram(bot.base), rest_ms - 1).n_sent == 0
        assert len(bot.seen) == 1
        assert rest_of(db, "telegram")[1].startswith(step[:3])
        assert one_round(db, telegram(bot.base), rest_ms).n_sent == 2
        assert rest_of(db, "telegram") == (0, "")


def test_the_doctor_says_why_a_channel_is_silent(tmp_path: Path, bot: Bot) -> None:
    """The reason, without the token."""
    keys = {"enabled": True, "bot_token": CANARY, "chat_id": 42, "api_base": bot.base}
    app = opened(write_config(tmp_path, notify={"telegram": keys}))
    queue(app.db, ["a"])
    bot.script.append("401")
    one_round(app.db, telegram(bot.base), 1 << 50)
    said = [what for _, what, _ in maintain.doctor(app) if what.startswith("telegram")]
    assert said == ["telegram takes no messages: 401 Unauthorized"]
    app.close()


def test_a_channel_that_was_mended_by_an_edit_is_tried_at_once(tmp_path: Path, bot: Bot) -> None:
    """A wrong token closes it for ten minutes; the running engine takes the right one and sends."""

    def wanted(token: str) -> Config:
        telegram = {"enabled": True, "bot_token": token, "chat_id": 42, "api_base": bot.base}
        return config_from({"notify": {"console": False, "telegram": telegram}})

    app = opened(write_config(tmp_path, symbols=["A/USDT"]))
    app.config = wanted(f"{CANARY}x")
    queue(app.db, ["hello"])
    sending = Sending(app)
    for _ in range(2):
        sending.round()
    assert rest_of(app.db, "telegram")[0] > wall_ms() + 60_000
    app.config = wanted(CANARY)
    sending.round()
    assert [message["text"] for message in bot.accepted] == ["hello"]
    assert rest_of(app.db, "telegram") == (0, "")
    sending.close()
    app.close()
