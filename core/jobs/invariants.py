"""What must hold in any database, whatever happened to it and whenever its process was killed."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np

from core.app import App
from core.domain import Series
from core.errors import ModelError
from core.ml.bundle import load_bundle
from core.ml.folder import read_pointer
from core.resample import resample
from core.store import candles as store
from core.store.db import Database
from core.store.gaps import covered_ms
from core.timeframe import is_derivable, tf_ms

POINTER, DERIVED = "the pointer names the champion", "derived bars are those of their source"
_DERIVED_BARS = 200  # the newest of each derived series, to be made again
_OF_SERIES = "BETWEEN s.id << 26 AND (s.id << 26) + 67108863"
_STATE = "json_extract(exec_state, '$.{}')"

# name -> the query that counts what breaks it
RULES = MappingProxyType(
    {
        "closed rows have an exit": "SELECT count(*) FROM signals WHERE status IN"
        " ('TP','SL','TP1_TRAIL','TIMEOUT') AND (opened_ts_ms IS NULL OR closed_ts_ms IS NULL"
        " OR r_multiple IS NULL OR closed_ts_ms < opened_ts_ms)",
        "followed rows have no exit": "SELECT count(*) FROM signals WHERE status IN"
        " ('PENDING','OPEN') AND closed_ts_ms IS NOT NULL",
        "rows are open once entered": "SELECT count(*) FROM signals"
        " WHERE status IN ('PENDING','OPEN') AND (status = 'OPEN') <> (opened_ts_ms IS NOT NULL)",
        "unfilled rows have no result": "SELECT count(*) FROM signals WHERE status IN"
        " ('EXPIRED','CANCELLED') AND (opened_ts_ms IS NOT NULL OR closed_ts_ms IS NULL"
        " OR r_multiple IS NOT NULL)",
        "rows are what their state says": "SELECT count(*) FROM signals"
        f" WHERE {_STATE.format('status')} <> status"
        f" OR {_STATE.format('opened_ms')} <> coalesce(opened_ts_ms, 0)"
        f" OR {_STATE.format('closed_ms')} <> coalesce(closed_ts_ms, 0)",
        "entries come after the message": "SELECT count(*) FROM signals"
        " WHERE opened_ts_ms IS NOT NULL AND opened_ts_ms <= actionable_ms",
        "every candidate has its features": "SELECT count(*) FROM signals s LEFT JOIN features f"
        " ON f.signal_id = s.id WHERE f.signal_id IS NULL",
        "told rows have a message": "SELECT count(*) FROM signals s WHERE delivery IN"
        " ('LIVE','PAPER') AND origin = 'live' AND NOT EXISTS"
        " (SELECT 1 FROM outbox o WHERE o.signal_id = s.id AND o.kind = 'new_signal')",
        "one call opens the messages of a signal": "SELECT count(*) FROM outbox c JOIN outbox o"
        " USING (signal_id, channel) WHERE c.kind = 'new_signal' AND o.id <> c.id"
        " AND (o.id < c.id OR o.kind = 'new_signal')",
        "sent messages were tried": "SELECT count(*) FROM outbox WHERE attempts < 0"
        " OR (state = 'sent' AND (attempts < 1 OR sent_wall_ms IS NULL))",
        "series counts are true": "SELECT count(*) FROM series s WHERE n_revised < 0 OR n_rows <>"
        f" (SELECT count(*) FROM ohlcv WHERE key {_OF_SERIES})",
        "series end where they say": "SELECT count(*) FROM series s WHERE"
        f" first_ms <> (SELECT (min(key) & 67108863) * 60000 FROM ohlcv WHERE key {_OF_SERIES})"
        f" OR last_ms <> (SELECT (max(key) & 67108863) * 60000 FROM ohlcv WHERE key {_OF_SERIES})",
        "no scan is beyond the checkpoint": "SELECT count(*) FROM scan_positions p WHERE"
        " position_ms >= (SELECT max(next_ms) FROM sync_checkpoint c"
        " WHERE c.exchange = p.exchange AND c.symbol = p.symbol)",
        "gaps cover no bar": "SELECT count(*) FROM gaps g JOIN series s USING (exchange, symbol,"
        " timeframe) WHERE EXISTS (SELECT 1 FROM ohlcv WHERE key BETWEEN"
        " (s.id << 26) + g.start_ms / 60000 AND (s.id << 26) + (g.end_ms - 1) / 60000)",
        "gaps do not overlap": "SELECT count(*) FROM gaps a LEFT JOIN gaps b"
        " ON (b.exchange, b.symbol, b.timeframe) = (a.exchange, a.symbol, a.timeframe)"
        " AND b.start_ms > a.start_ms AND b.start_ms < a.end_ms"
        " WHERE b.start_ms IS NOT NULL OR a.end_ms <= a.start_ms",
        "nothing is counted below zero": "SELECT count(*) FROM funnel WHERE n < 0",
        "scores and promotions are of a bundle": "SELECT (SELECT count(*) FROM scores WHERE bundle"
        " NOT IN (SELECT id FROM bundles)) + (SELECT count(*) FROM promotions WHERE bundle"
        " NOT IN (SELECT id FROM bundles))",
        "one bundle is the champion": "SELECT max(0, count(*) - 1) FROM bundles"
        " WHERE state = 'champion'",
    }
)


def invariants(app: App) -> dict[str, Any]:
    """Check what must hold in any database whatever happened to it; returns the broken ones."""
    counts = {name: int(app.db.value(sql)) for name, sql in RULES.items()}
    counts[POINTER] = int(not _pointer_is_kept(app))
    counts[DERIVED] = sum(_n_other(app.db, row) for row in store.series_rows(app.db))
    return {"rules": len(counts), "broken": {name: n for name, n in counts.items() if n}}


def _pointer_is_kept(app: App) -> bool:
    """Say whether pointer, table and folder agree; the scheduler's start sees to that."""
    champions = app.db.rows("SELECT id, strategy_id FROM bundles WHERE state = 'champion'")
    try:
        pointer = read_pointer(app.models_dir)
        if pointer is not None:
            load_bundle(app.models_dir, pointer["bundle"], strategy=pointer["strategy_id"])
    except ModelError:
        return False
    if pointer is None:
        return not champions
    return champions == [(pointer["bundle"], pointer["strategy_id"])]


