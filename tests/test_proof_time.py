"""Laws of the estimate of the weeks until the passed trades prove or refute that they earn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from core.domain import Floats
from core.proof_time import ProofTime, proof_time, sentence
from core.timeframe import DAY_MS, HOUR_MS

MONDAY_MS = 4 * DAY_MS  # 1970-01-05
WEEK_MS = 7 * DAY_MS


def found(weekly: Floats | list[float], *, n_weeks: int | None = None) -> ProofTime | None:
    """The estimate for one trade on each Wednesday; NaN: a week without one."""
    r = np.asarray(weekly, np.float64)
    there = np.flatnonzero(np.isfinite(r))
    decided = MONDAY_MS + WEEK_MS * there + 2 * DAY_MS
    until_ms = MONDAY_MS + WEEK_MS * (n_weeks or len(r))
    symbol = np.zeros(len(there), np.int64)
    return proof_time(r[there], decided, decided + HOUR_MS, symbol, until_ms=until_ms)


def test_the_estimate_is_as_worked_by_hand() -> None:
    """Sixteen weeks, one trade each, of mean .1 R and half a week's spread either side.

    Eight of .6 and eight of -.4: deviations .5, error sqrt(16 / 15 * 16 * .25) / 16 = .129099.
    The one-sided 90 % bound needs .16544, so no proof; the factor 2.12316 wants the error at
    .0471: 16 * (2.12316 * 1.29099) ** 2 = 120.21 weeks in all.
    """
    est = found([0.6, -0.4] * 8)
    assert est is not None
    assert (est.n, est.n_weeks, est.n_eff) == pytest.approx((16, 16, 16.0))
    assert (est.mean_r, est.error_r) == pytest.approx((0.1, 0.129099), abs=1e-6)
    assert est.weeks_more == pytest.approx(104.21, abs=0.05)
    assert 0 < est.weeks_more_lo < est.weeks_more < est.weeks_more_hi


def test_losses_wait_for_their_refutation_as_gains_for_their_proof() -> None:
    """Mirror: with every result turned the weeks are the same, and the word is the other."""
    rng = np.random.default_rng(1)
    for _ in range(30):
        r = rng.normal(0.1, 1, 40)
        one, other = found(r), found(-r)
        assert one is not None
        assert other is not None
        assert other.mean_r == pytest.approx(-one.mean_r)
        for name in ("weeks_more", "weeks_more_lo", "weeks_more_hi", "error_r"):
            assert getattr(other, name) == pytest.approx(getattr(one, name))
        words = {sentence(each).split()[0].rstrip(":") for each in (one, other)}
        assert words in ({"Proof", "Refutation"}, {"No"})


def test_the_weeks_estimated_give_the_power_they_promise() -> None:
    """After so many weeks in all the one-sided 90 % bound lies above 0 in 80 % of all futures."""
    rng = np.random.default_rng(2)
    r = rng.normal(0.0, 1.0, 52)
    r += 0.15 - r.mean()
    est = found(r)
    assert est is not None
    n = 52 + round(est.weeks_more)
    futures = rng.normal(0.15, float(r.std(ddof=1)), (4000, n))
    bound = futures.mean(axis=1) - 1.2816 * futures.std(axis=1, ddof=1) / n**0.5
    assert (bound > 0).mean() == pytest.approx(0.8, abs=0.03)


def test_trades_of_a_week_count_as_they_go_together() -> None:
    """Every trade three times over tells no more than once: the same error and the same weeks."""
    rng = np.random.default_rng(3)
    r = rng.normal(0.05, 1, 30)
    decided = MONDAY_MS + WEEK_MS * np.arange(30) + 2 * DAY_MS
    rows, symbol = np.repeat(np.arange(30), 3), np.tile(np.arange(3), 30)
    until_ms = MONDAY_MS + 30 * WEEK_MS
    one = found(r)
    thrice = proof_time(r[rows], decided[rows], decided[rows] + HOUR_MS, symbol, until_ms=until_ms)
    assert one is not None
    assert thrice is not None
    assert thrice.n == 90
    assert (thrice.error_r, thrice.weeks_more) == pytest.approx((one.error_r, one.weeks_more))


def test_empty_weeks_are_part_of_the_pace_and_the_present_week_is_not() -> None:
    """A week without a trade counts as a week; what was decided since Monday waits."""
    est = found([0.6, math.nan, -0.4, 0.1] * 5)
    assert est is not None
    assert (est.n, est.n_weeks) == (15, 20)
    quiet = found([0.6, -0.4, 0.1] * 5, n_weeks=30)
    assert quiet is not None
    assert (quiet.n, quiet.n_weeks) == (15, 30)
    r = np.array([0.6, -0.4] * 6)
    short = found(r, n_weeks=11)
    assert short is not None
    assert (short.n, short.n_weeks) == (11, 11)


@pytest.mark.parametrize("n", [0, 1, 9])
def test_too_few_weeks_give_no_estimate(n: int) -> None:
    """Nine weeks are not ten."""
    assert found([0.5] * n, n_weeks=n or 20) is None
    assert sentence(None).startswith("Too early to say")
    assert found([0.5, 0.2] * 5) is not None


def test_the_sentence_says_what_is_known_and_what_may_never_be() -> None:
    """Proven, open and hopeless, each with its figures."""
    proven = found([0.5, 0.2] * 10)
    assert sentence(proven) == (
        "Proof: the one-sided 90 % bound lies above 0, net +0.350 R a trade, standard error 0.034,"
        " n 20, n_eff 20, 20 weeks."
    )
    # the better quartile .18708 R wants 34.3 weeks in all, the worse .0129 R more than a century
    assert sentence(found([0.6, -0.4] * 8)) == (
        "Proof in about 2 years (even odds: 19 weeks to never) if the mean is as seen: net +0.100 R"
        " a trade, standard error 0.129, n 16, n_eff 16, 16 weeks."
    )
    hopeless = found([1.0, -1.0] * 8)
    assert hopeless is not None
    assert math.isinf(hopeless.weeks_more_hi)
    assert sentence(hopeless).startswith("No proof either way in sight, the mean is too close")
