"""How much to stake, and prices on the exchange's grid: everything rounded against us."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from core.config import Risk
from core.domain import Floats

MAINTENANCE_FRAC = 0.005  # maintenance margin of the lowest tier of the usual perpetuals
_MOST_DECIMALS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """A position: whole leverage, notional, and the price at which the exchange would close it.

    `risk_pct` is what the stop costs in percent of equity, after the caps and before fees.
    """

    leverage: float
    notional_usd: float
    risk_pct: float
    liquidation: float


def sizing(entry: float, stop: float, *, risk: Risk, unlevered: bool = False) -> Sizing | str:
    """Return the position that loses the configured share of equity at the stop.

    The leverage is the smallest whole one that carries it. Where the cap, or a liquidation price
    nearer to the stop than the buffer, forbids that leverage, the position shrinks to what the
    highest allowed one carries. `unlevered`: bought outright, without liquidation. Returns a
    sentence instead when not even leverage 1 leaves room.

    Liquidation is the isolated-margin approximation with a maintenance margin of 0.5 %.
    """
    side = 1 if stop < entry else -1
    stop_frac = abs(entry - stop) / entry
    highest = 1 if unlevered else _highest_leverage(stop_frac, risk)
    if highest < 1:
        return f"a stop {100 * stop_frac:.1f} % away leaves no room before liquidation"
    exposure = min(risk.trade_pct / 100 / stop_frac, float(highest))
    leverage = max(1, math.ceil(exposure))
    liquidation = entry * (1 - side * (1 / leverage - MAINTENANCE_FRAC))
    return Sizing(
        leverage=float(leverage),
        notional_usd=risk.equity_usd * exposure,
        risk_pct=100 * exposure * stop_frac,
        liquidation=0.0 if unlevered else max(liquidation, 0.0),
    )


def _highest_leverage(stop_frac: float, risk: Risk) -> int:
    room_frac = stop_frac + risk.liquidation_buffer_pct / 100 + MAINTENANCE_FRAC
    return math.floor(min(risk.leverage_cap, 1 / room_frac))


def on_tick(price: float, tick: float, *, up: bool) -> float:
    """Return the grid price at or above (`up`), or at or below, a price.

    A price within a millionth of a tick of the grid counts as on it, so that float noise in the
    arithmetic before cannot cost a tick.

    >>> on_tick(100.234, 0.01, up=True), on_tick(100.23, 0.01, up=True)
    (100.24, 100.23)
    """
    ticks = price / tick
    nearest = round(ticks)
    if abs(ticks - nearest) > 1e-6 + 4e-16 * abs(ticks):
        nearest = math.ceil(ticks) if up else math.floor(ticks)
    # Dividing by a whole number gives the double that the decimal text would give.
    per_unit = round(1 / tick)
    if per_unit >= 1 and abs(per_unit * tick - 1) < 1e-9:
        return nearest / per_unit
    return nearest * tick


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def finest_step(prices: Floats) -> float:
    """Return the power of ten that all prices are whole multiples of, from 1 to 1e-10.

    Shape (n,), no NaN. The stand-in for a tick where the exchange's own is not known.
    """
    scale = 1.0
    n_decimals = 0
    for price in prices:
        while n_decimals < _MOST_DECIMALS and abs(
            np.rint(price * scale) / scale - price
        ) > 1e-14 * abs(price):
            scale *= 10.0
            n_decimals += 1
    return 1.0 / scale
