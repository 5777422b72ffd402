"""Features are scale-free, dateless, signed by side, and say NaN only where history is absent."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest

from core import features
from core.domain import Candidate, Floats, Market, Side
from core.indicators import atr
from core.resample import resample
from core.signals import ScanInput, scan
from core.timeframe import DAY_MS, tf_ms
from tests.worlds import (
    MONDAY_MS,
    mapped,
    market_context,
    random_candles,
    scan_input,
    strategy,
)

CONFIG = strategy(
    setups=["limit", "reclaim"], min_tp_net_pct=0, fibo={"piv_window": 3, "min_impulse_atr": 2.0}
)
DAYS = 40


def candidates(data: ScanInput) -> list[Candidate]:
    """Return what a scan of everything takes."""
    found = scan(data, CONFIG, first_ms=0, last_ms=2**62).candidates
    assert len(found) > 100
    return found


@cache
def plain() -> tuple[ScanInput, list[Candidate]]:
    """Return a world with a leader, and its candidates."""
    base, leader = (random_candles(1440 * DAYS, seed=seed) for seed in (31, 32))
    data = scan_input(base, leader_base=leader, context=market_context(base, seed=33))
    return data, candidates(data)


def column(found: list[Candidate], name: str) -> Floats:
    """Return one feature of every candidate."""
    return np.array([c.features[features.NAMES.index(name)] for c in found])


def test_names_and_shape() -> None:
    """Every vector has one float per name, names are unique, and infinities do not occur."""
    assert len(set(features.NAMES)) == len(features.NAMES)
    _, found = plain()
    for candidate in found:
        assert candidate.features.shape == (len(features.NAMES),)
        assert candidate.features.dtype == np.float64
        assert not np.isinf(candidate.features).any()


def test_no_absolute_price() -> None:
    """All prices times a power of two: the same features, bit for bit."""
    data, found = plain()
    market = Market(symbol="AAA/USDT:USDT", kind="swap", tick=0.5 * 8)
    assert data.leader is not None
    leader = mapped(data.leader, scale=4)
    scaled = scan_input(mapped(data.base, scale=8), market=market, context=data.context)
    others = candidates(replace(scaled, leader=leader))
    assert len(others) == len(found)
    for one, other in zip(found, others, strict=True):
        np.testing.assert_array_equal(one.features, other.features)
        assert one.regime == other.regime


def test_no_date() -> None:
    """The same market a hundred weeks later has the same features."""
    _, found = plain()
    later_ms = MONDAY_MS + 700 * DAY_MS
    base, leader = (random_candles(1440 * DAYS, seed=s, start_ms=later_ms) for s in (31, 32))
    later = scan_input(base, leader_base=leader, context=market_context(base, seed=33))
    for one, other in zip(found, candidates(later), strict=True):
        np.testing.assert_array_equal(one.features, other.features)


def test_signed_by_side() -> None:
    """In the mirrored market a short looks like the long, but for what hangs on the price level."""
    data, found = plain()
    plain_found = candidates(replace(data, leader=None))
    beside = replace(
        data.context,
        funding_frac=-data.context.funding_frac,
        basis_pct=-data.context.basis_pct,
    )
    flipped = candidates(scan_input(mapped(data.base, mirror_at=20_000.0), context=beside))
    others = {(c.ts_ms, c.setup, Side(-c.plan.side)): c.features for c in flipped}
    level = {"cost_r", "atr_pct", "volatility_rank"}
    same = [i for i, name in enumerate(features.NAMES) if name not in level]
    assert len(plain_found) == len(found) == len(flipped)
    for candidate in plain_found:
        other = others[candidate.ts_ms, candidate.setup, candidate.plan.side]
        np.testing.assert_allclose(
            candidate.features[same], other[same], rtol=1e-6, atol=0.02, equal_nan=True
        )


def test_nan_only_where_history_is_short() -> None:
    """Own and leader features are complete once 62 bars exist; higher ones once theirs do."""
    data, found = plain()
    for i, higher in enumerate(data.higher, start=1):
        known = np.array([higher.closed_by(c.decided_ms) for c in found])
        for name, n_bars in (("ema_distance_atr", 50), ("ema_slope_atr", 62), ("efficiency", 49)):
            values = column(found, f"higher{i}_{name}")
            np.testing.assert_array_equal(np.isnan(values), known < n_bars)
    full = [c for c in found if c.ts_ms >= MONDAY_MS + 62 * 4 * 3_600_000]
    assert len(full) > 50
    assert not np.isnan([c.features for c in full]).any()


def test_a_leader_that_is_absent_or_stale_is_nan() -> None:
    """Without the leader's bar of the signal there is no leader return."""
    data, found = plain()
    assert data.leader is not None
    ts_ms = found[-1].ts_ms
    stale = data.leader[: data.leader.closed_by(ts_ms)]
    for leader in (None, stale):
        alone = scan(replace(data, leader=leader), CONFIG, first_ms=ts_ms, last_ms=ts_ms)
        assert np.isnan(column(alone.candidates, "leader_return_12")).all()
    assert not np.isnan(column(found[-1:], "leader_return_12")).any()


