"""Market records, funding rates, open interest and the basis in the database."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

import numpy as np

from core.domain import Floats, FundingRate, Ints, Market, Series
from core.funding_law import SETTLE_MS, awaited_ms
from core.market_context import REACH_MS, MarketContext, spot_of
from core.schema import KEY_SHIFT, MINUTE_MASK
from core.store.db import Database
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS, floor_ms, tf_ms


def upsert_markets(
    db: Database, exchange: str, markets: Iterable[Market], *, now_ms: int
) -> list[str]:
    """Store what an exchange says of its symbols; returns the symbols whose records changed.

    The records until then are kept in `market_changes`.
    """
    rows = [(m.symbol, json.dumps(asdict(m), sort_keys=True)) for m in markets]
    known = dict(
        db.rows("SELECT symbol, record FROM markets WHERE exchange = ?", (exchange,)),
    )
    changed = [symbol for symbol, record in rows if known.get(symbol, record) != record]
    with db.write():
        db.run_many(
            "INSERT OR REPLACE INTO market_changes VALUES (?, ?, ?, ?)",
            [(exchange, symbol, now_ms, known[symbol]) for symbol in changed],
        )
        db.run_many(
            "INSERT INTO markets VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " record = excluded.record, updated_ms = excluded.updated_ms",
            [(exchange, symbol, record, now_ms) for symbol, record in rows],
        )
    return changed


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


def upsert_funding(
    db: Database,
    exchange: str,
    symbol: str,
    rates: Sequence[FundingRate],
    *,
    replace: bool = True,
) -> list[int]:
    """Store funding settlements; returns the instants that are new or have another rate.

    `replace=False` leaves those that are stored as they are.
    """
    if not rates:
        return []
    bounds = {"start_ms": rates[0].ts_ms, "end_ms": rates[-1].ts_ms + 1}
    ts_ms, values = funding_of(db, exchange, symbol, **bounds)
    known = dict(zip(ts_ms.tolist(), values.tolist(), strict=True))
    fresh = [
        rate
        for rate in rates
        if rate.ts_ms not in known or (replace and known[rate.ts_ms] != rate.rate_frac)
    ]
    db.run_many(
        "INSERT INTO funding VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " rate_frac = excluded.rate_frac",
        [(exchange, symbol, *rate) for rate in fresh],
    )
    return [rate.ts_ms for rate in fresh]


def funding_of(
    db: Database, exchange: str, symbol: str, *, start_ms: int, end_ms: int
) -> tuple[Ints, Floats]:
    """Return stored settlements in [start_ms, end_ms) as (ts_ms, rate_frac) arrays."""
    return _arrays(
        db.rows(
            "SELECT ts_ms, rate_frac FROM funding WHERE exchange = ? AND symbol = ?"
            " AND ts_ms >= ? AND ts_ms < ? ORDER BY ts_ms",
            (exchange, symbol, start_ms, end_ms),
        )
    )


def funding_frontier_ms(db: Database, exchange: str, symbol: str, *, until_ms: int) -> int:
    """Return how far an open trade may be walked: not onto a settlement that is awaited.

    A pure function of what is stored and of the instant, so that live and retro wait alike.
    """
    hour_ms = floor_ms(until_ms, HOUR_MS)
    if ":" not in symbol or until_ms - hour_ms >= SETTLE_MS:
        return until_ms
    known_ms, _ = funding_of(
        db, exchange, symbol, start_ms=hour_ms - DAY_MS, end_ms=hour_ms + MINUTE_MS
    )
    awaited = awaited_ms(known_ms, until_ms)
    return until_ms if awaited is None else awaited - 1


def funding_read_of(db: Database, exchange: str, symbol: str) -> tuple[int, int] | None:
    """Return the range (from_ms, to_ms) whose settlements were asked for, or None."""
    found = db.rows(
        "SELECT from_ms, to_ms FROM funding_reads WHERE exchange = ? AND symbol = ?",
        (exchange, symbol),
    )
    return (int(found[0][0]), int(found[0][1])) if found else None


def widen_funding_read(
    db: Database, exchange: str, symbol: str, *, from_ms: int, to_ms: int
) -> None:
    """Say that the settlements of a range that touches the known one were asked for too."""
    db.run(
        "INSERT INTO funding_reads VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " from_ms = min(from_ms, excluded.from_ms), to_ms = max(to_ms, excluded.to_ms)",
        (exchange, symbol, from_ms, to_ms),
    )


def insert_interest(db: Database, exchange: str, symbol: str, ts_ms: int, qty: float) -> int:
    """Store one read of the open interest; returns 1 where it is new."""
    return db.run(
        "INSERT OR IGNORE INTO open_interest VALUES (?, ?, ?, ?)", (exchange, symbol, ts_ms, qty)
    )


def interest_of(
    db: Database, exchange: str, symbol: str, *, start_ms: int, end_ms: int
) -> tuple[Ints, Floats]:
    """Return stored reads of the open interest in [start_ms, end_ms): when read, base units."""
    return _arrays(
        db.rows(
            "SELECT ts_ms, open_interest_qty FROM open_interest WHERE exchange = ? AND symbol = ?"
            " AND ts_ms >= ? AND ts_ms < ? ORDER BY ts_ms",
            (exchange, symbol, start_ms, end_ms),
        )
    )


def basis_of(
    db: Database, exchange: str, symbol: str, timeframe: str, *, start_ms: int, end_ms: int
) -> tuple[Ints, Floats]:
    """Return the bars that open in [start_ms, end_ms) and a perpetual's premium at their closes.

    In percent of the spot pair's close; only bars that both have. Read by ranges of the primary
    key: as fast as the candles themselves.
    """
    spot = spot_of(symbol)
    ids = [
        db.value(
            "SELECT id FROM series WHERE exchange = ? AND symbol = ? AND timeframe = ?",
            (exchange, name, timeframe),
        )
        for name in (symbol, spot)
    ]
    if None in ids or end_ms <= start_ms:
        return _arrays([])
    own, other = (int(number) << KEY_SHIFT for number in ids)
    first, last = max(0, -(-start_ms // MINUTE_MS)), min(MINUTE_MASK, (end_ms - 1) // MINUTE_MS)
    found = db.stream(
        f"SELECT (a.key & {MINUTE_MASK}) * {MINUTE_MS}, 100 * (a.close / b.close - 1)"
        " FROM ohlcv a CROSS JOIN ohlcv b ON b.key = a.key + ?3"
        " WHERE a.key BETWEEN ?1 AND ?2 ORDER BY a.key",
        (own + first, own + last, other - own),
    )
    flat = np.fromiter(chain.from_iterable(found), np.float64).reshape(-1, 2)
    return flat[:, 0].astype(np.int64), np.ascontiguousarray(flat[:, 1])


def context_of(db: Database, series: Series, *, first_ms: int, known_ms: int) -> MarketContext:
    """Return what deciding the bars that open in [first_ms, known_ms) may know of a perpetual.

    Live and retro fill it here, so that both see the same values.
    """
    exchange, symbol, timeframe = series
    if ":" not in symbol:
        return MarketContext()
    window = {"start_ms": first_ms - REACH_MS, "end_ms": known_ms + 1}
    funding_ms, funding_frac = funding_of(db, exchange, symbol, **window)
    interest_ms, interest_qty = interest_of(db, exchange, symbol, **window)
    opens_ms, basis_pct = basis_of(
        db, exchange, symbol, timeframe, start_ms=first_ms, end_ms=known_ms
    )
    return MarketContext(
        funding_ms=funding_ms,
        funding_frac=funding_frac,
        interest_ms=interest_ms,
        interest_qty=interest_qty,
        basis_ms=opens_ms + tf_ms(timeframe),
        basis_pct=basis_pct,
    )


def _arrays(rows: Sequence[tuple[Any, ...]]) -> tuple[Ints, Floats]:
    return (
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.float64),
    )
