"""A small synthetic database, labelled as such, with candidates in every state.

Nothing in it is a market or a result: prices are a random walk, scores are noise. Run
`python -m tests.seed_database FOLDER` to look at the dashboard on it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core import execution
from core.config import Config
from core.costs import cost_rates
from core.domain import (
    Candidate,
    Candles,
    Delivery,
    Evidence,
    Gate,
    Market,
    Message,
    Origin,
    Score,
    Series,
    Setup,
    Side,
    TradePlan,
    Verdict,
)
from core.store import Database, open_database
from core.store.candles import (
    move_checkpoint,
    read_candles,
    resample_series,
    upsert_candles,
)
from core.store.gaps import record_gaps
from core.store.markets import market_of, upsert_markets
from core.store.models import insert_bundle, insert_tunings, replace_scores, update_bundle
from core.store.operation import move_mark, queue_messages, record_run, set_label, write_clock
from core.store.signals import (
    insert_signal,
    move_position,
    record_strategy,
    signal_row,
    update_signal,
)
from core.timeframe import DAY_MS, MINUTE_MS, tf_ms

EXCHANGE = "synthetic"
BANNER = "SYNTHETIC TEST DATA, not a market"
SYMBOLS = ("AAA/USDT:USDT", "BBB/USDT:USDT", "CCC/USDT:USDT")
BASE, DERIVED, SIGNAL_TIMEFRAMES = "5m", ("15m", "1h"), ("15m", "1h")
START_MS = 1_735_689_600_000
N_DAYS = 45
END_MS = START_MS + N_DAYS * DAY_MS
BUNDLE = "seed-bundle-1"
COST_R = 0.08
N_PER_SERIES = 55


@dataclass(frozen=True, slots=True)
class Seeded:
    """Where the database is and under which strategy its rows stand."""

    path: Path
    strategy: str
    config: Path


def seed(folder: Path, *, seed_number: int = 7) -> Seeded:
    """Fill `folder`/market.db and write `folder`/config.yaml that names it."""
    folder.mkdir(parents=True, exist_ok=True)
    path, settings = folder / "market.db", folder / "config.yaml"
    settings.write_text(
        "app: {db_path: market.db, timezone: Europe/Berlin}\n"
        f"exchange: {{id: {EXCHANGE}}}\n"
        f"symbols: {list(SYMBOLS)}\ntimeframes: {list(SIGNAL_TIMEFRAMES)}\n",
        encoding="utf-8",
    )
    rng = np.random.default_rng(seed_number)
    with open_database(path) as db, db.write():
        strategy = record_strategy(db, Config(), now_ms=START_MS)
        set_label(db, "banner", BANNER)
        write_clock(db, market_ms=END_MS, wall_ms=END_MS, speed=1.0)
        for i, symbol in enumerate(SYMBOLS):
            for timeframe in SIGNAL_TIMEFRAMES:
                last_ms = END_MS - tf_ms(timeframe)
                series = Series(EXCHANGE, symbol, timeframe)
                move_position(db, series, strategy, position_ms=last_ms)
            _store_walk(db, symbol, start=[97_000.0, 3_400.0, 1.25][i], rng=rng)
            for timeframe in SIGNAL_TIMEFRAMES:
                _store_candidates(db, Series(EXCHANGE, symbol, timeframe), strategy, rng)
        _store_model(db, strategy, rng)
        _store_operation(db)
    return Seeded(path, strategy, settings)


def _store_walk(db: Database, symbol: str, *, start: float, rng: np.random.Generator) -> None:
    """5m bars of a driftless walk with changing volatility, and what is derived from them."""
    n = N_DAYS * DAY_MS // tf_ms(BASE)
    loudness = np.exp(0.4 * np.sin(np.arange(n) / 300) + 0.2 * rng.standard_normal(n))
    steps = 0.0006 * loudness[:, None] * rng.standard_normal((n, 5))
    path = start * np.exp(np.cumsum(steps).reshape(n, 5))
    opens = np.concatenate(([start], path[:-1, -1]))
    whole = np.column_stack((opens, path))
    bars = Candles(
        BASE,
        START_MS + tf_ms(BASE) * np.arange(n, dtype=np.int64),
        opens,
        whole.max(axis=1),
        whole.min(axis=1),
        path[:, -1],
        100 * loudness,
    )
    series = Series(EXCHANGE, symbol, BASE)
    upsert_candles(db, series, bars)
    move_checkpoint(db, series, next_ms=END_MS, now_ms=END_MS)
    for timeframe in DERIVED:
        resample_series(db, series, timeframe, until_ms=END_MS)
    upsert_markets(db, EXCHANGE, [Market(symbol=symbol, kind="swap", tick=0.01)], now_ms=END_MS)


def _store_candidates(
    db: Database, series: Series, strategy: str, rng: np.random.Generator
) -> None:
    market = market_of(db, series.exchange, series.symbol)
    bars = read_candles(db, series, end_ms=END_MS)
    base = read_candles(db, Series(series.exchange, series.symbol, BASE), end_ms=END_MS)
    spread = rng.choice(np.arange(80, len(bars) - 2), N_PER_SERIES - 5, replace=False)
    recent = len(bars) - 1 - np.arange(1, 6)
    for i in sorted({*spread.tolist(), *recent.tolist()}):
        candidate = _candidate(bars, i, series, rng)
        if candidate is None:
            continue
        row = signal_row(
            candidate,
            _verdict(candidate, rng),
            strategy=strategy,
            origin=Origin.LIVE if candidate.decided_ms > END_MS - 14 * DAY_MS else Origin.RETRO,
            scan_stride=1,
            delivery=Delivery.NONE,
            delivery_reason="",
            base_timeframe=BASE,
            exec_state="{}",
        )
        row |= _delivery(row, rng)
        number = insert_signal(db, row, candidate.features, version=1)
        if number:
            update_signal(db, number, _fate(base, candidate, market=market))


def _candidate(bars: Candles, i: int, series: Series, rng: np.random.Generator) -> Candidate | None:
    """A plan on the swing of the last bars, or None where there is no swing."""
    side = Side.LONG if rng.random() < 0.5 else Side.SHORT
    ahead, behind = (bars.high, bars.low) if side is Side.LONG else (-bars.low, -bars.high)
    i1 = i - 25 + int(np.argmax(ahead[i - 25 : i]))
    i0 = i1 - 30 + int(np.argmin(behind[i1 - 30 : i1]))
    p1, p0 = side * float(ahead[i1]), side * float(behind[i0])
    atr = float(np.mean(bars.high[i - 14 : i] - bars.low[i - 14 : i]))
    span = side * (p1 - p0)
    close = float(bars.close[i])
    entry = side * min(side * (p1 - side * 0.5 * span), side * close - 0.2 * atr)
    stop, tp1, tp2 = (p0 - side * 0.5 * atr, p1 + side * 0.27 * span, p1 + side * 0.62 * span)
    if span < 2 * atr or side * (entry - stop) < 0.5 * atr:
        return None
    risk, reward = abs(entry - stop), abs(tp1 - entry)
    step, ts_ms = tf_ms(series.timeframe), int(bars.ts_ms[i])
    plan = TradePlan(
        side=side,
        entry=entry,
        stop=stop,
        tp1=tp1,
        tp2=tp2,
        atr=atr,
        leverage=3.0,
        risk_pct=1.0,
        notional_usd=100.0 * entry / risk,
        liquidation=entry - side * 0.3 * entry,
        cost_r=COST_R,
        p_mart=risk / (risk + reward),
        decided_ms=ts_ms + step,
        actionable_ms=ts_ms + step + 2 * MINUTE_MS,
        valid_until_ms=ts_ms + 25 * step,
    )
    words = ("trend/vol_low", "trend/vol_high", "range/vol_normal", "range/vol_high")
    return Candidate(
        series=series,
        setup=Setup.RECLAIM if rng.random() < 0.3 else Setup.LIMIT,
        p0_ms=int(bars.ts_ms[i0]),
        p1_ms=int(bars.ts_ms[i1]),
        ts_ms=ts_ms,
        plan=plan,
        regime=str(rng.choice(words)),
        rationale="synthetic: half-way back into the last swing",
        features=rng.standard_normal(4),
    )


def _why(rng: np.random.Generator, p: float) -> dict[str, Any]:
    """What a score might rest on."""
    band = {
        "n": 240,
        "n_eff": 91.0,
        "win_rate": p,
        "win_rate_lo": p - 0.08,
        "win_rate_hi": p + 0.08,
        "p_mart": 0.38,
        "mean_r": 0.02,
        "mean_r_lo": -0.15,
        "mean_r_hi": 0.19,
    }
    said = {
        "for": [["higher1_ema_distance_atr", round(float(rng.normal(1.5)), 2), 0.12]],
        "against": [["cost_r", 0.08, -0.05], ["hour", 3.0, -0.02]],
        "data_until_ms": START_MS + 30 * DAY_MS,
    }
    return {**said, "band": band}


def _verdict(candidate: Candidate, rng: np.random.Generator) -> Verdict:
    """No score before the first third of the data; noise around the coin flip after it."""
    plan = candidate.plan
    if plan.decided_ms < START_MS + N_DAYS * DAY_MS // 3:
        return Verdict(gate=Gate.PASS, reason="ungated", evidence=Evidence.UNGATED)
    p = float(np.clip(plan.p_mart + 0.1 * rng.standard_normal(), 0.02, 0.98))
    ev_r = p / plan.p_mart - 1 - plan.cost_r
    pct = 100 * plan.risk / plan.entry
    score = Score(
        p_raw=p,
        p=p,
        p_lo=max(0.0, p - 0.08),
        p_hi=min(1.0, p + 0.08),
        ev_pct=ev_r * pct,
        ev_lo_pct=(ev_r - 0.1) * pct,
        ev_r=ev_r,
        ev_lo_r=ev_r - 0.1,
        model=BUNDLE,
        why=_why(rng, p),
    )
    evidence = Evidence.CERTIFIED if rng.random() < 0.3 else Evidence.UNCERTIFIED
    gate, reason = (Gate.PASS, "ev") if ev_r > 0 else (Gate.REJECT, "ev_below")
    return Verdict(gate=gate, reason=reason, evidence=evidence, score=score)


def _delivery(row: dict[str, Any], rng: np.random.Generator) -> dict[str, str]:
    if row["gate"] == "PASS" and row["evidence"] == "CERTIFIED":
        return {"delivery": "LIVE", "delivery_reason": ""}
    if row["gate"] == "PASS" and rng.random() < 0.4:
        return {"delivery": "PAPER", "delivery_reason": "best_few"}
    if rng.random() < 0.1:
        return {"delivery": "NONE", "delivery_reason": "muted"}
    return {"delivery": "DIGEST", "delivery_reason": "budget"}


def _fate(base: Candles, candidate: Candidate, *, market: Market) -> dict[str, Any]:
    """What the engine's own execution makes of the plan on the synthetic bars."""
    settings, plan = Config(), candidate.plan
    order = execution.order_of(plan, candidate.series.timeframe)
    state = execution.follow(
        order,
        execution.new_states(order),
        base,
        rules=execution.exit_rules(settings.execution),
        rates=cost_rates(settings.signals, market),
        until_ms=END_MS,
    )
    found = execution.outcome(order, state)
    usd = settings.signals.evaluation.usd_per_trade
    return {
        "status": found.status.value,
        "exit_reason": found.exit_reason,
        "opened_ts_ms": found.opened_ts_ms,
        "closed_ts_ms": found.closed_ts_ms,
        "exit_price": found.exit_price,
        "tp1_hit": int(found.tp1_hit),
        "tp1_ts_ms": int(state["tp1_ms"][0]) or None,
        "stop_now": found.stop_now,
        "gross_r": found.gross_r,
        "r_multiple": found.r_multiple,
        "pnl_pct": found.pnl_pct,
        "pnl_usd": None if found.pnl_pct is None else found.pnl_pct / 100 * usd,
        "ambiguous": int(found.ambiguous),
        "exec_state": execution.state_to_json(state),
    }


