"""The record of a strategy on three books, with intervals; the one source of every figure shown."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core import performance
from core.domain import CLOSED, UNFILLED
from core.splits import matures_ms
from core.store import Database
from core.store.signals import strategy_settings_of
from core.timeframe import tf_ms
from core.views.reading import reading
from core.views.state import market_now, newest_strategy

BOOKS = {
    "delivered": "Delivered (LIVE and PAPER)",
    "followed": "All followed candidates",
    "passed": "Gate PASS",
}
BY = ("symbol", "timeframe", "direction", "setup", "regime", "exit_reason", "month", "origin")
THIN_N_EFF = 30  # cells under this are shown in grey and never ranked
BOOTSTRAP_SEED = 20_250_101
_COLUMNS = (
    "id",
    "symbol",
    "timeframe",
    "setup",
    "direction",
    "regime",
    "origin",
    "scan_stride",
    "decided_ms",
    "valid_until_ms",
    "opened_ts_ms",
    "closed_ts_ms",
    "status",
    "gate",
    "evidence",
    "delivery",
    "exit_reason",
    "p_mart",
    "ml_p",
    "r_multiple",
    "gross_r",
    "pnl_pct",
    "pnl_usd",
    "ambiguous",
    "data_revised",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """One way of counting. `total_r`, `total_usd` and `max_drawdown_r` are of every closed trade.

    `metrics` are of closed trades whose candidates have matured: a stop comes sooner than a
    target, so the youngest trades look worse than they are. `n_young` were left out of them.
    None where no trade is left.
    """

    title: str
    n_candidates: int
    n_pending: int
    n_open: int
    n_unfilled: int
    n_closed: int
    n_young: int
    n_partial_scan: int
    n_data_revised: int
    total_r: float
    total_usd: float
    max_drawdown_r: float
    metrics: performance.Metrics | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The record of one strategy_id over candidates decided in [start_ms, end_ms).

    `rows` holds one row per candidate, in decision order, with `month` and `is_counted`.
    """

    strategy: str | None
    start_ms: int | None
    end_ms: int | None
    market_ms: int | None
    books: dict[str, Book]
    rows: pd.DataFrame


def results(
    path: Path,
    *,
    strategy: str | None = None,
    start_ms: int | None = None,
    end_ms: int | None = None,
) -> Results:
    """Return the record of a strategy, the one seen last unless given.

    Raises StoreError when the database cannot be read.
    """
    with reading(path) as db:
        name = strategy or newest_strategy(db)
        now_ms = market_now(db)
        found = db.rows(
            f"SELECT {', '.join(_COLUMNS)} FROM signals WHERE strategy_id = ?1"
            " AND decided_ms >= coalesce(?2, 0) AND (?3 IS NULL OR decided_ms < ?3)"
            " ORDER BY decided_ms, id",
            (name, start_ms, end_ms),
        )
        hold_bars = _hold_bars(db, name)
    rows = _marked(pd.DataFrame(found, columns=list(_COLUMNS)), now_ms=now_ms, hold_bars=hold_bars)
    return Results(
        strategy=name,
        start_ms=start_ms,
        end_ms=end_ms,
        market_ms=now_ms,
        books={book: _book(in_book(rows, book), BOOKS[book]) for book in BOOKS},
        rows=rows,
    )


def _hold_bars(db: Database, strategy: str | None) -> int:
    settings = strategy_settings_of(db, strategy) if strategy else None
    return int((settings or {}).get("execution", {}).get("max_hold_candles", 0))


def _marked(rows: pd.DataFrame, *, now_ms: int | None, hold_bars: int) -> pd.DataFrame:
    """Add what the tables need: the month, and whether a trade counts in the rates."""
    numbers = ("p_mart", "ml_p", "r_multiple", "gross_r", "pnl_pct", "pnl_usd")
    rows = rows.astype(dict.fromkeys(numbers, "float64"))
    decided = pd.to_datetime(rows["decided_ms"].astype("int64"), unit="ms", utc=True)
    hold_ms = np.array([hold_bars * tf_ms(name) for name in rows["timeframe"]], np.int64)
    matures = matures_ms(rows["valid_until_ms"].to_numpy(np.int64), hold_ms)
    is_closed = rows["status"].isin(CLOSED)
    is_mature = matures <= (np.iinfo(np.int64).max if now_ms is None else now_ms)
    return rows.assign(
        month=decided.dt.strftime("%Y-%m"),
        is_closed=is_closed,
        is_counted=is_closed & is_mature,
    )


