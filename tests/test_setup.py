"""The first settings: checked, priced, and no byte of config.yaml but theirs changes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config_edit import with_values
from core.config_file import load_config
from core.errors import ConfigError, TraderError, UsageError
from core.jobs.setup import Setup, Wanted, equity_of, risk_of, token_of, yes_or_no
from tests.bitget_server import BitgetServer, serving, walks
from tests.engine_world import fake_engine
from tests.replay_world import market

ROOT = Path(__file__).parents[1]
TOKEN = "987654321:CANARYcanaryCANARYcanary-CANARY_ca"
BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
SHIPPED = (ROOT / "config.yaml").read_text(encoding="utf-8")


class Bot(BaseHTTPRequestHandler):
    """A Bot API with one message waiting."""

    calls: list[tuple[str, dict[str, Any]]]
    updates: list[dict[str, Any]]

    def do_POST(self) -> None:
        payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        token, _, method = self.path.removeprefix("/bot").partition("/")
        self.calls.append((method, payload))
        known = token == TOKEN
        result: Any = self.updates if method == "getUpdates" else {"message_id": 1}
        body = {"ok": True, "result": result} if known else {"ok": False}
        raw = json.dumps(body).encode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Stay quiet."""


@contextmanager
def bot(*chats: dict[str, Any]) -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    """Serve it; yields its address and what it was asked."""
    calls: list[tuple[str, dict[str, Any]]] = []
    updates = [{"update_id": i, "message": {"chat": chat}} for i, chat in enumerate(chats)]
    handler = type("Handler", (Bot,), {"calls": calls, "updates": updates})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", calls
        server.shutdown()


EDITS = st.fixed_dictionaries(
    {},
    optional={
        "symbols": st.lists(st.sampled_from([BTC, ETH, "SOL/USDT"]), min_size=1, unique=True),
        "risk.equity_usd": st.floats(1, 1e9),
        "risk.mode": st.sampled_from(["conservative", "normal", "aggressive"]),
        "notify.telegram.enabled": st.booleans(),
        "notify.telegram.chat_id": st.text(min_size=1, max_size=20),
        "notify.telegram.bot_token": st.just(TOKEN),
    },
)


@settings(max_examples=12, deadline=None)
@given(values=EDITS)
def test_only_the_answers_change_in_the_shipped_file(values: dict[str, Any]) -> None:
    """Read back as meant; every line that holds none of them, comments included, is as it was."""
    text = with_values(SHIPPED, values)
    plain = yaml.safe_load(text)
    for name, value in values.items():
        place = plain
        for part in name.split("."):
            place = place[part]
        assert place == value
    before = [line for line in SHIPPED.splitlines() if "#" in line]
    after = text.splitlines()
    words = ("symbols", "equity_usd", "mode:", "enabled", "chat_id", "bot_token")
    kept = [line for line in before if not any(word in line for word in words)]
    assert [line for line in after if line in kept] == kept
    assert with_values(text, values) == text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "a: {b: 1}\n"),
        ("x: 2\n", "x: 2\na: {b: 1}\n"),
        ("a: {}\n", "a: {b: 1}\n"),
        ("a: {c: 3}  # c\n", "a: {c: 3, b: 1}  # c\n"),
        ("a:\n  c: 3  # why\nz: 1\n", "a:\n  c: 3  # why\n  b: 1\nz: 1\n"),
        ("a:\n  b: 7  # why\n", "a:\n  b: 1  # why\n"),
        ("a:\nz: 1\n", "a: {b: 1}\nz: 1\n"),
        ("a:\n  b:\n    - 1\n    - 2\n  # next\n  c: 3\n", "a:\n  b: 1\n  # next\n  c: 3\n"),
    ],
)
def test_a_value_is_put_where_it_belongs(before: str, after: str) -> None:
    """In place, at the end of its block, or as a block of its own."""
    assert with_values(before, {"a.b": 1}) == after


def test_what_cannot_be_replaced_safely_is_refused() -> None:
    """An alias stands for something else as well; broken YAML is not touched."""
    with pytest.raises(ConfigError):
        with_values("x: &x {b: 1}\na: *x\n", {"a.b": 2})
    with pytest.raises(ConfigError):
        with_values("a: [", {"a.b": 2})


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [
        (equity_of, {"10,000": 10_000.0, "0.5": 0.5}, ["", "0", "-1", "ten", "nan", "inf"]),
        (risk_of, {"c": "conservative", "NORMAL": "normal"}, ["", "wild", "x"]),
        (yes_or_no, {"y": True, "No": False}, ["", "maybe"]),
        (token_of, {TOKEN: TOKEN}, ["", "abc", "1:short", "987654321:" + "ä" * 30]),
    ],
)
def test_a_bad_answer_is_refused_with_its_reason(
    read: Any, good: dict[str, Any], bad: list[str]
) -> None:
    """Good ones are read; each bad one says what would be good, and never repeats a token."""
    for text, value in good.items():
        assert read(text) == value
    for text in bad:
        with pytest.raises(UsageError) as caught:
            read(text)
        assert caught.value.remedy
        assert read is not token_of or not text or text not in str(caught.value)


