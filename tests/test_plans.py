"""Plans and refusals, worked by hand on small drawings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from core.config import Config, config_from
from core.costs import cost_rates, stop_cost_r, target_net_pct
from core.domain import Candidate, Candles, Market, Rejection, Series, Setup, Side
from core.signals import ScanInput, scan
from core.timeframe import tf_ms
from tests.worlds import MONDAY_MS, NO_MS, strategy

ALWAYS_MS = 2**62


def drawn(closes: list[float], *, market: Market | None = None) -> ScanInput:
    """Hourly bars that reach 1 above and below each close; their base is 60 quiet minutes each."""
    close = np.array(closes)
    ts_ms = MONDAY_MS + tf_ms("1h") * np.arange(len(close), dtype=np.int64)
    bars = Candles("1h", ts_ms, close, close + 1, close - 1, close, np.ones(len(close)))
    minute = np.repeat(close, 60)
    minute_ms = MONDAY_MS + 60_000 * np.arange(len(minute), dtype=np.int64)
    base = Candles(
        "1m", minute_ms, minute, minute + 0.1, minute - 0.1, minute, np.ones(len(minute))
    )
    return ScanInput(
        series=Series("test", "AAA/USDT:USDT", "1h"),
        bars=bars,
        higher=(Candles.empty("4h"), Candles.empty("1d")),
        base=base,
        leader=None,
        market=market or Market(symbol="AAA/USDT:USDT", kind="swap", tick=0.25),
        missing_ms=NO_MS,
    )


UP = [104.0, 103, 101, 103, 105, 111, 117, 121, 119, 117]  # low 100 at bar 2, high 122 at bar 7
BY_HAND = {"piv_window": 2, "min_impulse_atr": 2.0}


def by_hand(data: ScanInput, config: Config | None = None) -> Candidate | Rejection:
    """Return the only finding of a drawn series."""
    config = config or strategy(fibo=BY_HAND, atr_period=3, min_tp_net_pct=0)
    result = scan(data, config, first_ms=0, last_ms=ALWAYS_MS)
    assert result.n_setups == 1
    return [*result.candidates, *result.rejections][0]  # type: ignore[return-value]


def test_one_plan_by_hand() -> None:
    """The prices of a small up-impulse, worked out on paper."""
    found = by_hand(drawn(UP))
    assert isinstance(found, Candidate)
    # true ranges 2 2 3 3 3 7 7 5 3 3; Wilder with 3: 7/3, 23/9, 73/27, 335/81, 1237/243,
    # 3689/729, 9565/2187, 25691/6561
    plan = found.plan
    assert plan.atr == pytest.approx(25_691 / 6_561)
    assert (found.p0_ms, found.p1_ms) == (MONDAY_MS + 2 * 3_600_000, MONDAY_MS + 7 * 3_600_000)
    # 122 - .618 x 22 = 108.404 up; 100 - .5 x 3.9157 = 98.042 down; 127.984, 135.596 down
    assert (plan.entry, plan.stop, plan.tp1, plan.tp2) == (108.5, 98.0, 127.75, 135.5)
    assert plan.p_mart == pytest.approx(10.5 / 29.75)
    rates = cost_rates(Config().signals, drawn(UP).market)
    assert plan.cost_r == stop_cost_r(108.5, 98.0, rates)
    assert plan.decided_ms == MONDAY_MS + 10 * 3_600_000 == found.ts_ms + 3_600_000
    assert plan.actionable_ms == plan.decided_ms + 120_000
    assert plan.valid_until_ms == plan.decided_ms + 24 * 3_600_000
    assert plan.risk_pct == pytest.approx(1)
    assert plan.notional_usd == pytest.approx(100 * 108.5 / 10.5)
    assert found.rationale == (
        "Up-impulse 100.00 → 122.00 (5.6 ATR), limit at the 0.618 retracement, "
        "range, normal volatility"
    )


def test_the_same_impulse_downwards_by_hand() -> None:
    """A short rounds the other way: entry down, stop up, targets up."""
    found = by_hand(drawn([222 - price for price in UP]))
    assert isinstance(found, Candidate)
    plan = found.plan
    # P0 122, P1 100: 113.596 down, 123.958 up, 94.016 up, 86.404 up
    assert (plan.side, plan.entry, plan.stop) == (Side.SHORT, 113.5, 124.0)
    assert (plan.tp1, plan.tp2) == (94.25, 86.5)


def test_without_a_tick_the_step_of_the_window_is_used() -> None:
    """A fallback market rounds to the finest decimal of the base candles known at the decision."""
    market = Market(symbol="AAA/USDT:USDT", kind="swap", tick=25.0, fallback=True)
    found = by_hand(drawn(UP, market=market))
    assert isinstance(found, Candidate)
    assert (found.plan.entry, found.plan.stop) == (108.5, 98.0)  # 108.404 and 98.042 at 0.1
    assert (found.plan.tp1, found.plan.tp2) == (127.9, 135.5)


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("minute", "is_hole"),
    [(-1, False), (0, True), (599, True), (600, False)],
)
def test_a_hole_counts_from_the_first_pivot_to_the_decision(minute: int, is_hole: bool) -> None:
    """The first pivot's neighbourhood opens at minute 0; the decision falls at minute 600."""
    missing = np.array([MONDAY_MS + 60_000 * minute], dtype=np.int64)
    found = by_hand(replace(drawn(UP), missing_ms=missing))
    assert isinstance(found, Rejection) == is_hole
    if isinstance(found, Rejection):
        assert (found.reason, found.side, found.setup) == ("hole", Side.LONG, Setup.LIMIT)
        assert found.p1_ms == MONDAY_MS + 7 * 3_600_000


