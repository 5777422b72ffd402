"""Are the data fresh and whole: the age and the holes of each series, and where it came from."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

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
