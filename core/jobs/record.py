"""The running record of what was told, and of every candidate followed, from the database."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from core import performance
from core.app import App
from core.bootstrap import SEED
from core.domain import Floats, Ints
from core.messages import Record
from core.splits import matures_ms
from core.store.db import Database
from core.streaks import losses_in_a_row
from core.timeframe import tf_ms

FOLLOWED = "followed"
TITLES = {"LIVE": "LIVE", "PAPER": "PAPER", FOLLOWED: "All followed"}
_COLUMNS = (
    "symbol, timeframe, decided_ms, valid_until_ms, closed_ts_ms, r_multiple, gross_r, p_mart,"
    " ambiguous, ev_r"
)


def record(app: App, book: str, *, end_ms: int, start_ms: int = 0) -> Record:
    """Return the record of a book's trades that closed in [start_ms, end_ms).

    A book is LIVE or PAPER (what really was told, not what a retro-scan would have) or `FOLLOWED`.
    Of the present strategy. Rates and means are of trades whose candidates have matured by
    `end_ms`: a stop comes sooner than a target.
    """
    rows = closed_rows(app.db, app.strategy, book, start_ms=start_ms, end_ms=end_ms)
    r = _numbers(rows, "r_multiple")
    mature = _is_mature(rows, hold_bars=app.config.execution.max_hold_candles, now_ms=end_ms)
    promised_r = _numbers(rows, "ev_r")[mature]
    return Record(
        title=TITLES[book],
        n_closed=len(rows),
        total_r=float(r.sum()),
        promised_r=float(promised_r.mean()) if len(promised_r) else math.nan,
        run=losses_in_a_row(r.tolist()),
        **_rates(trades_of(rows)[mature]),
    )


def closed_rows(
    db: Database, strategy: str, book: str, *, start_ms: int, end_ms: int
) -> list[dict[str, Any]]:
    """Return a book's trades that closed in [start_ms, end_ms), in the order of their exits."""
    told = "" if book == FOLLOWED else " AND delivery = :book AND origin = 'live'"
    return db.dicts(
        f"SELECT {_COLUMNS} FROM signals WHERE strategy_id = :strategy AND closed_ts_ms >= :start"
        f" AND closed_ts_ms < :end AND r_multiple IS NOT NULL{told} ORDER BY closed_ts_ms, id",
        {
            "strategy": strategy,
            "start": start_ms,
            "end": end_ms,
            **({} if book == FOLLOWED else {"book": book}),
        },
    )


def trades_of(rows: list[dict[str, Any]]) -> performance.Trades:
    """Return closed rows as the arrays that `performance` judges."""
    return performance.Trades(
        r=_numbers(rows, "r_multiple"),
        gross_r=_numbers(rows, "gross_r"),
        p_mart=_numbers(rows, "p_mart"),
        decided_ms=_instants(rows, "decided_ms"),
        closed_ms=_instants(rows, "closed_ts_ms"),
        symbol=np.array([row["symbol"] for row in rows], np.str_),
        ambiguous=_numbers(rows, "ambiguous") > 0,
    )


def _numbers(rows: list[dict[str, Any]], name: str) -> Floats:
    return np.array([row[name] for row in rows], np.float64)  # None becomes NaN


def _instants(rows: list[dict[str, Any]], name: str) -> Ints:
    return np.array([row[name] for row in rows], np.int64)


def _is_mature(rows: list[dict[str, Any]], *, hold_bars: int, now_ms: int) -> Any:
    hold_ms = hold_bars * np.array([tf_ms(row["timeframe"]) for row in rows], np.int64)
    return matures_ms(_instants(rows, "valid_until_ms"), hold_ms) <= now_ms


def _rates(trades: performance.Trades) -> dict[str, Any]:
    """Return the fields of Record that `performance.metrics` judges; NaN without trades."""
    names = ("win_rate", "win_rate_lo", "win_rate_hi", "p_mart", "mean_r", "mean_r_lo", "mean_r_hi")
    if not len(trades):
        return {"n": 0, "n_eff": 0.0, **dict.fromkeys(names, math.nan)}
    found = performance.metrics(trades, np.random.default_rng(SEED))
    return {name: getattr(found, name) for name in ("n", "n_eff", *names)}
