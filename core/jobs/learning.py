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
from core.errors import ModelError, NotEnoughData
from core.gating import Mode
from core.jobs import promotion
from core.jobs.lift import lift_report, plain, probability_figures
from core.jobs.training import (
    MORE,
    SEED,
    bundle_name,
    load_sample,
    n_min_of,
    prospect_of,
    score_rows,
    train,
)
from core.ml.bundle import (
    CALIBRATOR,
    THRESHOLDS,
    Bundle,
    complete_bundle,
    copy_bundle,
    load_bundle,
    load_current,
)
from core.ml.calibration import Calibration, Told, told_forward
from core.ml.sample import Sample
from core.store import models as store
from core.store.db import Database
from core.timeframe import DAY_MS
from core.tuning import DELTA, Finding, Target, Trials
from core.tuning import tune as tuned

__all__ = ["calibrate", "evaluate", "lift_report", "promote", "rollback", "train", "tune", "weekly"]

promote, rollback = promotion.promote, promotion.rollback


def calibrate(db: Database, config: Config, *, models_dir: Path, now_ms: int) -> dict[str, Any]:
    """Complete the newest draft, or one copied from the champion, with its calibration.

    Each stored probability comes from a calibrator fitted on earlier folds; the bundle's own
    from all of them. Raises NotEnoughData or ModelError.
    """
    name = _draft(db, config, models_dir, now_ms=now_ms)
    sample = load_sample(db, config, now_ms=now_ms)
    told, final = _told(db, config, name, sample)
    facts = _calibration_facts(sample, told, final)
    complete_bundle(
        models_dir, name, files={CALIBRATOR: final.as_json()}, facts={"calibration": facts}
    )
    with db.write():
        store.replace_scores(db, name, score_rows(sample, told))
        _add_metrics(db, name, {"calibration": facts})
    return {"bundle": name, **facts}


def _draft(db: Database, config: Config, models_dir: Path, *, now_ms: int) -> str:
    """Return the newest draft of the strategy; without one, a copy of the champion."""
    strategy = strategy_id(config)
    drafts = store.bundles(db, strategy=strategy, state="draft")
    if drafts:
        return str(drafts[0]["id"])
    champion = load_current(models_dir, strategy)
    if champion is None:
        raise ModelError(
            f"there is no model for strategy {strategy} yet;", remedy="run: python train_meta.py"
        )
    return _copied(db, config, models_dir, champion, now_ms=now_ms)


def _copied(
    db: Database, config: Config, models_dir: Path, champion: Bundle, *, now_ms: int
) -> str:
    """Make a draft of the champion's model; candidates newer than its data are scored by it."""
    name = bundle_name(now_ms, champion.id.encode(), str(now_ms).encode())
    until = int(champion.manifest["window"]["data_until_ms"])
    have = store.scores_of(db, champion.id)
    sample = load_sample(db, config, now_ms=now_ms)
    new = (sample.t0_ms >= until) & ~np.isin(sample.ids, [row["signal_id"] for row in have])
    p_raw = champion.raw(sample.features[new], sample.p_mart[new])
    blank = dict.fromkeys(("p", "ev_pct", "ev_lo_pct", "ev_r", "ev_lo_r"))
    added = [
        {**blank, "signal_id": number, "fold_cutoff_ms": until, "p_raw": p}
        for number, p in zip(sample.ids[new].tolist(), p_raw.tolist(), strict=True)
    ]
    copy_bundle(models_dir, champion.id, to=name, facts={"parent": champion.id})
    with db.write():
        store.insert_bundle(
            db,
            name,
            strategy=champion.strategy_id,
            parent=champion.id,
            created_ms=now_ms,
            data_until_ms=until,
            metrics={"train": champion.manifest["metrics"]},
        )
        store.replace_scores(db, name, [{**blank, **row} for row in have] + added)
    return name


def _told(db: Database, config: Config, name: str, sample: Sample) -> tuple[Told, Calibration]:
    meta, n_min = config.models.meta, n_min_of(config)
    place = {number: i for i, number in enumerate(sample.ids.tolist())}
    p_raw, cutoff = np.full(len(sample), np.nan), np.zeros(len(sample), np.int64)
    for row in store.scores_of(db, name):
        i = place.get(row["signal_id"])
        if i is not None:
            p_raw[i], cutoff[i] = row["p_raw"], row["fold_cutoff_ms"]
    told, final = told_forward(
        sample,
        p_raw,
        cutoff,
        method=meta.calibration.method if meta.calibration.enabled else "identity",
        win_frac=config.execution.tp1_fraction,
        n_min=n_min,
        prospect=prospect_of(db, config, sample),
    )
    if final is None:
        n = int((sample.closed & np.isfinite(p_raw)).sum())
        raise NotEnoughData(
            f"{n} closed candidates have out-of-fold scores, {n_min} are needed;", remedy=MORE
        )
    return told, final


def _calibration_facts(sample: Sample, told: Told, final: Calibration) -> dict[str, Any]:
    judged = sample.closed & np.isfinite(told.p)
    facts: dict[str, Any] = {
        "method": final.calibrator.kind,
        "source": final.source,
        "ev_slope": final.payoff.slope,
        "n": int(judged.sum()),
        "n_eff": 0.0,
    }
    if judged.any():
        weight, won = sample.weight(judged), sample.won[judged]
        mart = sample.p_mart[judged]
        model_only = probability_figures(told.p_model[judged], mart, won, weight)
        facts |= probability_figures(told.p[judged], mart, won, weight)
        facts |= {"n_eff": float(weight.sum()), "brier_model": model_only["brier"]}
    if final.source == "mart":
        facts["note"] = "out of fold the model was worse than the martingale: p_mart is used"
    return dict(plain(facts))


def _add_metrics(db: Database, name: str, facts: Mapping[str, Any]) -> None:
    row = next(row for row in store.bundles(db) if row["id"] == name)
    store.update_bundle(db, name, {"metrics": {**row["metrics"], **facts}})


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
    target = Target(mode=chosen, win_rate=gating.target_winrate_pct / 100, n_min=n_min_of(config))
    findings = tuned(trials, target, seed=SEED)
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
    limits = {"cells": report["cells"], "mode": report["mode"], "delta": DELTA, "regime": {}}
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
        _add_metrics(db, name, {"tuning": facts})


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
