"""Stakes lose what the owner allows, and rounding is always against us."""

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config import Risk
from core.costs import CostRates
from core.domain import Side
from core.risk import MAINTENANCE_FRAC, finest_step, finest_steps, latest_entry, on_tick, sizing


class Position(NamedTuple):
    """One position, in plain numbers."""

    leverage: float
    notional_usd: float
    risk_pct: float
    liquidation: float


def sized(entry: float, stop: float, *, risk: Risk, unlevered: bool = False) -> Position:
    """Return the position of one plan."""
    found = sizing(np.array([entry]), np.array([stop]), risk=risk, unlevered=unlevered)
    return Position(*(float(column[0]) for column in found))


def rounded(price: float, tick: float, *, up: bool) -> float:
    """Return one price on the grid."""
    return float(on_tick(np.array([price]), np.array([tick]), up=np.array([up]))[0])


TICKS = ["0.01", "0.05", "0.5", "1", "5", "0.0001", "0.00000001"]


@given(
    entry=st.floats(0.01, 1e5),
    stop_frac=st.floats(1e-4, 0.9),
    is_long=st.booleans(),
    mode=st.sampled_from(["conservative", "normal", "aggressive"]),
    buffer_pct=st.floats(0, 20),
)
@settings(max_examples=300, deadline=None)
def test_size_obeys_every_cap(
    entry: float, stop_frac: float, is_long: bool, mode: str, buffer_pct: float
) -> None:
    """Loss at the stop, leverage and liquidation keep within the owner's limits, and none idles."""
    side = 1 if is_long else -1
    stop = entry * (1 - side * stop_frac)
    risk = Risk(mode=mode, liquidation_buffer_pct=buffer_pct)  # type: ignore[arg-type]
    found = sized(entry, stop, risk=risk)
    assert found.leverage or stop_frac + buffer_pct / 100 + MAINTENANCE_FRAC > 1 - 1e-9
    if not found.leverage:
        return
    equity, exposure = risk.equity_usd, found.notional_usd / risk.equity_usd
    assert found.leverage == int(found.leverage) >= 1
    assert found.leverage <= risk.leverage_cap
    assert exposure <= found.leverage * (1 + 1e-12)
    assert found.leverage - exposure < 1 + 1e-12  # the smallest whole leverage that carries it
    loss_usd = found.notional_usd * abs(entry - stop) / entry
    assert loss_usd <= equity * risk.trade_pct / 100 * (1 + 1e-9)
    assert found.risk_pct == pytest.approx(100 * loss_usd / equity)
    room = side * (stop - found.liquidation)
    assert room >= buffer_pct / 100 * entry - 1e-9 * entry
    if loss_usd < equity * risk.trade_pct / 100 * (1 - 1e-9):  # something held it back
        more = found.leverage + 1
        too_near = 1 / more - MAINTENANCE_FRAC < stop_frac + buffer_pct / 100 + 1e-9
        assert more > risk.leverage_cap or too_near


def test_size_by_hand() -> None:
    """1 % of 10 000 at a stop 0.4 % away wants 25 000: leverage 3, closed out 32.8 % below."""
    found = sized(100.0, 99.6, risk=Risk())
    assert found.notional_usd == pytest.approx(25_000)
    assert found.leverage == 3
    assert found.liquidation == pytest.approx(100 * (1 - 1 / 3 + 0.005))
    capped = sized(100.0, 99.9, risk=Risk())  # wants 10 x, normal mode allows 5
    assert (capped.notional_usd, capped.leverage) == (50_000, 5)
    assert capped.risk_pct == pytest.approx(0.5)
    outright = sized(100.0, 99.6, risk=Risk(), unlevered=True)
    assert (outright.notional_usd, outright.leverage, outright.liquidation) == (10_000, 1, 0)


def test_no_room_is_a_leverage_of_zero() -> None:
    """A stop beyond every liquidation price has no size."""
    assert sized(100.0, 1.0, risk=Risk()).leverage == 0
    assert sized(100.0, 198.9, risk=Risk()).leverage == 0


