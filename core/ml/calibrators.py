"""Monotone maps from raw scores to probabilities, small enough to live in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.domain import Bools, Floats, Ints
from core.splits import kept_by_purge

KINDS = ("identity", "platt", "binned_isotonic")  # what `auto` chooses among
ISOTONIC_N_EFF = 2000.0  # with fewer, plain isotonic overfits its ends (Niculescu-Mizil & Caruana)
_EDGE = 1e-4
_BIN_TRADES, _MOST_BINS = 50.0, 20
_CHOICE_BLOCKS = 4


def logit(p: Floats) -> Floats:
    """Return ln(p / (1 - p)), with p held off 0 and 1 by 0.0001."""
    inside = np.minimum(np.maximum(p, _EDGE), 1 - _EDGE)
    return np.log(inside) - np.log1p(-inside)


def sigmoid(x: Floats) -> Floats:
    """Return the probability of log-odds."""
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrator:
    """A map that never falls: identity, Platt's line on the logit, or knots joined by lines."""

    kind: str = "identity"
    intercept: float = 0.0
    slope: float = 1.0
    knots: tuple[float, ...] = ()
    heights: tuple[float, ...] = ()

    def predict(self, scores: Any) -> Floats:
        """Return probabilities in [0, 1] for raw scores, same shape."""
        raw = np.asarray(scores, dtype=np.float64)
        if self.kind == "platt":
            return sigmoid(self.intercept + self.slope * logit(raw))
        if self.knots:
            return np.interp(raw, self.knots, self.heights)
        return np.minimum(np.maximum(raw, 0.0), 1.0)

    def as_json(self) -> dict[str, Any]:
        """Return plain values that `of_json` turns back into the same map."""
        return {
            "kind": self.kind,
            "intercept": self.intercept,
            "slope": self.slope,
            "knots": list(self.knots),
            "heights": list(self.heights),
        }

    @classmethod
    def of_json(cls, raw: Mapping[str, Any]) -> Calibrator:
        """Return the map of stored values. Raises ValueError, KeyError or TypeError for no map."""
        found = cls(
            kind=str(raw["kind"]),
            intercept=finite(raw["intercept"]),
            slope=finite(raw["slope"]),
            knots=tuple(finite(x) for x in raw["knots"]),
            heights=tuple(finite(y) for y in raw["heights"]),
        )
        rises = all(np.all(np.diff(line) >= 0) for line in (found.knots, found.heights))
        inside = all(0 <= height <= 1 for height in found.heights)
        if found.kind not in (*KINDS, "isotonic") or found.slope < 0:
            raise ValueError(f"no calibrator is {found.kind[:40]!r} of slope {found.slope:g}")
        if len(found.knots) != len(found.heights) or not (rises and inside):
            raise ValueError("its knots are no line that rises from 0 to 1")
        return found


def finite(value: Any, *, low: float = -np.inf, high: float = np.inf) -> float:
    """Return a stored number in [low, high]. Raises ValueError or TypeError for another."""
    if not isinstance(value, int | float):
        raise TypeError(f"{type(value).__name__} is no number")
    number = float(value)
    if not (np.isfinite(number) and low <= number <= high):
        raise ValueError(f"{number!r} is no number of at least {low:g} and at most {high:g}")
    return number


def fit(kind: str, scores: Floats, won: Bools, weight: Floats) -> Calibrator:
    """Return a calibrator fitted on out-of-fold scores; `weight` sums to n_eff. Shapes (n,)."""
    if kind == "platt":
        return _platt(scores, won, weight)
    if kind == "binned_isotonic":
        return _binned(scores, won, weight)
    if kind == "isotonic":
        return _isotonic(scores, won, weight)
    return Calibrator()


def _platt(scores: Floats, won: Bools, weight: Floats) -> Calibrator:
    """Logistic line on the logit, pulled to the identity by a ridge of one trade; never falling.

    Source: Platt 1999, Probabilistic Outputs for Support Vector Machines.
    """
    design = np.stack((np.ones(len(scores)), logit(scores)), axis=1)
    start = np.array([0.0, 1.0])
    line = start.copy()
    for _ in range(30):
        p = sigmoid(design @ line)
        gradient = design.T @ (weight * (won - p)) - (line - start)
        curvature = (design.T * (weight * p * (1 - p))) @ design + np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        line = line + np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-10:
            break
    if line[1] < 0:
        mean = np.array([(weight @ won + 0.5) / (weight.sum() + 1)])
        return Calibrator(kind="platt", intercept=float(logit(mean)[0]), slope=0.0)
    return Calibrator(kind="platt", intercept=float(line[0]), slope=float(line[1]))


