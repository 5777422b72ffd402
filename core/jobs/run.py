"""Running what is due: the one function behind the scheduler, `--once` and a stepped replay."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import NamedTuple

from core.app import App, wall_ms
from core.cadence import (
    DIGEST,
    MONITOR,
    PIPELINE,
    STATS,
    WEEKLY,
    Due,
    first_marks,
    missed,
    next_due,
    next_instant_ms,
)
from core.errors import TraderError
from core.jobs import follow, market_stats, monitor, scan, sync, tell
from core.jobs.recorded import recorded
from core.jobs.weekly import Weekly, run_step
from core.notify import Sinks, send_waiting, sinks_of
from core.notify.deadman import sign_of_life
from core.store import operation
from core.timeframe import MINUTE_MS, floor_ms

log = logging.getLogger("trader.run")

_STUCK_TRIES, _STUCK_WAIT_S = 3, 0.5  # for a stepped replay whose work fails


def _pipeline(app: App, due: Due, now_ms: int) -> int:
    """Do one stage of one market minute; returns what it counts.

    Candles are fetched up to now; decisions are taken as of the due minute, and found now.
    """
    if due.job == "incremental_sync":
        return sync.sync_all(app, now_ms=now_ms)
    if due.job == "resample":
        return sync.resample_all(app, now_ms=due.due_ms)
    if due.job == "scan_signals":
        return scan.scan_all(app, now_ms=due.due_ms, found_ms=now_ms).n_stored
    return follow.follow_all(app, now_ms=due.due_ms)


class Ran(NamedTuple):
    """What a look at the work did, and the instant to look again at; `failed`: rather later."""

    n_done: int
    next_ms: int
    failed: bool


def run_due(
    app: App,
    *,
    stop: threading.Event | None = None,
    weekly: Weekly | None = None,
    moved: Callable[[], None] = lambda: None,
) -> Ran:
    """Do everything that is due by market time, in time order.

    The only function that runs jobs. A piece that raises is recorded and tried again at the next
    call; what comes after it in the pipeline waits, so that order is kept. Weekly work is begun
    beside the minute where there is a `weekly` for it, else the market waits for it. `moved` is
    called after each piece.
    """
    with app.busy:
        _, clock = app.market()
        now_ms = clock.now_ms()
        _first_look(app, now_ms)
        n_done = 0
        while stop is None or not stop.is_set():
            due = next_due(now_ms, _marks(app, now_ms, weekly), app.config)
            if due is None:
                _tick(app, now_ms, clock.speed)
                clock.settled(next_instant_ms(now_ms))
                break
            done = _run_one(app, due, now_ms=now_ms, stop=stop, weekly=weekly)
            moved()
            if not done:
                return Ran(n_done, now_ms, failed=True)
            n_done += 1
        return Ran(n_done, next_instant_ms(now_ms), failed=False)


def _first_look(app: App, now_ms: int) -> None:
    """Set the marks of what never ran, and write down what nobody looked at in time."""
    marks = operation.marks(app.db)
    with app.db.write():
        for job, done_ms in first_marks(now_ms, marks).items():
            operation.move_mark(app.db, job, done_ms=done_ms)
        for miss in missed(now_ms, marks, app.config):
            if operation.was_tried(app.db, miss.job, due_ms=miss.due_ms):
                continue
            operation.record_run(
                app.db,
                miss.job,
                due_ms=miss.due_ms,
                started_wall_ms=wall_ms(),
                took_ms=0.0,
                outcome="missed",
                n=miss.n,
                detail=miss.detail,
            )


def _marks(app: App, now_ms: int, weekly: Weekly | None) -> dict[str, int]:
    """Return the marks; weekly work is not due while some of it goes on.

    Nor while config.yaml is not what is in force: its children would read other settings.
    """
    marks = operation.marks(app.db)
    is_busy = weekly is not None and (weekly.is_busy or not app.is_file_in_force)
    return {**marks, **dict.fromkeys(WEEKLY, now_ms)} if is_busy else marks


def _tick(app: App, now_ms: int, speed: float) -> None:
    row = operation.clock_row(app.db)
    if row is None or row[0] != now_ms or wall_ms() - row[1] > 5000:
        with app.db.write():
            operation.write_clock(app.db, market_ms=now_ms, wall_ms=wall_ms(), speed=speed)


def _run_one(
    app: App, due: Due, *, now_ms: int, stop: threading.Event | None, weekly: Weekly | None
) -> bool:
    """Run one piece of work and record it; False when it must be done again first."""
    if due.job in WEEKLY:
        if weekly is not None:
            weekly.app.config = app.config
            weekly.start(due)
            return True
        done = run_step(app, due, stop=stop)
        app.reload_config()  # the tuner may have written its block
        return done
    with recorded(app, due.job, due_ms=due.due_ms) as run:
        run.done_ms = None if due.job in PIPELINE else due.due_ms
        if due.job in PIPELINE:
            run.n = _pipeline(app, due, now_ms)
        elif due.job == STATS:
            run.n = market_stats.refresh(app, due_ms=due.due_ms)
        elif due.job == MONITOR:
            run.n = monitor.monitor(app, now_ms=due.due_ms)
        elif due.job == DIGEST:
            run.n = tell.queue_digest(app, now_ms=due.due_ms)
        # one fetch serves all minutes up to now
        fetched = due.job in ("incremental_sync", STATS)
        run.done_ms = floor_ms(now_ms, MINUTE_MS) if fetched else due.due_ms
    return run.done_ms is not None


def run_once(app: App, *, stop: threading.Event | None = None) -> int:
    """One pass over whatever is due, its messages included."""
    ran = run_due(app, stop=stop)
    deliver_waiting(app, sinks_of(app.config))
    if not ran.failed:
        sign_of_life(app.config)
    return ran.n_done


def run_stepped(app: App, *, stop: threading.Event) -> int:
    """Run a replay from due instant to due instant until its data ends; returns pieces done.

    Its market waits for what is sent, too: no message grows old because the replay is fast.
    Raises TraderError when a piece fails again and again.
    """
    _, clock = app.market()
    sinks, n_done, n_stuck = sinks_of(app.config), 0, 0
    while not clock.finished and not stop.is_set():
        before_ms = clock.now_ms()
        n_now = run_due(app, stop=stop).n_done
        deliver_waiting(app, sinks)
        n_done += n_now
        stands = not n_now and not clock.finished and clock.now_ms() == before_ms
        n_stuck = n_stuck + 1 if stands else 0
        if n_stuck >= _STUCK_TRIES:
            said = app.db.value("SELECT detail FROM job_runs ORDER BY id DESC LIMIT 1")
            raise TraderError(f"the replay cannot go on: {said}")
        if n_stuck:
            stop.wait(_STUCK_WAIT_S)
    return n_done


def deliver_waiting(app: App, sinks: Sinks) -> int:
    """Send what waits in the outbox; returns how many messages were accepted."""
    if app.muted:
        return 0
    now_ms = wall_ms()
    market_ms = _market_ms(app, wall_now_ms=now_ms)
    report = send_waiting(app.db, app.config, sinks, wall_ms=now_ms, market_ms=market_ms, n=200)
    for channel, why in report.closed.items():
        log.error("%s takes no messages until you act: %s", channel, why)
    if report.n_dead:
        log.error("%d messages were given up; see db_inspect.py", report.n_dead)
    return report.n_sent


def _market_ms(app: App, *, wall_now_ms: int) -> int:
    """Return market time as the last tick tells it; a replay's market waits for what is sent."""
    row = operation.clock_row(app.db)
    if row is None:
        return wall_now_ms
    market_ms, tick_wall_ms, speed = row
    return market_ms + max(0, wall_now_ms - tick_wall_ms) if speed == 1.0 else market_ms
