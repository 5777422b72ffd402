"""The second step of the meta-model: probabilities and values from out-of-fold scores alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from core import performance
from core.config import Config, strategy_id
from core.domain import Bools, Floats, Ints
from core.errors import ModelError, NotEnoughData
from core.jobs.lift import probability_figures
from core.jobs.training import (
    MORE,
    bundle_name,
    load_sample,
    n_min_of,
    prospect_of,
    score_rows,
    window_ms_of,
)
from core.ml.bundle import (
    CALIBRATOR,
    Bundle,
    complete_bundle,
    copy_bundle,
    fold_file,
    load_current,
)
from core.ml.calibration import Calibration, Forward, Told, told_forward
from core.ml.sample import Sample
from core.performance import Trades
from core.splits import EMBARGO_MS
from core.store import models as store
from core.store.db import Database
from core.strict_json import plain

_SEED = 17
_BAND_N_EFF, _MOST_BANDS = 60.0, 5
_BINS = 10


def calibrate(db: Database, config: Config, *, models_dir: Path, now_ms: int) -> dict[str, Any]:
    """Complete the newest draft, or one copied from the champion, with its calibration.

    Each stored probability comes from a calibrator fitted on earlier folds; the bundle's own
    from all of them. Raises NotEnoughData or ModelError.
    """
    name = _draft(db, config, models_dir, now_ms=now_ms)
    sample = load_sample(db, config, now_ms=now_ms)
    forward, final = _told(db, config, name, sample)
    told = forward.told
    facts = calibration_facts(sample, told, final)
    stages = [
        {**stage.as_json(), "cutoff_ms": cutoff, "file": fold_file(cutoff)}
        for cutoff, stage in forward.stages.items()
    ]
    bands = bands_of(sample, told, since_ms=now_ms - window_ms_of(config))
    content = {**final.as_json(), "stages": stages, "bands": bands}
    complete_bundle(models_dir, name, files={CALIBRATOR: content}, facts={"calibration": facts})
    with db.write():
        store.replace_scores(db, name, score_rows(sample, told))
        store.add_metrics(db, name, {"calibration": facts})
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
    """Make a draft of the champion's model, which scores what is a day newer than its data."""
    name = bundle_name(now_ms, champion.id.encode(), str(now_ms).encode())
    until = int(champion.manifest["window"]["data_until_ms"])
    have = store.scores_of(db, champion.id)
    sample = load_sample(db, config, now_ms=now_ms)
    new = (sample.t0_ms >= until + EMBARGO_MS) & ~np.isin(
        sample.ids, [row["signal_id"] for row in have]
    )
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


def _told(db: Database, config: Config, name: str, sample: Sample) -> tuple[Forward, Calibration]:
    meta, n_min = config.models.meta, n_min_of(config)
    place = {number: i for i, number in enumerate(sample.ids.tolist())}
    p_raw, cutoff = np.full(len(sample), np.nan), np.zeros(len(sample), np.int64)
    for row in store.scores_of(db, name):
        i = place.get(row["signal_id"])
        if i is not None:
            p_raw[i], cutoff[i] = row["p_raw"], row["fold_cutoff_ms"]
    forward = told_forward(
        sample,
        p_raw,
        cutoff,
        method=meta.calibration.method if meta.calibration.enabled else "identity",
        win_frac=config.execution.tp1_fraction,
        n_min=n_min,
        prospect=prospect_of(db, config, sample),
    )
    if forward.final is None:
        n = int((sample.closed & np.isfinite(p_raw)).sum())
        raise NotEnoughData(
            f"{n} closed candidates have out-of-fold scores, {n_min} are needed;", remedy=MORE
        )
    return forward, forward.final


def calibration_facts(sample: Sample, told: Told, final: Calibration) -> dict[str, Any]:
    """Return what calibration did out of fold: figures before and after, and the reliability table.

    `before` is of the raw scores, the rest of the probabilities that are told.
    """
    judged = sample.closed & np.isfinite(told.p)
    facts: dict[str, Any] = {
        "method": final.calibrator.kind,
        "source": final.source,
        "ev_slope": final.payoff.slope,
        "n": int(judged.sum()),
        "n_eff": 0.0,
    }
    if judged.any():
        weight, won, mart = sample.weight(judged), sample.won[judged], sample.p_mart[judged]
        facts |= probability_figures(told.p[judged], mart, won, weight)
        facts |= {
            "n_eff": float(weight.sum()),
            "brier_model": probability_figures(told.p_model[judged], mart, won, weight)["brier"],
            "before": probability_figures(told.p_raw[judged], mart, won, weight),
            "reliability": reliability(told.p[judged], won, weight),
            "reliability_before": reliability(told.p_raw[judged], won, weight),
        }
    if final.source == "mart":
        facts["note"] = "out of fold the model was worse than the martingale: p_mart is used"
    return dict(plain(facts))


def reliability(p: Floats, won: Bools, weight: Floats) -> list[dict[str, float]]:
    """Return, for bins of equal evidence by rising p, the mean p and the win-rate with interval."""
    order = np.argsort(p, kind="stable")
    total = np.cumsum(weight[order])
    place = np.minimum((total / total[-1] * _BINS - 1e-9).astype(np.int64), _BINS - 1)
    rows = []
    for name in np.unique(place):
        mine = order[place == name]
        rate, n = float(np.average(won[mine], weights=weight[mine])), float(weight[mine].sum())
        low, high = performance.wilson_interval(rate, n)
        rows.append(
            {
                "mean_p": float(np.average(p[mine], weights=weight[mine])),
                "win_rate": rate,
                "win_rate_lo": low,
                "win_rate_hi": high,
                "n": len(mine),
                "n_eff": n,
            }
        )
    return rows


def bands_of(sample: Sample, told: Told, *, since_ms: int) -> list[dict[str, Any]]:
    """Return the records of bands of the EV that was told since an instant, by rising EV.

    Bands hold equal numbers of closed trades, at most five, of about 60 effective ones or more.
    Each record is out of sample: the EV was told by older models.
    """
    rows = np.flatnonzero(sample.closed & np.isfinite(told.ev_r) & (sample.t0_ms >= since_ms))
    if not len(rows):
        return []
    rows = rows[np.argsort(told.ev_r[rows], kind="stable")]
    n_eff = float(sample.weight(rows).sum())
    n_bands = int(np.clip(n_eff // _BAND_N_EFF, 1, _MOST_BANDS))
    bands = []
    for i, part in enumerate(np.array_split(rows, n_bands)):
        found = performance.metrics(trades_of(sample, part), np.random.default_rng(_SEED))
        names = ("n", "n_eff", "win_rate", "win_rate_lo", "win_rate_hi", "p_mart")
        figures = {name: getattr(found, name) for name in names}
        mean = {name: getattr(found, name) for name in ("mean_r", "mean_r_lo", "mean_r_hi")}
        floor = -1e9 if i == 0 else float(told.ev_r[part[0]])
        bands.append(dict(plain({"ev_r_from": floor, **figures, **mean})))
    return bands


def trades_of(sample: Sample, rows: Ints) -> Trades:
    """Return some closed rows of a sample as the performance figures want them."""
    return Trades(
        r=sample.r[rows],
        gross_r=sample.gross_r[rows],
        p_mart=sample.p_mart[rows],
        decided_ms=sample.t0_ms[rows],
        closed_ms=sample.t1_ms[rows],
        symbol=np.asarray(sample.symbol, dtype=str)[rows],
        ambiguous=np.zeros(len(rows), bool),
    )
