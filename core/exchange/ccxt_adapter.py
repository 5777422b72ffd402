"""Any exchange ccxt knows, made safe: paced, retried, paged without holes, every row validated."""

from __future__ import annotations

import difflib
import random
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np

from core.candle_law import finest_step, lawful
from core.config import Config
from core.domain import Candles, FundingRate, Market
from core.errors import ConfigError, ExchangeError, ExchangeUnavailable
from core.exchange import ccxt_stats
from core.timeframe import floor_ms, tf_ms

TRIES = 5
BACKOFF_S = 0.5
BACKOFF_CAP_S = 8.0
OVERLAP_BARS = 1  # asked for on top of a window, so that it stays whole however its ends are read
_TIMEOUT_MS = 10_000
_DEFAULT_PAGE = 500
_HISTORY_PAGE = {"bitget": 200}  # a larger page of old bars comes back without its beginning
_TYPED_MARKETS = ("bitget",)  # where `options.fetchMarkets.types` takes 'spot' and 'swap'
_UNREADABLE = (LookupError, TypeError, ValueError, AttributeError)


class Pacer:
    """At most one request per interval, over all threads that share it."""

    def __init__(
        self,
        interval_s: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval_s = interval_s
        self._monotonic = monotonic
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at_s = float("-inf")

    def take(self) -> None:
        """Wait for the next free slot and use it up."""
        with self._lock:
            now_s = self._monotonic()
            slot_s = max(now_s, self._free_at_s)
            self._free_at_s = slot_s + self._interval_s
        if slot_s > now_s:
            self._sleep(slot_s - now_s)


class CcxtExchange:
    """One ccxt client behind our own limiter, retries and laws; threads may share it.

    Where ccxt goes by the local clock, it is given the exchange's, as last read.
    """

    def __init__(
        self,
        client: Any,
        *,
        symbols: tuple[str, ...],
        page_limit: int,
        pacer: Pacer,
        sleep: Callable[[float], None] = time.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self.id = str(client.id)
        self._client = client
        self._page_limit = page_limit
        self._sleep = sleep
        self._rng = rng or random.Random()
        self._lock = threading.RLock()
        self._kinds = {_kind(symbol) for symbol in symbols}
        self._offset_ms: int | None = None
        client.fetch = _checked(client, pacer)
        client.milliseconds = self._estimated_ms

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
        import ccxt

        name = config.exchange.id
        if name not in ccxt.exchanges:
            near = difflib.get_close_matches(name, [*ccxt.exchanges, "replay"], n=1)
            raise ConfigError(
                f"exchange.id {name!r} is not known to ccxt;",
                remedy=f"did you mean {near[0]!r}?" if near else "write one like 'bitget'",
            )
        ours = {"timeout": _TIMEOUT_MS, "has": {"fetchCurrencies": False}}
        settings = ccxt.Exchange.deep_extend(ours, config.exchange.ccxt)
        client = getattr(ccxt, name)({**settings, "enableRateLimit": False})
        return cls(
            client,
            symbols=config.symbols,
            page_limit=config.backfill.batch_limit,
            pacer=Pacer(config.exchange.rate_limit_ms / 1000, sleep=sleep),
            sleep=sleep,
            rng=rng,
        )

    def server_time_ms(self) -> int:
        """Return the exchange's own time, UTC ms.

        Raises ExchangeError where an exchange does not tell its time: without it no candle could
        be known to be final.
        """
        if not self._client.has.get("fetchTime"):
            raise ExchangeError(
                f"{self.id} does not tell its time;", remedy="choose another exchange.id"
            )
        now_ms = int(self._call("server time", self._client.fetch_time))
        self._offset_ms = now_ms - _wall_ms()
        return now_ms

    def markets(self, symbols: tuple[str, ...], *, fresh: bool = False) -> dict[str, Market]:
        """Return the records of the spot and swap symbols it lists; the others are absent.

        The list is asked for once; `fresh`: again.
        """
        self._prepare({_kind(symbol) for symbol in symbols})
        if fresh:
            with self._lock:
                self._call("market list", self._client.load_markets, True)
        return ccxt_stats.market_records(self._client, symbols, observed_tick=self._observed_tick)

    def candles(self, symbol: str, timeframe: str, *, start_ms: int, end_ms: int) -> Candles:
        """Return the lawful bars that open in [start_ms, end_ms), as the exchange has them now.

        The newest may be forming. Wider windows are read page by page; a page is advanced by its
        last bar, and an empty page is a hole to be walked over. Raises ExchangeError for a symbol
        or timeframe that is not served, ExchangeUnavailable when retries run out.
        """
        self._prepare({_kind(symbol)})
        step_ms, now_ms = tf_ms(timeframe), self._estimated_ms()
        page_ms = self.page_bars(timeframe, start_ms=start_ms, now_ms=now_ms) * step_ms
        until_ms = min(end_ms, now_ms + step_ms)
        cursor_ms = -floor_ms(-start_ms, step_ms)
        rows: list[list[Any]] = []
        while cursor_ms < until_ms:
            page_end_ms = min(cursor_ms + page_ms, until_ms)
            page = self._page(symbol, timeframe, start_ms=cursor_ms, end_ms=page_end_ms)
            rows += page
            reached_ms = max((int(row[0]) + step_ms for row in page), default=page_end_ms)
            if reached_ms + step_ms > now_ms:
                break  # what is left has not closed yet
            cursor_ms = reached_ms
        return lawful(rows, timeframe=timeframe, start_ms=start_ms, end_ms=end_ms)[0]

    def page_bars(self, timeframe: str, *, start_ms: int, now_ms: int) -> int:  # noqa: ARG002
        """Return how many bars one request may ask for, at any age.

        One fewer than the exchange's own page: a request overlaps its window, because whether the
        ends count differs between exchanges and is not always documented.
        """
        page = min(self._page_limit, _HISTORY_PAGE.get(self.id, _DEFAULT_PAGE))
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
        self._client.close()

    def _estimated_ms(self) -> int:
        """Return the exchange's time as last read, carried on by the local clock."""
        return _wall_ms() + (self._offset_ms or 0)

    def _prepare(self, kinds: set[str]) -> None:
        """Load the market list, once, and the exchange's time before the first request by time."""
        with self._lock:
            if self._offset_ms is None and self._client.has.get("fetchTime"):
                self.server_time_ms()
            missing = not kinds <= self._kinds
            self._kinds |= kinds
            if self._client.markets and not (missing and self.id in _TYPED_MARKETS):
                return
            if self.id in _TYPED_MARKETS:
                self._client.options["fetchMarkets"] = {"types": sorted(self._kinds)}
            self._call("market list", self._client.load_markets, True)

    def _page(self, symbol: str, timeframe: str, *, start_ms: int, end_ms: int) -> list[list[Any]]:
        """Return the raw rows of [start_ms, end_ms) from one request, which asks for a bar before.

        Bitget counts its rows back from an end that ccxt derives from `since` and `limit`; with
        the bar before, the window is whole whether a bar that opens at that end counts or not.
        """
        step_ms = tf_ms(timeframe)
        limit = (end_ms - start_ms + step_ms - 1) // step_ms + OVERLAP_BARS
        rows = self._call(
            f"{timeframe} candles of {symbol}",
            self._client.fetch_ohlcv,
            symbol,
            timeframe,
            start_ms - step_ms,
            limit,
        )
        return [row for row in rows if row[0] is not None and start_ms <= row[0] < end_ms]

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

    def _call(self, what: str, request: Callable[..., Any], *args: Any) -> Any:
        """Send a request; retry what ccxt calls a NetworkError, with growing, jittered waits."""
        import ccxt

        for attempt in count(1):
            try:
                return request(*args)
            except ccxt.NetworkError as error:
                if attempt >= TRIES:
                    raise ExchangeUnavailable(
                        f"{self.id}: {what} failed {TRIES} times, last with {_said(error)};",
                        remedy="it is retried later; check the network if it stays",
                    ) from error
            except ccxt.BadSymbol as error:
                raise ExchangeError(
                    f"{self.id} does not list what {what} asks for: {_said(error)};",
                    remedy="correct symbols: BTC/USDT is spot, BTC/USDT:USDT the perpetual",
                ) from error
            except ccxt.BaseError as error:
                raise ExchangeError(
                    f"{self.id} refused {what}: {_said(error)};",
                    remedy="check symbols, timeframes and exchange.ccxt",
                ) from error
            except _UNREADABLE as error:
                raise ExchangeError(
                    f"{self.id} answered {what} with something ccxt cannot read: {_said(error)};",
                    remedy="try a newer ccxt",
                ) from error
            longest_s = min(BACKOFF_CAP_S, BACKOFF_S * 2 ** (attempt - 1))
            self._sleep(longest_s * self._rng.uniform(0.5, 1.0))
        raise AssertionError("unreachable")


def _checked(client: Any, pacer: Pacer) -> Callable[..., Any]:
    """Return the client's `fetch`, paced, and with a body that is no answer made an error.

    ccxt takes a cut, empty or foreign body of a 200 for an answer without rows, and caches what
    it makes of it: a market list without markets, history without candles.
    """
    import ccxt

    plain = client.fetch

    def fetch(url: str, *args: Any, **named: Any) -> Any:
        pacer.take()
        answer = plain(url, *args, **named)
        void = client.id == "bitget" and isinstance(answer, dict) and answer.get("data") is None
        if not isinstance(answer, dict | list) or void:
            raise ccxt.NetworkError(f"{client.id} sent no usable body: {str(answer)[:80]!r}")
        return answer

    return fetch


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _kind(symbol: str) -> str:
    return "swap" if ":" in symbol else "spot"


def _said(error: Exception) -> str:
    """Return the kind of an error and the beginning of what it says, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
