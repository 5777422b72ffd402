"""The figures of one sample of scored candidates, each with its n and its interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from core.config import Config
from core.domain import Bools, Floats, Ints
from core.gate_lift import gate_lift
from core.jobs.evaluation_data import Question
from core.jobs.evaluation_scores import taught_by
from core.jobs.lift import probability_figures
from core.jobs.training import SEED, target_of
from core.ml.calibration import Told
from core.ml.calibrators import fit, logit
from core.ml.sample import Sample
from core.selection import (
    Bin,
    Candidates,
    Estimate,
    Lifts,
    RandomPick,
    Worth,
    auc,
    auc_over,
    best_share,
    bins,
    lifts,
    mean_of,
    random_picks,
    slope_of,
    worth,
)
from core.strict_json import plain
from core.timeframe import DAY_MS
from core.tuning import Finding, Trials, tune

COVERAGES = (0.1, 0.2, 0.3, 0.5, 1.0)
HEADLINE = 0.3
CLAIMS = "all"  # the part whose figures may claim an edge: one claim, chosen beforehand
_BINS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Candidates that are judged together; `rows` says which of the sample's, `who` whose."""

    name: str
    who: str
    rows: Bools


def parts_of(sample: Sample, question: Question) -> list[Part]:
    """Return what is judged: the report, its two kinds of pairs, and the time before it."""
    teaches = taught_by(sample, question)
    reported = sample.t0_ms >= question.report_ms
    recent = sample.t0_ms >= question.unseen_ms
    taught, never = "the pairs trained on", "pairs never trained on"
    made = (
        ("all", "all pairs", reported),
        ("same", taught, teaches & reported),
        ("unseen", never, ~teaches & recent),
        ("before", taught, teaches & ~reported),
    )
    return [Part(name=name, who=who, rows=rows) for name, who, rows in made if rows.any()]


def _day(instant_ms: int) -> str:
    return str(np.datetime64(instant_ms, "ms").astype("datetime64[D]"))


