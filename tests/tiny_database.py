"""A database of a few candidates written by hand, so that its figures can be worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from core.config import Config
from core.domain import Candles
from core.store import Database, open_database
from core.store.operation import write_clock
from core.store.signals import insert_signal, record_strategy, update_signal
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS

T0 = 1_735_689_600_000  # 2025-01-01, a Wednesday


def tiny(path: Path, *, n_days: int = 60) -> tuple[Database, str]:
    """A database with a strategy, and a market time some days after T0."""
    db = open_database(path)
    strategy = record_strategy(db, Config(), now_ms=T0)
    write_clock(db, market_ms=T0 + n_days * DAY_MS, wall_ms=T0, speed=1.0)
    return db, strategy


def add(db: Database, strategy: str, day: float, **changes: Any) -> int:
    """A candidate decided `day` days after T0, closed an hour later unless changed."""
    decided = T0 + int(day * DAY_MS)
    row = {
        "exchange": "x",
        "symbol": "A/USDT",
        "timeframe": "1h",
        "setup": "limit",
        "direction": "long",
        "p0_ms": decided - 9 * HOUR_MS,
        "p1_ms": decided - 3 * HOUR_MS,
        "strategy_id": strategy,
        "scan_stride": 1,
        "origin": "live",
        "ts_ms": decided - HOUR_MS,
        "decided_ms": decided,
        "actionable_ms": decided + 2 * MINUTE_MS,
        "entry": 100.0,
        "sl": 90.0,
        "tp1": 115.0,
        "tp2": 130.0,
        "atr": 4.0,
        "leverage": 1.0,
        "risk_pct": 1.0,
        "position_notional": 1000.0,
        "liquidation": 10.0,
        "cost_r": 0.1,
        "valid_until_ms": decided + DAY_MS,
        "rationale": "by hand",
        "regime": "range/vol_low",
        "p_mart": 0.4,
        "gate": "PASS",
        "gate_reason": "ungated",
        "evidence": "UNGATED",
        "delivery": "PAPER",
        "delivery_reason": "",
        "status": "PENDING",
        "base_timeframe": "1m",
        "exec_state": "{}",
    }
    number = insert_signal(db, row, np.zeros(2), version=1)
    assert number > 0
    closed = {
        "status": "SL",
        "exit_reason": "stop",
        "opened_ts_ms": decided + HOUR_MS // 2,
        "closed_ts_ms": decided + HOUR_MS,
        "exit_price": 90.0,
        "r_multiple": -1.1,
        "gross_r": -1.0,
        "pnl_pct": -11.0,
        "pnl_usd": -110.0,
    }
    update_signal(db, number, closed | changes)
    return number


def won(r: float) -> dict[str, Any]:
    """What a row has that ended at its target with `r` net."""
    return {"status": "TP", "exit_reason": "target", "r_multiple": r, "gross_r": r + 0.1}


def flat_bars(start_ms: int, n: int, step_ms: int, timeframe: str = "1h") -> Candles:
    """Bars that all stand at 1."""
    ones = np.ones(n)
    ts_ms = start_ms + step_ms * np.arange(n, dtype=np.int64)
    return Candles(timeframe, ts_ms, ones, ones, ones, ones, ones)