@pytest.mark.parametrize(
    ("minute", "is_spanned"),
    [(-60, False), (0, False), (1, True), (599, True), (600, False)],
)
def test_a_seam_counts_between_the_first_pivot_and_the_decision(
    minute: int, is_spanned: bool
) -> None:
    """From the first bar's open on all is one market; so it is up to the decision's bar."""
    seams = np.array([MONDAY_MS + 60_000 * minute], dtype=np.int64)
    found = by_hand(replace(drawn(UP), seams_ms=seams))
    assert isinstance(found, Rejection) == is_spanned
    if isinstance(found, Rejection):
        assert found.reason == "seam"


def hand_config(**settings: Any) -> Config:
    """`by_hand`'s settings with other sections beside them."""
    signals = {"fibo": BY_HAND, "atr_period": 3, "min_tp_net_pct": 0, **settings.pop("signals", {})}
    return config_from({"signals": signals, **settings})


def reason_of(found: Candidate | Rejection) -> str:
    """Return the reason of a refusal, or that there was none."""
    return found.reason if isinstance(found, Rejection) else "taken"


def test_spot_long_only_declines_shorts_and_borrows_nothing() -> None:
    """On a spot market it leaves longs, without leverage; elsewhere it has no effect."""
    spot = Market(symbol="AAA/USDT", kind="spot", tick=0.25)
    down = [222 - price for price in UP]
    only = hand_config(risk={"spot_long_only": True, "risk_per_trade_pct": 10})
    assert reason_of(by_hand(drawn(down, market=spot), only)) == "spot_long_only"
    assert reason_of(by_hand(drawn(down, market=spot), hand_config())) == "taken"
    assert reason_of(by_hand(drawn(down), only)) == "taken"
    long = by_hand(drawn(UP, market=spot), only)
    assert isinstance(long, Candidate)
    assert (long.plan.leverage, long.plan.liquidation) == (1, 0)


def test_entry_passed() -> None:
    """A close at or through the entry comes too late for a limit there."""
    late = by_hand(drawn([*UP[:-1], 108.0]))
    assert reason_of(late) == "entry_passed"
    assert reason_of(by_hand(drawn([*UP[:-1], 108.5]))) == "entry_passed"
    assert reason_of(by_hand(drawn([*UP[:-1], 109.0]))) == "taken"


def test_tp_net() -> None:
    """A target that pays less than wanted, both maker fees paid, is not worth it."""
    rates = cost_rates(Config().signals, drawn(UP).market)
    pays_pct = target_net_pct(108.5, 127.75, rates)
    enough = hand_config(signals={"min_tp_net_pct": pays_pct})
    too_much = hand_config(signals={"min_tp_net_pct": pays_pct + 1e-9})
    assert reason_of(by_hand(drawn(UP), enough)) == "taken"
    assert reason_of(by_hand(drawn(UP), too_much)) == "tp_net"


def test_noise() -> None:
    """A stop nearer than three median base spans of the last 240 minutes is inside the noise."""
    data = drawn(UP)

    def with_spans(span: float, *, n_last: int) -> ScanInput:
        half = data.base.high - data.base.close
        half[-n_last:] = span / 2
        base = replace(data.base, high=data.base.close + half, low=data.base.close - half)
        return replace(data, base=base)

    # the stop is 10.5 away
    assert reason_of(by_hand(with_spans(3.5, n_last=240))) == "taken"
    assert reason_of(by_hand(with_spans(3.51, n_last=240))) == "noise"
    assert reason_of(by_hand(with_spans(3.51, n_last=119))) == "taken"
    assert reason_of(by_hand(with_spans(1000.0, n_last=119))) == "taken"  # a median, not a mean


def test_size() -> None:
    """A stop that no leverage keeps clear of liquidation is declined in words."""
    wide = hand_config(signals={"atr_mult_sl": 20.0}, risk={"liquidation_buffer_pct": 50.0})
    found = by_hand(drawn(UP), wide)  # stop 21.5: 80 % away
    assert isinstance(found, Rejection)
    assert found.reason == "size"
    assert "80.2 %" in found.detail


def test_order() -> None:
    """Prices that fall together on a coarse tick, or below zero, make no plan."""
    coarse = Market(symbol="AAA/USDT:USDT", kind="swap", tick=50.0)
    assert reason_of(by_hand(drawn(UP, market=coarse))) == "order"
    cheap = [price - 98 for price in UP]  # P0 at 2, stop below zero
    tiny = Market(symbol="AAA/USDT:USDT", kind="swap", tick=0.01)
    assert reason_of(
        by_hand(drawn(cheap, market=tiny), hand_config(signals={"atr_mult_sl": 1.0}))
    ) == ("order")


def test_small_impulses_are_no_setups() -> None:
    """An impulse below min_impulse_atr is neither taken nor declined."""
    size_atr = 22 / (25_691 / 6_561)
    for wanted, n_setups in ((size_atr - 1e-9, 1), (size_atr + 1e-9, 0)):
        fibo = {"piv_window": 2, "min_impulse_atr": wanted}
        config = strategy(fibo=fibo, atr_period=3, min_tp_net_pct=0)
        result = scan(drawn(UP), config, first_ms=0, last_ms=ALWAYS_MS)
        assert (result.n_setups, result.n_bars) == (n_setups, 10)


def test_an_empty_series_has_nothing_to_decide() -> None:
    """No bars, no findings, no error."""
    data = replace(drawn(UP), bars=Candles.empty("1h"))
    result = scan(data, Config(), first_ms=0, last_ms=ALWAYS_MS)
    assert (result.n_bars, result.n_setups) == (0, 0)
