"""The long-lived process: APScheduler's triggers over the one function that runs jobs."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from core.app import App, wall_ms
from core.cadence import PIPELINE, WEEKLY
from core.errors import TraderError
from core.jobs import commands, maintain, memory, promotion, silence, sync
from core.jobs.bootstrap import Bootstrap
from core.jobs.edits import Edits
from core.jobs.life import Life
from core.jobs.recorded import recorded
from core.jobs.run import deliver_waiting, run_due
from core.jobs.weekly import Weekly
from core.notify import Sinks, sinks_of
from core.store import operation
from core.store.db import open_database
from core.timeframe import DAY_MS

if TYPE_CHECKING:
    from apscheduler.schedulers.background import BackgroundScheduler

log = logging.getLogger("trader.scheduler")

_N_THREADS = 4  # a look, the outbox, the upkeep, and one for whoever finds a look at work
_REPLAY_LOOK_S = 60.0  # a replay's minutes pass in milliseconds: it is looked at without a pause
_DAILY_LIMIT_S = 1800.0
_STAND_BY_S, _LEAP_S = 1.0, 1.0  # how often the machine's clock is looked at, for which leap
_END_S = 3.0  # for the weekly child and the last messages


def beside(app: App) -> App:
    """Return the same app on a connection of its own, for work that must not hold up the minute.

    The lock file and the market stay their owner's.
    """
    return App(
        config=app.config,
        config_path=app.config_path,
        config_text=app.config_text,
        db=open_database(app.db.path, checkpointer=False),
        lock_file=app.lock_file,
        holds_lock=False,
        muted=app.muted,
    )


class SetBack:
    """Notices when the machine's clock was set back since it was asked last."""

    def __init__(self) -> None:
        self._off_s = time.time() - time.monotonic()

    def by_s(self) -> float:
        """Return by how many seconds it was, 0 where it was by less than a leap."""
        before_s, self._off_s = self._off_s, time.time() - time.monotonic()
        back_s = before_s - self._off_s
        return back_s if back_s > _LEAP_S else 0.0


class Sending:
    """The outbox's round on a connection of its own: a slow Telegram never holds up the minute."""

    def __init__(self, app: App) -> None:
        self._main = app
        self._app = beside(app)
        self._sinks: Sinks = sinks_of(app.config)
        self._turn = threading.Lock()
        self._set_back = SetBack()

    def round(self) -> None:
        """Send what waits; where the machine's clock was set back, all of it."""
        with self._turn:
            if self._set_back.by_s():
                operation.void_waits(self._app.db, wall_ms=wall_ms())
            if self._app.config is not self._main.config:
                before, self._app.config = self._app.config, self._main.config
                self._sinks = sinks_of(self._app.config)
                if before.notify != self._app.config.notify:  # a closed channel may be mended
                    operation.wake_channels(self._app.db)
            with recorded(self._app, "notify_closed", due_ms=wall_ms(), is_rare=True) as run:
                run.n = deliver_waiting(self._app, self._sinks)

    def close(self) -> None:
        """Send what is left and release the connection."""
        self.round()
        with self._turn:
            self._app.db.close()


def _guarded(job: str, work: Callable[[], object]) -> Callable[[], None]:
    """Return a job that never raises into APScheduler: what cannot be recorded is logged."""

    def run() -> None:
        try:
            work()
        except Exception:
            log.exception("%s failed", job)

    return run


def run_forever(app: App, *, stop: threading.Event) -> None:
    """Run the jobs by name until `stop` is set.

    The pipeline's names, and the weekly ones, share one look, so that their order holds whichever
    trigger comes first. In a replay the weekly work is part of it, because the market waits; live
    it has its own thread and process.
    """
    memory.few_arenas()
    _, clock = app.market()
    sync.refresh_markets(app, now_ms=clock.now_ms())
    settle_models(app, now_ms=clock.now_ms())
    silence.came_back(app, now_ms=clock.now_ms())
    replaying = app.config.exchange.id == "replay"
    every_s = 1.0 if replaying else float(app.config.incremental.run_seconds)
    sending, life = Sending(app), Life(app)
    weekly = None if replaying else Weekly(beside(app), stop=stop)
    for_s = _REPLAY_LOOK_S if replaying else every_s
    see = partial(
        look,
        app,
        for_s=for_s,
        stop=stop,
        weekly=weekly,
        life=life,
        edits=Edits(app),
        sending=sending if replaying else None,
    )
    scheduler = _started(
        {
            **dict.fromkeys(PIPELINE, (see, every_s)),
            **dict.fromkeys(() if replaying else WEEKLY, (see, 30.0)),
            "notify_closed": (sending.round, 0.5),
            "db_checkpoint": (partial(upkeep, app), 1800.0),
        }
    )
    commands.listen(app, beside(app), stop=stop)
    log.info("running %s", ", ".join(sorted(job.id for job in scheduler.get_jobs())))
    life.moved()
    building = None
    if weekly is not None:  # what a replay begins with is imported before it
        building = Bootstrap(app, beside(app), stop=stop, turn=weekly.turn).start()
    try:
        stand_by(scheduler, stop)
    finally:
        life.stopping()
        scheduler.shutdown(wait=True)
        if building is not None:
            building.join(_END_S)
        if weekly is not None and weekly.wait(_END_S):
            weekly.app.db.close()
        sending.close()


