"""On a driftless walk no exit policy earns anything, and costs are exactly what is lost.

The walk takes 1024 steps of one tick a minute, so it trades at every price it passes, and levels
are whole ticks. A stop, a taker fill and a timeout are then booked at the price where the walk
stands, which is fair to the last digit. A resting limit fills only when traded *through*: the walk
stands one tick beyond the price that is booked, so each resting entry and each resting target is
booked one tick to our loss. That is known, not a fault: `fair_r` adds one tick for the entry and
one for each part of the quantity that left at a target. Nothing else is corrected.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest

from core.costs import CostRates
from core.domain import Candles, Floats, Ints
from core.execution import ORDER, ExitRules, follow, new_states
from core.execution_kernel import BY_STOP, BY_TARGET, OPEN, TIMEOUT, TP
from core.timeframe import MINUTE_MS, tf_ms
from tests.figures import Record
from tests.worlds import walk

SEGMENT_MINUTES = 300  # every order of a segment is over before the next one begins
ORDERS_A_SEGMENT = 6
POLICIES = {
    "all at TP1": ExitRules(
        tp1_fraction=1.0, be_on_tp1=False, trail_atr_mult=0, max_hold_candles=36, delay_ms=120_000
    ),
    "split": ExitRules(
        tp1_fraction=0.5, be_on_tp1=False, trail_atr_mult=0, max_hold_candles=36, delay_ms=120_000
    ),
    "breakeven": ExitRules(
        tp1_fraction=0.5, be_on_tp1=True, trail_atr_mult=0, max_hold_candles=36, delay_ms=120_000
    ),
    "breakeven and trail": ExitRules(
        tp1_fraction=0.5, be_on_tp1=True, trail_atr_mult=2, max_hold_candles=36, delay_ms=120_000
    ),
}
FREE = CostRates(maker_frac=0, taker_frac=0, slippage_frac=0, funding_frac_8h=0)
DEAR = CostRates(maker_frac=4e-6, taker_frac=12e-6, slippage_frac=4e-6, funding_frac_8h=0)


def orders_on(base: Candles, rng: np.random.Generator) -> Any:
    """Random sides and levels, some through the price at once; all end within their segment."""
    n_segments = len(base) // SEGMENT_MINUTES
    n = n_segments * ORDERS_A_SEGMENT
    at = np.repeat(np.arange(n_segments) * SEGMENT_MINUTES, ORDERS_A_SEGMENT)
    at += rng.integers(1, 50, n)
    orders, side = np.zeros(n, ORDER), rng.choice([-1, 1], n)
    orders["side"] = side
    orders["entry"] = base.close[at - 1] - side * rng.integers(-60, 120, n)
    orders["stop"] = orders["entry"] - side * rng.integers(120, 240, n)
    orders["tp1"] = orders["entry"] + side * rng.integers(150, 360, n)
    orders["tp2"] = orders["tp1"] + side * rng.integers(50, 200, n)
    orders["atr"] = 80
    orders["decided_ms"] = base.ts_ms[at]
    orders["actionable_ms"] = base.ts_ms[at] + 2 * MINUTE_MS
    orders["valid_until_ms"] = base.ts_ms[at] + 60 * MINUTE_MS
    orders["tf_ms"] = tf_ms("5m")
    return orders


class Trades(NamedTuple):
    """The closed trades of one policy; `segment` names the independent stretch of the walk."""

    orders: Any
    states: Any
    segment: Ints
    gross_r: Floats
    cost_r: Floats
    fair_r: Floats


@cache
def market(seed: int, n_segments: int) -> tuple[Candles, Any]:
    """One walk and its orders, shared by all policies."""
    rng = np.random.default_rng(seed)
    base = walk(rng, n_segments * SEGMENT_MINUTES)
    return base, orders_on(base, rng)


def trades(
    policy: str, rates: CostRates = FREE, *, seed: int = 2024, n_segments: int = 2500
) -> Trades:
    """Follow the shared orders under one policy."""
    base, orders = market(seed, n_segments)
    until_ms = int(base.ts_ms[-1]) + MINUTE_MS
    rules = POLICIES[policy]
    states = follow(orders, new_states(orders), base, rules=rules, rates=rates, until_ms=until_ms)
    assert not (states["status"] <= OPEN).any()
    closed = (states["status"] > OPEN) & (states["status"] <= TIMEOUT)
    segment = np.repeat(np.arange(n_segments), ORDERS_A_SEGMENT)[closed]
    orders, states = orders[closed], states[closed]
    to_r = orders["entry"] / np.abs(orders["entry"] - orders["stop"])
    cost = states["maker_frac"] + states["taker_frac"] + states["slippage_frac"]
    at_tp1 = np.where(states["tp1_ms"] > 0, rules.tp1_fraction, 0.0)
    at_tp2 = np.where(states["status"] == TP, 1 - rules.tp1_fraction, 0.0)
    resting = (states["opened_as_taker"] == 0) + at_tp1 + at_tp2
    fair_r = (states["gross_frac"] + resting / orders["entry"]) * to_r
    return Trades(orders, states, segment, states["gross_frac"] * to_r, cost * to_r, fair_r)


def mean_and_error(values: Floats, segment: Ints) -> tuple[float, float]:
    """The mean and its standard error when trades of one segment share their walk."""
    mean = float(values.mean())
    sums = np.bincount(segment, values - mean)
    return mean, float(np.sqrt((sums**2).sum()) / len(values))


def assert_fair(values: Floats, segment: Ints) -> None:
    """The mean is zero within three standard errors, and those are small enough to mean it."""
    mean, error = mean_and_error(values, segment)
    assert error < 0.03
    assert abs(mean) < 3 * error, f"mean {mean:+.4f}, standard error {error:.4f}"


@pytest.mark.parametrize("policy", POLICIES)
def test_no_exit_policy_earns_anything_on_a_driftless_walk(policy: str) -> None:
    """Mean gross R is 0 within 3 SE once the known tick of each resting fill is given back."""
    got = trades(policy)
    assert len(got.gross_r) > 9_000
    assert_fair(got.fair_r, got.segment)
    assert_fair(got.fair_r[got.orders["side"] > 0], got.segment[got.orders["side"] > 0])
    assert_fair(got.fair_r[got.orders["side"] < 0], got.segment[got.orders["side"] < 0])
    taker = got.states["opened_as_taker"] == 1
    assert taker.sum() > 1000
    assert_fair(got.fair_r[~taker], got.segment[~taker])


def test_tp1_comes_before_the_stop_as_often_as_a_coin_would_have_it() -> None:
    """The rate is risk / (risk + reward) from the fill price, within a point and 3 SE."""
    got = trades("all at TP1")
    resolved = np.isin(got.states["reason"], [BY_STOP, BY_TARGET])
    assert resolved.mean() > 0.97
    orders, states = got.orders[resolved], got.states[resolved]
    risk = np.abs(states["opened_price"] - orders["stop"])
    coin = risk / np.abs(orders["tp1"] - orders["stop"])
    excess = (states["reason"] == BY_TARGET) - coin
    mean, error = mean_and_error(excess, got.segment[resolved])
    assert error < 0.01
    assert abs(mean) < 0.01 + 3 * error
    for low, high in ((0.2, 0.35), (0.35, 0.5), (0.5, 0.65)):
        some = (coin >= low) & (coin < high)
        assert some.sum() > 500
        mean, error = mean_and_error(excess[some], got.segment[resolved][some])
        assert abs(mean) < 0.01 + 3 * error, f"coin {low} to {high}: {mean:+.4f} ({error:.4f})"


def test_what_is_lost_with_costs_is_the_costs() -> None:
    """Net R is gross less a fee per leg, worked here by hand, and its mean is minus those fees."""
    got = trades("all at TP1", DEAR)
    states, orders = got.states, got.orders
    maker, market_frac = DEAR.maker_frac, DEAR.taker_frac + DEAR.slippage_frac
    into = np.where(states["opened_as_taker"] == 1, market_frac, maker) * states["opened_price"]
    out = np.where(states["reason"] == BY_TARGET, maker, market_frac) * states["exit_value"]
    by_hand = (into + out) / np.abs(orders["entry"] - orders["stop"])
    np.testing.assert_allclose(got.cost_r, by_hand, rtol=1e-12)
    net = got.gross_r - got.cost_r
    mean, error = mean_and_error(net, got.segment)
    assert mean < -3 * error
    assert_fair(got.fair_r - got.cost_r + by_hand.mean(), got.segment)


@pytest.mark.long
@pytest.mark.parametrize("policy", POLICIES)
def test_a_hundred_thousand_trades_earn_nothing(policy: str, record_property: Record) -> None:
    """The same law with a third of the error."""
    got = trades(policy, seed=7, n_segments=25_000)
    assert len(got.gross_r) > 90_000
    mean, error = mean_and_error(got.fair_r, got.segment)
    record_property(policy, f"{mean:+.4f} R ± {error:.4f}, {len(got.gross_r):,} trades")
    assert error < 0.006
    assert abs(mean) < 3 * error
