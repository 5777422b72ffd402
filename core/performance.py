"""How good trades were, and how sure that is: every figure with its sample size and interval.

All functions are pure and take closed trades as parallel arrays. Small samples give NaN, never an
error: an interval needs two calendar weeks, a ratio needs something to divide by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core import splits
from core.domain import Bools, Floats, Ints
from core.timeframe import DAY_MS

N_RESAMPLES = 2000
LEVEL = 0.9  # of every two-sided interval
COVERAGES = (0.1, 0.2, 0.3, 0.5, 1.0)
WEEK_MS = 7 * DAY_MS
NAN = float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trades:
    """Closed trades as parallel arrays of shape (n,), in any order.

    `r` and `gross_r` are net and gross multiples of the planned risk, `p_mart` what a coin flip
    would win (NaN where unknown), `symbol` any values that can be compared.
    """

    r: Floats
    gross_r: Floats
    p_mart: Floats
    decided_ms: Ints
    closed_ms: Ints
    symbol: NDArray[Any]
    ambiguous: Bools

    def __post_init__(self) -> None:
        """Refuse columns of different lengths."""
        lengths = {name: len(getattr(self, name)) for name in self.__dataclass_fields__}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"want columns of one length, not {lengths}")

    def __len__(self) -> int:
        return len(self.r)

    def __getitem__(self, rows: Any) -> Trades:
        """Return some of the trades: a mask, a slice or positions."""
        return Trades(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})

    @property
    def win(self) -> Bools:
        """The label: net result above 0."""
        return self.r > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """The judgement of a set of closed trades; intervals are two-sided at `LEVEL`.

    `mean_r` is the expectancy. `max_drawdown_r` is positive, in closed trades. `sharpe` and
    `sortino` are per trade, not annualised.
    """

    n: int
    n_eff: float
    win_rate: float
    win_rate_lo: float
    win_rate_hi: float
    p_mart: float
    mean_r: float
    mean_r_lo: float
    mean_r_hi: float
    mean_gross_r: float
    cost_r: float
    mean_win_r: float
    mean_loss_r: float
    profit_factor: float
    max_drawdown_r: float
    sharpe: float
    sortino: float
    ambiguous_share: float

    @property
    def win_rate_over_mart(self) -> float:
        """What the win-rate adds to geometry."""
        return self.win_rate - self.p_mart


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageRow:
    """The best share of trades by score; `lowest_score` is the last one taken."""

    coverage: float
    lowest_score: float
    n: int
    n_eff: float
    win_rate: float
    p_mart: float
    mean_r: float
    mean_r_lo: float
    mean_r_hi: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lift:
    """Mean R of the passed less mean R of the rejected, with its paired interval."""

    n_passed: int
    n_rejected: int
    lift_r: float
    lift_r_lo: float
    lift_r_hi: float


def metrics(trades: Trades, rng: np.random.Generator) -> Metrics:
    """Return the judgement of closed trades; `rng` draws the bootstrap."""
    r, win = trades.r, trades.win
    n_eff = effective_n(trades.decided_ms, trades.closed_ms, trades.symbol)
    win_rate = _mean(win)
    win_lo, win_hi = wilson_interval(win_rate, n_eff)
    mean_lo, mean_hi = mean_interval(r, trades.decided_ms, rng)
    losses = -float(r[r < 0].sum())
    return Metrics(
        n=len(trades),
        n_eff=n_eff,
        win_rate=win_rate,
        win_rate_lo=win_lo,
        win_rate_hi=win_hi,
        p_mart=_mean(trades.p_mart[np.isfinite(trades.p_mart)]),
        mean_r=_mean(r),
        mean_r_lo=mean_lo,
        mean_r_hi=mean_hi,
        mean_gross_r=_mean(trades.gross_r),
        cost_r=_mean(trades.gross_r - r),
        mean_win_r=_mean(r[win]),
        mean_loss_r=_mean(r[~win]),
        profit_factor=_ratio(float(r[r > 0].sum()), losses),
        max_drawdown_r=max_drawdown(trades.closed_ms, r),
        sharpe=_sharpe(r),
        sortino=_sortino(r),
        ambiguous_share=_mean(trades.ambiguous),
    )


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else NAN


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else NAN


def _sharpe(r: Floats) -> float:
    return _ratio(_mean(r), float(r.std(ddof=1))) if len(r) > 1 else NAN


def _sortino(r: Floats) -> float:
    """Mean over the root mean square of the losses, zero being the target."""
    return _ratio(_mean(r), float(np.sqrt((np.minimum(r, 0) ** 2).mean()))) if len(r) else NAN


def wilson_interval(rate: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Return the Wilson score interval of a rate seen in `n` trials; `n` may be a fraction.

    NaN for no trials. Source: Wilson 1927, JASA 22, p. 209.
    """
    if not n > 0:
        return NAN, NAN
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (rate * (1 - rate) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def effective_n(decided_ms: Ints, closed_ms: Ints, symbol: NDArray[Any]) -> float:
    """Return the number of independent trades that a set of overlapping ones is worth."""
    return float(uniqueness(decided_ms, closed_ms, symbol).sum())


def uniqueness(decided_ms: Ints, closed_ms: Ints, symbol: NDArray[Any]) -> Floats:
    """Return each trade's uniqueness in (0, 1]: the mean of 1 / concurrency over its life.

    A life is [decided, closed), at least 1 ms long; see `splits.uniqueness`.
    """
    start = np.asarray(decided_ms, np.int64)
    last = np.maximum(np.asarray(closed_ms, np.int64) - 1, start)
    _, codes = np.unique(np.asarray(symbol), return_inverse=True)
    return splits.uniqueness(start, last, codes)


def weeks_of(instants_ms: Ints) -> Ints:
    """Return calendar weeks, Monday 00:00 UTC on, counted from the one of the epoch."""
    return (np.asarray(instants_ms, np.int64) + 3 * DAY_MS) // WEEK_MS  # the epoch: a Thursday


def mean_interval(
    values: Floats, decided_ms: Ints, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the bootstrap interval of a mean; whole calendar weeks are drawn.

    NaN with fewer than two weeks that hold trades.
    """
    if not len(values):
        return NAN, NAN
    sums, counts = _by_week(values, decided_ms, np.ones(len(values), np.bool_))
    draws = _week_draws(len(sums), rng)
    return _interval((draws @ sums) / (draws @ counts)) if len(sums) > 1 else (NAN, NAN)


def _by_week(values: Floats, decided_ms: Ints, chosen: Bools) -> tuple[Floats, Floats]:
    """Sum and count of the chosen values in each week that holds any trade."""
    _, codes = np.unique(weeks_of(decided_ms), return_inverse=True)
    n_weeks = int(codes.max()) + 1
    counts = np.bincount(codes[chosen], minlength=n_weeks).astype(np.float64)
    sums = np.bincount(codes[chosen], values[chosen], minlength=n_weeks)
    return sums.astype(np.float64), counts


def _week_draws(n_weeks: int, rng: np.random.Generator) -> Floats:
    """How often each resample holds each week, (resamples, weeks)."""
    draws = rng.multinomial(n_weeks, np.full(n_weeks, 1 / n_weeks), size=N_RESAMPLES)
    return draws.astype(np.float64)


def _interval(figures: Floats) -> tuple[float, float]:
    """The middle `LEVEL` of the resampled figures that exist."""
    some = figures[np.isfinite(figures)]
    if len(some) < N_RESAMPLES / 2:
        return NAN, NAN
    low, high = np.quantile(some, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def lift(trades: Trades, passed: Bools, rng: np.random.Generator) -> Lift:
    """Return how much better the passed trades were than the rejected ones.

    Both means are taken over the same drawn weeks. NaN when either side is empty.
    """
    passed = np.asarray(passed, np.bool_)
    low, high = NAN, NAN
    if passed.any() and not passed.all():
        low, high = _lift_interval(trades, passed, rng)
    return Lift(
        n_passed=int(passed.sum()),
        n_rejected=int((~passed).sum()),
        lift_r=_mean(trades.r[passed]) - _mean(trades.r[~passed]),
        lift_r_lo=low,
        lift_r_hi=high,
    )


def _lift_interval(trades: Trades, passed: Bools, rng: np.random.Generator) -> tuple[float, float]:
    sums, counts = _by_week(trades.r, trades.decided_ms, passed)
    other_sums, other_counts = _by_week(trades.r, trades.decided_ms, ~passed)
    if len(sums) < 2:
        return NAN, NAN
    draws = _week_draws(len(sums), rng)
    n, n_other = draws @ counts, draws @ other_counts
    both = (n > 0) & (n_other > 0)
    means = (draws @ sums)[both] / n[both]
    return _interval(means - (draws @ other_sums)[both] / n_other[both])


def equity_curve(closed_ms: Ints, r: Floats) -> tuple[Ints, Floats, Floats]:
    """Return instants of closing, cumulated R, and R below the highest so far (<= 0).

    Trades that close at one instant are one step, so their order cannot matter; the curve starts
    from 0 before its first instant.
    """
    ts_ms, codes = np.unique(np.asarray(closed_ms, np.int64), return_inverse=True)
    total = np.cumsum(np.bincount(codes, r, minlength=len(ts_ms)).astype(np.float64))
    peak = np.maximum.accumulate(np.maximum(total, 0.0))
    return ts_ms, total, total - peak


def max_drawdown(closed_ms: Ints, r: Floats) -> float:
    """Return the deepest fall of closed equity from its highest point, in R, >= 0."""
    under = equity_curve(closed_ms, r)[2]
    return -float(under.min()) + 0.0 if len(under) else NAN


def coverage_table(
    trades: Trades,
    score: Floats,
    rng: np.random.Generator,
    coverages: Sequence[float] = COVERAGES,
) -> tuple[CoverageRow, ...]:
    """Return how trades did when only the best share by score is taken.

    Shares are rounded up to whole trades; among equal scores the earlier decision comes first.
    """
    order = np.lexsort((trades.decided_ms, -np.asarray(score, np.float64)))
    return tuple(_coverage_row(trades, score, order, share, rng) for share in coverages)


def _coverage_row(
    trades: Trades, score: Floats, order: Ints, share: float, rng: np.random.Generator
) -> CoverageRow:
    rows = order[: int(np.ceil(round(share * len(order), 9)))]
    chosen = trades[rows]
    low, high = mean_interval(chosen.r, chosen.decided_ms, rng)
    return CoverageRow(
        coverage=share,
        lowest_score=float(score[rows[-1]]) if len(rows) else NAN,
        n=len(chosen),
        n_eff=effective_n(chosen.decided_ms, chosen.closed_ms, chosen.symbol),
        win_rate=_mean(chosen.win),
        p_mart=_mean(chosen.p_mart[np.isfinite(chosen.p_mart)]),
        mean_r=_mean(chosen.r),
        mean_r_lo=low,
        mean_r_hi=high,
    )
