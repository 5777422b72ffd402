"""Training: stored candidates in, a draft with walk-forward scores out."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from core import features as feature_law
from core.config import Config, strategy_id
from core.costs import cost_rates
from core.domain import Bools, Floats, Ints, Progress
from core.errors import ModelError, NotEnoughData
from core.expected_value import Prospect, extra_costs_r
from core.gating import Mode
from core.ml import model
from core.ml.bundle import MODEL, fold_file, load_bundle
from core.ml.calibration import Told
from core.ml.calibrators import log_loss
from core.ml.folder import as_json, write_folder
from core.ml.sample import Sample, sample_of
from core.splits import EMBARGO_MS, Fold, block_starts, walk_forward
from core.store import models as store
from core.store.db import Database
from core.store.markets import market_of
from core.store.signals import feature_matrix
from core.strict_json import plain
from core.timeframe import DAY_MS
from core.tuning import Target

SEED = 11
MORE = "run: python retro_scan.py over a longer span or more symbols"


def load_sample(db: Database, config: Config, *, now_ms: int) -> Sample:
    """Return the matured, fully scanned candidates of the present strategy that have features."""
    rows = store.training_rows(db, strategy=strategy_id(config), decided_before_ms=now_ms)
    features = feature_matrix(
        db,
        [row["id"] for row in rows],
        version=feature_law.VERSION,
        width=len(feature_law.NAMES),
    )
    sample = sample_of(rows, features, hold_bars=config.execution.max_hold_candles)
    described = np.isfinite(features).any(axis=1) if len(rows) else np.zeros(0, bool)
    return sample.of((sample.known_ms < now_ms) & described)


def prospect_of(db: Database, config: Config, sample: Sample) -> Prospect:
    """Return the plans of a sample with the extra costs of `costs_mode`."""
    mode = config.models.meta.gating.costs_mode
    if mode == "auto":
        return sample.prospect()
    rates = {
        symbol: cost_rates(config.signals, market_of(db, config.exchange.id, symbol))
        for symbol in sorted(set(sample.symbol))
    }
    plans = zip(sample.entry.tolist(), sample.stop.tolist(), sample.symbol, strict=True)
    extra = np.array(
        [extra_costs_r(entry, stop, rates[name], mode=mode) for entry, stop, name in plans]
    ).reshape(len(sample), 2)
    return sample.prospect((extra[:, 0], extra[:, 1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Forward:
    """Walk-forward scores: what was told, from which fold, and how each parameter set did.

    `boosters` are the models that told it, by their fold's cutoff.
    """

    p_raw: Floats
    cutoff_ms: Ints
    boosters: Mapping[int, Any]
    best_set: int
    trials: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]


def train(
    db: Database,
    config: Config,
    *,
    models_dir: Path,
    now_ms: int,
    seed: int = SEED,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fit the model on all matured candidates and store a draft with its out-of-fold scores.

    The same rows on the same day give the same bundle; where it exists it is left as it is.
    Raises NotEnoughData saying how much is missing.
    """
    sample = load_sample(db, config, now_ms=now_ms)
    folds = _usable_folds(sample, config)
    forward = _forward(sample, folds, n_min=n_min_of(config), seed=seed, progress=progress)
    closed = np.flatnonzero(sample.closed)
    weight = sample.weight(closed)
    best = model.PARAMETER_SETS[forward.best_set]
    (booster,) = _fits(sample, closed, sets=[best], seed=seed)
    raw = model.as_bytes(booster)
    manifest = plain(_manifest(sample, folds, forward, strategy=strategy_id(config), seed=seed))
    manifest["metrics"]["gain"] = model.gain_shares(booster, feature_law.NAMES)
    name = bundle_name(now_ms, raw, as_json(manifest))
    known = [row for row in store.bundles(db) if row["id"] == name]
    known = known if _is_whole(models_dir, name, strategy_id(config)) else []
    state = known[0]["state"] if known else "draft"
    if not known:
        _store_draft(db, models_dir, name, raw, manifest, sample, forward, now_ms=now_ms)
    return {
        "bundle": name,
        "state": state,
        "is_new": not known,
        "n": len(closed),
        "n_eff": float(weight.sum()),
        "n_unfilled": int((~sample.closed).sum()),
        "n_folds": len(folds),
        "n_scored": int(np.isfinite(forward.p_raw).sum()),
        "n_trials": len(forward.trials),
        "log_loss": manifest["metrics"]["log_loss"],
        "log_loss_mart": manifest["metrics"]["log_loss_mart"],
    }


