"""How long until the passed trades prove, or refute, that they earn: at the present pace."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from core.bootstrap import weeks_of
from core.domain import Floats, Ints
from core.performance import effective_n

MIN_WEEKS = 10  # as the certificate wants: fewer say too little of how much weeks differ
_Z_BOUND = NormalDist().inv_cdf(0.90)  # of a one-sided 90 % bound
_FACTOR = _Z_BOUND + NormalDist().inv_cdf(0.80)  # 2.12: and to see it with a chance of 80 %
_Z_HALF = NormalDist().inv_cdf(0.75)  # wider, and the worse end said "never" until the proof
_ENDLESS_WEEKS = 52 * 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofTime:
    """An estimate of the evidence to come: the mean net R, its standard error, and weeks to go.

    `weeks_more` supposes that the mean seen is the truth; `_lo` and `_hi` that the better or the
    worse end of its 50 % interval is; inf: never. 0 where the one-sided 90 % bound of the mean
    excludes 0 already. A mean below 0 waits for its refutation.
    """

    mean_r: float
    error_r: float
    n: int
    n_eff: float
    n_weeks: int
    weeks_more: float
    weeks_more_lo: float
    weeks_more_hi: float


def proof_time(
    r: Floats, decided_ms: Ints, closed_ms: Ints, symbol: Ints, *, until_ms: int
) -> ProofTime | None:
    """Return the estimate from closed trades, shapes (n,), or None under ten whole weeks.

    Weeks are Monday to Monday UTC, from the first trade's to the last whole one before
    `until_ms`, those without a trade included: they are part of the pace. The standard error is
    that of a ratio of weekly sums; it falls with the square root of the weeks, which must make the
    mean `_FACTOR` of it.

    Source: Cochran 1977, Sampling Techniques, ch. 6 (the error of a ratio).
    """
    last = int(weeks_of(np.array([until_ms]))[0])
    kept = weeks_of(decided_ms) < last
    week = weeks_of(decided_ms[kept])
    n_weeks = last - int(week.min()) if len(week) else 0
    if n_weeks < MIN_WEEKS:
        return None
    some = r[kept]
    mean = float(some.mean())
    away = np.bincount(week - week.min(), some - mean, minlength=n_weeks)
    error = math.sqrt(n_weeks / (n_weeks - 1) * float((away**2).sum())) / len(some)
    ends = sorted((mean - _Z_HALF * error, mean + _Z_HALF * error), key=lambda m: m * mean)
    worse, better = (_weeks_more(m if m * mean > 0 else 0.0, error, n_weeks) for m in ends)
    done = abs(mean) > _Z_BOUND * error
    return ProofTime(
        mean_r=mean,
        error_r=error,
        n=len(some),
        n_eff=effective_n(decided_ms[kept], closed_ms[kept], symbol[kept]),
        n_weeks=n_weeks,
        weeks_more=0.0 if done else _weeks_more(mean, error, n_weeks),
        weeks_more_lo=0.0 if done else better,
        weeks_more_hi=0.0 if done else worse,
    )


def _weeks_more(mean: float, error: float, n_weeks: int) -> float:
    if mean == 0:
        return math.inf
    return max(0.0, n_weeks * ((_FACTOR * error / mean) ** 2 - 1))


def sentence(found: ProofTime | None) -> str:
    """Return the estimate as one sentence with its figures."""
    if found is None:
        return f"Too early to say when: the passed trades do not span {MIN_WEEKS} whole weeks."
    seen = (
        f"net {found.mean_r:+.3f} R a trade, standard error {found.error_r:.3f}, n {found.n},"
        f" n_eff {found.n_eff:.0f}, {found.n_weeks} weeks."
    )
    word, side = ("Proof", "above") if found.mean_r > 0 else ("Refutation", "below")
    if found.weeks_more_hi == 0:
        return f"{word}: the one-sided 90 % bound lies {side} 0, {seen}"
    if found.weeks_more > _ENDLESS_WEEKS:
        return f"No proof either way in sight, the mean is too close to 0: {seen}"
    odds = f"even odds: {_span(found.weeks_more_lo)} to {_span(found.weeks_more_hi)}"
    return f"{word} in about {_span(found.weeks_more)} ({odds}) if the mean is as seen: {seen}"


def _span(weeks: float) -> str:
    if weeks > _ENDLESS_WEEKS:
        return "never"
    n = max(1, math.ceil(weeks))
    return f"{n} week{'s' if n > 1 else ''}" if n < 104 else f"{weeks / 52:.0f} years"
