"""What models of their time said of every candidate: two ways of judging, one law.

*As run*: each month has a model and a calibrator of its own, whose data had matured before it.
*Frozen*: the model and the calibrator of the report's first day, for the whole report. Pairs that
are never trained on are scored by the same models; before the report both ways agree.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from core.config import Config
from core.domain import Bools, Floats, Ints, Progress
from core.errors import ModelError, NotEnoughData
from core.expected_value import Prospect
from core.jobs.evaluation_data import Question
from core.jobs.training import SEED, n_min_of
from core.ml import model
from core.ml.calibration import Calibration, Told, calibrated, told_forward
from core.ml.calibrators import log_loss
from core.ml.sample import Sample
from core.splits import EMBARGO_MS

_WARM_UP_FRAC = 0.25  # of the time before the report; its months are never judged
Trial = tuple[Mapping[str, Any], Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stretch of decisions [start, end) and the rows its model may learn from.

    All of `train` are of teaching pairs and had matured by `cutoff_ms`, a day before the start.
    """

    start_ms: int
    end_ms: int
    cutoff_ms: int
    train: Ints
    test: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What was said of each candidate, NaN where nothing, and what that rested on.

    `until_ms` is when the data of a candidate's model and calibrator had ended; shapes (n,).
    `frozen_stage` is the frozen calibration, `frozen_set` the frozen model's parameter set.
    """

    as_run: Told
    frozen: Told
    as_run_until_ms: Ints
    frozen_until_ms: Ints
    frozen_stage: Calibration | None
    frozen_set: int
    trials: Sequence[Trial]


def ledger(
    sample: Sample,
    question: Question,
    config: Config,
    *,
    prospect: Prospect,
    workers: int = 0,
    progress: Progress,
) -> Ledger:
    """Score every candidate by models of its time. Raises NotEnoughData with too few to learn from.

    The parameter set of each month is the one with the least log-loss on the months before.
    """
    teaches, n_min = taught_by(sample, question), n_min_of(config)
    months, whole = stages(sample, question, n_min=n_min)
    said = list(_said(sample, [*months, whole], workers=workers, progress=progress))
    every = np.full((len(model.PARAMETER_SETS), len(sample)), np.nan)
    for stage, found in zip(months, said, strict=False):
        every[:, stage.test] = found
    cuts = [
        (s, _best_set(every, sample, teaches, before_ms=s.cutoff_ms, n_min=n_min)) for s in months
    ]
    best = _best_set(every, sample, teaches, before_ms=whole.cutoff_ms, n_min=n_min)
    monthly = [(stage, every[chosen, stage.test]) for stage, chosen in cuts]
    # the others' ends are hidden from the calibrators, as their rows are from the models
    taught = replace(sample, closed=sample.closed & teaches)
    as_run, until = _told(taught, monthly, config, prospect)
    frozen, frozen_until = _told(taught, [*monthly, (whole, said[-1][best])], config, prospect)
    made = Ledger(
        as_run=as_run,
        frozen=frozen,
        as_run_until_ms=until,
        frozen_until_ms=frozen_until,
        frozen_stage=_calibration(taught, as_run, whole, config, prospect),
        frozen_set=best,
        trials=_trials(sample, every, teaches),
    )
    check(sample, made)
    return made


def taught_by(sample: Sample, question: Question) -> Bools:
    """Say which rows are of pairs that teach, shape (n,)."""
    return np.isin(np.array(sample.symbol, dtype=str), question.train)


def stages(sample: Sample, question: Question, *, n_min: int) -> tuple[list[Stage], Stage]:
    """Return the months that can be judged, in time order, and the report as one stage.

    The first quarter of the time before the report only teaches. Raises NotEnoughData where not
    even the report's first day has `n_min` matured trades, won and lost, before it.
    """
    teaches = taught_by(sample, question)
    first = int(sample.t0_ms[teaches].min()) if teaches.any() else question.report_ms
    begin = first + int(_WARM_UP_FRAC * (question.report_ms - first))
    edges = _month_starts(begin, question.end_ms, also=question.report_ms)
    ends = [*edges[1:], question.end_ms]
    made = [_stage(sample, teaches, a, b) for a, b in zip(edges, ends, strict=True)]
    whole = _stage(sample, teaches, question.report_ms, question.end_ms)
    if not _can_teach(sample, whole, n_min):
        raise NotEnoughData(
            f"{len(whole.train)} closed candidates of {', '.join(question.train)} had matured"
            f" before the report, {n_min} are needed, won and lost;",
            remedy="give candles of a longer span, or more pairs to --train",
        )
    return [s for s in made if len(s.test) and _can_teach(sample, s, n_min)], whole


def _month_starts(begin_ms: int, end_ms: int, *, also: int) -> list[int]:
    first = np.datetime64(begin_ms, "ms").astype("datetime64[M]")
    last = np.datetime64(end_ms, "ms").astype("datetime64[M]")
    months = np.arange(first + 1, last + 1).astype("datetime64[ms]").astype(np.int64)
    return sorted({*months[months < end_ms].tolist(), also})


def _stage(sample: Sample, teaches: Bools, start_ms: int, end_ms: int) -> Stage:
    cutoff = start_ms - EMBARGO_MS
    return Stage(
        start_ms=start_ms,
        end_ms=end_ms,
        cutoff_ms=cutoff,
        train=np.flatnonzero(teaches & sample.closed & (sample.known_ms < cutoff)),
        test=np.flatnonzero((sample.t0_ms >= start_ms) & (sample.t0_ms < end_ms)),
    )


def _can_teach(sample: Sample, stage: Stage, n_min: int) -> bool:
    return len(stage.train) >= n_min and 0 < sample.won[stage.train].mean() < 1


def ended_ms(sample: Sample, stage: Stage) -> int:
    """Return the instant before which all that a stage's model and calibrator saw had ended.

    A calibrator sees no trade that its model did not.
    """
    return int(sample.known_ms[stage.train].max()) + 1


def _said(
    sample: Sample, cuts: Sequence[Stage], *, workers: int, progress: Progress
) -> Iterator[Floats]:
    """Yield the raw scores of each stage's rows by each parameter set, (n_sets, n_test)."""
    from joblib import Parallel, delayed

    calls = (
        delayed(_fitted)(sample.of(cut.train), sample.features[cut.test], sample.p_mart[cut.test])
        for cut in cuts
    )
    n_jobs = workers or os.cpu_count() or 1
    for i, found in enumerate(Parallel(n_jobs=n_jobs, return_as="generator")(calls)):
        progress("models", i + 1, len(cuts))
        yield found