def _is_whole(models_dir: Path, name: str, strategy: str) -> bool:
    """Say whether a bundle is there and can be read; a damaged one is made anew."""
    try:
        load_bundle(models_dir, name, strategy=strategy)
    except ModelError:
        return False
    return True


def n_min_of(config: Config) -> int:
    """Return the fewest closed candidates any step works with."""
    return config.models.meta.gating.min_closed_samples


def target_of(config: Config, *, mode: Mode) -> Target:
    """Return what a limit has to prove under the owner's settings."""
    gating = config.models.meta.gating
    return Target(
        mode=mode,
        win_rate=gating.target_winrate_pct / 100,
        n_min=n_min_of(config),
        floor=gating.min_ev_pct if mode == "ev" else 0.0,
    )


def window_ms_of(config: Config) -> int:
    """Return how far back the tuner looks."""
    return config.models.meta.gating.window_days * DAY_MS


def folds_of(sample: Sample, *, recent_ms: int, per_block: int) -> list[Fold]:
    """Return the walk-forward folds of a sample; they learn from closed trades, judge all rows."""
    starts = block_starts(sample.t0_ms, sample.closed, recent_ms=recent_ms, per_block=per_block)
    folds = walk_forward(sample.t0_ms, sample.t1_ms, sample.known_ms, starts=starts)
    return [
        Fold(cutoff_ms=fold.cutoff_ms, train=fold.train[sample.closed[fold.train]], test=fold.test)
        for fold in folds
    ]


def _usable_folds(sample: Sample, config: Config) -> list[Fold]:
    n_closed, n_min = int(sample.closed.sum()), n_min_of(config)
    if n_closed < n_min:
        raise NotEnoughData(
            f"{n_closed} of {n_min} closed candidates of strategy {strategy_id(config)} have"
            f" matured: {n_min - n_closed} are missing;",
            remedy=MORE,
        )
    usable = [
        fold
        for fold in folds_of(sample, recent_ms=window_ms_of(config), per_block=n_min)
        if len(fold.train) >= n_min and 0 < sample.won[fold.train].mean() < 1
    ]
    if len(usable) < 2:
        days = (int(sample.t0_ms[-1]) - int(sample.t0_ms[0])) / DAY_MS
        raise NotEnoughData(
            f"{n_closed} closed candidates over {days:.0f} days give {len(usable)} walk-forward"
            f" folds with {n_min} matured ones before them, 2 are needed;",
            remedy=MORE,
        )
    return usable


def _fits(
    sample: Sample, rows: Ints, *, sets: Sequence[Mapping[str, float | int]], seed: int
) -> list[Any]:
    return model.fits(
        sample.features[rows],
        sample.won[rows],
        weight=sample.weight(rows),
        p_mart=sample.p_mart[rows],
        sets=sets,
        seed=seed,
    )


def _forward(
    sample: Sample, folds: Sequence[Fold], *, n_min: int, seed: int, progress: Progress | None
) -> _Forward:
    """Score each test block with the parameter set that did best on the blocks before it."""
    p_raw, cutoff = np.full(len(sample), np.nan), np.zeros(len(sample), np.int64)
    every = np.full((len(model.PARAMETER_SETS), len(sample)), np.nan)
    boosters: dict[int, Any] = {}
    for i, fold in enumerate(folds):
        fitted = _fits(sample, fold.train, sets=model.PARAMETER_SETS, seed=seed)
        for j, booster in enumerate(fitted):
            every[j, fold.test] = model.predict(
                booster, sample.features[fold.test], sample.p_mart[fold.test]
            )
        before = sample.closed & (sample.known_ms < fold.cutoff_ms) & np.isfinite(p_raw)
        best = _best_set(every, sample, before) if before.sum() >= n_min else 0
        p_raw[fold.test], cutoff[fold.test] = every[best, fold.test], fold.cutoff_ms
        boosters[fold.cutoff_ms] = fitted[best]
        if progress:
            progress("train", i + 1, len(folds))
    judged = sample.closed & np.isfinite(p_raw)
    won, weight = sample.won[judged], sample.weight(judged)
    trials = [
        (params, {"log_loss": log_loss(p[judged], won, weight), "n": int(judged.sum())})
        for params, p in zip(model.PARAMETER_SETS, every, strict=True)
    ]
    best = _best_set(every, sample, judged) if judged.sum() >= n_min else 0
    return _Forward(p_raw=p_raw, cutoff_ms=cutoff, boosters=boosters, best_set=best, trials=trials)


