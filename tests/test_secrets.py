"""The laws of secrets: whatever fails, no log, file, report or traceback shows one."""

from __future__ import annotations

import io
import json
import logging
import socket
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from core.config import Config, config_from
from core.jobs import commands, summary, tell
from core.notify import (
    BotApi,
    ChannelError,
    Inbox,
    LaterError,
    RedactSecrets,
    Sent,
    redact,
)
from core.store import open_database
from core.store.db import Database
from core.store.operation import record_run
from tests.engine_world import opened, write_config
from tests.outbox_world import CANARY, Recorder, one_round, queue, settings, telegram
from tests.telegram_server import Bot, bot_server


def fail_everywhere(db: Database, bot: Bot) -> list[str]:
    """Every failure path of the Telegram channel; returns what the reports said."""
    said: list[str] = []
    steps = ["429:1", "500", "html", "reset", "late_reset", "hang", "400", "400", "401", "403"]
    bot.script.extend([*steps, "404", "chat"])
    queue(db, [f"m{i}" for i in range(8)])
    sink = telegram(bot.base, read_s=0.3)
    said += [repr(one_round(db, sink, wall_ms)) for wall_ms in range(0, 40_000_000, 1_000_000)]
    queue(db, ["never"])
    with socket.create_server(("127.0.0.1", 0)) as silent:
        bases = ["http://127.0.0.1:9", "nonsense://x", "http://", "http://no.such.host.invalid"]
        bases.append(f"https://127.0.0.1:{silent.getsockname()[1]}")
        for turn, base in enumerate(bases, start=50):
            sink = telegram(base, read_s=0.3)
            said.append(repr(one_round(db, sink, turn * 1_000_000)))
            said.append(str(db.value("SELECT last_error FROM outbox WHERE text LIKE '%never'")))
    return said


def capture(filters: list[logging.Filter], act: Callable[[], object]) -> str:
    """Everything logged, at every level, through one handler.

    Filters change a record for the handlers after them, so one without any stands alone.
    """
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    for one in filters:
        handler.addFilter(one)
    root = logging.getLogger()
    level, others = root.level, root.handlers[:]
    root.handlers[:] = [*others, handler] if filters else [handler]
    root.setLevel(logging.DEBUG)
    try:
        act()
    finally:
        root.handlers[:] = others
        root.setLevel(level)
    return stream.getvalue()


def test_the_token_is_nowhere(tmp_path: Path) -> None:
    """After every failure: not in the file, its WAL, the reports, or the filtered log.

    The unfiltered log shows that it was there to be found.
    """
    said: list[str] = []
    with open_database(tmp_path / "canary.db") as db, bot_server(CANARY) as bot:

        def act() -> None:
            said.extend(fail_everywhere(db, bot))

        bare = capture([], lambda: said.append(capture([RedactSecrets.of(settings())], act)))
        errors = [error for (error,) in db.rows("SELECT last_error FROM outbox")]
        files = [path.read_bytes() for path in tmp_path.iterdir()]
    assert CANARY in bare
    assert any("***" in text for text in said)
    assert any(errors)
    for text in [*said, *map(str, errors)]:
        assert CANARY not in text
        assert "CANARY" not in text
    assert files
    assert not any(b"CANARY" in content for content in files)


def test_an_error_does_not_carry_the_address() -> None:
    """Neither its text nor the traceback that would be printed of it."""
    for base in ("http://127.0.0.1:9", "nonsense://x"):
        with pytest.raises(ChannelError) as caught:
            telegram(base).send("a", silent=False)
        shown = "".join(traceback.format_exception(caught.value))
        assert "sendMessage" in shown
        assert CANARY not in shown


