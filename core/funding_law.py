"""The law of funding: which rows are settlements, and which settlement is worth waiting for."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from core.domain import FundingRate, Ints
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS, floor_ms

SETTLE_MS = 10 * MINUTE_MS  # a rate not stored this long after its instant is not waited for
MAX_RATE_FRAC = 0.2  # no exchange settles at a fifth of the notional: such a row is damaged
_GRID_MS = 8 * HOUR_MS  # where the constant rate settles


def lawful_rates(
    rows: Iterable[tuple[Any, Any]], *, start_ms: int, end_ms: int
) -> tuple[list[FundingRate], int]:
    """Return the settlements in [start_ms, end_ms), oldest first, and how many rows are no rates.

    `rows` are (ts_ms, rate) in any order. Exchanges stamp settlements some ms late, so an instant
    is its minute; of two rows in one minute the last stands. A rate is finite and below a fifth.
    """
    found: dict[int, float] = {}
    n_refused = 0
    for stamp, rate in rows:
        settled = _settlement(stamp, rate)
        if settled is None:
            n_refused += 1
        elif start_ms <= settled.ts_ms < end_ms:
            found[settled.ts_ms] = settled.rate_frac
    return [FundingRate(ts_ms, found[ts_ms]) for ts_ms in sorted(found)], n_refused


def _settlement(stamp: Any, rate: Any) -> FundingRate | None:
    try:
        ts_ms, rate_frac = int(stamp), float(rate)
    except (TypeError, ValueError, OverflowError):
        return None
    if ts_ms <= 0 or not math.isfinite(rate_frac) or abs(rate_frac) >= MAX_RATE_FRAC:
        return None
    return FundingRate(floor_ms(ts_ms, MINUTE_MS), rate_frac)


def awaited_ms(known_ms: Ints, until_ms: int) -> int | None:
    """Return the settlement of the last ten minutes that is still to be published, or None.

    `known_ms` are the stored instants, oldest first. Settlements fall on whole hours: on the 8 h
    grid, and where the spacing of the last day's says. With none stored in the day before nobody
    publishes any, and nothing is waited for.
    """
    hour_ms = floor_ms(until_ms, HOUR_MS)
    day = known_ms[(known_ms > hour_ms - DAY_MS) & (known_ms <= hour_ms)]
    if until_ms - hour_ms >= SETTLE_MS or not len(day) or day[-1] == hour_ms:
        return None
    spacing_ms = int(np.diff(day).min()) if len(day) > 1 else _GRID_MS
    is_due = hour_ms % _GRID_MS == 0 or (hour_ms - int(day[-1])) % spacing_ms == 0
    return hour_ms if is_due else None
