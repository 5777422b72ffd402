"""What we would do about each setup: its prices, what refuses it, and its size.

Decisions are rows of plain numbers, all of one batch at once. Each step is arithmetic on whole
columns, row by row the same as for one row alone, or a compiled measure of one window per row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.config import Config
from core.costs import CostRates, stop_cost_r, target_net_pct
from core.domain import Bools, Floats, Ints, Setup
from core.fibo import extension, retracement
from core.indicators import last_atrs, spans_above
from core.risk import finest_steps, on_tick, sizing
from core.setups import SETUPS, SetupEvents
from core.timeframe import tf_ms
from core.windows import NOISE_BARS, ScanInput, Windows, ending_at, latest

REFUSALS = (  # in the order in which they are looked for; 0 is none
    "",
    "hole",
    "seam",
    "spot_long_only",
    "order",
    "entry_passed",
    "noise",
    "tp_net",
    "size",
)
NOISE_SPANS = 3.0  # a stop nearer than this many of them decides by the order inside a bar

# Indices are into `ScanInput.bars`; `setup` is a place in SETUPS and `refusal` one in REFUSALS;
# `figure` is what the refusal says in words. A refused row has no size.
DECISION = np.dtype(
    [(name, "i8") for name in ("i_bar", "i_p0", "i_p1", "setup", "side", "refusal")]
    + [(name, "i8") for name in ("p0_ms", "p1_ms", "ts_ms", "decided_ms")]
    + [(name, "f8") for name in ("p0", "p1", "close", "atr", "tick")]
    + [(name, "f8") for name in ("entry", "stop", "tp1", "tp2", "figure")]
    + [(name, "f8") for name in ("leverage", "risk_pct", "notional_usd", "liquidation")]
    + [(name, "f8") for name in ("cost_r", "p_mart")]
)
Decisions = NDArray[np.void]  # structured, dtype DECISION


def planned(events: SetupEvents, data: ScanInput, config: Config, rates: CostRates) -> Decisions:
    """Return the decisions on some events, in their order, without those too small to be setups.

    A row depends on its own windows alone: the last `signals.lookback_candles` bars up to its bar
    and the last `NOISE_BARS` base bars closed by then.
    """
    rows = _impulses(events, data, config)
    base = _noise_windows(rows, data, config)
    rows["tick"] = _ticks(base, data)
    _set_prices(rows, config)
    from_ms = data.bars.ts_ms[rows["i_p0"] - config.signals.fibo.piv_window]
    _refuse(rows, "hole", *_holes(rows, from_ms, data))
    _refuse(rows, "seam", *_seams(rows, from_ms, data))
    _refuse_senseless(rows, data, config)
    _refuse_poor(rows, base, config, rates)
    _set_sizes(rows, data, config, rates)
    return rows


def _impulses(events: SetupEvents, data: ScanInput, config: Config) -> Decisions:
    """Measure each event's impulse against the ATR of its window and keep the large ones."""
    bars, signals = data.bars, config.signals
    rows = np.zeros(len(events.i_bar), DECISION)
    for name, column in zip(events._fields, events, strict=True):
        rows[name] = column
    i_bar, i_p0, i_p1, is_long = rows["i_bar"], rows["i_p0"], rows["i_p1"], rows["side"] > 0
    rows["ts_ms"], rows["p0_ms"], rows["p1_ms"] = (bars.ts_ms[i] for i in (i_bar, i_p0, i_p1))
    rows["decided_ms"] = rows["ts_ms"] + tf_ms(data.series.timeframe)
    rows["close"] = bars.close[i_bar]
    rows["p0"] = np.where(is_long, bars.low[i_p0], bars.high[i_p0])
    rows["p1"] = np.where(is_long, bars.high[i_p1], bars.low[i_p1])
    _, first, end = ending_at(bars, events.i_bar, signals.lookback_candles)
    rows["atr"] = last_atrs(bars.high, bars.low, bars.close, first, end, period=signals.atr_period)
    smallest = signals.fibo.min_impulse_atr * rows["atr"]
    is_setup = (rows["atr"] > 0) & (np.abs(rows["p1"] - rows["p0"]) >= smallest)
    return np.asarray(rows[is_setup])


def _noise_windows(rows: Decisions, data: ScanInput, config: Config) -> list[tuple[Any, Windows]]:
    """Return the base bars before each decision, as (rows, windows) pairs.

    An import may begin with bars of the signal timeframe alone: then its own window stands in.
    """
    base = latest(data.base, rows["decided_ms"], NOISE_BARS)
    own = ending_at(data.bars, rows["i_bar"], config.signals.lookback_candles)
    has_base = base.end > base.first
    return [
        (which, Windows(some.bars, some.first[which], some.end[which]))
        for which, some in ((np.flatnonzero(has_base), base), (np.flatnonzero(~has_base), own))
        if len(which)
    ]


def _over(pairs: list[tuple[Any, Windows]], n: int, measure: Any) -> Floats:
    out = np.empty(n)
    for which, windows in pairs:
        out[which] = measure(which, windows)
    return out


