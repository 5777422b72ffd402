"""Asking an exchange for candles: several windows in flight, answers in the order of asking."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import chain, zip_longest
from typing import NamedTuple, TypeVar

from core.domain import Candles, Series
from core.errors import ExchangeError, ExchangeUnavailable
from core.exchange import Exchange

_AHEAD = 4  # windows a lane may be ahead of the oldest answer that is still awaited

T = TypeVar("T")
A = TypeVar("A")


class Want(NamedTuple):
    """A window of one series: bars that open in [start_ms, end_ms)."""

    series: Series
    start_ms: int
    end_ms: int


def in_turn(lists: Iterable[Iterable[T]]) -> list[T]:
    """Return the first of each list, then the second of each, and so on.

    >>> in_turn([[1, 2, 3], [4], [5, 6]])
    [1, 4, 5, 2, 6, 3]
    """
    nothing = object()
    rounds = zip_longest(*lists, fillvalue=nothing)
    return [item for item in chain.from_iterable(rounds) if item is not nothing]  # type: ignore[misc]


class NotInTime(ExchangeUnavailable):
    """An answer that had not come when the time of its job was over; it is left where it is."""


def answered(
    exchange: Exchange,
    ask: Callable[[T], A],
    items: Iterable[T],
    *,
    until_s: float = math.inf,
    late: Callable[[T], A] | None = None,
) -> Iterator[tuple[T, A]]:
    """Call `ask` for each item, as many at once as the exchange has lanes; yield in order.

    `items` is drawn from while answers come in, so that a generator may leave out what an answer
    made needless. `ask` must touch nothing but the exchange. What has not come at `until_s` of the
    monotonic clock, or was not asked for by then, is what `late` says of it; nobody waits for it.
    """
    if exchange.n_lanes == 1:
        for item in items:
            is_late = late is not None and time.monotonic() >= until_s
            yield item, late(item) if is_late and late else ask(item)
        return
    pool = ThreadPoolExecutor(exchange.n_lanes, thread_name_prefix="lane")
    awaited: deque[tuple[T, Future[A]]] = deque()

    def result(item: T, future: Future[A]) -> A:
        if late is None or until_s == math.inf:
            return future.result()
        wait({future}, timeout=max(0.0, until_s - time.monotonic()))
        return future.result() if future.done() else late(item)

    try:
        for item in items:
            awaited.append((item, pool.submit(ask, item)))
            if len(awaited) >= _AHEAD * exchange.n_lanes:
                first, future = awaited.popleft()
                yield first, result(first, future)
        for first, future in awaited:
            yield first, result(first, future)
    finally:
        pool.shutdown(wait=time.monotonic() < until_s, cancel_futures=True)


def final_candles(
    exchange: Exchange, wants: Iterable[Want], *, now_ms: int, until_s: float = math.inf
) -> Iterator[tuple[Want, Candles | ExchangeError]]:
    """Yield each window's bars, final by the exchange's clock, or why there are none."""

    def ask(want: Want) -> Candles | ExchangeError:
        try:
            return fetch_final(
                exchange, want.series, start_ms=want.start_ms, end_ms=want.end_ms, now_ms=now_ms
            )
        except ExchangeError as error:
            return error

    def late(want: Want) -> ExchangeError:
        return not_in_time(exchange, want.series.symbol)

    return answered(exchange, ask, wants, until_s=until_s, late=late)


def not_in_time(exchange: Exchange, what: str) -> NotInTime:
    """Return the error that stands for an answer which has not come in time."""
    return NotInTime(
        f"{exchange.id} has not answered for {what} in time;", remedy="it is asked again"
    )


def fetch_final(
    exchange: Exchange, series: Series, *, start_ms: int, end_ms: int, now_ms: int
) -> Candles:
    """Return the bars of a window that are final by the exchange's clock."""
    bars = exchange.candles(series.symbol, series.timeframe, start_ms=start_ms, end_ms=end_ms)
    return bars[: bars.closed_by(now_ms)]
