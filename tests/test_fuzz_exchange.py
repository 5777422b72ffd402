"""What an exchange may answer: bars by the law or an ExchangeError of one line, nothing else.

The real ccxt client reads every answer: a loopback Bitget whose replies are bent on their way.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ccxt
import numpy as np
import pytest

from core.candle_law import lawful
from core.config import config_from
from core.domain import Candles, FundingRate
from core.exchange.ccxt_adapter import CcxtExchange
from core.exchange.lanes import Pacer
from core.funding_law import MAX_RATE_FRAC
from core.timeframe import HOUR_MS, MINUTE_MS
from tests.bitget_server import BitgetServer, Fault, serving
from tests.mutations import MORE, bent, mutated, refused
from tests.worlds import random_candles

SWAP, SPOT = "BTC/USDT:USDT", "ETH/USDT"
NOW_MS = 1_717_243_230_000  # 2024-06-01 12:00:30 UTC
START_MS = NOW_MS // MINUTE_MS * MINUTE_MS - 60 * MINUTE_MS
WINDOW = {"start_ms": START_MS, "end_ms": START_MS + 60 * MINUTE_MS}


@dataclass
class BentServer(BitgetServer):
    """A Bitget whose next replies on some path are bent by a case's own chance."""

    chance: random.Random | None = None
    part: str = ""

    def reply(self, path: str, query: Mapping[str, str]) -> tuple[int, str]:
        status, body = super().reply(path, query)
        if self.chance is None or self.part not in path:
            return status, body
        if self.chance.random() < 0.2:
            raw = mutated(body.encode(), self.chance)
            return self.chance.choice((200, 200, status, 418, 500)), raw.decode("utf-8", "replace")
        whole = json.loads(body)
        if self.chance.random() < 0.8:
            whole["data"] = bent(whole["data"], self.chance)
        else:
            whole = bent(whole, self.chance)
        return status, json.dumps(whole)