def half_years(t0_ms: Ints, *, also_ms: int) -> Ints:
    """Return the calendar half-year of each instant, a new one from `also_ms` on. Shape (n,)."""
    month = t0_ms.astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64)
    return np.asarray(2 * (month // 6) + (t0_ms >= also_ms), np.int64)


def candidates_of(sample: Sample, *, report_ms: int) -> Candidates:
    """Return a sample as the judgements want it; shares are cut inside half-years."""
    return Candidates(
        symbol=sample.symbol_code,
        block=half_years(sample.t0_ms, also_ms=report_ms),
        decided_ms=sample.t0_ms,
        ended_ms=sample.t1_ms,
        closed=sample.closed,
        r=sample.r,
        gross_r=sample.gross_r,
        p_mart=sample.p_mart,
        cost_r=sample.cost_r,
    )


def passes(told: Told, cost_r: Floats, config: Config) -> Bools:
    """Say what the gate's plain keys would have passed, shape (n,); a NaN never passes."""
    gating = config.models.meta.gating
    by_ev = told.ev_lo_pct >= gating.min_ev_pct
    reached = by_ev if gating.use_ev else told.p >= gating.threshold
    return np.asarray(reached & (cost_r <= config.signals.max_cost_r))


def figures_of(
    sample: Sample, told: Told, part: Part, config: Config, *, report_ms: int, n_trials: int
) -> dict[str, Any]:
    """Return every figure of some candidates under one way of judging, as JSON takes them.

    Only candidates that have a value are judged; `n_unscored` says how many had none.
    """
    rows = part.rows & np.isfinite(told.ev_r)
    if not (rows & sample.closed).any():
        return {"title": part.who, "n": 0, "n_unscored": int(part.rows.sum())}
    said = Told(**{name: getattr(told, name)[rows] for name in Told.__slots__})
    judged = sample.of(rows)
    candidates = candidates_of(judged, report_ms=report_ms)
    everything = np.ones(len(judged), bool)
    best = best_share(said.ev_r, candidates.block, HEADLINE)
    span = f"{_day(int(judged.t0_ms[0]))} to {_day(int(judged.t0_ms[-1]))}"
    figures = {
        "title": f"{part.who}, {span}",
        "symbols": sorted(set(judged.symbol)),
        "n_unscored": int((part.rows & ~rows).sum()),
        **_worth(worth(candidates, everything, n_trials=n_trials)),
        **_probabilities(judged, said),
        "coverage": _coverage(candidates, said, n_trials),
        "lift_30": {
            "model": _lifts(lifts(candidates, best, everything)),
            **{
                name: _lifts(
                    lifts(candidates, best_share(rank, candidates.block, HEADLINE), everything)
                )
                for name, rank in controls(candidates).items()
            },
        },
        "gate": _gate(candidates, judged, said, config),
        "promise": [_bin(b) for b in _promises(judged, said)],
    }
    return dict(plain(figures | _verdict(figures, part, span)))


def controls(candidates: Candidates) -> dict[str, Floats]:
    """Return the ranks that need no model: by cost in R alone, and by the coin flip's odds."""
    return {"cost": -candidates.cost_r, "mart": candidates.p_mart}


def _verdict(figures: Mapping[str, Any], part: Part, span: str) -> dict[str, Any]:
    """Say in words whether the best 30 % earned more than their costs; one part may claim it."""
    row = next(row for row in figures["coverage"] if row["coverage"] == HEADLINE)
    found = Estimate(*row["net_r"])
    has_edge = bool(found.low > 0)
    claim = "Edge after costs" if part.name == CLAIMS else "Above 0 here, one look of several"
    said = claim if has_edge else "No edge after costs"
    return {
        "edge_after_costs": has_edge,
        "sentence": (
            f"{said}: from {span} the best 30 % of {part.who} made"
            f" {found.text()} R net a trade (n {row['n']}, n_eff {row['n_eff']:.0f})."
        ),
    }


def _worth(found: Worth) -> dict[str, Any]:
    m = found.metrics
    return {
        "n_candidates": found.n_candidates,
        "fill_rate": found.fill_rate,
        "n": m.n,
        "n_eff": m.n_eff,
        "net_r": [m.mean_r, m.mean_r_lo, m.mean_r_hi],
        "gross_r": [m.mean_gross_r, m.mean_gross_r_lo, m.mean_gross_r_hi],
        "cost_r": m.cost_r,
        "win_rate": [m.win_rate, m.win_rate_lo, m.win_rate_hi],
        "p_mart": m.p_mart,
        "over_mart": [
            m.win_rate_over_mart,
            m.win_rate_over_mart_lo,
            m.win_rate_over_mart_hi,
        ],
        "deflated_sharpe": found.deflated_sharpe,
    }


def _probabilities(judged: Sample, said: Told) -> dict[str, Any]:
    """AUC, Brier skill, slope, and reliability before and after calibration, of closed trades."""
    rows = judged.closed
    won, mart, t0 = judged.won[rows], judged.p_mart[rows], judged.t0_ms[rows]
    weight = judged.weight(rows)
    p, p_raw = said.p[rows], said.p_raw[rows]
    found = probability_figures(p, mart, won, weight)
    gain = (mart - won) ** 2 - (p - won) ** 2
    skill = mean_of(gain * weight / weight.mean(), t0)
    return {
        "auc": auc(p, won),
        "auc_raw": auc(p_raw, won),
        "auc_mart": auc(mart, won),
        "auc_over_mart": list(auc_over(p_raw, mart, won, t0)),
        "brier": found["brier"],
        "brier_skill_base": found["brier_skill_base"],
        "brier_skill_mart": [figure / found["brier_mart"] for figure in skill],
        "calibration_slope": list(calibration_slope(p, won, weight, t0)),
        "reliability": {
            "before": [_bin(b) for b in bins(p_raw, won.astype(np.float64), t0, n_bins=_BINS)],
            "after": [_bin(b) for b in bins(p, won.astype(np.float64), t0, n_bins=_BINS)],
        },
    }


def calibration_slope(p: Floats, won: Bools, weight: Floats, decided_ms: Ints) -> Estimate:
    """Return the slope of the outcome's log-odds on the probability's, with its interval.

    1 is right, below 1 the probabilities are too bold. The interval is that of each trade's
    influence on the slope. Shapes (n,).
    """
    line = fit("platt", p, won, weight)
    x = logit(p)
    fitted = line.predict(p)
    design = np.stack((np.ones(len(p)), x), axis=1)
    curvature = (design.T * (weight * fitted * (1 - fitted))) @ design + 1e-9 * np.eye(2)
    pull = np.linalg.solve(curvature, (design * (weight * (won - fitted))[:, None]).T)[1]
    return Estimate(line.slope, *mean_of(line.slope + len(p) * pull, decided_ms)[1:])


def _coverage(candidates: Candidates, said: Told, n_trials: int) -> list[dict[str, Any]]:
    chosen = [best_share(said.ev_r, candidates.block, share) for share in COVERAGES]
    drawn = random_picks(candidates, chosen)
    rows = zip(COVERAGES, chosen, drawn, strict=True)
    return [_share(candidates, said, *row, n_trials=n_trials) for row in rows]


def _share(
    candidates: Candidates,
    said: Told,
    share: float,
    chosen: Bools,
    drawn: RandomPick,
    *,
    n_trials: int,
) -> dict[str, Any]:
    """One share by expected value, beside as many by what needs no model."""
    others = {
        name: _worth(worth(candidates, best_share(rank, candidates.block, share), n_trials=1))
        for name, rank in controls(candidates).items()
    }
    return {
        "coverage": share,
        **_worth(worth(candidates, chosen, n_trials=n_trials)),
        **_promised(candidates, said, chosen),
        "controls": {**others, "random": {k: list(v) for k, v in asdict(drawn).items()}},
    }


def _lifts(found: Lifts) -> dict[str, list[float]]:
    return {
        "net_r": list(found.net_r),
        "win_rate": list(found.win_rate),
        "over_mart": list(found.over_mart),
    }


def _gate(candidates: Candidates, judged: Sample, said: Told, config: Config) -> dict[str, Any]:
    """What the gate passes: its share, its worth, promised against realised, and its lift."""
    passed = passes(said, judged.cost_r, config)
    found = gate_lift(candidates, passed, judged.cost_r <= config.signals.max_cost_r)
    closed = judged.closed
    slope = slope_of(
        said.ev_r[closed], judged.r[closed], judged.weight(closed), judged.t0_ms[closed]
    )
    return {
        "coverage": found.coverage,
        **_worth(found.passed),
        **_promised(candidates, said, passed),
        "ev_slope": list(slope),
        "lift": _lifts(found.lift),
        "lift_affordable": _lifts(found.affordable),
        "lift_cheapest": _lifts(found.cheapest_lift),
        "random": {name: list(value) for name, value in asdict(found.random).items()},
        "sentence": found.sentence,
    }


def _promised(candidates: Candidates, said: Told, chosen: Bools) -> dict[str, Any]:
    """The mean expected value said of some trades, and by how much it was above what came."""
    rows = chosen & candidates.closed
    over = mean_of(said.ev_r[rows] - candidates.r[rows], candidates.decided_ms[rows])
    return {
        "promised_r": float(said.ev_r[rows].mean()) if rows.any() else None,
        "promised_less_realised_r": list(over),
    }


def _promises(judged: Sample, said: Told) -> list[Bin]:
    rows = judged.closed
    return bins(said.ev_r[rows], judged.r[rows], judged.t0_ms[rows], n_bins=_BINS)


def _bin(found: Bin) -> dict[str, Any]:
    return {"n": found.n, "said": found.said, "came": list(found.came)}


def certificates(
    sample: Sample, told: Told, question: Question, config: Config
) -> list[dict[str, Any]]:
    """Return, for each month of the report, what the tuner would have certified at its start.

    From the scores said as run of the pairs trained on, matured by then, decided in the window of
    `models.meta.gating`; the global limit only. `then_n` and `then_r` are what a certified limit
    let through in its month, and the mean net R of it.
    """
    months = np.arange(
        np.datetime64(question.report_ms, "ms").astype("datetime64[M]"),
        np.datetime64(question.end_ms - 1, "ms").astype("datetime64[M]") + 1,
    )
    starts = months.astype("datetime64[ms]").astype(np.int64).tolist()
    return [
        plain(_certificate(sample, told, question, config, at_ms=at)) | {"month": str(month)}
        for at, month in zip(starts, months, strict=True)
    ]


def _certificate(
    sample: Sample, told: Told, question: Question, config: Config, *, at_ms: int
) -> dict[str, Any]:
    gating = config.models.meta.gating
    score = told.ev_lo_pct if gating.use_ev else told.p
    usable = taught_by(sample, question) & sample.closed & np.isfinite(score)
    usable &= sample.cost_r <= config.signals.max_cost_r
    rows = usable & (sample.t0_ms >= at_ms - gating.window_days * DAY_MS)
    rows &= sample.known_ms < at_ms
    part = sample.of(rows)
    trials = Trials(
        score=score[rows],
        r=part.r,
        t0_ms=part.t0_ms,
        t1_ms=part.t1_ms,
        symbol=part.symbol,
        timeframe=part.timeframe,
        regime=part.regime,
    )
    target = target_of(config, mode="ev" if gating.use_ev else "p")
    root: Finding = tune(trials, target, seed=SEED)[0]
    then = sample.r[:0]
    if root.value is not None:
        then = sample.r[usable & _in_month(sample.t0_ms, at_ms) & (score >= root.value)]
    return asdict(root) | {"then_n": len(then), "then_r": float(then.mean()) if len(then) else None}


def _in_month(t0_ms: Ints, at_ms: int) -> Bools:
    months = t0_ms.astype("datetime64[ms]").astype("datetime64[M]")
    return np.asarray(months == np.datetime64(at_ms, "ms").astype("datetime64[M]"))
