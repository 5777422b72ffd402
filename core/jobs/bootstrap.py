"""A new database, pair, timeframe or strategy works itself up beside the live minute.

What is left to do is read from the database each time, so that it goes on wherever it was killed:
the history that was fetched, the series that were scanned and the series a model was trained on are
labels. Fetching is done here, behind all live requests; scanning and learning in child processes,
one at a time: in a thread their Python would hold up the minute.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from itertools import groupby
from math import inf
from typing import NamedTuple

from core.app import App, wall_ms
from core.domain import Series
from core.jobs import maintain
from core.jobs.backfill import backfill
from core.jobs.child import run_child
from core.jobs.recorded import Run, Stopped, recorded
from core.jobs.sync import history_start_ms
from core.store import candles as store
from core.store import operation
from core.timeframe import DAY_MS

log = logging.getLogger("trader.bootstrap")

STEPS = ("1 backfill", "2 retro_scan", "3 train", "4 calibrate", "5 tune")
LOOK_S = 15.0
RETRY_S = 900.0  # after a step that failed: an exchange that is down, a pair it does not list
LIMIT_S = 6 * 3600.0  # of a scan of all history
WAL_MAX_BYTES = 256 << 20  # while a reader holds the WAL, what can wait lets it grow no further
_WRITE_S = 2.0
_COUNT = re.compile(r"(\d[\d,]*)/(\d[\d,]*)")


class Todo(NamedTuple):
    """What a database lacks."""

    symbols: list[str]  # whose history is to be fetched
    series: list[tuple[str, str]]  # symbol and timeframe, to be scanned
    learn: bool


def todo(app: App) -> Todo:
    """Return what is left to do for the present settings."""
    start = str(app.config.backfill.start_date)
    symbols = [s for s in app.config.symbols if operation.label_of(app.db, _fetched(s)) != start]
    wanted = {
        (symbol, timeframe): first_ms
        for symbol in app.config.symbols
        if symbol not in symbols and (first_ms := _first_ms(app, symbol)) is not None
        for timeframe in app.config.timeframes
    }
    series = []
    for (symbol, timeframe), first_ms in wanted.items():
        known = operation.label_of(app.db, _scanned(app, symbol, timeframe))
        if not known or int(known) > first_ms:
            series.append((symbol, timeframe))
    learned = json.loads(operation.label_of(app.db, _learned(app)) or "[]")
    missing = {f"{symbol} {timeframe}" for symbol, timeframe in wanted} - set(learned)
    learn = bool(app.config.models.meta.enabled and not series and missing)
    return Todo(symbols, series, learn)


def _fetched(symbol: str) -> str:
    return f"fetched {symbol}"


def _scanned(app: App, symbol: str, timeframe: str) -> str:
    return f"scanned {app.strategy} {symbol} {timeframe}"


def _learned(app: App) -> str:
    return f"learned {app.strategy}"


def _first_ms(app: App, symbol: str) -> int | None:
    base = Series(app.config.exchange.id, symbol, app.config.data.base_timeframe)
    row = store.series_row(app.db, base)
    return None if row is None else row.first_ms


class Bootstrap:
    """Does what is left to do, on a thread, a connection and an exchange client of its own.

    `turn` is held while a child is at work: there is only ever one, weekly ones included.
    """

    def __init__(self, main: App, app: App, *, stop: threading.Event, turn: threading.Lock) -> None:
        self._main = main
        self._app = app
        self._stop = stop
        self._turn = turn
        self._retry_s: dict[str, float] = {}

    def start(self) -> threading.Thread:
        """Begin; returns the thread, which ends soon after `stop` is set."""
        thread = threading.Thread(target=self._run, name="bootstrap", daemon=True)
        thread.start()
        return thread

    def look(self) -> bool:
        """Do one step if there is any; returns whether there may be more."""
        app = self._app
        app.config, app.config_text = self._main.config, self._main.config_text
        if not app.is_file_in_force:  # the children would read other settings
            return False
        left = todo(app)
        progress = _Progress(app, self._stop)
        progress.outline(left)
        if left.symbols and self._may(STEPS[0]):
            self._fetch(left.symbols, progress)
        elif left.series and self._may(STEPS[1]):
            self._scan(left.series, progress)
        elif left.learn:
            self._learn(progress)
        else:
            return False
        return True

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                more = False
                with recorded(self._app, "bootstrap", due_ms=wall_ms(), limit_s=inf, is_rare=True):
                    more = self.look()
                self._stop.wait(0.1 if more else LOOK_S)
        finally:
            self._app.db.close()

    def _fetch(self, symbols: list[str], progress: _Progress) -> None:
        """Fetch history, newest first, as far as the exchange can be reached."""
        app = self._app
        main, clock = self._main.market()
        exchange = main.behind()
        app.use_market(exchange, clock)
        try:
            with self._step(STEPS[0], progress) as run:
                rows = backfill(
                    app,
                    symbols=symbols,
                    start_ms=history_start_ms(app),
                    end_ms=None,
                    progress=progress.part,
                    pause=self._pause,
                )
                run.n = sum(row["new"] for row in rows)
                failed = {row["symbol"]: row["error"] for row in rows if row["error"]}
                with app.db.write():
                    for symbol in set(symbols) - set(failed):
                        start = str(app.config.backfill.start_date)
                        operation.set_label(app.db, _fetched(symbol), start)
                run.detail = next(iter(failed.values()), "")
        finally:
            app.use_market(main, clock)
            if exchange is not main:
                exchange.close()

    def _pause(self, for_s: float) -> None:
        if self._stop.wait(for_s):
            raise Stopped("the scheduler stops; it goes on at the next start")

    def _scan(self, series: list[tuple[str, str]], progress: _Progress) -> None:
        app = self._app
        end_day = _day(self._main.market()[1].now_ms())
        for symbols, timeframes in _groups(series):
            firsts = {symbol: _first_ms(app, symbol) for symbol in symbols}
            arguments = ["--start", str(app.config.backfill.start_date), "--end", end_day]
            arguments += ["--workers", "1", "--symbols", *symbols, "--timeframes", *timeframes]
            if not self._child(STEPS[1], progress, "retro_scan.py", *arguments, limit_s=LIMIT_S):
                return
            with app.db.write():
                for symbol in symbols:
                    for timeframe in timeframes:
                        name = _scanned(app, symbol, timeframe)
                        operation.set_label(app.db, name, str(firsts[symbol]))

    def _learn(self, progress: _Progress) -> None:
        """Train, calibrate and tune; what lacks data now is left to the weekly work."""
        app = self._app
        names = [f"{s} {tf}" for s in app.config.symbols for tf in app.config.timeframes]
        scanned = [n for n in names if operation.label_of(app.db, f"scanned {app.strategy} {n}")]
        done = True
        for step in STEPS[2:]:
            if done:
                done = self._child(step, progress, "maintenance.py", step[2:])
            else:
                progress.lacks(step, "the step before it is not done; weekly work tries again")
        if not self._stop.is_set():
            with app.db.write():
                operation.set_label(app.db, _learned(app), json.dumps(scanned))

    def _child(
        self, step: str, progress: _Progress, script: str, *arguments: str, limit_s: float = 3600.0
    ) -> bool:
        while not self._turn.acquire(timeout=0.5):
            if self._stop.is_set():
                return False
        try:
            with self._step(step, progress) as run:
                run_child(
                    self._app,
                    script,
                    *arguments,
                    "--log-level",
                    "warning",
                    stop=self._stop,
                    limit_s=limit_s,
                    heard=lambda line: progress.heard(step, line),
                )
                run.n = 1
        finally:
            self._turn.release()
        return run.outcome in ("ok", "overrun") and run.n == 1

    @contextmanager
    def _step(self, step: str, progress: _Progress) -> Iterator[Run]:
        """Record one step as a run; what people read of it is kept true. Nothing is raised."""
        progress.begin(step)
        job = f"bootstrap_{step[2:]}"
        with recorded(self._app, job, due_ms=wall_ms(), limit_s=LIMIT_S) as run:
            yield run
        if run.waits:
            progress.lacks(step, run.waits)
        elif run.outcome == "error" or (run.outcome == "ok" and run.detail):
            progress.failed(step, run.detail)
            self._retry_s[step] = time.monotonic() + RETRY_S
        elif run.outcome != "missed":
            progress.done(step)

    def _may(self, step: str) -> bool:
        """Say whether a step that failed was left alone for long enough."""
        return time.monotonic() >= self._retry_s.get(step, float("-inf"))


class _Progress:
    """The rows that pages and people read; written at most every other second."""

    def __init__(self, app: App, stop: threading.Event) -> None:
        self._app, self._stop = app, stop
        self._step, self._state = "", ""
        self._parts: dict[str, tuple[int, int]] = {}
        self._begun_s = self._written_s = 0.0

    def outline(self, left: Todo) -> None:
        """Write which steps wait, and which are done, where the rows say otherwise."""
        scans = left.symbols or left.series
        waits = (left.symbols, scans, *[scans or left.learn] * 3)
        rows = operation.bootstrap_steps(self._app.db)
        known = {row["step"]: row["state"] for row in rows}
        left_open = {row["step"] for row in rows if row["state"] == "waiting" and row["detail"]}
        for step, wait in zip(STEPS, waits, strict=True):
            if wait and known.get(step) not in ("waiting", "failed"):
                self._write(step, "waiting")
            elif wait or step in left_open:
                continue
            elif known.get(step) in (None, "waiting", "running"):
                self._write(step, "done")

    def begin(self, step: str) -> None:
        """A step starts."""
        self._step, self._parts = step, {}
        self._begun_s = time.monotonic()
        self._write(step, "running")

    def part(self, what: str, done: int, total: int) -> None:
        """How far one of the works side by side is. Raises Stopped; waits while the WAL is full."""
        while not self._stop.is_set() and maintain.wal_bytes(self._app.db.path) > WAL_MAX_BYTES:
            self._stop.wait(1.0)
        if self._stop.is_set():
            raise Stopped("the scheduler stops; it goes on at the next start")
        if what not in self._parts and what.startswith("funding") and self._parts:
            self._parts = {}
        self._parts[what] = (done, total)
        self._running()

    def heard(self, step: str, line: str) -> None:
        """A line of a child: how far it is, if it says so."""
        if found := _COUNT.search(line):
            done, total = (int(number.replace(",", "")) for number in found.groups())
            self._step, self._parts = step, {"": (done, total)}
            self._running()

    def done(self, step: str) -> None:
        """A step has ended well."""
        self._write(step, "done")

    def lacks(self, step: str, what: str) -> None:
        """A step has too little to work on; weekly work tries again."""
        self._write(step, "waiting", detail=what)

    def failed(self, step: str, why: str) -> None:
        """A step could not be done."""
        self._write(step, "failed", detail=why)

    def _running(self) -> None:
        now_s = time.monotonic()
        if now_s - self._written_s < _WRITE_S:
            return
        self._written_s = now_s
        n_done, n_all = (sum(column) for column in zip(*self._parts.values(), strict=True))
        eta_s = (now_s - self._begun_s) * (n_all - n_done) / n_done if n_done else None
        self._write(self._step, "running", done=n_done, total=n_all, eta_s=eta_s)

    def _write(
        self,
        step: str,
        state: str,
        *,
        done: int = 0,
        total: int = 0,
        eta_s: float | None = None,
        detail: str = "",
    ) -> None:
        with self._app.db.write():
            operation.write_step(
                self._app.db,
                step,
                state=state,
                done=done,
                total=total,
                eta_s=eta_s,
                detail=detail[:300],
                wall_ms=wall_ms(),
            )


def _groups(series: list[tuple[str, str]]) -> Iterator[tuple[list[str], list[str]]]:
    """Yield symbols that lack the same timeframes together: a scan each."""
    lacking: dict[str, list[str]] = {}
    for symbol, timeframe in series:
        lacking.setdefault(symbol, []).append(timeframe)
    key: Callable[[str], list[str]] = lambda symbol: lacking[symbol]  # noqa: E731
    for timeframes, symbols in groupby(sorted(lacking, key=key), key=key):
        yield list(symbols), timeframes


def _day(at_ms: int) -> str:
    return str(date.fromordinal(719_163 + at_ms // DAY_MS))
