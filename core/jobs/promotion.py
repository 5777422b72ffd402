"""Which bundle speaks: the promotion test, promotion, rollback, and settling after a stop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from core import performance
from core.config import Config, strategy_id
from core.config_file import parse_config, splice_overrides
from core.domain import Floats
from core.errors import ConfigError, ModelError
from core.jobs.lift import best_share, difference
from core.jobs.monitor import set_promoted_state
from core.jobs.training import load_sample, prospect_of
from core.ml.bundle import Bundle, load_bundle, load_current, write_exports
from core.ml.folder import read_pointer, remove_folder, write_pointer
from core.ml.sample import Sample
from core.store import models as store
from core.store.db import Database
from core.strict_json import plain

MIN_N_EFF = 100.0
_LOG_LOSS_SLACK, _MEAN_R_SLACK = 0.002, 0.05
_BRIER_SLACK = 0.003
_SHARE = 0.3
_SEED = 13
_KEPT = 5  # bundles beside the champion whose scores, and folders, are kept
_EDGE = 1e-4


def decide(
    db: Database,
    config: Config,
    *,
    models_dir: Path,
    config_path: Path | None,
    bundle: str,
    now_ms: int,
) -> dict[str, Any]:
    """Promote a complete draft that may replace the champion, or keep the champion and say why.

    Without a champion of this strategy a draft that passes its own checks is promoted.
    """
    draft = load_bundle(models_dir, bundle, strategy=strategy_id(config))
    sample = load_sample(db, config, now_ms=now_ms)
    told = _told_p(db, bundle, sample)
    failed = _own_checks(sample, told)
    champion, note = _champion(models_dir, config)
    figures: dict[str, Any] = {}
    if not failed and champion is not None and champion.id != draft.id:
        figures, failed = _duel(db, config, draft, champion, sample=sample)
    if failed:
        with db.write():
            store.update_bundle(db, bundle, {"state": "kept_out", "reason": failed})
        _tidy(db, models_dir, strategy=strategy_id(config))
        return {"promoted": False, "reason": failed, "note": note, **figures}
    reason = "better than or equal to the champion" if champion else "no champion yet"
    if champion is not None and champion.id == draft.id:
        reason = "the champion, made anew"
    done = promote(
        db,
        config,
        models_dir=models_dir,
        config_path=config_path,
        bundle=bundle,
        now_ms=now_ms,
        reason=reason,
    )
    _tidy(db, models_dir, strategy=strategy_id(config))
    return {"promoted": True, "reason": reason, "note": note, **figures, **done}


def _tidy(db: Database, models_dir: Path, *, strategy: str) -> None:
    """Drop the scores of all but the newest few bundles, and the folders of those never promoted.

    The rows of the table stay, and so do folders that once spoke: the past is scored by them.
    """
    others = [row for row in store.bundles(db, strategy=strategy) if row["state"] != "champion"]
    for row in others[_KEPT:]:
        with db.write():
            store.replace_scores(db, str(row["id"]), [])
        if row["state"] == "kept_out":
            remove_folder(models_dir, str(row["id"]))


def _champion(models_dir: Path, config: Config) -> tuple[Bundle | None, str]:
    try:
        return load_current(models_dir, strategy_id(config)), ""
    except ModelError as error:
        return None, f"the champion cannot be loaded: {error.message}"


def _told_p(db: Database, bundle: str, sample: Sample) -> dict[str, Floats]:
    place = {number: i for i, number in enumerate(sample.ids.tolist())}
    told = {name: np.full(len(sample), np.nan) for name in ("p", "ev_r")}
    for row in store.scores_of(db, bundle):
        i = place.get(row["signal_id"])
        if i is not None and row["p"] is not None:
            told["p"][i], told["ev_r"][i] = row["p"], row["ev_r"]
    return told


def _own_checks(sample: Sample, told: Mapping[str, Floats]) -> str:
    """Return why a draft may not speak at all, or ''."""
    judged = sample.closed & np.isfinite(told["p"])
    if not judged.any():
        return "no candidate has an honest probability yet"
    p, won, weight = told["p"][judged], sample.won[judged], sample.weight(judged)
    rate, mean = np.average(won, weights=weight), np.average(p, weights=weight)
    error = math.sqrt(max(rate * (1 - rate), 0.01) / weight.sum())
    if abs(rate - mean) > 3 * error:
        return f"mean p {mean:.3f} and win-rate {rate:.3f} differ by more than 3 standard errors"
    own, mart = (
        np.average((p - won) ** 2, weights=weight),
        np.average((sample.p_mart[judged] - won) ** 2, weights=weight),
    )
    if own > mart + _BRIER_SLACK:
        return f"Brier {own:.4f} is worse than the martingale's {mart:.4f}"
    return ""


def _duel(
    db: Database, config: Config, draft: Bundle, champion: Bundle, *, sample: Sample
) -> tuple[dict[str, Any], str]:
    """Compare both on candidates neither had learnt from; returns figures and why to keep.

    The draft is judged by its out-of-fold scores, the champion by its own on what was decided
    after its data ended. Pairs are resampled by whole weeks.
    """
    told = _told_p(db, draft.id, sample)
    rows = np.flatnonzero(np.isfinite(told["p"]) & (sample.t0_ms >= champion.data_until_ms))
    part = sample.of(rows)
    weight = part.weight(part.closed)
    n_eff = float(weight.sum())
    figures: dict[str, Any] = {"champion": champion.id, "n": int(part.closed.sum()), "n_eff": n_eff}
    if n_eff < MIN_N_EFF:
        return figures, f"kept: n_eff {n_eff:.0f} unseen by both, {MIN_N_EFF:.0f} are needed"
    scores = champion.score(part.features, part.p_mart, prospect=prospect_of(db, config, part))
    theirs = np.array([(score.p, score.ev_r) for score in scores])
    loss = _difference_of_losses(part, old=theirs[:, 0], new=told["p"][rows])
    gain = _difference_of_means(part, old=theirs[:, 1], new=told["ev_r"][rows])
    figures |= {"log_loss_gain": list(loss), "mean_r_gain_30": list(gain)}
    failed = ""
    if not loss[1] > -_LOG_LOSS_SLACK:
        failed = f"kept: log-loss gain may be {loss[1]:+.4f}, below -{_LOG_LOSS_SLACK}"
    elif not gain[1] > -_MEAN_R_SLACK:
        failed = f"kept: mean R of the best 30 % may differ by {gain[1]:+.3f}"
    return dict(plain(figures)), failed


def _difference_of_losses(part: Sample, *, old: Floats, new: Floats) -> tuple[float, float, float]:
    """Champion's log-loss less the draft's, with its 90 % interval."""
    closed = part.closed
    won = part.won[closed]
    gain = _losses(old[closed], won) - _losses(new[closed], won)
    low, high = performance.mean_interval(gain, part.t0_ms[closed], np.random.default_rng(_SEED))
    return float(gain.mean()), low, high


def _losses(p: Floats, won: Any) -> Floats:
    inside = np.clip(p, _EDGE, 1 - _EDGE)
    return -np.where(won, np.log(inside), np.log1p(-inside))


def _difference_of_means(part: Sample, *, old: Floats, new: Floats) -> tuple[float, float, float]:
    """Mean R of the draft's best 30 % less that of the champion's, with its 90 % interval."""
    one_fold = np.zeros(len(part), np.int64)
    closed = part.closed
    return difference(
        part.r[closed],
        best_share(new, one_fold, _SHARE)[closed],
        best_share(old, one_fold, _SHARE)[closed],
        decided_ms=part.t0_ms[closed],
    )


def promote(
    db: Database,
    config: Config,
    *,
    models_dir: Path,
    config_path: Path | None,
    bundle: str,
    now_ms: int,
    reason: str = "",
) -> dict[str, Any]:
    """Make a bundle the current one: exports, pointer, table and the tuner's block.

    The pointer decides; `settle` brings the others after it when a run was cut short.
    """
    loaded = load_bundle(models_dir, bundle, strategy=strategy_id(config))
    root = config_path.parent if config_path is not None else models_dir.parent
    meta = config.models.meta
    write_exports(
        loaded,
        model_path=root / meta.model_path,
        calibration_path=root / meta.calibration.path,
    )
    write_pointer(models_dir, bundle=bundle, strategy=loaded.strategy_id)
    note = settle(
        db,
        config,
        models_dir=models_dir,
        config_path=config_path,
        now_ms=now_ms,
        reason=reason,
    )
    return {"bundle": bundle, "entries": tuner_entries(loaded), "config_note": note}


def settle(
    db: Database,
    config: Config,
    *,
    models_dir: Path,
    config_path: Path | None,
    now_ms: int,
    reason: str = "settled with the pointer",
) -> str:
    """Bring the tables and the tuner's block in line with the pointer; repeatable.

    Whoever begins to speak does so in the state that its own certificates give it. Returns a note
    where the configuration could not be written, else ''.
    """
    pointer = read_pointer(models_dir)
    if pointer is None:
        return ""
    name, strategy = pointer["bundle"], pointer["strategy_id"]
    loaded = load_bundle(models_dir, name, strategy=strategy)
    others = [row for row in store.bundles(db, state="champion") if row["id"] != name]
    own = [row for row in store.bundles(db) if row["id"] == name]
    with db.write():
        for row in others:
            store.update_bundle(db, row["id"], {"state": "retired"})
        if own and own[0]["state"] != "champion":
            changes = {"state": "champion", "reason": reason, "promoted_ms": now_ms}
            store.update_bundle(db, name, changes)
        told = store.promotions(db, strategy)
        if not told or told[-1][1] != name:
            store.insert_promotion(db, name, strategy=strategy, at_ms=now_ms, reason=reason)
            set_promoted_state(
                db,
                config,
                strategy,
                bundle=name,
                thresholds=loaded.thresholds,
                window_days=config.models.meta.gating.window_days,
                now_ms=now_ms,
            )
    if config_path is None:
        return ""
    return write_entries(config_path, tuner_entries(loaded))


Entries = dict[str, dict[str, dict[str, Any]]]


def tuner_entries(bundle: Bundle) -> Entries:
    """Return a bundle's certified limits as entries of `per_pair_tf`."""
    entries: Entries = {}
    for cell, proof in bundle.certificates.items():
        symbol, timeframe = cell.rsplit(" ", 1)
        if proof.certified and proof.value is not None and symbol != "regime":
            key = "min_ev_pct" if proof.mode == "ev" else "threshold"
            entry = {key: proof.value, "source": "tuner", "bundle": bundle.id}
            entries.setdefault(symbol, {})[timeframe] = entry
    return entries


