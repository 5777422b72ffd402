"""What is known of a perpetual beside its candles: funding, open interest, basis to spot."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from core.domain import Floats, Ints
from core.funding_law import SETTLE_MS
from core.timeframe import DAY_MS, HOUR_MS

NAMES = ("funding_8h_pct", "funding_3d_pct", "basis_pct", "open_interest_change_24h")
REACH_MS = 3 * DAY_MS + HOUR_MS  # nothing older than this before a decision is read

_STALE_FUNDING_MS = 8 * HOUR_MS
_SUM_MS, _SUM_N = 3 * DAY_MS, 9
_STALE_INTEREST_MS = HOUR_MS


def _no_ms() -> Ints:
    return np.empty(0, np.int64)


def _no_values() -> Floats:
    return np.empty(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketContext:
    """Stored values of one symbol, oldest first; empty where nothing is stored.

    `funding_ms` are instants of settlement, `interest_ms` those at which open interest was read,
    `basis_ms` the closes of the signal timeframe's bars.
    """

    funding_ms: Ints = field(default_factory=_no_ms)
    funding_frac: Floats = field(default_factory=_no_values)
    interest_ms: Ints = field(default_factory=_no_ms)
    interest_qty: Floats = field(default_factory=_no_values)
    basis_ms: Ints = field(default_factory=_no_ms)
    basis_pct: Floats = field(default_factory=_no_values)

    def each(self, change: Callable[[Ints, Floats], tuple[Ints, Floats]]) -> MarketContext:
        """Return it with every column of instants and values replaced by what `change` makes."""
        funding_ms, funding_frac = change(self.funding_ms, self.funding_frac)
        interest_ms, interest_qty = change(self.interest_ms, self.interest_qty)
        basis_ms, basis_pct = change(self.basis_ms, self.basis_pct)
        return MarketContext(
            funding_ms=funding_ms,
            funding_frac=funding_frac,
            interest_ms=interest_ms,
            interest_qty=interest_qty,
            basis_ms=basis_ms,
            basis_pct=basis_pct,
        )


NOTHING_STORED = MarketContext()


def context_values(
    context: MarketContext, *, side: int, decided_ms: int
) -> tuple[float, float, float, float]:
    """Return the values of `NAMES` known at a decision; NaN where nothing, or nothing fresh, is.

    A settlement counts from ten minutes after its instant: by then a live engine has read it, so
    that live and retro see the same. The sum is that of the last three days, at least nine
    settlements; the change is from the read of a day before, relative.
    """
    return (
        *_funding(context, side=side, known_ms=decided_ms - SETTLE_MS),
        _basis(context, side=side, decided_ms=decided_ms),
        _interest_change(context, decided_ms=decided_ms),
    )


def _funding(context: MarketContext, *, side: int, known_ms: int) -> tuple[float, float]:
    edges = (known_ms - _SUM_MS, known_ms)
    first, end = np.searchsorted(context.funding_ms, edges, side="right").tolist()
    if end == 0 or context.funding_ms[end - 1] <= known_ms - _STALE_FUNDING_MS:
        return math.nan, math.nan
    last = 100 * side * float(context.funding_frac[end - 1])
    if end - first < _SUM_N:
        return last, math.nan
    return last, 100 * side * math.fsum(context.funding_frac[first:end].tolist())


def _basis(context: MarketContext, *, side: int, decided_ms: int) -> float:
    i = int(np.searchsorted(context.basis_ms, decided_ms))
    if i == len(context.basis_ms) or context.basis_ms[i] != decided_ms:
        return math.nan
    return side * float(context.basis_pct[i])


def _interest_change(context: MarketContext, *, decided_ms: int) -> float:
    now, before = (_interest(context, at_ms) for at_ms in (decided_ms, decided_ms - DAY_MS))
    return now / before - 1 if before > 0 else math.nan


def _interest(context: MarketContext, at_ms: int) -> float:
    """The open interest last read by an instant; NaN where that is over an hour old."""
    i = int(np.searchsorted(context.interest_ms, at_ms, side="right")) - 1
    if i < 0 or context.interest_ms[i] <= at_ms - _STALE_INTEREST_MS:
        return math.nan
    return float(context.interest_qty[i])


def spot_of(symbol: str) -> str | None:
    """Return the spot pair of a linear perpetual, or None.

    >>> spot_of("BTC/USDT:USDT"), spot_of("BTC/USD:BTC"), spot_of("BTC/USDT")
    ('BTC/USDT', None, None)
    """
    pair, _, settle = symbol.partition(":")
    return pair if settle and pair.endswith(f"/{settle}") else None
