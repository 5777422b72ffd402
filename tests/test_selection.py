"""Laws of choosing: shares are cut before fills are known, and beside controls of equal size."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import selection
from core.domain import Floats
from core.gate_lift import gate_lift
from core.selection import Candidates
from core.timeframe import DAY_MS, HOUR_MS

RANKED = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 2), st.booleans()), min_size=1, max_size=40
)


def columns(rows: list[tuple[int, int, bool]]) -> tuple[Floats, np.ndarray, np.ndarray]:
    """Return rank, block and chosen of drawn rows."""
    rank, block, chosen = zip(*rows, strict=True)
    return np.array(rank, np.float64), np.array(block, np.int64), np.array(chosen, bool)


def drawn(n: int, seed: int, *, p_mart: float = 0.4, cost_r: float = 0.1) -> Candidates:
    """Candidates that win as a coin flip does, ten a day; a fifth never fills."""
    rng = np.random.default_rng(seed)
    closed, won = rng.random(n) < 0.8, rng.random(n) < p_mart
    gross = np.where(won, 1 / p_mart - 1, -1.0)
    t0 = np.arange(n, dtype=np.int64) * (DAY_MS // 10)
    return Candidates(
        symbol=rng.integers(0, 3, n),
        block=t0 // (30 * DAY_MS),
        decided_ms=t0,
        ended_ms=t0 + 5 * HOUR_MS,
        closed=closed,
        r=np.where(closed, gross - cost_r, np.nan),
        gross_r=np.where(closed, gross, np.nan),
        p_mart=np.full(n, p_mart),
        cost_r=rng.uniform(0.5, 1.5, n) * cost_r,
    )


@settings(max_examples=200)
@given(RANKED, st.sampled_from([0.1, 0.3, 0.5, 1.0]))
def test_a_share_is_the_best_of_each_block(rows: list[tuple[int, int, bool]], share: float) -> None:
    """Of each block the share rounded up; nobody left out ranks above anybody taken."""
    rank, block, _ = columns(rows)
    chosen = selection.best_share(rank, block, share)
    for name in np.unique(block):
        mine = block == name
        assert chosen[mine].sum() == math.ceil(round(share * mine.sum(), 9))
        left = rank[mine & ~chosen]
        assert not len(left) or left.max() <= rank[mine & chosen].min()
        equals = mine & (rank == rank[mine & chosen].min())
        taken = np.flatnonzero(chosen[equals])
        assert taken.tolist() == list(range(len(taken)))  # the earlier of equals


@settings(max_examples=200)
@given(RANKED)
def test_controls_take_as_many_of_each_block(rows: list[tuple[int, int, bool]]) -> None:
    """However candidates rank, a control takes of each block what the chosen took."""
    rank, block, chosen = columns(rows)
    control = selection.as_many(rank, block, chosen)
    assert np.bincount(block, control).tolist() == np.bincount(block, chosen).tolist()


def test_a_share_is_cut_before_fills_are_looked_at() -> None:
    """Where the best never fill, the best tenth holds no trade: nobody moves up for them."""
    made = drawn(1000, 1)
    rank = np.arange(1000, dtype=np.float64)
    best = selection.best_share(rank, made.block, 0.1)
    unlucky = replace(made, closed=made.closed & ~best)
    found = selection.worth(unlucky, best, n_trials=1)
    assert (found.n_candidates, found.fill_rate, found.metrics.n) == (best.sum(), 0.0, 0)
    lucky = selection.worth(made, best, n_trials=1)
    assert lucky.n_candidates == found.n_candidates
    assert 0.6 < lucky.fill_rate < 1


def test_taking_all_at_random_is_taking_all() -> None:
    """Every draw of the whole is the whole; draws of a part lie about its mean."""
    made = drawn(800, 2)
    mean = made.r[made.closed].mean()
    assert selection.random_pick(made, np.ones(800, bool)).net_r == pytest.approx([mean] * 3)
    part = selection.random_pick(made, selection.best_share(made.cost_r, made.block, 0.3))
    assert part.net_r.low < mean < part.net_r.high
    assert part.net_r.value == pytest.approx(mean, abs=0.02)


def test_auc_is_the_share_of_pairs_in_order() -> None:
    """Counting every pair of a win and a loss, ties as half, gives the same."""
    rng = np.random.default_rng(3)
    score, won = rng.integers(0, 8, 90).astype(np.float64), rng.random(90) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in score[won] for b in score[~won]]
    assert selection.auc(score, won) == pytest.approx(np.mean(pairs))
    other = rng.random(90)
    apart = selection.auc_over(score, other, won, np.arange(90) * DAY_MS)
    assert apart.value == pytest.approx(selection.auc(score, won) - selection.auc(other, won))
    assert apart.low < apart.value < apart.high
    assert math.isnan(selection.auc(score, np.ones(90, bool)))


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Of 90 % intervals of two scores without skill and of a known slope, few miss."""
    rng, held = np.random.default_rng(4), np.zeros(2)
    t0 = np.arange(400, dtype=np.int64) * DAY_MS
    for _ in range(60):
        won, score, other = rng.random(400) < 0.4, rng.random(400), rng.random(400)
        apart = selection.auc_over(score, other, won, t0)
        x = rng.normal(size=400)
        line = selection.slope_of(x, 0.5 * x + rng.normal(size=400), np.ones(400), t0)
        held += [apart.low <= 0 <= apart.high, line.low <= 0.5 <= line.high]
    assert (held >= 47).all()  # 54 expected; under .90 fewer than 47 has a chance of .002
    assert held.sum() < 120