def _n_other(db: Database, row: store.SeriesRow) -> int:
    """Return how many of a derived series' newest bars are not what its base gives.

    Bars that are to be made anew, and those of an import, are left out.
    """
    target = row.series
    base = store.base_series(db, target.exchange, target.symbol)
    if row.derived_to_ms is None or not is_derivable(target.timeframe, base.timeframe):
        return 0
    if db.value(
        "SELECT 1 FROM sources WHERE exchange = ? AND symbol = ? AND timeframe = ?", target
    ):
        return 0
    end_ms = row.derived_to_ms if row.redo_from_ms is None else row.redo_from_ms
    start_ms = end_ms - _DERIVED_BARS * tf_ms(target.timeframe)
    source = store.read_candles(db, base, start_ms=start_ms, end_ms=end_ms)
    quiet = covered_ms(db, base, start_ms=start_ms, end_ms=end_ms)
    made = resample(source, target.timeframe, covered_ms=quiet)
    held = store.read_candles(db, Series(*target), start_ms=start_ms, end_ms=end_ms)
    if len(made) != len(held):
        return abs(len(made) - len(held))
    *ours, ours_volume = made.columns()
    *theirs, volume = held.columns()
    other = ~np.isclose(ours_volume, volume, rtol=1e-9, atol=0.0)  # sums of sums round otherwise
    for column, stored in zip(ours, theirs, strict=True):
        other |= column != stored
    return int(other.sum())
