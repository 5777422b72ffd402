"""What some of the candidates were worth: the best share by a rank, beside other ways to choose.

Shares are cut over all candidates, filled or not: whether an order filled was not known when it
was chosen, and choosing among the filled turns losses into gains. Intervals are two-sided at
`bootstrap.LEVEL`, from runs of whole weeks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from core import performance
from core.bootstrap import interval, redrawn
from core.bootstrap import weeks as weeks_of_rows
from core.compiled import njit
from core.domain import Bools, Floats, Ints
from core.performance import NAN, Trades

SEED = 7
N_DRAWS = 300  # of as many candidates at random


class Estimate(NamedTuple):
    """A figure with its interval; NaN where there is none."""

    value: float
    low: float = NAN
    high: float = NAN

    def text(self, *, scale: float = 1.0, digits: int = 3) -> str:
        """Return the figure and its interval in words; '-' where it does not exist.

        >>> Estimate(0.051, 0.02, 0.08).text(digits=2), Estimate(NAN).text()
        ('+0.05 [+0.02, +0.08]', '-')
        """
        if not math.isfinite(self.value):
            return "-"
        alone = f"{scale * self.value:+.{digits}f}"
        if not math.isfinite(self.low) or not math.isfinite(self.high):
            return alone
        return f"{alone} [{scale * self.low:+.{digits}f}, {scale * self.high:+.{digits}f}]"

    @property
    def standard_error(self) -> float:
        """The standard error that an interval at 90 % stands for; NaN without one.

        >>> round(Estimate(0.0, -1.645, 1.645).standard_error, 3)
        1.0
        """
        return (self.high - self.low) / 2 / 1.645


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Candidates in decision order, shapes (n,); shares are cut inside each `block` of time.

    `closed` marks trades with a result; `r` and `gross_r` are NaN elsewhere. `ended_ms` is when a
    trade closed or an order lapsed. `symbol` holds codes.
    """

    symbol: Ints
    block: Ints
    decided_ms: Ints
    ended_ms: Ints
    closed: Bools
    r: Floats
    gross_r: Floats
    p_mart: Floats
    cost_r: Floats

    def __len__(self) -> int:
        return len(self.r)

    def of(self, rows: Bools) -> Candidates:
        """Return some of the candidates."""
        return Candidates(**{name: getattr(self, name)[rows] for name in self.__slots__})

    def trades(self, chosen: Bools) -> Trades:
        """Return the closed trades among some of the candidates."""
        rows = chosen & self.closed
        return Trades(
            r=self.r[rows],
            gross_r=self.gross_r[rows],
            p_mart=self.p_mart[rows],
            decided_ms=self.decided_ms[rows],
            closed_ms=self.ended_ms[rows],
            symbol=self.symbol[rows],
            ambiguous=np.zeros(int(rows.sum()), bool),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """What some candidates were worth; `metrics` are of the closed trades among them."""

    n_candidates: int
    fill_rate: float
    metrics: performance.Metrics
    deflated_sharpe: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifts:
    """How much better some candidates were than others, paired by week."""

    net_r: Estimate
    win_rate: Estimate
    over_mart: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomPick:
    """As many candidates at random: the mean of the draws, and where 90 % of them lie."""

    net_r: Estimate
    win_rate: Estimate
    over_mart: Estimate


def places(rank: Floats, block: Ints) -> Ints:
    """Return each candidate's place in its block, 0 for the greatest; the earlier of equals first.

    Shapes (n,). A NaN rank comes last.
    """
    codes = np.unique(block, return_inverse=True)[1]
    order = np.lexsort((np.arange(len(rank)), -rank, codes))
    sizes = np.bincount(codes)
    starts = np.cumsum(sizes) - sizes
    place = np.empty(len(rank), np.int64)
    place[order] = np.arange(len(rank)) - starts[codes[order]]
    return place


def best_share(rank: Floats, block: Ints, share: float) -> Bools:
    """Say which candidates are the best share of their block, rounded up to whole ones."""
    codes = np.unique(block, return_inverse=True)[1]
    wanted = np.ceil(np.round(share * np.bincount(codes), 9))
    return np.asarray(places(rank, block) < wanted[codes])


def as_many(rank: Floats, block: Ints, chosen: Bools) -> Bools:
    """Say which candidates rank best, in each block as many as were chosen there."""
    codes = np.unique(block, return_inverse=True)[1]
    wanted = np.bincount(codes, chosen)
    return np.asarray(places(rank, block) < wanted[codes])


def worth(candidates: Candidates, chosen: Bools, *, n_trials: int) -> Worth:
    """Return what some candidates were worth; `n_trials` models were tried before this look."""
    trades = candidates.trades(chosen)
    metrics = performance.metrics(trades, _rng())
    n = int(chosen.sum())
    return Worth(
        n_candidates=n,
        fill_rate=len(trades) / n if n else NAN,
        metrics=metrics,
        deflated_sharpe=performance.deflated_sharpe(trades.r, metrics.n_eff, n_trials),
    )


def lifts(candidates: Candidates, chosen: Bools, others: Bools) -> Lifts:
    """Return how much better the chosen were than the others; the two may overlap."""
    rows = candidates.closed & (chosen | others)
    part = candidates.of(rows)
    first, second, won = chosen[rows], others[rows], (part.r > 0).astype(np.float64)
    longest = _longest(part)

    def of(values: Floats) -> Estimate:
        found = difference(values, first, second, decided_ms=part.decided_ms, longest_ms=longest)
        return Estimate(*found)

    return Lifts(net_r=of(part.r), win_rate=of(won), over_mart=of(won - part.p_mart))


def random_pick(candidates: Candidates, chosen: Bools) -> RandomPick:
    """Return what as many candidates of each block were worth, drawn at random many times."""
    return random_picks(candidates, [chosen])[0]


def random_picks(candidates: Candidates, choices: Sequence[Bools]) -> list[RandomPick]:
    """Return `random_pick` of several choices, from the same draws: the larger hold the smaller."""
    codes = np.unique(candidates.block, return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes)
    wanted = np.array([np.bincount(codes, chosen, len(sizes)) for chosen in choices], np.int64)
    closed, won = candidates.closed, candidates.r > 0
    columns = np.stack(
        [
            closed,
            np.where(closed, candidates.r, 0.0),
            won,
            np.where(closed, won - candidates.p_mart, 0.0),
        ],
        axis=1,
    )[order]
    rng, pool, n_drawn = _rng(), np.arange(len(order)), int(wanted.max(axis=0).sum())
    sums = np.stack(
        [_drawn(columns, pool, sizes, wanted, rng.random(n_drawn)) for _ in range(N_DRAWS)]
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums[:, :, 1:] / sums[:, :, :1]
    return [
        RandomPick(**dict(zip(RandomPick.__slots__, map(_spread, draws.T), strict=True)))
        for draws in means.transpose(1, 0, 2)
    ]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _drawn(columns: Floats, pool: Ints, sizes: Ints, wanted: Ints, chances: Floats) -> Floats:
    """Return the sums, (choices, columns), of rows drawn without repetition inside each block.

    `columns` (n, k) stand block by block, each as long as `sizes` says; of each block as many are
    drawn as the greatest of `wanted` (choices, blocks), one of `chances`, in [0, 1), for each draw.
    `pool` holds the rows of each block in any order and is shuffled on.
    """
    sums = np.zeros((len(wanted), columns.shape[1]))
    first, k = 0, 0
    for block in range(len(sizes)):
        running = np.zeros(columns.shape[1])
        for t in range(wanted[:, block].max()):
            place = first + t + int(chances[k] * (sizes[block] - t))
            k += 1
            pool[first + t], pool[place] = pool[place], pool[first + t]
            running += columns[pool[first + t]]
            for i in range(len(wanted)):
                if wanted[i, block] == t + 1:
                    sums[i] += running
        first += sizes[block]
    return sums


def _spread(draws: Floats) -> Estimate:
    some = draws[np.isfinite(draws)]
    if not len(some):
        return Estimate(NAN)
    low, high = np.quantile(some, (0.05, 0.95))
    return Estimate(float(some.mean()), float(low), float(high))


def difference(
    values: Floats, first: Bools, second: Bools, *, decided_ms: Ints, longest_ms: int = 0
) -> tuple[float, float, float]:
    """Return mean of `first` less mean of `second`, with its paired interval.

    Shapes (n,). Both means are taken over the same drawn weeks. NaN where either side is empty.
    """
    if not first.any() or not second.any():
        return NAN, NAN, NAN
    apart = float(values[first].mean() - values[second].mean())
    found = weeks_of_rows(decided_ms, longest_ms=longest_ms)
    if found.n < 2:
        return apart, NAN, NAN
    columns = (values * first, first, values * second, second)
    weekly = np.column_stack([found.sums(column.astype(np.float64)) for column in columns])
    sums, n, other_sums, n_other = redrawn(weekly, found, _rng()).T
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = interval(sums / n - other_sums / n_other, found)
    return apart, low, high


def mean_of(values: Floats, decided_ms: Ints, *, longest_ms: int = 0) -> Estimate:
    """Return the mean of some values with its interval. Shapes (n,); NaN for none."""
    if not len(values):
        return Estimate(NAN)
    low, high = performance.mean_interval(values, decided_ms, _rng(), longest_ms=longest_ms)
    return Estimate(float(values.mean()), low, high)


def auc(score: Floats, won: Bools) -> float:
    """Return the chance that a win scores above a loss, ties counting half; NaN without both."""
    if not won.any() or won.all():
        return NAN
    return float(_placements(score, won)[won].mean())


def auc_over(score: Floats, other: Floats, won: Bools, decided_ms: Ints) -> Estimate:
    """Return by how much one score's AUC exceeds another's on the same trades. Shapes (n,).

    Source of the influences: DeLong et al. 1988, Biometrics 44, p. 837; here drawn by weeks.
    """
    if not won.any() or won.all():
        return Estimate(NAN)
    apart = auc(score, won) - auc(other, won)
    share = np.where(won, won.mean(), 1 - won.mean())
    pull = (_placements(score, won) - _placements(other, won) - apart) / share
    return Estimate(apart, *mean_of(apart + pull, decided_ms)[1:])


def _placements(score: Floats, won: Bools) -> Floats:
    """For each win the share of losses below it, for each loss the share of wins above it."""
    out = np.empty(len(score))
    for mine, sign in ((won, 1.0), (~won, -1.0)):
        theirs = np.sort(sign * score[~mine])
        below = np.searchsorted(theirs, sign * score[mine], side="left")
        to = np.searchsorted(theirs, sign * score[mine], side="right")
        out[mine] = (below + to) / (2 * len(theirs))
    return out


def slope_of(x: Floats, y: Floats, weight: Floats, decided_ms: Ints) -> Estimate:
    """Return the weighted slope of y on x with its interval. Shapes (n,); NaN without a spread."""
    if len(x) < 2 or not np.ptp(x) > 0:
        return Estimate(NAN)
    away_x = x - np.average(x, weights=weight)
    away_y = y - np.average(y, weights=weight)
    square = float((weight * away_x**2).sum())
    slope = float((weight * away_x * away_y).sum()) / square
    pull = len(x) * weight * away_x * (away_y - slope * away_x) / square
    return Estimate(slope, *mean_of(slope + pull, decided_ms)[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Trades of about the same promise: what was promised, and what came."""

    n: int
    said: float
    came: Estimate


def bins(said: Floats, came: Floats, decided_ms: Ints, *, n_bins: int) -> list[Bin]:
    """Return bins of equal counts, the lowest promise first, each with what came. Shapes (n,)."""
    order = np.argsort(said, kind="stable")
    parts = [part for part in np.array_split(order, n_bins) if len(part)]
    return [
        Bin(
            n=len(part),
            said=float(said[part].mean()),
            came=mean_of(came[part], decided_ms[part]),
        )
        for part in parts
    ]


def _longest(part: Candidates) -> int:
    return int((part.ended_ms - part.decided_ms).max()) if len(part) else 0


def _rng() -> np.random.Generator:
    # a fresh one each time: a figure must not depend on what was computed before it
    return np.random.default_rng(SEED)
