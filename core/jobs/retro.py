"""The retro-scan: the live scan over history, its trades followed to the end, stored once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from core import signals
from core.app import App, wall_ms
from core.candle_law import ALL_TIME_MS
from core.config import Config
from core.costs import cost_rates
from core.delivery import WINDOW_MS, Decision
from core.domain import Candidate, Candles, Origin, Progress, Series, Status
from core.execution import (
    exit_rules,
    follow,
    new_states,
    order_of,
    outcome,
    state_to_json,
)
from core.jobs.explain import funnel_of
from core.jobs.follow import follow_all, outcome_columns, walkable_ms
from core.jobs.judge import Judge
from core.jobs.scan import (
    ScanReport,
    candidate_row,
    decision_of,
    leader_of,
    past_decisions,
    run_guards,
    store_rows,
)
from core.store import candles as store
from core.store import markets as market_store
from core.store import signals as signal_store
from core.store.db import Database, open_reader
from core.store.gaps import missing_ms
from core.timeframe import floor_ms, higher_timeframes, tf_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One series to scan: bars that open in [first_ms, last_ms]."""

    series: Series
    first_ms: int
    last_ms: int
    stride: int
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """One candidate with the columns that following it filled."""

    candidate: Candidate
    columns: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesScan:
    """What scanning one series gave."""

    task: Task
    result: signals.ScanResult
    followed: list[Followed]


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
    tasks = _tasks(
        app,
        report,
        symbols=symbols or app.config.symbols,
        timeframes=timeframes or app.config.timeframes,
        window=(start_ms, end_ms),
        stride=stride,
        limit=limit_per_pair,
    )
    scans = _run_tasks(app, tasks, workers=workers, progress=progress)
    candidates = [found.candidate for one in scans for found in one.followed]
    columns = [found.columns for one in scans for found in one.followed]
    order = sorted(range(len(candidates)), key=lambda i: (candidates[i].decided_ms, i))
    _judge_and_store(
        app,
        [candidates[i] for i in order],
        [columns[i] for i in order],
        report,
        scan_stride=0 if limit_per_pair else stride,
        dry_run=dry_run,
    )
    for one in scans:
        report.n_bars += one.result.n_bars
        report.n_setups += one.result.n_setups
        report.refusals.update(rejection.reason for rejection in one.result.rejections)
        if not dry_run and stride == 1 and not limit_per_pair and report.n_stored:
            with app.db.write():
                signal_store.count_funnel(
                    app.db, one.task.series, app.strategy, funnel_of(one.result, one.task.last_ms)
                )
    return report


def _tasks(
    app: App,
    report: ScanReport,
    *,
    symbols: Sequence[str],
    timeframes: Sequence[str],
    window: tuple[int, int],
    stride: int,
    limit: int,
) -> list[Task]:
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
                    Task(series=series, first_ms=first, last_ms=last, stride=stride, limit=limit)
                )
    return tasks


def _run_tasks(
    app: App, tasks: Sequence[Task], *, workers: int, progress: Progress | None
) -> list[SeriesScan]:
    """Scan the series, in processes where there is enough to do for more than one."""
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
    by_symbol = {symbol: [t for t in tasks if t.series.symbol == symbol] for symbol in until}
    calls = (
        delayed(scan_symbol)(app.db.path, app.config, group, until_ms=until[symbol])
        for symbol, group in sorted(by_symbol.items())
    )
    scans: list[SeriesScan] = []
    for group in Parallel(n_jobs=n_jobs, return_as="generator")(calls):
        scans.extend(group)
        if progress is not None:
            progress(f"scan {group[-1].task.series.symbol}", len(scans), len(tasks))
    return scans


def scan_symbol(
    path: Path, config: Config, tasks: Sequence[Task], *, until_ms: int
) -> list[SeriesScan]:
    """Scan the series of one symbol and follow their candidates; writes nothing.

    The base candles are read once: they are most of the work.
    """
    with open_reader(path) as db:
        base = _base_candles(db, config, tasks)
        return [_scan_task(db, config, task, base, until_ms=until_ms) for task in tasks]


def _scan_task(
    db: Database, config: Config, task: Task, base: Candles, *, until_ms: int
) -> SeriesScan:
    data = _history(db, config, task, base)
    result = signals.scan(data, config, first_ms=task.first_ms, last_ms=task.last_ms)
    chosen = result.candidates
    if task.stride > 1:
        step = tf_ms(task.series.timeframe) * task.stride
        chosen = [c for c in chosen if (c.ts_ms - task.first_ms) % step == 0]
    if task.limit:
        chosen = chosen[-task.limit :]
    followed = _followed(db, config, task.series, chosen, base, until_ms=until_ms)
    return SeriesScan(task=task, result=result, followed=followed)


def _base_candles(db: Database, config: Config, tasks: Sequence[Task]) -> Candles:
    """Read what deciding and following all bars of the tasks may need of the base series."""
    series = tasks[0].series
    base = store.base_series(db, series.exchange, series.symbol)
    start = min(task.first_ms for task in tasks) - signals.NOISE_BARS * tf_ms(base.timeframe)
    end = max(
        task.last_ms + tf_ms(task.series.timeframe) + _longest_ms(config, task.series.timeframe)
        for task in tasks
    )
    return _with_earlier(db, base, start_ms=start, end_ms=end, n=signals.NOISE_BARS)


