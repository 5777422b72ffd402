"""The drawing of weeks: runs without loss, worked by hand, and Student's t against scipy."""

from __future__ import annotations

from math import inf, isinf, isnan, nan

import numpy as np
import pytest
from scipy import stats

from core import bootstrap
from core.bootstrap import MIN_RUNS, N_RESAMPLES, interval, orders, redrawn, t_quantile, weeks
from core.timeframe import DAY_MS

MONDAY_MS = 1_704_067_200_000  # 2024-01-01 00:00 UTC
WEEK_MS = 7 * DAY_MS


def test_weeks_begin_on_monday() -> None:
    """Sunday's last millisecond belongs to the week before."""
    at = np.array([MONDAY_MS - 1, MONDAY_MS, MONDAY_MS + WEEK_MS - 1, MONDAY_MS + WEEK_MS])
    found = bootstrap.weeks_of(at)
    assert (found - found[1]).tolist() == [-1, 0, 0, 1]


def test_weeks_without_a_row_are_no_weeks() -> None:
    """Rows of weeks 0, 0, 9 and 4, in any order: three weeks, counted in time order."""
    at = MONDAY_MS + WEEK_MS * np.array([9, 0, 4, 0])
    found = weeks(at)
    assert (found.codes.tolist(), found.n) == ([2, 0, 1, 0], 3)
    assert found.sums(np.array([1.0, 2.0, 4.0, 8.0])).tolist() == [10.0, 4.0, 1.0]
    assert weeks(at[:0]).n == 0


@pytest.mark.parametrize(
    ("n_weeks", "life_days", "run"),
    [(4, 20, 1), (12, 0, 3), (12, 20, 3), (52, 1, 4), (52, 20, 4), (52, 40, 7), (260, 20, 7)],
)
def test_a_run_outlasts_a_trade_and_leaves_enough_of_them(
    n_weeks: int, life_days: int, run: int
) -> None:
    """The longest life and a week, or the cube root; never fewer than MIN_RUNS runs."""
    found = weeks(MONDAY_MS + WEEK_MS * np.arange(n_weeks), longest_ms=life_days * DAY_MS)
    assert found.run == run
    assert found.n_runs >= MIN_RUNS


def test_a_resample_holds_whole_runs() -> None:
    """Weeks are powers of two, so that a total tells which were drawn: always neighbours."""
    n = 12
    found = weeks(MONDAY_MS + WEEK_MS * np.arange(n))
    assert found.run == 3
    weekly = np.column_stack((np.ones(n), 100.0 ** (np.arange(n) % 3)))
    totals = redrawn(weekly, found, np.random.default_rng(1))
    assert totals.shape == (N_RESAMPLES, 2)
    assert np.unique(totals[:, 0]).tolist() == [12.0]
    # any three neighbours hold one week of each remainder
    assert np.unique(totals[:, 1]).tolist() == [4 * 10_101.0]
    order = orders(found, np.random.default_rng(1))
    assert order.shape == (N_RESAMPLES, n)
    steps = np.diff(order.reshape(N_RESAMPLES, 4, 3), axis=2) % n
    assert np.unique(steps).tolist() == [1]
    assert np.unique(order).tolist() == list(range(n))


def test_an_interval_needs_runs_and_figures() -> None:
    """Three weeks have none, nor has a figure that mostly does not exist; infinite ends stay."""
    figures = np.arange(N_RESAMPLES, dtype=np.float64)
    few, many = (weeks(MONDAY_MS + WEEK_MS * np.arange(n)) for n in (3, 60))
    assert all(map(isnan, interval(figures, few)))
    assert all(map(isnan, interval(np.where(figures > 900, nan, figures), many)))
    low, high = interval(np.where(figures > 1800, inf, figures), many)
    assert 0 < low < 100
    assert isinf(high)


def test_few_runs_reach_further_out() -> None:
    """The tails left out shrink from 5 % as runs grow few."""
    figures = np.arange(N_RESAMPLES, dtype=np.float64)
    lows = [interval(figures, weeks(MONDAY_MS + WEEK_MS * np.arange(n)))[0] for n in (9, 60, 3000)]
    assert lows[0] < lows[1] < lows[2] == pytest.approx(0.05 * N_RESAMPLES, abs=3)


@pytest.mark.parametrize("df", [3, 4.5, 8, 30, 400])
def test_t_quantiles_are_those_of_scipy(df: float) -> None:
    """Within 1 % from 3 degrees of freedom on, the fewest an interval can have."""
    for p in (0.9, 0.95, 0.975):
        assert t_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=0.01)
