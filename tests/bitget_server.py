"""A loopback server that speaks enough of Bitget's REST format for the real ccxt client.

It keeps the documented limits: `candles` holds the last month only and gives at most 1000 rows,
`history-candles` at most 200; where a window holds more rows than the limit, its *end* is given.
The forming candle is in every page that reaches now.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from core.domain import Candles, FundingRate
from core.timeframe import DAY_MS, HOUR_MS, tf_ms
from tests.engine_world import aggregated, part

GRANULARITIES = {
    "spot": {"1min": "1m", "5min": "5m", "15min": "15m", "1h": "1h", "4h": "4h", "1Dutc": "1d"},
    "mix": {"1m": "1m", "5m": "5m", "15m": "15m", "1H": "1h", "4H": "4h", "1Dutc": "1d"},
}
RECENT_MAX, HISTORY_MAX = 1000, 200


@dataclass(frozen=True)
class Fault:
    """One disturbed answer: an HTTP status and body, or a reset connection."""

    status: int = 200
    body: str = ""
    content_type: str = "application/json"
    reset: bool = False


TOO_MANY = Fault(429, '{"code":"429","msg":"Too many requests","requestTime":0,"data":null}')
TOO_MANY_HTML = Fault(429, "<html><h1>429 Too Many Requests</h1></html>", "text/html")
DOWN = Fault(503, "<html><h1>503 Service Unavailable</h1></html>", "text/html")
HTML = Fault(200, "<html><h1>Just a moment...</h1></html>", "text/html")
EMPTY = Fault(200, "")
CUT = Fault(200, '{"code":"00000","msg":"success","requestTime":1,"data":[["17172')
NULL = Fault(200, '{"code":"00000","msg":"success","requestTime":1,"data":null}')
RESET = Fault(reset=True)


class Refused(Exception):  # noqa: N818
    """An answer with an error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.body = {"code": code, "msg": message, "requestTime": 0, "data": None}


