"""Laws of the tuner: what is certified is true, and nothing is certified of nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from core.timeframe import HOUR_MS
from core.tuning import (
    WEEK_MS,
    Target,
    Trials,
    binomial_lower,
    binomial_tail,
    certify,
    mean_above_zero,
    tune,
)

EV = Target(mode="ev", win_rate=0.5, n_min=50)
WIN = Target(mode="p", win_rate=0.6, n_min=50)


def world(rng: np.random.Generator, n: int, *, skill: float, base: float = 0.5) -> Trials:
    """Return trades every 9 h, 4 h long; a win pays 1 R; the upper half of scores has the skill."""
    score = rng.random(n)
    won = rng.random(n) < base + skill * (score > 0.5)
    t0 = np.arange(n, dtype=np.int64) * 9 * HOUR_MS
    return Trials(
        score=score,
        r=np.where(won, 1.0, -1.0),
        t0_ms=t0,
        t1_ms=t0 + 4 * HOUR_MS,
        symbol=["A"] * n,
        timeframe=["15m"] * n,
        regime=["trend/vol_low"] * n,
    )


@pytest.mark.parametrize(("n", "p"), [(1, 0.3), (7, 0.5), (40, 0.6), (300, 0.55)])
def test_binomial_tail_is_the_sum_of_its_terms(n: int, p: float) -> None:
    """Adding the terms one by one gives the same tail, at every k."""
    terms = [math.comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(n + 1)]
    for k in range(n + 2):
        assert binomial_tail(k, n=n, p=p) == pytest.approx(sum(terms[k:]), rel=1e-9, abs=1e-15)


def test_the_lower_bound_inverts_the_tail() -> None:
    """At the bound, as many wins or more have exactly the chance delta; 10 of 10: .1 ** .1."""
    bound = binomial_lower(60, n=100, delta=0.1)
    assert binomial_tail(60, n=100, p=bound) == pytest.approx(0.1, rel=1e-6)
    assert binomial_lower(10, n=10, delta=0.1) == pytest.approx(0.1**0.1, rel=1e-9)
    assert binomial_lower(0, n=10, delta=0.1) == 0.0


@pytest.mark.parametrize("target", [EV, WIN], ids=["ev", "p"])
def test_scores_without_skill_are_almost_never_certified(target: Target) -> None:
    """Of 50 worlds at the edge of the target no more than 14 % are certified."""
    base = 0.5 if target.mode == "ev" else 0.6
    n_granted = sum(
        certify(
            world(np.random.default_rng([9, i]), 400, skill=0.0, base=base),
            target,
            cell="* *",
            rng=np.random.default_rng(i),
        ).certified
        for i in range(50)
    )
    assert n_granted <= 7


@pytest.mark.parametrize("target", [EV, WIN], ids=["ev", "p"])
def test_a_planted_edge_is_found_and_honestly_told(target: Target) -> None:
    """With 75 % wins above the median score the limit lies near it and the bound below 75 %."""
    trials = world(np.random.default_rng(2), 1500, skill=0.25)
    found = certify(trials, target, cell="* *", rng=np.random.default_rng(0))
    assert found.certified
    assert found.value is not None
    assert found.n == int((trials.score >= found.value).sum())
    assert found.coverage > 0.35
    assert found.lower < found.estimate
    assert found.lower > (0.0 if target.mode == "ev" else 0.55)


def test_overlap_weakens_the_evidence() -> None:
    """The same wins, eight at a time on one symbol, no longer prove what they proved apart."""
    rng = np.random.default_rng(4)
    apart = world(rng, 400, skill=0.2)
    copies = np.repeat(np.arange(0, 400, 8), 8)
    together = Trials(
        score=apart.score,
        r=apart.r,
        t0_ms=apart.t0_ms[copies],
        t1_ms=apart.t1_ms[copies],
        symbol=apart.symbol,
        timeframe=apart.timeframe,
        regime=apart.regime,
    )
    first = certify(apart, WIN, cell="* *", rng=np.random.default_rng(1))
    second = certify(together, WIN, cell="* *", rng=np.random.default_rng(1))
    assert first.certified
    assert not second.certified
    assert second.n_eff < first.n_eff


def test_abstaining_says_the_best_that_was_seen() -> None:
    """An unreachable target names itself and the best win-rate with its n_eff."""
    target = Target(mode="p", win_rate=0.95, n_min=50)
    trials = world(np.random.default_rng(1), 300, skill=0.0)
    found = certify(trials, target, cell="* *", rng=np.random.default_rng(0))
    assert found.value is None
    assert "wanted 95.0 %, best seen" in found.reason
    few = certify(trials.of(trials.score > 0.9), target, cell="x", rng=np.random.default_rng(0))
    assert "50 are needed" in few.reason
    assert not few.certified


def test_the_mean_test_keeps_its_level_and_has_power() -> None:
    """Clustered zero means are called positive in about 10 % of worlds, real ones in most."""
    rng = np.random.default_rng(8)
    week = np.repeat(np.arange(40), 6)
    false, true = 0, 0
    for i in range(150):
        r = np.repeat(rng.normal(0, 0.6, 40), 6) + rng.normal(0, 1, 240)
        false += mean_above_zero(r, week, rng=np.random.default_rng(i)) <= 0.1
        true += mean_above_zero(r + 0.5, week, rng=np.random.default_rng(i)) <= 0.1
    assert 5 <= false <= 26
    assert true >= 140
    assert mean_above_zero(np.ones(20), np.arange(20) // 4, rng=rng) == 1.0


def test_children_are_tested_only_under_a_certified_parent() -> None:
    """A whole without proof has no children; with proof, timeframes, and pairs from n_eff 400."""
    null = world(np.random.default_rng(3), 400, skill=0.0)
    assert [f.cell for f in tune(null, EV, seed=1)] == ["* *"]
    good = world(np.random.default_rng(3), 1800, skill=0.3)
    names = np.arange(1800) % 3
    mixed = Trials(
        score=good.score,
        r=good.r,
        t0_ms=good.t0_ms,
        t1_ms=good.t1_ms,
        symbol=np.where(names == 0, "B", "A").tolist(),
        timeframe=np.where(names == 2, "1h", "15m").tolist(),
        regime=np.where(np.arange(1800) < 300, "range/vol_low", "trend/vol_low").tolist(),
    )
    found = {finding.cell: finding for finding in tune(mixed, EV, seed=1)}
    cells = {"* *", "* 15m", "* 1h", "A 15m", "B 15m", "A 1h"}
    assert set(found) == {*cells, "regime trend", "regime vol_low"}  # 300 in a range: too few
    assert found["regime trend"].delta == 0.05
    assert found["* *"].delta == 0.1
    assert found["* 15m"].delta == 0.05
    assert found["A 15m"].delta == 0.025
    assert all(finding.certified for finding in found.values())


def test_no_limit_lies_below_what_the_owner_demands() -> None:
    """Every limit tried reaches the floor; where too few trades do, that is said."""
    trials = world(np.random.default_rng(2), 900, skill=0.3)
    found = certify(trials, replace(EV, floor=0.7), cell="* *", rng=np.random.default_rng(1))
    assert found.certified
    assert found.value is not None
    assert found.value >= 0.7
    none = certify(trials, replace(EV, floor=0.99), cell="* *", rng=np.random.default_rng(1))
    assert not none.certified
    assert "reach the owner's 0.99, 50 must" in none.reason
    assert "best seen" in none.reason


def test_limits_of_too_few_weeks_do_not_stand_in_the_way() -> None:
    """High scores in the last seven weeks alone: the looser limits, of more weeks, are proven."""
    trials = world(np.random.default_rng(5), 400, skill=0.3)
    late = trials.t0_ms >= trials.t0_ms[-1] - 7 * WEEK_MS
    score = np.where(trials.score > 0.5, np.where(late, 2 + trials.score, 1 + trials.score), 0.0)
    assert (score > 2).sum() > 60
    found = certify(
        replace(trials, score=score), replace(EV, floor=1.0), cell="x", rng=np.random.default_rng(1)
    )
    assert found.certified
    assert found.coverage > 0.4
    few = trials.of(late)
    none = certify(few, EV, cell="x", rng=np.random.default_rng(1))
    assert not none.certified
    assert "weeks, 10 are needed" in none.reason


def test_tuning_twice_is_tuning_once() -> None:
    """Equal trades and seed give equal findings."""
    trials = world(np.random.default_rng(6), 700, skill=0.2)
    assert tune(trials, EV, seed=3) == tune(trials, EV, seed=3)
