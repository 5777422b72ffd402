"""Laws of the gate: expected value, which limit decides, and the verdict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config import Config, config_from
from core.costs import CostRates
from core.domain import Evidence, Gate, Score
from core.expected_value import (
    Payoff,
    Prospect,
    expected_value,
    extra_costs_r,
    fit_payoff,
    p_low,
    shrunk,
)
from core.gating import Certificate, Facts, limit_of, verdict

FACTS = Facts(symbol="A/USDT", timeframe="15m", regime="trend/vol_high", cost_r=0.05)


def gating(**keys: Any) -> Config:
    """Return settings with these gating keys."""
    return config_from({"models": {"meta": {"gating": keys}}})


def score(ev_lo_pct: float = 0.1, p: float = 0.6) -> Score:
    """Return what a model might say."""
    return Score(
        p_raw=p,
        p=p,
        p_lo=p,
        p_hi=p,
        ev_pct=0.2,
        ev_lo_pct=ev_lo_pct,
        ev_r=0.2,
        ev_lo_r=0.1,
        model="b1",
    )


def payoff(**changes: float) -> Payoff:
    """Return payoffs whose arithmetic is easy by hand."""
    values = {
        "win_frac": 0.5,
        "win_shift": 0.5,
        "win_slope": 0.0,
        "reward_mean": 2.0,
        "reward_sd": 0.5,
        "loss_r": 1.0,
        "win_cost": 1.0,
        "loss_cost": 1.0,
        "slope": 1.0,
    }
    return Payoff(**{**values, **changes})


def one(entry: float = 100, stop: float = 98, tp1: float = 104, cost_r: float = 0.1) -> Prospect:
    """Return a single plan."""
    values = {"entry": entry, "stop": stop, "tp1": tp1, "cost_r": cost_r}
    zero = np.zeros(1)
    return Prospect(
        **{name: np.array([float(v)]) for name, v in values.items()},
        extra_win_r=zero,
        extra_loss_r=zero,
    )


def test_expected_value_by_hand() -> None:
    """Of p .5, win .5*2+.5-.1 = 1.4 R, loss 1.1 R: .15 R; at 2 % risk that is .3 % of notional."""
    values = expected_value(np.array([0.5]), np.array([0.4]), prospect=one(), payoff=payoff())
    assert values.ev_r[0] == pytest.approx(0.15)
    assert values.ev_lo_r[0] == pytest.approx(0.4 * 1.4 - 0.6 * 1.1)
    assert values.ev_pct[0] == pytest.approx(0.30)


def test_shrinkage_pulls_the_gross_value_towards_what_was_realised() -> None:
    """Slope .5, mean value 0, realised .06: gross .25 becomes .06 + .125, and .1 R are paid."""
    shrunken = payoff(slope=0.5, gross_mean_r=0.06, mean_se_r=0.01)
    values = expected_value(np.array([0.5]), np.array([0.5]), prospect=one(), payoff=shrunken)
    assert values.ev_r[0] == pytest.approx(0.085)
    assert values.ev_lo_r[0] == pytest.approx(0.085 - 0.8416 * 0.01, abs=1e-9)


def test_costs_are_known_and_never_shrunk() -> None:
    """Of two plans that differ in cost alone the dearer is worth that much less, at any slope."""
    for slope in (0.0, 0.3, 1.0):
        values = [
            expected_value(
                np.array([0.5]),
                np.array([0.4]),
                prospect=one(cost_r=cost_r),
                payoff=payoff(slope=slope),
            )
            for cost_r in (0.02, 0.12)
        ]
        assert values[0].ev_r[0] - values[1].ev_r[0] == pytest.approx(0.1)
        assert values[0].ev_lo_r[0] - values[1].ev_lo_r[0] == pytest.approx(0.1)


@settings(deadline=None, max_examples=60)
@given(st.floats(0.01, 0.99), st.floats(1, 5000), st.floats(99.0, 99.9), st.floats(101, 110))
def test_the_mirrored_plan_is_worth_the_same(p: float, n: float, stop: float, tp1: float) -> None:
    """A short with the same distances has the same value in R, and p_low never exceeds p."""
    chance = np.array([p])
    low = p_low(chance, n_eff=n)
    assert 0 <= low[0] <= p
    long = expected_value(chance, low, prospect=one(100, stop, tp1), payoff=payoff())
    short = expected_value(chance, low, prospect=one(100, 200 - stop, 200 - tp1), payoff=payoff())
    assert long.ev_r[0] == pytest.approx(short.ev_r[0], rel=1e-9, abs=1e-12)
    assert long.ev_lo_pct[0] == pytest.approx(short.ev_lo_pct[0], rel=1e-9, abs=1e-12)
    assert long.ev_lo_r[0] <= long.ev_r[0] + 1e-12


def test_costs_mode_moves_the_legs_it_names() -> None:
    """Risk 2, maker .02 %, taker .06 %, slippage .02 %: a taker entry at 100 costs .03 R more."""
    rates = CostRates(
        maker_frac=0.0002, taker_frac=0.0006, slippage_frac=0.0002, funding_frac_8h=0.0
    )
    assert extra_costs_r(100, 98, rates, mode="auto") == (0.0, 0.0)
    assert extra_costs_r(100, 98, rates, mode="taker") == pytest.approx((0.03, 0.03))
    assert extra_costs_r(100, 98, rates, mode="maker") == pytest.approx((0.0, -0.0294))


def test_payoffs_are_the_priors_without_trades_and_the_truth_with_many() -> None:
    """No trades: half the reward, 1 R and the plan's costs. Many: what was really paid."""
    none = np.empty(0)
    prior = fit_payoff(none, none, reward_r=none, cost_r=none, weight=none, win_frac=0.5)
    assert prior.gross_win_r(np.array([2.0]))[0] == 1.0
    assert (prior.loss_r, prior.win_cost, prior.loss_cost) == (1.0, 1.0, 1.0)
    rng = np.random.default_rng(3)
    reward, cost = rng.uniform(1, 3, 40_000), rng.uniform(0.02, 0.2, 40_000)
    won = rng.random(40_000) < 0.4
    gross = np.where(won, 0.3 + 0.7 * reward, -1.2)
    net = gross - np.where(won, 0.5, 1.1) * cost
    fitted = fit_payoff(
        net, gross, reward_r=reward, cost_r=cost, weight=np.ones(40_000), win_frac=0.5
    )
    assert fitted.gross_win_r(np.array([1.5, 2.5])) == pytest.approx([1.35, 2.05], abs=0.01)
    assert fitted.loss_r == pytest.approx(1.2, abs=0.01)
    assert (fitted.win_cost, fitted.loss_cost) == pytest.approx((0.5, 1.1), abs=0.01)


