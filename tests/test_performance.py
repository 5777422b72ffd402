"""The judgement of trades: hand-worked figures, and laws of its sample sizes and intervals."""

from __future__ import annotations

from dataclasses import asdict, replace
from math import isnan, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.domain import Floats
from core.performance import (
    Trades,
    coverage_table,
    effective_n,
    equity_curve,
    lift,
    max_drawdown,
    mean_interval,
    metrics,
    uniqueness,
    weeks_of,
    wilson_interval,
)
from core.timeframe import DAY_MS, HOUR_MS

MONDAY_MS = 1_704_067_200_000  # 2024-01-01 00:00 UTC
WEEK_MS = 7 * DAY_MS


def rng() -> np.random.Generator:
    """The same chance for every call."""
    return np.random.default_rng(11)


def weekly(r: list[float] | Floats, per_week: int = 1, **changed: Any) -> Trades:
    """Trades an hour long, `per_week` of them in each week, a day apart, none overlapping."""
    n = len(r)
    i = np.arange(n)
    decided = MONDAY_MS + WEEK_MS * (i // per_week) + DAY_MS * (i % per_week)
    columns: dict[str, Any] = {
        "r": np.asarray(r, np.float64),
        "gross_r": np.asarray(r, np.float64) + 0.1,
        "p_mart": np.full(n, 0.4),
        "decided_ms": decided,
        "closed_ms": decided + HOUR_MS,
        "symbol": np.full(n, "BTC"),
        "ambiguous": np.zeros(n, np.bool_),
    }
    return Trades(**(columns | changed))


def test_the_figures_of_five_trades_are_those_worked_by_hand() -> None:
    """R of 2, -1, -1, 1, 0: half a dozen figures one can do on paper."""
    trades = weekly([2.0, -1.0, -1.0, 1.0, 0.0], p_mart=np.array([0.5, 0.3, np.nan, 0.4, 0.4]))
    got = metrics(trades, rng())
    assert got.n == 5
    assert got.n_eff == pytest.approx(5.0)
    assert got.win_rate == pytest.approx(0.4)
    assert got.p_mart == pytest.approx(0.4)
    assert got.win_rate_over_mart == pytest.approx(0.0)
    assert got.mean_r == pytest.approx(0.2)
    assert got.mean_gross_r == pytest.approx(0.3)
    assert got.cost_r == pytest.approx(0.1)
    assert got.mean_win_r == pytest.approx(1.5)
    assert got.mean_loss_r == pytest.approx(-2 / 3)
    assert got.profit_factor == pytest.approx(1.5)
    assert got.max_drawdown_r == pytest.approx(2.0)
    assert got.sharpe == pytest.approx(0.2 / sqrt(6.8 / 4))
    assert got.sortino == pytest.approx(0.2 / sqrt(2 / 5))
    assert got.ambiguous_share == 0.0


@pytest.mark.parametrize("n", [0, 1, 2])
def test_small_samples_give_nan_and_never_an_error(n: int) -> None:
    """What cannot be said of 0, 1 or 2 trades of one week is NaN; what can be said stands."""
    trades = weekly([1.0, 2.0], per_week=2)[:n]
    got = metrics(trades, rng())
    assert got.n == n
    assert isnan(got.mean_r_lo)
    assert isnan(got.profit_factor)
    assert isnan(got.win_rate) == (n == 0)
    assert isnan(got.win_rate_lo) == (n == 0)
    assert isnan(got.sharpe) == (n < 2)
    assert isnan(got.max_drawdown_r) == (n == 0)
    rows = coverage_table(trades, np.arange(n, dtype=np.float64), rng())
    assert [row.n for row in rows][-1] == n
    assert isnan(lift(trades, np.zeros(n, np.bool_), rng()).lift_r)
    assert len(equity_curve(trades.closed_ms, trades.r)[0]) == n


def test_columns_of_different_lengths_are_refused() -> None:
    """A short column would shift every figure."""
    with pytest.raises(ValueError, match="one length"):
        weekly([1.0, 2.0], p_mart=np.zeros(3))


def test_wilson_interval_is_that_of_the_textbook() -> None:
    """8 of 10 at 95 %: .490 to .943 by the formula on paper."""
    z, p, n = 1.959964, 0.8, 10
    centre = (p + z * z / 20) / (1 + z * z / 10)
    half = z * sqrt(p * (1 - p) / n + z * z / 400) / (1 + z * z / 10)
    assert wilson_interval(0.8, 10, level=0.95) == pytest.approx((centre - half, centre + half))
    assert wilson_interval(0.8, 10, level=0.95) == pytest.approx((0.490, 0.943), abs=5e-4)
    assert wilson_interval(0.0, 10)[0] == 0.0
    assert wilson_interval(1.0, 10)[1] == pytest.approx(1.0)


@given(st.floats(0, 1), st.floats(0.5, 1e6), st.floats(1.1, 10))
@settings(deadline=None, max_examples=60)
def test_wilson_interval_holds_the_rate_and_narrows_with_more_trials(
    rate: float, n: float, factor: float
) -> None:
    """More evidence never widens it."""
    low, high = wilson_interval(rate, n)
    assert 0 <= low <= rate + 1e-12
    assert rate - 1e-12 <= high <= 1
    low_more, high_more = wilson_interval(rate, n * factor)
    assert high_more - low_more <= high - low + 1e-12


def test_uniqueness_of_overlaps_worked_by_hand() -> None:
    """Two of one symbol half over each other: 1 alone, 1/2 together, so 3/4 each."""
    start, end = np.array([0, 50]), np.array([100, 150])
    np.testing.assert_allclose(uniqueness(start, end, np.array(["A", "A"])), [0.75, 0.75])
    # Of different symbols the shared half counts 1 / 1.6.
    want = 0.5 + 0.5 / 1.6
    np.testing.assert_allclose(uniqueness(start, end, np.array(["A", "B"])), [want, want])
    # Touching lives do not overlap.
    assert effective_n(np.array([0, 100]), np.array([100, 150]), np.array(["A", "A"])) == 2.0


def test_ten_copies_of_a_trade_are_worth_one() -> None:
    """And ten of ten symbols at once are worth 10 / 6.4."""
    start, end = np.zeros(10, np.int64), np.full(10, 1000)
    assert effective_n(start, end, np.full(10, "A")) == pytest.approx(1.0)
    assert effective_n(start, end, np.arange(10)) == pytest.approx(10 / 6.4)


def _slow_uniqueness(start: Any, end: Any, symbol: Any) -> list[float]:
    """By the definition, instant by instant."""
    out = []
    for i in range(len(start)):
        shares = []
        for t in range(start[i], end[i]):
            alive = [j for j in range(len(start)) if start[j] <= t < end[j]]
            shares.append(1 / sum(1.0 if symbol[j] == symbol[i] else 0.6 for j in alive))
        out.append(sum(shares) / len(shares))
    return out


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(1, 15), st.integers(0, 2)),
        min_size=1,
        max_size=12,
    )
)
@settings(deadline=None, max_examples=60)
def test_uniqueness_is_its_definition(rows: list[tuple[int, int, int]]) -> None:
    """The sweep over knots equals the sum over instants."""
    start = np.array([a for a, _, _ in rows])
    end = start + np.array([b for _, b, _ in rows])
    symbol = np.array([c for _, _, c in rows])
    got = uniqueness(start, end, symbol)
    np.testing.assert_allclose(got, _slow_uniqueness(start, end, symbol), rtol=1e-9)
    assert ((got > 0) & (got <= 1 + 1e-12)).all()


