"""What becomes of an order: every rule as a hand-worked case, for a long and for its mirror."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from core.domain import Status
from core.timeframe import MINUTE_MS
from tests.trades import DECIDED_MS, PLAN, RULES, bars, end_ms, flipped, result

FILL = "101 101 99 100 | "


class Case(NamedTuple):
    """A path, the rules it changes, and what must come of it for a long and for its mirror."""

    path: str
    status: Status
    reason: str
    gross_r: float | None = None
    opened: int = 0
    closed: int = 0
    ambiguous: bool = False
    tp1_hit: bool = False
    rules: Mapping[str, Any] = MappingProxyType({})


CASES = {
    "both targets, half each: (10 + 20) / 2 over a risk of 5": Case(
        FILL + "100 111 99 110 | 110 121 109 120", Status.TP, "target", 3.0, 1, 3, tp1_hit=True
    ),
    "both targets in one minute": Case(
        FILL + "100 121 99 120", Status.TP, "target", 3.0, 1, 2, tp1_hit=True
    ),
    "all at the first target": Case(
        FILL + "100 111 99 110",
        Status.TP,
        "target",
        2.0,
        1,
        2,
        tp1_hit=True,
        rules={"tp1_fraction": 1.0},
    ),
    "nothing leaves at the first target": Case(
        FILL + "100 111 99 110 | 110 121 109 120",
        Status.TP,
        "target",
        4.0,
        1,
        3,
        tp1_hit=True,
        rules={"tp1_fraction": 0.0},
    ),
    "a target that is only touched does not fill": Case(
        FILL + "100 110 99 109", Status.OPEN, "", opened=1
    ),
    "the stop is a touch": Case(FILL + "100 101 95 96", Status.SL, "stop", -1.0, 1, 2),
    "a stop just missed": Case(FILL + "100 101 95.1 96", Status.OPEN, "", opened=1),
    "a gap through the stop fills at the open": Case(
        FILL + "92 99 91 98", Status.SL, "stop", -1.6, 1, 2
    ),
    "a gap beyond the liquidation price": Case(
        FILL + "65 66 60 61", Status.SL, "liquidation", -7.0, 1, 2
    ),
    "liquidation is only for an open beyond it": Case(
        FILL + "99 99 60 61", Status.SL, "stop", -1.0, 1, 2
    ),
    "stop and target in one minute: the stop, ambiguous": Case(
        FILL + "100 111 95 100", Status.SL, "stop", -1.0, 1, 2, ambiguous=True
    ),
    "stop and a touched target are not ambiguous": Case(
        FILL + "100 110 95 100", Status.SL, "stop", -1.0, 1, 2
    ),
    "after TP1, stop and TP2 in one minute: the stop": Case(
        FILL + "100 111 99 110 | 110 121 95 110",
        Status.TP1_TRAIL,
        "stop",
        0.5,
        1,
        3,
        ambiguous=True,
        tp1_hit=True,
    ),
    "fill and stop in one minute: both": Case(
        "101 101 94 96", Status.SL, "stop", -1.0, 1, 1, ambiguous=True
    ),
    "fill and TP1 in one minute: filled, no target": Case(
        "101 112 99 105 | 105 106 101 102", Status.OPEN, "", opened=1, ambiguous=True
    ),
    "fill, TP1 and stop in one minute: filled and stopped": Case(
        "101 112 94 105", Status.SL, "stop", -1.0, 1, 1, ambiguous=True
    ),
    "a touched entry does not fill": Case("101 102 100 101", Status.PENDING, ""),
    "a later minute that opens through a resting entry fills at its price": Case(
        "101 102 100 101 | 98 99 97 98", Status.OPEN, "", opened=2
    ),
    "a later minute that opens beyond the stop: filled at the entry, out at the open": Case(
        "101 102 100 101 | 93 99 92 98", Status.SL, "stop", -1.4, 2, 2, ambiguous=True
    ),
    "TP1 traded before the fill": Case(
        "101 102 101 101 | 105 110 104 106 | 100 100 98 99",
        Status.CANCELLED,
        "tp1_before_fill",
        closed=2,
    ),
    "a later minute that opens at TP1 traded it first": Case(
        "101 102 101 101 | 110 110 98 99", Status.CANCELLED, "tp1_before_fill", closed=2
    ),
    "the first minute opens beyond the stop": Case(
        "94 99 93 98", Status.CANCELLED, "moved_before_you", closed=1
    ),
    "the first minute opens beyond TP1": Case(
        "111 112 99 100", Status.CANCELLED, "moved_before_you", closed=1
    ),
    "the first minute opens through the entry: taker at the open": Case(
        "98 99 97 98 | 98 111 97 110 | 110 121 109 120",
        Status.TP,
        "target",
        3.4,
        1,
        3,
        tp1_hit=True,
    ),
    "an open exactly at the entry is not through it": Case("100 101 100 101", Status.PENDING, ""),
    "breakeven acts two minutes after TP1's minute": Case(
        FILL + "100 111 99 110 | 110 110 99 104 | 104 104 99 100 | 101 101 100 100.5",
        Status.TP1_TRAIL,
        "breakeven",
        1.0,
        1,
        5,
        tp1_hit=True,
    ),
    "breakeven at once where there is no delay": Case(
        FILL + "100 111 99 110 | 110 110 99 104",
        Status.TP1_TRAIL,
        "breakeven",
        1.0,
        1,
        3,
        tp1_hit=True,
        rules={"delay_ms": 0},
    ),
    "a gap when breakeven begins to act fills at the open": Case(
        FILL + "100 111 99 110 | 110 110 99 104 | 104 104 98 98 | 98 101 97 99",
        Status.TP1_TRAIL,
        "breakeven",
        0.8,
        1,
        5,
        tp1_hit=True,
    ),
    "without breakeven the first stop stays": Case(
        FILL + "100 111 99 110 | 110 110 99 104 | 104 104 98 98 | 98 101 95 99",
        Status.TP1_TRAIL,
        "stop",
        0.5,
        1,
        5,
        tp1_hit=True,
        rules={"be_on_tp1": False},
    ),
    # The candle of 5m closes after minute 3 at 112; the trail 112 - 2 x 2 acts from minute 6 on.
    "the trail acts two minutes after the signal candle's close": Case(
        FILL + "100 111 99 110 | 110 112 109 112 | 112 112 107 109 | 109 110 107 109 |"
        "109 110 108 109",
        Status.TP1_TRAIL,
        "trail",
        1.8,
        1,
        6,
        tp1_hit=True,
        rules={"trail_atr_mult": 2.0},
    ),
    # 104 - 4 = 100 is no tighter than breakeven, so breakeven keeps its name.
    "the trail never loosens": Case(
        FILL + "100 111 99 110 | 110 112 103 104 | 104 105 101 102 | 102 103 101 102 |"
        "102 103 99 100",
        Status.TP1_TRAIL,
        "breakeven",
        1.0,
        1,
        6,
        tp1_hit=True,
        rules={"trail_atr_mult": 2.0},
    ),
    "no trail before TP1": Case(
        FILL + "100 109 99 108 | 108 109 107 108 | 108 108 101 102 | 102 103 101 102 |"
        "102 103 101 102",
        Status.OPEN,
        "",
        opened=1,
        rules={"trail_atr_mult": 2.0},
    ),
    "held too long: out at the close of the last allowed minute": Case(
        FILL + "100 101 99 100 | " * 4 + "100 103 99 102 | 102 104 101 103",
        Status.TIMEOUT,
        "timeout",
        0.4,
        1,
        6,
        rules={"max_hold_candles": 1},
    ),
    "the last allowed minute is missing: out at the next open": Case(
        FILL + "100 101 99 100 | " * 4 + "- | - | 97 104 96 103",
        Status.TIMEOUT,
        "timeout",
        -0.6,
        1,
        8,
        rules={"max_hold_candles": 1},
    ),
    "a stop in the last minute comes before its close": Case(
        FILL + "100 101 99 100 | " * 4 + "100 103 95 102",
        Status.SL,
        "stop",
        -1.0,
        1,
        6,
        rules={"max_hold_candles": 1},
    ),
    "held too long after TP1": Case(
        FILL + "100 111 99 110 | " + "110 112 109 111 | " * 3 + "111 113 110 112",
        Status.TIMEOUT,
        "timeout",
        2.2,
        1,
        6,
        tp1_hit=True,
        rules={"max_hold_candles": 1},
    ),
    "a position is simply walked across a hole": Case(
        FILL + "- | - | - | 92 93 91 92", Status.SL, "stop", -1.6, 1, 5
    ),
    "not filled in time": Case(
        "101 102 100.5 101 | " * 17 + "101 102 100.5 101 | 101 101 99 100",
        Status.EXPIRED,
        "expired",
        closed=18,
    ),
}


@pytest.mark.parametrize("turn", [False, True], ids=["long", "mirrored"])
@pytest.mark.parametrize("name", CASES)
def test_each_case_ends_as_worked_by_hand_and_so_does_its_mirror(name: str, turn: bool) -> None:
    """A path ends with the status, reason, instants and gross R worked out by hand."""
    case = CASES[name]
    plan, base = flipped(PLAN, bars(case.path)) if turn else (PLAN, bars(case.path))
    got = result(base, plan=plan, rules=replace(RULES, **case.rules))
    assert (got.status, got.exit_reason) == (case.status, case.reason)
    assert got.opened_ts_ms == (end_ms(case.opened) if case.opened else None)
    assert got.closed_ts_ms == (end_ms(case.closed) if case.closed else None)
    assert (got.ambiguous, got.tp1_hit) == (case.ambiguous, case.tp1_hit)
    if case.gross_r is None:
        assert got.r_multiple is None
    else:
        assert got.gross_r == pytest.approx(case.gross_r, abs=1e-12)


def test_what_trades_before_the_order_exists_counts_for_nothing() -> None:
    """Bars that open before `actionable_ms` may touch every level without effect."""
    early = bars("100 121 80 100 | 100 121 80 100 | 101 102 100.5 101", DECIDED_MS)
    assert result(early).status is Status.PENDING


def test_a_delay_that_is_no_whole_minute_begins_with_the_next_whole_one() -> None:
    """The first walked minute is the first that opens at or after `actionable_ms`."""
    plan = replace(PLAN, actionable_ms=DECIDED_MS + 90_000)
    path = "101 101 90 101 | 101 101 90 101 | 101 101 99 100"
    got = result(bars(path, DECIDED_MS), plan=plan)
    assert got.opened_ts_ms == DECIDED_MS + 3 * MINUTE_MS


def test_expiry_needs_no_bar_but_the_word_that_all_before_it_is_settled() -> None:
    """An unfilled order expires at its own instant, whether or not a later bar exists."""
    base = bars("101 102 100.5 101")
    assert result(base, until_ms=PLAN.valid_until_ms - 1).status is Status.PENDING
    got = result(base, until_ms=PLAN.valid_until_ms)
    assert (got.status, got.closed_ts_ms) == (Status.EXPIRED, PLAN.valid_until_ms)


def test_trailing_moves_queue_up_when_the_delay_is_longer_than_the_signal_candle() -> None:
    """With 1m candles and a delay of four, each move acts in its turn, four minutes late.

    Closes rise by one a minute to 118 in minute 9. When minute 10 begins, the close of minute 5
    (114, less 2 x 2) is the newest that acts.
    """
    plan, rules = replace(PLAN, tp2=150.0), replace(RULES, trail_atr_mult=2.0, delay_ms=240_000)
    rising = " | ".join(f"{108 + k} {109 + k} {108 + k} {109 + k}" for k in range(3, 10))
    base = bars(f"101 101 99 100 | 100 111 100 111 | {rising} | 118 118 90 91")
    rules = replace(rules, max_hold_candles=60)
    for shown, path in ((plan, base), flipped(plan, base)):
        got = result(path, plan=shown, rules=rules, timeframe="1m")
        assert (got.status, got.exit_reason) == (Status.TP1_TRAIL, "trail")
        assert got.closed_ts_ms == end_ms(10)
        assert got.gross_r == pytest.approx(2.0)