def test_what_is_stored_of_an_error_is_redacted(tmp_path: Path) -> None:
    """Whatever a sink says of its failure."""

    class Careless(Recorder):
        def send(self, text: str, *, silent: bool, reply_to: str | None = None) -> Sent:
            raise LaterError(f"cannot reach {CANARY} {text} {silent} {reply_to}")

    with open_database(tmp_path / "test.db") as db:
        queue(db, ["a"])
        one_round(db, Careless({}))
        assert db.value("SELECT last_error FROM outbox") == "cannot reach *** a False None"


def test_tracebacks_are_redacted_too() -> None:
    """A secret in an exception, in its cause and in the arguments of a record."""
    log = logging.getLogger("test.canary")

    def act() -> None:
        try:
            try:
                raise ValueError(f"https://api.test/bot{CANARY}/sendMessage")
            except ValueError as error:
                raise RuntimeError(CANARY) from error
        except RuntimeError:
            log.exception("failed with %s", CANARY)

    text = capture([RedactSecrets()], act)
    assert "RuntimeError: ***" in text
    assert "ValueError: https://api.test/***/sendMessage" in text
    assert CANARY not in text


def test_redaction_knows_the_secrets_of_the_settings() -> None:
    """Token, dead man's address and exchange keys, also percent-encoded; other words stay."""
    config = config_from(
        {
            "notify": {
                "deadman_url": "https://hc.test/1b2c-3d4e",
                "telegram": {"bot_token": "short:token"},
            },
            "exchange": {"ccxt": {"apiKey": "key/with=signs", "timeout": 20000}},
        }
    )
    text = "short:token short%3Atoken key/with=signs key%2Fwith%3Dsigns /1b2c-3d4e 20000 hc.test"
    assert redact(text, config) == "*** *** *** *** *** 20000 hc.test"
    assert redact("plain words: 12:30, 1234567:short", Config()) == (
        "plain words: 12:30, 1234567:short"
    )
    assert CANARY not in redact(json.dumps({"url": f"/bot{CANARY}/x"}), Config())


def test_commands_and_their_answers_hold_no_secret(tmp_path: Path) -> None:
    """Not when the owner writes the token himself, an error holds it, or polling fails."""
    keys = {"enabled": True, "bot_token": CANARY, "chat_id": 42, "commands": True}
    app = opened(write_config(tmp_path / "a", notify={"telegram": keys}))
    record_run(
        app.db, "scan", due_ms=0, started_wall_ms=1 << 50, took_ms=0, outcome="error", detail=CANARY
    )
    said: list[str] = []

    def act() -> None:
        with bot_server(CANARY) as bot:
            bot.polls.extend(["401", "409", "html", "reset", "hang"])
            for number, text in enumerate(
                ("/status", f"/{CANARY}", f"/signal {CANARY}", f"/why {CANARY}", CANARY)
            ):
                bot.write(number, text)
            for read_s in (0.3, 0.3, 0.3, 0.3, 0.3, 30.0):
                api = BotApi(
                    requests.Session(), api_base=bot.base, token=CANARY, timeouts_s=(9.0, read_s)
                )
                try:
                    commands.poll_once(app, Inbox(api, chat_id="42"), wait_s=0)
                except ChannelError as error:
                    said.append("".join(traceback.format_exception(error)))

    said.append(capture([RedactSecrets.of(app.config)], act))
    tell.queue_digest(app, now_ms=1 << 41)
    summary.summarise(app, now_ms=1 << 41)
    app.db.run("DELETE FROM job_runs")  # the secret was put there for the test
    answers = [text for (text,) in app.db.rows("SELECT text FROM outbox WHERE kind = 'answer'")]
    assert len(answers) == 4
    assert sum("***" in text for text in answers) == 3
    app.db.run("VACUUM")
    app.close()
    found = [*(tmp_path / "a").glob("ohlcv.db*"), *(tmp_path / "a").glob("reports/*")]
    files = [path.read_bytes() for path in found]
    assert len(files) > 1
    assert len(said) == 6
    assert not any("canary" in text.lower() for text in [*said, *answers])
    assert not any(b"CANARY" in content for content in files)