def write_entries(config_path: Path, entries: Entries) -> str:
    """Put the tuner's entries into the configuration beside the owner's, which always stay.

    Returns a note where that was not possible; promotion stands, its limits then do not act.
    """
    text = config_path.read_text(encoding="utf-8")
    try:
        before = _block(text, name=str(config_path))
        merged: Entries = {}
        for symbol, cells in before.items():
            kept = {str(tf): cell for tf, cell in cells.items() if cell.get("source") != "tuner"}
            if kept:
                merged[str(symbol)] = kept
        for symbol, cells in entries.items():
            merged[symbol] = {**cells, **merged.get(symbol, {})}
        if merged != before:
            splice_overrides(config_path, merged, seen=text)
    except ConfigError as error:
        return str(error)
    return ""


def _block(text: str, *, name: str) -> Entries:
    """Return the block as it is written. Raises ConfigError for a text that cannot be read."""
    parse_config(text, name=name)
    node: Any = yaml.safe_load(text)
    for part in ("models", "meta", "gating", "per_pair_tf"):
        node = (node or {}).get(part)
    return dict(node or {})


def rollback(
    db: Database,
    config: Config,
    *,
    models_dir: Path,
    config_path: Path | None,
    now_ms: int,
) -> dict[str, Any]:
    """Make the champion before the present one current again. Raises ModelError without one."""
    retired = store.bundles(db, strategy=strategy_id(config), state="retired")
    if not retired:
        raise ModelError(
            "no earlier champion of this strategy is kept;", remedy="nothing was changed"
        )
    before = max(retired, key=lambda row: row["promoted_ms"] or 0)
    return promote(
        db,
        config,
        models_dir=models_dir,
        config_path=config_path,
        bundle=str(before["id"]),
        now_ms=now_ms,
        reason="rolled back to",
    )
