"""Laws of the calibrators, and of the two figures that rank scores."""

from __future__ import annotations

import numpy as np
import pytest

from core.jobs.lift import auc, best_share
from core.ml.calibrators import KINDS, Calibrator, chosen_kind, fit, pooled
from core.timeframe import HOUR_MS


@pytest.mark.parametrize("kind", [*KINDS, "isotonic"])
def test_calibrators_never_fall_and_stay_probabilities(kind: str) -> None:
    """Whatever they were fitted on, wrong-way data included, and through JSON bit for bit."""
    rng = np.random.default_rng(1)
    score = rng.random(300)
    grid = np.linspace(-0.1, 1.1, 500)
    for won in (rng.random(300) < score, rng.random(300) > score, np.ones(300, bool)):
        fitted = fit(kind, score, won, rng.uniform(0.2, 1.0, 300))
        told = fitted.predict(grid)
        assert (np.diff(told) >= 0).all()
        assert told.min() >= 0
        assert told.max() <= 1
        again = Calibrator.of_json(fitted.as_json()).predict(grid)
        assert (again == told).all()


def test_pooling_by_hand() -> None:
    """1 3 2 4 with weights 1 1 3 1 pools the middle to 2.25; a falling line becomes its mean."""
    found = pooled(np.array([1.0, 3, 2, 4]), np.array([1.0, 1, 3, 1]))
    assert found.tolist() == [1.0, 2.25, 2.25, 4.0]
    assert pooled(np.array([3.0, 2, 1]), np.ones(3)).tolist() == [2.0, 2.0, 2.0]


def test_the_better_calibrator_is_chosen() -> None:
    """Overconfident scores call for Platt's line, a step for bins, honest ones for neither."""
    rng = np.random.default_rng(2)
    score = rng.uniform(0.05, 0.95, 4000)
    t0 = np.arange(4000, dtype=np.int64) * HOUR_MS
    logits = np.log(score / (1 - score))
    truths = {
        "platt": 1 / (1 + np.exp(-0.3 * logits)),
        "binned_isotonic": np.where(score > 0.5, 0.7, 0.3),
    }
    for wanted, p in truths.items():
        won = rng.random(4000) < p
        kind, losses = chosen_kind(score, won, np.ones(4000), t0_ms=t0, t1_ms=t0 + HOUR_MS)
        assert kind == wanted
        assert losses[wanted] < losses["identity"]


def test_auc_and_shares_by_hand() -> None:
    """Wins .9 .5, losses .5 .1: 3.5 of 4 pairs in order. Half of each fold, the earlier first."""
    score, won = np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False])
    assert auc(score, won) == 3.5 / 4
    rank, fold = np.array([1.0, 1, 0, 5, 4]), np.array([1, 1, 1, 2, 2])
    assert best_share(rank, fold, 0.5).tolist() == [True, True, False, True, False]
