"""The laws of the way out: nothing lost, repeats marked, order kept, secrets unseen."""

from __future__ import annotations

import io
import random
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.config import Config, config_from
from core.messages import plain
from core.notify import (
    REPEAT,
    ConsoleSink,
    DoubtError,
    LaterError,
    Sent,
    Sink,
    channels,
    send_waiting,
    sinks_of,
)
from core.store import open_database
from core.store.db import Database
from core.store.operation import set_label
from tests.message_world import row
from tests.outbox_world import (
    CANARY,
    FakeTime,
    Killed,
    Recorder,
    Watched,
    one_round,
    queue,
    settings,
    states,
    telegram,
    unmarked,
    until_empty,
)
from tests.telegram_server import DOUBTFUL, Bot, bot_server


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """An empty database."""
    with open_database(tmp_path / "test.db") as database:
        yield database


@pytest.fixture
def bot() -> Iterator[Bot]:
    """A Bot API that accepts everything until it is given a script."""
    with bot_server(CANARY) as server:
        yield server


@pytest.mark.parametrize("seed", [1, 2])
def test_under_every_vice_nothing_is_lost_and_repeats_are_marked(
    seed: int, db: Database, bot: Bot
) -> None:
    """100 messages: all arrive, first arrivals in order, a second copy only after doubt."""
    chance = random.Random(seed)
    vices = ["ok"] * 12 + ["429:7", "429:60", "500", "html", "reset", "late_reset", "hang", "400"]
    bot.script.extend(chance.choice(vices) for _ in range(250))
    bot.script.extend(["ok"] * 5)
    bot.script.appendleft("hang")
    bot.checks.extend(chance.choice(["ok", "ok", "500", "reset"]) for _ in range(20))
    texts = [f"<b>message {i}</b> of #S{i // 4}" for i in range(100)]
    queue(db, texts)
    sink = Watched(telegram(bot.base, read_s=0.4))
    until_empty(db, sink)

    got = [plain(payload["text"]) for payload in bot.accepted]
    wanted = [plain(text) for text in texts]
    assert list(dict.fromkeys(map(unmarked, got))) == wanted
    assert sink.doubts.total() >= sum(step in DOUBTFUL for step, _ in bot.seen) > 5
    assert len(got) > len(wanted)
    for text in wanted:
        own = [said for said in got if unmarked(said) == text]
        assert len(own) <= 1 + sink.doubts[text]
        assert all(said.startswith(REPEAT) for said in own[1:])
        assert sink.doubts[text] or not own[0].startswith(REPEAT)
    assert set(states(db)) <= {"sent", "dead"}


@pytest.mark.parametrize("seed", range(6))
def test_a_killed_process_loses_nothing(seed: int, tmp_path: Path) -> None:
    """Five kills between `sending` and the result: all arrive, each at most once unmarked.

    A kill costs a repeat only if the message was out, and the repeat is marked.
    """
    chance = random.Random(seed)
    deaths = {at: chance.choice(["before", "after"]) for at in chance.sample(range(30), 5)}
    deaths |= {0: "before", 1: "before"} if seed == 0 else {}  # the same message twice
    sink, path, n_kills = Recorder(deaths), tmp_path / "killed.db", 0
    with open_database(path) as db:
        queue(db, [f"m{i}" for i in range(30)])
    while True:
        with open_database(path) as db:
            try:
                until_empty(db, sink)
            except Killed:
                n_kills += 1
                continue
            assert states(db) == ["sent"] * 30
            break
    assert n_kills == len(deaths)
    assert list(dict.fromkeys(map(unmarked, sink.texts))) == [f"m{i}" for i in range(30)]
    n_after = sum(how == "after" for how in deaths.values())
    assert len(sink.texts) == 30 + n_after
    unmarked_copies = Counter(text for text in sink.texts if not text.startswith(REPEAT))
    assert set(unmarked_copies.values()) == {1}


def test_a_row_left_in_sending_is_printed_again_with_a_mark(db: Database) -> None:
    """The console after a crash: once more, marked, and then never again."""
    queue(db, ["<b>one</b>", "two"], channel="console")
    db.run("UPDATE outbox SET state = 'sending', attempts = 1 WHERE text = '<b>one</b>'")
    stream = io.StringIO()
    until_empty(db, ConsoleSink(stream), channel="console")
    until_empty(db, ConsoleSink(stream), channel="console")
    rule = "-" * 38
    assert stream.getvalue() == f"{rule}\n{REPEAT}\none\n{rule}\n{rule}\ntwo\n{rule}\n"


