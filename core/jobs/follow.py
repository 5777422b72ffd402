"""Following every candidate on base candles to its end, and queueing what the owner is told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.app import App
from core.config import Config, config_from
from core.costs import cost_rates
from core.domain import Candles, Series, Side, TradePlan
from core.execution import (
    ORDER,
    STATE,
    Event,
    events,
    exit_rules,
    follow,
    order_of,
    outcomes,
    state_from_json,
    states_to_json,
)
from core.jobs.sync import frontier_ms
from core.jobs.tell import queue_events
from core.store import candles as store
from core.store import markets as market_store
from core.store import signals as signal_store
from core.store.db import Database
from core.timeframe import HOUR_MS

_CHUNK_MS = 60 * 24 * HOUR_MS  # base candles in memory at once
_SAVE_EVERY_MS = HOUR_MS  # a state in which nothing happened is written this often
_DRIFTING = ("walked_ms", "mfe_r", "mae_r")  # these move each minute


def plan_of(row: Mapping[str, Any]) -> TradePlan:
    """Return the plan a stored row holds."""
    return TradePlan(
        side=Side.of(row["direction"]),
        entry=row["entry"],
        stop=row["sl"],
        tp1=row["tp1"],
        tp2=row["tp2"],
        atr=row["atr"],
        leverage=row["leverage"],
        risk_pct=row["risk_pct"],
        notional_usd=row["position_notional"],
        liquidation=row["liquidation"],
        cost_r=row["cost_r"],
        p_mart=row["p_mart"],
        decided_ms=row["decided_ms"],
        actionable_ms=row["actionable_ms"],
        valid_until_ms=row["valid_until_ms"],
    )


def settings_under(db: Database, config: Config, strategy: str) -> Config:
    """Return the settings a row was made under: an open trade ends under its own."""
    stored = signal_store.strategy_settings_of(db, strategy)
    if stored is None:
        return config
    return config_from(
        {
            "signals": stored["signals"],
            "risk": stored["risk"],
            "execution": stored["execution"],
            "timeframes": ["1d"],
            "data": {"base_timeframe": stored["base_timeframe"], "derived_timeframes": []},
        }
    )


def fates(orders: Any, states: Any, *, usd_per_trade: float) -> list[dict[str, Any]]:
    """Return the columns of `signals` that following fills, of each order; pure."""
    found = outcomes(orders, states)
    pnl = found["pnl_pct"]
    columns = {
        "status": [status.value for status in found["status"]],
        "opened_ts_ms": found["opened_ts_ms"],
        "closed_ts_ms": found["closed_ts_ms"],
        "exit_price": found["exit_price"],
        "exit_reason": [reason or None for reason in found["exit_reason"]],
        "tp1_hit": [int(hit) for hit in found["tp1_hit"]],
        "pnl_pct": pnl,
        "pnl_usd": [None if x is None else x / 100 * usd_per_trade for x in pnl],
        "r_multiple": found["r_multiple"],
        "gross_r": found["gross_r"],
        "ambiguous": [int(unclear) for unclear in found["ambiguous"]],
        "stop_now": found["stop_now"],
        "tp1_ts_ms": [instant or None for instant in states["tp1_ms"].tolist()],
        "exec_state": states_to_json(states),
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def follow_all(app: App, *, now_ms: int) -> int:
    """Walk every pending or open row up to now; returns how many changed."""
    rows = signal_store.followed(app.db, exchange=app.config.exchange.id)
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["symbol"], row["strategy_id"], row["base_timeframe"]].append(row)
    n_changed = 0
    for (symbol, strategy, _), group in groups.items():
        n_changed += follow_group(app, symbol, strategy, group, now_ms=now_ms)
    return n_changed


def walkable_ms(db: Database, base: Series, *, now_ms: int) -> int:
    """Return how far the trades of a base series may be walked by now.

    Not past a hole that is not settled, nor onto a settlement whose rate is awaited: an exit is
    never retaken, so what it pays is to be known before it.
    """
    until_ms = min(now_ms, frontier_ms(db, base))
    return market_store.funding_frontier_ms(db, base.exchange, base.symbol, until_ms=until_ms)


def follow_group(
    app: App, symbol: str, strategy: str, rows: Sequence[dict[str, Any]], *, now_ms: int
) -> int:
    """Walk the rows of one symbol and strategy together, in chunks of base candles."""
    exchange, base_tf = app.config.exchange.id, rows[0]["base_timeframe"]
    base = Series(exchange, symbol, base_tf)
    until = walkable_ms(app.db, base, now_ms=now_ms)
    orders, before = np.zeros(len(rows), ORDER), np.zeros(len(rows), STATE)
    for i, row in enumerate(rows):
        orders[i] = order_of(plan_of(row), row["timeframe"])[0]
        before[i] = state_from_json(row["exec_state"])[0]
    start = int(before["walked_ms"].min())
    if until <= start:
        return 0
    own = strategy == app.strategy
    config = app.config if own else settings_under(app.db, app.config, strategy)
    market = market_store.market_of(app.db, exchange, symbol)
    after = before
    while start < until:
        end = min(until, start + _CHUNK_MS)
        bars: Candles = store.read_candles(app.db, base, start_ms=start, end_ms=end)
        after = follow(
            orders,
            after,
            bars,
            rules=exit_rules(config.execution),
            rates=cost_rates(config.signals, market),
            funding=market_store.funding_of(
                app.db, exchange, symbol, start_ms=start, end_ms=end + 1
            ),
            until_ms=end,
        )
        start = end
    return _save(app, rows, orders, before, after)


def _save(app: App, rows: Sequence[dict[str, Any]], orders: Any, before: Any, after: Any) -> int:
    """Write what changed, and the messages that tell it, in one transaction."""
    n_changed, touched = 0, np.flatnonzero(_touched(before, after)).tolist()
    if not touched:
        return 0
    usd = app.config.signals.evaluation.usd_per_trade
    changed = fates(orders[touched], after[touched], usd_per_trade=usd)
    with app.db.write():
        for i, changes in zip(touched, changed, strict=True):
            row = rows[i]
            happened: list[Event] = events(orders[i], before[i], after[i])
            signal_store.update_signal(app.db, row["id"], changes)
            queue_events(app, {**row, **changes}, happened)
            n_changed += bool(happened)
    return n_changed


def _touched(before: Any, after: Any) -> Any:
    """Say which states are worth writing: something happened, or an hour was walked.

    Walking again what was walked gives the same bits, so the rest may be lost.
    """
    changed = after["walked_ms"] - before["walked_ms"] >= _SAVE_EVERY_MS
    for name in STATE.names or ():
        if name not in _DRIFTING:
            old, new = before[name], after[name]
            differs = (old != new) & ~(np.isnan(old) & np.isnan(new))
            changed |= differs.reshape(len(differs), -1).any(axis=1)
    return changed
