"""One symbol's part of the retro-scan: read its candles, decide its bars, follow its trades.

It writes nothing and is a function of the stored candles, so that processes can share the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from core import signals
from core.config import Config
from core.costs import cost_rates
from core.domain import Candles, Series
from core.execution import ORDER, Orders, States, exit_rules, follow, new_states
from core.jobs.scan import leader_of
from core.signals import Decided
from core.store import candles as store
from core.store import markets as market_store
from core.store.db import Database, open_reader
from core.store.gaps import missing_ms
from core.store.seams import seams_ms
from core.timeframe import DAY_MS, floor_ms, higher_timeframes, tf_ms

_TAIL_MS = 4 * DAY_MS  # trades that outlive the bars that were scanned are walked on in such steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Bars of one series to scan: those that open in [first_ms, last_ms].

    Every `stride`-th bar counts, from `origin_ms` on; of what is found there the last `limit`.
    """

    series: Series
    first_ms: int
    last_ms: int
    origin_ms: int
    stride: int
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesScan:
    """What scanning one task gave: all that was found, and what counts of it with its fate."""

    task: Task
    found: Decided
    chosen: Decided
    orders: Orders
    states: States


def scan_symbol(
    path: Path, config: Config, tasks: Sequence[Task], *, until_ms: int
) -> list[SeriesScan]:
    """Scan the series of one symbol and follow their candidates; writes nothing.

    The base candles are read once: they are most of the work.
    """
    with open_reader(path) as db:
        base = _base_candles(db, tasks)
        found = [
            signals.decided(
                _history(db, config, task, base),
                config,
                first_ms=task.first_ms,
                last_ms=task.last_ms,
            )
            for task in tasks
        ]
        chosen = [_chosen(one, task) for one, task in zip(found, tasks, strict=True)]
        orders = [orders_of(one, config) for one in chosen]
        read_ms = max(task.last_ms + tf_ms(task.series.timeframe) for task in tasks)
        states = _followed(
            db, config, tasks[0].series, orders, base, read_ms=read_ms, until_ms=until_ms
        )
    ends = np.cumsum([len(some) for some in orders]).tolist()
    return [
        SeriesScan(
            task=tasks[i],
            found=found[i],
            chosen=chosen[i],
            orders=orders[i],
            states=states[end - len(orders[i]) : end],
        )
        for i, end in enumerate(ends)
    ]


def _chosen(found: Decided, task: Task) -> Decided:
    keep = np.ones(len(found.taken), np.bool_)
    if task.stride > 1:
        step = tf_ms(task.series.timeframe) * task.stride
        keep = (found.taken["ts_ms"] - task.origin_ms) % step == 0
    if task.limit:
        keep[np.flatnonzero(keep)[: -task.limit]] = False
    return replace(found, taken=found.taken[keep], features=found.features[keep])


def orders_of(found: Decided, config: Config) -> Orders:
    """Return the orders of what was taken, as `execution.order_of` makes them of plans."""
    orders, length_ms = np.zeros(len(found.taken), ORDER), tf_ms(found.series.timeframe)
    for name in ("side", "entry", "stop", "tp1", "tp2", "atr", "liquidation", "decided_ms"):
        orders[name] = found.taken[name]
    delay_ms = config.execution.delivery_delay_s * 1000
    orders["actionable_ms"] = orders["decided_ms"] + delay_ms
    valid_ms = config.signals.validity_candles * length_ms
    orders["valid_until_ms"] = orders["decided_ms"] + valid_ms
    orders["tf_ms"] = length_ms
    return orders


def _followed(
    db: Database,
    config: Config,
    series: Series,
    orders: Sequence[Orders],
    base: Candles,
    *,
    read_ms: int,
    until_ms: int,
) -> States:
    """Walk a symbol's orders over `base`, read up to `read_ms`, and on until all are over.

    Nothing after `until_ms` is settled yet. Fed in pieces, the walk is the same to the bit.
    """
    exchange, symbol, _ = series
    together = np.concatenate(orders)
    states = new_states(together)
    start = int(together["actionable_ms"].min()) if len(together) else read_ms
    market, name = (
        market_store.market_of(db, exchange, symbol),
        Series(exchange, symbol, base.timeframe),
    )
    end = read_ms
    while not states["closed_ms"].all():
        stop = min(end, until_ms)
        states = follow(
            together,
            states,
            base,
            rules=exit_rules(config.execution),
            rates=cost_rates(config.signals, market),
            funding=market_store.funding_of(db, exchange, symbol, start_ms=start, end_ms=stop + 1),
            until_ms=stop,
        )
        if end >= until_ms:
            break
        start, end = end, end + _TAIL_MS
        base = store.read_candles(db, name, start_ms=start, end_ms=end)
    return states


def _base_candles(db: Database, tasks: Sequence[Task]) -> Candles:
    """Read the base bars that deciding the tasks needs; following begins on them too."""
    series = tasks[0].series
    base = store.base_series(db, series.exchange, series.symbol)
    start = min(task.first_ms for task in tasks) - signals.NOISE_BARS * tf_ms(base.timeframe)
    end = max(task.last_ms + tf_ms(task.series.timeframe) for task in tasks)
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
        seams_ms=seams_ms(db, series.exchange, series.symbol),
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