@dataclass
class BitgetServer:
    """What the server knows, and what it has been asked.

    `truth` maps unified symbols to candles. `end_counts` says whether a candle that opens exactly
    at endTime is part of a window. `faults` are spent one per request, on paths holding `where`.
    """

    truth: Mapping[str, Candles]
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    end_counts: bool = False
    funding: Mapping[str, list[FundingRate]] = field(default_factory=dict)
    interest: dict[str, float] = field(default_factory=dict)  # base units, as of now
    recent_days: int = 30
    faults: deque[Fault] = field(default_factory=deque)
    where: str = ""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def ccxt(self) -> dict[str, Any]:
        """Return the value of `exchange.ccxt` that points ccxt here."""
        return {"urls": {"api": dict.fromkeys(("spot", "mix", "common", "margin"), self.url)}}

    def disturb(self, *faults: Fault, where: str = "") -> None:
        """Give these answers to the next requests whose path holds `where`."""
        self.where = where
        self.faults.extend(faults)

    def asked(self, part: str) -> list[dict[str, str]]:
        """Return the parameters of the requests whose path holds `part`."""
        return [query for path, query in self.requests if part in path]

    def answer(self, path: str, query: dict[str, str]) -> Any:
        """Return the `data` of one request. Raises Refused."""
        venue = "spot" if "/spot/" in path else "mix"
        answers: dict[str, Callable[[], Any]] = {
            "public/time": lambda: {"serverTime": str(self.now_ms())},
            "spot/public/symbols": lambda: [_spot_record(s) for s in self.truth if ":" not in s],
            "spot/public/coins": list,
            "margin/currencies": list,
            "mix/market/contracts": lambda: [
                _swap_record(s) for s in self.truth if ":" in s and _is_usdt(query)
            ],
            "mix/market/history-fund-rate": lambda: self._funding(query),
            "mix/market/open-interest": lambda: self._interest(query),
            f"{venue}/market/candles": lambda: self._candles(venue, query, recent=True),
            f"{venue}/market/history-candles": lambda: self._candles(venue, query, recent=False),
        }
        answer = answers.get(path.removeprefix("/api/v2/"))
        if answer is None:
            raise Refused("40404", f"Request URL NOT FOUND: {path}")
        return answer()

    def _candles(self, venue: str, query: dict[str, str], *, recent: bool) -> list[list[str]]:
        timeframe = GRANULARITIES[venue].get(query["granularity"])
        if timeframe is None:
            raise Refused("400172", "Parameter verification failed: granularity")
        bars = self.truth[self._symbol(venue, query)]
        if bars.timeframe != timeframe:
            bars = aggregated(part(bars, 0, self.now_ms()), timeframe)
        now_ms, step_ms = self.now_ms(), tf_ms(timeframe)
        start_ms, end_ms = int(query.get("startTime", 0)), int(query.get("endTime", now_ms))
        if start_ms > end_ms:
            raise Refused("40020", "startTime must not be after endTime")
        if venue == "spot" and not recent:
            start_ms = 0  # history-candles of spot knows only endTime
        if recent:
            days = self.recent_days * max(1, step_ms // HOUR_MS) * (2 if step_ms >= HOUR_MS else 1)
            start_ms = max(start_ms, now_ms - days * DAY_MS)
        end_ms = min(end_ms + (1 if self.end_counts else 0), now_ms + 1)
        limit = min(int(query.get("limit", 100)), RECENT_MAX if recent else HISTORY_MAX)
        first, last = np.searchsorted(bars.ts_ms, (start_ms, end_ms))
        window = bars[max(int(first), int(last) - limit) : int(last)]
        return [_row(window, i, now_ms - step_ms) for i in range(len(window))]

    def _funding(self, query: dict[str, str]) -> list[dict[str, str]]:
        symbol = self._symbol("mix", query)
        rates = [r for r in self.funding.get(symbol, []) if r.ts_ms <= self.now_ms()][::-1]
        size, page = int(query.get("pageSize", 20)), int(query.get("pageNo", 1))
        return [
            {"symbol": query["symbol"], "fundingRate": repr(rate), "fundingTime": str(ts_ms)}
            for ts_ms, rate in rates[(page - 1) * size : page * size]
        ]

    def _interest(self, query: dict[str, str]) -> dict[str, Any]:
        size = self.interest.get(self._symbol("mix", query), 0.0)
        row = {"symbol": query["symbol"], "size": repr(size)}
        return {"openInterestList": [row], "ts": str(self.now_ms())}

    def _symbol(self, venue: str, query: dict[str, str]) -> str:
        names = {
            _market_id(symbol): symbol
            for symbol in self.truth
            if (":" in symbol) == (venue == "mix")
        }
        if query["symbol"] not in names:
            raise Refused("40034", f"Parameter {query['symbol']} does not exist")
        return names[query["symbol"]]


def _is_usdt(query: dict[str, str]) -> bool:
    return query.get("productType") == "USDT-FUTURES"


def _market_id(symbol: str) -> str:
    return symbol.split(":", maxsplit=1)[0].replace("/", "")


def _row(bars: Candles, i: int, closed_until_ms: int) -> list[str]:
    """Return a candle as Bitget writes it; one that is still forming with half of its story."""
    ts_ms, *values = (column[i].item() for column in bars.columns())
    if ts_ms > closed_until_ms:
        values = [values[0]] * 4 + [values[4] / 2]
    return [str(ts_ms), *map(repr, values), repr(values[3] * values[4])]


def _spot_record(symbol: str) -> dict[str, str]:
    base, quote = symbol.split("/")
    return {
        "symbol": _market_id(symbol), "baseCoin": base, "quoteCoin": quote,
        "minTradeAmount": "0.0001", "maxTradeAmount": "10000000000", "takerFeeRate": "0.002",
        "makerFeeRate": "0.001", "pricePrecision": "2", "quantityPrecision": "6",
        "quotePrecision": "8", "status": "online", "minTradeUSDT": "1",
    }  # fmt: skip


def _swap_record(symbol: str) -> dict[str, Any]:
    base, quote = symbol.split(":", maxsplit=1)[0].split("/")
    return {
        "symbol": _market_id(symbol), "baseCoin": base, "quoteCoin": quote,
        "makerFeeRate": "0.0002", "takerFeeRate": "0.0006", "supportMarginCoins": [quote],
        "minTradeNum": "0.01", "priceEndStep": "5", "volumePlace": "2", "pricePlace": "1",
        "sizeMultiplier": "0.01", "symbolType": "perpetual", "minTradeUSDT": "5",
        "symbolStatus": "normal", "fundInterval": "8", "minLever": "1", "maxLever": "125",
    }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    """Speaks for the BitgetServer of its HTTP server."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for an acknowledgement
    bitget: BitgetServer

    def do_GET(self) -> None:
        """Answer from the truth, unless a fault is due."""
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        self.bitget.requests.append((url.path, query))
        if self.bitget.faults and self.bitget.where in url.path:
            self._disturbed(self.bitget.faults.popleft())
            return
        try:
            data = self.bitget.answer(url.path, query)
        except Refused as refused:
            self._send(400, json.dumps(refused.body))
            return
        body = {"code": "00000", "msg": "success", "requestTime": 0, "data": data}
        self._send(200, json.dumps(body))

    def _disturbed(self, fault: Fault) -> None:
        if fault.reset:
            linger_none = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_none)
            self.close_connection = True
            self.connection.close()
            return
        self._send(fault.status, fault.body, content_type=fault.content_type)

    def _send(self, status: int, body: str, *, content_type: str = "application/json") -> None:
        payload = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Stay silent."""


@contextmanager
def serving(bitget: BitgetServer) -> Iterator[BitgetServer]:
    """Serve on a free loopback port; `bitget.url` says where."""
    handler = type("Handler", (_Handler,), {"bitget": bitget})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        bitget.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield bitget
        finally:
            server.shutdown()
            thread.join()
