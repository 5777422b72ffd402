"""A database of closed candidates whose truth is known: wins from geometry and one feature."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core import features as feature_law
from core.config import Config
from core.config_file import load_config
from core.domain import Candidate, Series, Setup, Side, TradePlan
from core.ml.sample import Sample
from core.store import Database, open_database
from core.store.signals import insert_signal, record_strategy
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS

START_MS = 1_700_000_000_000 - 1_700_000_000_000 % DAY_MS
STEP_MS = 3 * HOUR_MS
DRIVER = 5  # the feature that knows something
YAML = """# my settings
models:
  meta:
    gating:
      min_ev_pct: 0.0   # plain
      window_days: 1000
      per_pair_tf: {}   # the tuner's
      # below: mine
      per_regime: {}
symbols: [A/USDT, B/USDT]  # two
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A database of closed candidates, its settings and the instant after the last matured."""

    db: Database
    config: Config
    config_path: Path
    models_dir: Path
    now_ms: int

    @property
    def places(self) -> dict[str, Any]:
        return {"models_dir": self.models_dir, "now_ms": self.now_ms}

    @property
    def all_places(self) -> dict[str, Any]:
        return {**self.places, "config_path": self.config_path}


def world(folder: Path, *, n: int, skill: float, seed: int = 1, shuffle: bool = False) -> World:
    """Store n candidates; wins are drawn from p_mart moved by `skill` times one feature.

    One in eight never fills. Each wins its reward or loses 1 R, costs are .05 R.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(YAML)
    config = load_config(path)
    db = open_database(folder / "data" / "ohlcv.db")
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, len(feature_law.NAMES)))
    p_mart = rng.uniform(0.3, 0.6, n)
    p = 1 / (1 + np.exp(-np.log(p_mart / (1 - p_mart)) - skill * features[:, DRIVER]))
    won = rng.random(n) < p
    if shuffle:
        won = rng.permutation(won)
    filled = rng.random(n) < 7 / 8
    with db.write():
        strategy = record_strategy(db, config, now_ms=START_MS)
        for i in range(n):
            row = candidate(
                i, strategy, p_mart=float(p_mart[i]), won=bool(won[i]), filled=bool(filled[i])
            )
            insert_signal(db, row, features[i], version=feature_law.VERSION)
    now_ms = START_MS + n * STEP_MS + 40 * DAY_MS
    return World(
        db=db, config=config, config_path=path, models_dir=folder / "models", now_ms=now_ms
    )


def candidate(
    i: int,
    strategy: str,
    *,
    p_mart: float,
    won: bool,
    filled: bool,
    place: tuple[str, int] | None = None,
    cost_r: float = 0.05,
) -> dict[str, Any]:
    """Return the row of candidate i; without a place (symbol, instant) two decide together."""
    symbol, decided = place or ("AB"[i % 2] + "/USDT", START_MS + (i // 2) * 2 * STEP_MS)
    opened, closed = decided + 10 * MINUTE_MS, decided + (2 + i % 5) * HOUR_MS
    gross = (1 / p_mart - 1) if won else -1.0
    outcome: dict[str, Any] = {"status": "EXPIRED", "closed_ts_ms": decided + 6 * HOUR_MS}
    if filled:
        outcome = {
            "status": "TP" if won else "SL",
            "opened_ts_ms": opened,
            "closed_ts_ms": closed,
            "gross_r": gross,
            "r_multiple": gross - cost_r,
            "pnl_pct": 2 * (gross - cost_r),
        }
    return {
        "exchange": "bitget",
        "symbol": symbol,
        "timeframe": "15m",
        "setup": "limit",
        "direction": "long",
        "p0_ms": decided - 20 * MINUTE_MS,
        "p1_ms": decided - 15 * MINUTE_MS - i,
        "strategy_id": strategy,
        "scan_stride": 1,
        "origin": "retro",
        "ts_ms": decided - 15 * MINUTE_MS,
        "decided_ms": decided,
        "actionable_ms": decided + 120_000,
        "entry": 100.0,
        "sl": 98.0,
        "tp1": 100 + 2 * (1 / p_mart - 1),
        "tp2": 100 + 3 * (1 / p_mart - 1),
        "atr": 1.0,
        "leverage": 1.0,
        "risk_pct": 1.0,
        "position_notional": 1000.0,
        "liquidation": 0.0,
        "cost_r": cost_r,
        "valid_until_ms": decided + 6 * HOUR_MS,
        "rationale": "",
        "regime": "trend/vol_low",
        "p_mart": p_mart,
        "gate": "PASS",
        "gate_reason": "ungated",
        "evidence": "UNGATED",
        "delivery": "DIGEST",
        "delivery_reason": "",
        "base_timeframe": "1m",
        "exec_state": "{}",
        **outcome,
    }


def live_candidate(sample: Sample, i: int) -> Candidate:
    """Return row i as the scan would have found it."""
    entry, stop, tp1 = (float(column[i]) for column in (sample.entry, sample.stop, sample.tp1))
    t0 = int(sample.t0_ms[i])
    plan = TradePlan(
        side=Side.LONG,
        entry=entry,
        stop=stop,
        tp1=tp1,
        tp2=tp1 + 1,
        atr=1.0,
        leverage=1.0,
        risk_pct=1.0,
        notional_usd=1000.0,
        liquidation=0.0,
        cost_r=float(sample.cost_r[i]),
        p_mart=float(sample.p_mart[i]),
        decided_ms=t0,
        actionable_ms=t0,
        valid_until_ms=t0,
    )
    return Candidate(
        series=Series("bitget", sample.symbol[i], "15m"),
        setup=Setup.LIMIT,
        p0_ms=0,
        p1_ms=0,
        ts_ms=t0,
        plan=plan,
        regime="trend/vol_low",
        rationale="",
        features=sample.features[i],
    )