def _history(db: Database, config: Config, task: Task, base: Candles) -> signals.ScanInput:
    """Read the arrays of a whole series: each window of it lies inside them."""
    series, lookback = task.series, config.signals.lookback_candles
    end = task.last_ms + tf_ms(series.timeframe)

    def bars(symbol: str, timeframe: str) -> Candles:
        step = tf_ms(timeframe)
        start = _start_of_window(task.first_ms, step, lookback)
        name = Series(series.exchange, symbol, timeframe)
        return _with_earlier(db, name, start_ms=start, end_ms=end, n=lookback)

    first, second = higher_timeframes(series.timeframe)
    base_series = store.base_series(db, series.exchange, series.symbol)
    leader = leader_of(series.symbol)
    own = bars(series.symbol, series.timeframe)
    origin = int(own.ts_ms[0]) if len(own) else task.first_ms
    return signals.ScanInput(
        series=series,
        bars=own,
        higher=(bars(series.symbol, first), bars(series.symbol, second)),
        base=base,
        leader=None if leader is None else bars(leader, series.timeframe),
        market=market_store.market_of(db, series.exchange, series.symbol),
        missing_ms=missing_ms(db, base_series, start_ms=origin, end_ms=end),
        context=market_store.context_of(db, series, first_ms=task.first_ms, known_ms=end),
    )


def _start_of_window(first_ms: int, step: int, lookback: int) -> int:
    return floor_ms(first_ms, step) - lookback * step


def _with_earlier(db: Database, name: Series, *, start_ms: int, end_ms: int, n: int) -> Candles:
    """Read [start, end) and, where holes left fewer, the `n` bars known before as well."""
    bars = store.read_candles(db, name, start_ms=start_ms, end_ms=end_ms)
    earlier = store.last_candles(db, name, n, known_at_ms=start_ms + tf_ms(name.timeframe) - 1)
    if not len(earlier):
        return bars
    earlier = earlier[: int(np.searchsorted(earlier.ts_ms, start_ms))]
    ts_ms = np.concatenate((earlier.ts_ms, bars.ts_ms))
    old, new = earlier.columns()[1:], bars.columns()[1:]
    prices = (np.concatenate(pair) for pair in zip(old, new, strict=True))
    return Candles(name.timeframe, ts_ms, *prices)


def _longest_ms(config: Config, timeframe: str) -> int:
    """Return the longest time from a decision to its trade's end, plus a minute's slack."""
    bars = config.signals.validity_candles + config.execution.max_hold_candles + 1
    return bars * tf_ms(timeframe) + 1000 * config.execution.delivery_delay_s


def _followed(
    db: Database,
    config: Config,
    series: Series,
    candidates: Sequence[Candidate],
    base: Candles,
    *,
    until_ms: int,
) -> list[Followed]:
    if not candidates:
        return []
    orders = np.concatenate([order_of(c.plan, series.timeframe) for c in candidates])
    market = market_store.market_of(db, series.exchange, series.symbol)
    states = follow(
        orders,
        new_states(orders),
        base,
        rules=exit_rules(config.execution),
        rates=cost_rates(config.signals, market),
        funding=market_store.funding_of(
            db, series.exchange, series.symbol, start_ms=0, end_ms=until_ms + 1
        ),
        until_ms=until_ms,
    )
    usd = config.signals.evaluation.usd_per_trade
    found = []
    for i, candidate in enumerate(candidates):
        columns = outcome_columns(outcome(orders[i], states[i]), usd_per_trade=usd)
        if states[i]["tp1_ms"] > 0:
            columns["tp1_ts_ms"] = int(states[i]["tp1_ms"])
        columns["exec_state"] = state_to_json(states[i : i + 1])
        found.append(Followed(candidate=candidate, columns=columns))
    return found


def _judge_and_store(
    app: App,
    candidates: Sequence[Candidate],
    columns: Sequence[dict[str, Any]],
    report: ScanReport,
    *,
    scan_stride: int,
    dry_run: bool,
) -> None:
    """Score, run the guards in time order with the exits known, and insert what is new."""
    if not candidates:
        return
    verdicts = Judge.of(app).verdicts(candidates, retro=True)
    decisions = [
        _with_exit(decision_of(candidate, verdict), column)
        for candidate, verdict, column in zip(candidates, verdicts, columns, strict=True)
    ]
    own = {decision.identity for decision in decisions}
    past = past_decisions(
        app,
        start_ms=candidates[0].decided_ms - WINDOW_MS,
        end_ms=candidates[-1].decided_ms + 1,
    )
    past = [decision for decision in past if decision.identity not in own]
    delivered = run_guards(app.config, [*past, *decisions])[len(past) :]
    report.gates.update(f"{verdict.gate} {verdict.reason}".strip() for verdict in verdicts)
    report.deliveries.update(f"{how} {why}".strip() for how, why in delivered)
    if dry_run:
        return
    rows = [
        {
            **candidate_row(
                app, candidate, verdict, how, origin=Origin.RETRO, scan_stride=scan_stride
            ),
            **column,
        }
        for candidate, verdict, how, column in zip(
            candidates, verdicts, delivered, columns, strict=True
        )
    ]
    now_ms = candidates[-1].decided_ms
    with app.db.write():
        signal_store.record_strategy(app.db, app.config, now_ms=wall_ms())
        report.n_stored = store_rows(app, rows, candidates, now_ms=now_ms)


def _with_exit(decision: Decision, columns: dict[str, Any]) -> Decision:
    return replace(
        decision,
        opened_ts_ms=columns["opened_ts_ms"],
        closed_ts_ms=columns["closed_ts_ms"],
        r_multiple=columns["r_multiple"],
        stopped=columns["status"] == Status.SL.value,
    )