def test_questions_are_asked_again_until_they_can_be_used(tmp_path: Path) -> None:
    """A pair that is not listed, a word for a number; then the file holds the answers."""
    truth = {s: market(2, 3, 5)[s] for s in (BTC, ETH)}
    app, _, clock = fake_engine(tmp_path, truth, backfill={"start_date": "2024-01-01"})
    clock.at_ms = int(truth[BTC].ts_ms[-1])
    with bot({"id": 7, "username": "x"}, {"id": -42, "title": "My <desk>"}) as (base, calls):
        app.config_path.write_text(with_values(app.config_text, {"notify.telegram.api_base": base}))
        app.reload_config()
        answers = iter(["BCT/USDT:USDT", f"{ETH} {BTC}", "much", "5000", "c", "yes", "no", TOKEN])
        said: list[str] = []
        done = Setup(app, Wanted(), ask=lambda _: next(answers), say=said.append).run()
    assert any("does not list BCT/USDT:USDT; did you mean BTC/USDT:USDT?" in s for s in said)
    assert any("'much' is no capital" in s for s in said)
    assert any("Chat -42 (My <desk>)" in s for s in said)
    assert (done["pairs"], done["equity_usd"], done["risk"]) == ([ETH, BTC], 5000.0, "conservative")
    assert done["requests"] > 10
    assert TOKEN not in repr(said) + repr(done)
    config = load_config(app.config_path)
    assert config.symbols == (ETH, BTC)
    assert config.notify.telegram.enabled
    assert config.notify.telegram.chat_id == "-42"
    assert app.config_path.stat().st_mode & 0o77 == 0
    sent = [payload for method, payload in calls if method == "sendMessage"]
    assert [payload["chat_id"] for payload in sent] == ["-42"]
    app.close()


def test_nothing_is_written_when_something_is_wrong(tmp_path: Path) -> None:
    """A wrong token, or nobody who writes: an error with the remedy, the file as it was."""
    truth = {BTC: market(2, 3, 5)[BTC]}
    app, _, clock = fake_engine(tmp_path, truth)
    clock.at_ms = int(truth[BTC].ts_ms[-1])
    for token, why in ((TOKEN[:-1] + "x", "does not know"), (TOKEN, "nobody wrote")):
        with bot() as (base, _):
            app.config_path.write_text(
                with_values(app.config_text, {"notify.telegram.api_base": base})
            )
            app.reload_config()
            before = app.config_path.read_text()
            wanted = Wanted(equity_usd=77.0, token=token)
            with pytest.raises(TraderError, match=why) as caught:
                Setup(app, wanted, ask=None, say=lambda _: None, chat_wait_s=0.0).run()
            assert token not in str(caught.value)
            assert app.config_path.read_text() == before
    app.close()


def test_on_a_terminal_and_with_flags(tmp_path: Path) -> None:
    """The command itself: asked on a pseudo-terminal, told by flags, refused with code 2."""
    truth = walks(2, days=2, seed=3, now_ms=time.time_ns() // 1_000_000)
    server = BitgetServer(truth, now_ms=lambda: time.time_ns() // 1_000_000)
    config = tmp_path / "config.yaml"
    with serving(server):
        config.write_text(
            f"exchange: {{id: bitget, ccxt: {json.dumps(server.ccxt())}}}  # mine\n"
            f"symbols: [{BTC}]\nbackfill: {{start_date: 2026-01-01}}\n"
        )
        command = [sys.executable, str(ROOT / "maintenance.py"), "setup", "--config", str(config)]
        flags = ["--json", "--yes", "--equity", "123", "--pairs", ETH, "--no-telegram"]
        done = subprocess.run([*command, *flags], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["pairs"] == [ETH]
        bad = subprocess.run([*command, "--yes", "--risk", "wild"], capture_output=True, text=True,
                             check=False)  # fmt: skip
        assert (bad.returncode, bad.stderr.count("'wild' is no risk mode")) == (2, 1)
        owner, terminal = pty.openpty()
        os.write(owner, f"{BTC} {ETH}\n\naggressive\nno\n".encode())
        asked = subprocess.run([*command, "--json"], stdin=terminal, capture_output=True, text=True,
                               check=False)  # fmt: skip
        os.close(owner)
        os.close(terminal)
        assert asked.returncode == 0, asked.stderr
        assert "Your capital in USD [123]" in asked.stderr
    found = load_config(config)
    assert (found.symbols, found.risk.equity_usd) == ((BTC, ETH), 123.0)
    assert found.risk.mode == "aggressive"
    assert "# mine" in config.read_text()
