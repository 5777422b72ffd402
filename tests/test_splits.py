"""Laws of the splits, against brute force."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from core.splits import Fold, kept_by_purge, n_blocks_for, n_eff, uniqueness, walk_forward

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
@given(EVENTS, st.integers(2, 6), st.integers(0, 4), st.integers(0, 15))
def test_walk_forward_folds_learn_only_from_what_was_known(
    events: list[tuple[int, int, int]], n_blocks: int, embargo: int, lag: int
) -> None:
    """Blocks are disjoint, in order, split no instant, and train only on rows matured before."""
    t0, t1, _ = arrays(events)
    known = t1 + lag
    folds = walk_forward(t0, t1, known, n_blocks=n_blocks, embargo_ms=embargo)
    assert 1 <= len(folds) <= n_blocks
    seen: list[int] = []
    for fold in folds:
        check_fold(fold, t0, t1, known, embargo)
        assert not seen or max(seen) < min(t0[fold.test])
        seen.extend(t0[fold.test].tolist())
    assert sorted(seen) == sorted(t0[t0 >= min(seen)].tolist())


def check_fold(fold: Fold, t0: np.ndarray, t1: np.ndarray, known: np.ndarray, embargo: int) -> None:
    """Compare one fold with its definition, row by row."""
    start = min(t0[fold.test])
    assert fold.cutoff_ms == start - embargo
    wanted = [i for i in range(len(t0)) if known[i] < fold.cutoff_ms and t1[i] < start]
    assert fold.train.tolist() == wanted


def test_blocks_follow_the_amount_of_data() -> None:
    """Two blocks at least, eight at most, one for each `per_block` closed trades between."""
    assert [n_blocks_for(n, per_block=50) for n in (10, 260, 5000)] == [2, 5, 8]
