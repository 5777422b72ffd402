"""A database as large as a busy owner's: 10 pairs, 5 years, 300 000 candidates.

Nothing in it is a market or a result. Candles are generated; candidates stand at their closes with
geometries and ends drawn at random, so that every query meets as many rows as life would bring.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import yard
from core.config import Config
from core.domain import Candles, Floats, Ints, Series
from core.store import Database, open_database
from core.store import candles as candle_store
from core.store.models import insert_bundle, insert_promotion, insert_tunings, update_bundle
from core.store.operation import record_run, set_label, write_clock
from core.store.signals import record_strategy
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS, tf_ms

EXCHANGE, BUNDLE = "bench", "bench-bundle"
N_SYMBOLS, N_CANDIDATES = 10, 300_000
DERIVED = ("15m", "1h", "4h")
SHARES = (0.8, 0.16, 0.04)  # of the candidates, by timeframe
_N_FOLLOWED = 40
_REGIMES = [f"{a}/vol_{b}" for a in ("trend", "range") for b in ("low", "normal", "high")]
_CHUNK = 100_000


def fill(path: Path, *, n_days: int = yard.FIVE_YEARS, n_candidates: int = N_CANDIDATES) -> None:
    """Make the database."""
    rng = np.random.default_rng(5)
    with open_database(path) as db:
        db.rows("PRAGMA synchronous = OFF")
        bars = yard.candles(n_days)
        end_ms = int(bars.ts_ms[-1]) + MINUTE_MS
        strategy = record_strategy(db, Config(), now_ms=end_ms)
        write_clock(db, market_ms=end_ms, wall_ms=end_ms, speed=1.0)
        set_label(db, "banner", "GENERATED FOR A BENCHMARK, not a market")
        for i in range(N_SYMBOLS):
            _store_candles(db, f"S{i}/USDT:USDT", bars, scale=0.8**i, end_ms=end_ms)
        for part in range(0, n_candidates, _CHUNK):
            n = min(_CHUNK, n_candidates - part)
            last = n_candidates - _N_FOLLOWED
            rows = _candidates(db, strategy, n, n_before=part, n_ended=last, end_ms=end_ms, rng=rng)
            _insert(db, rows)
        _model(db, strategy, end_ms=end_ms)
        _operation(db, end_ms=end_ms)
        db.checkpoint(truncate=True)


def _store_candles(db: Database, symbol: str, bars: Candles, *, scale: float, end_ms: int) -> None:
    ts_ms, *prices, volume = bars.columns()
    opens, highs, lows, closes = (scale * column for column in prices)
    scaled = Candles(bars.timeframe, ts_ms, opens, highs, lows, closes, volume)
    series = Series(EXCHANGE, symbol, "1m")
    for low in range(0, len(bars), _CHUNK):
        candle_store.upsert_candles(db, series, scaled[low : low + _CHUNK])
    for timeframe in DERIVED:
        candle_store.resample_series(db, series, timeframe, until_ms=end_ms)


def _candidates(
    db: Database,
    strategy: str,
    n: int,
    *,
    n_before: int,
    n_ended: int,
    end_ms: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Columns of candidates over all series; the last ones of all are still followed."""
    frames = rng.choice(DERIVED, n, p=SHARES)
    symbols = rng.integers(0, N_SYMBOLS, n)
    step = np.array([tf_ms(name) for name in frames.tolist()])
    start_ms = yard.START_MS + 30 * DAY_MS
    ts_ms = rng.integers(start_ms, end_ms - 2 * HOUR_MS * 4, n) // step * step
    followed = np.arange(n_before, n_before + n) >= n_ended
    ts_ms = np.where(followed, end_ms // step * step - 3 * step, ts_ms)
    close = _closes(db, symbols, frames, ts_ms)
    side = rng.choice((1, -1), n)
    risk = close * rng.uniform(0.004, 0.02, n) * np.sqrt(step / tf_ms("15m"))
    reward = risk * rng.uniform(1.2, 2.4, n)
    p_mart = risk / (risk + reward)
    return {
        "n": n,
        "first": n_before,
        "strategy": strategy,
        "symbol": symbols,
        "timeframe": frames,
        "step": step,
        "ts_ms": ts_ms,
        "followed": followed,
        "close": close,
        "side": side,
        "risk": risk,
        "reward": reward,
        "p_mart": p_mart,
        "scored": ts_ms + step > start_ms + 365 * DAY_MS,
        # whatever is drawn, some of those still followed were delivered
        "told": np.where(followed, np.arange(n) % _N_FOLLOWED / 400, rng.random(n)),
        "regime": rng.integers(0, len(_REGIMES), n),
        "reclaim": rng.random(n) < 0.3,
        "end_ms": end_ms,
        **_fates(p_mart, reward / risk, ts_ms + step, step, end_ms=end_ms, rng=rng),
    }


def _fates(
    p_mart: Floats,
    reward_r: Floats,
    decided_ms: Ints,
    step: Ints,
    *,
    end_ms: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """What became of them, as a coin flip has it, and what a model without skill said."""
    n = len(p_mart)
    won = rng.random(n) < p_mart
    life = (step * rng.exponential(8, n)).astype(np.int64) // MINUTE_MS * MINUTE_MS + 3 * MINUTE_MS
    p = np.clip(p_mart + 0.08 * rng.standard_normal(n), 0.02, 0.98)
    return {
        "filled": rng.random(n) < 0.6,
        "won": won,
        "closed": np.minimum(decided_ms + life, end_ms),
        "gross": np.where(won, reward_r * rng.uniform(0.6, 1.2, n), -1.0),
        "p": p,
        "ev": p / p_mart - 1.08,
    }


def _closes(db: Database, symbols: Any, frames: Any, ts_ms: Any) -> Floats:
    out = np.full(len(ts_ms), np.nan)
    for symbol in range(N_SYMBOLS):
        for timeframe in DERIVED:
            mine = np.flatnonzero((symbols == symbol) & (frames == timeframe))
            series = Series(EXCHANGE, f"S{symbol}/USDT:USDT", timeframe)
            bars = candle_store.read_candles(db, series, end_ms=int(ts_ms.max()) + 1)
            place = np.searchsorted(bars.ts_ms, ts_ms[mine], side="right") - 1
            out[mine] = bars.close[place]
    return out


_WHY = json.dumps(
    {
        "for": [["higher1_ema_distance_atr", 1.52, 0.12], ["atr_pct", 0.8, 0.05]],
        "against": [["cost_r", 0.08, -0.05], ["hour", 3.0, -0.02]],
        "band": {
            "n": 240,
            "n_eff": 91.0,
            "win_rate": 0.4,
            "win_rate_lo": 0.32,
            "win_rate_hi": 0.48,
            "p_mart": 0.38,
            "mean_r": 0.02,
            "mean_r_lo": -0.15,
            "mean_r_hi": 0.19,
        },
    }
)


def _state(row: Any, paid: float) -> str:
    """An execution's state, about as long as a real one."""
    return (
        f'{{"phase":3,"opened_price":{row:.8g},"maker_frac":{paid:.6g},"taker_frac":{paid:.6g},'
        '"slippage_frac":1e-05,"funding_frac":2e-05,"n_funding_stored":0,"n_funding_constant":1,'
        '"stop":0.0,"left_frac":0.0,"tp1_ms":0,"last_ms":1735689600000,"ambiguous":0,"gross":0.0}'
    )


def _insert(db: Database, c: dict[str, Any]) -> None:
    lists = {name: value.tolist() for name, value in c.items() if isinstance(value, np.ndarray)}
    rows = [_row(c, i, {name: values[i] for name, values in lists.items()}) for i in range(c["n"])]
    names = list(rows[0])
    marks = ", ".join("?" * len(names))
    with db.write():
        db.run_many(
            f"INSERT OR IGNORE INTO signals ({', '.join(names)}) VALUES ({marks})",
            [tuple(row.values()) for row in rows],
        )


def _row(c: dict[str, Any], i: int, v: dict[str, Any]) -> dict[str, Any]:
    number, ts_ms = c["first"] + i + 1, v["ts_ms"]
    row = {
        "exchange": EXCHANGE,
        "symbol": f"S{v['symbol']}/USDT:USDT",
        "timeframe": v["timeframe"],
        "setup": "reclaim" if v["reclaim"] else "limit",
        "direction": "long" if v["side"] > 0 else "short",
        "p0_ms": ts_ms - 40 * v["step"] - number % 7 * v["step"],
        "p1_ms": ts_ms - 10 * v["step"],
        "strategy_id": c["strategy"],
        "origin": "live" if ts_ms > c["end_ms"] - 90 * DAY_MS else "retro",
        "ts_ms": ts_ms,
        "decided_ms": ts_ms + v["step"],
        "actionable_ms": ts_ms + v["step"] + 2 * MINUTE_MS,
        "valid_until_ms": ts_ms + 25 * v["step"],
        "rationale": "generated for a benchmark: a plan at the close, about as long as a real one",
        "regime": _REGIMES[v["regime"]],
        "p_mart": v["p_mart"],
        "base_timeframe": "1m",
        "exec_state": _state(v["close"], 0.0003),
    }
    return row | _plan(v) | _verdict(v) | _score(v) | _end(v)


def _plan(v: dict[str, Any]) -> dict[str, Any]:
    entry, side, risk = v["close"], v["side"], v["risk"]
    return {
        "entry": entry,
        "sl": entry - side * risk,
        "stop_now": entry - side * risk,
        "tp1": entry + side * v["reward"],
        "tp2": entry + side * 1.6 * v["reward"],
        "atr": risk / 1.5,
        "leverage": 3.0,
        "risk_pct": 1.0,
        "position_notional": 100 * entry / risk,
        "liquidation": entry * (1 - side * 0.3),
        "cost_r": 0.08,
    }


def _verdict(v: dict[str, Any]) -> dict[str, str]:
    passed = not v["scored"] or v["ev"] > 0
    live = v["scored"] and passed and v["told"] < 0.05
    return {
        "gate": "PASS" if passed else "REJECT",
        "gate_reason": "ungated" if not v["scored"] else "ev" if passed else "ev_below",
        "evidence": "CERTIFIED" if live else "UNCERTIFIED" if v["scored"] else "UNGATED",
        "delivery": "LIVE" if live else "PAPER" if passed and v["told"] < 0.1 else "DIGEST",
        "delivery_reason": "" if live else "budget",
    }


def _score(v: dict[str, Any]) -> dict[str, Any]:
    names = ("ml_p_raw", "ml_p", "p_lo", "p_hi", "ev_pct", "ev_lo_pct", "ev_r", "ev_lo_r")
    if not v["scored"]:
        return dict.fromkeys((*names, "ml_model")) | {"why": ""}
    p, ev = v["p"], v["ev"]
    values = (p, p, max(0.0, p - 0.08), min(1.0, p + 0.08), ev, ev - 0.1, ev, ev - 0.1)
    return dict(zip(names, values, strict=True)) | {"ml_model": BUNDLE, "why": _WHY}


def _end(v: dict[str, Any]) -> dict[str, Any]:
    names = ("opened_ts_ms", "closed_ts_ms", "exit_price", "exit_reason", "pnl_pct", "pnl_usd")
    blank = dict.fromkeys((*names, "r_multiple", "gross_r"))
    opened = v["ts_ms"] + v["step"] + 3 * MINUTE_MS
    if v["followed"]:
        is_open = v["side"] > 0
        return blank | {
            "status": "OPEN" if is_open else "PENDING",
            "opened_ts_ms": opened if is_open else None,
        }
    if not v["filled"]:
        return blank | {
            "status": "EXPIRED",
            "closed_ts_ms": v["closed"],
            "exit_reason": "expired",
        }
    net = v["gross"] - 0.08
    pct = 100 * net * v["risk"] / v["close"]
    return blank | {
        "status": "TP" if v["won"] else "SL",
        "opened_ts_ms": min(opened, v["closed"]),
        "closed_ts_ms": v["closed"],
        "exit_price": v["close"] + v["side"] * v["gross"] * v["risk"],
        "exit_reason": "target" if v["won"] else "stop",
        "pnl_pct": pct,
        "pnl_usd": 10 * pct,
        "r_multiple": net,
        "gross_r": v["gross"],
    }


def _model(db: Database, strategy: str, *, end_ms: int) -> None:
    with db.write():
        insert_bundle(
            db,
            BUNDLE,
            strategy=strategy,
            parent=None,
            created_ms=end_ms - 7 * DAY_MS,
            data_until_ms=end_ms - 9 * DAY_MS,
            metrics={},
        )
        update_bundle(db, BUNDLE, {"state": "champion", "promoted_ms": end_ms - 7 * DAY_MS})
        insert_promotion(db, BUNDLE, strategy=strategy, at_ms=end_ms - 7 * DAY_MS, reason="first")
        db.run(
            "INSERT INTO scores (signal_id, bundle, fold_cutoff_ms, p_raw, p, ev_r, ev_lo_r)"
            f" SELECT id, ml_model, decided_ms - {DAY_MS}, ml_p_raw, ml_p, ev_r, ev_lo_r"
            " FROM signals WHERE ml_p IS NOT NULL"
        )
        cell = {"bundle": BUNDLE, "mode": "ev", "detail": "{}", "created_ms": end_ms - 7 * DAY_MS}
        insert_tunings(
            db,
            [cell | {"cell": "*/*", "threshold": 0.1, "n": 900, "n_eff": 310.0, "certified": 1}],
        )


def _operation(db: Database, *, end_ms: int) -> None:
    with db.write():
        for k in range(100_000):
            record_run(
                db,
                ("incremental_sync", "resample", "scan_signals", "execute_signals")[k % 4],
                due_ms=end_ms - k // 4 * MINUTE_MS,
                started_wall_ms=end_ms - k // 4 * MINUTE_MS,
                took_ms=40.0 + k % 13,
                outcome="ok",
            )