def test_a_slope_is_that_of_least_squares() -> None:
    """Against numpy's fit; weights count as repeated rows do."""
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(2, 50))
    times = rng.integers(1, 4, 50)
    found = selection.slope_of(x, y, times.astype(np.float64), np.arange(50) * DAY_MS)
    assert found.value == pytest.approx(np.polyfit(np.repeat(x, times), np.repeat(y, times), 1)[0])


def test_lifts_are_worked_by_hand() -> None:
    """Passed +2 and -1, rejected -1: +1.5 R; half a win more; the interval needs weeks."""
    made = drawn(3, 6)
    made = replace(
        made,
        closed=np.ones(3, bool),
        r=np.array([2.0, -1.0, -1.0]),
        p_mart=np.array([0.3, 0.5, 0.4]),
    )
    passed = np.array([True, True, False])
    found = selection.lifts(made, passed, ~passed)
    assert found.net_r.value == pytest.approx(1.5)
    assert found.win_rate.value == pytest.approx(0.5)
    assert found.over_mart.value == pytest.approx(0.1 - -0.4)
    assert math.isnan(found.net_r.low)
    assert found.net_r.text() == "+1.500"


def test_a_gate_that_knows_is_told_from_one_that_only_saves_costs() -> None:
    """Skill is above 0 beside the rejected and beside the cheapest; a gate on cost is not."""
    made, rng = drawn(3000, 7), np.random.default_rng(7)
    affordable = np.ones(3000, bool)
    knows = np.where(made.closed, made.r > 0, False) & (rng.random(3000) < 0.4)
    skilled = gate_lift(made, knows | (rng.random(3000) < 0.2), affordable)
    assert skilled.lift.net_r.low > 0
    assert "earns its keep" in skilled.sentence
    assert skilled.cheapest_lift.net_r.low < 0 < skilled.cheapest_lift.net_r.high
    assert skilled.random.net_r.high < skilled.passed.metrics.mean_r
    cheap = selection.best_share(-made.cost_r, made.block, 0.3)
    blind = gate_lift(made, cheap, affordable)
    assert blind.lift == blind.cheapest_lift
    assert blind.coverage == pytest.approx(0.3, abs=0.01)
    nobody = gate_lift(made, np.zeros(3000, bool), affordable)
    assert "passed no trade" in nobody.sentence
