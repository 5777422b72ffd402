"""How much to stake, and prices on the exchange's grid: everything rounded against us."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from core.compiled import njit
from core.config import Risk
from core.costs import CostRates
from core.domain import Bools, Floats, Ints, Side

MAINTENANCE_FRAC = 0.005  # maintenance margin of the lowest tier of the usual perpetuals
_FINEST_SCALE = 1e10


class Sizing(NamedTuple):
    """Positions, one each: whole leverage, notional, and the price that would liquidate it.

    A leverage of 0 means that not even 1 leaves room before liquidation. `risk_pct` is what the
    stop costs in percent of equity, after the caps and before fees.
    """

    leverage: Floats
    notional_usd: Floats
    risk_pct: Floats
    liquidation: Floats


def sizing(entry: Floats, stop: Floats, *, risk: Risk, unlevered: bool = False) -> Sizing:
    """Return the positions that lose the configured share of equity at their stops.

    The leverage is the smallest whole one that carries it. Where the cap, or a liquidation price
    nearer to the stop than the buffer, forbids that leverage, the position shrinks to what the
    highest allowed one carries. `unlevered`: bought outright, without liquidation. Shapes (n,).

    Liquidation is the isolated-margin approximation with a maintenance margin of 0.5 %.
    """
    side = np.where(stop < entry, 1, -1)
    stop_frac = np.abs(entry - stop) / entry
    highest = np.ones(len(entry)) if unlevered else _highest_leverage(stop_frac, risk)
    exposure = np.minimum(risk.trade_pct / 100 / stop_frac, highest)
    leverage = np.where(highest < 1, 0.0, np.maximum(1.0, np.ceil(exposure)))
    liquidation = entry * (1 - side * (1 / np.maximum(leverage, 1.0) - MAINTENANCE_FRAC))
    return Sizing(
        leverage=leverage,
        notional_usd=risk.equity_usd * exposure,
        risk_pct=100 * exposure * stop_frac,
        liquidation=np.zeros(len(entry)) if unlevered else np.maximum(liquidation, 0.0),
    )


def _highest_leverage(stop_frac: Floats, risk: Risk) -> Floats:
    room_frac = stop_frac + risk.liquidation_buffer_pct / 100 + MAINTENANCE_FRAC
    return np.floor(np.minimum(risk.leverage_cap, 1 / room_frac))


def latest_entry(
    side: Side,
    *,
    stop: float,
    tp1: float,
    rates: CostRates,
    min_tp_net_pct: float,
    p_win: float | None = None,
) -> float:
    """Return the price beyond which the plan is no longer worth entering, not yet on the tick.

    Who comes after the limit order pays taker and slippage. Two limits, the nearer counts: TP1 must
    still pay `min_tp_net_pct` after costs; and with a probability, entering must not cost more
    than what it buys: TP1 with that probability, else the stop, each after its costs. It may lie
    short of the plan's own entry: then only that price, or a better one, will do.
    """
    s, late_frac = int(side), rates.taker_frac + rates.slippage_frac
    # s * (tp1 / e - 1) - maker * tp1 / e - late = min, solved for e
    paying = tp1 * (1 - s * rates.maker_frac) / (1 + s * (min_tp_net_pct / 100 + late_frac))
    if p_win is None:
        return paying
    at_tp1, at_stop = tp1 * (1 - s * rates.maker_frac), stop * (1 - s * late_frac)
    fair = (p_win * at_tp1 + (1 - p_win) * at_stop) / (1 + s * late_frac)
    return s * min(s * paying, s * fair)


def on_tick(price: Floats, tick: Floats, *, up: Bools) -> Floats:
    """Return the grid price at or above (`up`), or at or below, each price.

    A price within a millionth of a tick of the grid counts as on it, so that float noise in the
    arithmetic before cannot cost a tick. Shapes (n,).

    >>> on_tick(np.array([100.234, 100.23]), np.full(2, 0.01), up=np.full(2, True))
    array([100.24, 100.23])
    """
    ticks = price / tick
    nearest = np.rint(ticks)
    is_off = np.abs(ticks - nearest) > 1e-6 + 4e-16 * np.abs(ticks)
    nearest = np.where(is_off, np.where(up, np.ceil(ticks), np.floor(ticks)), nearest)
    # Dividing by a whole number gives the double that the decimal text would give.
    per_unit = np.rint(1 / tick)
    is_fraction = (per_unit >= 1) & (np.abs(per_unit * tick - 1) < 1e-9)
    on_grid = np.where(is_fraction, nearest / np.maximum(per_unit, 1.0), nearest * tick)
    return on_grid + 0.0  # no -0.0


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def finest_step(prices: Floats) -> float:
    """Return the power of ten that all prices are whole multiples of, from 1 to 1e-10.

    Shape (n,), no NaN. The stand-in for a tick where the exchange's own is not known.
    """
    scale: float = _scale_of(prices, 1.0)
    return 1.0 / scale


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def finest_steps(high: Floats, low: Floats, close: Floats, first: Ints, end: Ints) -> Floats:
    """Return `finest_step` of all prices in the bars `first[k]` to `end[k] - 1`, for each k."""
    out = np.empty(len(end))
    for k in range(len(end)):
        part, scale = slice(first[k], end[k]), 1.0
        for prices in (high, low, close):
            scale = _scale_of(prices[part], scale)
        out[k] = 1.0 / scale
    return out


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _scale_of(prices: Floats, scale: float) -> float:
    """Return the first power of ten from `scale` on that makes each price whole in its turn."""
    for price in prices:
        while scale < _FINEST_SCALE and abs(np.rint(price * scale) / scale - price) > 1e-14 * abs(
            price
        ):
            scale *= 10.0
    return scale