def test_a_429_pauses_the_whole_channel(db: Database, bot: Bot) -> None:
    """For retry_after and the jitter; what is queued meanwhile does not overtake."""
    bot.script.append("429:30")
    queue(db, ["a", "b"])
    sink = telegram(bot.base)
    assert one_round(db, sink).next_wall_ms == {"telegram": 30_500}
    queue(db, ["c"])
    assert one_round(db, sink, 30_499).n_sent == 0
    assert len(bot.seen) == 1
    assert one_round(db, sink, 30_500).n_sent == 3
    assert [payload["text"] for payload in bot.accepted] == ["a", "b", "c"]


def test_server_errors_are_retried_without_end_and_without_a_mark(db: Database, bot: Bot) -> None:
    """Twelve refusals: waits double up to five minutes, then it is sent as it was."""
    bot.script.extend(["500", "html"] * 6)
    queue(db, ["a"])
    sink, wall_ms, waits = telegram(bot.base), 0, []
    while report := one_round(db, sink, wall_ms):
        if report.n_sent:
            break
        waits.append(report.next_wall_ms["telegram"] - wall_ms)
        wall_ms += waits[-1]
    assert waits == [750 * s for s in (2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300)]
    assert [payload["text"] for payload in bot.accepted] == ["a"]


def test_an_unanswered_message_is_repeated_once(db: Database, bot: Bot) -> None:
    """Twice without an answer: given up, said to be doubtful, and the next message goes on."""
    bot.script.extend(["hang", "hang"])
    queue(db, ["a", "b"])
    until_empty(db, telegram(bot.base, read_s=0.3))
    texts = [payload["text"] for payload in bot.accepted]
    assert texts == ["a", f"{REPEAT}\na", "b"]
    assert states(db) == ["dead", "sent"]
    assert "may have arrived" in db.value("SELECT last_error FROM outbox WHERE id = 1")


def test_the_one_repeat_is_not_spent_while_the_channel_is_down(db: Database, bot: Bot) -> None:
    """After a lost answer the server is asked first; until it replies nothing is repeated."""
    bot.script.append("hang_lost")
    bot.checks.extend(["500", "reset", "hang"])
    queue(db, ["a"])
    until_empty(db, telegram(bot.base, read_s=0.3))
    assert [payload["text"] for payload in bot.accepted] == [f"{REPEAT}\na"]
    assert len(bot.seen) == 2
    assert states(db) == ["sent"]


def test_what_cannot_be_parsed_is_sent_as_plain_text(db: Database, bot: Bot) -> None:
    """At once, without the markup, and so is a message that is too long, cut."""
    queue(db, ["<b>a</b> <x> &lt;", "<b>" + "y" * 5000 + "</b>"])
    assert one_round(db, telegram(bot.base)).n_sent == 2
    assert [payload["text"] for payload in bot.accepted] == ["a  <", "y" * 4096]
    assert not any("parse_mode" in payload for payload in bot.accepted)


def test_a_message_refused_twice_does_not_block_the_others(db: Database, bot: Bot) -> None:
    """HTML and plain refused: dead, with the reason; the next one is sent."""
    bot.script.extend(["400", "400"])
    queue(db, ["a", "b"])
    report = one_round(db, telegram(bot.base))
    assert (report.n_sent, report.n_dead) == (1, 1)
    assert states(db) == ["dead", "sent"]
    assert "can't parse entities" in db.value("SELECT last_error FROM outbox WHERE id = 1")


@pytest.mark.parametrize("refusal", ["401", "403", "404", "chat"])
def test_a_closed_channel_keeps_its_messages(refusal: str, db: Database, bot: Bot) -> None:
    """Wrong token, blocked, unknown chat: the report says so, all stay, again in ten minutes."""
    bot.script.append(refusal)
    queue(db, ["a", "b"])
    sink = telegram(bot.base)
    report = one_round(db, sink)
    assert list(report.closed) == ["telegram"]
    assert report.next_wall_ms == {"telegram": 600_000}
    assert states(db) == ["pending", "pending"]
    assert one_round(db, sink, 599_999).n_sent == 0
    assert one_round(db, sink, 600_000).n_sent == 2
    assert len(bot.seen) == 3


def test_one_channel_does_not_wait_for_another(db: Database, bot: Bot) -> None:
    """Telegram is closed; the console prints."""
    bot.script.append("401")
    stream = io.StringIO()
    queue(db, ["t"])
    queue(db, ["c"], channel="console")
    sinks: dict[str, Sink] = {"telegram": telegram(bot.base), "console": ConsoleSink(stream)}
    report = send_waiting(db, settings(), sinks, wall_ms=0)
    assert [(one.channel, one.kind) for one in report.accepted] == [("console", "test")]
    assert "\nc\n" in stream.getvalue()


