"""What the database holds, from counts the store maintains: quick on a file of any size.

It imports no kernel and reads no candle, so that the whole command answers within a second.
"""

from __future__ import annotations

import time
from typing import Any

from core.domain import Series
from core.store import operation
from core.store.db import Database
from core.timeframe import MINUTE_MS, tf_ms

Rows = list[dict[str, Any]]
STATES = ("missing", "unknown", "no_trades")


def inspect(db: Database) -> dict[str, Any]:
    """Return what `db_inspect.py` shows; instants are UTC ms, holes counted in bars."""
    begun = time.perf_counter()
    wal = db.path.with_name(db.path.name + "-wal")
    clock = operation.clock_row(db)
    now_ms = clock[0] if clock else None
    return {
        "file": str(db.path),
        "bytes": db.path.stat().st_size,
        "wal_bytes": wal.stat().st_size if wal.exists() else 0,
        "market_ms": now_ms,
        "series": _series(db, now_ms=now_ms),
        "sources": _sources(db),
        "seams": _seams(db),
        "funding": _ranges(db, "funding"),
        "open_interest": _ranges(db, "open_interest"),
        "signals": dict(db.rows("SELECT status, count(*) FROM signals GROUP BY status")),
        "jobs": [
            {"job": job, "runs": n, "failed": bad, "last_wall_ms": last}
            for job, n, bad, last in db.rows(
                "SELECT job, count(*), sum(outcome <> 'ok'), max(started_wall_ms) FROM job_runs"
                " GROUP BY job ORDER BY job"
            )
        ],
        "outbox": operation.outbox_counts(db),
        "took_s": round(time.perf_counter() - begun, 3),
    }


def _series(db: Database, *, now_ms: int | None) -> Rows:
    """Return each series with its holes, and the minutes since its newest bar closed."""
    lacking: dict[tuple[Series, str], int] = {}
    for *names, state, total_ms in db.rows(
        "SELECT exchange, symbol, timeframe, state, sum(end_ms - start_ms) FROM gaps"
        " GROUP BY exchange, symbol, timeframe, state"
    ):
        series = Series(*names)
        lacking[series, state] = int(total_ms) // tf_ms(series.timeframe)
    found = db.rows(
        "SELECT exchange, symbol, timeframe, n_rows, first_ms, last_ms, n_revised"
        " FROM series ORDER BY exchange, symbol, id"
    )
    rows = []
    for *names, n_rows, first_ms, last_ms, n_revised in found:
        series, age_min = Series(*names), None
        if now_ms is not None and last_ms is not None:
            age_min = (now_ms - last_ms - tf_ms(series.timeframe)) // MINUTE_MS
        rows.append(
            {
                **series._asdict(),
                "rows": n_rows,
                "first_ms": first_ms,
                "last_ms": last_ms,
                "age_min": age_min,
                **{state: lacking.get((series, state), 0) for state in STATES},
                "revised": n_revised,
            }
        )
    return rows


def _sources(db: Database) -> Rows:
    """Return each recorded source with its share of its series' rows."""
    return db.dicts(
        "SELECT o.exchange, o.symbol, o.timeframe, o.kind, o.name, o.origin, o.n_rows AS rows,"
        " CASE WHEN s.n_rows > 0 THEN min(1.0, round(o.n_rows * 1.0 / s.n_rows, 4)) END AS share,"
        " o.first_ms, o.last_ms FROM sources o"
        " LEFT JOIN series s USING (exchange, symbol, timeframe)"
        " ORDER BY o.exchange, o.symbol, s.id, o.first_ms, o.id"
    )


def _seams(db: Database) -> Rows:
    """Return where series go over from one source to another."""
    return db.dicts(
        "SELECT exchange, symbol, timeframe, at_ms, before, after, basis_pct,"
        " n_compared, tick_before, tick_after FROM seams"
        " ORDER BY exchange, symbol, timeframe, at_ms"
    )


def _ranges(db: Database, table: str) -> Rows:
    """Return how much of a table there is of each symbol, and from when to when."""
    return db.dicts(
        "SELECT exchange, symbol, count(*) AS rows, min(ts_ms) AS first_ms, max(ts_ms) AS last_ms"
        f" FROM {table} GROUP BY exchange, symbol ORDER BY exchange, symbol"
    )


def symbols_stored(db: Database) -> list[str]:
    """Return the symbols of which there are series."""
    return [name for (name,) in db.rows("SELECT DISTINCT symbol FROM series ORDER BY symbol")]


def holes(db: Database, symbol: str | None = None) -> Rows:
    """Return each gap, perhaps of one symbol only; it spans [start_ms, end_ms).

    `reads` says how often it was asked for; before `next_ms` it is not asked for again.
    """
    return db.dicts(
        "SELECT exchange, symbol, timeframe, start_ms, end_ms,"
        f" (end_ms - start_ms) / {MINUTE_MS} AS minutes, state, n_reads AS reads, next_ms"
        " FROM gaps WHERE ?1 IS NULL OR symbol = ?1"
        " ORDER BY exchange, symbol, timeframe, start_ms",
        (symbol,),
    )
