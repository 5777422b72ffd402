"""Market records and funding rates in the database."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict

import numpy as np

from core.domain import Floats, FundingRate, Ints, Market
from core.store.db import Database


def upsert_markets(db: Database, exchange: str, markets: Iterable[Market], *, now_ms: int) -> None:
    """Store what an exchange says of its symbols."""
    db.run_many(
        "INSERT INTO markets VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " record = excluded.record, updated_ms = excluded.updated_ms",
        [(exchange, m.symbol, json.dumps(asdict(m), sort_keys=True), now_ms) for m in markets],
    )


def market_of(db: Database, exchange: str, symbol: str) -> Market:
    """Return a symbol's record; one made up and marked `fallback` where none is stored.

    The made-up record has no tick: the scan then takes the finest price step of its own window.
    """
    text = db.value(
        "SELECT record FROM markets WHERE exchange = ? AND symbol = ?", (exchange, symbol)
    )
    if text is not None:
        return Market(**json.loads(text))
    kind = "swap" if ":" in symbol else "spot"
    return Market(symbol=symbol, kind=kind, tick=0.0, fallback=True)


def upsert_funding(db: Database, exchange: str, symbol: str, rates: Iterable[FundingRate]) -> None:
    """Store funding settlements."""
    db.run_many(
        "INSERT INTO funding VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " rate_frac = excluded.rate_frac",
        [(exchange, symbol, rate.ts_ms, rate.rate_frac) for rate in rates],
    )


def funding_of(
    db: Database, exchange: str, symbol: str, *, start_ms: int, end_ms: int
) -> tuple[Ints, Floats]:
    """Return stored settlements in [start_ms, end_ms) as (ts_ms, rate_frac) arrays."""
    found = db.rows(
        "SELECT ts_ms, rate_frac FROM funding WHERE exchange = ? AND symbol = ?"
        " AND ts_ms >= ? AND ts_ms < ? ORDER BY ts_ms",
        (exchange, symbol, start_ms, end_ms),
    )
    return (
        np.array([row[0] for row in found], np.int64),
        np.array([row[1] for row in found], np.float64),
    )
