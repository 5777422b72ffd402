"""Candidates in the database: inserting them once, following them, reading them back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from core.config import Config, strategy_id, strategy_settings
from core.domain import Candidate, Delivery, Floats, Origin, Series, Verdict
from core.schema import KEY_SHIFT
from core.store.db import Database
from core.timeframe import DAY_MS, MINUTE_MS, floor_ms

IDENTITY = (
    "exchange",
    "symbol",
    "timeframe",
    "setup",
    "direction",
    "p0_ms",
    "p1_ms",
    "strategy_id",
)

_DECISION = (
    "exchange, symbol, timeframe, setup, direction, p0_ms, p1_ms, decided_ms, gate, evidence,"
    " ev_pct, ev_lo_pct, cost_r, delivery, delivery_reason, status, opened_ts_ms, closed_ts_ms,"
    " r_multiple"
)


def record_strategy(db: Database, config: Config, *, now_ms: int) -> str:
    """Store the settings behind the present strategy_id, as used now, and return it."""
    name = strategy_id(config)
    settings = json.dumps(strategy_settings(config), sort_keys=True)
    db.run(
        "INSERT INTO strategies VALUES (?, ?, ?)"
        " ON CONFLICT DO UPDATE SET seen_ms = excluded.seen_ms",
        (name, settings, now_ms),
    )
    return name


def strategy_settings_of(db: Database, name: str) -> dict[str, Any] | None:
    """Return the settings a strategy_id stands for, or None."""
    text = db.value("SELECT settings FROM strategies WHERE strategy_id = ?", (name,))
    return None if text is None else dict(json.loads(text))


def position_of(db: Database, series: Series, strategy: str) -> int | None:
    """Return the open of the last bar scanned live under a strategy, or None."""
    found = db.value(
        "SELECT position_ms FROM scan_positions WHERE exchange = ? AND symbol = ?"
        " AND timeframe = ? AND strategy_id = ?",
        (*series, strategy),
    )
    return None if found is None else int(found)


def positions(db: Database, strategy: str) -> dict[Series, int]:
    """Return the open of the last bar scanned live of every series under a strategy."""
    found = db.rows(
        "SELECT exchange, symbol, timeframe, position_ms FROM scan_positions WHERE strategy_id = ?",
        (strategy,),
    )
    return {Series(*row[:3]): int(row[3]) for row in found}


def move_position(db: Database, series: Series, strategy: str, *, position_ms: int) -> None:
    """Move a scan position forward; it never moves back."""
    db.run(
        "INSERT INTO scan_positions VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " position_ms = max(position_ms, excluded.position_ms)",
        (*series, strategy, position_ms),
    )


def note_skipped(db: Database, series: Series, strategy: str, opens: Iterable[int]) -> None:
    """Remember bars that the scan passed while they were not there."""
    rows = [(*series, strategy, ts_ms) for ts_ms in opens]
    db.run_many("INSERT OR IGNORE INTO skipped_bars VALUES (?, ?, ?, ?, ?)", rows)


def forget_skipped(db: Database, series: Series, strategy: str, ts_ms: int) -> None:
    """Say that a bar that was skipped is scanned."""
    db.run(
        "DELETE FROM skipped_bars WHERE exchange = ? AND symbol = ? AND timeframe = ?"
        " AND strategy_id = ? AND ts_ms = ?",
        (*series, strategy, ts_ms),
    )


def completed_bars(db: Database, strategy: str) -> list[tuple[Series, int]]:
    """Return the skipped bars that are there by now, in time order."""
    found = db.rows(
        "SELECT k.exchange, k.symbol, k.timeframe, k.ts_ms FROM skipped_bars k JOIN series s"
        f" USING (exchange, symbol, timeframe) JOIN ohlcv o ON o.key = (s.id << {KEY_SHIFT})"
        f" + k.ts_ms / {MINUTE_MS} WHERE k.strategy_id = ? ORDER BY k.ts_ms",
        (strategy,),
    )
    return [(Series(*row[:3]), int(row[3])) for row in found]


def signal_row(
    candidate: Candidate,
    verdict: Verdict,
    *,
    strategy: str,
    origin: Origin,
    scan_stride: int,
    delivery: Delivery,
    delivery_reason: str,
    base_timeframe: str,
    exec_state: str,
) -> dict[str, Any]:
    """Return the row a candidate becomes; pure."""
    plan, score, series = candidate.plan, verdict.score, candidate.series
    return {
        "exchange": series.exchange,
        "symbol": series.symbol,
        "timeframe": series.timeframe,
        "setup": candidate.setup.value,
        "direction": plan.side.direction,
        "p0_ms": candidate.p0_ms,
        "p1_ms": candidate.p1_ms,
        "strategy_id": strategy,
        "scan_stride": scan_stride,
        "origin": origin.value,
        "ts_ms": candidate.ts_ms,
        "decided_ms": plan.decided_ms,
        "actionable_ms": plan.actionable_ms,
        "entry": plan.entry,
        "sl": plan.stop,
        "tp1": plan.tp1,
        "tp2": plan.tp2,
        "atr": plan.atr,
        "leverage": plan.leverage,
        "risk_pct": plan.risk_pct,
        "position_notional": plan.notional_usd,
        "liquidation": plan.liquidation,
        "cost_r": plan.cost_r,
        "valid_until_ms": plan.valid_until_ms,
        "rationale": candidate.rationale,
        "regime": candidate.regime,
        "ml_p_raw": score.p_raw if score else None,
        "ml_p": score.p if score else None,
        "p_lo": score.p_lo if score else None,
        "p_hi": score.p_hi if score else None,
        "p_mart": plan.p_mart,
        "ev_pct": score.ev_pct if score else None,
        "ev_lo_pct": score.ev_lo_pct if score else None,
        "ev_r": score.ev_r if score else None,
        "ev_lo_r": score.ev_lo_r if score else None,
        "ml_model": score.model if score else None,
        "why": json.dumps(score.why, sort_keys=True) if score else "",
        "gate": verdict.gate.value,
        "gate_reason": verdict.reason,
        "evidence": verdict.evidence.value,
        "delivery": delivery.value,
        "delivery_reason": delivery_reason,
        "status": "PENDING",
        "base_timeframe": base_timeframe,
        "stop_now": plan.stop,
        "exec_state": exec_state,
    }


def insert_signal(db: Database, row: Mapping[str, Any], features: Floats, *, version: int) -> int:
    """Insert one candidate with its features, as `insert_signals` does."""
    return insert_signals(db, [row], [features], version=version)[0]


def insert_signals(
    db: Database,
    rows: Sequence[Mapping[str, Any]],
    features: Sequence[Floats],
    *,
    version: int,
) -> list[int]:
    """Insert candidates with their features; returns their ids, 0 for those already stored.

    A full scan that meets a row of a strided one sets its `scan_stride` to 1 and nothing else of
    it. Features of an older version are replaced: they describe, and decided nothing anew.
    """
    if not rows:
        return []
    names = list(rows[0])
    values_of = itemgetter(*names)
    marks = ", ".join("?" * (len(names) + 1))
    with db.write():
        first = 1 + int(db.value("SELECT coalesce(max(id), 0) FROM signals"))
        db.run_many(
            f"INSERT OR IGNORE INTO signals (id, {', '.join(names)}) VALUES ({marks})",
            [(first + i, *values_of(row)) for i, row in enumerate(rows)],
        )
        fresh = {number for (number,) in db.rows("SELECT id FROM signals WHERE id >= ?", (first,))}
        vectors = [np.ascontiguousarray(values, "<f8").tobytes() for values in features]
        db.run_many(
            "INSERT INTO features VALUES (?, ?, ?)",
            [(first + i, version, v) for i, v in enumerate(vectors) if first + i in fresh],
        )
        known = [i for i in range(len(rows)) if first + i not in fresh]
        _renew(db, [(rows[i], vectors[i]) for i in known], version=version)
    return [first + i if first + i in fresh else 0 for i in range(len(rows))]


def _renew(db: Database, known: Sequence[tuple[Mapping[str, Any], bytes]], *, version: int) -> None:
    """Bring rows that a scan met again up to date: their stride and their features' version."""
    where = " AND ".join(f"{name} = ?" for name in IDENTITY)
    names = [tuple(row[name] for name in IDENTITY) for row, _ in known]
    db.run_many(
        f"UPDATE signals SET scan_stride = 1 WHERE {where} AND scan_stride <> 1",
        [name for name, (row, _) in zip(names, known, strict=True) if row["scan_stride"] == 1],
    )
    db.run_many(
        "UPDATE features SET version = ?, vector = ? WHERE version < ? AND signal_id ="
        f" (SELECT id FROM signals WHERE {where})",
        [(version, v, version, *name) for name, (_, v) in zip(names, known, strict=True)],
    )