def in_book(rows: pd.DataFrame, book: str) -> pd.DataFrame:
    """Return the rows of one book."""
    if book == "delivered":
        return rows[rows["delivery"].isin(("LIVE", "PAPER"))]
    return rows[rows["gate"] == "PASS"] if book == "passed" else rows


def trades_of(rows: pd.DataFrame) -> performance.Trades:
    """Return closed rows as the arrays that `performance` judges."""
    return performance.Trades(
        r=rows["r_multiple"].to_numpy(np.float64),
        gross_r=rows["gross_r"].to_numpy(np.float64),
        p_mart=rows["p_mart"].to_numpy(np.float64),
        decided_ms=rows["decided_ms"].to_numpy(np.int64),
        closed_ms=rows["closed_ts_ms"].to_numpy(np.int64),
        symbol=rows["symbol"].to_numpy(str),
        ambiguous=rows["ambiguous"].to_numpy(bool),
    )


def _judged(rows: pd.DataFrame) -> performance.Metrics:
    # A fresh generator each time: a figure must not depend on what was computed before it.
    return performance.metrics(trades_of(rows), np.random.default_rng(BOOTSTRAP_SEED))


def _book(rows: pd.DataFrame, title: str) -> Book:
    closed, counted = rows[rows["is_closed"]], rows[rows["is_counted"]]
    status = rows["status"]
    deepest = performance.max_drawdown(
        closed["closed_ts_ms"].to_numpy(np.int64), closed["r_multiple"].to_numpy(np.float64)
    )
    return Book(
        title=title,
        n_candidates=len(rows),
        n_pending=int((status == "PENDING").sum()),
        n_open=int((status == "OPEN").sum()),
        n_unfilled=int(status.isin(UNFILLED).sum()),
        n_closed=len(closed),
        n_young=len(closed) - len(counted),
        n_partial_scan=int((rows["scan_stride"] != 1).sum()),
        n_data_revised=int(rows["data_revised"].astype(bool).sum()),
        total_r=float(closed["r_multiple"].sum()),
        total_usd=float(closed["pnl_usd"].sum()),
        max_drawdown_r=deepest,
        metrics=_judged(counted) if len(counted) else None,
    )


def equity(found: Results, book: str) -> pd.DataFrame:
    """Return every closed trade of a book as steps: closed_ms, equity_r, underwater_r (<= 0)."""
    rows = in_book(found.rows, book)
    closed = rows[rows["is_closed"]]
    steps = performance.equity_curve(
        closed["closed_ts_ms"].to_numpy(np.int64), closed["r_multiple"].to_numpy(np.float64)
    )
    return pd.DataFrame(dict(zip(("closed_ms", "equity_r", "underwater_r"), steps, strict=True)))


def breakdown(found: Results, book: str, by: str) -> pd.DataFrame:
    """Return the metrics of each value of one column, in the column's own order, never ranked.

    One row per value: `by`, every field of Metrics, and `is_thin` where n_eff is under
    THIN_N_EFF. Only counted trades (see Book).
    """
    rows = in_book(found.rows, book)
    groups = rows[rows["is_counted"]].groupby(by, sort=False)
    parts = [{by: name, **asdict(_judged(group))} for name, group in groups]
    names = [by, *performance.Metrics.__dataclass_fields__]
    table = pd.DataFrame(parts, columns=names)
    order = table[by].map(tf_ms) if by == "timeframe" else table[by]
    return table.assign(is_thin=table["n_eff"] < THIN_N_EFF).loc[order.sort_values().index]


def as_json(found: Results) -> dict[str, Any]:
    """Return the figures as plain JSON values; what does not exist is null."""
    return {
        "strategy_id": found.strategy,
        "start_ms": found.start_ms,
        "end_ms": found.end_ms,
        "market_ms": found.market_ms,
        "interval_level": performance.LEVEL,
        "books": {name: _plain(asdict(book)) for name, book in found.books.items()},
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
