"""The real scheduler, its market's time and its machine's troubles taken from a file of a test.

python -m tests.fast_scheduler TIME_FILE --config CONFIG …

What is replaced is time alone: the market's and the wall's come from the file, waits between
retries and messages are shorter, as the market is faster. Where `disk_full` is set, the kernel
lets no file grow beyond a few pages, which is how a full disk looks to a process.
"""

from __future__ import annotations

import datetime as dates
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import scheduler_run
from core import cli
from core.clock import LiveClock
from core.exchange import ccxt_adapter
from core.jobs.run import Ran, run_due
from core.jobs.scheduler import look
from core.notify import BotApi, TelegramSink
from tests.shared_time import SharedTime

FASTER = 20.0  # than wall time: waits between tries and between messages
ANSWER_S = 1.0  # for the Bot API
ROOM_BYTES = 20_000  # what a file may hold on a full disk
LOOK_S = 5.0  # a look lasts so long: minutes pass meanwhile, as in a replay
_WAIT_S = 0.004

_now_ns, _now_s, _sleep = time.time_ns, time.time, time.sleep


class SharedClock(LiveClock):
    """The live clock, where a market second is not a wall second; it says what is settled."""

    shared: SharedTime

    def settled(self, next_due_ms: int) -> None:
        self.shared["settled_ms"] = next_due_ms

    def wait_s(self, due_ms: int) -> float:
        return _WAIT_S if super().wait_s(due_ms) else 0.0


def _off_clock(shared: SharedTime) -> type[dates.datetime]:
    """Return a `datetime` whose `now` is that of a machine whose clock is off."""

    class Datetime(dates.datetime):
        @classmethod
        def now(cls, tz: dates.tzinfo | None = None) -> Any:
            off = dates.timedelta(milliseconds=shared["wall_offset_ms"])
            return dates.datetime.now(tz) + off

    return Datetime


def _watch_disk(shared: SharedTime) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def watch() -> None:
        was_full = 0
        while True:
            if (is_full := shared["disk_full"]) != was_full:
                room = ROOM_BYTES if is_full else hard
                resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
                was_full = is_full
            _sleep(0.01)

    threading.Thread(target=watch, name="disk", daemon=True).start()


def _at_work(shared: SharedTime, *args: Any, **named: Any) -> Ran:
    """Do what is due, and let it be seen that it is being done."""
    shared["is_busy"] = 1
    try:
        return run_due(*args, **named)
    finally:
        shared["is_busy"] = 0


def _replaced(shared: SharedTime) -> dict[str, Any]:
    """Return what stands for what, by where it is looked up."""
    SharedClock.shared = shared
    short: Callable[[float], None] = lambda for_s: _sleep(for_s / FASTER)  # noqa: E731
    fast: Callable[[], float] = lambda: FASTER * time.monotonic()  # noqa: E731
    apscheduler = ("schedulers.base", "triggers.interval", "executors.base")
    return {
        "time.time_ns": lambda: _now_ns() + 1_000_000 * shared["wall_offset_ms"],
        "time.time": lambda: _now_s() + shared["wall_offset_ms"] / 1000,
        "core.exchange.LiveClock": partial(
            SharedClock, monotonic=lambda: shared["market_ms"] / 1000
        ),
        "core.exchange.ccxt_adapter.CcxtExchange.open": partial(
            ccxt_adapter.CcxtExchange.open, sleep=short
        ),
        "core.exchange.ccxt_adapter._wall_ms": lambda: (
            shared["market_ms"] + shared["wall_offset_ms"]
        ),
        "core.notify.outbox.TelegramSink": partial(TelegramSink, monotonic=fast, sleep=short),
        "core.notify.outbox.BotApi": partial(BotApi, timeouts_s=(ANSWER_S, ANSWER_S)),
        "core.jobs.scheduler.run_due": partial(_at_work, shared),
        "core.jobs.scheduler.look": lambda *args, **named: look(
            *args, **{**named, "for_s": LOOK_S}
        ),
        **{f"apscheduler.{name}.datetime": _off_clock(shared) for name in apscheduler},
    }


def main() -> int:
    """Run `scheduler_run.main` in the test's time."""
    import apscheduler.executors.base
    import apscheduler.schedulers.base
    import apscheduler.triggers.interval  # noqa: F401

    shared = SharedTime(Path(sys.argv[1]))
    del sys.argv[1]
    _watch_disk(shared)
    for name, value in _replaced(shared).items():
        patch(name, value).start()
    return cli.guarded(scheduler_run.main)


if __name__ == "__main__":
    sys.exit(main())
