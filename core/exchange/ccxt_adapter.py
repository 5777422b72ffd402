"""Any exchange ccxt knows, made safe: paced, retried, paged without holes, every row validated."""

from __future__ import annotations

import difflib
import math
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import numpy as np

from core.absent import unopened
from core.candle_law import finest_step, holes_in, joined, lawful
from core.config import Config
from core.domain import Candles, FundingRate, Market
from core.errors import ConfigError, ExchangeError
from core.exchange import ccxt_stats
from core.exchange.lanes import Behind, Lanes, Pacer
from core.timeframe import MINUTE_MS, floor_ms, tf_ms

OVERLAP_BARS = 1  # asked for on top of a window, so that it stays whole however its ends are read
_TIMEOUT_MS = 10_000
_DEFAULT_PAGE = 500
_HISTORY_PAGE = {"bitget": 200}  # a larger page of old bars comes back without its beginning
_TYPED_MARKETS = ("bitget",)  # where `options.fetchMarkets.types` takes 'spot' and 'swap'
_SETTLED_MS = 10 * MINUTE_MS  # what is missing longer than this is asked for twice
_LEAST_PAGE = 50  # a page shorter than this says nothing about what the exchange allows
_RELIST_MS = 5 * MINUTE_MS  # while a symbol is not listed, the list is asked for so often
_MOST_LANES = 16
_THIS_AGE_MS = (1_230_768_000_000, 4_102_444_800_000)  # 2009 to 2100: all else is no time in ms
_LONGEST_REPLY_S = 0.8  # replies as slow as this still leave no slot unused


def client_class(name: str) -> Any:
    """Return ccxt's class of an exchange, loaded without the hundred others: 35 MB, 0.2 s.

    Where ccxt is no longer laid out as one module an exchange, all of it is loaded. Raises
    ConfigError, with the nearest id, for one that it does not know.
    """
    with suppress(ImportError, AttributeError), unopened("ccxt") as parts:
        if any(part.name == name and not part.ispkg for part in iter_modules(parts.__path__)):
            return getattr(import_module(f"ccxt.{name}"), name)
    import ccxt

    if name not in ccxt.exchanges:
        near = difflib.get_close_matches(name, [*ccxt.exchanges, "replay"], n=1)
        raise ConfigError(
            f"exchange.id {name!r} is not known to ccxt;",
            remedy=f"did you mean {near[0]!r}?" if near else "write one like 'bitget'",
        )
    return getattr(ccxt, name)