@given(n=st.integers(1, 10**9), frac=st.fractions(0, 1), tick=st.sampled_from(TICKS))
@settings(max_examples=300, deadline=None)
def test_rounding_is_directed_and_lands_on_the_grid(n: int, frac: Fraction, tick: str) -> None:
    """Up is at or above, down at or below, never a tick away, and equal to the written decimal."""
    step = Fraction(tick)
    price = (n + frac) * step
    for up in (True, False):
        found = rounded(float(price), float(tick), up=up)
        grid = round(Fraction(found) / step)
        assert found == float(grid * step)
        slack = step / 100_000  # float noise of the price itself counts as on the grid
        away = grid * step - price if up else price - grid * step
        assert -slack <= away < step + slack


def test_a_price_on_the_grid_stays() -> None:
    """Noise of the arithmetic before does not cost a tick."""
    assert rounded(0.1 + 0.2, 0.1, up=True) == 0.3
    assert rounded(61234.56, 0.01, up=True) == rounded(61234.56, 0.01, up=False) == 61234.56
    assert rounded(12345.0, 5.0, up=False) == 12345.0


@pytest.mark.parametrize(
    ("prices", "step"),
    [
        ([61234.5, 61234.56, 61230.0], 0.01),
        ([100.0, 105.0], 1.0),
        ([0.00001234, 0.00001], 1e-8),
        ([3 * 0.1, 7 * 0.1], 0.1),
    ],
)
def test_finest_step(prices: list[float], step: float) -> None:
    """The step is the last decimal place in use, whatever the order, and noise is no decimal."""
    assert finest_step(np.array(prices)) == step
    assert finest_step(np.array(prices[::-1])) == step


def test_the_finest_steps_of_windows_are_each_alone() -> None:
    """High, low and close of a window's own bars count, and no other bar's."""
    high, low = np.array([1.0, 2.5, 3.0, 4.0]), np.array([1.0, 2.0, 2.25, 4.0])
    close = np.array([1.0, 2.0, 3.0, 3.9])
    first, end = np.array([0, 0, 1, 2, 3]), np.array([1, 2, 3, 3, 4])
    assert finest_steps(high, low, close, first, end).tolist() == [1.0, 0.1, 0.01, 0.01, 0.1]


@given(
    side=st.sampled_from(list(Side)),
    risk_frac=st.floats(0.005, 0.2),
    reward_frac=st.floats(0.01, 0.3),
    fee=st.floats(0, 0.002),
    wanted_pct=st.floats(0, 3),
    p=st.floats(0.05, 0.95),
)
def test_the_latest_entry_pays_exactly_what_is_asked(
    side: Side, risk_frac: float, reward_frac: float, fee: float, wanted_pct: float, p: float
) -> None:
    """At that price, paid as a taker, TP1 nets the minimum; with a chance, two outcomes net 0.

    The nearer of both counts, so that coming later is never asked to pay less.
    """
    stop, tp1 = 100 * (1 - side * risk_frac), 100 * (1 + side * reward_frac)
    rates = CostRates(maker_frac=fee, taker_frac=2 * fee, slippage_frac=fee, funding_frac_8h=0.0)
    asked: dict[str, Any] = {"stop": stop, "tp1": tp1, "rates": rates, "min_tp_net_pct": wanted_pct}

    def net(entry: float, out: float, out_frac: float) -> float:
        return side * (out - entry) - 3 * fee * entry - out_frac * out

    paying = latest_entry(side, **asked)
    assert 100 * net(paying, tp1, fee) / paying == pytest.approx(wanted_pct, abs=1e-9)
    both = latest_entry(side, **asked, p_win=p)
    assert side * both <= side * paying + 1e-9
    value = p * net(both, tp1, fee) + (1 - p) * net(both, stop, 3 * fee)
    at_limit = 100 * net(both, tp1, fee) / both
    assert value == pytest.approx(0, abs=1e-9) or at_limit == pytest.approx(wanted_pct, abs=1e-9)
    assert value >= -1e-9
    assert at_limit >= wanted_pct - 1e-9
