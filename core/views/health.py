"""Is the engine at work: how old each series is, what the jobs did, what waits to be sent."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from core.store.operation import outbox_counts
from core.timeframe import tf_ms
from core.views.reading import reading
from core.views.state import market_now


def freshness(path: Path) -> pd.DataFrame:
    """Return one row per stored series: rows, range, age against market time, holes, revisions.

    `age_ms` is market time minus the newest bar's close; `n_missing` counts bars inside gaps that
    are not settled as `no_trades`.
    """
    with reading(path) as db:
        now_ms = market_now(db)
        series = db.dicts(
            "SELECT exchange, symbol, timeframe, n_rows, first_ms, last_ms, n_revised FROM series"
            " WHERE n_rows > 0 ORDER BY exchange, symbol, id"
        )
        holes = {
            tuple(row[:3]): (row[3], row[4])
            for row in db.rows(
                "SELECT exchange, symbol, timeframe,"
                " sum(CASE WHEN state <> 'no_trades' THEN end_ms - start_ms ELSE 0 END),"
                " sum(state = 'unknown') FROM gaps GROUP BY exchange, symbol, timeframe"
            )
        }
    for row in series:
        step = tf_ms(row["timeframe"])
        missing_ms, n_unknown = holes.get(
            (row["exchange"], row["symbol"], row["timeframe"]), (0, 0)
        )
        row["age_ms"] = None if now_ms is None else now_ms - row["last_ms"] - step
        row["n_missing"] = missing_ms // step
        row["n_unknown_gaps"] = n_unknown
    return pd.DataFrame(series)


def jobs(path: Path) -> pd.DataFrame:
    """Return one row per job: the instant it is done for, its last run, and its last failure."""
    with reading(path) as db:
        found = db.dicts(
            "SELECT r.job, m.done_ms, r.due_ms, r.started_wall_ms, r.took_ms, r.outcome, r.n,"
            " r.detail, (SELECT count(*) FROM job_runs f WHERE f.job = r.job"
            " AND f.outcome <> 'ok') AS n_failed"
            " FROM job_runs r LEFT JOIN job_marks m USING (job)"
            " WHERE r.id IN (SELECT max(id) FROM job_runs GROUP BY job) ORDER BY r.job"
        )
    return pd.DataFrame(found)


def outbox(path: Path) -> dict[str, int]:
    """Return how many messages are in each state."""
    with reading(path) as db:
        return outbox_counts(db)


def sources(path: Path) -> pd.DataFrame:
    """Return, for each series with imported ranges, the rows of each source and their share."""
    with reading(path) as db:
        found = db.rows(
            "SELECT o.exchange, o.symbol, o.timeframe, o.kind, o.name, o.n_rows,"
            " min(1.0, o.n_rows * 1.0 / s.n_rows) FROM sources o JOIN series s"
            " USING (exchange, symbol, timeframe) WHERE s.n_rows > 0"
            " ORDER BY o.exchange, o.symbol, o.timeframe, o.name"
        )
    names = ["exchange", "symbol", "timeframe", "kind", "name", "n_rows", "share"]
    return pd.DataFrame(found, columns=names)
