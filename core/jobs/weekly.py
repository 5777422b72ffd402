"""The weekly steps: in the loop where the market waits for them, beside it where it does not."""

from __future__ import annotations

import logging
import threading

from core.app import App, wall_ms
from core.cadence import Due
from core.errors import NotEnoughData
from core.jobs.child import LIMIT_S, run_child
from core.jobs.recorded import recorded
from core.store import operation
from core.store.models import bundles

log = logging.getLogger("trader.weekly")


def run_step(app: App, due: Due, *, stop: threading.Event | None) -> bool:
    """Run one weekly step in a child process and record it; False where it was cut short.

    What lacks data, or the model it works on, waits for its next date. The bootstrap's row of the
    same step, if it left it to us, is kept true.
    """
    step = due.job.removeprefix("auto_")
    with recorded(app, due.job, due_ms=due.due_ms, limit_s=LIMIT_S) as run:
        run.done_ms = due.due_ms
        if step in ("calibrate", "tune") and not _has_model(app):
            raise NotEnoughData("no model is trained yet")
        log.info("%s starts in a child process", due.job)
        run_child(app, "maintenance.py", step, "--log-level", "warning", stop=stop)
        run.n = 1
    if run.n or run.waits:
        with app.db.write():
            state = "waiting" if run.waits else "done"
            operation.settle_step(app.db, step, state, detail=run.waits, wall_ms=wall_ms())
    return run.done_ms is not None


def _has_model(app: App) -> bool:
    """Say whether there is a model to work on: a draft, or one that speaks."""
    states = {row["state"] for row in bundles(app.db, strategy=app.strategy)}
    return bool(states & {"draft", "champion"})


class Weekly:
    """One weekly step at a time on a thread of its own, so that no minute waits for it.

    `app` must have a connection of its own. The mark of a step moves when it is done: until then
    `is_busy` keeps others, and itself, from being started.
    """

    def __init__(self, app: App, *, stop: threading.Event) -> None:
        self.app = app
        self._stop = stop
        self._turn = threading.Lock()

    @property
    def is_busy(self) -> bool:
        """True while a child, of this or of the bootstrap, is at work."""
        return self._turn.locked()

    @property
    def turn(self) -> threading.Lock:
        """Held by whoever has a child at work: there is only ever one."""
        return self._turn

    def start(self, due: Due) -> bool:
        """Begin a step; False where another is at work."""
        if not self._turn.acquire(blocking=False):
            return False
        threading.Thread(target=self._run, args=(due,), name=due.job, daemon=True).start()
        return True

    def wait(self, for_s: float) -> bool:
        """Wait for the step at work to end; False where it did not in time."""
        ended = self._turn.acquire(timeout=for_s)
        if ended:
            self._turn.release()
        return ended

    def _run(self, due: Due) -> None:
        try:
            run_step(self.app, due, stop=self._stop)
        except Exception:
            log.exception("%s could not be recorded", due.job)
        finally:
            self._turn.release()
