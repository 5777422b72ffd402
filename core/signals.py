"""The judgement: which setups a closed bar holds, and what we would do about each.

`scan` is the one function behind the live scan, the retro-scan and training. It decides every bar
from that bar's own window, so one bar's window and ten years of bars give the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from core import features
from core.avwap import avwap
from core.config import Config
from core.costs import CostRates, cost_rates, stop_cost_r, target_net_pct
from core.domain import (
    Candidate,
    Candles,
    Floats,
    Ints,
    Market,
    Rejection,
    Series,
    Setup,
    Side,
    TradePlan,
)
from core.fibo import Impulse, extension, retracement
from core.indicators import atr as average_true_range
from core.indicators import median_span
from core.market_context import NOTHING_STORED, MarketContext
from core.regime import regime
from core.risk import Sizing, finest_step, on_tick, sizing
from core.setups import SetupEvent, setup_events
from core.timeframe import tf_ms

NOISE_BARS = 240  # base bars whose median span is the noise of a series
_NOISE_SPANS = 3.0  # a stop nearer than this many of them decides by the order inside a bar


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanInput:
    """All that is known of one series; arrays may reach past the bars that are decided.

    `bars` are the signal timeframe's, `higher` the two context timeframes' (see
    `timeframe.higher_timeframes`), `base` the finest ones stored (noise and tick), `leader` the
    leader's on the signal timeframe, None when it is this series or absent. `missing_ms` holds the
    sorted opens of base bars that are missing or unknown. `context` may reach past them as well.
    """

    series: Series
    bars: Candles
    higher: tuple[Candles, Candles]
    base: Candles
    leader: Candles | None
    market: Market
    missing_ms: Ints
    context: MarketContext = NOTHING_STORED


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanResult:
    """What a scan found, in time order; `n_setups` counts candidates and rejections."""

    candidates: list[Candidate]
    rejections: list[Rejection]
    n_bars: int

    @property
    def n_setups(self) -> int:
        """How many setups there were, declined ones too."""
        return len(self.candidates) + len(self.rejections)


class _Prices(NamedTuple):
    """The four prices of a plan, on the tick."""

    side: Side
    entry: float
    stop: float
    tp1: float
    tp2: float


class _Found(NamedTuple):
    """A setup with all that its own window says of it; impulse in indices into `window`."""

    event: SetupEvent
    impulse: Impulse
    window: Candles
    atr: Floats
    base: Candles
    tick: float
    decided_ms: int


def scan(data: ScanInput, config: Config, *, first_ms: int, last_ms: int) -> ScanResult:
    """Decide every bar of `data.bars` that opens between two instants, both included.

    Bar i is decided at its close from the last `signals.lookback_candles` bars ending at it and
    as many of each higher timeframe and of the leader closed by then; fewer only where the arrays
    begin later. Nothing after the decision is read. Impulses below `fibo.min_impulse_atr` are not
    setups and are not counted; `max_cost_r` is the gate's business.
    """
    i_first = int(np.searchsorted(data.bars.ts_ms, first_ms, side="left"))
    i_end = int(np.searchsorted(data.bars.ts_ms, last_ms, side="right"))
    result = ScanResult(candidates=[], rejections=[], n_bars=max(i_end - i_first, 0))
    rates = cost_rates(config.signals, data.market)
    for event in setup_events(data.bars, config, i_first=i_first, i_end=i_end):
        found = _found(event, data, config)
        if found is None:
            continue
        judged = _judged(found, data, config, rates)
        if isinstance(judged, Candidate):
            result.candidates.append(judged)
        else:
            result.rejections.append(judged)
    return result


def _found(event: SetupEvent, data: ScanInput, config: Config) -> _Found | None:
    """The event with its window, or None if the impulse is too small to be a setup."""
    signals = config.signals
    i_start = max(0, event.i_bar - signals.lookback_candles + 1)
    window = data.bars[i_start : event.i_bar + 1]
    atr = average_true_range(window.high, window.low, window.close, period=signals.atr_period)
    i_p0, i_p1 = event.i_p0 - i_start, event.i_p1 - i_start
    start, end = (window.low, window.high) if event.side is Side.LONG else (window.high, window.low)
    impulse = Impulse(event.side, i_p0, i_p1, float(start[i_p0]), float(end[i_p1]))
    if not (atr[-1] > 0 and impulse.amplitude >= signals.fibo.min_impulse_atr * atr[-1]):
        return None
    decided_ms = int(window.ts_ms[-1]) + tf_ms(data.series.timeframe)
    base = _latest(data.base, decided_ms, NOISE_BARS)
    if len(base) == 0:
        base = window  # an import may begin with bars of the signal timeframe alone
    tick = data.market.tick
    if data.market.fallback or not tick > 0:
        tick = float(finest_step(np.concatenate((base.high, base.low, base.close))))
    return _Found(event, impulse, window, atr, base, tick, decided_ms)


def _latest(bars: Candles, instant_ms: int, n_bars: int) -> Candles:
    """The last bars known at an instant."""
    n_known = bars.closed_by(instant_ms)
    return bars[max(0, n_known - n_bars) : n_known]


def _judged(
    found: _Found, data: ScanInput, config: Config, rates: CostRates
) -> Candidate | Rejection:
    prices = _prices(found, config)
    refusal = _early_refusal(found, prices, data, config) or _late_refusal(
        found, prices, config, rates
    )
    if refusal is not None:
        return _rejection(found, data.series, *refusal)
    unlevered = config.risk.spot_long_only and data.market.kind == "spot"
    sized = sizing(prices.entry, prices.stop, risk=config.risk, unlevered=unlevered)
    if isinstance(sized, str):
        return _rejection(found, data.series, "size", sized)
    plan = _plan(found, prices, sized, config, rates)
    return _candidate(found, plan, data, config)


def _prices(found: _Found, config: Config) -> _Prices:
    """The plan's prices, rounded against us: entry worse, stop away, targets nearer."""
    signals, impulse = config.signals, found.impulse
    side, p0, p1 = impulse.side, impulse.p0, impulse.p1
    if found.event.setup is Setup.LIMIT:
        entry = retracement(p0, p1, signals.fibo.entry_level)
    else:
        entry = float(found.window.close[-1])
    stop = p0 - side * signals.atr_mult_sl * float(found.atr[-1])
    is_long = side is Side.LONG
    return _Prices(
        side,
        on_tick(entry, found.tick, up=is_long),
        on_tick(stop, found.tick, up=not is_long),
        on_tick(extension(p0, p1, signals.fibo.tp1_level), found.tick, up=not is_long),
        on_tick(extension(p0, p1, signals.fibo.tp2_level), found.tick, up=not is_long),
    )


