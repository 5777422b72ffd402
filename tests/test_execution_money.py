"""What a followed trade pays, what it tells, and what it refuses: hand-worked numbers."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from core.config import Execution
from core.domain import Candles
from core.execution import (
    ExitRules,
    events,
    exit_rules,
    follow,
    new_states,
    order_of,
    state_to_json,
)
from core.timeframe import HOUR_MS, MINUTE_MS
from tests.trades import DEAR, FREE, MIDNIGHT_MS, PLAN, RULES, bars, end_ms, flipped, result

FILL = "101 101 99 100 | "


def test_costs_of_a_resting_entry_that_is_stopped() -> None:
    """Maker in on 100, taker and slippage out on 95: .1 + .2375 percent of notional."""
    got = result(bars(FILL + "100 101 95 96"), rates=DEAR)
    assert got.fees_pct == pytest.approx(0.1 + 0.19, abs=1e-12)
    assert got.slippage_pct == pytest.approx(0.0475, abs=1e-12)
    assert got.pnl_pct == pytest.approx(-5 - 0.3375, abs=1e-12)
    assert got.r_multiple == pytest.approx(-1 - 0.0675, abs=1e-12)
    assert got.cost_r_paid == pytest.approx(0.0675, abs=1e-12)
    assert got.exit_price == 95.0


def test_costs_of_a_market_entry_and_two_targets() -> None:
    """Taker and slippage in on 98, maker out on half of 110 and half of 120."""
    got = result(bars("98 99 97 98 | 98 121 97 120"), rates=DEAR)
    assert got.opened_as_taker
    assert got.opened_price == 98.0
    assert got.fees_pct == pytest.approx(0.2 * 0.98 + 0.1 * 1.15, abs=1e-12)
    assert got.slippage_pct == pytest.approx(0.05 * 0.98, abs=1e-12)
    assert got.exit_price == pytest.approx(115.0)


def _held_over_settlements() -> Candles:
    """Filled at 07:57, TP1 in the minute that ends at 07:59, stopped in the one ending 16:00."""
    path = "101 101 99 100 | 100 105 99 104 | 104 111 103 110 | 110 112 109 111"
    early = bars(path, MIDNIGHT_MS + 8 * HOUR_MS - 4 * MINUTE_MS)
    late = bars("100 101 95 96", MIDNIGHT_MS + 16 * HOUR_MS - MINUTE_MS)
    both = zip(early.columns(), late.columns(), strict=True)
    return Candles("1m", *(np.concatenate(pair) for pair in both))


FUNDED_PLAN = replace(
    PLAN,
    actionable_ms=MIDNIGHT_MS + 8 * HOUR_MS - 4 * MINUTE_MS,
    valid_until_ms=MIDNIGHT_MS + 9 * HOUR_MS,
)
SLOW = replace(RULES, be_on_tp1=False, max_hold_candles=200)


def test_the_constant_funding_is_against_either_side() -> None:
    """TP1 fills by 07:59; half is open at 08:00 (worth 111) and at 16:00 (worth 96)."""
    base, short = _held_over_settlements(), flipped(FUNDED_PLAN, _held_over_settlements())
    rates = replace(FREE, funding_frac_8h=0.0004)
    got = result(base, plan=FUNDED_PLAN, rules=SLOW, rates=rates)
    assert got.funding_pct == pytest.approx(0.04 * 0.5 * (1.11 + 0.96), abs=1e-12)
    assert got.funding_source == "constant"
    negative = replace(FREE, funding_frac_8h=-0.0004)
    assert result(base, plan=FUNDED_PLAN, rules=SLOW, rates=negative) == got
    turned = result(short[1], plan=short[0], rules=SLOW, rates=rates)
    assert turned.funding_pct == pytest.approx(0.04 * 0.5 * (0.89 + 1.04), abs=1e-12)


def test_a_stored_rate_has_its_sign_and_a_settlement_without_one_takes_the_constant() -> None:
    """Longs pay a positive rate and shorts get it; stamps some ms late still count."""
    base, rates = _held_over_settlements(), replace(FREE, funding_frac_8h=0.0004)
    stored = (np.array([MIDNIGHT_MS + 8 * HOUR_MS + 7]), np.array([0.001]))
    got = result(base, plan=FUNDED_PLAN, rules=SLOW, rates=rates, funding=stored)
    assert got.funding_pct == pytest.approx(0.5 * (0.1 * 1.11 + 0.04 * 0.96), abs=1e-12)
    assert got.funding_source == "mixed"
    plan, turned = flipped(FUNDED_PLAN, base)
    got = result(turned, plan=plan, rules=SLOW, rates=rates, funding=stored)
    assert got.funding_pct == pytest.approx(0.5 * (-0.1 * 0.89 + 0.04 * 1.04), abs=1e-12)


def test_a_settlement_at_the_end_of_the_fill_minute_is_not_paid() -> None:
    """Funding is due strictly after the fill and up to the exit, by the ends of their minutes."""
    start_ms = MIDNIGHT_MS + 8 * HOUR_MS - MINUTE_MS
    plan = replace(FUNDED_PLAN, actionable_ms=start_ms)
    rates = replace(FREE, funding_frac_8h=0.0004)
    assert result(bars(FILL + "100 101 95 96", start_ms), plan=plan, rates=rates).funding_pct == 0
    plan, start_ms = replace(plan, actionable_ms=start_ms - MINUTE_MS), start_ms - MINUTE_MS
    got = result(bars(FILL + "100 101 95 96", start_ms), plan=plan, rates=rates)
    assert got.funding_pct == pytest.approx(0.04 * 0.96, abs=1e-12)


def test_excursions_are_measured_from_the_fill_in_r() -> None:
    """Best 108 and worst 97 after a fill at 100 with a risk of 5; exits bound both."""
    got = result(bars("101 109 99 101 | 101 108 97 100"))
    assert [got.mfe_r, got.mae_r] == pytest.approx([1.6, 0.6])
    got = result(bars(FILL + "100 130 98 96"))
    assert [got.mfe_r, got.mae_r] == pytest.approx([4.0, 0.4])
    got = result(bars(FILL + "100 101 90 96"))
    assert [got.mfe_r, got.mae_r] == pytest.approx([0.0, 1.0])


def test_events_tell_each_change_once_in_the_order_it_became_known() -> None:
    """Fed minute by minute, a trade tells its fill, TP1, each move of the stop, and its end."""
    rules = replace(RULES, trail_atr_mult=2.0)
    path = (
        FILL + "100 111 99 110 | 110 112 109 112 | 112 112 107 109 | 109 110 107 109 |"
        "109 110 108 109"
    )
    base, order = bars(path), order_of(PLAN, "5m")
    state, told = new_states(order), []
    for i in range(len(base)):
        after = follow(order, state, base, rules=rules, rates=FREE, until_ms=end_ms(i + 1))
        told += [(e.kind, e.at_ms, e.price, e.reason) for e in events(order, state, after)]
        state = after
    assert told == [
        ("filled", end_ms(1), 100.0, ""),
        ("tp1", end_ms(2), 110.0, ""),
        ("stop_moved", end_ms(4), 100.0, "breakeven"),
        ("stop_moved", end_ms(5), 108.0, "trail"),
        ("closed", end_ms(6), 109.0, "trail"),
    ]
    assert events(order, state, state) == []


@pytest.mark.parametrize(
    ("path", "kind", "reason"),
    [
        ("94 99 93 98", "cancelled", "moved_before_you"),
        ("101 102 100.5 101 | " * 18 + "101 101 99 100", "expired", "expired"),
    ],
)
def test_an_order_that_never_fills_tells_only_its_end(path: str, kind: str, reason: str) -> None:
    """No price, no fill; one event."""
    base, order = bars(path), order_of(PLAN, "5m")
    before = new_states(order)
    until_ms = PLAN.valid_until_ms
    after = follow(order, before, base, rules=RULES, rates=FREE, until_ms=until_ms)
    told = events(order, before, after)
    assert [(e.kind, e.price, e.reason) for e in told] == [(kind, None, reason)]


def test_rules_come_from_the_settings() -> None:
    """Seconds become milliseconds; everything else keeps its value."""
    section = Execution(delivery_delay_s=90, tp1_fraction=0.3, max_hold_candles=7)
    want = ExitRules(
        tp1_fraction=0.3, be_on_tp1=True, trail_atr_mult=2.0, max_hold_candles=7, delay_ms=90_000
    )
    assert exit_rules(section) == want


def test_follow_refuses_what_it_cannot_follow() -> None:
    """One state per order, one row of rates per order, and a delay the state can remember."""
    order, base = order_of(PLAN, "1m"), bars(FILL + "100 101 99 100")
    states, two = new_states(order), np.concatenate((order, order))
    late = replace(RULES, delay_ms=5 * MINUTE_MS)
    with pytest.raises(ValueError, match="2 orders but 1 states"):
        follow(two, states, base, rules=RULES, rates=FREE, until_ms=end_ms(2))
    with pytest.raises(ValueError, match="one row per order"):
        follow(order, states, base, rules=RULES, rates=np.zeros((2, 4)), until_ms=end_ms(2))
    with pytest.raises(ValueError, match="delay_ms 300000"):
        follow(order, states, base, rules=late, rates=FREE, until_ms=end_ms(2))
    assert len(follow(order[:0], states[:0], base, rules=RULES, rates=FREE, until_ms=0)) == 0


def test_a_state_reads_as_words() -> None:
    """The stored text names what it holds."""
    order = order_of(PLAN, "5m")
    base = bars(FILL + "100 101 95 96")
    state = follow(order, new_states(order), base, rules=RULES, rates=FREE, until_ms=end_ms(2))
    values = json.loads(state_to_json(state))
    assert (values["status"], values["reason"], values["qty_left"]) == ("SL", "stop", 0.0)
    assert values["walked_ms"] == values["closed_ms"] == end_ms(2)
