"""The judgement of trades: hand-worked figures, and laws of its sample sizes and intervals."""

from __future__ import annotations

from dataclasses import asdict, replace
from math import isnan, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import digamma

from core.domain import Floats
from core.performance import (
    Metrics,
    Trades,
    coverage_table,
    deflated_sharpe,
    effective_n,
    expected_best,
    lift,
    mean_interval,
    metrics,
    uniqueness,
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
    # of the four whose flip is known two won: 1/2 - .4
    assert got.win_rate_over_mart == pytest.approx(0.1)
    assert got.mean_r == pytest.approx(0.2)
    assert got.mean_gross_r == pytest.approx(0.3)
    assert got.cost_r == pytest.approx(0.1)
    assert got.mean_win_r == pytest.approx(1.5)
    assert got.mean_loss_r == pytest.approx(-2 / 3)
    assert got.profit_factor == pytest.approx(1.5)
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
    rows = coverage_table(trades, np.arange(n, dtype=np.float64), rng())
    assert [row.n for row in rows][-1] == n
    assert isnan(lift(trades, np.zeros(n, np.bool_), rng()).lift_r)


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


def test_the_order_of_rows_changes_nothing() -> None:
    """Trades are a set: any permutation has the same figures, intervals included."""
    chance = np.random.default_rng(3)
    trades = weekly(np.round(chance.normal(0, 1, 60), 2), per_week=3)
    trades = replace(trades, closed_ms=trades.decided_ms + chance.integers(1, 5, 60) * DAY_MS)
    want = asdict(metrics(trades, rng()))
    got = asdict(metrics(trades[chance.permutation(60)], rng()))
    assert got == pytest.approx(want, abs=1e-9)


def _world(kind: str, n_weeks: int, chance: np.random.Generator) -> Trades:
    """Trades of true mean 0 and true win-rate .4, four a week; `kind` is how their luck is shared.

    clusters: the trades of a week are copies; three_weeks: each win is decided by a luck that
    moves over three weeks, as of trades that are open so long.
    """
    n = 4 * n_weeks
    if kind == "alone":
        luck = chance.normal(0, 1, n)
    elif kind == "clusters":
        luck = np.repeat(chance.normal(0, 1, n_weeks), 4)
    else:
        steps = chance.normal(0, sqrt(0.5 / 3), n_weeks + 2)
        shared = np.convolve(steps, np.ones(3), "valid")
        luck = np.repeat(shared, 4) + chance.normal(0, sqrt(0.5), n)
    won = luck > NormalDist().inv_cdf(0.6)
    life = {"alone": HOUR_MS, "clusters": 6 * DAY_MS, "three_weeks": 20 * DAY_MS}[kind]
    decided = MONDAY_MS + WEEK_MS * (np.arange(n) // 4)
    decided += 0 if kind == "clusters" else DAY_MS * (np.arange(n) % 4)
    r = np.where(won, 1.5, -1.0)
    return weekly(r, per_week=4, decided_ms=decided, closed_ms=decided + life)


@pytest.mark.parametrize("kind", ["alone", "clusters", "three_weeks"])
@pytest.mark.parametrize("n_weeks", [13, 52])
def test_intervals_cover_as_often_as_they_say(kind: str, n_weeks: int) -> None:
    """90 % intervals of books with a known mean, over 300 books a case, whatever is shared.

    Drawing single weeks as they are holds the mean of `three_weeks` in 68 and 76 % of the books.
    """
    chance, n_worlds = np.random.default_rng(5), 300
    hits = {"mean_r": 0, "win_rate": 0, "win_rate_over_mart": 0}
    truth = {"mean_r": 0.0, "win_rate": 0.4, "win_rate_over_mart": 0.0}
    for _ in range(n_worlds):
        got = metrics(_world(kind, n_weeks, chance), chance)
        for name in hits:
            low, high = getattr(got, f"{name}_lo"), getattr(got, f"{name}_hi")
            hits[name] += low <= truth[name] <= high
    # 3 standard errors of a rate of .9 in 300 are .052; dependence over weeks costs some points.
    floor = 0.82 if kind == "three_weeks" else 0.85
    shares = {name: hit / n_worlds for name, hit in hits.items()}
    assert min(shares.values()) > floor, shares


def test_every_figure_with_an_interval_lies_in_it() -> None:
    """Of 80 trades over 40 weeks each interval exists, is ordered and holds its figure."""
    chance = np.random.default_rng(4)
    trades = weekly(np.where(chance.random(80) < 0.4, 1.5, -1.0), per_week=2)
    got = asdict(metrics(trades, rng()))
    names = [name[:-3] for name in Metrics.__dataclass_fields__ if name.endswith("_lo")]
    assert len(names) == 11
    for name in names:
        assert got[f"{name}_lo"] <= got[name] <= got[f"{name}_hi"], name


def test_weeks_that_agree_by_chance_do_not_narrow_an_interval() -> None:
    """Five weeks of the same mean: the interval is that of 40 independent trades, not a point."""
    trades = weekly([1.0, -1.0] * 20, per_week=2)
    trades = replace(trades, decided_ms=MONDAY_MS + WEEK_MS * (np.arange(40) // 8))
    half = 1.644854 * trades.r.std(ddof=1) / sqrt(40)
    got = metrics(replace(trades, closed_ms=trades.decided_ms + HOUR_MS), rng())
    assert (got.mean_r_lo, got.mean_r_hi) == pytest.approx((-half, half))
    assert mean_interval(trades.r, trades.decided_ms, rng()) == pytest.approx((-half, half))
    assert all(map(isnan, mean_interval(trades.r[:24], trades.decided_ms[:24], rng())))


def test_figures_that_are_sums_follow_the_ledger() -> None:
    """Gross less costs is net, wins and losses make the mean, the win-rate is over the flip's."""
    chance = np.random.default_rng(12)
    r = chance.normal(0, 1, 90)
    trades = weekly(r, gross_r=r + chance.random(90), p_mart=chance.random(90), per_week=3)
    got = metrics(trades, rng())
    assert got.mean_gross_r - got.cost_r == pytest.approx(got.mean_r)
    won = got.win_rate * got.mean_win_r
    assert won + (1 - got.win_rate) * got.mean_loss_r == pytest.approx(got.mean_r)
    assert won / ((got.win_rate - 1) * got.mean_loss_r) == pytest.approx(got.profit_factor)
    assert got.win_rate_over_mart == pytest.approx(got.win_rate - got.p_mart)


def test_a_book_and_its_mirror() -> None:
    """What one side wins the other loses: means change sign, the profit factor turns over."""
    r = np.random.default_rng(14).normal(0.1, 1, 120)
    one = metrics(weekly(r, gross_r=r, per_week=3), rng())
    other = metrics(weekly(-r, gross_r=-r, per_week=3), rng())
    assert other.mean_r == pytest.approx(-one.mean_r)
    assert (other.mean_r_lo, other.mean_r_hi) == pytest.approx((-one.mean_r_hi, -one.mean_r_lo))
    assert other.sharpe == pytest.approx(-one.sharpe)
    assert other.profit_factor == pytest.approx(1 / one.profit_factor)
    assert other.mean_win_r == pytest.approx(-one.mean_loss_r)


def test_the_deflated_sharpe_is_its_formula() -> None:
    """Against scipy's moments and normal, with the trials' spread that of a Sharpe of 0."""
    r = np.random.default_rng(15).gamma(2.0, 1.0, 300) - 1.9
    n, trials, sharpe = 120.0, 12, r.mean() / r.std(ddof=1)
    normal, gamma = stats.norm, -digamma(1)
    best = (1 - gamma) * normal.ppf(1 - 1 / trials) + gamma * normal.ppf(1 - 1 / (trials * np.e))
    skew, kurtosis = stats.skew(r), stats.kurtosis(r, fisher=False)
    error = sqrt(1 - skew * sharpe + (kurtosis - 1) / 4 * sharpe**2)
    want = normal.cdf((sharpe - best / sqrt(n - 1)) * sqrt(n - 1) / error)
    assert deflated_sharpe(r, n, trials) == pytest.approx(want)
    assert deflated_sharpe(r, n, 1) > deflated_sharpe(r, n, 2) > deflated_sharpe(r, n, 50)
    assert isnan(deflated_sharpe(np.ones(50), 50.0, 1))
    assert isnan(deflated_sharpe(np.empty(0), 0.0, 1))


def test_the_best_of_many_without_skill_is_seldom_believed() -> None:
    """Of 400 searches among 20 books of luck about 5 % end above .95; undeflated it is over half.

    The expected best of 20 draws is that of 200 000 such draws, within 2 %.
    """
    chance, n, n_books, n_worlds = np.random.default_rng(16), 150, 20, 400
    believed = {n_books: 0, 1: 0}
    for _ in range(n_worlds):
        books = np.where(chance.random((n_books, n)) < 0.4, 1.5, -1.0)
        best = books[int(np.argmax(books.mean(axis=1) / books.std(axis=1)))]
        for n_trials in believed:
            believed[n_trials] += deflated_sharpe(best, n, n_trials) > 0.95
    assert believed[n_books] / n_worlds < 0.08
    assert believed[1] / n_worlds > 0.5
    drawn = chance.normal(size=(10_000, n_books)).max(axis=1).mean()
    assert expected_best(n_books) == pytest.approx(drawn, rel=0.02)
    assert expected_best(0) == expected_best(1) == 0.0


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
