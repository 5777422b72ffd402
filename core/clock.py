"""Market time: one clock for the live market, for a paced replay and for a stepped one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from core.errors import ExchangeError

REREAD_S = 240.0


class Clock(Protocol):
    """What tells the engine the market's time. It never goes backwards; any thread may ask."""

    @property
    def speed(self) -> float:
        """Market seconds per wall second: 1.0 live, the pace of a replay, 0.0 stepped."""
        ...

    @property
    def finished(self) -> bool:
        """True once a stepped market has nothing left to come; live and paced never end."""
        ...

    def now_ms(self) -> int:
        """Return market time, UTC ms."""
        ...

    def settled(self, next_due_ms: int) -> None:
        """Learn that all that was due by now is done, and when the next thing is due.

        A replayed market does not move past an instant that is due and not settled.
        """
        ...

    def wait_s(self, due_ms: int) -> float:
        """Return the wall seconds until market time can reach an instant: 0.0 if it has.

        `inf` where it never will without a `settled` in between, or at all.
        """
        ...


def _at_once(work: Callable[[], None]) -> None:
    work()


def on_thread(work: Callable[[], None]) -> None:
    """Do something beside what goes on; for readings of an exchange that may be slow."""
    threading.Thread(target=work, name="market time", daemon=True).start()


class LiveClock:
    """The exchange's time plus the monotonic time since it was read; read anew every few minutes.

    The exchange's answer is taken as true at its arrival, so the clock is late by at most the
    length of the request and never early: no candle looks final before it is. A later reading
    that fails leaves the last one in force; the first one raises what `server_time` raises.
    """

    speed = 1.0
    finished = False

    def __init__(
        self,
        server_time: Callable[[], int],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        reread_s: float = REREAD_S,
        aside: Callable[[Callable[[], None]], None] = _at_once,
    ) -> None:
        """`aside` is how later readings are done; see `on_thread`."""
        self._aside = aside
        self._server_time = server_time
        self._monotonic = monotonic
        self._reread_s = reread_s
        self._state = threading.Lock()
        self._reading = threading.Lock()
        self._offset_ms = 0.0
        self._last_ms = 0
        self._read_at_s = 0.0
        self._read()

    def now_ms(self) -> int:
        """Return market time, UTC ms; there is one reading at a time at most."""
        due = self._monotonic() - self._read_at_s >= self._reread_s
        if due and self._reading.acquire(blocking=False):
            self._aside(self._reread)
        with self._state:
            self._last_ms = max(self._last_ms, int(self._monotonic() * 1000 + self._offset_ms))
            return self._last_ms

    def settled(self, next_due_ms: int) -> None:
        """Do nothing: a live market waits for nobody."""

    def wait_s(self, due_ms: int) -> float:
        """Return the wall seconds until an instant."""
        return max(0.0, (due_ms - self.now_ms()) / 1000)

    def _reread(self) -> None:
        try:
            self._read()
        except ExchangeError:
            self._read_at_s = self._monotonic()
        finally:
            self._reading.release()

    def _read(self) -> None:
        server_ms = self._server_time()
        arrived_s = self._monotonic()
        with self._state:
            self._offset_ms = server_ms - arrived_s * 1000
            self._read_at_s = arrived_s


class PacedClock:
    """A replay: from `start_ms` at `speed` market seconds per wall second, up to `end_ms`.

    Market time is start + elapsed x speed, but never past an instant that is due until it is
    settled: the market waits for the engine, and makes up what the wait has cost as far as the
    engine keeps pace. At the end it stands still.
    """

    finished = False

    def __init__(
        self,
        start_ms: int,
        end_ms: int,
        speed: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.speed = speed
        self._end_ms = max(start_ms, end_ms)
        self._limit_ms = start_ms
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._start_ms = float(start_ms)
        self._start_s = monotonic()

    def now_ms(self) -> int:
        """Return market time, UTC ms."""
        with self._lock:
            return int(self._now(self._monotonic()))

    def settled(self, next_due_ms: int) -> None:
        """Let the market run on to the next due instant."""
        with self._lock:
            self._limit_ms = max(int(self._now(self._monotonic())), next_due_ms)

    def wait_s(self, due_ms: int) -> float:
        """Return the wall seconds until an instant; `inf` beyond the next due one or the end."""
        with self._lock:
            now = self._now(self._monotonic())
            if due_ms <= int(now):
                return 0.0
            reachable = due_ms <= min(self._limit_ms, self._end_ms)
            if not reachable:
                return float("inf")
            return max(0.0, (due_ms - self._running(self._monotonic())) / 1000 / self.speed)

    def _now(self, wall_s: float) -> float:
        return min(self._running(wall_s), self._limit_ms, self._end_ms)

    def _running(self, wall_s: float) -> float:
        return self._start_ms + (wall_s - self._start_s) * 1000 * self.speed


class SteppedClock:
    """A replay without waiting: each `settled` jumps to the next due instant, up to `end_ms`."""

    speed = 0.0

    def __init__(self, start_ms: int, end_ms: int) -> None:
        self._now_ms = start_ms
        self._end_ms = end_ms
        self._finished = False
        self._lock = threading.Lock()

    @property
    def finished(self) -> bool:
        """True once the next due instant lies beyond the end."""
        with self._lock:
            return self._finished

    def now_ms(self) -> int:
        """Return market time, UTC ms."""
        with self._lock:
            return self._now_ms

    def settled(self, next_due_ms: int) -> None:
        """Jump to the next due instant, or end."""
        with self._lock:
            self._finished = next_due_ms > self._end_ms
            if not self._finished:
                self._now_ms = max(self._now_ms, next_due_ms)

    def wait_s(self, due_ms: int) -> float:
        """Return 0.0 for an instant that is reached and `inf` for any other."""
        return 0.0 if due_ms <= self.now_ms() else float("inf")