@pytest.fixture(scope="module")
def server() -> Iterator[BentServer]:
    """An hour of candles, a month of funding, an open interest."""
    truth = {
        symbol: random_candles(240, seed, start_ms=START_MS - 60 * MINUTE_MS)
        for seed, symbol in enumerate((SWAP, SPOT))
    }
    rates = [FundingRate(START_MS // HOUR_MS * HOUR_MS - 8 * i * HOUR_MS, 1e-4) for i in range(90)]
    book = BentServer(truth, now_ms=lambda: NOW_MS, funding={SWAP: rates[::-1]})
    book.interest[SWAP] = 1234.5
    with serving(book) as made:
        yield book
        assert made is book


@pytest.fixture(scope="module")
def exchange(server: BentServer) -> Iterator[CcxtExchange]:
    """Our adapter; it waits for nothing."""
    settings = {"id": "bitget", "rate_limit_ms": 1, "ccxt": server.ccxt()}
    config = config_from({"exchange": settings, "symbols": [SWAP, SPOT]})
    made = CcxtExchange.open(config, sleep=lambda _: None, rng=random.Random(7))
    made.markets((SWAP, SPOT))
    yield made
    made.close()


def want_bars(found: Candles) -> None:
    """All of a window's bars are lawful."""
    rows = np.column_stack(found.columns()).astype(np.float64)
    assert lawful(rows, timeframe="1m", **WINDOW)[1] == {}


def want_records(found: Any) -> None:
    """Numbers that can be counted with."""
    for record in found.values():
        assert 0 < record.tick < math.inf
        assert 0 < record.contract_size < math.inf
        for least in (record.step, record.min_qty, record.min_cost_usd):
            assert 0 <= least < math.inf
        assert -0.1 < record.maker_frac < 0.1
        assert -0.1 < record.taker_frac < 0.1


def want_rates(found: list[FundingRate]) -> None:
    """Rates of the window, in order, each once."""
    times = [rate.ts_ms for rate in found]
    assert times == sorted(set(times))
    assert all(0 <= rate.ts_ms < NOW_MS and abs(rate.rate_frac) < MAX_RATE_FRAC for rate in found)


def want_time(found: int) -> None:
    """An instant of this age: not in seconds, not of another calendar."""
    assert 1_230_768_000_000 <= found < 4_102_444_800_000


def want_number(found: float | None) -> None:
    """A number that can be stored, or none."""
    assert found is None or 0 <= found < math.inf


Asked = tuple[str, Callable[[CcxtExchange], Any], Callable[[Any], None]]
ASKED: dict[str, Asked] = {
    "recent": ("market/candles", lambda x: x.candles(SWAP, "1m", **WINDOW), want_bars),
    "spot": ("market/candles", lambda x: x.candles(SPOT, "1m", **WINDOW), want_bars),
    "contracts": ("mix/market/contracts", lambda x: x.markets((SWAP,), fresh=True), want_records),
    "symbols": ("public/symbols", lambda x: x.markets((SPOT,), fresh=True), want_records),
    "time": ("public/time", lambda x: x.server_time_ms(), want_time),
    "funding": (
        "history-fund-rate",
        lambda x: x.funding(SWAP, start_ms=0, end_ms=NOW_MS),
        want_rates,
    ),
    "interest": ("open-interest", lambda x: x.open_interest(SWAP), want_number),
}


def answer(ask: Callable[[CcxtExchange], Any], of: CcxtExchange) -> tuple[str, list[Any]]:
    """What was said of an answer, and what was made of it where it was taken."""
    found: list[Any] = []
    return refused(lambda: found.append(ask(of))), found


def answers_kept_out(server: BentServer, exchange: CcxtExchange, kind: str, cases: range) -> int:
    """Ask once for each case while answers are bent; returns how often an ExchangeError came."""
    part, ask, want = ASKED[kind]
    n_refused = 0
    for number in cases:
        server.chance, server.part = random.Random(f"{kind} {number}"), part
        n_before = len(server.requests)
        try:
            said, found = answer(ask, exchange)
        finally:
            server.chance = None
        assert said == "" or "bitget" in said
        assert len(server.requests) - n_before < 60
        for one in found:
            want(one)
        n_refused += bool(said)
    ask(exchange)  # nothing of it stays: the next good answer is taken
    return n_refused


@pytest.mark.parametrize("kind", ASKED)
def test_bent_answers_are_read_by_the_law_or_refused(
    server: BentServer, exchange: CcxtExchange, kind: str
) -> None:
    """None, text, NaN, 400 digits, short rows, lists in lists, half a body, a web page."""
    assert answers_kept_out(server, exchange, kind, range(40)) > 0


@pytest.mark.long
@pytest.mark.parametrize("kind", ASKED)
def test_many_bent_answers_are_read_by_the_law_or_refused(
    server: BentServer, exchange: CcxtExchange, kind: str
) -> None:
    """The same with more of them."""
    assert answers_kept_out(server, exchange, kind, range(40, 40 + 40 * MORE)) > 20


@pytest.mark.parametrize(
    "body",
    ["[" * 100_000, '{"data":' * 50_000, "9" * 5000, '{"data":{"serverTime":1e999}}', "NaN", '"x"'],
)
@pytest.mark.parametrize("kind", ASKED)
def test_a_body_that_is_no_answer_is_refused(
    server: BentServer, exchange: CcxtExchange, kind: str, body: str
) -> None:
    """Too deep to be read, a number of its own, a time without end."""
    part, ask, want = ASKED[kind]
    server.disturb(*[Fault(200, body)] * 20, where=part)
    try:
        found = answer(ask, exchange)[1]
    finally:
        server.faults.clear()
    for one in found:
        want(one)


GOOD: dict[str, Any] = {  # what ccxt itself returns of any exchange
    "fetch_ohlcv": [[START_MS + i * MINUTE_MS, 10.0, 11.0, 9.0, 10.5, 3.0] for i in range(60)],
    "fetch_time": NOW_MS,
    "fetch_funding_rate_history": [
        {"symbol": SWAP, "timestamp": START_MS - i * HOUR_MS, "fundingRate": 1e-4} for i in range(9)
    ],
    "fetch_open_interest": {"symbol": SWAP, "openInterestAmount": 7.0, "timestamp": NOW_MS},
    "markets": {
        "symbol": SWAP, "id": "BTCUSDT", "swap": True, "spot": False, "active": True,
        "contractSize": 0.001, "maker": 0.0002, "taker": 0.0005, "base": "BTC", "quote": "USDT",
        "precision": {"price": 0.1, "amount": 0.001},
        "limits": {"amount": {"min": 0.001}, "cost": {"min": 5.0}},
    },
}  # fmt: skip


class OddClient(ccxt.binanceusdm):  # type: ignore[misc]
    """The client of another exchange whose own methods return what no exchange should say."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__({"enableRateLimit": False})
        self.chance: random.Random | None = None
        record = {**self.safe_market_structure(), **GOOD["markets"]}
        self.good, self.bends = {**GOOD, "markets": record}, ""
        self.chance = chance

    def told(self, name: str) -> Any:
        """What is returned now: bent where this is the method to be bent."""
        good = self.good[name]
        return bent(good, self.chance) if self.bends == name and self.chance else good

    def fetch_ohlcv(self, *_: Any, **__: Any) -> Any:
        return self.told("fetch_ohlcv")

    def fetch_time(self, *_: Any, **__: Any) -> Any:
        return self.told("fetch_time")

    def fetch_funding_rate_history(self, *_: Any, **__: Any) -> Any:
        return self.told("fetch_funding_rate_history")

    def fetch_open_interest(self, *_: Any, **__: Any) -> Any:
        return self.told("fetch_open_interest")

    def load_markets(self, *_: Any, **__: Any) -> Any:
        self.markets = {SWAP: self.told("markets")}
        return self.markets


UNIFIED: dict[str, tuple[Callable[[CcxtExchange], Any], Callable[[Any], None]]] = {
    "fetch_ohlcv": (lambda x: x.candles(SWAP, "1m", **WINDOW), want_bars),
    "fetch_time": (lambda x: x.server_time_ms(), want_time),
    "fetch_funding_rate_history": (
        lambda x: x.funding(SWAP, start_ms=0, end_ms=NOW_MS),
        want_rates,
    ),
    "fetch_open_interest": (lambda x: x.open_interest(SWAP), want_number),
    "markets": (lambda x: x.markets((SWAP,), fresh=True), want_records),
}


def odd_values_kept_out(method: str, cases: range) -> None:
    """Let one method of the client return odd values, case by case."""
    client = OddClient(random.Random(0))
    made = CcxtExchange(
        lambda: client,
        symbols=(SWAP,),
        page_limit=500,
        n_lanes=1,
        pacer=Pacer(0.0),
        sleep=lambda _: None,
    )
    ask, want = UNIFIED[method]
    want(ask(made))
    for number in cases:
        client.chance, client.bends = random.Random(f"{method} {number}"), method
        for one in answer(ask, made)[1]:
            want(one)
        client.bends = ""
        made.markets((SWAP,), fresh=True)


@pytest.mark.parametrize("method", UNIFIED)
def test_odd_values_of_any_client_are_read_by_the_law_or_refused(method: str) -> None:
    """Another exchange's client may return what Bitget's would not."""
    odd_values_kept_out(method, range(60))


@pytest.mark.long
@pytest.mark.parametrize("method", UNIFIED)
def test_many_odd_values_of_any_client_are_read_by_the_law_or_refused(method: str) -> None:
    """The same with more of them."""
    odd_values_kept_out(method, range(60, 60 + 60 * MORE))


@pytest.mark.parametrize("places", [2**31, -(2**31), "9" * 30])
def test_a_price_of_a_billion_decimal_places_is_refused_at_once(
    server: BentServer, exchange: CcxtExchange, places: int | str
) -> None:
    """They would all be written; and the record that is there stays."""
    before = exchange.markets((SPOT,))
    record = json.loads(BitgetServer.reply(server, "/api/v2/spot/public/symbols", {})[1])
    record["data"][0]["pricePrecision"] = places
    server.disturb(Fault(200, json.dumps(record)), where="public/symbols")
    assert "decimal places" in refused(lambda: exchange.markets((SPOT,), fresh=True))
    assert exchange.markets((SPOT,)) == before
