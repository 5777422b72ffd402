"""A bundle: one model with its calibration and certificates, as it was evaluated."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from core import features as feature_law
from core.costs import CostRates
from core.domain import Candidate, Floats, Score
from core.errors import ModelError
from core.expected_value import Prospect, extra_costs_r, p_interval
from core.gating import Certificate
from core.ml import model
from core.ml.calibration import Calibration
from core.ml.calibrators import finite
from core.ml.folder import as_json, read_folder, read_pointer, replace_bytes, write_folder
from core.reasons import strongest
from core.splits import EMBARGO_MS

_NONSENSE = (AttributeError, LookupError, TypeError, ValueError, OverflowError, RecursionError)
_LIMITS = {"ev": (-50.0, 50.0), "p": (0.0, 1.0)}  # as in the settings, where they come to stand
_YEAR_9999_MS = 253_402_300_799_000
MODEL, CALIBRATOR, THRESHOLDS = "model.ubj", "calibrator.json", "thresholds.json"


class Told(NamedTuple):
    """The numbers of a score, as columns (n,)."""

    p_raw: Floats
    p: Floats
    p_lo: Floats
    p_hi: Floats
    ev_pct: Floats
    ev_lo_pct: Floats
    ev_r: Floats
    ev_lo_r: Floats


def fold_file(cutoff_ms: int) -> str:
    """Return the file of the model whose data had ended before an instant."""
    return f"fold-{cutoff_ms}.ubj"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A walk-forward model that was kept, not yet parsed, and its calibration."""

    cutoff_ms: int
    raw: bytes
    calibration: Calibration


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A loaded bundle. `calibration` is None and `thresholds` empty while it is a raw draft.

    Everything it learnt from had ended before `data_until_ms`. `bands` are the records of its
    out-of-sample scores, by rising `ev_r_from`; `stages` its earlier selves, oldest first.
    """

    id: str
    strategy_id: str
    manifest: Mapping[str, Any]
    data_until_ms: int
    booster: Any
    calibration: Calibration | None
    thresholds: Mapping[str, Any]
    bands: Sequence[Mapping[str, Any]] = ()
    stages: Sequence[Stage] = ()

    @property
    def certificates(self) -> dict[str, Certificate]:
        """The tuner's limits by cell name, for the gate."""
        return {
            cell: Certificate(
                mode=found["mode"], value=found["value"], certified=found["certified"]
            )
            for cell, found in self.thresholds.get("cells", {}).items()
        }

    def cutoff_before(self, decided_ms: int) -> int | None:
        """Return the newest end of data, of its own model or of a fold, an embargo before."""
        ends = (*(stage.cutoff_ms for stage in self.stages), self.data_until_ms)
        return max((end for end in ends if end + EMBARGO_MS <= decided_ms), default=None)

    def at(self, cutoff_ms: int) -> Bundle:
        """Return who of this bundle could have spoken from an end of data on.

        Limits and bands were found later, so there are none.
        """
        day = datetime.fromtimestamp(cutoff_ms / 1000, UTC).strftime("%Y%m%d")
        plain = replace(self, id=f"{self.id}@{day}", thresholds={}, bands=(), stages=())
        if cutoff_ms == self.data_until_ms:
            return plain
        stage = next(stage for stage in self.stages if stage.cutoff_ms == cutoff_ms)
        return replace(
            plain,
            data_until_ms=cutoff_ms,
            booster=model.of_bytes(stage.raw),
            calibration=stage.calibration,
        )

    def raw(self, features: Floats, p_mart: Floats) -> Floats:
        """Return raw win probabilities, shape (n,)."""
        return model.predict(self.booster, features, p_mart)

    def told(self, features: Floats, p_mart: Floats, *, prospect: Prospect) -> Told:
        """Return raw and calibrated probabilities and values, each (n,), without the reasons.

        Raises ModelError while the bundle is an uncalibrated draft.
        """
        if self.calibration is None:
            raise ModelError(
                f"bundle {self.id} is not calibrated;", remedy="run: python calibrate_meta.py"
            )
        p_raw = self.raw(features, p_mart)
        p = self.calibration.probability(p_raw, p_mart)
        lo, hi = p_interval(p, n_eff=self.calibration.n_eff)
        values = self.calibration.values(p, prospect)
        return Told(p_raw, p, lo, hi, values.ev_pct, values.ev_lo_pct, values.ev_r, values.ev_lo_r)

    def score(self, features: Floats, p_mart: Floats, *, prospect: Prospect) -> list[Score]:
        """Return what the bundle says of n candidates; features (n, n_features), NaN allowed.

        Raises ModelError while the bundle is an uncalibrated draft.
        """
        told = self.told(features, p_mart, prospect=prospect)
        rows = zip(*(column.tolist() for column in told), strict=True)
        whys = self._whys(features, told.ev_r)
        return [
            Score(**dict(zip(Told._fields, row, strict=True)), model=self.id, why=why)
            for row, why in zip(rows, whys, strict=True)
        ]

    def _whys(self, features: Floats, ev_r: Floats) -> list[dict[str, Any]]:
        """Return what each score rests on; where p_mart speaks, the model has no reasons."""
        shares = np.zeros(features.shape)
        if self.calibration is not None and self.calibration.source == "model":
            shares = model.contributions(self.booster, features)
        whys = []
        for values, log_odds, ev in zip(features, shares, ev_r.tolist(), strict=True):
            for_it, against = strongest(feature_law.NAMES, values, log_odds)
            why = {"for": for_it, "against": against, "data_until_ms": self.data_until_ms}
            bands = [band for band in self.bands if band["ev_r_from"] <= ev]
            whys.append({**why, "band": bands[-1]} if bands else why)
        return whys

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
            f"bundle {name} serves strategy {str(manifest.get('strategy_id'))[:40]}, not"
            f" {strategy};",
            remedy="run: python maintenance.py weekly",
        )
    made_for = manifest.get("features")
    if made_for != {"names": list(feature_law.NAMES), "version": feature_law.VERSION}:
        raise ModelError(
            f"bundle {name} was trained on other features than this program computes;",
            remedy="run: python maintenance.py weekly",
        )
    try:
        stored = json.loads(files[CALIBRATOR]) if CALIBRATOR in files else {}
        calibration = Calibration.of_json(stored) if stored else None
        stages = tuple(
            Stage(
                cutoff_ms=_instant(stage["cutoff_ms"]),
                raw=files[stage["file"]],
                calibration=Calibration.of_json(stage),
            )
            for stage in stored.get("stages", ())
        )
        bands = [_band(band) for band in stored.get("bands", ())]
        thresholds = json.loads(files[THRESHOLDS]) if THRESHOLDS in files else {}
        _want_limits(thresholds["cells"] if THRESHOLDS in files else {})
        data_until_ms = _instant(manifest["window"]["data_until_ms"])
    except _NONSENSE as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ModelError(
            f"bundle {name}: its calibration is not readable ({said});",
            remedy="run: python maintenance.py weekly",
        ) from error
    return Bundle(
        id=name,
        strategy_id=strategy,
        manifest=manifest,
        data_until_ms=data_until_ms,
        booster=model.of_bytes(files[MODEL]),
        calibration=calibration,
        thresholds=thresholds,
        bands=sorted(bands, key=lambda band: float(band["ev_r_from"])),
        stages=stages,
    )