def _early_refusal(
    found: _Found, prices: _Prices, data: ScanInput, config: Config
) -> tuple[str, str] | None:
    """What forbids a plan here at all: data, permission, or prices that make no sense."""
    side, close = prices.side, float(found.window.close[-1])
    i_hood = found.impulse.i_p0 - config.signals.fibo.piv_window
    from_ms = int(found.window.ts_ms[i_hood])
    n_before, n_until = np.searchsorted(data.missing_ms, (from_ms, found.decided_ms)).tolist()
    if n_until > n_before:
        return "hole", f"{n_until - n_before} base bars missing since the first pivot"
    if side is Side.SHORT and config.risk.spot_long_only and data.market.kind == "spot":
        return "spot_long_only", "no shorts on a spot market"
    _, entry, stop, tp1, tp2 = prices
    if not (side * stop < side * entry < side * tp1 < side * tp2 and min(stop, tp2) > 0):
        return "order", f"stop {stop:.10g}, entry {entry:.10g}, targets {tp1:.10g} {tp2:.10g}"
    if found.event.setup is Setup.LIMIT and side * close <= side * entry:
        return "entry_passed", f"closed at {close:.10g}, entry {entry:.10g}"
    return None


def _late_refusal(
    found: _Found, prices: _Prices, config: Config, rates: CostRates
) -> tuple[str, str] | None:
    """What makes a sensible plan not worth having: a stop inside the noise, a target too near."""
    noise = float(median_span(found.base.high, found.base.low))
    distance = abs(prices.entry - prices.stop)
    if distance < _NOISE_SPANS * noise:
        return "noise", f"stop {distance / noise:.1f} base bars away, wants {_NOISE_SPANS:.0f}"
    net_pct = target_net_pct(prices.entry, prices.tp1, rates)
    if net_pct < config.signals.min_tp_net_pct:
        wanted_pct = config.signals.min_tp_net_pct
        return "tp_net", f"TP1 pays {net_pct:.2f} % net, wants {wanted_pct:.2f} %"
    return None