def _started(cadences: Mapping[str, tuple[Callable[[], object], float]]) -> BackgroundScheduler:
    """Start the triggers of some work by name, each every so many seconds."""
    from apscheduler.executors.pool import ThreadPoolExecutor
    from apscheduler.schedulers.background import BackgroundScheduler

    for noisy in ("apscheduler", "apscheduler.executors.default", "apscheduler.scheduler"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    scheduler = BackgroundScheduler(
        executors={"default": ThreadPoolExecutor(_N_THREADS)},
        timezone="UTC",
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
    )
    for name, (work, every_s) in cadences.items():
        scheduler.add_job(_guarded(name, work), "interval", seconds=every_s, id=name)
    scheduler.start()
    return scheduler


def stand_by(scheduler: BackgroundScheduler, stop: threading.Event) -> None:
    """Wait for the end. Where the machine's clock is set back, let the triggers start afresh.

    APScheduler goes by that clock: they would wait until the time before comes again.
    """
    clock = SetBack()
    while not stop.wait(_STAND_BY_S):
        if back_s := clock.by_s():
            log.warning("the machine's clock was set back by %.0f s", back_s)
            for job in scheduler.get_jobs():
                job.modify(next_run_time=datetime.fromtimestamp(time.time(), UTC))


def look(
    app: App,
    *,
    for_s: float,
    stop: threading.Event,
    weekly: Weekly | None,
    life: Life,
    edits: Edits,
    sending: Sending | None = None,
) -> None:
    """Keep running what is due for some wall seconds: in a fast replay minutes pass meanwhile.

    `sending` is for a replay, whose market waits for what is sent.
    One look at a time: whoever comes while it lasts has nothing to do.
    """
    if not app.looking.acquire(blocking=False):
        return
    try:
        deadline_s = time.monotonic() + for_s
        while not stop.is_set():
            wait_s: float | None = None
            with recorded(app, "look", due_ms=wall_ms(), limit_s=math.inf, is_rare=True):
                edits.look()
                wait_s = _looked(app, stop=stop, weekly=weekly, life=life)
            if sending is not None:
                sending.round()
            if wait_s is None or time.monotonic() + wait_s >= deadline_s:
                memory.give_back()
                return
            stop.wait(min(wait_s, 0.25))
    finally:
        app.looking.release()


def _looked(app: App, *, stop: threading.Event, weekly: Weekly | None, life: Life) -> float | None:
    """Run what is due and show that we live; returns the seconds until more is, None: later."""
    ran = run_due(app, stop=stop, weekly=weekly, moved=life.moved)
    life.moved()
    clock = app.market()[1]
    silence.watch(app, now_ms=clock.now_ms(), is_complete=not ran.failed)
    if ran.failed:
        return None
    life.complete(clock.now_ms())
    return clock.wait_s(ran.next_ms)


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


def upkeep(app: App) -> None:
    """Move the WAL into the file; once a day make the backup, drop old run rows, reclaim space.

    The copy is made on a connection of its own: a large one takes longer than a minute.
    """
    now_ms = wall_ms()
    with app.busy, recorded(app, "db_checkpoint", due_ms=now_ms) as run:
        run.n = maintain.checkpoint(app)["pages_moved"]
        maintain.want_small_wal(app)
    other = beside(app)
    try:
        if now_ms - operation.marks(other.db).get("daily_upkeep", 0) < DAY_MS:
            return
        with recorded(other, "daily_upkeep", due_ms=now_ms, limit_s=_DAILY_LIMIT_S) as run:
            run.done_ms = now_ms
            maintain.daily_backup(other, now_wall_ms=now_ms)
            with other.db.write():
                run.n = operation.prune_runs(other.db, wall_ms=now_ms)
    finally:
        other.db.close()
    with app.busy, recorded(app, "tidy", due_ms=now_ms, limit_s=_DAILY_LIMIT_S):
        maintain.tidy(app)
