"""Which rows may teach and which may judge: uniqueness, purge, maturity, walk-forward folds.

Everything here reads `t1`, the instant a label was known: it looks behind the decision on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.compiled import njit
from core.domain import Bools, Floats, Ints
from core.timeframe import DAY_MS

EMBARGO_MS = DAY_MS
RHO_OTHERS = 0.6  # crypto pairs move together: half of another pair's trade is the same evidence
_WARM_UP_FRAC = 0.25
_MONTH_WEEKS, _OLDER = 4, 3  # blocks of the recent part, and how much longer older ones are
_MIN_BLOCKS = 8  # a short history is cut into this many rather than into months
_WEEK_MS = 7 * DAY_MS
_MONDAY_MS = 4 * DAY_MS  # 1970-01-05 was the first Monday of the epoch


def uniqueness(t0_ms: Ints, t1_ms: Ints, symbol: Ints, *, rho: float = RHO_OTHERS) -> Floats:
    """Return how much of each event is evidence of its own, in (0, 1].

    Shapes (n,); events are closed intervals [t0, t1] of whole ms, t0 <= t1. At each ms the
    concurrency counts events of the same symbol as 1 and others as `rho`; the value is the mean
    of its inverse over the event.

    Source: Lopez de Prado 2018, Advances in Financial Machine Learning, ch. 4, here across symbols.
    """
    end_ms = t1_ms + 1
    codes = np.unique(symbol, return_inverse=True)[1]
    orders = np.argsort(t0_ms, kind="stable"), np.argsort(end_ms, kind="stable")
    return np.asarray(_walked(t0_ms, end_ms, codes, *orders, rho) / (end_ms - t0_ms))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _walked(
    start_ms: Ints, end_ms: Ints, code: Ints, by_start: Ints, by_end: Ints, rho: float
) -> Floats:
    """Return each event's sum of inverse concurrencies, in ms, walking from edge to edge."""
    n = len(start_ms)
    values, total = np.zeros(n), np.zeros(n)  # as many codes as events at most
    own, together = np.zeros(n), 0.0
    i = k = now_ms = n_codes = 0
    while k < n:
        upto = end_ms[by_end[k]]
        if i < n:
            upto = min(upto, start_ms[by_start[i]])
        for name in range(n_codes):
            if own[name] > 0:
                total[name] += (upto - now_ms) / (rho * together + (1 - rho) * own[name])
        now_ms = upto
        while i < n and start_ms[by_start[i]] == now_ms:
            name = code[by_start[i]]
            values[by_start[i]] -= total[name]
            own[name], together, n_codes = own[name] + 1, together + 1, max(n_codes, name + 1)
            i += 1
        while k < n and end_ms[by_end[k]] == now_ms:
            name = code[by_end[k]]
            values[by_end[k]] += total[name]
            own[name], together = own[name] - 1, together - 1
            k += 1
    return values


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


def block_starts(t0_ms: Ints, closed: Bools, *, recent_ms: int, per_block: int) -> Ints:
    """Return the Mondays at which a new block of candidates begins, each judged by a new model.

    Four weeks long in the last `recent_ms`, twelve before it; where the history is too short for
    eight such blocks, as many whole weeks as give eight. The first quarter of the rows is never
    judged, and a block goes on until it holds `per_block` closed trades.
    """
    if not len(t0_ms):
        return np.empty(0, np.int64)
    order = np.sort(t0_ms)
    first, last = int(order[int(_WARM_UP_FRAC * len(order))]), int(order[-1])
    n_weeks = min(_MONTH_WEEKS, max(1, (last - first) // (_MIN_BLOCKS * _WEEK_MS)))
    turn = max(first, last - recent_ms)
    old = _mondays(first, turn, n_weeks=_OLDER * n_weeks)
    starts = np.concatenate((old, _mondays(turn, last, n_weeks=n_weeks)))
    return _filled_blocks(np.unique(starts), np.sort(t0_ms[closed]), per_block=per_block)


def _mondays(start_ms: int, end_ms: int, *, n_weeks: int) -> Ints:
    """Every n-th Monday of the epoch in [start, end], in order."""
    step = n_weeks * _WEEK_MS
    first = -(-(start_ms - _MONDAY_MS) // step) * step + _MONDAY_MS
    return np.arange(first, end_ms + 1, step, dtype=np.int64)


def _filled_blocks(starts: Ints, closed_ms: Ints, *, per_block: int) -> Ints:
    """Leave out every start whose block before it would hold fewer than `per_block` trades."""
    kept: list[int] = []
    for start, n_before in zip(starts.tolist(), np.searchsorted(closed_ms, starts), strict=True):
        n_last = np.searchsorted(closed_ms, kept[-1]) if kept else None
        if n_last is None or n_before - n_last >= per_block:
            kept.append(start)
    return np.array(kept, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """Row numbers to learn from and to be judged by. All learned from matured before the cutoff."""

    cutoff_ms: int
    train: Ints
    test: Ints


def walk_forward(
    t0_ms: Ints, t1_ms: Ints, known_ms: Ints, *, starts: Ints, embargo_ms: int = EMBARGO_MS
) -> list[Fold]:
    """Return expanding folds in time order, one for each block that begins at one of `starts`.

    `known_ms` is when each row matures. A fold learns from rows that matured more than the embargo
    before its block; its `train`, or its `test`, may be empty. Without starts there are no folds.
    """
    ends = np.append(starts[1:], np.iinfo(np.int64).max)[: len(starts)]
    return [
        _fold(t0_ms, t1_ms, known_ms, start=int(start), end=int(end), embargo_ms=embargo_ms)
        for start, end in zip(starts, ends, strict=True)
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
