"""From raw scores to probabilities and values: what a fold, or the final model, may believe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from core.domain import Bools, Floats, Ints
from core.errors import ModelError
from core.expected_value import (
    Payoff,
    Prospect,
    Values,
    expected_value,
    fit_payoff,
    gross_value_r,
    p_low,
    shrunk,
)
from core.ml import calibrators
from core.ml.calibrators import Calibrator, finite
from core.ml.sample import Sample
from core.splits import EMBARGO_MS

_MOST = 1e6  # of any payoff, in R: products of more would not stay finite


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A calibrator, the payoffs, and whose probability is used: the model's or the martingale's.

    `source` is 'mart' where the model's out-of-fold Brier score was worse than the martingale's.
    """

    calibrator: Calibrator
    source: str
    payoff: Payoff
    n_eff: float

    def probability(self, p_raw: Floats, p_mart: Floats) -> Floats:
        """Return the probability that is told, shape (n,)."""
        return p_mart if self.source == "mart" else self.calibrator.predict(p_raw)

    def values(self, p: Floats, prospect: Prospect) -> Values:
        """Return what probabilities are worth, with their low sides."""
        return expected_value(p, p_low(p, n_eff=self.n_eff), prospect=prospect, payoff=self.payoff)

    def as_json(self) -> dict[str, Any]:
        """Return plain values that `of_json` turns back into the same calibration."""
        return {
            "calibrator": self.calibrator.as_json(),
            "source": self.source,
            "payoff": asdict(self.payoff),
            "n_eff": self.n_eff,
        }

    @classmethod
    def of_json(cls, raw: Mapping[str, Any]) -> Calibration:
        """Return the calibration of stored values. Raises ValueError, KeyError or TypeError."""
        if raw["source"] not in ("model", "mart"):
            raise ValueError(f"no source is called {str(raw['source'])[:40]!r}")
        numbers = {
            name: finite(value, low=-_MOST, high=_MOST) for name, value in raw["payoff"].items()
        }
        return cls(
            calibrator=Calibrator.of_json(raw["calibrator"]),
            source=str(raw["source"]),
            payoff=Payoff(**numbers),
            n_eff=finite(raw["n_eff"], low=0.0),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What each candidate was told before its end was known, shapes (n,); NaN where nothing.

    `p_model` is the calibrated model's probability, `p` the one used, `value_r` the value
    before costs and shrinkage. `cutoff_ms` is the fold's.
    """

    p_raw: Floats
    cutoff_ms: Ints
    p_model: Floats
    p: Floats
    value_r: Floats
    ev_r: Floats
    ev_lo_r: Floats
    ev_pct: Floats
    ev_lo_pct: Floats


def calibrated(
    sample: Sample,
    told: Told,
    rows: Bools,
    *,
    method: str,
    win_frac: float,
    prospect: Prospect,
) -> Calibration:
    """Return the calibration that some closed, scored and matured rows support.

    `told` of the same rows decides between the model and the martingale, and gives the slope of
    realised on expected value; both are out of fold.
    """
    won, weight = sample.won[rows], sample.weight(rows)
    kind = method
    if method == "auto":
        kind, _ = calibrators.chosen_kind(
            told.p_raw[rows], won, weight, t0_ms=sample.t0_ms[rows], t1_ms=sample.t1_ms[rows]
        )
    calibrator = calibrators.fit(kind, told.p_raw[rows], won, weight)
    source = _source(sample, told, rows, weight)
    p = sample.p_mart[rows] if source == "mart" else calibrator.predict(told.p_raw[rows])
    payoff = fit_payoff(
        sample.r[rows],
        sample.gross_r[rows],
        reward_r=prospect.reward_r[rows],
        cost_r=sample.cost_r[rows],
        weight=weight,
        win_frac=win_frac,
    )
    past = np.isfinite(told.value_r[rows])
    payoff = shrunk(
        payoff,
        value_r=gross_value_r(p, prospect.of(rows), payoff),
        gross_r=sample.gross_r[rows],
        weight=weight,
        told=told.value_r[rows][past],
        told_gross_r=sample.gross_r[rows][past],
        told_weight=weight[past],
    )
    return Calibration(
        calibrator=calibrator, source=source, payoff=payoff, n_eff=float(weight.sum())
    )


def _source(sample: Sample, told: Told, rows: Bools, weight: Floats) -> str:
    past = np.isfinite(told.p_model[rows])
    if not past.any():
        return "model"
    won, weight = sample.won[rows][past], weight[past]
    model = calibrators.brier(told.p_model[rows][past], won, weight)
    return "mart" if model > calibrators.brier(sample.p_mart[rows][past], won, weight) else "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """What was told, each fold's calibration by its cutoff, and the final one.

    `final` is None where there are too few rows.
    """

    told: Told
    stages: Mapping[int, Calibration]
    final: Calibration | None


def told_forward(
    sample: Sample,
    p_raw: Floats,
    cutoff_ms: Ints,
    *,
    method: str,
    win_frac: float,
    n_min: int,
    prospect: Prospect,
) -> Forward:
    """Return what walk-forward calibrators say of every scored row, and the calibrations.

    A fold's calibration comes from rows of earlier folds that had matured by its cutoff; where
    those are fewer than `n_min` its rows stay without a probability. `p_raw` is NaN where a row
    was never scored. Raises ModelError for a score of a fold that had not ended a day before.
    """
    _check_out_of_fold(sample, np.isfinite(p_raw), cutoff_ms)
    told = Told(
        p_raw=p_raw,
        cutoff_ms=cutoff_ms,
        **{name: np.full(len(sample), np.nan) for name in Told.__slots__[2:]},
    )
    scored, stages = np.isfinite(p_raw), dict[int, Calibration]()
    usable = scored & sample.closed
    for cutoff in np.unique(cutoff_ms[scored]):
        before = usable & (cutoff_ms < cutoff) & (sample.known_ms < cutoff)
        if before.sum() < n_min:
            continue
        stage = calibrated(
            sample, told, before, method=method, win_frac=win_frac, prospect=prospect
        )
        _tell(told, scored & (cutoff_ms == cutoff), stage, sample=sample, prospect=prospect)
        stages[int(cutoff)] = stage
    if usable.sum() < n_min:
        return Forward(told=told, stages=stages, final=None)
    final = calibrated(sample, told, usable, method=method, win_frac=win_frac, prospect=prospect)
    return Forward(told=told, stages=stages, final=final)


def _check_out_of_fold(sample: Sample, scored: Bools, cutoff_ms: Ints) -> None:
    """Refuse scores that could hold their own end: no figure may rest on them."""
    known = scored & (cutoff_ms + EMBARGO_MS > sample.t0_ms)
    if known.any():
        number = int(sample.ids[np.argmax(known)])
        raise ModelError(
            f"{int(known.sum())} scores come from data that had not ended a day before the"
            f" candidate (first: signal {number});",
            remedy="run: python train_meta.py",
        )


def _tell(
    told: Told, rows: Bools, stage: Calibration, *, sample: Sample, prospect: Prospect
) -> None:
    p = stage.probability(told.p_raw[rows], sample.p_mart[rows])
    part = prospect.of(rows)
    values = stage.values(p, part)
    told.p_model[rows] = stage.calibrator.predict(told.p_raw[rows])
    told.p[rows] = p
    told.value_r[rows] = gross_value_r(p, part, stage.payoff)
    told.ev_r[rows], told.ev_lo_r[rows] = values.ev_r, values.ev_lo_r
    told.ev_pct[rows], told.ev_lo_pct[rows] = values.ev_pct, values.ev_lo_pct
