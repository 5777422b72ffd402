"""What a loopback Bitget knows, and its answers: candles, market lists, funding, the time.

It keeps the documented limits: `candles` holds the last month only and gives at most 1000 rows,
`history-candles` at most 200; where a window holds more rows than the limit, its *end* is given.
The forming candle is in every page that reaches now, and so is a bar of any timeframe with
whatever minutes it has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from core.domain import Candles, FundingRate
from core.timeframe import DAY_MS, HOUR_MS, floor_ms, tf_ms
from tests.engine_world import aggregated
from tests.worlds import picked

GRANULARITIES = {
    "spot": {"1min": "1m", "5min": "5m", "15min": "15m", "1h": "1h", "4h": "4h", "1Dutc": "1d"},
    "mix": {"1m": "1m", "5m": "5m", "15m": "15m", "1H": "1h", "4H": "4h", "1Dutc": "1d"},
}
RECENT_MAX, HISTORY_MAX = 1000, 200
REMOVED = {"spot": "40034", "mix": "40309"}


class Refused(Exception):  # noqa: N818
    """An answer with an error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.body = {"code": code, "msg": message, "requestTime": 0, "data": None}


class Draft(NamedTuple):
    """What a closed candle looks like until it is corrected."""

    until_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float


@dataclass
class Book:
    """What the exchange knows, and what of it can be seen when.

    `truth` maps unified symbols to 1m candles. `end_counts` says whether a candle that opens
    exactly at endTime is part of a window. A candle is named by (symbol, open): `late_ms` says
    from when on it is shown, `drafts` what is shown before the truth. `delisted_ms` says from when
    on a symbol is unknown.
    """

    truth: Mapping[str, Candles]
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    end_counts: bool = False
    funding: Mapping[str, list[FundingRate]] = field(default_factory=dict)
    interest: dict[str, float] = field(default_factory=dict)  # base units, as of now
    recent_days: int = 30
    late_ms: dict[tuple[str, int], int] = field(default_factory=dict)
    drafts: dict[tuple[str, int], Draft] = field(default_factory=dict)
    delisted_ms: dict[str, int] = field(default_factory=dict)

    def answer(self, path: str, query: Mapping[str, str]) -> Any:
        """Return the `data` of one request. Raises Refused."""
        venue = "spot" if "/spot/" in path else "mix"
        answers: dict[str, Callable[[], Any]] = {
            "public/time": lambda: {"serverTime": str(self.now_ms())},
            "spot/public/symbols": lambda: [_spot_record(s) for s in self._listed("spot")],
            "spot/public/coins": list,
            "margin/currencies": list,
            "mix/market/contracts": lambda: [
                _swap_record(s) for s in self._listed("mix") if _is_usdt(query)
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

    def bars(
        self, symbol: str, timeframe: str, *, start_ms: int, end_ms: int, at_most: int
    ) -> Candles:
        """Return the last bars that open in [start_ms, end_ms), as they look now."""
        step = tf_ms(timeframe)
        low, high = -floor_ms(-start_ms, step), -floor_ms(-end_ms, step)
        n_minutes = (at_most + 1) * (step // tf_ms("1m"))  # one bar more: the first may be cut
        minutes = self._minutes(symbol, low, high, n_minutes)
        bars = minutes if timeframe == "1m" else aggregated(minutes, timeframe)
        return bars[max(0, len(bars) - at_most) :]

    def _minutes(self, symbol: str, start_ms: int, end_ms: int, at_most: int) -> Candles:
        """Return at least the last `at_most` minutes of a window, if it holds so many."""
        now_ms, bars = self.now_ms(), self.truth[symbol]
        hidden = [ts for (s, ts), at_ms in self.late_ms.items() if s == symbol and at_ms > now_ms]
        first, last = np.searchsorted(bars.ts_ms, (start_ms, min(end_ms, now_ms + 1)))
        first = max(int(first), int(last) - at_most - len(hidden))
        window = bars[first : max(first, int(last))]
        found = picked(window, ~np.isin(window.ts_ms, hidden))
        for (name, ts_ms), draft in self.drafts.items():
            if name == symbol and draft.until_ms > now_ms:
                for column, value in zip(found.columns()[1:], draft[1:], strict=True):
                    column[found.ts_ms == ts_ms] = value
        if len(found) and found.ts_ms[-1] + tf_ms("1m") > now_ms:  # forming: half of its story
            for column in (found.high, found.low, found.close):
                column[-1] = found.open[-1]
            found.volume[-1] /= 2
        return found

    def _candles(self, venue: str, query: Mapping[str, str], *, recent: bool) -> list[list[str]]:
        timeframe = GRANULARITIES[venue].get(query["granularity"])
        if timeframe is None:
            raise Refused("400172", "Parameter verification failed: granularity")
        symbol, now_ms, step_ms = self._symbol(venue, query), self.now_ms(), tf_ms(timeframe)
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
        bars = self.bars(symbol, timeframe, start_ms=start_ms, end_ms=end_ms, at_most=limit)
        return _rows(bars)

    def _interest(self, query: Mapping[str, str]) -> dict[str, Any]:
        size = self.interest.get(self._symbol("mix", query), 0.0)
        row = {"symbol": query["symbol"], "size": repr(size)}
        return {"openInterestList": [row], "ts": str(self.now_ms())}

    def _funding(self, query: Mapping[str, str]) -> list[dict[str, str]]:
        symbol = self._symbol("mix", query)
        rates = [r for r in self.funding.get(symbol, []) if r.ts_ms <= self.now_ms()][::-1]
        size, page = int(query.get("pageSize", 20)), int(query.get("pageNo", 1))
        return [
            {"symbol": query["symbol"], "fundingRate": repr(rate), "fundingTime": str(ts_ms)}
            for ts_ms, rate in rates[(page - 1) * size : page * size]
        ]

    def _listed(self, venue: str) -> list[str]:
        now_ms, is_mix = self.now_ms(), venue == "mix"
        return [
            symbol
            for symbol in self.truth
            if (":" in symbol) == is_mix and self.delisted_ms.get(symbol, now_ms + 1) > now_ms
        ]

    def _symbol(self, venue: str, query: Mapping[str, str]) -> str:
        wanted = query["symbol"]
        for symbol in self._listed(venue):
            if market_id(symbol) == wanted:
                return symbol
        if any(market_id(symbol) == wanted for symbol in self.delisted_ms):
            raise Refused(REMOVED[venue], f"The contract {wanted} has been removed")
        raise Refused("40034", f"Parameter {wanted} does not exist")


def market_id(symbol: str) -> str:
    """Return a symbol as Bitget writes it."""
    return symbol.split(":", maxsplit=1)[0].replace("/", "")


def _rows(bars: Candles) -> list[list[str]]:
    """Return candles as Bitget writes them."""
    columns = (column.tolist() for column in bars.columns())
    return [
        [str(ts_ms), *map(repr, values), repr(values[3] * values[4])]
        for ts_ms, *values in zip(*columns, strict=True)
    ]


def _is_usdt(query: Mapping[str, str]) -> bool:
    return query.get("productType") == "USDT-FUTURES"


def _spot_record(symbol: str) -> dict[str, str]:
    base, quote = symbol.split("/")
    return {
        "symbol": market_id(symbol), "baseCoin": base, "quoteCoin": quote,
        "minTradeAmount": "0.0001", "maxTradeAmount": "10000000000", "takerFeeRate": "0.002",
        "makerFeeRate": "0.001", "pricePrecision": "2", "quantityPrecision": "6",
        "quotePrecision": "8", "status": "online", "minTradeUSDT": "1",
    }  # fmt: skip


def _swap_record(symbol: str) -> dict[str, Any]:
    base, quote = symbol.split(":", maxsplit=1)[0].split("/")
    return {
        "symbol": market_id(symbol), "baseCoin": base, "quoteCoin": quote,
        "makerFeeRate": "0.0002", "takerFeeRate": "0.0006", "supportMarginCoins": [quote],
        "minTradeNum": "0.01", "priceEndStep": "5", "volumePlace": "2", "pricePlace": "1",
        "sizeMultiplier": "0.01", "symbolType": "perpetual", "minTradeUSDT": "5",
        "symbolStatus": "normal", "fundInterval": "8", "minLever": "1", "maxLever": "125",
    }  # fmt: skip
