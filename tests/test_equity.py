"""Equity worked by hand, marked trade by trade, and falls that survive being cut into weeks."""

from __future__ import annotations

from dataclasses import replace
from math import isnan

import numpy as np
import pytest

from core import equity
from core.domain import Floats, Ints
from core.equity import Positions, closed_r, equity_curve, falls, open_r, underwater
from core.timeframe import DAY_MS, HOUR_MS

T0 = 1_704_067_200_000  # 2024-01-01 00:00 UTC, a Monday


def test_equity_and_drawdown_worked_by_hand() -> None:
    """Ordered by close, trades of one instant as one step, the first loss counts from zero."""
    closed = np.array([30, 10, 20, 40, 20])
    r = np.array([3.0, -1.0, 2.0, -4.0, -0.5])
    ts_ms, total, under = equity_curve(closed, r)
    assert ts_ms.tolist() == [10, 20, 30, 40]
    assert total.tolist() == [-1.0, 0.5, 3.5, -0.5]
    assert under.tolist() == [-1.0, 0.0, 0.0, -4.0]
    assert len(equity_curve(closed[:0], r[:0])[0]) == 0


def held(**changed: list[float]) -> Positions:
    """One long of entry 100 and stop 90, half of it out at 110 in hour 2, closed in hour 4."""
    columns = {
        "side": [1],
        "risk": [10.0],
        "opened_price": [100.0],
        "opened_ms": [T0 + HOUR_MS],
        "tp1": [110.0],
        "tp1_ms": [T0 + 2 * HOUR_MS],
        "tp1_fraction": [0.5],
        "closed_ms": [T0 + 4 * HOUR_MS],
        "net_r": [0.9],
        "cost_r": [0.1],
    } | changed
    return Positions(**{name: np.array(values) for name, values in columns.items()})


def test_a_trade_is_worth_what_leaving_it_would_bring() -> None:
    """At 100, 104, 112, 108, 115: half at TP1 is .5 R for good, the rest moves with the price.

    Hour 2: .5 + .5 x 1.2; hour 3: .5 + .5 x .8; each less .1 of costs; from hour 4 on it is closed.
    """
    hours = T0 + HOUR_MS * np.arange(5)
    price = np.array([100.0, 104.0, 112.0, 108.0, 115.0])
    assert open_r(held(), hours, price) == pytest.approx([0.0, 0.3, 1.0, 0.8, 0.0])
    assert closed_r(held(), hours).tolist() == [0.0, 0.0, 0.0, 0.0, 0.9]
    never = held(closed_ms=[0], tp1_ms=[0])
    assert open_r(never, hours, price) == pytest.approx([0.0, 0.3, 1.1, 0.7, 1.4])
    assert closed_r(never, hours).tolist() == [0.0] * 5


def _some(n: int, chance: np.random.Generator) -> Positions:
    """Trades of both sides; some without TP1, some still open."""
    opened = T0 + chance.integers(0, 300 * HOUR_MS, n)
    tp1 = opened + chance.integers(1, 40 * HOUR_MS, n)
    closed = tp1 + chance.integers(0, 40 * HOUR_MS, n)
    side = np.where(chance.random(n) < 0.5, 1, -1)
    entry = 100 + chance.normal(0, 3, n)
    return Positions(
        side=side,
        risk=chance.uniform(0.5, 4, n),
        opened_price=entry,
        opened_ms=opened,
        tp1=entry + side * chance.uniform(1, 5, n),
        tp1_ms=np.where(chance.random(n) < 0.5, tp1, 0),
        tp1_fraction=np.full(n, 0.4),
        closed_ms=np.where(chance.random(n) < 0.9, closed, 0),
        net_r=chance.normal(0, 1, n),
        cost_r=chance.uniform(0, 0.3, n),
    )


def _slow(p: Positions, ts_ms: Ints, price: Floats) -> tuple[list[float], list[float]]:
    """By the definition, instant by instant and trade by trade."""
    marked, settled = [], []
    for at, now in zip(ts_ms.tolist(), price.tolist(), strict=True):
        live, done = 0.0, 0.0
        for k in range(len(p)):
            if p.closed_ms[k] and p.closed_ms[k] <= at:
                done += p.net_r[k]
            elif p.opened_ms[k] <= at:
                out = p.tp1_fraction[k] if 0 < p.tp1_ms[k] <= at else 0.0
                gain = out * (p.tp1[k] - p.opened_price[k]) + (1 - out) * (now - p.opened_price[k])
                live += p.side[k] * gain / p.risk[k] - p.cost_r[k]
        marked.append(float(live))
        settled.append(float(done))
    return marked, settled


