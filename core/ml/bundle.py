"""A bundle: one model with its calibration and certificates, as it was evaluated."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core import features as feature_law
from core.costs import CostRates
from core.domain import Candidate, Floats, Score
from core.errors import ModelError
from core.gating import Certificate, Prospect, extra_costs_r
from core.ml import model
from core.ml.calibration import Calibration
from core.ml.folder import as_json, read_folder, read_pointer, replace_bytes, write_folder

MODEL, CALIBRATOR, THRESHOLDS = "model.ubj", "calibrator.json", "thresholds.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A loaded bundle. `calibration` is None and `thresholds` empty while it is a raw draft."""

    id: str
    strategy_id: str
    manifest: Mapping[str, Any]
    booster: Any
    calibration: Calibration | None
    thresholds: Mapping[str, Any]

    @property
    def data_until_ms(self) -> int:
        """The instant before which everything it learnt from had ended."""
        return int(self.manifest["window"]["data_until_ms"])

    @property
    def certificates(self) -> dict[str, Certificate]:
        """The tuner's limits by cell name, for the gate."""
        return {
            cell: Certificate(
                mode=found["mode"], value=found["value"], certified=found["certified"]
            )
            for cell, found in self.thresholds.get("cells", {}).items()
        }

    def raw(self, features: Floats, p_mart: Floats) -> Floats:
        """Return raw win probabilities, shape (n,)."""
        return model.predict(self.booster, features, p_mart)

    def score(self, features: Floats, p_mart: Floats, *, prospect: Prospect) -> list[Score]:
        """Return what the bundle says of n candidates; features (n, n_features), NaN allowed.

        Raises ModelError while the bundle is an uncalibrated draft.
        """
        if self.calibration is None:
            raise ModelError(
                f"bundle {self.id} is not calibrated;", remedy="run: python calibrate_meta.py"
            )
        p_raw = self.raw(features, p_mart)
        p = self.calibration.probability(p_raw, p_mart)
        values = self.calibration.values(p, prospect)
        columns = (p_raw, p, values.ev_pct, values.ev_lo_pct, values.ev_r, values.ev_lo_r)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [
            Score(
                p_raw=raw,
                p=prob,
                ev_pct=ev,
                ev_lo_pct=low,
                ev_r=ev_r,
                ev_lo_r=low_r,
                model=self.id,
            )
            for raw, prob, ev, low, ev_r, low_r in rows
        ]

    def score_candidates(
        self, candidates: Sequence[Candidate], *, rates: Mapping[str, CostRates], costs_mode: str
    ) -> list[Score]:
        """Return what the bundle says of candidates just found; `rates` by symbol."""
        if not candidates:
            return []
        plans = [candidate.plan for candidate in candidates]
        extra = [
            extra_costs_r(plan.entry, plan.stop, rates[candidate.series.symbol], mode=costs_mode)
            for candidate, plan in zip(candidates, plans, strict=True)
        ]
        prospect = Prospect(
            entry=np.array([plan.entry for plan in plans]),
            stop=np.array([plan.stop for plan in plans]),
            tp1=np.array([plan.tp1 for plan in plans]),
            cost_r=np.array([plan.cost_r for plan in plans]),
            extra_win_r=np.array([win for win, _ in extra]),
            extra_loss_r=np.array([loss for _, loss in extra]),
        )
        features = np.stack([candidate.features for candidate in candidates])
        p_mart = np.array([plan.p_mart for plan in plans])
        return self.score(features, p_mart, prospect=prospect)


def load_bundle(models_dir: Path, name: str, *, strategy: str) -> Bundle:
    """Return a bundle after checking every file, the strategy and the features it was made for.

    Raises ModelError with the remedy.
    """
    files, manifest = read_folder(models_dir, name)
    if manifest.get("strategy_id") != strategy:
        raise ModelError(
            f"bundle {name} serves strategy {manifest.get('strategy_id')}, not {strategy};",
            remedy="run: python maintenance.py weekly",
        )
    made_for = manifest.get("features")
    if made_for != {"names": list(feature_law.NAMES), "version": feature_law.VERSION}:
        raise ModelError(
            f"bundle {name} was trained on other features than this program computes;",
            remedy="run: python maintenance.py weekly",
        )
    try:
        stored = json.loads(files[CALIBRATOR]) if CALIBRATOR in files else None
        calibration = Calibration.of_json(stored) if stored else None
        thresholds = json.loads(files[THRESHOLDS]) if THRESHOLDS in files else {}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"bundle {name}: its calibration is not readable ({error});",
            remedy="run: python maintenance.py weekly",
        ) from error
    return Bundle(
        id=name,
        strategy_id=strategy,
        manifest=manifest,
        booster=model.of_bytes(files[MODEL]),
        calibration=calibration,
        thresholds=thresholds,
    )


def load_current(models_dir: Path, strategy: str) -> Bundle | None:
    """Return the bundle the pointer names, or None where there is none for this strategy."""
    pointer = read_pointer(models_dir)
    if pointer is None or pointer["strategy_id"] != strategy:
        return None
    bundle = load_bundle(models_dir, pointer["bundle"], strategy=strategy)
    if bundle.calibration is None:
        raise ModelError(
            f"the current bundle {bundle.id} was never calibrated;",
            remedy="run: python maintenance.py weekly",
        )
    return bundle


def complete_bundle(
    models_dir: Path, name: str, *, files: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    """Add JSON files to a draft, and facts to its manifest."""
    have, manifest = read_folder(models_dir, name)
    added = {file: as_json(content) for file, content in files.items()}
    write_folder(models_dir, name, {**have, **added}, {**manifest, **facts})


def copy_bundle(models_dir: Path, name: str, *, to: str, facts: Mapping[str, Any]) -> None:
    """Make a draft with the same model as another bundle, not yet calibrated or tuned."""
    have, manifest = read_folder(models_dir, name)
    write_folder(models_dir, to, {MODEL: have[MODEL]}, {**manifest, **facts})


def write_exports(bundle: Bundle, *, model_path: Path, calibration_path: Path) -> None:
    """Write the two documented pickles for other programs; the engine never reads them."""
    exported = {"model": bundle.booster, "features": list(feature_law.NAMES)}
    replace_bytes(model_path, pickle.dumps(exported))
    if bundle.calibration is not None:
        replace_bytes(calibration_path, pickle.dumps(bundle.calibration.calibrator))