def update_signal(db: Database, number: int, changes: Mapping[str, Any]) -> None:
    """Write new values into some columns of one row."""
    sets = ", ".join(f"{name} = :{name}" for name in changes)
    db.run(f"UPDATE signals SET {sets} WHERE id = :id", {**changes, "id": number})


def mark_late(db: Database, number: int) -> None:
    """Say that a row was accepted by its channel too late to act on: never delivered live.

    What was to be told of it after its call is not told: there is no call to answer.
    """
    db.run(
        "UPDATE signals SET delivery = 'DIGEST', delivery_reason = 'late' WHERE id = ?"
        " AND delivery IN ('LIVE', 'PAPER')",
        (number,),
    )
    db.run(
        "DELETE FROM outbox WHERE signal_id = ? AND state = 'pending' AND attempts = 0", (number,)
    )


def followed(db: Database, *, exchange: str, symbol: str | None = None) -> list[dict[str, Any]]:
    """Return the rows that are still pending or open, oldest decision first."""
    return db.dicts(
        "SELECT * FROM signals WHERE status IN ('PENDING', 'OPEN') AND exchange = ?"
        " AND (?2 IS NULL OR symbol = ?2) ORDER BY decided_ms, id",
        (exchange, symbol),
    )


def followed_symbols(db: Database, *, exchange: str, base_timeframe: str) -> list[str]:
    """Return the symbols of rows that are still pending or open and walk a base timeframe."""
    found = db.rows(
        "SELECT DISTINCT symbol FROM signals WHERE status IN ('PENDING', 'OPEN')"
        " AND exchange = ? AND base_timeframe = ? ORDER BY symbol",
        (exchange, base_timeframe),
    )
    return [str(symbol) for (symbol,) in found]