def _ticks(base: list[tuple[Any, Windows]], data: ScanInput) -> Floats | float:
    """Return the market's tick, or the finest price step of each row's own base bars."""
    if data.market.tick > 0 and not data.market.fallback:
        return data.market.tick
    n = sum(len(which) for which, _ in base)
    return _over(
        base, n, lambda _, w: finest_steps(w.bars.high, w.bars.low, w.bars.close, w.first, w.end)
    )


def _set_prices(rows: Decisions, config: Config) -> None:
    """Fill in the plan's prices, rounded against us: entry worse, stop away, targets nearer."""
    signals, side, tick = config.signals, rows["side"], rows["tick"]
    p0, p1, is_long = rows["p0"], rows["p1"], side > 0
    is_limit = rows["setup"] == SETUPS.index(Setup.LIMIT)
    entry = np.where(is_limit, retracement(p0, p1, signals.fibo.entry_level), rows["close"])
    stop = p0 - side * signals.atr_mult_sl * rows["atr"]
    rows["entry"] = on_tick(entry, tick, up=is_long)
    rows["stop"] = on_tick(stop, tick, up=~is_long)
    rows["tp1"] = on_tick(extension(p0, p1, signals.fibo.tp1_level), tick, up=~is_long)
    rows["tp2"] = on_tick(extension(p0, p1, signals.fibo.tp2_level), tick, up=~is_long)


def _refuse(rows: Decisions, why: str, which: Bools, figure: Floats | Ints | float = 0.0) -> None:
    """Mark the rows that are refused for a reason, where none was found before."""
    fresh = which & (rows["refusal"] == 0)
    rows["refusal"][fresh] = REFUSALS.index(why)
    rows["figure"][fresh] = np.broadcast_to(figure, which.shape)[fresh]


def _holes(rows: Decisions, from_ms: Ints, data: ScanInput) -> tuple[Bools, Ints]:
    """Count the base bars missing from the first bar of P0's neighbourhood to the decision."""
    n_before = np.searchsorted(data.missing_ms, from_ms)
    n_missing = np.searchsorted(data.missing_ms, rows["decided_ms"]) - n_before
    return n_missing > 0, n_missing


def _seams(rows: Decisions, from_ms: Ints, data: ScanInput) -> tuple[Bools, Ints]:
    """Count the goings-over to another market between that bar and the decision."""
    n_before = np.searchsorted(data.seams_ms, from_ms, side="right")
    n_within = np.searchsorted(data.seams_ms, rows["decided_ms"]) - n_before
    return n_within > 0, n_within


def _refuse_senseless(rows: Decisions, data: ScanInput, config: Config) -> None:
    """Refuse what is forbidden here, and prices that make no sense."""
    side = rows["side"]
    if config.risk.spot_long_only and data.market.kind == "spot":
        _refuse(rows, "spot_long_only", side < 0)
    stop, entry, tp1, tp2 = (side * rows[name] for name in ("stop", "entry", "tp1", "tp2"))
    is_ordered = (stop < entry) & (entry < tp1) & (tp1 < tp2)
    is_ordered &= np.minimum(rows["stop"], rows["tp2"]) > 0
    _refuse(rows, "order", ~is_ordered)
    is_limit = rows["setup"] == SETUPS.index(Setup.LIMIT)
    _refuse(rows, "entry_passed", is_limit & (side * rows["close"] <= entry))


def _refuse_poor(
    rows: Decisions, base: list[tuple[Any, Windows]], config: Config, rates: CostRates
) -> None:
    """Refuse sensible plans not worth having: a stop inside the noise, a target too near."""
    distance = np.abs(rows["entry"] - rows["stop"])
    noise = _over(
        base,
        len(rows),
        lambda which, w: spans_above(
            w.bars.high, w.bars.low, w.first, w.end, distance[which], times=NOISE_SPANS
        ),
    )
    is_noise = noise > 0
    _refuse(rows, "noise", is_noise, distance / np.where(is_noise, noise, 1.0))
    sound = rows["refusal"] == 0
    net_pct = np.zeros(len(rows))
    net_pct[sound] = target_net_pct(rows["entry"][sound], rows["tp1"][sound], rates)
    _refuse(rows, "tp_net", sound & (net_pct < config.signals.min_tp_net_pct), net_pct)


def _set_sizes(rows: Decisions, data: ScanInput, config: Config, rates: CostRates) -> None:
    """Size what is left, and write down what it costs and what a coin flip would win."""
    left = rows["refusal"] == 0
    chosen = rows[left]
    entry, stop = chosen["entry"], chosen["stop"]
    unlevered = config.risk.spot_long_only and data.market.kind == "spot"
    sized = sizing(entry, stop, risk=config.risk, unlevered=unlevered)
    for name, column in zip(sized._fields, sized, strict=True):
        chosen[name] = column
    _refuse(chosen, "size", sized.leverage < 1, 100 * (np.abs(entry - stop) / entry))
    risk, reward = np.abs(entry - stop), np.abs(chosen["tp1"] - entry)
    chosen["cost_r"] = stop_cost_r(entry, stop, rates)
    chosen["p_mart"] = risk / (risk + reward)
    rows[left] = chosen
