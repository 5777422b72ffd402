"""A loopback Bot API: `sendMessage`, `getMe` and `getUpdates`, with the faults of a real network.

It checks markup and length as the real one does and remembers every message it accepted.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_MARKUP = re.compile(r'</?(?:b|i|code|pre)>|<a href="[^"<>]*">|</a>|&(?:amp|lt|gt|quot);')
_REFUSALS = {
    "400": (400, "Bad Request: can't parse entities: Unsupported start tag at byte offset 7"),
    "401": (401, "Unauthorized"),
    "403": (403, "Forbidden: bot was blocked by the user"),
    "404": (404, "Not Found"),
    "409": (409, "Conflict: terminated by other getUpdates request"),
    "500": (500, "Internal Server Error"),
    "chat": (400, "Bad Request: chat not found"),
}
DOUBTFUL = ("reset", "late_reset", "hang", "hang_lost")  # the client cannot know what became of it


@dataclass
class Bot:
    """What the server does next, and what it has seen.

    Each `sendMessage` takes a step of `script`, then "ok": "429:SECONDS", a key of `_REFUSALS`,
    "html" (a proxy's page), "reset" (not accepted, connection broken), "late_reset" (accepted,
    then broken), "hang" (accepted, no answer), "hang_lost" (neither). `checks` is for `getMe`,
    `polls` for `getUpdates`, which never waits. What people wrote is in `inbox`.
    """

    token: str
    base: str = ""
    script: deque[str] = field(default_factory=deque)
    checks: deque[str] = field(default_factory=deque)
    polls: deque[str] = field(default_factory=deque)
    inbox: list[dict[str, Any]] = field(default_factory=list)
    polled: list[dict[str, Any]] = field(default_factory=list)
    accepted: list[dict[str, Any]] = field(default_factory=list)
    seen: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # (step, payload)
    n_connections: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def write(self, number: int, text: str, *, chat: int = 42) -> None:
        """Let somebody write to the bot."""
        message = {"message_id": number, "chat": {"id": chat, "type": "private"}, "text": text}
        self.inbox.append({"update_id": number, "message": message})

    def updates(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Drop what an offset confirms and return the rest."""
        self.polled.append(payload)
        first = payload.get("offset", 0)
        self.inbox = [one for one in self.inbox if one["update_id"] >= first]
        return {"ok": True, "result": self.inbox[: payload["limit"]]}

    def accept(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Take a message and return the answer."""
        self.accepted.append(payload)
        return {"ok": True, "result": {"message_id": 1000 + len(self.accepted)}}


def _fault(payload: dict[str, Any]) -> str:
    """Return why a message is refused whatever the script says, or ''."""
    text = str(payload.get("text", ""))
    if payload.get("parse_mode") == "HTML":
        text = _MARKUP.sub("", text)
        if "<" in text or re.search(r"&\w+;", text):
            return "Bad Request: can't parse entities: markup"
    return "Bad Request: message is too long" if len(text) > 4096 else ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bot: Bot

    def setup(self) -> None:
        super().setup()
        self.bot.n_connections += 1

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Stay quiet."""

    def do_POST(self) -> None:
        payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        method = self.path.removeprefix(f"/bot{self.bot.token}/")
        if method == "getMe":
            self._play(self.bot.checks.popleft() if self.bot.checks else "ok", None)
        elif method == "getUpdates":
            step = self.bot.polls.popleft() if self.bot.polls else "ok"
            if step == "ok":
                self._write(200, json.dumps(self.bot.updates(payload)).encode())
            else:
                self._play(step, None)
        elif method == "sendMessage":
            step = self.bot.script.popleft() if self.bot.script else "ok"
            self.bot.seen.append((step, payload))
            self._play(step, payload)
        else:
            self._refuse(*_REFUSALS["404"])

    def _play(self, step: str, payload: dict[str, Any] | None) -> None:
        if step in DOUBTFUL:
            if payload is not None and step in ("hang", "late_reset"):
                self.bot.accept(payload)
            if step.startswith("hang"):
                self.bot.over.wait(20)
            self._reset()
        elif step.startswith("429"):
            wait = int(step.partition(":")[2])
            said = f"Too Many Requests: retry after {wait}"
            self._refuse(429, said, parameters={"retry_after": wait})
        elif step == "html":
            self._write(200, b"<html>Please log in to this network</html>")
        elif step in _REFUSALS:
            self._refuse(*_REFUSALS[step])
        elif payload is None:
            self._write(200, b'{"ok": true, "result": {"id": 7, "is_bot": true}}')
        elif _fault(payload):
            self._refuse(400, _fault(payload))
        else:
            self._write(200, json.dumps(self.bot.accept(payload)).encode())

    def _refuse(self, status: int, said: str, **more: Any) -> None:
        answer = {"ok": False, "error_code": status, "description": said, **more}
        self._write(status, json.dumps(answer).encode())

    def _write(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.rfile.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reset connection is what we wanted."""


@contextmanager
def bot_server(token: str, script: Iterable[str] = ()) -> Iterator[Bot]:
    """Serve until the block ends."""
    bot = Bot(token, script=deque(script))
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"bot": bot}))
    bot.base = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield bot
    finally:
        bot.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
