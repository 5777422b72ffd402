"""What a book of trades was worth at every instant: its closed trades, and its open ones at market.

Everything here reads what came after the decisions: it is a record, not a forecast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from core.bootstrap import interval, orders, weeks, weeks_of
from core.domain import Floats, Ints

YEAR_MS = 365.25 * 86_400_000
NAN = math.nan


def equity_curve(closed_ms: Ints, r: Floats) -> tuple[Ints, Floats, Floats]:
    """Return instants of closing, cumulated R, and R below the highest so far (<= 0).

    Trades that close at one instant are one step, so their order cannot matter; the curve starts
    from 0 before its first instant.
    """
    ts_ms, codes = np.unique(np.asarray(closed_ms, np.int64), return_inverse=True)
    total = np.cumsum(np.bincount(codes, r, minlength=len(ts_ms)).astype(np.float64))
    return ts_ms, total, underwater(total)


def underwater(total: Floats) -> Floats:
    """Return how far each value lies below the highest so far, 0 before the first; <= 0."""
    return np.minimum(total - np.maximum.accumulate(np.maximum(total, 0.0)), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Positions:
    """Filled trades as parallel arrays of shape (n,), in any order.

    `side` is +1 or -1, `risk` the planned distance from entry to stop, prices in quote currency;
    `tp1_ms` and `closed_ms` are 0 while they have not come. `net_r` counts from `closed_ms` on;
    `cost_r` is what the whole trade costs (so far, while it is open) and is charged at the fill.
    """

    side: Ints
    risk: Floats
    opened_price: Floats
    opened_ms: Ints
    tp1: Floats
    tp1_ms: Ints
    tp1_fraction: Floats
    closed_ms: Ints
    net_r: Floats
    cost_r: Floats

    def __len__(self) -> int:
        return len(self.side)

    def __getitem__(self, rows: Ints) -> Positions:
        """Return some of the positions."""
        return Positions(**{name: getattr(self, name)[rows] for name in self.__slots__})


def open_r(held: Positions, ts_ms: Ints, price: Floats) -> Floats:
    """Return what the positions of one symbol would bring if left, at each instant, in R.

    `price` (n,) is the last close known at `ts_ms` (n,), rising. A position counts from the end of
    its fill's minute until the end of its exit's; the part that left at TP1 counts at TP1. NaN
    prices are allowed where nothing is open.
    """
    per_price = held.side / held.risk
    left = np.where(held.tp1_ms > 0, 1 - held.tp1_fraction, 1.0)
    at_tp1 = (1 - left) * per_price
    first, tp1, last = (_places(ts_ms, at) for at in (held.opened_ms, held.tp1_ms, held.closed_ms))
    slope, level = np.zeros(len(ts_ms) + 1), np.zeros(len(ts_ms) + 1)
    value = -per_price * held.opened_price - held.cost_r
    banked = at_tp1 * held.tp1
    for place, price_change, change in (
        (first, per_price, value),
        (tp1, -at_tp1, banked),
        (last, -left * per_price, -value - banked),
    ):
        np.add.at(slope, place, price_change)
        np.add.at(level, place, change)
    n_open = np.cumsum(np.bincount(first, minlength=len(slope)))
    n_open -= np.cumsum(np.bincount(last, minlength=len(slope)))
    marked = np.cumsum(slope)[:-1] * price + np.cumsum(level)[:-1]
    return np.where(n_open[:-1] > 0, marked, 0.0)  # not what rounding left of closed ones


def _places(ts_ms: Ints, at_ms: Ints) -> Ints:
    """The first instant from which each event shows; past the end where it has not come."""
    return np.where(at_ms > 0, np.searchsorted(ts_ms, at_ms), len(ts_ms))


def closed_r(held: Positions, ts_ms: Ints) -> Floats:
    """Return the net R of the positions closed by each instant."""
    is_closed = held.closed_ms > 0
    place = np.searchsorted(ts_ms, held.closed_ms[is_closed])
    steps = np.bincount(place, held.net_r[is_closed], minlength=len(ts_ms) + 1)
    return np.asarray(np.cumsum(steps)[:-1], np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Falls:
    """The deepest fall of an equity curve, in R, >= 0, and the yearly gain over it (Calmar).

    `_lo` and `_hi` are what runs of the same weeks in another order would have shown.
    """

    drawdown_r: float
    drawdown_r_lo: float
    drawdown_r_hi: float
    calmar: float
    calmar_lo: float
    calmar_hi: float


def falls(
    ts_ms: Ints, total: Floats, rng: np.random.Generator, *, years: float, longest_ms: int = 0
) -> Falls:
    """Judge an equity curve: instants, rising, and cumulated R; `longest_ms` is a trade's life.

    NaN for an empty curve; intervals need four weeks in which the curve has a point.
    """
    if not len(ts_ms):
        return Falls(**dict.fromkeys(Falls.__dataclass_fields__, NAN))
    deepest = -float(underwater(total).min()) + 0.0
    found = weeks(ts_ms, longest_ms=longest_ms)
    gains, depths = _redrawn(_legs(ts_ms, total), orders(found, rng))
    low, high = interval(depths, found)
    with np.errstate(divide="ignore", invalid="ignore"):
        calmar_low, calmar_high = interval(gains / years / depths, found)
    return Falls(
        drawdown_r=deepest,
        drawdown_r_lo=low,
        drawdown_r_hi=high,
        calmar=float(total[-1]) / years / deepest if deepest > 0 and years > 0 else NAN,
        calmar_lo=calmar_low,
        calmar_hi=calmar_high,
    )


@dataclass(frozen=True, slots=True)
class _Legs:
    """The weeks of a curve, each from its own start: all that a fall over many weeks needs."""

    gain: Floats
    high: Floats
    low: Floats
    depth: Floats


def _legs(ts_ms: Ints, total: Floats) -> _Legs:
    starts = np.flatnonzero(np.diff(weeks_of(ts_ms), prepend=-1))
    before = np.concatenate(([0.0], total))[starts]
    own = total - np.repeat(before, np.diff(np.append(starts, len(total))))
    depth = [-float(underwater(leg).min()) for leg in np.split(own, starts[1:])]
    return _Legs(
        gain=np.add.reduceat(np.diff(total, prepend=0.0), starts),
        high=np.maximum(np.maximum.reduceat(own, starts), 0.0),
        low=np.minimum(np.minimum.reduceat(own, starts), 0.0),
        depth=np.array(depth),
    )


def _redrawn(legs: _Legs, order: Ints) -> tuple[Floats, Floats]:
    """Gain and deepest fall of the legs walked in each order, (resamples, weeks)."""
    end = np.cumsum(legs.gain[order], axis=1)
    start = np.concatenate((np.zeros((len(order), 1)), end[:, :-1]), axis=1)
    highs = np.maximum.accumulate(start + legs.high[order], axis=1)
    peak = np.concatenate((np.zeros((len(order), 1)), highs[:, :-1]), axis=1)
    fall = np.maximum(peak - start - legs.low[order], legs.depth[order])
    return end[:, -1], fall.max(axis=1)
