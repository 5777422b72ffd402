"""A loopback server that speaks enough of Bitget's REST format for the real ccxt client.

Many requests at once are safe. In a process of its own:
python -m tests.bitget_server --symbols 3 --days 40 --seed 1 --delay-ms 200
prints its address; GET /_requests there says what was asked and when it arrived.
"""

from __future__ import annotations

import argparse
import json
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, NamedTuple, Protocol
from urllib.parse import parse_qs, urlsplit

from core.domain import Candles
from core.timeframe import DAY_MS, MINUTE_MS, floor_ms
from tests.bitget_pages import Book, Refused
from tests.worlds import random_candles

_JSON = "application/json"
_DRIP_S = 0.005  # between two bytes of a trickle
_COINS = ("BTC", "ETH", "SOL")


@dataclass(frozen=True)
class Fault:
    """One disturbed answer: an HTTP status and body, or a good answer delivered badly.

    `reset` closes the connection without a word, `cut` in the middle of the body; `hold` is silent
    for `for_s` seconds and then closes; `trickle` sends a byte at a time for as long, and then the
    rest at once.
    """

    status: int = 200
    body: str = ""
    content_type: str = _JSON
    manner: Literal["whole", "reset", "cut", "hold", "trickle"] = "whole"
    for_s: float = 0.0


TOO_MANY = Fault(429, '{"code":"429","msg":"Too many requests","requestTime":0,"data":null}')
TOO_MANY_HTML = Fault(429, "<html><h1>429 Too Many Requests</h1></html>", "text/html")
DOWN = Fault(503, "<html><h1>503 Service Unavailable</h1></html>", "text/html")
HTML = Fault(200, "<html><h1>Just a moment...</h1></html>", "text/html")
EMPTY = Fault(200, "")
CUT = Fault(200, '{"code":"00000","msg":"success","requestTime":1,"data":[["17172')
NULL = Fault(200, '{"code":"00000","msg":"success","requestTime":1,"data":null}')
RESET = Fault(manner="reset")


class Request(NamedTuple):
    """What was asked, and the monotonic time at which it arrived."""

    path: str
    query: dict[str, str]
    at_s: float


class Disturber(Protocol):
    """What may spoil answers; asked once for each request, by many threads."""

    def strike(self, path: str, query: Mapping[str, str]) -> Fault | None:
        """Return the fault that takes the place of a good answer, if any."""
        ...

    def spoil(self, path: str, query: Mapping[str, str], rows: list[Any]) -> list[Any]:
        """Return the rows of a candle page as they are sent."""
        ...


@dataclass
class BitgetServer(Book):
    """A book with a door: what it has been asked, and how its answers are disturbed.

    `faults` are spent one per request, on paths holding `where`; then `vices` have their say.
    Every answer comes `delay_s` late.
    """

    faults: deque[Fault] = field(default_factory=deque)
    where: str = ""
    vices: Disturber | None = None
    delay_s: float = 0.0
    requests: list[Request] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)

    def ccxt(self) -> dict[str, Any]:
        """Return the value of `exchange.ccxt` that points ccxt here."""
        return {"urls": {"api": dict.fromkeys(("spot", "mix", "common", "margin"), self.url)}}

    def disturb(self, *faults: Fault, where: str = "") -> None:
        """Give these answers to the next requests whose path holds `where`."""
        with self.lock:
            self.where = where
            self.faults.extend(faults)

    def asked(self, part: str) -> list[dict[str, str]]:
        """Return the parameters of the requests whose path holds `part`."""
        with self.lock:
            return [query for path, query, _ in self.requests if part in path]

    def received(self, request: Request) -> Fault | None:
        """Note a request; return the fault that is due to it."""
        with self.lock:
            self.requests.append(request)
            if self.faults and self.where in request.path:
                return self.faults.popleft()
        return self.vices.strike(request.path, request.query) if self.vices else None

    def reply(self, path: str, query: Mapping[str, str]) -> tuple[int, str]:
        """Return status and body of an answer from the book, its rows spoilt by the vices."""
        try:
            data = self.answer(path, query)
        except Refused as refused:
            return 400, json.dumps(refused.body)
        if self.vices and path.endswith("candles"):
            data = self.vices.spoil(path, query, data)
        return 200, json.dumps({"code": "00000", "msg": "success", "requestTime": 0, "data": data})

    def log(self, start: int) -> str:
        """Return the requests from the n-th on as JSON."""
        with self.lock:
            return json.dumps([request._asdict() for request in self.requests[start:]])