def test_weeks_begin_on_monday() -> None:
    """Sunday's last millisecond belongs to the week before."""
    at = np.array([MONDAY_MS - 1, MONDAY_MS, MONDAY_MS + WEEK_MS - 1, MONDAY_MS + WEEK_MS])
    assert (weeks_of(at) - weeks_of(at)[1]).tolist() == [-1, 0, 0, 1]


def test_equity_and_drawdown_worked_by_hand() -> None:
    """Ordered by close, trades of one instant as one step, the first loss counts from zero."""
    closed = np.array([30, 10, 20, 40, 20])
    r = np.array([3.0, -1.0, 2.0, -4.0, -0.5])
    ts_ms, total, under = equity_curve(closed, r)
    assert ts_ms.tolist() == [10, 20, 30, 40]
    assert total.tolist() == [-1.0, 0.5, 3.5, -0.5]
    assert under.tolist() == [-1.0, 0.0, 0.0, -4.0]
    assert max_drawdown(closed, r) == 4.0


def test_the_order_of_rows_changes_nothing() -> None:
    """Trades are a set: any permutation has the same figures, intervals included."""
    chance = np.random.default_rng(3)
    trades = weekly(np.round(chance.normal(0, 1, 60), 2), per_week=3)
    trades = replace(trades, closed_ms=trades.decided_ms + chance.integers(1, 5, 60) * DAY_MS)
    want = asdict(metrics(trades, rng()))
    got = asdict(metrics(trades[chance.permutation(60)], rng()))
    assert got == pytest.approx(want, abs=1e-9)


