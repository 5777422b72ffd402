"""A market's time in a file that several processes see: one moves it on, the others go by it."""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.timeframe import MINUTE_MS, floor_ms

AFTER_CLOSE_MS = 6_000  # the market stops this long after a close: more than its clock is off
_WORDS = ("market_ms", "settled_ms", "is_busy", "wall_offset_ms", "disk_full")
_TICK_S = 0.002
_HURRY = 2
_AT_WORK = 10


class SharedTime:
    """Whole numbers by name: market time, how far the engine is, and what ails the machine.

    `settled_ms`: the engine has done all that was due before; `is_busy`: 1 while it is at work;
    `wall_offset_ms`: how far the machine's clock is off; `disk_full`: 1 while files may not grow.
    """

    def __init__(self, path: Path) -> None:
        size = 8 * len(_WORDS)
        if not path.exists():
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._words = memoryview(mmap.mmap(file.fileno(), size)).cast("q")

    def __getitem__(self, name: str) -> int:
        return self._words[_WORDS.index(name)]

    def __setitem__(self, name: str, value: int) -> None:
        self._words[_WORDS.index(name)] = value


class Pace(threading.Thread):
    """Moves the market from stop to stop, at each of which it waits for the engine, but not long.

    A stop is shortly after a close; `step_ms` says of an instant how far it is to the next one. On
    the way no time passes. An engine that is down or fails is waited for `patience_s` wall seconds
    per stop, one at work ten times as long; before it has settled for the first time, as long as
    it takes. Where the whole would take longer than `budget_s`, steps are twice as long.
    """

    def __init__(
        self,
        shared: SharedTime,
        *,
        start_ms: int,
        end_ms: int,
        patience_s: float,
        budget_s: float,
        step_ms: Callable[[int], int],
    ) -> None:
        super().__init__(name="pace", daemon=True)
        self.shared, self.start_ms, self.end_ms = shared, start_ms, end_ms
        self.n_stops = self.n_impatient = 0
        self._patience_s, self._budget_s, self._step_ms = patience_s, budget_s, step_ms
        self._over = threading.Event()
        self._stop_ms = floor_ms(start_ms, MINUTE_MS) + AFTER_CLOSE_MS
        self._began_s = 0.0
        shared["market_ms"] = start_ms

    def __enter__(self) -> Pace:
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self.join()

    def now_ms(self) -> int:
        """Return market time."""
        return self.shared["market_ms"]

    def run(self) -> None:
        """Move the market until the block ends; at `end_ms` it stands."""
        arrived_s = time.monotonic()
        while not self._over.wait(_TICK_S):
            now_s = time.monotonic()
            if self.now_ms() < self._stop_ms:
                self.shared["market_ms"], arrived_s = self._stop_ms, now_s
            elif self._stop_ms < self.end_ms and self._may_go_on(now_s - arrived_s):
                self._stop_ms = self._next_stop_ms()

    def _may_go_on(self, waited_s: float) -> bool:
        settled_ms = self.shared["settled_ms"]
        self._began_s = self._began_s if settled_ms else time.monotonic()
        is_settled = settled_ms > self._stop_ms
        patience_s = self._patience_s * (_AT_WORK if self.shared["is_busy"] else 1)
        is_over = bool(settled_ms) and waited_s > patience_s
        self.n_stops += is_settled or is_over
        self.n_impatient += is_over and not is_settled
        return is_settled or is_over

    def _is_behind(self) -> bool:
        passed = (self.now_ms() - self.start_ms) / (self.end_ms - self.start_ms)
        return time.monotonic() - self._began_s > passed * self._budget_s + 1

    def _next_stop_ms(self) -> int:
        step_ms = self._step_ms(self._stop_ms) * (_HURRY if self._is_behind() else 1)
        return min(floor_ms(self._stop_ms, step_ms) + step_ms, self.end_ms) + AFTER_CLOSE_MS