def _rejection(found: _Found, series: Series, reason: str, detail: str) -> Rejection:
    return Rejection(
        series=series,
        setup=found.event.setup,
        side=found.event.side,
        p1_ms=int(found.window.ts_ms[found.impulse.i_p1]),
        ts_ms=int(found.window.ts_ms[-1]),
        reason=reason,
        detail=detail,
    )


def _plan(
    found: _Found, prices: _Prices, sized: Sizing, config: Config, rates: CostRates
) -> TradePlan:
    side, entry, stop, tp1, tp2 = prices
    risk, reward = abs(entry - stop), abs(tp1 - entry)
    length_ms = found.decided_ms - int(found.window.ts_ms[-1])
    return TradePlan(
        side=side,
        entry=entry,
        stop=stop,
        tp1=tp1,
        tp2=tp2,
        atr=float(found.atr[-1]),
        leverage=sized.leverage,
        risk_pct=sized.risk_pct,
        notional_usd=sized.notional_usd,
        liquidation=sized.liquidation,
        cost_r=stop_cost_r(entry, stop, rates),
        p_mart=risk / (risk + reward),
        decided_ms=found.decided_ms,
        actionable_ms=found.decided_ms + config.execution.delivery_delay_s * 1000,
        valid_until_ms=found.decided_ms + config.signals.validity_candles * length_ms,
    )


def _candidate(found: _Found, plan: TradePlan, data: ScanInput, config: Config) -> Candidate:
    window, impulse, lookback = found.window, found.impulse, config.signals.lookback_candles
    state = regime(window.close, found.atr)
    first, second = (_latest(bars, found.decided_ms, lookback) for bars in data.higher)
    leader = data.leader
    values = features.compute(
        plan,
        impulse,
        setup=found.event.setup,
        window=window,
        higher=(first, second),
        leader=None if leader is None else _latest(leader, found.decided_ms, lookback),
        atr=found.atr,
        avwap=_avwap_now(window, impulse.i_p0) if config.signals.avwap.use else math.nan,
        atr_period=config.signals.atr_period,
        context=data.context,
    )
    return Candidate(
        series=data.series,
        setup=found.event.setup,
        p0_ms=int(window.ts_ms[impulse.i_p0]),
        p1_ms=int(window.ts_ms[impulse.i_p1]),
        ts_ms=int(window.ts_ms[-1]),
        plan=plan,
        regime=state,
        rationale=_rationale(found, state, config),
        features=values,
    )


def _avwap_now(window: Candles, i_anchor: int) -> float:
    part = slice(i_anchor, None)
    line = avwap(
        window.high[part], window.low[part], window.close[part], window.volume[part], i_anchor=0
    )
    return float(line[-1])


def _rationale(found: _Found, state: str, config: Config) -> str:
    impulse, trend_volatility = found.impulse, state.split("/vol_")
    n_decimals = len(f"{found.tick:.10f}".rstrip("0").partition(".")[2])
    p0, p1 = (f"{price:,.{n_decimals}f}".replace(",", " ") for price in (impulse.p0, impulse.p1))
    size = impulse.amplitude / float(found.atr[-1])
    where = (
        f"limit at the {config.signals.fibo.entry_level:g} retracement"
        if found.event.setup is Setup.LIMIT
        else "limit at the first close back across the AVWAP of its start"
    )
    word = "Up" if impulse.side is Side.LONG else "Down"
    trend, volatility = trend_volatility
    return f"{word}-impulse {p0} → {p1} ({size:.1f} ATR), {where}, {trend}, {volatility} volatility"