@pytest.mark.parametrize("i_found", [-1, -20, -60])
def test_values_against_pandas(i_found: int) -> None:
    """Trend, leader and volume features are what pandas makes of closed bars alone."""
    data, found = plain()
    candidate = found[i_found]
    decided_ms, side = candidate.decided_ms, candidate.plan.side
    minutes = data.base[: data.base.closed_by(decided_ms)]
    lookback = CONFIG.signals.lookback_candles
    for prefix, timeframe in (("own", "15m"), ("higher1", "1h"), ("higher2", "4h")):
        bars = resample(minutes, timeframe)[-lookback:]
        close = pd.Series(bars.close)
        line = close.ewm(span=50, adjust=False).mean()
        size = atr(bars.high, bars.low, bars.close, period=14)[-1]
        travel = (close.iloc[-1] - close.iloc[-49]) / close.diff().abs().iloc[-48:].sum()
        expected = {
            "ema_distance_atr": (close.iloc[-1] - line.iloc[-1]) / size,
            "ema_slope_atr": (line.iloc[-1] - line.iloc[-13]) / size,
            "efficiency": travel,
        }
        for name, value in expected.items():
            got = column([candidate], f"{prefix}_{name}")[0]
            assert got == pytest.approx(side * value, rel=1e-9)
    assert data.leader is not None
    leads = data.leader.close[: data.leader.closed_by(decided_ms)]
    for span in (12, 48):
        got = column([candidate], f"leader_return_{span}")[0]
        assert got == pytest.approx(side * (leads[-1] / leads[-1 - span] - 1), rel=1e-9)


def test_geometry_agrees_with_the_plan() -> None:
    """Depths, distances and ages are those of the plan and the pivots of the candidate."""
    data, found = plain()
    opens = data.bars.ts_ms.tolist()
    for candidate in found[::7]:
        plan, side = candidate.plan, candidate.plan.side
        value = dict(zip(features.NAMES, candidate.features.tolist(), strict=True))
        i, i0, i1 = (opens.index(t) for t in (candidate.ts_ms, candidate.p0_ms, candidate.p1_ms))
        p0, p1 = (data.bars.low[i0], data.bars.high[i1])
        worst = data.bars.low[i1 + 1 : i + 1].min()
        if side < 0:
            p0, p1 = (data.bars.high[i0], data.bars.low[i1])
            worst = data.bars.high[i1 + 1 : i + 1].max()
        assert value["impulse_bars"] == i1 - i0
        assert value["p1_age_bars"] == i - i1
        assert value["impulse_atr"] == pytest.approx(side * (p1 - p0) / plan.atr)
        assert value["entry_depth"] == pytest.approx((p1 - plan.entry) / (p1 - p0))
        assert value["close_depth"] == pytest.approx((p1 - data.bars.close[i]) / (p1 - p0))
        assert value["deepest_depth"] == pytest.approx((p1 - worst) / (p1 - p0))
        assert value["reward1_r"] == pytest.approx(1 / value["p_mart"] - 1)
        assert value["risk_atr"] == pytest.approx(plan.risk / plan.atr)
        assert (value["cost_r"], value["p_mart"]) == (plan.cost_r, plan.p_mart)


def test_calendar_by_hand() -> None:
    """The week starts on Monday; the hour is the decision's, not the bar's open."""
    _, found = plain()
    length_ms = tf_ms("15m")
    for candidate in found[::11]:
        instant = pd.Timestamp(candidate.ts_ms + length_ms, unit="ms", tz="UTC")
        hour = 2 * np.pi * (instant.hour + instant.minute / 60) / 24
        day = 2 * np.pi * instant.weekday() / 7
        names = ("hour_sin", "hour_cos", "weekday_sin", "weekday_cos")
        got = [column([candidate], name)[0] for name in names]
        assert got == pytest.approx([np.sin(hour), np.cos(hour), np.sin(day), np.cos(day)])


def test_without_the_avwap_its_features_are_nan() -> None:
    """An owner who does not use the AVWAP gets no AVWAP feature either."""
    data, _ = plain()
    off = strategy(setups=["limit"], min_tp_net_pct=0, avwap={"use": False})
    found = scan(data, off, first_ms=0, last_ms=2**62).candidates
    assert found
    assert np.isnan(column(found, "avwap_close_atr")).all()
    assert np.isnan(column(found, "avwap_entry_atr")).all()
    on = scan(data, strategy(min_tp_net_pct=0), first_ms=0, last_ms=2**62).candidates
    assert not np.isnan(column(on, "avwap_close_atr")).any()