def test_the_slope_is_found_and_clipped() -> None:
    """Realised values that ignore, follow or overshoot the expected give slopes 0, about 1, 1."""
    rng = np.random.default_rng(5)
    ev, weight = rng.normal(0, 0.3, 20_000), np.ones(20_000)
    for true, wanted in ((0.0, 0.0), (1.0, 1.0), (3.0, 1.0), (-2.0, 0.0)):
        r = true * ev + rng.normal(0, 1, 20_000)
        found = shrunk(
            payoff(),
            value_r=ev,
            gross_r=r,
            weight=weight,
            told=ev,
            told_gross_r=r,
            told_weight=weight,
        )
        assert 0.0 <= found.slope <= 1.0
        assert found.slope == pytest.approx(wanted, abs=0.06)
        assert found.gross_mean_r == pytest.approx(r.mean())


def tuner(value: float, bundle: str = "b1") -> dict[str, Any]:
    """Return an entry as the tuner writes it."""
    return {"min_ev_pct": value, "source": "tuner", "bundle": bundle}


PROOF = {
    "* *": Certificate(mode="ev", value=0.1, certified=True),
    "* 15m": Certificate(mode="ev", value=0.2, certified=True),
    "A/USDT 15m": Certificate(mode="ev", value=0.3, certified=True),
}
BLOCK = {
    "*": {"*": tuner(0.1), "15m": tuner(0.2)},
    "A/USDT": {"15m": tuner(0.3)},
}


def test_the_most_specific_tuner_entry_decides() -> None:
    """Pair and timeframe beat timeframe, which beats the whole, which beats the plain keys."""
    block: dict[str, Any] = {symbol: dict(cells) for symbol, cells in BLOCK.items()}
    found = []
    for drop in (None, ("A/USDT", "15m"), ("*", "15m"), ("*", "*")):
        if drop:
            del block[drop[0]][drop[1]]
        settings_now = gating(per_pair_tf=block).models.meta.gating
        found.append(limit_of(settings_now, FACTS, bundle="b1", certificates=PROOF))
    assert [limit.value for limit in found] == [0.3, 0.2, 0.1, 0.0]
    assert [limit.certified for limit in found] == [True, True, True, False]
    assert found[0].where == "tuner A/USDT 15m"


