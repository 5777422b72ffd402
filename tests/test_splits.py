"""Laws of the splits, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.splits import Fold, block_starts, kept_by_purge, n_eff, uniqueness, walk_forward
from core.timeframe import DAY_MS

MONDAY_MS = 1_704_067_200_000  # 2024-01-01 00:00 UTC

EVENTS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 12), st.integers(0, 3)), min_size=1, max_size=25
)


def arrays(events: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return t0, t1 and symbol of (t0, length, symbol) rows."""
    t0, length, symbol = (np.array(column, np.int64) for column in zip(*events, strict=True))
    return t0, t0 + length, symbol


@settings(deadline=None, max_examples=150)
@given(EVENTS, st.sampled_from([0.0, 0.6, 1.0]))
def test_uniqueness_is_the_mean_inverse_concurrency(
    events: list[tuple[int, int, int]], rho: float
) -> None:
    """Counting every ms of every event by hand gives the same uniqueness."""
    t0, t1, symbol = arrays(events)
    wanted = []
    for i in range(len(t0)):
        inverse = []
        for t in range(t0[i], t1[i] + 1):
            alive = [j for j in range(len(t0)) if t0[j] <= t <= t1[j]]
            inverse.append(1 / sum(1.0 if symbol[j] == symbol[i] else rho for j in alive))
        wanted.append(sum(inverse) / len(inverse))
    np.testing.assert_allclose(uniqueness(t0, t1, symbol, rho=rho), wanted, rtol=1e-9)


def test_n_eff_of_copies_and_of_strangers() -> None:
    """Copies on one symbol are one event; on two symbols at rho .6 they are 1.25; apart, two."""
    t0, t1 = np.array([5, 5]), np.array([9, 9])
    assert n_eff(t0, t1, np.array([0, 0])) == 1.0
    assert abs(n_eff(t0, t1, np.array([0, 1])) - 2 / 1.6) < 1e-12
    assert n_eff(np.array([5, 10]), np.array([9, 14]), np.array([0, 0])) == 2.0
    assert n_eff(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64)) == 0.0


@settings(deadline=None, max_examples=300)
@given(EVENTS, EVENTS, st.integers(0, 5))
def test_purge_drops_what_meets_the_test_span_and_nothing_else(
    train: list[tuple[int, int, int]], test: list[tuple[int, int, int]], embargo: int
) -> None:
    """A row stays exactly if none of its ms lies in the closed test span with its embargo."""
    t0, t1, _ = arrays(train)
    s0, s1, _ = arrays(test)
    span = set(range(min(s0), max(s1) + embargo + 1))
    wanted = [not span.intersection(range(a, b + 1)) for a, b in zip(t0, t1, strict=True)]
    kept = kept_by_purge(t0, t1, test_t0_ms=s0, test_t1_ms=s1, embargo_ms=embargo)
    assert kept.tolist() == wanted


@settings(deadline=None, max_examples=200)
@given(
    EVENTS,
    st.sets(st.integers(0, 40), min_size=1, max_size=6),
    st.integers(0, 4),
    st.integers(0, 15),
)
def test_walk_forward_folds_learn_only_from_what_was_known(
    events: list[tuple[int, int, int]], instants: set[int], embargo: int, lag: int
) -> None:
    """Blocks are disjoint, in order, split no instant, and train only on rows matured before."""
    t0, t1, _ = arrays(events)
    known, starts = t1 + lag, np.array(sorted(instants), np.int64)
    folds = walk_forward(t0, t1, known, starts=starts, embargo_ms=embargo)
    assert len(folds) == len(starts)
    seen: list[int] = []
    for start, fold in zip(starts.tolist(), folds, strict=True):
        check_fold(fold, start, (t0, t1, known), embargo)
        seen.extend(t0[fold.test].tolist())
    assert sorted(seen) == sorted(t0[t0 >= starts[0]].tolist())


def check_fold(
    fold: Fold, start: int, columns: tuple[np.ndarray, np.ndarray, np.ndarray], embargo: int
) -> None:
    """Compare one fold with its definition, row by row."""
    t0, t1, known = columns
    assert fold.cutoff_ms == start - embargo
    assert (t0[fold.test] >= start).all()
    if not len(fold.test):
        return
    wanted = [i for i in range(len(t0)) if known[i] < fold.cutoff_ms and t1[i] < start]
    assert fold.train.tolist() == wanted


@pytest.mark.parametrize(
    ("n_days", "recent_weeks", "older_weeks"), [(1826, 4, 12), (400, 4, 12), (150, 2, 6)]
)
def test_blocks_are_whole_weeks_shorter_where_it_is_recent(
    n_days: int, recent_weeks: int, older_weeks: int
) -> None:
    """Every block begins on a Monday, after the first quarter; four weeks in the recent year."""
    t0 = MONDAY_MS + np.arange(0, n_days * DAY_MS, DAY_MS // 4, dtype=np.int64)
    recent_ms = min(365, n_days // 2) * DAY_MS
    starts = block_starts(t0, np.ones(len(t0), bool), recent_ms=recent_ms, per_block=1)
    assert len(starts) >= 6
    assert ((starts - MONDAY_MS) % (7 * DAY_MS) == 0).all()
    assert starts[0] >= t0[len(t0) // 4]
    turn = t0[-1] - recent_ms
    recent = np.diff(starts[starts >= turn]) // (7 * DAY_MS)
    assert set(recent.tolist()) == {recent_weeks}
    older = np.diff(starts[starts < turn]) // (7 * DAY_MS)
    assert set(older.tolist()) <= {older_weeks}


def test_a_block_goes_on_until_it_holds_enough_closed_trades() -> None:
    """All blocks but the last hold `per_block` closed trades; without rows there are none."""
    rng = np.random.default_rng(1)
    t0 = MONDAY_MS + np.sort(rng.integers(0, 700 * DAY_MS, 900))
    closed = rng.random(900) < 0.5
    starts = block_starts(t0, closed, recent_ms=365 * DAY_MS, per_block=40)
    counts = np.diff(np.searchsorted(t0[closed], starts))
    assert len(counts) >= 5
    assert counts.min() >= 40
    assert not len(block_starts(t0[:0], closed[:0], recent_ms=1, per_block=1))


def test_without_a_monday_there_are_no_folds() -> None:
    """Candidates of a few days give no block, and no folds; not an error."""
    t0 = MONDAY_MS + DAY_MS + np.arange(60, dtype=np.int64) * 3_600_000
    starts = block_starts(t0, np.ones(60, bool), recent_ms=DAY_MS, per_block=1)
    assert not len(starts)
    assert walk_forward(t0, t0 + 1, t0 + 2, starts=starts) == []
