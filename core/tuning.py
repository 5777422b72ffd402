"""Limits with a guarantee: learn-then-test on effective counts, from the whole to a single pair.

Reads outcomes; the scores must come from models and calibrators older than each candidate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from core.domain import Bools, Floats, Ints
from core.gating import Mode, cell_name, regime_cell
from core.splits import uniqueness
from core.timeframe import DAY_MS

DELTA = 0.10
CHILD_N_EFF = 400.0  # below this a pair's own limit costs more evidence than it has
WEEK_MS = 7 * DAY_MS
_STARTS, _GRID, _RESAMPLES = 4, 20, 2000
_MIN_WEEKS = 10


def binomial_tail(k: int, *, n: int, p: float) -> float:
    """Return P[Bin(n, p) >= k], summed exactly.

    >>> round(binomial_tail(2, n=3, p=0.5), 12)
    0.5
    """
    if k <= 0:
        return 1.0
    if k > n:
        return 0.0
    j = np.arange(k, n)
    log_first = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    log_first += k * math.log(p) + (n - k) * math.log1p(-p)
    odds = math.log(p) - math.log1p(-p)
    steps = np.concatenate(([0.0], np.cumsum(np.log((n - j) / (j + 1)) + odds)))
    return float(min(1.0, np.exp(log_first + steps).sum()))


def binomial_lower(k: int, *, n: int, delta: float) -> float:
    """Return the Clopper-Pearson lower bound: the p at which k or more of n has chance delta."""
    if k <= 0:
        return 0.0
    low, high = 0.0, k / n
    for _ in range(60):
        middle = (low + high) / 2
        if middle > 0 and binomial_tail(k, n=n, p=middle) > delta:
            high = middle
        else:
            low = middle
    return low


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """Closed trades with the score said before, shapes (n,); the last three are names.

    `regime` is trend and volatility, as in `trend/vol_low`.
    """

    score: Floats
    r: Floats
    t0_ms: Ints
    t1_ms: Ints
    symbol: Sequence[str]
    timeframe: Sequence[str]
    regime: Sequence[str]

    def __len__(self) -> int:
        return len(self.score)

    def of(self, keep: Bools) -> Trials:
        """Return some of the trades."""
        places = np.flatnonzero(keep)
        return Trials(
            score=self.score[places],
            r=self.r[places],
            t0_ms=self.t0_ms[places],
            t1_ms=self.t1_ms[places],
            symbol=[self.symbol[i] for i in places.tolist()],
            timeframe=[self.timeframe[i] for i in places.tolist()],
            regime=[self.regime[i] for i in places.tolist()],
        )

    def weight(self) -> Floats:
        """Return each trade's uniqueness inside this set."""
        codes = np.unique(np.asarray(self.symbol, dtype=str), return_inverse=True)[1]
        return uniqueness(self.t0_ms, self.t1_ms, codes.astype(np.int64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a limit must prove: a win-rate (`p`), or a mean net R above 0 (`ev`).

    No limit lies below `floor`: what the owner demands of a plan stays a demand.
    """

    mode: Mode
    win_rate: float
    n_min: int
    delta: float = DELTA
    floor: float = -math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found for one cell. `estimate` and `lower` are of the limit, or of the best seen.

    Win-rates in p mode, mean net R in ev mode. `coverage` is a share of the cell's trades.
    """

    cell: str
    mode: Mode
    value: float | None
    certified: bool
    n: int
    n_eff: float
    coverage: float
    estimate: float
    lower: float
    delta: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    value: float
    n: int
    n_eff: float
    coverage: float
    estimate: float
    p_value: float


def certify(trials: Trials, target: Target, *, cell: str, rng: np.random.Generator) -> Finding:
    """Return the loosest limit of a cell that proves the target, or why there is none.

    Selections nest on a geometric grid fixed by scores and instants alone. From each of four fixed
    starts the walk goes from strict to loose while the p-value stays under delta / 4. The
    guarantee: if past and coming weeks are exchangeable, the target is missed with a chance of
    at most delta.

    Source: Angelopoulos et al., Learn then Test, arXiv 2110.01052 (fixed sequences).
    """
    if len(trials) < target.n_min:
        return _abstained(trials, target, cell, f"{len(trials)} trades, {target.n_min} are needed")
    n_able = int((trials.score >= target.floor).sum())
    tried = target if n_able >= target.n_min else replace(target, floor=-math.inf)
    steps = [_step(trials, value, target, rng) for value in _grid(trials, tried)]
    passed = _walk([s.p_value for s in steps], delta=target.delta) if tried is target else []
    if not passed:
        best = max(steps, key=lambda s: s.estimate)
        reason = _best(best, target)
        n_weeks = len(np.unique(trials.t0_ms[trials.score >= steps[-1].value] // WEEK_MS))
        if target.mode == "ev" and n_weeks < _MIN_WEEKS:
            reason += f"; in {n_weeks} weeks, {_MIN_WEEKS} are needed"
        if tried is not target:
            reason += f"; {n_able} trades reach the owner's {target.floor:g}, {target.n_min} must"
        return _finding(trials, target, cell, best, value=None, rng=rng, reason=reason)
    found = steps[max(passed)]
    return _finding(trials, target, cell, found, value=found.value, rng=rng, reason="certified")


def _grid(trials: Trials, target: Target) -> list[float]:
    """The limits tried, strict to loose: at least n_min trades pass, none lies below the floor.

    Cut to four decimals, as they will stand in the configuration: what is tested is what acts.
    A limit whose trades lie in too few weeks to prove a mean is left out, unless none is better:
    each walk ends at the first limit that fails, and those could only fail.
    """
    able = np.sort(trials.score[trials.score >= target.floor])[::-1]
    least = target.n_min
    if target.mode == "ev":
        least = min(max(least, _n_for_weeks(trials, _MIN_WEEKS)), len(able))
    counts = np.unique(np.geomspace(least, len(able), _GRID).round().astype(np.int64))
    cut = {math.floor(able[n - 1] * 1e4) / 1e4 for n in counts}
    return sorted({max(value, target.floor) for value in cut}, reverse=True)


def _n_for_weeks(trials: Trials, n_weeks: int) -> int:
    """Return how many of the best scored trades lie in so many weeks; all where none do."""
    order = np.argsort(-trials.score, kind="stable")
    first = np.sort(np.unique(trials.t0_ms[order] // WEEK_MS, return_index=True)[1])
    return int(first[n_weeks - 1]) + 1 if len(first) >= n_weeks else len(order)


def _walk(p_values: Sequence[float], *, delta: float) -> list[int]:
    passed: set[int] = set()
    for start in range(0, len(p_values), max(1, math.ceil(len(p_values) / _STARTS))):
        for k in range(start, len(p_values)):
            if not p_values[k] <= delta / _STARTS:
                break
            passed.add(k)
    return sorted(passed)


def _step(trials: Trials, value: float, target: Target, rng: np.random.Generator) -> _Step:
    chosen = trials.of(trials.score >= value)
    weight = chosen.weight()
    if target.mode == "p":
        estimate = float(np.average(chosen.r > 0, weights=weight))
        n = math.floor(weight.sum())
        p_value = binomial_tail(math.floor(n * estimate), n=n, p=target.win_rate)
    else:
        estimate = float(chosen.r.mean())
        p_value = mean_above_zero(chosen.r, chosen.t0_ms // WEEK_MS, rng=rng)
    return _Step(
        value=value,
        n=len(chosen),
        n_eff=float(weight.sum()),
        coverage=len(chosen) / len(trials),
        estimate=estimate,
        p_value=p_value,
    )


def mean_above_zero(r: Floats, week: Ints, *, rng: np.random.Generator) -> float:
    """Return the p-value of "the mean is not above 0" from a bootstrap-t over whole weeks.

    1 with fewer than ten weeks: too few blocks to judge by.
    """
    t, draws = _bootstrap_t(r, week, rng=rng)
    return 1.0 if t is None else float((1 + (draws >= t).sum()) / (1 + len(draws)))


def mean_lower(r: Floats, week: Ints, *, delta: float, rng: np.random.Generator) -> float:
    """Return the lower bound of the mean at level delta, by the same bootstrap-t; may be -inf."""
    t, draws = _bootstrap_t(r, week, rng=rng)
    if t is None or t == 0:
        return -math.inf
    mean = float(r.mean())
    return mean - float(np.quantile(draws, 1 - delta)) * (mean / t)


def _bootstrap_t(r: Floats, week: Ints, *, rng: np.random.Generator) -> tuple[float | None, Floats]:
    """The studentised mean of r, and of its resamples about it; weeks are drawn whole."""
    names, place = np.unique(week, return_inverse=True)
    n_weeks = len(names)
    if n_weeks < _MIN_WEEKS:
        return None, np.empty(0)
    sums = np.bincount(place, weights=r).astype(np.float64)
    counts = np.bincount(place).astype(np.float64)
    mean, error = _ratio(sums[None], counts[None], np.ones((1, n_weeks)))
    if error[0] <= 0:
        return None, np.empty(0)
    draws = rng.multinomial(n_weeks, np.full(n_weeks, 1 / n_weeks), size=_RESAMPLES)
    means, errors = _ratio(sums[None], counts[None], draws.astype(np.float64))
    usable = errors > 0
    return float(mean[0] / error[0]), (means[usable] - mean[0]) / errors[usable]


def _ratio(sums: Floats, counts: Floats, times: Floats) -> tuple[Floats, Floats]:
    """Mean and linearised standard error of sum/count for each row of block multiplicities."""
    n_blocks = times.shape[1]
    total = (times * counts).sum(1)
    mean = (times * sums).sum(1) / total
    squares = (times * (sums - mean[:, None] * counts) ** 2).sum(1)
    return mean, np.sqrt(squares * n_blocks / (n_blocks - 1)) / total


def _best(best: _Step, target: Target) -> str:
    wanted = f"{100 * target.win_rate:.1f} %" if target.mode == "p" else "above 0 R"
    seen = f"{100 * best.estimate:.1f} %" if target.mode == "p" else f"{best.estimate:+.3f} R"
    return (
        f"not certified: wanted {wanted}, best seen {seen} at {100 * best.coverage:.0f} % coverage"
        f" (n {best.n}, n_eff {best.n_eff:.0f})"
    )


def _finding(
    trials: Trials,
    target: Target,
    cell: str,
    step: _Step,
    *,
    value: float | None,
    rng: np.random.Generator,
    reason: str,
) -> Finding:
    level = target.delta / _STARTS
    if target.mode == "p":
        n = math.floor(step.n_eff)
        lower = binomial_lower(math.floor(n * step.estimate), n=n, delta=level) if n else 0.0
    else:
        chosen = trials.of(trials.score >= step.value)
        lower = mean_lower(chosen.r, chosen.t0_ms // WEEK_MS, delta=level, rng=rng)
    return Finding(
        cell=cell,
        mode=target.mode,
        value=value,
        certified=value is not None,
        n=step.n,
        n_eff=step.n_eff,
        coverage=step.coverage,
        estimate=step.estimate,
        lower=lower,
        delta=target.delta,
        reason=reason,
    )


def _abstained(trials: Trials, target: Target, cell: str, reason: str) -> Finding:
    return Finding(
        cell=cell,
        mode=target.mode,
        value=None,
        certified=False,
        n=len(trials),
        n_eff=float(trials.weight().sum()),
        coverage=1.0 if len(trials) else 0.0,
        estimate=math.nan,
        lower=math.nan,
        delta=target.delta,
        reason=f"not certified: {reason}",
    )


def tune(trials: Trials, target: Target, *, seed: int) -> list[Finding]:
    """Return a finding for the whole, and for the timeframes, pairs and regimes that may be tested.

    A child is tested only under a certified parent, with an equal share of its parent's delta,
    and a pair or a regime only from an n_eff of 400; whoever is not certified inherits. Each cell
    draws from its own seeded generator, so its finding does not depend on which others were tested.
    """
    root = certify(trials, target, cell=cell_name("*", "*"), rng=_generator(seed, "* *"))
    found = [root]
    if not root.certified:
        return found
    names = np.asarray(trials.timeframe, dtype=str)
    timeframes = sorted(set(trials.timeframe))
    for timeframe in timeframes:
        part = trials.of(names == timeframe)
        share = replace(target, delta=target.delta / len(timeframes))
        cell = cell_name("*", timeframe)
        finding = certify(part, share, cell=cell, rng=_generator(seed, cell))
        found.append(finding)
        if finding.certified:
            found.extend(_pairs(part, share, timeframe=timeframe, seed=seed))
    return found + _regimes(trials, target, seed=seed)


def _regimes(trials: Trials, target: Target, *, seed: int) -> list[Finding]:
    names = sorted({part for regime in trials.regime for part in regime.split("/")})
    parts = {
        regime_cell(name): trials.of(np.array([name in r.split("/") for r in trials.regime]))
        for name in names
    }
    return _large_cells(parts, target, seed=seed)


def _pairs(trials: Trials, target: Target, *, timeframe: str, seed: int) -> list[Finding]:
    names = np.asarray(trials.symbol, dtype=str)
    parts = {
        cell_name(name, timeframe): trials.of(names == name) for name in sorted(set(trials.symbol))
    }
    return _large_cells(parts, target, seed=seed)


def _large_cells(parts: Mapping[str, Trials], target: Target, *, seed: int) -> list[Finding]:
    """Test the cells that have the evidence for a limit of their own; they share delta."""
    large = {cell: part for cell, part in parts.items() if part.weight().sum() >= CHILD_N_EFF}
    share = replace(target, delta=target.delta / max(1, len(large)))
    return [
        certify(part, share, cell=cell, rng=_generator(seed, cell)) for cell, part in large.items()
    ]


def _generator(seed: int, cell: str) -> np.random.Generator:
    return np.random.default_rng([seed, *cell.encode()])
