"""What the meta-model is told of a candidate: scale-free numbers known at the decision.

No feature holds an absolute price, a date or a year. Those with a direction are signed by the
side, so that a short in a mirrored market looks like a long.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.avwap import last_avwaps
from core.config import Config
from core.domain import Candles, Floats, Ints, Setup
from core.indicators import activities, furthest, last_atrs, means, path_lengths, trends
from core.market_context import NAMES as _CONTEXT
from core.market_context import MarketContext, context_values
from core.regime import EFFICIENCY_BARS
from core.setups import SETUPS
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from core.windows import ScanInput, Windows, ending_at, latest

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


def compute(rows: NDArray[Any], data: ScanInput, config: Config) -> Floats:
    """Return the features of some decisions in the order of `NAMES`, shape (n, len(NAMES)).

    `rows` are planned decisions (see `plans.DECISION`). Each row reads its own windows alone: the
    last `signals.lookback_candles` bars of its timeframe, of each higher one and of the leader
    that are closed by its decision.

    NaN only where no earlier history exists: a timeframe with fewer bars than a span, a leader
    that is absent, the series itself, or without the signal bar; an AVWAP the owner does not use;
    and what the context does not hold.
    """
    lookback, period = config.signals.lookback_candles, config.signals.atr_period
    decided_ms = rows["decided_ms"]
    own = ending_at(data.bars, rows["i_bar"], lookback)
    higher = [latest(bars, decided_ms, lookback) for bars in data.higher]
    blocks = (
        _geometry(rows, data.bars),
        _activity(rows, own, period=period),
        _avwap(rows, data.bars, used=config.signals.avwap.use),
        _trend(rows, own, np.ascontiguousarray(rows["atr"])),
        *(_trend(rows, windows, _atrs(windows, period)) for windows in higher),
        _leader_returns(rows, data.leader, lookback),
        _calendar(decided_ms),
        _context(rows, data.context),
    )
    return np.ascontiguousarray(np.hstack(blocks))


def _geometry(rows: NDArray[Any], bars: Candles) -> Floats:
    names = ("side", "i_p0", "i_p1", "i_bar")
    side, i_p0, i_p1, i_bar = (np.ascontiguousarray(rows[name]) for name in names)
    p1, entry, atr = rows["p1"], rows["entry"], rows["atr"]
    amplitude, risk = np.abs(p1 - rows["p0"]), np.abs(entry - rows["stop"])
    deepest = furthest(bars.high, bars.low, i_p1 + 1, i_bar + 1, side)
    path = path_lengths(bars.close, i_p0, i_p1 + 1)
    columns = (
        rows["setup"] == SETUPS.index(Setup.RECLAIM),
        risk / atr,
        np.abs(rows["tp1"] - entry) / risk,
        side * (p1 - entry) / amplitude,
        amplitude / atr,
        i_p1 - i_p0,
        _ratio(np.abs(bars.close[i_p1] - bars.close[i_p0]), path, otherwise=0.0),
        side * (p1 - rows["close"]) / amplitude,
        side * (p1 - deepest) / amplitude,
        i_bar - i_p1,
        rows["cost_r"],
        rows["p_mart"],
    )
    return np.column_stack(columns)


def _ratio(above: Floats, below: Floats, *, otherwise: float) -> Floats:
    """Divide where the divisor is above 0."""
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), otherwise)


def _activity(rows: NDArray[Any], own: Windows, *, period: int) -> Floats:
    bars, i_p0, i_p1 = own.bars, rows["i_p0"], rows["i_p1"]
    rank, range_ratio = activities(
        bars.high,
        bars.low,
        bars.close,
        own.first,
        own.end,
        period=period,
        short_bars=_SHORT_BARS,
        long_bars=_LONG_BARS,
    ).T
    usual = means(bars.volume, own.first, own.end)
    rising = means(bars.volume, i_p0 + 1, i_p1 + 1)
    falling = means(bars.volume, i_p1 + 1, own.end)
    columns = (
        100 * rows["atr"] / rows["close"],
        range_ratio,
        rank,
        _ratio(rising, usual, otherwise=1.0),
        _ratio(falling, rising, otherwise=1.0),
    )
    return np.column_stack(columns)


def _avwap(rows: NDArray[Any], bars: Candles, *, used: bool) -> Floats:
    """Distance of close and entry from the AVWAP of P0, in ATR."""
    if not used:
        return np.full((len(rows), len(_AVWAP)), math.nan)
    i_p0, i_end = np.ascontiguousarray(rows["i_p0"]), rows["i_bar"] + 1
    line = last_avwaps(bars.high, bars.low, bars.close, bars.volume, i_p0, i_end)
    side, atr = rows["side"], rows["atr"]
    return np.column_stack([side * (rows[name] - line) / atr for name in ("close", "entry")])


def _trend(rows: NDArray[Any], windows: Windows, atr: Floats) -> Floats:
    """Distance from the EMA and its slope in ATR of these bars, and the signed efficiency."""
    unsigned: Floats = trends(
        windows.bars.close,
        windows.first,
        windows.end,
        atr,
        ema_bars=_EMA_BARS,
        slope_bars=_SLOPE_BARS,
        travel_bars=EFFICIENCY_BARS,
    )
    return rows["side"][:, None] * unsigned


def _atrs(windows: Windows, period: int) -> Floats:
    bars = windows.bars
    sizes: Floats = last_atrs(
        bars.high, bars.low, bars.close, windows.first, windows.end, period=period
    )
    return sizes


def _leader_returns(rows: NDArray[Any], leader: Candles | None, lookback: int) -> Floats:
    out = np.full((len(rows), len(_LEADER_BARS)), math.nan)
    if leader is None or not len(leader):
        return out
    _, first, end = latest(leader, rows["decided_ms"], lookback)
    for column, span in enumerate(_LEADER_BARS):
        is_known = (end - first > span) & (leader.ts_ms[end - 1] == rows["ts_ms"])
        i_now, side = end[is_known] - 1, rows["side"][is_known]
        out[is_known, column] = side * (leader.close[i_now] / leader.close[i_now - span] - 1)
    return out


def _calendar(decided_ms: Ints) -> Floats:
    minutes = decided_ms % (_WEEK_DAYS * DAY_MS) // MINUTE_MS
    found = [_place_in_the_week(minute) for minute in minutes.tolist()]
    return np.array(found, np.float64).reshape(-1, len(_CALENDAR))


@cache
def _place_in_the_week(minute: int) -> tuple[float, float, float, float]:
    """Hour and weekday as points on a circle; by a minute of the weeks since the epoch."""
    instant_ms = minute * MINUTE_MS
    hour = instant_ms % DAY_MS / HOUR_MS / 24
    weekday = (instant_ms // DAY_MS + _EPOCH_WEEKDAY) % _WEEK_DAYS / _WEEK_DAYS
    return (
        math.sin(2 * math.pi * hour),
        math.cos(2 * math.pi * hour),
        math.sin(2 * math.pi * weekday),
        math.cos(2 * math.pi * weekday),
    )


def _context(rows: NDArray[Any], context: MarketContext) -> Floats:
    if not any(len(ts_ms) for ts_ms in (context.funding_ms, context.interest_ms, context.basis_ms)):
        return np.full((len(rows), len(_CONTEXT)), math.nan)
    pairs = zip(rows["side"].tolist(), rows["decided_ms"].tolist(), strict=True)
    found = [context_values(context, side=side, decided_ms=instant) for side, instant in pairs]
    return np.array(found, np.float64).reshape(-1, len(_CONTEXT))
