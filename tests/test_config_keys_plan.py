"""Every key of the settings has an effect: the strategy, the size, and how a trade is followed."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import candle_files
from core.config import Config, config_from
from core.costs import cost_rates
from core.domain import Candidate, Candles, Gate, Market, Rejection, Setup, Status
from core.execution import Outcome, exit_rules
from core.gating import Facts, verdict
from core.jobs import files, retro
from core.signals import ScanInput, ScanResult, scan
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from tests import trades
from tests.config_keys import nested, shows, turned
from tests.engine_world import opened, write_config
from tests.test_plans import UP, drawn
from tests.test_risk import Position, sized
from tests.worlds import MONDAY_MS, random_candles, scan_input

ALWAYS_MS = 2**62
BARE = {"setups": ["limit"], "atr_period": 3, "min_tp_net_pct": 0}
SWAP = Market(symbol="AAA/USDT:USDT", kind="swap", tick=0.25)
TWO_LOWS = [104.0, 103, 100, 104, 108, 106, 104, 108, 113, 119, 122, 120, 118]
ATR = 25_691 / 6_561  # of the drawing UP, over 3 bars


def hand(closes: list[float], key: str = "", value: Any = None, **others: Any) -> ScanResult:
    """What the scan finds in a drawing, with one key turned: by default one plan worked by hand."""
    tree = nested({key: value}) if key else {}
    own = tree.pop("signals", {})
    fibo = {"piv_window": 2, "min_impulse_atr": 2.0, **own.pop("fibo", {})}
    signals = {**BARE, **own, "fibo": fibo}
    data = drawn(closes, market=others.get("market"))
    return scan(data, config_from({"signals": signals, **tree}), first_ms=0, last_ms=ALWAYS_MS)


def plan(key: str = "", value: Any = None) -> Any:
    """The one plan of the drawing UP: entry 108.5, stop 98, targets 127.75 and 135.5."""
    (found,) = hand(UP, key, value).candidates
    return found.plan


def reasons(result: ScanResult) -> list[str]:
    """Why setups were declined."""
    return [rejection.reason for rejection in result.rejections]


@cache
def world() -> ScanInput:
    """Two weeks of minutes."""
    return scan_input(random_candles(14 * 1440, seed=11))


def found_in_the_world(**signals: Any) -> list[Candidate | Rejection]:
    """What a scan of the world finds."""
    small = {"piv_window": 3, "anchors_to_consider": 12, "min_impulse_atr": 2.0}
    config = config_from({"signals": {"fibo": small, "lookback_candles": 80, **signals}})
    result = scan(world(), config, first_ms=0, last_ms=ALWAYS_MS)
    assert result.n_setups > 20
    return [*result.candidates, *result.rejections]


@shows("signals.setups")
def test_only_the_setups_that_are_listed_are_sought() -> None:
    """One kind, the other, or both."""
    for kinds in ({Setup.LIMIT}, {Setup.RECLAIM}, {Setup.LIMIT, Setup.RECLAIM}):
        assert {one.setup for one in found_in_the_world(setups=[*kinds])} == kinds


@shows("signals.lookback_candles")
def test_no_impulse_starts_before_the_window() -> None:
    """With 60 bars none is older than that; with 300 some are."""
    oldest = {}
    for n in (60, 300):
        found = found_in_the_world(setups=["limit"], lookback_candles=n, min_tp_net_pct=0)
        ages = [one.ts_ms - one.p0_ms for one in found if isinstance(one, Candidate)]
        oldest[n] = max(ages) // (15 * MINUTE_MS)
    assert oldest[60] < 60 < oldest[300]


@shows("signals.atr_period")
def test_the_range_is_averaged_over_the_period() -> None:
    """Over 3 bars as worked by hand; over 9 it is another."""
    assert plan().atr == pytest.approx(ATR)
    assert plan("signals.atr_period", 9).atr != pytest.approx(ATR)


@shows("signals.atr_mult_sl")
def test_the_stop_lies_so_many_ranges_beyond_the_start() -> None:
    """100 less .5 x 3.92 on the tick below is 98; less 1 x 3.92 it is 96."""
    assert (plan().stop, plan("signals.atr_mult_sl", 1.0).stop) == (98.0, 96.0)


@shows("signals.fibo.piv_window")
def test_a_wider_pivot_is_known_later() -> None:
    """The same two pivots; with three bars on either side the decision comes a bar later."""
    closes = [106.0, 105, *UP, 116]
    (two,) = hand(closes, "signals.fibo.piv_window", 2).candidates
    (three,) = hand(closes, "signals.fibo.piv_window", 3).candidates
    assert (two.p0_ms, two.p1_ms) == (three.p0_ms, three.p1_ms)
    assert three.ts_ms == two.ts_ms + HOUR_MS


@shows("signals.fibo.anchors_to_consider")
def test_the_start_is_the_most_extreme_of_so_many_pivots() -> None:
    """One looks no further than the nearer, higher low; three find the deeper one before it."""
    key = "signals.fibo.anchors_to_consider"
    one, three = (hand(TWO_LOWS, key, n).candidates[-1] for n in (1, 3))
    assert one.p1_ms == three.p1_ms
    assert one.p0_ms - three.p0_ms == 4 * HOUR_MS
    assert one.plan.stop > three.plan.stop


@shows("signals.fibo.min_impulse_atr")
def test_a_small_impulse_is_no_setup() -> None:
    """22 are 5.6 ranges."""
    assert [hand(UP, "signals.fibo.min_impulse_atr", x).n_setups for x in (5.6, 5.7)] == [1, 0]


@shows("signals.fibo.entry_level", "signals.fibo.tp1_level", "signals.fibo.tp2_level")
def test_entry_and_targets_lie_at_their_levels() -> None:
    """Of an impulse from 100 to 122: half back is 111, 1.5 is 133, twice is 144."""
    assert (plan().entry, plan().tp1, plan().tp2) == (108.5, 127.75, 135.5)
    assert plan("signals.fibo.entry_level", 0.5).entry == 111
    assert plan("signals.fibo.tp1_level", 1.5).tp1 == 133
    assert plan("signals.fibo.tp2_level", 2.0).tp2 == 144


@shows("signals.avwap.use")
def test_without_the_avwap_its_features_are_absent() -> None:
    """Two more features are NaN, and nothing else is."""
    n = [
        np.isnan(hand(UP, "signals.avwap.use", use).candidates[0].features).sum()
        for use in (True, False)
    ]
    assert n[1] == n[0] + 2


@shows("signals.min_tp_net_pct")
def test_a_target_that_pays_too_little_is_declined() -> None:
    """TP1 is 17.7 % away."""
    assert reasons(hand(UP, "signals.min_tp_net_pct", 17)) == []
    assert reasons(hand(UP, "signals.min_tp_net_pct", 18)) == ["tp_net"]


@shows("signals.max_cost_r")
def test_a_plan_that_costs_too_much_of_its_risk_is_rejected() -> None:
    """By the gate: the same candidate with .05 R of costs."""
    facts = Facts(symbol="A/USDT", timeframe="1h", regime="range/vol_low", cost_r=0.05)
    found = [
        verdict(facts, None, config=turned("signals.max_cost_r", x), bundle=None, certificates={})
        for x in (0.04, 0.06)
    ]
    assert [(v.gate, v.reason) for v in found] == [(Gate.REJECT, "cost"), (Gate.PASS, "ungated")]


@shows("signals.fees.maker_pct", "signals.fees.taker_pct", "signals.slippage_pct")
def test_fees_and_slippage_are_paid_at_entry_and_stop() -> None:
    """In R of 10.5: 1 % more maker on 108.5 in; taker and slippage on 98 out."""
    free = plan("signals", {"fees": {"maker_pct": 0, "taker_pct": 0}, "slippage_pct": 0})
    assert free.cost_r == 0
    for key, paid in (("fees.maker_pct", 1.085), ("fees.taker_pct", 0.98), ("slippage_pct", 0.98)):
        none = {"fees": {"maker_pct": 0, "taker_pct": 0}, "slippage_pct": 0}
        section, _, name = key.rpartition(".")
        (none[section] if section else none)[name] = 1  # type: ignore[index]
        assert plan("signals", none).cost_r == pytest.approx(paid / 10.5)


@shows("signals.validity_candles")
def test_an_order_is_valid_for_so_many_candles() -> None:
    """Of an hour each."""
    made = plan("signals.validity_candles", 5)
    assert made.valid_until_ms - made.decided_ms == 5 * HOUR_MS


@shows("risk.mode", "risk.risk_per_trade_pct", "risk.equity_usd")
def test_the_stake_is_a_share_of_the_capital() -> None:
    """A stop 10 % away loses .5, 1 or 2 % of 10 000 by mode; or what is set, of what is set."""
    for key, value, notional in (
        ("risk.mode", "conservative", 500),
        ("risk.mode", "normal", 1000),
        ("risk.mode", "aggressive", 2000),
        ("risk.risk_per_trade_pct", 3.0, 3000),
        ("risk.equity_usd", 500.0, 50),
    ):
        assert size(90, turned(key, value)).notional_usd == pytest.approx(notional)


@shows("risk.max_leverage", "risk.liquidation_buffer_pct")
def test_the_leverage_is_capped() -> None:
    """A stop 1 % away wants 10 times; the mode allows 5, the owner 2.

    With a buffer of 30 % a third of the price has to be left: 1 / (.01 + .3 + .005) is 3.
    """
    risk = {"risk_per_trade_pct": 10.0}
    assert size(99, config_from({"risk": risk})).leverage == 5
    assert size(99, turned("risk.max_leverage", 2.0, risk=risk)).leverage == 2
    assert size(99, turned("risk.liquidation_buffer_pct", 30.0, risk=risk)).leverage == 3


def size(stop: float, config: Config) -> Position:
    """The position for an entry at 100."""
    found = sized(100.0, float(stop), risk=config.risk)
    assert found.leverage
    return found


@shows("risk.spot_long_only")
def test_spot_is_sold_short_only_where_that_is_allowed() -> None:
    """The drawing upside down, on a spot market."""
    down, spot = [222 - price for price in UP], Market(symbol="A/USDT", kind="spot", tick=0.25)
    for only, said in ((True, ["spot_long_only"]), (False, [])):
        assert reasons(hand(down, "risk.spot_long_only", only, market=spot)) == said


def followed(text: str, key: str, value: Any, *, timeframe: str = "5m") -> Outcome:
    """What becomes of entry 100, stop 95, TP1 110, TP2 120 with one key turned; no costs."""
    rules = exit_rules(turned(key, value, execution={"trail_atr_mult": 0.0}).execution)
    return trades.result(trades.bars(text), rules=rules, timeframe=timeframe)


FILL_AND_TP1 = "101 101 99 100 | 100 111 99 110"
FALL = " | 110 110 109 109 | 109 109 108 108 | 108 108 107 107 | 107 107 90 91"


@shows("execution.delivery_delay_s")
def test_an_order_exists_only_after_the_delay() -> None:
    """Nobody can act sooner."""
    for delay_s in (0, 90):
        made = plan("execution.delivery_delay_s", delay_s)
        assert made.actionable_ms - made.decided_ms == 1000 * delay_s


@shows("execution.tp1_fraction")
def test_a_part_leaves_at_the_first_target() -> None:
    """Of 2 R at TP1 and 4 R at TP2: half each is 3 R, three quarters at TP1 2.5 R."""
    for share, r in ((0.5, 3.0), (0.75, 2.5)):
        done = followed(FILL_AND_TP1 + " | 110 121 109 120", "execution.tp1_fraction", share)
        assert done.gross_r == pytest.approx(r)


@shows("execution.be_on_tp1")
def test_the_stop_goes_to_the_entry_after_the_first_target() -> None:
    """A fall through both afterwards ends at the entry, or at the first stop: 1 R or .5 R."""
    for moved, reason, r in ((True, "breakeven", 1.0), (False, "stop", 0.5)):
        done = followed(FILL_AND_TP1 + FALL, "execution.be_on_tp1", moved)
        assert (done.status, done.exit_reason) == (Status.TP1_TRAIL, reason)
        assert done.gross_r == pytest.approx(r)


@shows("execution.trail_atr_mult")
def test_the_stop_trails_the_closes() -> None:
    """The 5m candle after TP1 closes at 110; two minutes later the stop is 1 range of 2 below."""
    wait = " | 110 110 109.5 110" * 5
    for mult, reason in ((1.0, "trail"), (0.0, "breakeven")):
        done = followed(FILL_AND_TP1 + wait + FALL, "execution.trail_atr_mult", mult)
        assert done.exit_reason == reason
        assert done.exit_price == pytest.approx((110 + (108 if mult else 100)) / 2)


@shows("execution.max_hold_candles")
def test_a_trade_is_held_for_so_many_candles() -> None:
    """Filled and then nothing: out after one candle of 5 minutes, or still open."""
    quiet = "101 101 99 100" + " | 100 101 99 100" * 12
    for n, status in ((1, Status.TIMEOUT), (9, Status.OPEN)):
        assert followed(quiet, "execution.max_hold_candles", n).status is status


@shows("signals.fees.funding_pct_8h")
def test_funding_is_charged_each_eight_hours() -> None:
    """Filled after 01:00 and stopped after 08:00: one settlement of 1 % on the price then."""
    n = 8 * 60
    ts_ms = trades.ACTIONABLE_MS + MINUTE_MS * np.arange(n, dtype=np.int64)
    close = np.full(n, 100.0)
    low = np.full(n, 99.0)
    low[-1] = 94.0
    base = Candles("1m", ts_ms, close, close + 1, low, close, np.ones(n))
    rules = exit_rules(config_from({}).execution)
    paid = {}
    for rate in (0.0, 1.0):
        fees = {"maker_pct": 0, "taker_pct": 0, "funding_pct_8h": rate}
        config = config_from({"signals": {"fees": fees, "slippage_pct": 0}})
        rates = cost_rates(config.signals, SWAP)
        paid[rate] = trades.result(base, rules=rules, rates=rates, timeframe="1h").pnl_pct
    assert paid == {0.0: pytest.approx(-5), 1.0: pytest.approx(-6)}


@shows("signals.evaluation.usd_per_trade")
def test_the_nominal_stake_turns_percent_into_dollars(tmp_path: Path) -> None:
    """A retro-scan with another stake: 1 % is 10 dollars of 1000, and 2 of 200."""
    parquet = tmp_path / candle_files.name_of(SWAP.symbol, "1m")
    candle_files.write(parquet, random_candles(4 * 1440, 3, start_price=4_000))
    signals = {"lookback_candles": 60, "min_tp_net_pct": 0.2, "fibo": {"piv_window": 3}}
    for usd in (1000.0, 200.0):
        settings = {"symbols": [SWAP.symbol], "timeframes": ["15m"]}
        stake = {"signals": signals | {"evaluation": {"usd_per_trade": usd}}}
        app = opened(write_config(tmp_path / f"{usd}", **settings, **stake))
        files.import_files(app, [parquet])
        retro.retro_scan(app, start_ms=MONDAY_MS, end_ms=MONDAY_MS + 3 * DAY_MS)
        rows = app.db.rows("SELECT pnl_usd, pnl_pct FROM signals WHERE pnl_pct IS NOT NULL")
        app.close()
        assert rows
        assert all(dollars == pytest.approx(pct / 100 * usd) for dollars, pct in rows)
