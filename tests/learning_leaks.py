"""Leaks of learning: what a model, a calibrator or a judge may not know, planted to be seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from core.domain import Ints
from core.jobs import judge, training
from core.ml import Bundle, calibration, sample
from core.timeframe import DAY_MS
from tests.leaks import Patch, wrapped


def folds_without_purge(patch: Patch) -> None:
    """A fold learns from all that was decided before it, its end known or not."""

    def unpurged(honest: Any, t0_ms: Ints, *more: Ints, starts: Ints) -> Any:
        folds = honest(t0_ms, *more, starts=starts)
        return [
            replace(fold, train=np.flatnonzero(t0_ms < start))
            for fold, start in zip(folds, starts.tolist(), strict=True)
        ]

    wrapped(patch, training, "walk_forward", unpurged)


def trades_mature_without_their_hold(patch: Patch) -> None:
    """A candidate counts as known once its order would have lapsed."""
    patch.setattr(sample, "matures_ms", lambda valid_until_ms, _: valid_until_ms)


def calibrators_of_all_scores(patch: Patch) -> None:
    """A fold's calibrator is fitted on every score there is, its own among them."""

    def everything(honest: Any, rows: Any, told: Any, *_: Any, **named: Any) -> Any:
        return honest(rows, told, rows.closed & np.isfinite(told.p_raw), **named)

    wrapped(patch, calibration, "calibrated", everything)


def present_bundle_scores_the_past(patch: Patch) -> None:
    """The current model speaks for candidates that it learnt from."""
    patch.setattr(judge.Judge, "speaker", lambda self, _: self.bundle)


def next_fold_scores_the_past(patch: Patch) -> None:
    """A fold speaks that ended up to a month after the decision."""
    honest = Bundle.cutoff_before
    patch.setattr(Bundle, "cutoff_before", lambda self, at_ms: honest(self, at_ms + 30 * DAY_MS))


LEARNING = (folds_without_purge, trades_mature_without_their_hold, calibrators_of_all_scores)
JUDGING = (present_bundle_scores_the_past, next_fold_scores_the_past)
