"""The retro-scan: the live scan over history, its trades followed to the end, stored once.

It goes through time in chunks, so that memory does not grow with the history. Each chunk is stored
in one transaction: a run that was interrupted is finished by repeating it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby, islice
from typing import Any

from core.app import App, wall_ms
from core.candle_law import ALL_TIME_MS
from core.delivery import WINDOW_MS, Decision, Pass
from core.domain import Candidate, Delivery, Origin, Progress, Series, Verdict
from core.jobs.explain import funnel_of
from core.jobs.follow import fates, follow_all, walkable_ms
from core.jobs.guards import decision_of, guard_pass, stored_decisions, told_before_window
from core.jobs.judge import Judge
from core.jobs.retro_series import SeriesScan, Task, scan_symbol
from core.jobs.scan import ScanReport, store_rows
from core.plans import REFUSALS
from core.signals import candidates_of
from core.store import candles as store
from core.store import operation
from core.store import signals as signal_store
from core.timeframe import DAY_MS, floor_ms, tf_ms

_CHUNK_MS = 360 * DAY_MS  # at most this much of the market is in memory at once …
_LEAST_CHUNK_MS = 60 * DAY_MS  # … less where there are many series, but each chunk reads anew …
_SERIES_YEARS = 12  # … what its first windows look back on


def retro_scan(
    app: App,
    *,
    start_ms: int,
    end_ms: int,
    symbols: Sequence[str] = (),
    timeframes: Sequence[str] = (),
    stride: int = 1,
    limit_per_pair: int = 0,
    workers: int = 0,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> ScanReport:
    """Scan history, follow its trades, judge them in time order and store what is new.

    Bars beyond a position that the scheduler holds are its own and left alone. Rows of a stride
    above 1 or a limit are marked (`scan_stride`, 0 for a limit). Repeating it stores nothing.
    Trades stored before are followed first, unless a scheduler does it: the guards ask for exits.
    """
    report = ScanReport()
    if app.holds_lock and not dry_run:
        follow_all(app, now_ms=ALL_TIME_MS[1])
    tasks = tasks_of(
        app,
        report,
        symbols=symbols or app.config.symbols,
        timeframes=timeframes or app.config.timeframes,
        window=(start_ms, end_ms),
        stride=stride,
        limit=limit_per_pair,
    )
    if not tasks:
        return report
    first_ms = min(task.first_ms for task in tasks)
    run = _Run(
        app=app,
        report=report,
        judge=Judge.of(app),
        guards=guard_pass(app.config, pauses=operation.pauses(app.db)),
        scan_stride=0 if limit_per_pair else stride,
        dry_run=dry_run,
        seen_ms=first_ms - WINDOW_MS,
    )
    run.guards.go_on(told_before_window(app, first_ms=first_ms))
    for scans in _scanned(app, tasks, workers=workers, progress=progress):
        run.take(scans)
    return report


def tasks_of(
    app: App,
    report: ScanReport,
    *,
    symbols: Sequence[str],
    timeframes: Sequence[str],
    window: tuple[int, int],
    stride: int,
    limit: int,
) -> list[Task]:
    """Return the stored bars of a window to scan, none beyond a position the scheduler holds.

    Why a series has none is said in the report.
    """
    tasks = []
    for symbol in symbols:
        for timeframe in timeframes:
            series = Series(app.config.exchange.id, symbol, timeframe)
            row = store.series_row(app.db, series)
            if row is None or row.first_ms is None or row.last_ms is None:
                report.waiting[f"{symbol} {timeframe}"] = "no candles"
                continue
            held = signal_store.position_of(app.db, series, app.strategy)
            last = min(window[1] - tf_ms(timeframe), row.last_ms)
            last = last if held is None else min(last, held)
            first = max(window[0], row.first_ms)
            if first <= last:
                tasks.append(
                    Task(
                        series=series,
                        first_ms=first,
                        last_ms=last,
                        origin_ms=first,
                        stride=stride,
                        limit=limit,
                    )
                )
    return sorted(tasks, key=lambda task: task.series.symbol)


def _chunks(tasks: Sequence[Task]) -> list[list[Task]]:
    """Cut tasks at the same midnights, so that decisions of a chunk all precede the next one's.

    The remainder comes first: the long chunk after it is being read meanwhile. A limit counts from
    the end of a whole series and is not cut.
    """
    if any(task.limit for task in tasks):
        return [list(tasks)]
    length_ms = max(_LEAST_CHUNK_MS, _CHUNK_MS * _SERIES_YEARS // max(_SERIES_YEARS, len(tasks)))
    length_ms = min(_CHUNK_MS, floor_ms(length_ms, DAY_MS))
    start = floor_ms(min(task.first_ms for task in tasks), DAY_MS)
    end = floor_ms(max(task.last_ms for task in tasks), DAY_MS) + DAY_MS
    chunks = []
    for low in range(end - length_ms * -((start - end) // length_ms), end, length_ms):
        parts = (_part(task, low, low + length_ms) for task in tasks)
        chunks.append([part for part in parts if part.first_ms <= part.last_ms])
    return [chunk for chunk in chunks if chunk]


def _part(task: Task, low_ms: int, high_ms: int) -> Task:
    """Return the part of a task whose bars open in [low, high)."""
    last_ms = floor_ms(high_ms - 1, tf_ms(task.series.timeframe))
    return replace(task, first_ms=max(task.first_ms, low_ms), last_ms=min(task.last_ms, last_ms))


def _scanned(
    app: App, tasks: Sequence[Task], *, workers: int, progress: Progress | None
) -> Iterator[list[SeriesScan]]:
    """Yield what each chunk of time holds, in processes where there is enough for more than one."""
    until = {
        symbol: walkable_ms(
            app.db,
            store.base_series(app.db, app.config.exchange.id, symbol),
            now_ms=ALL_TIME_MS[1],
        )
        for symbol in {task.series.symbol for task in tasks}
    }
    n_bars = sum((t.last_ms - t.first_ms) // tf_ms(t.series.timeframe) for t in tasks)
    n_jobs = workers or (os.cpu_count() or 1 if n_bars > 400_000 else 1)
    chunks = _chunks(tasks)
    groups = [
        [list(group) for _, group in groupby(chunk, key=lambda task: task.series.symbol)]
        for chunk in chunks
    ]
    every = (group for chunk in groups for group in chunk)
    found = _shared(app, every, until, n_jobs=n_jobs)
    n_done, n_all = 0, sum(len(chunk) for chunk in chunks)
    for chunk in groups:
        scans: list[SeriesScan] = []
        for group in islice(found, len(chunk)):
            scans += group
            if progress is not None:
                progress(f"scan {group[-1].task.series.symbol}", n_done + len(scans), n_all)
        n_done += len(scans)
        yield scans


def _shared(
    app: App, groups: Iterable[list[Task]], until: Mapping[str, int], *, n_jobs: int
) -> Iterator[list[SeriesScan]]:
    """Yield what `scan_symbol` says of each group, in order."""

    def call(group: list[Task], scan: Any = scan_symbol) -> Any:
        return scan(app.db.path, app.config, group, until_ms=until[group[0].series.symbol])

    if n_jobs == 1:
        return _one_ahead(partial(call, group) for group in groups)
    from joblib import Parallel, delayed

    calls = (call(group, delayed(scan_symbol)) for group in groups)
    found: Iterator[list[SeriesScan]] = Parallel(n_jobs=n_jobs, return_as="generator")(calls)
    return found


def _one_ahead(calls: Iterable[Callable[[], Any]]) -> Iterator[Any]:
    """Yield what each call returns; the next one runs meanwhile, in a thread.

    Most of a scan, reading candles and compiled loops, is done without the GIL.
    """
    waiting: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(max_workers=1) as pool:
        for call in calls:
            waiting.append(pool.submit(call))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        for last in waiting:
            yield last.result()


@dataclass(slots=True, kw_only=True)
class _Run:
    """One retro-scan on its way; `seen_ms` is the instant before which the guards know all."""

    app: App
    report: ScanReport
    judge: Judge
    guards: Pass
    scan_stride: int
    dry_run: bool
    seen_ms: int
    base_of: dict[str, str] = field(default_factory=dict)

    def take(self, scans: Sequence[SeriesScan]) -> None:
        """Judge what a chunk holds and store it, with its counts, in one transaction."""
        found = [pair for one in scans for pair in with_fates(self.app, one)]
        found.sort(key=lambda pair: pair[0].decided_ms)
        candidates, columns = [c for c, _ in found], [column for _, column in found]
        verdicts = self.judge.verdicts(candidates) if candidates else []
        end_ms = max(one.task.last_ms + tf_ms(one.task.series.timeframe) for one in scans) + 1
        delivered = self._delivered(candidates, verdicts, columns, end_ms=end_ms)
        self._count(scans, verdicts, delivered)
        if self.dry_run:
            return
        rows = [
            signal_store.signal_row(
                candidate,
                verdict,
                strategy=self.app.strategy,
                origin=Origin.RETRO,
                scan_stride=self.scan_stride,
                delivery=how[0],
                delivery_reason=how[1],
                base_timeframe=self._base_timeframe(candidate.series),
                exec_state=column["exec_state"],
            )
            | column
            for candidate, verdict, how, column in zip(
                candidates, verdicts, delivered, columns, strict=True
            )
        ]
        with self.app.db.write():
            signal_store.record_strategy(self.app.db, self.app.config, now_ms=wall_ms())
            self.report.n_stored += store_rows(self.app, rows, candidates, now_ms=end_ms)
            if self.scan_stride == 1:
                self._store_funnel(scans)

    def _base_timeframe(self, series: Series) -> str:
        if series.symbol not in self.base_of:
            base = store.base_series(self.app.db, series.exchange, series.symbol)
            self.base_of[series.symbol] = base.timeframe
        return self.base_of[series.symbol]

    def _delivered(
        self,
        candidates: Sequence[Candidate],
        verdicts: Sequence[Verdict],
        columns: Sequence[dict[str, Any]],
        *,
        end_ms: int,
    ) -> list[tuple[Delivery, str]]:
        """Let the guards go on to an instant; rows stored before are taken as they are."""
        stored = stored_decisions(self.app, start_ms=self.seen_ms, end_ms=end_ms)
        self.seen_ms = end_ms
        known = {decision.identity: decision for decision in stored}
        ours = []
        for candidate, verdict, column in zip(candidates, verdicts, columns, strict=True):
            new = decision_of(candidate, verdict, fate=column)
            ours.append(known.pop(new.identity, new))
        others: list[Decision] = list(known.values())
        return self.guards.go_on([*others, *ours])[len(others) :]

    def _count(
        self,
        scans: Sequence[SeriesScan],
        verdicts: Sequence[Verdict],
        delivered: Sequence[tuple[Delivery, str]],
    ) -> None:
        report = self.report
        for one in scans:
            report.n_bars += len(one.found.opens_ms)
            report.n_setups += len(one.found.taken) + len(one.found.refused)
            report.refusals.update(REFUSALS[code] for code in one.found.refused["refusal"])
        report.gates.update(f"{verdict.gate} {verdict.reason}".strip() for verdict in verdicts)
        report.deliveries.update(f"{how} {why}".strip() for how, why in delivered)

    def _store_funnel(self, scans: Sequence[SeriesScan]) -> None:
        for one in scans:
            taken, refused = one.found.taken, one.found.refused
            refused_ms = refused["ts_ms"].tolist()
            words = (REFUSALS[code] for code in refused["refusal"].tolist())
            counts = funnel_of(
                one.found.opens_ms,
                [*taken["ts_ms"].tolist(), *refused_ms],
                zip(refused_ms, words, strict=True),
            )
            signal_store.raise_funnel(self.app.db, one.task.series, self.app.strategy, counts)


def with_fates(app: App, scan: SeriesScan) -> Iterator[tuple[Candidate, dict[str, Any]]]:
    """Yield what counts of a scan, with the columns that following it filled."""
    usd = app.config.signals.evaluation.usd_per_trade
    columns = fates(scan.orders, scan.states, usd_per_trade=usd)
    return zip(candidates_of(scan.chosen, app.config), columns, strict=True)