class CcxtExchange:
    """ccxt behind our own limiter, retries and laws; any number of threads may share it.

    Where ccxt goes by the local clock, it is given the exchange's, as last read.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        *,
        symbols: tuple[str, ...],
        page_limit: int,
        n_lanes: int,
        pacer: Pacer | Behind,
        sleep: Callable[[float], None] = time.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._again: dict[str, Any] = {
            "make": make,
            "symbols": symbols,
            "page_limit": page_limit,
            "n_lanes": n_lanes,
            "sleep": sleep,
            "rng": rng,
        }
        self._pacer = pacer

        def client() -> Any:
            made = make()
            made.milliseconds = self._estimated_ms
            return made

        self._offset_ms: int | None = None
        self._lanes = Lanes(client, n=n_lanes, pacer=pacer, sleep=sleep, rng=rng or random.Random())
        self._call = self._lanes.call
        self._client = self._lanes.lead
        self.id = str(self._client.id)
        self.n_lanes = n_lanes
        self._page_limit = page_limit
        self._short: dict[str, int] = {}  # by timeframe: the length of the last page cut short …
        self._longest: dict[str, int] = {}  # … and of two in a row: what the exchange allows
        self._lock = threading.RLock()
        self._listed_ms = 0  # when the market list was loaded; 0 before it is
        self._kinds = {_kind(symbol) for symbol in symbols}

    @classmethod
    def open(
        cls,
        config: Config,
        *,
        sleep: Callable[[float], None] = time.sleep,
        rng: random.Random | None = None,
    ) -> CcxtExchange:
        """Make the client of `exchange.id`, with `exchange.ccxt` merged into its constructor.

        No request is sent. Raises ConfigError for an id that ccxt does not know.
        """
        kind = client_class(config.exchange.id)
        ours = {"timeout": _TIMEOUT_MS, "has": {"fetchCurrencies": False}}
        settings = kind.deep_extend(ours, config.exchange.ccxt)
        interval_s = config.exchange.rate_limit_ms / 1000
        return cls(
            lambda: kind({**settings, "enableRateLimit": False}),
            symbols=config.symbols,
            page_limit=config.backfill.batch_limit,
            n_lanes=min(_MOST_LANES, max(1, math.ceil(_LONGEST_REPLY_S / interval_s))),
            pacer=Pacer(interval_s, sleep=sleep),
            sleep=sleep,
            rng=rng,
        )

    def behind(self) -> CcxtExchange:
        """Return this exchange for work that can wait: its requests let all of ours go first.

        It has clients of its own, so that no request of ours waits for one of them; close it.
        """
        if isinstance(self._pacer, Behind):
            return self
        other = CcxtExchange(**self._again, pacer=self._pacer.behind())
        with self._lock:
            other._offset_ms, other._kinds = self._offset_ms, {*self._kinds}
            if self._client.markets:
                other._client.set_markets_from_exchange(self._client)
                other._listed_ms = self._listed_ms
        return other

    def server_time_ms(self) -> int:
        """Return the exchange's own time, UTC ms.

        Raises ExchangeError where an exchange does not tell its time, or one of another age:
        without it no candle could be known to be final.
        """
        if not self._client.has.get("fetchTime"):
            raise ExchangeError(
                f"{self.id} does not tell its time;", remedy="choose another exchange.id"
            )
        now_ms: int = self._call("server time", lambda client: int(client.fetch_time()))
        if not _THIS_AGE_MS[0] <= now_ms < _THIS_AGE_MS[1]:
            raise ExchangeError(
                f"{self.id} says its time is {str(now_ms)[:20]} ms since 1970;",
                remedy="wait and retry",
            )
        self._offset_ms = now_ms - _wall_ms()
        return now_ms

    def markets(self, symbols: tuple[str, ...], *, fresh: bool = False) -> dict[str, Market]:
        """Return the records of the spot and swap symbols it lists; the others are absent.

        The list is asked for once; `fresh`: again.
        """
        self._prepare({_kind(symbol) for symbol in symbols})
        if fresh:
            with self._lock:
                self._load_markets()
        return ccxt_stats.market_records(self._client, symbols, observed_tick=self._observed_tick)

    def candles(self, symbol: str, timeframe: str, *, start_ms: int, end_ms: int) -> Candles:
        """Return the lawful bars that open in [start_ms, end_ms), as the exchange has them now.

        The newest may be forming. Wider windows are read page by page; what a page lacks that is
        older than ten minutes was asked for at least twice. Raises ExchangeError for a symbol or
        timeframe that is not served, ExchangeUnavailable when retries run out.
        """
        self._prepare({_kind(symbol)}, symbol=symbol)
        step_ms, now_ms = tf_ms(timeframe), self._estimated_ms()
        until_ms = min(end_ms, now_ms + step_ms)
        cursor_ms = -floor_ms(-start_ms, step_ms)
        found = Candles.empty(timeframe)
        while cursor_ms < until_ms:
            page_ms = self.page_bars(timeframe, start_ms=cursor_ms, now_ms=now_ms) * step_ms
            page_end_ms = min(cursor_ms + page_ms, until_ms)
            found = joined(
                found,
                self._confirmed(
                    symbol, timeframe, start_ms=cursor_ms, end_ms=page_end_ms, now_ms=now_ms
                ),
            )
            cursor_ms = page_end_ms
        return found

    def _confirmed(
        self, symbol: str, timeframe: str, *, start_ms: int, end_ms: int, now_ms: int
    ) -> Candles:
        """Return one page; what an old one lacks is asked for until nothing new comes of it.

        An exchange may give less than it was asked for, from either end, without a word; two such
        pages of one length are taken for its limit.
        """
        found = self._page(symbol, timeframe, start_ms=start_ms, end_ms=end_ms)
        n_first = len(found)
        settled_ms = min(end_ms, floor_ms(now_ms - _SETTLED_MS, tf_ms(timeframe)))
        while holes := holes_in(found, start_ms=start_ms, end_ms=settled_ms):
            low, high = holes[0][0], holes[-1][1]
            n_known = len(found)
            more = self._page(symbol, timeframe, start_ms=low, end_ms=high)
            found = joined(found, more)
            if len(found) == n_known:
                break
        if len(found) > n_first >= _LEAST_PAGE:
            if n_first == self._short.get(timeframe):
                self._longest[timeframe] = n_first
            self._short[timeframe] = n_first
        return found

    def serves(self, timeframe: str) -> bool:
        """Say whether it offers candles of a timeframe."""
        return timeframe in (self._client.timeframes or {})

    def page_bars(self, timeframe: str, *, start_ms: int, now_ms: int) -> int:  # noqa: ARG002
        """Return how many bars one request may ask for, at any age.

        No more than pages were seen to hold, and one fewer than the exchange's own page: a request
        overlaps its window, because whether the ends count differs between exchanges and is not
        always documented.
        """
        page = min(
            self._page_limit,
            _HISTORY_PAGE.get(self.id, _DEFAULT_PAGE),
            self._longest.get(timeframe, _DEFAULT_PAGE),
        )
        return max(1, page - OVERLAP_BARS)

    def funding(self, symbol: str, *, start_ms: int, end_ms: int) -> list[FundingRate]:
        """Return funding settlements in [start_ms, end_ms); empty where there are none."""
        if not ccxt_stats.offers_funding(self._client, symbol):
            return []
        self._prepare({"swap"})
        return ccxt_stats.funding_rates(
            self._client,
            self._call,
            symbol,
            start_ms=start_ms,
            end_ms=end_ms,
            now_ms=self._estimated_ms(),
        )

    def open_interest(self, symbol: str) -> float | None:
        """Return the open interest as it is now, base units; None where it is not offered."""
        if not ccxt_stats.offers_open_interest(self._client, symbol):
            return None
        self._prepare({"swap"})
        return ccxt_stats.open_interest_qty(self._client, self._call, symbol)

    def close(self) -> None:
        """Release connections."""
        self._lanes.close()

    def _estimated_ms(self) -> int:
        """Return the exchange's time as last read, carried on by the local clock."""
        return _wall_ms() + (self._offset_ms or 0)

    def _prepare(self, kinds: set[str], *, symbol: str | None = None) -> None:
        """Load the market list, and the exchange's time before the first request by time.

        The list is loaded once, and now and then again while it lacks a symbol that is wanted.
        """
        with self._lock:
            if self._offset_ms is None and self._client.has.get("fetchTime"):
                self.server_time_ms()
            missing = not kinds <= self._kinds
            self._kinds |= kinds
            lacking = symbol is not None and symbol not in (self._client.markets or {})
            is_old = self._estimated_ms() - self._listed_ms >= _RELIST_MS
            if (missing and self.id in _TYPED_MARKETS) or not self._listed_ms or lacking & is_old:
                self._load_markets()

    def _load_markets(self) -> None:
        if self.id in _TYPED_MARKETS:
            self._client.options["fetchMarkets"] = {"types": sorted(self._kinds)}
        self._call("market list", lambda client: client.load_markets(True), lead=True)
        self._listed_ms = self._estimated_ms()

    def _page(self, symbol: str, timeframe: str, *, start_ms: int, end_ms: int) -> Candles:
        """Return the lawful bars of [start_ms, end_ms) from one request, which asks for one before.

        Bitget counts its rows back from an end that ccxt derives from `since` and `limit`; with
        the bar before, the window is whole whether a bar that opens at that end counts or not.
        """
        step_ms = tf_ms(timeframe)
        limit = (end_ms - start_ms + step_ms - 1) // step_ms + OVERLAP_BARS

        def request(client: Any) -> Candles:
            rows = client.fetch_ohlcv(symbol, timeframe, start_ms - step_ms, limit)
            return lawful(rows, timeframe=timeframe, start_ms=start_ms, end_ms=end_ms)[0]

        found: Candles = self._call(f"{timeframe} candles of {symbol}", request)
        return found

    def _observed_tick(self, symbol: str) -> float:
        """Return the finest price step of the last hours, for want of a fixed one."""
        now_ms = self._estimated_ms()
        start_ms = floor_ms(now_ms, tf_ms("1m")) - 180 * tf_ms("1m")
        bars = self.candles(symbol, "1m", start_ms=start_ms, end_ms=now_ms)
        if not len(bars):
            raise ExchangeError(
                f"{self.id} gives no price step for {symbol} and no recent candle to read it from;",
                remedy="remove it from symbols",
            )
        return finest_step(np.concatenate((bars.open, bars.high, bars.low, bars.close)))


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _kind(symbol: str) -> str:
    return "swap" if ":" in symbol else "spot"