def test_the_interval_of_the_mean_covers_as_often_as_it_says() -> None:
    """Weeks move together (the week's luck is shared); 90 % is reached within sampling error."""
    chance, hits, n_worlds, n_weeks = np.random.default_rng(5), 0, 200, 60
    for _ in range(n_worlds):
        luck = np.repeat(chance.normal(0, 0.5, n_weeks), 4)
        trades = weekly(luck + chance.normal(0, 1, 4 * n_weeks), per_week=4)
        low, high = mean_interval(trades.r, trades.decided_ms, chance)
        hits += low <= 0 <= high
    # 3 standard errors of a rate of .9 in 200 are .064, and a bootstrap of 60 weeks lacks a point.
    assert 0.82 < hits / n_worlds < 0.97


def test_the_interval_of_the_mean_is_wider_when_weeks_move_together() -> None:
    """Four copies a week say no more than one: the interval does not shrink."""
    r = np.random.default_rng(6).normal(0, 1, 50)
    copies = weekly(np.repeat(r, 4), per_week=4)
    single, four = weekly(r), mean_interval(copies.r, copies.decided_ms, rng())
    assert mean_interval(single.r, single.decided_ms, rng()) == pytest.approx(four)


def test_the_same_chance_gives_the_same_interval() -> None:
    """A figure on a page can be worked again."""
    trades = weekly(np.random.default_rng(8).normal(0, 1, 40))
    assert metrics(trades, rng()) == metrics(trades, rng())


def test_lift_worked_by_hand() -> None:
    """Passed 2 and 1, rejected -1 and 0: 1.5 - -.5; in each week alike, so the interval is flat."""
    trades = weekly([1.5, -0.5] * 8, per_week=2)
    got = lift(trades, np.array([True, False] * 8), rng())
    assert (got.n_passed, got.n_rejected) == (8, 8)
    assert (got.lift_r, got.lift_r_lo, got.lift_r_hi) == pytest.approx((2.0, 2.0, 2.0))


def test_lift_is_paired_by_week() -> None:
    """What a week does to both sides cancels: a lift of 1 under week luck of 5 is still sharp."""
    chance = np.random.default_rng(9)
    luck = np.repeat(chance.normal(0, 5, 80), 2)
    trades = weekly(luck + np.tile([1.0, 0.0], 80) + chance.normal(0, 0.1, 160), per_week=2)
    got = lift(trades, np.tile([True, False], 80), rng())
    assert 0.9 < got.lift_r_lo < got.lift_r < got.lift_r_hi < 1.1


def test_coverage_takes_the_best_by_score() -> None:
    """Of ten trades scored 0..9, ten percent is the best one and all of them are all."""
    r = np.where(np.arange(10) >= 7, 1.0, -1.0)
    rows = coverage_table(weekly(r), np.arange(10, dtype=np.float64), rng())
    assert [row.coverage for row in rows] == [0.1, 0.2, 0.3, 0.5, 1.0]
    assert [row.n for row in rows] == [1, 2, 3, 5, 10]
    assert [row.lowest_score for row in rows] == [9.0, 8.0, 7.0, 5.0, 0.0]
    assert [row.win_rate for row in rows] == pytest.approx([1.0, 1.0, 1.0, 0.6, 0.3])
    assert [row.mean_r for row in rows] == pytest.approx([1.0, 1.0, 1.0, 0.2, -0.4])
    whole = metrics(weekly(r), rng())
    assert (rows[-1].n_eff, rows[-1].p_mart) == (whole.n_eff, whole.p_mart)
    low, high = mean_interval(weekly(r).r, weekly(r).decided_ms, rng())
    assert low <= rows[-1].mean_r <= high


def test_equal_scores_are_taken_by_decision_not_by_row() -> None:
    """A table does not depend on the order rows were read in."""
    trades = weekly([1.0, -1.0, 2.0, -2.0])
    back = trades[np.array([3, 2, 1, 0])]
    half = [coverage_table(t, np.zeros(4), rng(), coverages=(0.5,))[0] for t in (trades, back)]
    assert half[0] == half[1]
    assert half[0].mean_r == 0.0
