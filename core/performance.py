"""How good trades were, and how sure that is: every figure with its sample size and interval.

All functions are pure and take closed trades as parallel arrays. Small samples give NaN, never an
error: an interval needs four calendar weeks, a ratio needs something to divide by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core import splits
from core.bootstrap import LEVEL, Weeks, interval, redrawn, weeks
from core.domain import Bools, Floats, Ints

COVERAGES = (0.1, 0.2, 0.3, 0.5, 1.0)
NAN = float("nan")
_EULER_GAMMA = 0.5772156649


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
    """The judgement of a set of closed trades; `_lo` and `_hi` are two-sided at `LEVEL`.

    Rates have Wilson's interval on `n_eff`; all else is redrawn by runs of weeks. `mean_r` is the
    expectancy. `win_rate_over_mart` is the win-rate less the coin flip's, over trades whose
    `p_mart` is known. `sharpe` and `sortino` are per trade, not annualised.
    """

    n: int
    n_eff: float
    n_weeks: int
    win_rate: float
    win_rate_lo: float
    win_rate_hi: float
    p_mart: float
    win_rate_over_mart: float
    win_rate_over_mart_lo: float
    win_rate_over_mart_hi: float
    mean_r: float
    mean_r_lo: float
    mean_r_hi: float
    mean_gross_r: float
    mean_gross_r_lo: float
    mean_gross_r_hi: float
    cost_r: float
    cost_r_lo: float
    cost_r_hi: float
    mean_win_r: float
    mean_win_r_lo: float
    mean_win_r_hi: float
    mean_loss_r: float
    mean_loss_r_lo: float
    mean_loss_r_hi: float
    profit_factor: float
    profit_factor_lo: float
    profit_factor_hi: float
    sharpe: float
    sharpe_lo: float
    sharpe_hi: float
    sortino: float
    sortino_lo: float
    sortino_hi: float
    ambiguous_share: float
    ambiguous_share_lo: float
    ambiguous_share_hi: float


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
    n_eff = effective_n(trades.decided_ms, trades.closed_ms, trades.symbol)
    columns, found = _columns(trades), _weeks(trades)
    values = _figures({name: np.array([column.sum()]) for name, column in columns.items()})
    out = {
        name: float(value[0]) if np.isfinite(value[0]) else NAN for name, value in values.items()
    }
    for name, (low, high) in _intervals(columns, found, rng).items():
        out |= {f"{name}_lo": low, f"{name}_hi": high}
    win_rate, ambiguous = _mean(trades.win), _mean(trades.ambiguous)
    for name, rate in (("win_rate", win_rate), ("ambiguous_share", ambiguous)):
        low, high = wilson_interval(rate, n_eff)
        out |= {name: rate, f"{name}_lo": low, f"{name}_hi": high}
    p_mart = _mean(trades.p_mart[np.isfinite(trades.p_mart)])
    return Metrics(n=len(trades), n_eff=n_eff, n_weeks=found.n, p_mart=p_mart, **out)


def _weeks(trades: Trades) -> Weeks:
    longest = int((trades.closed_ms - trades.decided_ms).max()) if len(trades) else 0
    return weeks(trades.decided_ms, longest_ms=longest)


def _columns(trades: Trades) -> dict[str, Floats]:
    """What the figures are made of, one value a trade: each figure is a function of their sums."""
    r, known = trades.r, np.isfinite(trades.p_mart)
    below = np.minimum(r, 0.0)
    return {
        "n": np.ones(len(r)),
        "r": r,
        "r_squared": r * r,
        "gross": trades.gross_r,
        "n_won": trades.win.astype(np.float64),
        "won": np.maximum(r, 0.0),
        "lost": -below,
        "lost_squared": below * below,
        "n_known": known.astype(np.float64),
        "over_mart": np.where(known, trades.win - trades.p_mart, 0.0),
    }


def _figures(s: dict[str, Floats]) -> dict[str, Floats]:
    """The figures of one or many sets of sums; what cannot be divided is NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        n = s["n"]
        mean = s["r"] / n
        variance = np.where(n > 1, (s["r_squared"] - n * mean * mean) / (n - 1), NAN)
        # a spread of rounding errors is none
        spread = np.sqrt(np.where(variance > 1e-12 * s["r_squared"], variance, NAN))
        below = np.sqrt(s["lost_squared"] / n)
        return {
            "win_rate_over_mart": s["over_mart"] / s["n_known"],
            "mean_r": mean,
            "mean_gross_r": s["gross"] / n,
            "cost_r": (s["gross"] - s["r"]) / n,
            "mean_win_r": s["won"] / s["n_won"],
            "mean_loss_r": -s["lost"] / (n - s["n_won"]),
            "profit_factor": s["won"] / s["lost"],
            "sharpe": mean / spread,
            "sortino": mean / below,
        }