def _fitted(part: Sample, features: Floats, p_mart: Floats) -> Floats:
    boosters = model.fits(
        part.features,
        part.won,
        weight=part.weight(np.arange(len(part))),
        p_mart=part.p_mart,
        sets=model.PARAMETER_SETS,
        seed=SEED,
    )
    return np.array([model.predict(booster, features, p_mart) for booster in boosters])


def _best_set(every: Floats, sample: Sample, teaches: Bools, *, before_ms: int, n_min: int) -> int:
    known = teaches & sample.closed & np.isfinite(every[0]) & (sample.known_ms < before_ms)
    if known.sum() < n_min:
        return 0
    won, weight = sample.won[known], sample.weight(known)
    return int(np.argmin([log_loss(p[known], won, weight) for p in every]))


def _told(
    taught: Sample, parts: Sequence[tuple[Stage, Floats]], config: Config, prospect: Prospect
) -> tuple[Told, Ints]:
    """Return what calibrators of their time make of raw scores, and when their data had ended.

    A later stage speaks for the rows it shares with an earlier one.
    """
    p_raw = np.full(len(taught), np.nan)
    cutoff, until = np.zeros((2, len(taught)), np.int64)
    for stage, found in parts:
        p_raw[stage.test] = found
        cutoff[stage.test], until[stage.test] = stage.cutoff_ms, ended_ms(taught, stage)
    forward = told_forward(
        taught,
        p_raw,
        cutoff,
        method=_method(config),
        win_frac=config.execution.tp1_fraction,
        n_min=n_min_of(config),
        prospect=prospect,
    )
    return forward.told, until


def _method(config: Config) -> str:
    calibration = config.models.meta.calibration
    return calibration.method if calibration.enabled else "identity"


def _calibration(
    taught: Sample, told: Told, whole: Stage, config: Config, prospect: Prospect
) -> Calibration | None:
    """Return the frozen calibration; None where too few scores had matured before the report."""
    rows = np.isfinite(told.p_raw) & taught.closed & (taught.known_ms < whole.cutoff_ms)
    if rows.sum() < n_min_of(config):
        return None
    return calibrated(
        taught,
        told,
        rows,
        method=_method(config),
        win_frac=config.execution.tp1_fraction,
        prospect=prospect,
    )


def _trials(sample: Sample, every: Floats, teaches: Bools) -> list[Trial]:
    judged = teaches & sample.closed & np.isfinite(every[0])
    if not judged.any():
        return []
    won, weight = sample.won[judged], sample.weight(judged)
    return [
        (params, {"log_loss": log_loss(p[judged], won, weight), "n": int(judged.sum())})
        for params, p in zip(model.PARAMETER_SETS, every, strict=True)
    ]


def check(sample: Sample, made: Ledger) -> None:
    """Raise ModelError for a score that rests on anything of after its decision."""
    for told, until in (
        (made.as_run, made.as_run_until_ms),
        (made.frozen, made.frozen_until_ms),
    ):
        early = np.isfinite(told.p_raw) & ~(until < sample.t0_ms)
        if early.any():
            raise ModelError(
                f"{int(early.sum())} scores rest on data that had not ended at their decision;",
                remedy="this is a fault of the program: please report it",
            )
