"""Which rows are settlements, which settlement is awaited, and what is known at a decision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.domain import FundingRate, Ints
from core.execution_kernel import FUNDING_MS
from core.funding_law import MAX_RATE_FRAC, SETTLE_MS, awaited_ms, lawful_rates
from core.market_context import MarketContext, context_values
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS

MIDNIGHT_MS = 1_704_067_200_000
EVER = {"start_ms": 0, "end_ms": 1 << 53}

stamps = st.integers(MIDNIGHT_MS, MIDNIGHT_MS + DAY_MS)
rates = st.floats(-0.3, 0.3)


@given(rows=st.lists(st.tuples(stamps, rates), max_size=40), turn=st.randoms())
def test_settlements_come_sorted_on_whole_minutes_and_within_bounds(
    rows: list[tuple[int, float]], turn: Any
) -> None:
    """Each minute once, every rate below a fifth; what is left out is counted."""
    found, n_refused = lawful_rates(rows, **EVER)
    assert [r.ts_ms for r in found] == sorted({t - t % MINUTE_MS for t, r in rows if abs(r) < 0.2})
    assert all(abs(rate.rate_frac) < MAX_RATE_FRAC for rate in found)
    assert n_refused == sum(abs(rate) >= MAX_RATE_FRAC for _, rate in rows)
    unlike = {t - t % MINUTE_MS: (t, r) for t, r in rows}
    shuffled = list(unlike.values())
    turn.shuffle(shuffled)
    assert lawful_rates(shuffled, **EVER)[0] == lawful_rates(unlike.values(), **EVER)[0]


@pytest.mark.parametrize(
    "row",
    [(None, 0.1), (1, None), (MIDNIGHT_MS, math.nan), (MIDNIGHT_MS, math.inf), ("x", 0.1), (-5, 0)],
)
def test_what_is_no_rate_is_refused_and_the_rest_stands(row: tuple[Any, Any]) -> None:
    """One damaged row costs itself."""
    good = (MIDNIGHT_MS + 7, "0.0001")
    assert lawful_rates([row, good], **EVER) == ([FundingRate(MIDNIGHT_MS, 0.0001)], 1)


def hours(text: str) -> Ints:
    """Instants of "0 8 16": hours after midnight."""
    return MIDNIGHT_MS + HOUR_MS * np.array(text.split(), dtype=np.int64)


@pytest.mark.parametrize(
    ("known", "at_hour", "awaited"),
    [
        ("0 8", 16, True),
        ("0 8 16", 16, False),  # it is there
        ("0 8", 17, False),  # not on the grid, and none was settled between
        ("4 8 12", 16, True),
        ("0 4 8", 12, True),  # four-hourly: off the grid of the constant
        ("4 5 6", 7, True),
        ("16", 24, True),
        ("", 8, False),  # nobody publishes
        ("0", 24, False),  # a day without one: nobody publishes any more
    ],
)
def test_a_settlement_is_awaited_where_its_predecessors_say_so(
    known: str, at_hour: int, awaited: bool
) -> None:
    """From its instant for ten minutes, and not a millisecond longer."""
    hour_ms = MIDNIGHT_MS + at_hour * HOUR_MS
    wanted = hour_ms if awaited else None
    for later_ms in (0, 1, MINUTE_MS, SETTLE_MS - 1):
        assert awaited_ms(hours(known), hour_ms + later_ms) == wanted
    assert awaited_ms(hours(known), hour_ms + SETTLE_MS) is None
    assert awaited_ms(hours(known), hour_ms - 1) is None


def test_the_grid_is_that_of_the_constant() -> None:
    """Where execution would charge the constant, a published rate is waited for."""
    for hour in range(24):
        at_ms = MIDNIGHT_MS + DAY_MS + hour * HOUR_MS
        before = np.array([at_ms - FUNDING_MS - HOUR_MS], np.int64)
        assert (awaited_ms(before, at_ms) is not None) == (at_ms % FUNDING_MS == 0)


def at(decided_ms: int, values: dict[str, Any], side: int = 1) -> tuple[float, ...]:
    """What a decision knows of some values."""
    return context_values(MarketContext(**values), side=side, decided_ms=decided_ms)


def test_funding_by_hand() -> None:
    """Rates 1, 2 … 12 bps; decided at the twelfth's instant, ten minutes later, and stale."""
    funding_ms = MIDNIGHT_MS + 8 * HOUR_MS * np.arange(12, dtype=np.int64)
    stored = {"funding_ms": funding_ms, "funding_frac": 1e-4 * np.arange(1.0, 13)}
    last_ms = int(funding_ms[-1])
    assert at(last_ms, stored)[:2] == pytest.approx((0.11, 0.01 * sum(range(3, 12))))
    assert at(last_ms + SETTLE_MS - 1, stored)[0] == pytest.approx(0.11)
    known = at(last_ms + SETTLE_MS, stored)
    assert known[:2] == pytest.approx((0.12, 0.01 * sum(range(4, 13))))
    short = at(last_ms + SETTLE_MS, stored, -1)
    assert short[:2] == pytest.approx((-0.12, -0.01 * sum(range(4, 13))))
    assert np.isnan(known[2:]).all()
    stale = at(last_ms + SETTLE_MS + 8 * HOUR_MS, stored)
    assert np.isnan(stale).all()
    fewer = {name: values[:8] for name, values in stored.items()}
    early = at(int(funding_ms[7]) + HOUR_MS, fewer)
    assert early[0] == pytest.approx(0.08)
    assert math.isnan(early[1])


def test_open_interest_by_hand() -> None:
    """120 now against 100 a day before; a read after the instant, or an old one, is none."""
    day_ms = MIDNIGHT_MS + DAY_MS
    times = np.array([MIDNIGHT_MS - HOUR_MS + 1, MIDNIGHT_MS + 1, day_ms - MINUTE_MS, day_ms + 1])
    stored = {"interest_ms": times, "interest_qty": np.array([100.0, 50.0, 120.0, 150.0])}
    assert at(day_ms, stored)[3] == at(day_ms, stored, -1)[3] == pytest.approx(0.2)
    assert at(day_ms + 1, stored)[3] == pytest.approx(150 / 50 - 1)
    assert math.isnan(at(day_ms + HOUR_MS + 1, stored)[3])
    assert math.isnan(at(day_ms - HOUR_MS, stored)[3])


def test_basis_by_hand() -> None:
    """The signal bar's own close, or nothing."""
    stored = {"basis_ms": hours("1 2 4"), "basis_pct": np.array([0.1, 0.2, 0.4])}
    assert at(MIDNIGHT_MS + 2 * HOUR_MS, stored)[2] == 0.2
    assert at(MIDNIGHT_MS + 2 * HOUR_MS, stored, -1)[2] == -0.2
    assert math.isnan(at(MIDNIGHT_MS + 3 * HOUR_MS, stored)[2])
    assert math.isnan(at(MIDNIGHT_MS + 5 * HOUR_MS, stored)[2])