def _best_set(every: Floats, sample: Sample, rows: Bools) -> int:
    won, weight = sample.won[rows], sample.weight(rows)
    return int(np.argmin([log_loss(p[rows], won, weight) for p in every]))


def _manifest(
    sample: Sample, folds: Sequence[Fold], forward: _Forward, *, strategy: str, seed: int
) -> dict[str, Any]:
    """Return what was used and found; no clock, so that equal data give equal bytes."""
    closed, judged = sample.closed, sample.closed & np.isfinite(forward.p_raw)
    weight = sample.weight(judged)
    won = sample.won[judged]
    return {
        "schema": 1,
        "strategy_id": strategy,
        "parent": None,
        "features": {"names": list(feature_law.NAMES), "version": feature_law.VERSION},
        "params": dict(model.PARAMETER_SETS[forward.best_set]),
        "seed": seed,
        "window": {
            "first_ms": int(sample.t0_ms[0]),
            "last_ms": int(sample.t0_ms[-1]),
            "data_until_ms": int(sample.known_ms[closed].max()) + 1,
            "embargo_ms": EMBARGO_MS,
            "fold_cutoffs_ms": [fold.cutoff_ms for fold in folds],
        },
        "n": int(closed.sum()),
        "n_eff": float(sample.weight(closed).sum()),
        "n_trials": len(forward.trials),
        "metrics": {
            "n": int(judged.sum()),
            "n_eff": float(weight.sum()),
            "log_loss": log_loss(forward.p_raw[judged], won, weight),
            "log_loss_mart": log_loss(sample.p_mart[judged], won, weight),
        },
        "data_sha256": _fingerprint(sample),
        "libraries": {
            "python": ".".join(map(str, sys.version_info[:2])),
            "numpy": np.__version__,
            "xgboost": model.library_version(),
        },
    }


def _fingerprint(sample: Sample) -> str:
    whole = hashlib.sha256()
    for column in (sample.t0_ms, sample.t1_ms, sample.r, sample.p_mart, sample.features):
        whole.update(np.ascontiguousarray(column).tobytes())
    whole.update("\n".join((*sample.symbol, *sample.timeframe)).encode())
    return whole.hexdigest()


def bundle_name(now_ms: int, *content: bytes) -> str:
    """Return a day and a digest: the same content on the same day has the same name."""
    day = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%d")
    return f"{day}-{hashlib.sha256(b''.join(content)).hexdigest()[:10]}"


def _store_draft(
    db: Database,
    models_dir: Path,
    name: str,
    raw: bytes,
    manifest: Mapping[str, Any],
    sample: Sample,
    forward: _Forward,
    *,
    now_ms: int,
) -> None:
    kept = {fold_file(cutoff): model.as_bytes(one) for cutoff, one in forward.boosters.items()}
    write_folder(models_dir, name, {MODEL: raw, **kept}, manifest)
    blank = np.full(len(sample), np.nan)
    told = Told(
        p_raw=forward.p_raw,
        cutoff_ms=forward.cutoff_ms,
        **dict.fromkeys(Told.__slots__[2:], blank),
    )
    with db.write():
        store.insert_bundle(
            db,
            name,
            strategy=manifest["strategy_id"],
            parent=None,
            created_ms=now_ms,
            data_until_ms=manifest["window"]["data_until_ms"],
            metrics={"train": manifest["metrics"]},
        )
        store.replace_scores(db, name, score_rows(sample, told))
        store.insert_trials(db, name, forward.trials, now_ms=now_ms)


def score_rows(sample: Sample, told: Told) -> list[dict[str, Any]]:
    """Return the rows of the table `scores` for what was told."""
    columns = ("p_raw", "p", "ev_pct", "ev_lo_pct", "ev_r", "ev_lo_r")
    rows = []
    for i in np.flatnonzero(np.isfinite(told.p_raw)).tolist():
        row = {name: plain(float(getattr(told, name)[i])) for name in columns}
        place = {"signal_id": int(sample.ids[i]), "fold_cutoff_ms": int(told.cutoff_ms[i])}
        rows.append({**place, **row})
    return rows