def _intervals(
    columns: dict[str, Floats], found: Weeks, rng: np.random.Generator
) -> dict[str, tuple[float, float]]:
    if found.n < 2:
        return dict.fromkeys(_figures(dict.fromkeys(columns, np.zeros(1))), (NAN, NAN))
    weekly = np.column_stack([found.sums(column) for column in columns.values()])
    figures = _figures(dict(zip(columns, redrawn(weekly, found, rng).T, strict=True)))
    out = {name: interval(values, found) for name, values in figures.items()}
    known = columns["n_known"] > 0
    means = {
        "mean_r": columns["r"],
        "mean_gross_r": columns["gross"],
        "win_rate_over_mart": columns["over_mart"][known],
    }
    return out | {name: _as_if_alone(out[name], values) for name, values in means.items()}


def _as_if_alone(found: tuple[float, float], values: Floats) -> tuple[float, float]:
    """Widen the interval of a mean to that of independent values where it is narrower.

    A handful of weeks may agree by chance; trades that share their luck never tell more than as
    many that do not.
    """
    if len(values) < 2:
        return found
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    half = z * float(values.std(ddof=1)) / len(values) ** 0.5
    mean = _mean(values)
    low, high = found  # NaN stays NaN: it comes first
    return min(low, mean - half), max(high, mean + half)


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else NAN


def deflated_sharpe(r: Floats, n_eff: float, n_trials: int) -> float:
    """Return the chance that a Sharpe ratio seen after `n_trials` looks is truly above 0.

    `n_eff` stands for the number of returns. The best of the trials is expected to have shown
    `expected_best` standard errors by luck alone: the trials' own Sharpe ratios are not kept, so
    they are taken to be independent and without skill. NaN under 3 independent trades or without
    spread.

    Source: Bailey & Lopez de Prado 2014, Journal of Portfolio Management 40(5), p. 94.
    """
    away = r - _mean(r) if len(r) else r
    spread = float(np.sqrt((away**2).mean())) if len(r) else 0.0
    if not n_eff > 2 or not spread > 1e-12:
        return NAN
    skew, kurtosis = _mean((away / spread) ** 3), _mean((away / spread) ** 4)
    sharpe = _mean(r) / float(r.std(ddof=1))
    error = (1 - skew * sharpe + (kurtosis - 1) / 4 * sharpe**2) ** 0.5
    over_luck = sharpe * (n_eff - 1) ** 0.5 - expected_best(n_trials)
    return NormalDist().cdf(over_luck / error)


def expected_best(n_trials: int) -> float:
    """Return the expected greatest of `n_trials` standard normal draws; 0 for one or none.

    Source: Bailey & Lopez de Prado 2014, equation 1.
    """
    if n_trials < 2:
        return 0.0
    quantile = NormalDist().inv_cdf
    rest = _EULER_GAMMA * quantile(1 - 1 / (n_trials * np.e))
    return (1 - _EULER_GAMMA) * quantile(1 - 1 / n_trials) + rest


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
    codes = np.asarray(symbol)
    if codes.dtype.kind != "i":
        codes = np.unique(codes, return_inverse=True)[1]
    return splits.uniqueness(start, last, codes)


def mean_interval(
    values: Floats, decided_ms: Ints, rng: np.random.Generator, *, longest_ms: int = 0
) -> tuple[float, float]:
    """Return the bootstrap interval of a mean; runs of whole calendar weeks are drawn.

    `longest_ms` is the longest life of one value. NaN with fewer than four weeks that hold one.
    """
    found = weeks(decided_ms, longest_ms=longest_ms)
    if found.n < 2:
        return NAN, NAN
    weekly = np.column_stack((found.sums(values), found.sums(np.ones(len(values)))))
    sums, counts = redrawn(weekly, found, rng).T
    return _as_if_alone(interval(sums / counts, found), values)


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
    found = _weeks(trades)
    if found.n < 2:
        return NAN, NAN
    columns = (trades.r * passed, passed, trades.r * ~passed, ~passed)
    weekly = np.column_stack([found.sums(column.astype(np.float64)) for column in columns])
    sums, n, other_sums, n_other = redrawn(weekly, found, rng).T
    with np.errstate(invalid="ignore"):
        return interval(sums / n - other_sums / n_other, found)


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
    longest = int((chosen.closed_ms - chosen.decided_ms).max()) if len(chosen) else 0
    low, high = mean_interval(chosen.r, chosen.decided_ms, rng, longest_ms=longest)
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
