"""Bundles, their out-of-fold scores, the trials and the tunings in the database."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from core.store.db import Database


def insert_bundle(
    db: Database,
    name: str,
    *,
    strategy: str,
    parent: str | None,
    created_ms: int,
    data_until_ms: int,
    metrics: Mapping[str, Any],
) -> None:
    """Register a draft."""
    db.run(
        "INSERT OR REPLACE INTO bundles (id, strategy_id, parent, state, created_ms,"
        " data_until_ms, metrics) VALUES (?, ?, ?, 'draft', ?, ?, ?)",
        (name, strategy, parent, created_ms, data_until_ms, json.dumps(metrics, sort_keys=True)),
    )


def update_bundle(db: Database, name: str, changes: Mapping[str, Any]) -> None:
    """Write new values into some columns of a bundle's row; `metrics` may be a mapping."""
    values = {k: json.dumps(v, sort_keys=True) if k == "metrics" else v for k, v in changes.items()}
    sets = ", ".join(f"{column} = :{column}" for column in values)
    db.run(f"UPDATE bundles SET {sets} WHERE id = :id", {**values, "id": name})


def add_metrics(db: Database, name: str, facts: Mapping[str, Any]) -> None:
    """Add to the figures of a bundle's row."""
    row = next(row for row in bundles(db) if row["id"] == name)
    update_bundle(db, name, {"metrics": {**row["metrics"], **facts}})


def insert_promotion(db: Database, bundle: str, *, strategy: str, at_ms: int, reason: str) -> None:
    """Write down that a bundle scores what is decided after an instant."""
    db.run(
        "INSERT INTO promotions (at_ms, strategy_id, bundle, reason) VALUES (?, ?, ?, ?)",
        (at_ms, strategy, bundle, reason),
    )


def promotions(db: Database, strategy: str) -> list[tuple[int, str]]:
    """Return (instant, bundle) of every promotion of a strategy, in the order they were made."""
    return [
        (int(at_ms), str(bundle))
        for at_ms, bundle in db.rows(
            "SELECT at_ms, bundle FROM promotions WHERE strategy_id = ? ORDER BY id", (strategy,)
        )
    ]


def bundles(
    db: Database, *, strategy: str | None = None, state: str | None = None
) -> list[dict[str, Any]]:
    """Return bundle rows, newest first, with `metrics` as a mapping."""
    found = db.dicts(
        "SELECT * FROM bundles WHERE (?1 IS NULL OR strategy_id = ?1)"
        " AND (?2 IS NULL OR state = ?2) ORDER BY created_ms DESC, id DESC",
        (strategy, state),
    )
    return [{**row, "metrics": json.loads(row["metrics"])} for row in found]


def replace_scores(db: Database, bundle: str, rows: Iterable[Mapping[str, Any]]) -> int:
    """Store the out-of-fold scores of a bundle in place of those it had."""
    with db.write():
        db.run("DELETE FROM scores WHERE bundle = ?", (bundle,))
        return db.run_many(
            "INSERT INTO scores (signal_id, bundle, fold_cutoff_ms, p_raw, p, ev_pct, ev_lo_pct,"
            " ev_r, ev_lo_r) VALUES (:signal_id, :bundle, :fold_cutoff_ms, :p_raw, :p, :ev_pct,"
            " :ev_lo_pct, :ev_r, :ev_lo_r)",
            [{**row, "bundle": bundle} for row in rows],
        )


def scores_of(db: Database, bundle: str) -> list[dict[str, Any]]:
    """Return a bundle's out-of-fold scores joined with what became of the candidates."""
    return db.dicts(
        "SELECT c.signal_id, c.fold_cutoff_ms, c.p_raw, c.p, c.ev_pct, c.ev_lo_pct, c.ev_r,"
        " c.ev_lo_r, s.symbol, s.timeframe, s.regime, s.p_mart, s.cost_r, s.decided_ms,"
        " s.opened_ts_ms, s.closed_ts_ms, s.status, s.r_multiple, s.gross_r, s.pnl_pct"
        " FROM scores c JOIN signals s ON s.id = c.signal_id WHERE c.bundle = ?"
        " ORDER BY s.decided_ms, c.signal_id",
        (bundle,),
    )


def insert_trials(
    db: Database,
    bundle: str,
    trials: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]],
    *,
    now_ms: int,
) -> None:
    """Log every set of hyper-parameters tried, with its figures."""
    db.run_many(
        "INSERT INTO trials (bundle, params, metrics, created_ms) VALUES (?, ?, ?, ?)",
        [
            (
                bundle,
                json.dumps(params, sort_keys=True),
                json.dumps(figures, sort_keys=True),
                now_ms,
            )
            for params, figures in trials
        ],
    )


def insert_tunings(db: Database, rows: Iterable[Mapping[str, Any]]) -> None:
    """Log the thresholds a tuning found or not, one row per cell; a repeat logs nothing more."""
    found = [dict(row) for row in rows]
    same = "bundle = :bundle AND created_ms = :created_ms"
    db.run_many(f"DELETE FROM tunings WHERE {same}", found[:1])
    db.run_many(
        "INSERT INTO tunings (bundle, cell, mode, threshold, n, n_eff, certified, detail,"
        " created_ms) VALUES (:bundle, :cell, :mode, :threshold, :n, :n_eff, :certified, :detail,"
        " :created_ms)",
        found,
    )


def training_rows(db: Database, *, strategy: str, decided_before_ms: int) -> list[dict[str, Any]]:
    """Return every fully scanned candidate of a strategy decided before an instant."""
    return db.dicts(
        "SELECT id, symbol, timeframe, setup, direction, regime, entry, sl, tp1, p_mart, cost_r,"
        " decided_ms, valid_until_ms, opened_ts_ms, closed_ts_ms, status, r_multiple, gross_r,"
        " pnl_pct FROM signals WHERE strategy_id = ? AND scan_stride = 1 AND decided_ms < ?"
        " ORDER BY decided_ms, id",
        (strategy, decided_before_ms),
    )