_TRAIN = {"n": 124, "n_eff": 46.0, "log_loss": 0.671, "log_loss_mart": 0.668}


def _calibration() -> dict[str, Any]:
    """What calibrating might have found: scores too bold, then less so."""
    bins = [
        {
            "win_rate": rate,
            "win_rate_lo": max(0.0, rate - 0.2),
            "win_rate_hi": rate + 0.2,
            "n": 25,
            "n_eff": 9.2,
        }
        for rate in (0.2, 0.3, 0.37, 0.4, 0.5)
    ]
    rates = [row["win_rate"] for row in bins]
    return {
        "method": "platt",
        "source": "model",
        "n": 124,
        "n_eff": 46.0,
        "brier": 0.231,
        "brier_mart": 0.229,
        "calibration_slope": 0.81,
        "before": {"brier": 0.244},
        "reliability": [
            {"mean_p": 0.35 + 0.7 * (r - 0.35), **b} for r, b in zip(rates, bins, strict=True)
        ],
        "reliability_before": [
            {"mean_p": 0.35 + 1.7 * (r - 0.35), **b} for r, b in zip(rates, bins, strict=True)
        ],
    }


def _store_model(db: Database, strategy: str, rng: np.random.Generator) -> None:
    """A champion whose out-of-fold scores are the coin flip plus noise."""
    insert_bundle(
        db,
        BUNDLE,
        strategy=strategy,
        parent=None,
        created_ms=START_MS + 30 * DAY_MS,
        data_until_ms=START_MS + 30 * DAY_MS,
        metrics={"calibration": _calibration(), "train": _TRAIN},
    )
    update_bundle(db, BUNDLE, {"state": "champion", "promoted_ms": START_MS + 30 * DAY_MS})
    rows = db.dicts("SELECT id, p_mart, decided_ms FROM signals ORDER BY id")
    noise = 0.12 * rng.standard_normal(len(rows))
    scores = [
        {
            "signal_id": row["id"],
            "fold_cutoff_ms": row["decided_ms"] // (7 * DAY_MS) * 7 * DAY_MS - DAY_MS,
            "p_raw": float(np.clip(row["p_mart"] + e, 0.01, 0.99)),
            "p": float(np.clip(row["p_mart"] + e, 0.01, 0.99)),
            "ev_r": float(e / row["p_mart"] - COST_R),
            **dict.fromkeys(("ev_pct", "ev_lo_pct", "ev_lo_r")),
        }
        for row, e in zip(rows, noise, strict=True)
    ]
    replace_scores(db, BUNDLE, scores)
    cell = {"bundle": BUNDLE, "mode": "ev", "detail": "{}", "created_ms": END_MS}
    insert_tunings(
        db,
        [cell | {"cell": "*/*", "threshold": 0.1, "n": 60, "n_eff": 41.0, "certified": 0}],
    )


def _store_operation(db: Database) -> None:
    first = Series(EXCHANGE, SYMBOLS[0], BASE)
    record_gaps(db, first, [(END_MS, END_MS + tf_ms(BASE))], state="unknown", now_ms=END_MS)
    for job in ("sync_ohlcv", "scan_signals", "execute"):
        move_mark(db, job, done_ms=END_MS)
        record_run(db, job, due_ms=END_MS, started_wall_ms=END_MS, took_ms=41.5, outcome="ok", n=3)
    record_run(
        db,
        "auto_tune",
        due_ms=END_MS - DAY_MS,
        started_wall_ms=END_MS - DAY_MS,
        took_ms=900.0,
        outcome="error",
        detail="NotEnoughData: 41 of 50 closed samples",
    )
    message = Message(dedupe_key="seed-1", kind="digest", text="synthetic")
    queue_messages(db, [message], channels=["console"], created_ms=END_MS)


if __name__ == "__main__":
    sys.stdout.write(f"{seed(Path(sys.argv[1]))}\n")
