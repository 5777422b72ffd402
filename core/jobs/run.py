"""Running what is due: the one function behind the scheduler, `--once` and a stepped replay."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from pathlib import Path
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
    next_due,
    next_instant_ms,
)
from core.errors import TraderError
from core.jobs import follow, market_stats, monitor, scan, sync, tell
from core.notify import Sinks, send_waiting, sinks_of
from core.notify.deadman import sign_of_life
from core.store import operation
from core.store import signals as signal_store
from core.timeframe import MINUTE_MS, floor_ms

log = logging.getLogger("trader.run")

WEEKLY_LIMIT_S = 3600.0
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


def run_due(app: App, *, weekly: bool = True, stop: threading.Event | None = None) -> Ran:
    """Do everything that is due by market time, in time order.

    The only function that runs jobs. A piece that raises is recorded and tried again at the next
    call; what comes after it in the pipeline waits, so that order is kept.
    """
    with app.busy:
        _, clock = app.market()
        now_ms = clock.now_ms()
        with app.db.write():
            for job, done_ms in first_marks(now_ms, operation.marks(app.db)).items():
                operation.move_mark(app.db, job, done_ms=done_ms)
        n_done = 0
        while stop is None or not stop.is_set():
            due = next_due(now_ms, _marks(app, now_ms, weekly=weekly), app.config)
            if due is None:
                _tick(app, now_ms, clock.speed)
                clock.settled(next_instant_ms(now_ms))
                break
            if not _run_one(app, due, now_ms=now_ms):
                return Ran(n_done, now_ms, failed=True)
            n_done += 1
        return Ran(n_done, next_instant_ms(now_ms), failed=False)


def _marks(app: App, now_ms: int, *, weekly: bool) -> dict[str, int]:
    marks = operation.marks(app.db)
    return marks if weekly else {**marks, **dict.fromkeys(WEEKLY, now_ms)}


def _tick(app: App, now_ms: int, speed: float) -> None:
    row = operation.clock_row(app.db)
    if row is None or row[0] != now_ms or wall_ms() - row[1] > 5000:
        with app.db.write():
            operation.write_clock(app.db, market_ms=now_ms, wall_ms=wall_ms(), speed=speed)


def _run_one(app: App, due: Due, *, now_ms: int) -> bool:
    """Run one piece of work and record it; False when it failed and must be tried again."""
    started, begun = wall_ms(), time.perf_counter()
    n, outcome, detail = 0, "ok", ""
    try:
        if due.job in PIPELINE:
            n = _pipeline(app, due, now_ms)
        elif due.job == STATS:
            n = market_stats.refresh(app, due_ms=due.due_ms)
        elif due.job == MONITOR:
            n = monitor.monitor(app, now_ms=due.due_ms)
        elif due.job == DIGEST:
            n = tell.queue_digest(app, now_ms=due.due_ms)
        else:
            n = run_weekly_step(app, due.job)
    except TraderError as error:
        outcome, detail = "error", str(error)
        log.error("%s: %s", due.job, error)
    except Exception as error:
        outcome, detail = "error", f"{type(error).__name__}: {error}"
        log.exception("%s failed", due.job)
    with app.db.write():
        operation.record_run(
            app.db,
            due.job,
            due_ms=due.due_ms,
            started_wall_ms=started,
            took_ms=round((time.perf_counter() - begun) * 1000, 3),
            outcome=outcome,
            n=n,
            detail=detail,
        )
        if outcome == "ok" or due.job not in PIPELINE:
            # one fetch serves all minutes up to now
            fetched = outcome == "ok" and due.job in ("incremental_sync", STATS)
            done_ms = floor_ms(now_ms, MINUTE_MS) if fetched else due.due_ms
            operation.move_mark(app.db, due.job, done_ms=done_ms)
    return outcome == "ok" or due.job not in PIPELINE


def run_weekly_step(app: App, job: str) -> int:
    """Run one weekly step in a child process, so that it cannot stall or bloat this one."""
    step = job.removeprefix("auto_")
    script = Path(__file__).resolve().parents[2] / "maintenance.py"
    log.info("%s starts in a child process", job)
    command = [sys.executable, str(script), step, "--config", str(app.config_path)]
    done = subprocess.run(
        [*command, "--log-level", "warning"],
        check=False,
        capture_output=True,
        text=True,
        timeout=WEEKLY_LIMIT_S,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise TraderError(said[-1] if said else f"{step} ended with code {done.returncode}")
    app.reload_config()
    return 1


def run_once(app: App) -> int:
    """One pass over whatever is due, its messages included."""
    ran = run_due(app)
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
    row = operation.clock_row(app.db)
    market_ms = row[0] if row else wall_ms()
    report = send_waiting(app.db, app.config, sinks, wall_ms=wall_ms(), market_ms=market_ms, n=200)
    for channel, why in report.closed.items():
        log.error("%s takes no messages until you act: %s", channel, why)
    if report.n_dead:
        log.error("%d messages were given up; see db_inspect.py", report.n_dead)
    late = {
        told.signal_id
        for told in report.accepted
        if told.kind == "new_signal" and told.as_expired and told.signal_id is not None
    }
    if late:
        with app.db.write():
            for number in late:
                signal_store.mark_late(app.db, number)
    return report.n_sent


def look(app: App, *, for_s: float, stop: threading.Event, weekly: bool) -> None:
    """Keep running what is due for some wall seconds: in a fast replay minutes pass meanwhile.

    One look at a time: whoever comes while it lasts has nothing to do.
    """
    if not app.looking.acquire(blocking=False):
        return
    try:
        deadline = time.monotonic() + for_s
        while not stop.is_set():
            ran = run_due(app, weekly=weekly, stop=stop)
            wait = app.market()[1].wait_s(ran.next_ms)
            if ran.failed or time.monotonic() + wait >= deadline:
                return
            stop.wait(min(wait, 0.25))
    finally:
        app.looking.release()
