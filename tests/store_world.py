"""A small store: one series of known bars, a database in memory, and oracles of both."""

from __future__ import annotations

from pathlib import Path

import apsw
import numpy as np
from hypothesis import strategies as st

from core import schema
from core.domain import Candles, Series
from core.store import Database
from tests.worlds import random_candles

BASE = Series("x", "A/USDT", "1m")
TRUTH = random_candles(60 * 8, seed=3)
Row = tuple[float, float, float, float, float]
minutes = st.lists(st.integers(0, 40), min_size=1, max_size=12, unique=True)


def scratch() -> Database:
    """A database in memory, for properties that need many."""
    connection = apsw.Connection(":memory:")
    schema.migrate(connection.execute, version=0)
    return Database(connection, Path(":memory:"), read_only=False)


def bars_of(rows: dict[int, Row], timeframe: str = "1m") -> Candles:
    """The rows of an oracle as candles."""
    matrix = [[ts, *values] for ts, values in sorted(rows.items())]
    return Candles.of_matrix(timeframe, np.array(matrix, np.float64).reshape(-1, 6))


def rows_of(bars: Candles) -> dict[int, Row]:
    """Candles as an oracle keeps them."""
    ts_ms, *prices = (column.tolist() for column in bars.columns())
    return dict(zip(ts_ms, zip(*prices, strict=True), strict=True))


def viewed(db: Database, series: Series) -> dict[int, Row]:
    """What the view `candles` shows of a series."""
    found = db.rows(
        "SELECT ts_ms, open, high, low, close, volume FROM candles WHERE exchange = ?"
        " AND symbol = ? AND timeframe = ?",
        series,
    )
    return {row[0]: row[1:] for row in found}


def same(left: Candles, right: Candles) -> bool:
    """Say whether two series are equal bit for bit."""
    pairs = zip(left.columns(), right.columns(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)
