"""One run of one job: timed, written down with its mark, and told of where it fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from core.app import App, wall_ms
from core.errors import NotEnoughData, TraderError
from core.jobs import episodes
from core.notify import redact
from core.store import operation

log = logging.getLogger("trader.run")

LIMIT_S = 60.0  # a run of the minute's work that takes longer than the minute is an overrun
_DETAIL_MAX = 500


class Unfinished(TraderError):  # noqa: N818  (a state, not a failure)
    """Work that came as far as its time allowed and goes on at the next look."""


class Stopped(Exception):  # noqa: N818  (a state, not a failure)
    """Work that was cut short because the scheduler stops."""


@dataclass(slots=True)
class Run:
    """What comes of a run. `done_ms`: the due instant its job is done for; None: do it again.

    `waits` is what it lacks to begin with: it went well, and there was nothing to do yet.
    """

    n: int = 0
    done_ms: int | None = None
    waits: str = ""
    outcome: str = "ok"
    detail: str = ""


@contextmanager
def recorded(
    app: App, job: str, *, due_ms: int, limit_s: float = LIMIT_S, is_rare: bool = False
) -> Iterator[Run]:
    """Write what comes of the block as one run of a job, its mark in the same transaction.

    Every exception ends here: it is logged, it is the run's outcome, and the owner is told once
    per kind of it. A run that went well but took longer than its limit is an overrun. Too little
    data is no failure: the run is ok, and its row says what it waits for.

    `is_rare`: there is mostly nothing to do, and no row where there was not.
    """
    run = Run()
    started_ms, begun_s = wall_ms(), time.perf_counter()
    kind = ""
    try:
        yield run
    except Stopped as end:
        run.outcome, run.detail, run.done_ms = "missed", str(end), None
    except Unfinished as end:
        run.outcome, run.detail, run.done_ms = "overrun", str(end), None
    except NotEnoughData as lack:
        run.n, run.waits = 0, str(lack).removeprefix(lack.SAID)
        run.detail = f"waits: {run.waits}"
        log.info("%s %s", job, run.detail)
    except TraderError as error:
        kind, run.detail = type(error).__name__, str(error)
        log.error("%s: %s", job, redact(run.detail, app.config))
    except Exception as error:
        kind, run.detail = type(error).__name__, f"{type(error).__name__}: {error}"
        log.exception("%s failed", job)
    took_s = time.perf_counter() - begun_s
    run.outcome = "error" if kind else run.outcome
    if run.outcome == "ok" and took_s > limit_s:
        run.outcome, run.detail = "overrun", f"took {took_s:.0f} s, meant to take {limit_s:.0f}"
    run.detail = redact(run.detail, app.config)[:_DETAIL_MAX]
    with app.busy:
        if is_rare and run.outcome == "ok" and not run.n and not _is_ill(app, job):
            return
        _write(app, job, run, due_ms=due_ms, started_ms=started_ms, took_s=took_s, kind=kind)


def _is_ill(app: App, job: str) -> bool:
    return bool(operation.open_episodes(app.db, job))


def _write(
    app: App, job: str, run: Run, *, due_ms: int, started_ms: int, took_s: float, kind: str
) -> None:
    with app.db.write():
        operation.record_run(
            app.db,
            job,
            due_ms=due_ms,
            started_wall_ms=started_ms,
            took_ms=round(took_s * 1000, 3),
            outcome=run.outcome,
            n=run.n,
            detail=run.detail,
        )
        if run.done_ms is not None:
            operation.move_mark(app.db, job, done_ms=run.done_ms)
        if kind:
            episodes.failed(app, job, kind, run.detail, at_wall_ms=wall_ms())
        elif run.outcome == "ok" or run.done_ms is not None:
            episodes.went_well(app, job, at_wall_ms=wall_ms())