def decisions_between(
    db: Database, *, strategy: str, start_ms: int, end_ms: int
) -> list[dict[str, Any]]:
    """Return what the guards ask of the rows decided in [start_ms, end_ms), in decision order."""
    return db.dicts(
        f"SELECT {_DECISION} FROM signals WHERE strategy_id = ? AND decided_ms >= ?"
        " AND decided_ms < ? ORDER BY decided_ms, id",
        (strategy, start_ms, end_ms),
    )


def told_and_felt(
    db: Database, *, strategy: str, before_ms: int, quiet_from_ms: int, n_closings: int
) -> list[dict[str, Any]]:
    """Return what the guards ask of the rows decided before an instant that they still feel.

    Of those delivered LIVE or PAPER: what was not closed by then, what was decided from
    `quiet_from_ms` on, and the last `n_closings` that closed before with a result.
    """
    told = f"strategy_id = :strategy AND delivery IN ('{Delivery.LIVE}', '{Delivery.PAPER}')"
    return db.dicts(
        "WITH felt (id) AS ("
        "SELECT id FROM signals WHERE status IN ('PENDING', 'OPEN')"
        " UNION SELECT id FROM signals WHERE closed_ts_ms >= :before"
        " UNION SELECT id FROM signals WHERE strategy_id = :strategy AND decided_ms >= :quiet"
        " AND decided_ms < :before"
        f" UNION SELECT id FROM (SELECT id FROM signals WHERE {told} AND closed_ts_ms < :before"
        " AND r_multiple IS NOT NULL ORDER BY closed_ts_ms DESC, decided_ms DESC LIMIT :n))"
        f" SELECT {_DECISION} FROM signals WHERE id IN (SELECT id FROM felt) AND {told}"
        " AND decided_ms < :before ORDER BY decided_ms, id",
        {
            "strategy": strategy,
            "before": before_ms,
            "quiet": quiet_from_ms,
            "n": n_closings,
        },
    )


def signal_of(db: Database, number: int) -> dict[str, Any] | None:
    """Return one row, or None."""
    found = db.dicts("SELECT * FROM signals WHERE id = ?", (number,))
    return found[0] if found else None


def feature_matrix(db: Database, ids: Sequence[int], *, version: int, width: int) -> Floats:
    """Return the stored features of some rows, (len(ids), width); NaN rows where none fit."""
    matrix = np.full((len(ids), width), np.nan)
    place = {number: i for i, number in enumerate(ids)}
    for number, vector in db.stream(
        "SELECT signal_id, vector FROM features WHERE version = ?", (version,)
    ):
        i = place.get(number)
        if i is not None and len(vector) == 8 * width:
            matrix[i] = np.frombuffer(vector, "<f8")
    return matrix


def count_funnel(
    db: Database, series: Series, strategy: str, counts: Iterable[tuple[int, str, int]]
) -> None:
    """Add (instant, reason, n) to the day's counts of a series: for bars not scanned before."""
    _write_funnel(db, series, strategy, counts, law="n + excluded.n")


def raise_funnel(
    db: Database, series: Series, strategy: str, counts: Iterable[tuple[int, str, int]]
) -> None:
    """Raise the day's counts of a series to (instant, reason, n): for bars scanned perhaps before.

    A day whose bars were all scanned is right after it, whatever was counted earlier.
    """
    _write_funnel(db, series, strategy, counts, law="max(n, excluded.n)")


def _write_funnel(
    db: Database, series: Series, strategy: str, counts: Iterable[tuple[int, str, int]], *, law: str
) -> None:
    db.run_many(
        f"INSERT INTO funnel VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET n = {law}",
        [
            (*series, strategy, floor_ms(instant, DAY_MS), reason, n)
            for instant, reason, n in counts
        ],
    )
