"""Does the champion keep its word? Bets against its promise, and what it said beside what came.

Reads outcomes. The bets use each one only after its trade had closed; the record only of
candidates that matured.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from core.domain import Bools, Floats, Ints
from core.performance import effective_n, mean_interval, uniqueness

ALPHA = 0.05  # of a false alarm, once for all looks of a model's life
NEVER_MS = 1 << 62  # settles a trade that is still open
_STAKES = (0.2, 0.35)  # shares of an account's free capital that it stakes on each trade
_FIRST_SHARE = 0.2  # of the capital is in the accounts at once, the rest in reserve
_RESTART = 1 / 200  # of the reserve goes to the accounts at each trade: a fall may come late


@dataclass(frozen=True, slots=True, kw_only=True)
class Bets:
    """The trades a champion passed, in decision order, shapes (n,).

    `promise_r` is what each was to earn at least on average, `best_r` the most it can, above 0.
    `r` is net and NaN where the order never filled; nothing of it is read before `settled_ms`,
    when the end was known (NEVER_MS: not yet).
    """

    promise_r: Floats
    best_r: Floats
    r: Floats
    decided_ms: Ints
    settled_ms: Ints

    def __post_init__(self) -> None:
        """Refuse trades out of order, or without anything to gain."""
        if np.any(np.diff(self.decided_ms) < 0) or not np.all(self.best_r > 0):
            raise ValueError("want bets in decision order, each with a best result above 0 R")


@dataclass(frozen=True, slots=True, kw_only=True)
class EProcess:
    """The evidence against the promise as it grew: e after each settlement, shapes (n,).

    `e` counts every open bet as lost. `rejected_ms` is when it reached 1 / alpha: the last one.
    """

    at_ms: Ints
    e: Floats
    rejected_ms: int | None

    @property
    def n(self) -> int:
        """How many bets were settled."""
        return len(self.e)

    @property
    def last(self) -> float:
        """The evidence now; 1 before the first settlement."""
        return float(self.e[-1]) if len(self.e) else 1.0

    @property
    def peak(self) -> float:
        """The most there ever was: what the decision rests on."""
        return max(1.0, float(self.e.max())) if len(self.e) else 1.0


def promised_r(ev_lo_r: Floats) -> Floats:
    """Return what a passed trade is to earn on average: the low end told, and never a loss.

    NaN, where no value was told, promises only that.
    """
    return np.maximum(np.nan_to_num(ev_lo_r, nan=0.0), 0.0)


def evidence_against(bets: Bets, *, until_ms: int, alpha: float = ALPHA) -> EProcess:
    """Return the e-process of "no passed trade was expected to earn less than promised".

    A gambler with capital 1 stakes on each trade, when it is decided, that it will earn less than
    its promise m: a stake s comes back as s * (1 + (m - r) / best_r), as s where the order did not
    fill. Stakes are set aside until then and depend on nothing that was not known, so if every
    trade's expected r, given all that was known at its decision, is at least m, the gambler's
    expected capital never grows: the chance that what is not at stake ever reaches 1 / alpha is
    at most alpha, however long and however often one looks. Trades may overlap, share their luck
    and come in any number; nothing is assumed independent, alike or bounded below. A result above
    best_r counts as best_r (funding received and an entry better than planned are not in it).

    Source: Ville 1939, Etude critique de la notion de collectif (the inequality); Shafer 2021,
    JRSS A 184, p. 407 (testing by betting); Waudby-Smith & Ramdas 2024, JRSS B 86, p. 1 (bets on
    bounded means); Shin, Ramdas & Rinaldo, E-detectors, arXiv 2203.03532 (starting again, so that
    earlier good luck does not hide a fall). See docs/decisions/monitoring.md.
    """
    game = _Game(bets, goal=1 / alpha)
    for i in np.flatnonzero(bets.decided_ms < until_ms).tolist():
        game.settle(before_ms=int(bets.decided_ms[i]))
        game.stake(i)
    game.settle(before_ms=until_ms + 1)
    return EProcess(
        at_ms=np.array(game.at_ms, np.int64),
        e=np.array(game.e, np.float64),
        rejected_ms=game.at_ms[-1] if game.is_over else None,
    )


class _Game:
    """The gambler's accounts, one for each size of stake, the reserve, and what is at stake.

    At the goal the gambler goes home: nothing is settled any more.
    """

    def __init__(self, bets: Bets, *, goal: float) -> None:
        payoff = 1 + np.maximum((bets.promise_r - bets.r) / bets.best_r, -1.0)
        self._payoff: list[float] = np.where(np.isfinite(bets.r), payoff, 1.0).tolist()
        self._settled_ms: list[int] = bets.settled_ms.tolist()
        self._reserve = 1 - _FIRST_SHARE
        self._free = [_FIRST_SHARE / len(_STAKES)] * len(_STAKES)
        self._open: list[tuple[int, int, list[float]]] = []
        self._goal = goal
        self.at_ms: list[int] = []
        self.e: list[float] = []

    @property
    def is_over(self) -> bool:
        """Say whether the goal was reached."""
        return bool(self.e) and self.e[-1] >= self._goal

    def settle(self, *, before_ms: int) -> None:
        """Pay out the bets whose ends were known before an instant, in the order of their ends."""
        while self._open and self._open[0][0] < before_ms and not self.is_over:
            at_ms, i, stakes = heappop(self._open)
            back = self._payoff[i]
            self._free = [
                free + stake * back for free, stake in zip(self._free, stakes, strict=True)
            ]
            self.at_ms.append(at_ms)
            self.e.append(self._reserve + sum(self._free))

    def stake(self, i: int) -> None:
        """Set the stakes on trade i aside, after a share of the reserve went to the accounts."""
        fresh = _RESTART * self._reserve
        self._reserve -= fresh
        free = [account + fresh / len(_STAKES) for account in self._free]
        stakes = [share * account for share, account in zip(_STAKES, free, strict=True)]
        self._free = [account - stake for account, stake in zip(free, stakes, strict=True)]
        heappush(self._open, (self._settled_ms[i], i, stakes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Closed trades that had matured, with what was said of them, shapes (n,).

    `symbol` is any value that can be compared; `ev_r` and `ev_lo_r` NaN where nothing was told.
    """

    p: Floats
    p_mart: Floats
    ev_r: Floats
    ev_lo_r: Floats
    r: Floats
    decided_ms: Ints
    closed_ms: Ints
    symbol: Ints

    def __len__(self) -> int:
        return len(self.r)

    def of(self, rows: Bools) -> Scored:
        """Return some of the trades."""
        return Scored(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What was said, and what came of it; `_lo` and `_hi` are 90 %, redrawn by runs of weeks.

    Probabilities and Brier scores are weighted by uniqueness; `win_rate_over_p` above 0: more wins
    than said. The three mean R count each trade once, as money does. NaN where there is nothing.
    """

    n: int
    n_eff: float
    win_rate: float
    p: float
    p_mart: float
    brier: float
    brier_mart: float
    win_rate_over_p: float
    win_rate_over_p_lo: float
    win_rate_over_p_hi: float
    ev_r: float
    ev_lo_r: float
    r: float
    r_lo: float
    r_hi: float


def record_of(trades: Scored, rng: np.random.Generator) -> Record:
    """Return the record of scored trades; `rng` draws the bootstrap."""
    won = (trades.r > 0).astype(np.float64)
    weight = uniqueness(trades.decided_ms, trades.closed_ms, trades.symbol)
    longest = int((trades.closed_ms - trades.decided_ms).max()) if len(trades) else 0
    gap = mean_interval(won - trades.p, trades.decided_ms, rng, longest_ms=longest)
    low, high = mean_interval(trades.r, trades.decided_ms, rng, longest_ms=longest)
    return Record(
        n=len(trades),
        n_eff=effective_n(trades.decided_ms, trades.closed_ms, trades.symbol),
        win_rate=_mean(won, weight),
        p=_mean(trades.p, weight),
        p_mart=_mean(trades.p_mart, weight),
        brier=_mean((trades.p - won) ** 2, weight),
        brier_mart=_mean((trades.p_mart - won) ** 2, weight),
        win_rate_over_p=_mean(won - trades.p),
        win_rate_over_p_lo=gap[0],
        win_rate_over_p_hi=gap[1],
        ev_r=_mean(trades.ev_r),
        ev_lo_r=_mean(trades.ev_lo_r),
        r=_mean(trades.r),
        r_lo=low,
        r_hi=high,
    )


def _mean(values: Floats, weight: Floats | None = None) -> float:
    """The mean of the values that exist, or NaN."""
    known = np.isfinite(values)
    if not known.any():
        return float("nan")
    return float(np.average(values[known], weights=None if weight is None else weight[known]))
