"""What the meta-model is told of a candidate: scale-free numbers known at the decision.

No feature holds an absolute price, a date or a year. Those with a direction are signed by the
side, so that a short in a mirrored market looks like a long.
"""

from __future__ import annotations

import math

import numpy as np

from core.domain import Candles, Floats, Setup, TradePlan
from core.fibo import Impulse
from core.indicators import atr as average_true_range
from core.indicators import efficiency, ema, mean, path_length, true_range
from core.market_context import NAMES as _CONTEXT
from core.market_context import NOTHING_STORED, MarketContext, context_values
from core.regime import EFFICIENCY_BARS, volatility_rank
from core.timeframe import DAY_MS, HOUR_MS

VERSION = 2  # raise when a name, an order or a meaning changes

_EMA_BARS = 50
_SLOPE_BARS = 12
_SHORT_BARS, _LONG_BARS = 10, 100
_LEADER_BARS = (12, 48)
_WEEK_DAYS = 7
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday; Monday is 0

_GEOMETRY = (
    "is_reclaim",
    "risk_atr",
    "reward1_r",
    "entry_depth",
    "impulse_atr",
    "impulse_bars",
    "impulse_efficiency",
    "close_depth",
    "deepest_depth",
    "p1_age_bars",
    "cost_r",
    "p_mart",
)
_ACTIVITY = (
    "atr_pct",
    "volatility_ratio",
    "volatility_rank",
    "impulse_volume_ratio",
    "pullback_volume_ratio",
)
_AVWAP = ("avwap_close_atr", "avwap_entry_atr")
_TREND = ("ema_distance_atr", "ema_slope_atr", "efficiency")
_LEADER = ("leader_return_12", "leader_return_48")
_CALENDAR = ("hour_sin", "hour_cos", "weekday_sin", "weekday_cos")

NAMES: tuple[str, ...] = (
    *_GEOMETRY,
    *_ACTIVITY,
    *_AVWAP,
    *(f"own_{name}" for name in _TREND),
    *(f"higher1_{name}" for name in _TREND),
    *(f"higher2_{name}" for name in _TREND),
    *_LEADER,
    *_CALENDAR,
    *_CONTEXT,
)


def compute(
    plan: TradePlan,
    impulse: Impulse,
    *,
    setup: Setup,
    window: Candles,
    higher: tuple[Candles, Candles],
    leader: Candles | None,
    atr: Floats,
    avwap: float,
    atr_period: int,
    context: MarketContext = NOTHING_STORED,
) -> Floats:
    """Return the features of one candidate in the order of `NAMES`, shape (len(NAMES),).

    `window` ends at the signal bar, which is the last one known; `impulse` holds bar indices into
    it. `higher` and `leader` hold only bars closed by the decision. `atr` is the window's, `avwap`
    the value at the signal bar (NaN where the owner does not use it).

    NaN only where no earlier history exists: a timeframe with fewer bars than a span, or a leader
    that is absent, the series itself, or without the signal bar; and where `context` holds nothing.
    """
    values = (
        *_geometry(plan, impulse, setup=setup, window=window),
        *_activity(impulse, window=window, atr=atr),
        plan.side * (window.close[-1] - avwap) / plan.atr,
        plan.side * (plan.entry - avwap) / plan.atr,
        *_trend(window, side=plan.side, atr=atr),
        *(
            value
            for bars in higher
            for value in _trend(bars, side=plan.side, atr=_atr(bars, atr_period))
        ),
        *_leader_returns(leader, side=plan.side, ts_ms=int(window.ts_ms[-1])),
        *_calendar(plan.decided_ms),
        *context_values(context, side=plan.side, decided_ms=plan.decided_ms),
    )
    return np.array(values, dtype=np.float64)


def _geometry(
    plan: TradePlan, impulse: Impulse, *, setup: Setup, window: Candles
) -> tuple[float, ...]:
    side, i_p0, i_p1 = plan.side, impulse.i_p0, impulse.i_p1
    amplitude = impulse.amplitude
    since = slice(i_p1 + 1, None)
    deepest = window.low[since].min() if side > 0 else window.high[since].max()
    path = path_length(window.close[i_p0 : i_p1 + 1])
    return (
        float(setup is Setup.RECLAIM),
        plan.risk / plan.atr,
        abs(plan.tp1 - plan.entry) / plan.risk,
        side * (impulse.p1 - plan.entry) / amplitude,
        amplitude / plan.atr,
        i_p1 - i_p0,
        abs(window.close[i_p1] - window.close[i_p0]) / path if path > 0 else 0.0,
        side * (impulse.p1 - window.close[-1]) / amplitude,
        side * (impulse.p1 - deepest) / amplitude,
        len(window) - 1 - i_p1,
        plan.cost_r,
        plan.p_mart,
    )


def _activity(impulse: Impulse, *, window: Candles, atr: Floats) -> tuple[float, ...]:
    ranges = true_range(window.high, window.low, window.close)
    usual = mean(window.volume)
    rising = mean(window.volume[impulse.i_p0 + 1 : impulse.i_p1 + 1])
    falling = mean(window.volume[impulse.i_p1 + 1 :])
    return (
        100 * atr[-1] / window.close[-1],
        mean(ranges[-_SHORT_BARS:]) / mean(ranges[-_LONG_BARS:]),
        volatility_rank(window.close, atr),
        rising / usual if usual > 0 else 1.0,
        falling / rising if rising > 0 else 1.0,
    )


def _atr(bars: Candles, period: int) -> Floats:
    return np.asarray(average_true_range(bars.high, bars.low, bars.close, period=period))


def _trend(bars: Candles, *, side: int, atr: Floats) -> tuple[float, float, float]:
    """Distance from the EMA and its slope in ATR of these bars, and the signed efficiency."""
    travel = side * efficiency(bars.close, span=EFFICIENCY_BARS)
    if len(bars) < _EMA_BARS or not atr[-1] > 0:
        return math.nan, math.nan, travel
    line = ema(bars.close, period=_EMA_BARS)
    distance = side * (bars.close[-1] - line[-1]) / atr[-1]
    if len(bars) < _EMA_BARS + _SLOPE_BARS:
        return distance, math.nan, travel
    return distance, side * (line[-1] - line[-1 - _SLOPE_BARS]) / atr[-1], travel


def _leader_returns(leader: Candles | None, *, side: int, ts_ms: int) -> tuple[float, ...]:
    if leader is None or len(leader) == 0 or leader.ts_ms[-1] != ts_ms:
        return (math.nan,) * len(_LEADER_BARS)
    close = leader.close
    return tuple(
        side * (close[-1] / close[-1 - span] - 1) if len(close) > span else math.nan
        for span in _LEADER_BARS
    )


def _calendar(decided_ms: int) -> tuple[float, float, float, float]:
    hour = decided_ms % DAY_MS / HOUR_MS / 24
    weekday = (decided_ms // DAY_MS + _EPOCH_WEEKDAY) % _WEEK_DAYS / _WEEK_DAYS
    return (
        math.sin(2 * math.pi * hour),
        math.cos(2 * math.pi * hour),
        math.sin(2 * math.pi * weekday),
        math.cos(2 * math.pi * weekday),
    )