def _binned(scores: Floats, won: Bools, weight: Floats) -> Calibrator:
    """Isotonic through bins of about 50 effective trades, each at (wins + 1) / (n + 2)."""
    order = np.argsort(scores, kind="stable")
    n_bins = int(np.clip(weight.sum() // _BIN_TRADES, 1, _MOST_BINS))
    total = np.cumsum(weight[order])
    place = np.minimum((total / total[-1] * n_bins - 1e-9).astype(np.int64), n_bins - 1)
    sizes = np.bincount(place, weights=weight[order], minlength=n_bins)
    wins = np.bincount(place, weights=(weight * won)[order], minlength=n_bins)
    middle = np.bincount(place, weights=(weight * scores)[order], minlength=n_bins)
    full = sizes > 0
    heights = (wins[full] + 1) / (np.asarray(sizes[full] + 2, np.float64))
    return _knotted(
        "binned_isotonic",
        middle[full] / sizes[full],
        heights,
        np.asarray(sizes[full] + 2, np.float64),
    )


def _isotonic(scores: Floats, won: Bools, weight: Floats) -> Calibrator:
    names, place = np.unique(scores, return_inverse=True)
    sizes = np.bincount(place, weights=weight)
    heights = np.bincount(place, weights=weight * won) / sizes
    return _knotted("isotonic", names, heights, np.asarray(sizes, np.float64))


def _knotted(kind: str, x: Floats, y: Floats, weight: Floats) -> Calibrator:
    heights = np.clip(pooled(y, weight), 0.0, 1.0)
    return Calibrator(kind=kind, knots=tuple(x.tolist()), heights=tuple(heights.tolist()))


def pooled(y: Floats, weight: Floats) -> Floats:
    """Return the non-falling sequence nearest to y in weighted squares, shape (n,).

    Pool adjacent violators. Source: Ayer et al. 1955, Annals of Mathematical Statistics 26(4).
    """
    means: list[float] = []
    sizes: list[float] = []
    counts: list[int] = []
    for value, size in zip(y.tolist(), weight.tolist(), strict=True):
        mean, total, count = value, size, 1
        while means and means[-1] >= mean:
            before, before_total = means.pop(), sizes.pop()
            mean = (before * before_total + mean * total) / (before_total + total)
            total += before_total
            count += counts.pop()
        means.append(mean)
        sizes.append(total)
        counts.append(count)
    return np.repeat(means, counts)


def log_loss(p: Floats, won: Bools, weight: Floats) -> float:
    """Return the weighted mean of -ln of the probability given to what happened."""
    inside = np.clip(p, _EDGE, 1 - _EDGE)
    return float(-np.average(np.where(won, np.log(inside), np.log1p(-inside)), weights=weight))


def brier(p: Floats, won: Bools, weight: Floats) -> float:
    """Return the weighted mean squared difference of probability and outcome."""
    return float(np.average((p - won) ** 2, weights=weight))


def chosen_kind(
    scores: Floats, won: Bools, weight: Floats, *, t0_ms: Ints, t1_ms: Ints
) -> tuple[str, dict[str, float]]:
    """Return the kind with the least purged out-of-fold log-loss, and each kind's.

    Plain isotonic competes from 2000 effective samples on. Four blocks in time; each is judged by
    maps fitted on the others, purged and embargoed. The simplest kind wins ties; with too little
    left to fit on, it is the identity.
    """
    parts = np.array_split(np.argsort(t0_ms, kind="stable"), _CHOICE_BLOCKS)
    kinds = (*KINDS, "isotonic") if weight.sum() >= ISOTONIC_N_EFF else KINDS
    p = {kind: np.full(len(scores), np.nan) for kind in kinds}
    for test in parts:
        kept = kept_by_purge(t0_ms, t1_ms, test_t0_ms=t0_ms[test], test_t1_ms=t1_ms[test])
        kept[test] = False
        if weight[kept].sum() < _BIN_TRADES:
            continue
        for kind, values in p.items():
            fitted = fit(kind, scores[kept], won[kept], weight[kept])
            values[test] = fitted.predict(scores[test])
    known = np.isfinite(p["identity"])
    if not known.any():
        return "identity", {}
    losses = {kind: log_loss(v[known], won[known], weight[known]) for kind, v in p.items()}
    return min(kinds, key=lambda kind: losses[kind]), losses