def test_nobody_listening_is_no_doubt() -> None:
    """A refused connection and a TLS handshake that never ends: certainly not accepted."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(LaterError):
            telegram(f"https://127.0.0.1:{port}", read_s=0.3).send("a", silent=False)
    with pytest.raises(LaterError):
        telegram(f"http://127.0.0.1:{port}").send("a", silent=False)


@pytest.mark.parametrize(("vice", "silent"), [("reset", False), ("hang", True)])
def test_a_lost_answer_is_doubt(vice: str, silent: bool, bot: Bot) -> None:
    """Once the body is out, only an answer can say what became of it."""
    bot.script.append(vice)
    with pytest.raises(DoubtError) as caught:
        telegram(bot.base, read_s=0.3).send("a", silent=False)
    assert caught.value.silent is silent


def test_what_telegram_is_told(db: Database, bot: Bot) -> None:
    """HTML to the chat, silently where asked; later messages of a signal answer its first."""
    store_signal(db)
    queue(db, ["<b>new</b>"], signal_id=123, silent=True)
    queue(db, ["other"])
    queue(db, ["closed"], signal_id=123)
    one_round(db, telegram(bot.base))
    first, other, last = bot.accepted
    assert first == {
        "chat_id": "42",
        "text": "<b>new</b>",
        "parse_mode": "HTML",
        "disable_notification": True,
        "link_preview_options": {"is_disabled": True},
    }
    assert "reply_parameters" not in other
    assert last["reply_parameters"] == {"message_id": 1001, "allow_sending_without_reply": True}
    assert not last["disable_notification"]


def test_messages_keep_a_pace(bot: Bot) -> None:
    """At most one a second: the third leaves two seconds after the first."""
    time = FakeTime()
    sink = telegram(bot.base, time=time)
    for text in "abc":
        sink.send(text, silent=False)
    assert time.now_s == 2.0


def test_no_connection_is_used_twice(bot: Bot) -> None:
    """One that died while it was kept could not be told from a lost answer."""
    sink = telegram(bot.base)
    for text in "abc":
        sink.send(text, silent=False)
    assert bot.n_connections == 3


def test_a_round_ends_when_its_time_is_up(db: Database) -> None:
    """A slow channel cannot hold the loop: what is left goes out in the next round."""
    queue(db, ["a", "b", "c", "d"])

    class Slow(Recorder):
        def send(self, text: str, *, silent: bool, reply_to: str | None = None) -> Sent:
            time.sleep(6.0)
            return super().send(text, silent=silent, reply_to=reply_to)

    time, sink = FakeTime(), Slow({})
    assert one_round(db, sink, monotonic=time.monotonic, budget_s=10.0).n_sent == 2
    assert one_round(db, sink, monotonic=time.monotonic, budget_s=10.0).n_sent == 2
    assert sink.texts == ["a", "b", "c", "d"]


def store_signal(db: Database) -> dict[str, Any]:
    """The row of `test_messages`, with the columns messages do not read."""
    more = {
        "p0_ms": 1,
        "p1_ms": 2,
        "strategy_id": "s",
        "origin": "live",
        "actionable_ms": 3,
        "regime": "range",
        "base_timeframe": "1m",
        "exec_state": "{}",
    }
    values = row(**more)
    names = ", ".join(values)
    marks = ", ".join(f":{name}" for name in values)
    db.run(f"INSERT INTO signals ({names}) VALUES ({marks})", values)
    return values


def test_a_call_past_its_time_is_told_as_too_late(db: Database, bot: Bot) -> None:
    """By market time: at `expires_ms` it is a call, one ms later it is history, and reported so."""
    valid_ms = store_signal(db)["valid_until_ms"]
    set_label(db, "banner", "GENERATED MARKET")
    for _ in range(2):
        queue(db, ["a call"], signal_id=123, expires_ms=valid_ms)
    sink = telegram(bot.base)
    in_time = one_round(db, sink, market_ms=valid_ms, n=1)
    late = one_round(db, sink, market_ms=valid_ms + 1)
    assert [one.is_too_late for one in in_time.accepted + late.accepted] == [False, True]
    assert [one.signal_id for one in late.accepted] == [123]
    call, history = (plain(payload["text"]) for payload in bot.accepted)
    assert call == "a call"
    assert history.startswith("GENERATED MARKET\nTOO LATE LONG BTC/USDT:USDT\n#S123 ")
    assert "SIGNAL" not in history


def test_channels_follow_the_settings() -> None:
    """The console by default, Telegram when enabled, none when both are off."""
    assert channels(Config()) == ("console",)
    assert channels(settings()) == ("console", "telegram")
    assert channels(config_from({"notify": {"console": False}})) == ()
    assert list(sinks_of(settings(), stream=io.StringIO())) == ["console", "telegram"]


def test_a_narrow_console_still_prints() -> None:
    """Characters its encoding lacks become '?'; a closed one means later."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    ConsoleSink(stream).send("<b>PAPER · 1 &lt; 2</b>", silent=True)
    assert b"PAPER ? 1 < 2\n" in raw.getvalue()
    stream.close()
    with pytest.raises(LaterError):
        ConsoleSink(stream).send("a", silent=True)