class _Handler(BaseHTTPRequestHandler):
    """Speaks for the BitgetServer of its HTTP server."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for an acknowledgement
    bitget: BitgetServer

    def do_GET(self) -> None:
        """Answer from the truth, unless a fault is due."""
        arrived_s, url = time.monotonic(), urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        if url.path == "/_requests":
            self._send(200, self.bitget.log(int(query.get("from", 0))))
            return
        fault = self.bitget.received(Request(url.path, query, arrived_s))
        self.bitget.closing.wait(self.bitget.delay_s)
        with suppress(ConnectionError):  # a client need not wait for the end
            if fault is None or fault.manner in ("cut", "trickle"):
                status, body = self.bitget.reply(url.path, query)
                self._send(status, body, fault=fault or Fault())
            elif fault.manner == "whole":
                self._send(fault.status, fault.body, fault=fault)
            else:
                self.bitget.closing.wait(fault.for_s)
                self._reset()

    def _send(self, status: int, body: str, *, fault: Fault | None = None) -> None:
        fault = fault or Fault()
        payload = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", fault.content_type)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        if fault.manner == "cut":
            self.wfile.write(payload[: len(payload) // 2])
            self._reset()
            return
        n_sent = self._trickle(payload, fault.for_s) if fault.manner == "trickle" else 0
        self.wfile.write(payload[n_sent:])

    def _trickle(self, payload: bytes, for_s: float) -> int:
        """Send single bytes for a while; returns how many."""
        until_s = time.monotonic() + for_s
        for i in range(len(payload)):
            if time.monotonic() > until_s or self.bitget.closing.wait(_DRIP_S):
                return i
            self.wfile.write(payload[i : i + 1])
        return len(payload)

    def _reset(self) -> None:
        linger_none = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_none)
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Stay silent."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that left."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving(bitget: BitgetServer, *, port: int = 0) -> Iterator[BitgetServer]:
    """Serve on a loopback port, a free one if it is 0; `bitget.url` says where."""
    handler = type("Handler", (_Handler,), {"bitget": bitget})
    with _Server(("127.0.0.1", port), handler) as server:
        bitget.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield bitget
        finally:
            bitget.closing.set()
            server.shutdown()
            thread.join()


def walks(n_symbols: int, *, days: int, seed: int, now_ms: int) -> dict[str, Candles]:
    """Return perpetuals with 1m candles from `days` before an instant to a day after it."""
    names = [*_COINS, *(f"C{i:03d}" for i in range(len(_COINS), n_symbols))][:n_symbols]
    start_ms = floor_ms(now_ms, MINUTE_MS) - days * DAY_MS
    return {
        f"{name}/USDT:USDT": random_candles(
            (days + 1) * 1440, seed + i, start_ms=start_ms, start_price=50_000.0, steps=4
        )
        for i, name in enumerate(names)
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Serve random walks that go on by the wall clock until the process is ended."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    for name, default in (("port", 0), ("symbols", 3), ("days", 40), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--delay-ms", type=float, default=0.0, help="how late every answer comes")
    parser.add_argument("--clock-offset-ms", type=int, default=0, help="added to the wall clock")
    args = parser.parse_args(argv)

    def now_ms() -> int:
        return time.time_ns() // 1_000_000 + int(args.clock_offset_ms)

    truth = walks(args.symbols, days=args.days, seed=args.seed, now_ms=now_ms())
    bitget = BitgetServer(truth, now_ms=now_ms, delay_s=args.delay_ms / 1000)
    with serving(bitget, port=args.port), suppress(KeyboardInterrupt):
        print(bitget.url, flush=True)  # noqa: T201
        threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
