"""Answers about the scan: what time the market has, and why there is or is not a signal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from core.app import App, wall_ms
from core.domain import Ints
from core.store import candles as store
from core.store import operation
from core.timeframe import DAY_MS, floor_ms, tf_ms

FUNNEL_DAYS = 7


def market_now_ms(app: App) -> int:
    """Return market time without asking the exchange: for scripts that act on what is stored.

    Live it is this machine's clock. In a replay it is the end of the newest stored base bar, or
    the scheduler's last tick where that is later.
    """
    if app.config.exchange.id != "replay":
        return wall_ms()
    tick = operation.clock_row(app.db)
    return max(_newest_end_ms(app), tick[0] if tick else 0)


def data_now_ms(app: App) -> int:
    """Return the instant up to which there is data: "now" for training on what is stored.

    A database of recorded years is trained as of its end, not as of today.
    """
    return min(_newest_end_ms(app) or wall_ms(), market_now_ms(app))


def _newest_end_ms(app: App) -> int:
    """Return the end of the newest stored base bar of the configured symbols, or 0."""
    exchange = app.config.exchange.id
    bases = [store.base_series(app.db, exchange, symbol) for symbol in app.config.symbols]
    rows = [store.series_row(app.db, base) for base in bases]
    ends = [
        row.last_ms + tf_ms(row.series.timeframe)
        for row in rows
        if row is not None and row.last_ms is not None
    ]
    return max(ends, default=0)


def funnel_of(
    opens_ms: Ints, setups_ms: Iterable[int], refusals: Iterable[tuple[int, str]]
) -> list[tuple[int, str, int]]:
    """Return a scan's counts as (day, reason, n): bars, setups and refusals, by their opens."""
    days, n_bars = np.unique(opens_ms - opens_ms % DAY_MS, return_counts=True)
    counts = Counter(
        {(day, "bars"): n for day, n in zip(days.tolist(), n_bars.tolist(), strict=True)}
    )
    counts.update((floor_ms(ts_ms, DAY_MS), "setups") for ts_ms in setups_ms)
    counts.update((floor_ms(ts_ms, DAY_MS), reason) for ts_ms, reason in refusals)
    return [(day, reason, n) for (day, reason), n in counts.items()]


def funnel(
    app: App, *, symbols: Sequence[str] = (), timeframes: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the counts of the last days: bars, setups, refusals, gate and delivery."""
    now_ms = market_now_ms(app)
    rows = app.db.dicts(
        "SELECT symbol, timeframe, reason, sum(n) AS n FROM funnel WHERE strategy_id = ?"
        " AND day_ms >= ? GROUP BY symbol, timeframe, reason",
        (app.strategy, now_ms - FUNNEL_DAYS * DAY_MS),
    )
    chosen = [r for r in rows if _wanted(r, symbols, timeframes)]
    counts: Counter[str] = Counter()
    for row in chosen:
        counts[row["reason"]] += row["n"]
    told = app.db.dicts(
        "SELECT symbol, timeframe, gate, gate_reason, delivery, delivery_reason, count(*) AS n"
        " FROM signals WHERE strategy_id = ? AND decided_ms >= ?"
        " GROUP BY symbol, timeframe, gate, gate_reason, delivery, delivery_reason",
        (app.strategy, now_ms - FUNNEL_DAYS * DAY_MS),
    )
    gates: Counter[str] = Counter()
    deliveries: Counter[str] = Counter()
    for row in (r for r in told if _wanted(r, symbols, timeframes)):
        gates[f"{row['gate']} {row['gate_reason']}"] += row["n"]
        deliveries[f"{row['delivery']} {row['delivery_reason']}".strip()] += row["n"]
    bars, setups = counts.pop("bars", 0), counts.pop("setups", 0)
    steps = [("bars", bars), ("setups", setups)]
    steps += [(f"refused: {reason}", n) for reason, n in counts.most_common()]
    steps += [(f"gate: {gate}", n) for gate, n in gates.most_common()]
    steps += [(f"delivery: {how}", n) for how, n in deliveries.most_common()]
    return {f"funnel, last {FUNNEL_DAYS} days": [{"step": s, "n": n} for s, n in steps]}


def _wanted(row: dict[str, Any], symbols: Sequence[str], timeframes: Sequence[str]) -> bool:
    return (not symbols or row["symbol"] in symbols) and (
        not timeframes or row["timeframe"] in timeframes
    )