def _instant(value: Any) -> int:
    return int(finite(value, low=0, high=_YEAR_9999_MS))


def _band(band: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the record of a band; what was too thin to be said is None."""
    numbers = {str(key): None if x is None else finite(x) for key, x in band.items()}
    if any(numbers[key] is None for key in ("ev_r_from", "n", "n_eff")):
        raise ValueError("a band without its size")
    return {**numbers, "n": int(finite(numbers["n"]))}


def _want_limits(cells: Mapping[str, Any]) -> None:
    """Raise ValueError, KeyError, TypeError or AttributeError for limits nobody could keep."""
    for cell, found in cells.items():
        low, high = _LIMITS[found["mode"]]
        if found["value"] is not None:
            finite(found["value"], low=low, high=high)
        if " " not in cell or not isinstance(found["certified"], bool):
            raise ValueError(f"{cell[:40]!r} is no cell with its certificate")


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
    """Make a draft with the models of another bundle, not yet calibrated or tuned.

    Its own model becomes one more fold: it is the one that scored what came after its data.
    """
    have, manifest = read_folder(models_dir, name)
    models = {file: content for file, content in have.items() if file.endswith(".ubj")}
    models[fold_file(manifest["window"]["data_until_ms"])] = have[MODEL]
    write_folder(models_dir, to, models, {**manifest, **facts})


def write_exports(bundle: Bundle, *, model_path: Path, calibration_path: Path) -> None:
    """Write the two documented pickles for other programs; the engine never reads them."""
    exported = {"model": bundle.booster, "features": list(feature_law.NAMES)}
    replace_bytes(model_path, pickle.dumps(exported))
    if bundle.calibration is not None:
        replace_bytes(calibration_path, pickle.dumps(bundle.calibration.calibrator))
