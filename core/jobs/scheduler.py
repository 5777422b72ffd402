"""The long-lived process: APScheduler's triggers over the one function that runs jobs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from core.app import App, wall_ms
from core.cadence import DIGEST, MONITOR, PIPELINE, STATS, WEEKLY, next_due
from core.errors import TraderError
from core.jobs import commands, maintain, promotion, sync
from core.jobs.run import deliver_waiting, look, run_weekly_step
from core.notify import Sinks, sinks_of
from core.notify.deadman import sign_of_life
from core.store import operation
from core.store.db import open_database

log = logging.getLogger("trader.scheduler")

_DAY_MS = 86_400_000
_ALIVE_MS = 120_000  # a last complete tick older than this is no sign of life
_REPLAY_LOOK_S = 60.0  # a replay's minutes pass in milliseconds: it is looked at without a pause


class _Beside:
    """The same app on a connection of its own, for work that must not hold up the minute."""

    def __init__(self, app: App) -> None:
        self.app = App(
            config=app.config,
            config_path=app.config_path,
            config_text=app.config_text,
            db=open_database(app.db.path, checkpointer=False),
            lock_file=app.lock_file,
            holds_lock=False,
            muted=app.muted,
        )
        self.busy = threading.Lock()

    def close(self) -> None:
        """Release the connection; the lock file stays its owner's."""
        with self.busy:
            self.app.db.close()


def _guarded(job: str, work: Callable[[], object]) -> Callable[[], None]:
    """Return a job that never raises into APScheduler: errors are logged, the next run tries."""

    def run() -> None:
        try:
            work()
        except Exception:
            log.exception("%s failed", job)

    return run


def run_forever(app: App, *, stop: threading.Event) -> None:
    """Run the jobs by name until `stop` is set.

    The pipeline's names share one look, so that their order holds whichever trigger comes first.
    In a replay the weekly work is part of it, because the market waits; live it has its own
    thread. Sending has its own connection: a slow Telegram never holds up the minute.
    """
    from apscheduler.schedulers.background import BackgroundScheduler

    _, clock = app.market()
    sync.refresh_markets(app, now_ms=clock.now_ms())
    settle_models(app, now_ms=clock.now_ms())
    replaying = app.config.exchange.id == "replay"
    every_s = 1.0 if replaying else float(app.config.incremental.run_seconds)
    for_s = _REPLAY_LOOK_S if replaying else every_s
    sending, weekly = _Beside(app), _Beside(app)
    sinks = sinks_of(app.config)
    scheduler = BackgroundScheduler(
        timezone="UTC",
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
    )

    def add(name: str, work: Callable[[], object], seconds: float) -> None:
        scheduler.add_job(_guarded(name, work), "interval", seconds=seconds, id=name)

    for name in PIPELINE:
        add(name, partial(look, app, for_s=for_s, stop=stop, weekly=replaying), every_s)
    for name in () if replaying else WEEKLY:
        add(name, partial(_weekly_due, app, weekly, name), 30)
    add("notify_closed", partial(_send, sending, sinks), 0.5 if replaying else 2.0)
    add("db_checkpoint", partial(_upkeep, app), 1800)
    if app.config.notify.deadman_url:
        add("sign_of_life", partial(_sign_of_life, sending), 60)
    for noisy in ("apscheduler", "apscheduler.executors.default", "apscheduler.scheduler"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    scheduler.start()
    if app.config.notify.telegram.commands:
        commands.listen(_Beside(app).app, stop=stop)
    log.info("running %s", ", ".join(sorted(job.id for job in scheduler.get_jobs())))
    try:
        while not stop.wait(0.5):
            pass
    finally:
        scheduler.shutdown(wait=True)
        _send(sending, sinks)
        sending.close()
        weekly.close()


def settle_models(app: App, *, now_ms: int) -> None:
    """Bring the bundles' table and the tuner's block in line with the pointer."""
    try:
        note = promotion.settle(
            app.db,
            app.config,
            models_dir=app.models_dir,
            config_path=app.config_path,
            now_ms=now_ms,
        )
        app.reload_config()
    except TraderError as error:
        note = str(error)
    if note:
        log.warning("%s", note)


def _send(sending: _Beside, sinks: Sinks) -> None:
    with sending.busy:
        deliver_waiting(sending.app, sinks)


def _sign_of_life(sending: _Beside) -> None:
    """Call the dead man's switch while ticks complete; silence there is the alarm."""
    with sending.busy:
        row = operation.clock_row(sending.app.db)
    if row is not None and wall_ms() - row[1] < _ALIVE_MS:
        sign_of_life(sending.app.config)


def _weekly_due(app: App, beside: _Beside, name: str) -> None:
    """Run one weekly step if it is due, on a connection of its own."""
    if not beside.busy.acquire(blocking=False):
        return
    try:
        _, clock = app.market()
        now_ms, db = clock.now_ms(), beside.app.db
        known = operation.marks(db)
        every = (*PIPELINE, *WEEKLY, STATS, DIGEST, MONITOR)
        others = {job: now_ms for job in every if job != name}
        due = next_due(now_ms, {**known, **others}, app.config)
        if due is None or name not in known:
            return
        started, begun = wall_ms(), time.perf_counter()
        outcome, detail = "ok", ""
        try:
            run_weekly_step(beside.app, name)
        except Exception as error:
            outcome, detail = "error", str(error)
            log.error("%s: %s", name, error)
        with db.write():
            operation.move_mark(db, name, done_ms=due.due_ms)
            operation.record_run(
                db,
                name,
                due_ms=due.due_ms,
                started_wall_ms=started,
                took_ms=round((time.perf_counter() - begun) * 1000, 3),
                outcome=outcome,
                detail=detail,
            )
        with app.busy:
            app.reload_config()
    finally:
        beside.busy.release()


def _upkeep(app: App) -> None:
    """Move the WAL into the file; once a day drop old run rows and make the backup."""
    with app.busy:
        started, begun = wall_ms(), time.perf_counter()
        maintain.checkpoint(app)
        last = operation.marks(app.db).get("daily_upkeep", 0)
        with app.db.write():
            operation.record_run(
                app.db,
                "db_checkpoint",
                due_ms=started,
                started_wall_ms=started,
                took_ms=round((time.perf_counter() - begun) * 1000, 3),
                outcome="ok",
            )
        if started - last >= _DAY_MS:
            maintain.daily(app, now_wall_ms=started)
            with app.db.write():
                operation.prune_runs(app.db, wall_ms=started)
                operation.move_mark(app.db, "daily_upkeep", done_ms=started)
