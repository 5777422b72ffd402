"""Where candles come from: one small protocol, one adapter for ccxt and one for recorded files."""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import Protocol

from core.clock import Clock, LiveClock, PacedClock, SteppedClock, on_thread
from core.config import Config
from core.domain import Candles, FundingRate, Market


class Exchange(Protocol):
    """What the engine needs of an exchange; every call may raise ExchangeUnavailable."""

    @property
    def id(self) -> str:
        """The name candles are stored under."""
        ...

    @property
    def n_lanes(self) -> int:
        """How many requests may be under way at once; calls from so many threads are safe."""
        ...

    def server_time_ms(self) -> int:
        """Return the exchange's own time, UTC ms."""
        ...

    def markets(self, symbols: tuple[str, ...], *, fresh: bool = False) -> dict[str, Market]:
        """Return the market records of the symbols it lists; the others are absent.

        `fresh`: as they are now, not as they were when last asked.
        """
        ...

    def candles(self, symbol: str, timeframe: str, *, start_ms: int, end_ms: int) -> Candles:
        """Return the lawful bars that open in [start_ms, end_ms), as the exchange has them now.

        The newest bar may still be forming: the caller stores only what is final by server time.
        A bar older than ten minutes is absent only where it was asked for twice in vain. A window
        wider than `page_bars` costs several requests. Raises ExchangeError.
        """
        ...

    def serves(self, timeframe: str) -> bool:
        """Say whether it offers candles of a timeframe."""
        ...

    def page_bars(self, timeframe: str, *, start_ms: int, now_ms: int) -> int:
        """Return how many bars one request from `start_ms` may safely ask for."""
        ...

    def funding(self, symbol: str, *, start_ms: int, end_ms: int) -> list[FundingRate]:
        """Return the lawful funding settlements in [start_ms, end_ms), oldest first.

        Empty where there are none. Raises ExchangeError.
        """
        ...

    def open_interest(self, symbol: str) -> float | None:
        """Return the open interest as it is now, base units; None where it is not offered.

        Raises ExchangeError.
        """
        ...

    def behind(self) -> Exchange:
        """Return the same exchange for work that can wait; its requests let all others go first.

        Close what is not the same object.
        """
        ...

    def close(self) -> None:
        """Release connections."""
        ...


def open_exchange(config: Config) -> Exchange:
    """Return the adapter named by `exchange.id`: `replay` or any id ccxt knows.

    A replay opened so stands at the end of its data. Raises ConfigError for an unknown id or an
    unusable replay folder.
    """
    if config.exchange.id == "replay":
        from core.exchange.replay import ReplayExchange

        return ReplayExchange.open(config)
    from core.exchange.ccxt_adapter import CcxtExchange

    return CcxtExchange.open(config)


def connect(
    config: Config, *, resume_ms: int | None, stepped: bool = False
) -> tuple[Exchange, Clock]:
    """Return the exchange and the clock of its market, bound to each other.

    A replay goes on at `resume_ms` (its last clock row), else starts at `exchange.replay.start`,
    else at its first candle; `stepped`, or speed 0, makes it jump from due instant to due instant.
    A live exchange is asked for its time and has no use for either argument. Raises ConfigError,
    and ExchangeUnavailable when the time cannot be read.
    """
    if config.exchange.id != "replay":
        exchange = open_exchange(config)
        return exchange, LiveClock(exchange.server_time_ms, aside=on_thread)
    from core.exchange.replay import ReplayExchange

    replay = ReplayExchange.open(config)
    speed = config.exchange.replay.speed
    start_ms = _start_ms(config, replay.first_ms) if resume_ms is None else resume_ms
    clock: Clock = (
        SteppedClock(start_ms, replay.end_ms)
        if stepped or speed == 0
        else PacedClock(start_ms, replay.end_ms, speed)
    )
    replay.bind(clock.now_ms)
    return replay, clock


def _start_ms(config: Config, first_ms: int) -> int:
    day = config.exchange.replay.start
    if day is None:
        return first_ms
    return max(first_ms, int(datetime.combine(day, time(), UTC).timestamp()) * 1000)
