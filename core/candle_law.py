"""The law of candles: which rows of a source are bars, and what price step they move in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from core.domain import Bools, Candles, Floats
from core.timeframe import tf_ms

ALL_TIME_MS = (0, 2**53)  # every instant a float64 holds exactly: no window
_MAX_DECIMALS = 12
_ROUNDING = 4 * np.finfo(np.float64).eps  # a parsed decimal times a power of ten is off by less


def lawful(
    rows: Sequence[Sequence[Any]] | Floats, *, timeframe: str, start_ms: int, end_ms: int
) -> tuple[Candles, dict[str, int]]:
    """Return the lawful bars that open in [start_ms, end_ms), and how many rows fell, by reason.

    `rows` are (ts_ms, open, high, low, close, volume) in any order, as numbers or as text; further
    columns are ignored. A row falls for its first fault: `not_a_number` (a value that is absent,
    not finite or no number), `off_grid`, `outside` (of the window), `prices` (not
    0 < low <= open, close <= high), `volume` (below 0), `duplicate` (the last row of an instant
    stands). Only reasons that occurred are counted.
    """
    table = rows if isinstance(rows, np.ndarray) else _matrix(rows)
    table = table[:, :6].astype(np.float64, copy=False)
    ts, o, high, low, close, volume = table.T
    with np.errstate(invalid="ignore"):
        faults = {
            "not_a_number": ~np.isfinite(table).all(axis=1),
            "off_grid": ts % tf_ms(timeframe) != 0,
            "outside": (ts < start_ms) | (ts >= end_ms),
            "prices": ~((low > 0) & (low <= np.minimum(o, close)) & (np.maximum(o, close) <= high)),
            "volume": volume < 0,
        }
    kept = np.ones(len(table), dtype=np.bool_)
    dropped = {reason: _strike(kept, fault) for reason, fault in faults.items()}
    table = table[kept]
    order = np.argsort(table[:, 0], kind="stable")
    last = np.append(np.diff(table[order, 0]) > 0, True)[: len(order)]
    dropped["duplicate"] = len(order) - int(last.sum())
    bars = Candles.of_matrix(timeframe, table[order[last]])
    return bars, {reason: n for reason, n in dropped.items() if n}


def joined(first: Candles, second: Candles) -> Candles:
    """Return the bars of two series of one timeframe as one; where both have one, the second's.

    Bars of either that are in time order stay so; nothing is checked again.
    """
    if not len(first) or not len(second):
        return second if len(second) else first
    rows = np.concatenate([np.column_stack(bars.columns()) for bars in (first, second)])
    order = np.argsort(rows[:, 0], kind="stable")
    rows = rows[order]
    last = np.append(np.diff(rows[:, 0]) > 0, True)
    return Candles.of_matrix(first.timeframe, rows[last])


def holes_in(bars: Candles, *, start_ms: int, end_ms: int) -> list[tuple[int, int]]:
    """Return the runs [start, end) of grid points in [start_ms, end_ms) where no bar opens."""
    step = tf_ms(bars.timeframe)
    inside = bars.ts_ms[(bars.ts_ms >= start_ms) & (bars.ts_ms < end_ms)]
    edges = np.concatenate(([start_ms - step], inside, [end_ms])).astype(np.int64)
    wide = np.flatnonzero(np.diff(edges) > step)
    return [(int(edges[i]) + step, int(edges[i + 1])) for i in wide]


def finest_step(prices: Floats) -> float:
    """Return the finest price step that explains every price: 1, 2 or 5 times a power of ten.

    Shape (n,), no NaN, n >= 1. Prices are read as decimals of at most 12 places. A step above 1 is
    never returned; too few distinct prices give a step that is too coarse, never too fine.

    >>> finest_step(np.array([100.5, 101.0, 99.5])), finest_step(np.array([2.02, 2.04]))
    (0.5, 0.02)
    """
    distinct = np.unique(prices)
    for decimals in range(_MAX_DECIMALS + 1):
        scaled = distinct * 10.0**decimals
        whole = np.rint(scaled)
        if np.all(np.abs(scaled - whole) <= _ROUNDING * np.abs(scaled)):
            break
    common = int(np.gcd.reduce(whole.astype(np.int64))) if decimals else 1
    multiple = next(m for m in (5, 2, 1) if common % m == 0)
    return float(f"{multiple}e-{decimals}")


def _strike(kept: Bools, fault: Bools) -> int:
    """Clear the faulty rows of `kept` and return how many of them still stood."""
    n_struck = int((kept & fault).sum())
    kept &= ~fault
    return n_struck


def _matrix(rows: Sequence[Sequence[Any]]) -> Floats:
    """Return rows as (n, 6) float64; what is no number becomes NaN."""
    return np.array([_numbers(row) for row in rows], dtype=np.float64).reshape(-1, 6)


def _numbers(row: Sequence[Any]) -> list[float]:
    try:
        values = [float(value) for value in row[:6]]
    except (TypeError, ValueError, OverflowError):
        return [np.nan] * 6
    return values + [np.nan] * (6 - len(values))
