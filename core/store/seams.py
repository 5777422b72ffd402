"""Seams: where a stored series goes over from one market's prices to another's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from core.domain import Ints, Series
from core.store.db import Database

_OF = "exchange = ? AND symbol = ? AND timeframe = ?"


class Range(NamedTuple):
    """Bars that open in [first_ms, end_ms) and the exchange they were traded on, '' if unknown."""

    first_ms: int
    end_ms: int
    origin: str


class Change(NamedTuple):
    """An instant from which on bars come from another exchange than before it."""

    at_ms: int
    before: str
    after: str


class Seam(NamedTuple):
    """A change with what the prices on either side show; see the table `seams`."""

    at_ms: int
    before: str
    after: str
    basis_pct: float
    n_compared: int
    tick_before: float
    tick_after: float


def changes(ranges: Sequence[Range], home: str) -> list[Change]:
    """Return where the origin changes; where ranges overlap the later one stands, else `home`.

    >>> changes([Range(10, 20, "a"), Range(15, 30, "b")], "h")
    [Change(at_ms=10, before='h', after='a'), Change(at_ms=15, before='a', after='b'), \
Change(at_ms=30, before='b', after='h')]
    """
    found, before = [], home
    for at_ms in sorted({edge for one in ranges for edge in (one.first_ms, one.end_ms)}):
        covering = [one.origin for one in ranges if one.first_ms <= at_ms < one.end_ms]
        after = covering[-1] if covering else home
        if after != before:
            found.append(Change(at_ms, before, after))
        before = after
    return found


def ranges_of(db: Database, series: Series, *, step_ms: int) -> list[Range]:
    """Return the ranges of a series that came from elsewhere than its exchange, oldest first."""
    found = db.rows(
        "SELECT first_ms, last_ms + ?, CASE kind WHEN 'import' THEN origin ELSE exchange END"
        f" FROM sources WHERE {_OF} AND kind IN ('import', 'download') ORDER BY id",
        (step_ms, *series),
    )
    return [Range(*row) for row in found]


def replace_seams(db: Database, series: Series, seams: Iterable[Seam]) -> None:
    """Write down the seams of a series, in place of those known before."""
    with db.write():
        db.run(f"DELETE FROM seams WHERE {_OF}", series)
        db.run_many(
            "INSERT INTO seams (exchange, symbol, timeframe, at_ms, before, after,"
            " basis_pct, n_compared, tick_before, tick_after)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(*series, *seam) for seam in seams],
        )


def seams_of(db: Database, series: Series) -> list[Seam]:
    """Return the seams of a series in time order."""
    found = db.rows(
        "SELECT at_ms, before, after, basis_pct, n_compared, tick_before, tick_after FROM seams"
        f" WHERE {_OF} ORDER BY at_ms",
        series,
    )
    return [Seam(*row) for row in found]


def seams_ms(db: Database, exchange: str, symbol: str) -> Ints:
    """Return the instants of all seams of a symbol, on any timeframe, sorted and unique."""
    found = db.rows(
        "SELECT DISTINCT at_ms FROM seams WHERE exchange = ? AND symbol = ? ORDER BY at_ms",
        (exchange, symbol),
    )
    return np.array([row[0] for row in found], np.int64)
