"""The weekly work on the meta-model: train, calibrate, tune; each step completes a draft."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from core.config import Config, strategy_id
from core.domain import Progress
from core.errors import ModelError
from core.gating import Mode
from core.jobs import promotion
from core.jobs.calibrating import calibrate
from core.jobs.lift import lift_report
from core.jobs.training import (
    SEED,
    target_of,
    train,
)
from core.ml.bundle import (
    THRESHOLDS,
    complete_bundle,
    load_bundle,
    load_current,
)
from core.store import models as store
from core.store.db import Database
from core.strict_json import plain
from core.timeframe import DAY_MS
from core.tuning import DELTA, Finding, Trials
from core.tuning import tune as tuned

__all__ = ["calibrate", "evaluate", "lift_report", "promote", "rollback", "train", "tune", "weekly"]

promote, rollback = promotion.promote, promotion.rollback


def tune(
    db: Database,
    config: Config,
    *,
    models_dir: Path,
    config_path: Path | None,
    now_ms: int,
    mode: str | None = None,
    window_days: int | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Find what limits the last `window_days` of out-of-fold scores can prove, then decide.

    Ends with the promotion test of the draft. A dry run reads the draft, or the champion, and
    writes nothing. Raises NotEnoughData or ModelError.
    """
    gating = config.models.meta.gating
    chosen: Mode = "p" if (mode or ("ev" if gating.use_ev else "p")) == "p" else "ev"
    days = window_days or gating.window_days
    name = _to_tune(db, config, models_dir, now_ms=now_ms, dry_run=dry_run)
    trials = _trials(db, config, name, mode=chosen, since_ms=now_ms - days * DAY_MS)
    findings = tuned(trials, target_of(config, mode=chosen), seed=SEED)
    report = {
        "bundle": name,
        "mode": chosen,
        "window_days": days,
        "n": len(trials),
        "n_eff": float(trials.weight().sum()),
        "n_certified": sum(finding.certified for finding in findings),
        "cells": {finding.cell: plain(asdict(finding)) for finding in findings},
    }
    if dry_run:
        return {**report, "promotion": {"promoted": False, "reason": "dry run"}}
    _store_limits(db, models_dir, name, report, findings, now_ms=now_ms)
    decided = promotion.decide(
        db,
        config,
        models_dir=models_dir,
        config_path=config_path,
        bundle=name,
        now_ms=now_ms,
    )
    return {**report, "promotion": decided}


def _to_tune(db: Database, config: Config, models_dir: Path, *, now_ms: int, dry_run: bool) -> str:
    """Return the bundle to tune: a calibrated draft; in a dry run the champion will do."""
    strategy = strategy_id(config)
    drafts = store.bundles(db, strategy=strategy, state="draft")
    if drafts:
        draft = load_bundle(models_dir, str(drafts[0]["id"]), strategy=strategy)
        if draft.calibration is not None:
            return draft.id
    if not dry_run:
        return str(calibrate(db, config, models_dir=models_dir, now_ms=now_ms)["bundle"])
    champion = load_current(models_dir, strategy)
    if champion is None:
        raise ModelError(
            "a dry run needs a calibrated draft or a champion;",
            remedy="run: python calibrate_meta.py",
        )
    return champion.id


def _trials(db: Database, config: Config, name: str, *, mode: Mode, since_ms: int) -> Trials:
    """Return the closed trades a limit would act on: scored, in the window, not too dear."""
    column = "ev_lo_pct" if mode == "ev" else "p"
    rows = [
        row
        for row in store.scores_of(db, name)
        if row[column] is not None
        and row["r_multiple"] is not None
        and row["decided_ms"] >= since_ms
        and row["cost_r"] <= config.signals.max_cost_r
    ]
    return Trials(
        score=np.array([row[column] for row in rows], np.float64),
        r=np.array([row["r_multiple"] for row in rows], np.float64),
        t0_ms=np.array([row["decided_ms"] for row in rows], np.int64),
        t1_ms=np.array([row["closed_ts_ms"] for row in rows], np.int64),
        symbol=[row["symbol"] for row in rows],
        timeframe=[row["timeframe"] for row in rows],
        regime=[row["regime"] for row in rows],
    )


def _store_limits(
    db: Database,
    models_dir: Path,
    name: str,
    report: Mapping[str, Any],
    findings: list[Finding],
    *,
    now_ms: int,
) -> None:
    limits = {"cells": report["cells"], "mode": report["mode"], "delta": DELTA}
    facts = {key: value for key, value in report.items() if key != "cells"}
    complete_bundle(models_dir, name, files={THRESHOLDS: limits}, facts={"tuning": facts})
    with db.write():
        store.insert_tunings(
            db,
            [
                {
                    "bundle": name,
                    "cell": finding.cell,
                    "mode": finding.mode,
                    "threshold": finding.value,
                    "n": finding.n,
                    "n_eff": finding.n_eff,
                    "certified": int(finding.certified),
                    "detail": json.dumps(plain(asdict(finding)), sort_keys=True),
                    "created_ms": now_ms,
                }
                for finding in findings
            ],
        )
        store.add_metrics(db, name, {"tuning": facts})


def weekly(
    db: Database,
    config: Config,
    *,
    models_dir: Path,
    config_path: Path | None,
    now_ms: int,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train, calibrate and tune in turn, ending with the promotion test.

    Nothing further is done where the data give the champion again.
    """
    trained = train(db, config, models_dir=models_dir, now_ms=now_ms, progress=progress)
    if trained["state"] != "draft":
        reason = f"the data give {trained['bundle']} again, which is {trained['state']}"
        return {"train": trained, "promotion": {"promoted": False, "reason": reason}}
    calibrated = calibrate(db, config, models_dir=models_dir, now_ms=now_ms)
    found = tune(db, config, models_dir=models_dir, config_path=config_path, now_ms=now_ms)
    return {"train": trained, "calibrate": calibrated, "tune": found}


def evaluate(db: Database, config: Config) -> dict[str, Any]:
    """Return the record of the champion, else of the newest bundle of this strategy.

    Raises ModelError where none was ever trained.
    """
    strategy = strategy_id(config)
    every = store.bundles(db, strategy=strategy)
    found = [row for row in every if row["state"] == "champion"] or every
    if not found:
        raise ModelError(
            f"there is no model for strategy {strategy} yet;", remedy="run: python train_meta.py"
        )
    row = found[0]
    return {"state": row["state"], "reason": row["reason"], **lift_report(db, str(row["id"]))}
