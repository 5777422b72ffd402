"""Requests in flight: one pacer, several ccxt clients, retries, and an end to every answer."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, NamedTuple, Protocol

import requests
import urllib3

from core.errors import ExchangeError, ExchangeUnavailable

TRIES = 5
BACKOFF_S = 0.5
BACKOFF_CAP_S = 8.0
PACE_SLACK = 1.04  # what leaves evenly arrives unevenly: 4 % slower keeps every second's count
_LONGEST_ANSWER_TIMEOUTS = 2.0  # an answer may trickle this many time-outs in all
_LONGEST_CALL_S = 30.0  # no further try is begun after it: an exchange may be slow at each
_MOST_DECIMALS = 100
_CHUNK_BYTES = 65_536
_UNREADABLE = (
    *(LookupError, TypeError, ValueError, AttributeError),
    *(ArithmeticError, RecursionError),  # of numbers without end, of lists in lists in lists
)


class Pace(Protocol):
    """Something that says when the next request may leave."""

    def take(self) -> None:
        """Wait for the next free slot and use it up."""
        ...

    def hold(self, for_s: float) -> None:
        """Let nobody go for some seconds: the exchange said that we ask too much."""
        ...


class Pacer:
    """At most one request per interval, over all threads that share it; none catches up.

    The slot is counted from the moment a request really leaves, so that no sliding second at the
    exchange holds more than one second's worth.
    """

    def __init__(
        self,
        interval_s: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval_s = interval_s * PACE_SLACK
        self._monotonic = monotonic
        self._sleep = sleep
        self._lock = threading.Lock()
        self._counting = threading.Lock()
        self._n_first = 0  # how many wait that go before all who are behind
        self._free_at_s = float("-inf")

    def take(self) -> None:
        """Wait for the next free slot and use it up; others wait behind."""
        with self._counting:
            self._n_first += 1
        try:
            with self._lock:
                wait_s = self._free_at_s - self._monotonic()
                if wait_s > 0:
                    self._sleep(wait_s)
                self._free_at_s = self._monotonic() + self._interval_s
        finally:
            with self._counting:
                self._n_first -= 1

    def hold(self, for_s: float) -> None:
        """Let nobody go for some seconds: the exchange said that we ask too much."""
        with self._lock:
            self._free_at_s = max(self._free_at_s, self._monotonic() + for_s)

    def behind(self) -> Behind:
        """Return the same slots for requests that can wait: they take what nobody else wants."""
        return Behind(self, threading.Lock())

    def take_if_free(self) -> float:
        """Use up a slot that is free now and wanted by nobody; returns the seconds to wait if not.

        0.0: it was taken.
        """
        with self._lock:
            now_s = self._monotonic()
            if self._n_first or now_s < self._free_at_s:
                return max(self._free_at_s - now_s, self._interval_s / 4)
            self._free_at_s = now_s + self._interval_s
            return 0.0

    def pause(self, for_s: float) -> None:
        """Wait without a claim on any slot."""
        self._sleep(for_s)


class Behind(NamedTuple):
    """Who takes slots only while nobody of the front row waits: a backfill beside the live minute.

    One of them waits for a slot at a time; it holds nothing meanwhile, so whoever comes to the
    front row then goes first, and never later than the next slot.
    """

    front: Pacer
    turn: threading.Lock

    def take(self) -> None:
        """Wait for a slot that nobody in front wants."""
        with self.turn:
            while wait_s := self.front.take_if_free():
                self.front.pause(wait_s)

    def hold(self, for_s: float) -> None:
        """Let nobody go, in front neither."""
        self.front.hold(for_s)


class Lanes:
    """Up to `n` ccxt clients of one exchange; each carries one request at a time.

    A ccxt client keeps what it last sent and got on itself, so no two threads may share one.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        *,
        n: int,
        pacer: Pace,
        sleep: Callable[[float], None],
        rng: random.Random,
    ) -> None:
        self.n = n
        self._make = make
        self._pacer = pacer
        self._sleep = sleep
        self._rng = rng
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()
        self._lock = threading.Lock()
        self._clients: list[Any] = []
        self._listed: Any = None
        self.lead = self._new()  # its market list is everybody's

    def call(self, what: str, request: Callable[[Any], Any], *, lead: bool = False) -> Any:
        """Send a request; retry what ccxt calls a NetworkError, with growing, jittered waits.

        `lead` sends it through the client that holds the market list. Raises ExchangeUnavailable
        when the tries, or the time for them, run out, ExchangeError for what no retry can mend.
        """
        until_s = time.monotonic() + _LONGEST_CALL_S
        for attempt in count(1):
            try:
                with self._client(lead=lead) as client:
                    return request(client)
            except Exception as error:
                is_last = attempt >= TRIES or time.monotonic() >= until_s
                self._wait_or_raise(what, error, attempt, is_last=is_last)
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Release the connections of all clients."""
        with self._lock:
            for client in self._clients:
                client.close()

    @contextmanager
    def _client(self, *, lead: bool) -> Iterator[Any]:
        if lead:
            yield self.lead
            return
        client = self._free_client()
        try:
            if self.lead.markets and client.markets is not self.lead.markets:
                client.set_markets_from_exchange(self.lead)
            yield client
        finally:
            self._idle.put(client)

    def _free_client(self) -> Any:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            with self._lock:
                may_make = len(self._clients) <= self.n
            return self._new() if may_make else self._idle.get()

    def _new(self) -> Any:
        client = self._make()
        whole = _WholeAnswers(_LONGEST_ANSWER_TIMEOUTS * client.timeout / 1000)
        whole.trust_env = client.session.trust_env
        client.session = whole
        client.fetch = _checked(client, self._pacer)
        client.parse_precision = _bounded(client.parse_precision)
        with self._lock:
            self._clients.append(client)
        return client

    def _wait_or_raise(self, what: str, error: Exception, attempt: int, *, is_last: bool) -> None:
        from ccxt.base import errors

        name = self.lead.id
        if isinstance(error, errors.NetworkError):
            if is_last:
                raise ExchangeUnavailable(
                    f"{name}: {what} failed {attempt} times, last with {_said(error)};",
                    remedy="it is retried later; check the network if it stays",
                ) from error
            longest_s = min(BACKOFF_CAP_S, BACKOFF_S * 2 ** (attempt - 1))
            wait_s = longest_s * self._rng.uniform(0.5, 1.0)
            too_many = isinstance(error, errors.DDoSProtection | errors.RateLimitExceeded)
            (self._pacer.hold if too_many else self._sleep)(wait_s)  # the one is for all lanes
            return
        if isinstance(error, errors.BadSymbol):
            raise ExchangeError(
                f"{name} does not list what {what} asks for: {_said(error)};",
                remedy="correct symbols: BTC/USDT is spot, BTC/USDT:USDT the perpetual",
            ) from error
        if isinstance(error, errors.BaseError):
            raise ExchangeError(
                f"{name} refused {what}: {_said(error)};",
                remedy="check symbols, timeframes and exchange.ccxt",
            ) from error
        if isinstance(error, _UNREADABLE):
            raise ExchangeError(
                f"{name} answered {what} with something ccxt cannot read: {_said(error)};",
                remedy="try a newer ccxt",
            ) from error
        raise error


class _WholeAnswers(requests.Session):
    """A session whose answers arrive whole within a time, or not at all.

    A time-out of requests bounds each read from the socket: a body that trickles byte by byte
    outlives it.
    """

    def __init__(self, longest_s: float) -> None:
        super().__init__()
        self._longest_s = longest_s

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **named: Any) -> Any:
        """Send a request and read its answer to the end. Raises what requests raises."""
        until_s = time.monotonic() + self._longest_s
        response = super().request(method, url, *args, **{**named, "stream": True})
        try:
            response._content = b"".join(_parts(response.raw, until_s))
        except urllib3.exceptions.TimeoutError as error:
            raise requests.exceptions.ReadTimeout(str(error)) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise requests.exceptions.ConnectionError(f"cut: {error}") from error
        finally:
            if not response._content:
                response.close()
        response._content_consumed = True  # type: ignore[attr-defined]
        return response


def _parts(raw: urllib3.HTTPResponse, until_s: float) -> Iterator[bytes]:
    while part := raw.read1(_CHUNK_BYTES, decode_content=True):
        yield part
        if time.monotonic() > until_s:
            raise urllib3.exceptions.TimeoutError("the answer takes too long")
    if raw.length_remaining:
        raise urllib3.exceptions.ProtocolError(f"{raw.length_remaining} bytes are missing")
    raw.read()  # nothing is left; it gives the connection back to the pool


def _checked(client: Any, pacer: Pace) -> Callable[..., Any]:
    """Return the client's `fetch`, paced, and with a body that is no answer made an error.

    ccxt takes a cut, empty or foreign body of a 200 for an answer without rows, and caches what
    it makes of it: a market list without markets, history without candles.
    """
    from ccxt.base.errors import NetworkError

    plain = client.fetch

    def fetch(url: str, *args: Any, **named: Any) -> Any:
        pacer.take()
        answer = plain(url, *args, **named)
        void = client.id == "bitget" and isinstance(answer, dict) and answer.get("data") is None
        if not isinstance(answer, dict | list) or void:
            raise NetworkError(f"{client.id} sent no usable body: {str(answer)[:80]!r}")
        return answer

    return fetch


def _bounded(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return ccxt's `parse_precision` for whole numbers that are decimal places.

    It writes as many zeros as it is told to: 2147483648 of them took three minutes.
    """

    def parsed(precision: Any) -> Any:
        if precision is not None and abs(int(precision)) > _MOST_DECIMALS:
            raise ValueError(f"{str(precision)[:20]} decimal places")
        return parse(precision)

    return parsed


def _said(error: Exception) -> str:
    """Return the kind of an error and the beginning of what it says, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