def test_marking_many_trades_at_once_is_marking_each() -> None:
    """200 trades on 400 hours against the definition."""
    chance = np.random.default_rng(2)
    positions, hours = _some(200, chance), T0 + HOUR_MS * np.arange(400)
    price = 100 + np.cumsum(chance.normal(0, 0.4, 400))
    marked, settled = _slow(positions, hours, price)
    np.testing.assert_allclose(open_r(positions, hours, price), marked, atol=1e-8)
    np.testing.assert_allclose(closed_r(positions, hours), settled, atol=1e-9)


def test_prices_mirrored_with_the_sides_mark_alike() -> None:
    """A short in a falling market is a long in a rising one."""
    chance = np.random.default_rng(3)
    positions, hours = _some(50, chance), T0 + HOUR_MS * np.arange(400)
    price = 100 + np.cumsum(chance.normal(0, 0.4, 400))
    mirrored = replace(
        positions,
        side=-positions.side,
        opened_price=200 - positions.opened_price,
        tp1=200 - positions.tp1,
    )
    got, want = open_r(mirrored, hours, 200 - price), open_r(positions, hours, price)
    np.testing.assert_allclose(got, want, atol=1e-8)


def test_where_nothing_is_open_the_book_is_its_closed_trades() -> None:
    """Exactly, and without a price: what rounding leaves of closed trades is not shown."""
    chance = np.random.default_rng(4)
    some = _some(300, chance)
    positions = replace(some, closed_ms=some.opened_ms + 90 * HOUR_MS)
    hours = T0 + HOUR_MS * np.arange(500)
    price = 100 + np.cumsum(chance.normal(0, 0.4, 500))
    after = hours >= positions.closed_ms.max()
    assert after.sum() > 50
    marked = open_r(positions, hours, np.where(after, np.nan, price))
    assert np.unique(marked[after]).tolist() == [0.0]
    assert closed_r(positions, hours)[-1] == pytest.approx(positions.net_r.sum())


def _walk(n_hours: int, chance: np.random.Generator) -> tuple[Ints, Floats]:
    return T0 + HOUR_MS * np.arange(n_hours), np.cumsum(chance.normal(0, 1, n_hours))


def test_a_fall_survives_being_cut_into_weeks() -> None:
    """Legs walked in their own order give the gain and the deepest fall of the curve itself."""
    for seed in range(30):
        ts_ms, total = _walk(24 * 60, np.random.default_rng(seed))
        legs = equity._legs(ts_ms, total)
        gain, depth = equity._redrawn(legs, np.arange(len(legs.gain))[None, :])
        assert gain[0] == pytest.approx(total[-1])
        assert depth[0] == pytest.approx(-underwater(total).min())


def test_another_order_is_the_curve_of_that_order() -> None:
    """Weeks put together again by hand fall as deep as the legs say."""
    ts_ms, total = _walk(24 * 7 * 6, np.random.default_rng(5))
    steps = np.split(np.diff(total, prepend=0.0), 6)
    order = [3, 3, 0, 5, 1, 4]
    path = np.cumsum(np.concatenate([steps[k] for k in order]))
    gain, depth = equity._redrawn(equity._legs(ts_ms, total), np.array([order]))
    assert gain[0] == pytest.approx(path[-1])
    assert depth[0] == pytest.approx(-underwater(path).min())


def test_calmar_is_the_yearly_gain_over_the_deepest_fall() -> None:
    """Up 6, down 2, up 8 in half a year: 24 a year over 2. A curve that never falls has none."""
    ts_ms = T0 + DAY_MS * np.arange(0, 182, 7)
    steps = np.full(26, 0.5)
    steps[12:16] = -0.5
    steps[16:] = 0.8
    found = falls(ts_ms, np.cumsum(steps), np.random.default_rng(1), years=0.5)
    assert found.drawdown_r == pytest.approx(2.0)
    assert found.calmar == pytest.approx((6 - 2 + 8) / 0.5 / 2)
    assert found.drawdown_r_lo <= 2.0 <= found.drawdown_r_hi
    assert found.calmar_lo <= found.calmar <= found.calmar_hi
    rising = falls(ts_ms, np.arange(1.0, 27), np.random.default_rng(1), years=0.5)
    assert rising.drawdown_r == 0.0
    assert isnan(rising.calmar)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_short_curves_have_no_interval(n: int) -> None:
    """NaN and never an error."""
    ts_ms, total = _walk(n, np.random.default_rng(1))
    found = falls(ts_ms, total, np.random.default_rng(1), years=0.1)
    assert isnan(found.drawdown_r) == (n == 0)
    assert isnan(found.drawdown_r_lo)
