"""What the delivery pass decides, case by case: picks, guards and reasons worked by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from core.config import Guards
from core.delivery import WINDOW_MS, Decision, deliver
from core.domain import Delivery, Evidence, Gate, Side
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS

T0 = 20_000 * DAY_MS
OFF = Guards(
    cooldown_minutes=0,
    max_open=0,
    max_open_per_side=0,
    max_consecutive_stops=0,
    stop_pause_hours=0,
    max_drawdown_r=0.0,
)
TIGHT = Guards(
    cooldown_minutes=90,
    max_open=3,
    max_open_per_side=2,
    max_consecutive_stops=2,
    stop_pause_hours=6,
    max_drawdown_r=3.0,
    locked_symbols=("LUNA",),
)


def off(**changes: Any) -> Guards:
    """Every guard off but those named."""
    return OFF.model_copy(update=changes)


def decision(at_ms: int, symbol: str = "BTC", side: Side = Side.LONG, **changes: Any) -> Decision:
    """A certified PASS unless told otherwise, `at_ms` after T0."""
    values: dict[str, Any] = {
        "identity": ("x", symbol, "15m", "limit", side.direction, 1, at_ms),
        "symbol": symbol,
        "side": side,
        "decided_ms": T0 + at_ms,
        "gate": Gate.PASS,
        "evidence": Evidence.CERTIFIED,
        "ev_lo_pct": 0.5,
        "cost_r": 0.05,
    }
    if "closed_ms" in changes:
        values["closed_ts_ms"] = T0 + changes.pop("closed_ms")
    return Decision(**{**values, **changes})


def paper(at_ms: int, symbol: str = "BTC", **changes: Any) -> Decision:
    """An uncertified PASS."""
    return decision(at_ms, symbol, evidence=Evidence.UNCERTIFIED, **changes)


def run(
    rows: Sequence[Decision], guards: Guards = OFF, send: str = "paper", **more: Any
) -> list[tuple[Delivery, str]]:
    """One pass with three PAPER a day."""
    return deliver(rows, guards=guards, send=send, **{"paper_per_day": 3, **more})


def reasons(rows: Sequence[Decision], guards: Guards = OFF, **more: Any) -> list[str]:
    """The reasons alone."""
    return [reason for _, reason in run(rows, guards, **more)]


def test_certified_passes_are_live_and_the_rest_is_not() -> None:
    """Only CERTIFIED and PASS and timely is LIVE; a REJECT or a late row is digest material."""
    rows = [
        decision(0),
        decision(HOUR_MS, gate=Gate.REJECT),
        decision(2 * HOUR_MS, late=True),
        paper(3 * HOUR_MS),
        paper(4 * HOUR_MS, ev_lo_pct=-0.01),
    ]
    assert run(rows) == [
        (Delivery.LIVE, "certified"),
        (Delivery.DIGEST, "rejected"),
        (Delivery.DIGEST, "late"),
        (Delivery.PAPER, "best_few"),
        (Delivery.DIGEST, "negative_ev"),
    ]


def test_send_says_what_may_be_paper() -> None:
    """`certified`: none; `all`: every PASS that is not LIVE, whatever its EV or number."""
    rows = [paper(i * HOUR_MS, ev_lo_pct=-0.5) for i in range(9)] + [decision(9 * HOUR_MS)]
    assert reasons(rows, send="certified") == ["uncertified"] * 9 + ["certified"]
    assert [d for d, _ in run(rows, send="all")] == [Delivery.PAPER] * 9 + [Delivery.LIVE]


def test_muted_sends_nothing_but_keeps_what_was_decided() -> None:
    """NONE for new rows; a row decided before keeps its delivery and its reason."""
    rows = [
        decision(0, delivery=Delivery.LIVE, delivery_reason="certified"),
        decision(HOUR_MS),
        decision(HOUR_MS, gate=Gate.REJECT),
    ]
    assert run(rows, muted=True) == [
        (Delivery.LIVE, "certified"),
        (Delivery.NONE, "muted"),
        (Delivery.NONE, "muted"),
    ]


def test_a_pause_tells_nothing_of_its_decisions_and_changes_no_others() -> None:
    """[2 h, 4 h) and from 6 h on: NONE there, and elsewhere as if those rows had not been."""
    rows = [decision(hour * HOUR_MS, closed_ms=20 * HOUR_MS) for hour in range(8)]
    pauses = [(T0 + 2 * HOUR_MS, T0 + 4 * HOUR_MS), (T0 + 6 * HOUR_MS, None)]
    told = reasons(rows, off(max_open=3), pauses=pauses)
    assert told[2:4] == told[6:] == ["paused"] * 2
    rest = [*rows[:2], *rows[4:6]]
    assert [*told[:2], *told[4:6]] == reasons(rest, off(max_open=3))
    assert {how for how, why in run(rows, pauses=pauses) if why == "paused"} == {Delivery.NONE}


def test_one_message_for_one_side_and_close() -> None:
    """The best of a close speaks for its side; the other side has its own."""
    rows = [
        decision(0, "ETH", ev_lo_pct=0.1),
        decision(0, "BTC", ev_lo_pct=0.9),
        decision(0, "SOL", Side.SHORT, ev_lo_pct=0.2),
    ]
    assert reasons(rows) == ["same_group", "certified", "certified"]


def test_without_a_model_the_lowest_cost_is_best() -> None:
    """Ungated rows are ranked by cost_r: first at one close, then against the window."""
    bare: dict[str, Any] = {"evidence": Evidence.UNGATED, "ev_lo_pct": None}
    first = [
        decision(0, "ETH", cost_r=0.09, **bare),
        decision(0, "BTC", cost_r=0.03, **bare),
    ]
    assert reasons(first) == ["same_group", "best_few"]
    later = [
        decision(HOUR_MS * (1 + i), cost_r=cost, **bare)
        for i, cost in enumerate([0.04, 0.05, 0.10, 0.05, 0.02])
    ]
    # Three a day: 0.05 is the third best so far, 0.10 is not, a second 0.05 does not beat the
    # first, and ETH's 0.09 competes although it was held back.
    assert reasons(first[1:] + later) == [
        "best_few",
        "best_few",
        "best_few",
        "not_best",
        "not_best",
        "best_few",
    ]


def test_paper_stops_at_twice_the_number_a_day() -> None:
    """Ever better candidates: six on one UTC day, and again from midnight."""
    rows = [paper(i * HOUR_MS, ev_lo_pct=float(i)) for i in range(26)]
    assert reasons(rows) == ["best_few"] * 6 + ["budget"] * 18 + ["best_few"] * 2


def test_paper_is_picked_by_the_shrunken_ev_and_ordered_by_its_low_end() -> None:
    """`ev_pct` decides whether the EV is negative, `ev_lo_pct` who comes first at a close."""
    rows = [
        paper(0, "BTC", ev_pct=0.2, ev_lo_pct=-0.3),
        paper(0, "ETH", ev_pct=0.1, ev_lo_pct=-0.1),
        paper(HOUR_MS, "BTC", ev_pct=-0.1, ev_lo_pct=-0.3),
    ]
    assert reasons(rows) == ["same_group", "best_few", "negative_ev"]


def test_a_locked_symbol_is_never_sent() -> None:
    """Locks hold for LIVE and PAPER alike."""
    rows = [decision(0, "LUNA"), paper(HOUR_MS, "LUNA"), decision(2 * HOUR_MS)]
    assert reasons(rows, off(locked_symbols=("LUNA",))) == ["locked", "locked", "certified"]


def test_cooldown_counts_from_delivered_decisions_of_the_pair() -> None:
    """60 minutes after one that was sent; those held back and other pairs do not count."""
    rows = [
        decision(0),
        decision(59 * MINUTE_MS),
        decision(59 * MINUTE_MS, "ETH", Side.SHORT),
        decision(60 * MINUTE_MS),
        decision(119 * MINUTE_MS),
    ]
    assert reasons(rows, off(cooldown_minutes=60)) == [
        "certified",
        "cooldown",
        "certified",
        "certified",
        "cooldown",
    ]


def test_places_are_freed_strictly_after_an_exit() -> None:
    """Two places: at the instant of the exit it is still taken; one ms later it is free."""
    rows = [
        decision(0, "A", closed_ms=3 * HOUR_MS, r_multiple=1.0),
        decision(HOUR_MS, "B"),
        decision(3 * HOUR_MS, "C"),
        decision(3 * HOUR_MS + 1, "D"),
    ]
    assert reasons(rows, off(max_open=2)) == ["certified", "certified", "max_open", "certified"]


def test_an_order_that_never_filled_frees_its_place() -> None:
    """EXPIRED and CANCELLED count as ended, not as trades."""
    rows = [decision(0, closed_ms=HOUR_MS), decision(2 * HOUR_MS)]
    assert reasons(rows, off(max_open=1)) == ["certified", "certified"]


def test_the_side_limit_leaves_the_other_side_alone() -> None:
    """One long open: no second long, but a short."""
    rows = [decision(0, "A"), decision(HOUR_MS, "B"), decision(2 * HOUR_MS, "C", Side.SHORT)]
    assert reasons(rows, off(max_open_per_side=1)) == [
        "certified",
        "max_open_per_side",
        "certified",
    ]


def stop_at(hour: int, r: float = -1.0) -> Decision:
    """A certified trade decided on the hour and closed half an hour later."""
    at_ms = hour * HOUR_MS
    return decision(at_ms, closed_ms=at_ms + HOUR_MS // 2, r_multiple=r, stopped=r < 0)


def test_stops_in_a_row_pause_delivery() -> None:
    """Two stops at 0:30 and 1:30 pause four hours, to 5:30; a stop after that pauses again."""
    rows = [stop_at(hour) for hour in range(8)]
    rows.insert(6, decision(5 * HOUR_MS + HOUR_MS // 2))
    assert reasons(rows, off(max_consecutive_stops=2, stop_pause_hours=4)) == [
        "certified",
        "certified",
        "stop_streak",
        "stop_streak",
        "stop_streak",
        "stop_streak",
        "certified",
        "certified",
        "stop_streak",
    ]


def test_a_win_breaks_the_streak() -> None:
    """Stop, win, stop: no pause at two in a row."""
    rows = [stop_at(0), stop_at(1, r=0.5), stop_at(2), stop_at(3)]
    assert reasons(rows, off(max_consecutive_stops=2, stop_pause_hours=4)) == ["certified"] * 4


def test_drawdown_is_measured_from_the_peak_of_thirty_days() -> None:
    """+2 then -3 holds the next row back, until the losses are thirty days old."""
    closed = [stop_at(0, r=2.0), stop_at(1), stop_at(2), stop_at(3)]
    first_loss_ms = HOUR_MS + HOUR_MS // 2
    later = [
        decision(4 * HOUR_MS),
        decision(first_loss_ms + WINDOW_MS),  # the win has left the window, no loss has
        decision(first_loss_ms + WINDOW_MS + 1),  # two losses are left
    ]
    assert reasons(closed + later, off(max_drawdown_r=3.0)) == [
        *["certified"] * 4,
        "drawdown",
        "drawdown",
        "certified",
    ]


def test_only_delivered_rows_count() -> None:
    """Digest rows neither open places, nor stop streaks, nor draw down."""
    digest = [replace(stop_at(hour), delivery=Delivery.DIGEST) for hour in range(5)]
    assert reasons([*digest, decision(6 * HOUR_MS)], TIGHT)[-1] == "certified"


def test_a_row_decided_before_comes_first_at_its_instant() -> None:
    """A better row that turns up afterwards at the same close finds its side taken."""
    rows = [decision(0, "ETH", delivery=Delivery.PAPER), decision(0, "BTC", ev_lo_pct=9.0)]
    assert reasons(rows)[1] == "same_group"


def test_nan_is_refused() -> None:
    """A number that cannot be ordered is an error at birth."""
    with pytest.raises(ValueError, match="NaN"):
        decision(0, ev_lo_pct=float("nan"))
