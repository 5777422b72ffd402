"""Which rows may teach and which may judge: uniqueness, purge, maturity, walk-forward folds.

Everything here reads `t1`, the instant a label was known: it looks behind the decision on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.domain import Bools, Floats, Ints
from core.timeframe import DAY_MS

EMBARGO_MS = DAY_MS
RHO_OTHERS = 0.6  # crypto pairs move together: half of another pair's trade is the same evidence
MIN_BLOCKS, MOST_BLOCKS = 2, 8
_WARM_UP_FRAC = 0.25


def uniqueness(t0_ms: Ints, t1_ms: Ints, symbol: Ints, *, rho: float = RHO_OTHERS) -> Floats:
    """Return how much of each event is evidence of its own, in (0, 1].

    Shapes (n,); events are closed intervals [t0, t1] of whole ms, t0 <= t1. At each ms the
    concurrency counts events of the same symbol as 1 and others as `rho`; the value is the mean
    of its inverse over the event.

    Source: Lopez de Prado 2018, Advances in Financial Machine Learning, ch. 4, here across symbols.
    """
    if not len(t0_ms):
        return np.empty(0)
    edges = np.unique(np.concatenate((t0_ms, t1_ms + 1)))
    first, last = np.searchsorted(edges, t0_ms), np.searchsorted(edges, t1_ms + 1)
    length = np.diff(edges).astype(np.float64)
    together = _active(first, last, len(edges))
    values = np.empty(len(t0_ms))
    for name in np.unique(symbol):
        mine = symbol == name
        own = _active(first[mine], last[mine], len(edges))
        shares = np.zeros(len(length))
        np.divide(length, rho * together + (1 - rho) * own, out=shares, where=own > 0)
        total = np.concatenate(([0.0], np.cumsum(shares)))
        values[mine] = total[last[mine]] - total[first[mine]]
    return values / (t1_ms + 1 - t0_ms)


def _active(first: Ints, last: Ints, n_edges: int) -> Floats:
    steps = np.bincount(first, minlength=n_edges) - np.bincount(last, minlength=n_edges)
    return np.cumsum(steps)[:-1].astype(np.float64)


def n_eff(t0_ms: Ints, t1_ms: Ints, symbol: Ints, *, rho: float = RHO_OTHERS) -> float:
    """Return how many independent events a set is worth: the sum of its uniqueness."""
    return float(uniqueness(t0_ms, t1_ms, symbol, rho=rho).sum())


def kept_by_purge(
    t0_ms: Ints, t1_ms: Ints, *, test_t0_ms: Ints, test_t1_ms: Ints, embargo_ms: int = EMBARGO_MS
) -> Bools:
    """Say which training events stay clear of a test set, shape (n,).

    Dropped is what meets [min test t0, max test t1 + embargo]; intervals are closed and the test
    set is taken over all symbols.
    """
    if not len(test_t0_ms):
        return np.ones(len(t0_ms), bool)
    start, end = test_t0_ms.min(), test_t1_ms.max() + embargo_ms
    return np.asarray((t1_ms < start) | (t0_ms > end))


def matures_ms(valid_until_ms: Ints, hold_ms: Ints) -> Ints:
    """Return the instant by which a candidate's end is known whatever happens.

    A cohort cut here holds slow trades as well as fast ones; cut at "closed so far" it would
    hold too many stops.
    """
    return valid_until_ms + hold_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """Row numbers to learn from and to be judged by. All learned from matured before the cutoff."""

    cutoff_ms: int
    train: Ints
    test: Ints


def walk_forward(
    t0_ms: Ints,
    t1_ms: Ints,
    known_ms: Ints,
    *,
    n_blocks: int,
    embargo_ms: int = EMBARGO_MS,
) -> list[Fold]:
    """Return expanding folds in time order; the first quarter of the rows is never judged.

    `known_ms` is when each row matures. A block starts at a decision instant and no instant is
    split; a fold learns from rows that matured more than the embargo before its block. Fewer
    blocks come back where instants coincide; a fold's `train` may be empty.
    """
    order = np.sort(t0_ms)
    shares = _WARM_UP_FRAC + (1 - _WARM_UP_FRAC) * np.arange(n_blocks) / n_blocks
    starts = np.unique(order[(shares * len(order)).astype(np.int64)]) if len(order) else order
    ends = np.append(starts[1:], np.iinfo(np.int64).max)
    return [
        _fold(t0_ms, t1_ms, known_ms, start=int(start), end=int(end), embargo_ms=embargo_ms)
        for start, end in zip(starts, ends, strict=False)
    ]


def _fold(
    t0_ms: Ints, t1_ms: Ints, known_ms: Ints, *, start: int, end: int, embargo_ms: int
) -> Fold:
    test = np.flatnonzero((t0_ms >= start) & (t0_ms < end))
    cutoff = start - embargo_ms
    kept = kept_by_purge(
        t0_ms, t1_ms, test_t0_ms=t0_ms[test], test_t1_ms=t1_ms[test], embargo_ms=embargo_ms
    )
    train = np.flatnonzero((t0_ms < start) & (known_ms < cutoff) & kept)
    return Fold(cutoff_ms=cutoff, train=train, test=test)


def n_blocks_for(n_closed: int, *, per_block: int) -> int:
    """Return how many test blocks the data allows: at least `per_block` closed trades in each."""
    return min(MOST_BLOCKS, max(MIN_BLOCKS, n_closed // max(1, per_block)))
