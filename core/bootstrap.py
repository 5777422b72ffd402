"""Whole runs of calendar weeks drawn again: how else a figure could have come out.

Trades that overlap share their luck, and so do weeks that follow one another. Weeks are therefore
drawn in runs, and the middle of the redrawn figures is widened as Student's t widens a normal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from core.domain import Floats, Ints
from core.timeframe import DAY_MS

LEVEL = 0.9  # of every two-sided interval
N_RESAMPLES = 2000
SEED = 20_250_101  # of every figure shown: the same record gives the same interval anywhere
WEEK_MS = 7 * DAY_MS
MIN_RUNS = 4  # the range of three draws holds the truth in 75 % of all cases at best


def weeks_of(instants_ms: Ints) -> Ints:
    """Return calendar weeks, Monday 00:00 UTC on, counted from the one of the epoch."""
    return (np.asarray(instants_ms, np.int64) + 3 * DAY_MS) // WEEK_MS  # the epoch: a Thursday


@dataclass(frozen=True, slots=True, kw_only=True)
class Weeks:
    """The weeks of a record, and how they are drawn.

    `codes` (n,) is each row's week, counted over the `n` weeks that hold a row; `run` is how many
    weeks are drawn together, the last being followed by the first.
    """

    codes: Ints
    n: int
    run: int

    @property
    def n_runs(self) -> float:
        """How many independent draws the record is worth."""
        return self.n / self.run

    def sums(self, values: Floats) -> Floats:
        """Return the sum of the rows' values in each week, shape (n,)."""
        return np.bincount(self.codes, values, minlength=self.n).astype(np.float64)


def weeks(instants_ms: Ints, *, longest_ms: int = 0) -> Weeks:
    """Return the weeks of rows by their instants; `longest_ms` is the longest life of one.

    A run covers that life and a week more, and at least the cube root of the number of weeks: the
    length at which the error of a redrawn variance falls fastest. Never more than leaves MIN_RUNS.

    Source: Kuensch 1989, Annals of Statistics 17, p. 1226; circular as in Politis & Romano 1992.
    """
    week = weeks_of(instants_ms)
    held = np.bincount(week - week.min()) > 0 if len(week) else np.zeros(0, np.bool_)
    codes = (np.cumsum(held) - 1)[week - week.min()] if len(week) else week
    n = int(held.sum())
    wanted = max(math.ceil(n ** (1 / 3)), math.ceil(longest_ms / WEEK_MS) + 1 if longest_ms else 1)
    return Weeks(codes=codes, n=n, run=max(1, min(wanted, n // MIN_RUNS)))


def redrawn(weekly: Floats, found: Weeks, rng: np.random.Generator) -> Floats:
    """Return the totals of weekly columns, (weeks, k), in each resample: (N_RESAMPLES, k)."""
    n = found.n
    starts = rng.integers(0, n, (N_RESAMPLES, max(1, round(found.n_runs))))
    place = starts + n * np.arange(N_RESAMPLES)[:, None]
    counts = np.bincount(place.ravel(), minlength=n * N_RESAMPLES).reshape(N_RESAMPLES, n)
    runs = sum(np.roll(weekly, -k, axis=0) for k in range(found.run))
    return np.asarray(counts @ runs, np.float64)


def orders(found: Weeks, rng: np.random.Generator) -> Ints:
    """Return the weeks of each resample in the order drawn: (N_RESAMPLES, n)."""
    n_runs = math.ceil(found.n_runs)
    starts = rng.integers(0, found.n, (N_RESAMPLES, n_runs, 1))
    place = (starts + np.arange(found.run)) % found.n
    return place.reshape(N_RESAMPLES, -1)[:, : found.n]


def interval(figures: Floats, found: Weeks) -> tuple[float, float]:
    """Return the interval at LEVEL of a figure redrawn; its NaN are left out.

    NaN where the weeks are too few or half of the figures do not exist. The quantiles lie further
    out than LEVEL says, by what few runs understate.

    Source: Hesterberg 2015, American Statistician 69, p. 371 (expanded percentile interval).
    """
    some = figures[~np.isnan(figures)]
    if found.n_runs < MIN_RUNS or len(some) < N_RESAMPLES / 2:
        return math.nan, math.nan
    tail = _tail(found.n_runs)
    low = np.quantile(some, tail, method="lower")  # no step between figures: some are infinite
    high = np.quantile(some, 1 - tail, method="higher")
    return float(low), float(high)


def _tail(n_runs: float) -> float:
    """The share left out on each side so that few runs cover as often as many."""
    t = t_quantile((1 + LEVEL) / 2, n_runs - 1)
    return NormalDist().cdf(-math.sqrt(n_runs / (n_runs - 1)) * t)


def t_quantile(p: float, df: float) -> float:
    """Return Student's t quantile; within 1 % of it from 3 degrees of freedom on.

    Source: Abramowitz & Stegun 1964, 26.7.5.

    >>> round(t_quantile(0.95, 10), 3)
    1.812
    """
    z = NormalDist().inv_cdf(p)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / df**k for k, term in enumerate(terms, 1))