def test_an_owner_entry_beats_every_tuner_entry_and_is_not_certified() -> None:
    """Even at a wider level, and even where the tuner proved its own."""
    block = {**BLOCK, "*": {"*": {"min_ev_pct": 0.7}, "15m": tuner(0.2)}}
    limit = limit_of(
        gating(per_pair_tf=block).models.meta.gating, FACTS, bundle="b1", certificates=PROOF
    )
    assert (limit.value, limit.certified, limit.where) == (0.7, False, "owner * *")


@pytest.mark.parametrize("bundle", ["b2", None])
def test_a_tuner_entry_of_another_bundle_does_not_count(bundle: str | None) -> None:
    """Entries left behind by an earlier bundle are as if absent."""
    limit = limit_of(
        gating(per_pair_tf=BLOCK).models.meta.gating, FACTS, bundle=bundle, certificates=PROOF
    )
    assert (limit.value, limit.where) == (0.0, "plain keys")


def test_an_edited_tuner_entry_acts_but_is_not_certified() -> None:
    """A value that is not the proven one carries no proof."""
    block = {"*": {"*": tuner(0.05)}}
    limit = limit_of(
        gating(per_pair_tf=block).models.meta.gating, FACTS, bundle="b1", certificates=PROOF
    )
    assert (limit.value, limit.certified) == (0.05, False)


def test_the_stricter_regime_entry_applies_on_top() -> None:
    """Of trend .4 and vol_high .5 the .5 decides; a looser one changes nothing."""
    regime = {"trend": {"min_ev_pct": 0.4}, "vol_high": {"min_ev_pct": 0.5}}
    settings_now = gating(per_pair_tf=BLOCK, per_regime=regime).models.meta.gating
    limit = limit_of(settings_now, FACTS, bundle="b1", certificates=PROOF)
    assert (limit.value, limit.certified, limit.where) == (0.5, False, "regime vol_high")
    loose = gating(per_pair_tf=BLOCK, per_regime={"trend": {"min_ev_pct": -1.0}})
    assert limit_of(loose.models.meta.gating, FACTS, bundle="b1", certificates=PROOF).certified


def test_verdicts() -> None:
    """Without a model ungated; too dear, too little value or too low a p are refused by name."""
    plain = gating()
    unscored = verdict(FACTS, None, config=plain, bundle=None, certificates={})
    assert (unscored.gate, unscored.reason, unscored.evidence) == (
        Gate.PASS,
        "ungated",
        Evidence.UNGATED,
    )
    dear = Facts(symbol="A/USDT", timeframe="15m", regime="range/vol_low", cost_r=0.2)
    assert verdict(dear, None, config=plain, bundle=None, certificates={}).reason == "cost"
    assert verdict(dear, score(), config=plain, bundle="b1", certificates={}).reason == "cost"
    off = config_from({"models": {"meta": {"enabled": False}}})
    assert verdict(FACTS, score(), config=off, bundle="b1", certificates={}).reason == "ungated"
    low = verdict(FACTS, score(-0.01), config=plain, bundle="b1", certificates={})
    assert (low.gate, low.reason, low.evidence) == (Gate.REJECT, "ev", Evidence.UNCERTIFIED)
    p_mode = gating(use_ev=False, threshold=0.65)
    assert verdict(FACTS, score(p=0.6), config=p_mode, bundle="b1", certificates={}).reason == "p"
    assert verdict(FACTS, score(p=0.65), config=p_mode, bundle="b1", certificates={}).gate == "PASS"
    nothing = verdict(FACTS, score(float("nan")), config=plain, bundle="b1", certificates={})
    assert nothing.gate is Gate.REJECT


def test_only_a_proven_entry_of_the_current_bundle_certifies() -> None:
    """The same score is CERTIFIED under the proof and UNCERTIFIED without it."""
    config = gating(per_pair_tf=BLOCK)
    good = score(ev_lo_pct=0.35)
    sure = verdict(FACTS, good, config=config, bundle="b1", certificates=PROOF)
    assert (sure.gate, sure.evidence) == (Gate.PASS, Evidence.CERTIFIED)
    unsure = verdict(FACTS, good, config=config, bundle="b1", certificates={})
    assert (unsure.gate, unsure.evidence) == (Gate.PASS, Evidence.UNCERTIFIED)
