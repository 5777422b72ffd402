"""Candles in the database: series, upserts with revisions, windows and derived bars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from core.domain import Candles, Ints, Series
from core.resample import resample
from core.schema import KEY_SHIFT, MINUTE_MASK
from core.store.db import Database
from core.store.gaps import covered_ms, fill_gaps
from core.timeframe import MINUTE_MS, floor_ms, is_derivable, tf_ms

_UPSERT = """
INSERT INTO ohlcv (key, open, high, low, close, volume) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET open = excluded.open, high = excluded.high, low = excluded.low,
  close = excluded.close, volume = excluded.volume
WHERE (open, high, low, close, volume)
  IS NOT (excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume)
"""
_CHUNK = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesRow:
    """What is known of one stored series; `first_ms` and `last_ms` are None while it is empty."""

    id: int
    series: Series
    n_rows: int
    first_ms: int | None
    last_ms: int | None
    n_revised: int
    derived_to_ms: int | None
    redo_from_ms: int | None
    redo_to_ms: int | None
    rooted: bool


_COLUMNS = (
    "id, exchange, symbol, timeframe, n_rows, first_ms, last_ms, n_revised, rooted, derived_to_ms,"
    " redo_from_ms, redo_to_ms"
)


def _series_row(row: tuple[Any, ...]) -> SeriesRow:
    return SeriesRow(
        id=row[0],
        series=Series(row[1], row[2], row[3]),
        n_rows=row[4],
        first_ms=row[5],
        last_ms=row[6],
        n_revised=row[7],
        rooted=bool(row[8]),
        derived_to_ms=row[9],
        redo_from_ms=row[10],
        redo_to_ms=row[11],
    )


def series_rows(db: Database) -> list[SeriesRow]:
    """Return every stored series."""
    found = db.rows(f"SELECT {_COLUMNS} FROM series ORDER BY exchange, symbol, id")
    return [_series_row(row) for row in found]


def series_row(db: Database, series: Series) -> SeriesRow | None:
    """Return one series, or None where nothing is stored under that name."""
    found = db.rows(
        f"SELECT {_COLUMNS} FROM series WHERE exchange = ? AND symbol = ? AND timeframe = ?",
        series,
    )
    return _series_row(found[0]) if found else None


def set_rooted(db: Database, series: Series) -> None:
    """Say that a series reaches back as far as there is, or as is wanted."""
    db.run("UPDATE series SET rooted = 1 WHERE id = ?", (_series_id(db, series),))


def _series_id(db: Database, series: Series) -> int:
    row = series_row(db, series)
    if row is not None:
        return row.id
    db.run("INSERT INTO series (exchange, symbol, timeframe) VALUES (?, ?, ?)", series)
    return db.last_id()


def _keys(number: int, ts_ms: Ints) -> Ints:
    keys: Ints = (number << KEY_SHIFT) + ts_ms // MINUTE_MS
    return keys


class Written(NamedTuple):
    """What an upsert did: how many bars are new, and the opens of those that changed."""

    n_new: int
    revised_ms: Ints


def upsert_candles(db: Database, series: Series, bars: Candles) -> Written:
    """Store bars; those already there with other values are changed and named as revised.

    Gaps shrink by what is stored, and derived bars made from what changed are to be made anew.
    Call it inside `db.write()` together with what must be true at the same instant.
    """
    if not len(bars):
        return Written(0, np.empty(0, np.int64))
    first, last = int(bars.ts_ms[0]), int(bars.ts_ms[-1])
    with db.write():
        number = _series_id(db, series)
        stored = _read(db, number, bars.timeframe, start_ms=first, end_ms=last + MINUTE_MS)
        known, revised = _compared(stored, bars)
        db.upsert_columns(_UPSERT, _keys(number, bars.ts_ms), np.stack(bars.columns()[1:]))
        db.run(
            "UPDATE series SET n_rows = n_rows + ?1, n_revised = n_revised + ?2,"
            " first_ms = min(coalesce(first_ms, ?3), ?3),"
            " last_ms = max(coalesce(last_ms, ?4), ?4) WHERE id = ?5",
            (len(bars) - len(known), len(revised), first, last, number),
        )
        if len(known) < len(bars):
            fill_gaps(db, series, bars)
        fresh = np.setdiff1d(bars.ts_ms, known, assume_unique=True) if len(known) else bars.ts_ms
        changed = [int(part[end]) for part in (fresh, revised) if len(part) for end in (0, -1)]
        if changed:
            reopen_derived(db, series, from_ms=min(changed), to_ms=max(changed) + 1)
    return Written(len(bars) - len(known), revised)


def reopen_derived(db: Database, source: Series, *, from_ms: int, to_ms: int) -> None:
    """Have the bars made from what opens in [from, to) made anew, when next it is resampled."""
    made = db.rows(
        "SELECT id, timeframe FROM series WHERE exchange = ? AND symbol = ? AND derived_to_ms > ?",
        (source.exchange, source.symbol, from_ms),
    )
    for number, timeframe in made:
        if is_derivable(timeframe, source.timeframe):
            step = tf_ms(timeframe)
            db.run(
                "UPDATE series SET redo_from_ms = min(coalesce(redo_from_ms, ?1), ?1),"
                " redo_to_ms = min(max(coalesce(redo_to_ms, ?2), ?2), derived_to_ms) WHERE id = ?3",
                (floor_ms(from_ms, step), -floor_ms(-to_ms, step), number),
            )


def _compared(stored: Candles, bars: Candles) -> tuple[Ints, Ints]:
    """Return the opens of the bars that are stored already, and of those that differ."""
    if not len(stored):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    known, ours, theirs = np.intersect1d(
        stored.ts_ms, bars.ts_ms, assume_unique=True, return_indices=True
    )
    changed = np.zeros(len(ours), np.bool_)
    for old, new in zip(stored.columns()[1:], bars.columns()[1:], strict=True):
        changed |= old[ours] != new[theirs]
    return known, stored.ts_ms[ours][changed]


def _read(db: Database, number: int, timeframe: str, *, start_ms: int, end_ms: int) -> Candles:
    first, last = max(0, -(-start_ms // MINUTE_MS)), min(MINUTE_MASK, (end_ms - 1) // MINUTE_MS)
    minutes, prices = db.columns(
        f"SELECT key & {MINUTE_MASK}, open, high, low, close, volume"
        " FROM ohlcv WHERE key BETWEEN ? AND ? ORDER BY key",
        ((number << KEY_SHIFT) + first, (number << KEY_SHIFT) + last),
        n_floats=5,
        room=(last - first) * MINUTE_MS // tf_ms(timeframe) + 1,
    )
    return Candles(timeframe, minutes * MINUTE_MS, *prices)


def read_candles(db: Database, series: Series, *, start_ms: int = 0, end_ms: int) -> Candles:
    """Return the stored bars that open in [start_ms, end_ms)."""
    row = series_row(db, series)
    if row is None or row.first_ms is None or row.last_ms is None or end_ms <= start_ms:
        return Candles.empty(series.timeframe)
    start_ms, end_ms = max(start_ms, row.first_ms), min(end_ms, row.last_ms + 1)
    return _read(db, row.id, series.timeframe, start_ms=start_ms, end_ms=end_ms)


def last_candles(db: Database, series: Series, n: int, *, known_at_ms: int) -> Candles:
    """Return the newest `n` bars that are closed at an instant."""
    row = series_row(db, series)
    if row is None:
        return Candles.empty(series.timeframe)
    last_open = known_at_ms - tf_ms(series.timeframe)
    minutes, prices = db.columns(
        f"SELECT key & {MINUTE_MASK}, open, high, low, close, volume FROM ohlcv"
        " WHERE key BETWEEN ? AND ? ORDER BY key DESC LIMIT ?",
        (row.id << KEY_SHIFT, (row.id << KEY_SHIFT) + last_open // MINUTE_MS, n),
        n_floats=5,
        room=n,
    )
    ts_ms = minutes[::-1] * MINUTE_MS
    return Candles(series.timeframe, ts_ms, *np.ascontiguousarray(prices[:, ::-1]))


def base_timeframe_of(db: Database, exchange: str, symbol: str) -> str | None:
    """Return the finest timeframe stored of a symbol: the one execution walks."""
    found = db.rows(
        "SELECT timeframe FROM series WHERE exchange = ? AND symbol = ? AND n_rows > 0",
        (exchange, symbol),
    )
    return min((row[0] for row in found), key=tf_ms, default=None)


def base_series(db: Database, exchange: str, symbol: str, *, default: str = "1m") -> Series:
    """Return the series that execution walks: the finest stored, `default` while none is."""
    return Series(exchange, symbol, base_timeframe_of(db, exchange, symbol) or default)


def checkpoint_of(db: Database, series: Series) -> int | None:
    """Return the instant before which every final bar was asked for, or None."""
    found = db.value(
        "SELECT next_ms FROM sync_checkpoint WHERE exchange = ? AND symbol = ? AND timeframe = ?",
        series,
    )
    return None if found is None else int(found)


def move_checkpoint(db: Database, series: Series, *, next_ms: int, now_ms: int) -> None:
    """Move a checkpoint forward; it never moves back."""
    db.run(
        "INSERT INTO sync_checkpoint VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET next_ms = max(next_ms, excluded.next_ms),"
        " updated_ms = excluded.updated_ms",
        (*series, next_ms, now_ms),
    )


def resample_series(db: Database, source: Series, timeframe: str, *, until_ms: int) -> int:
    """Build the derived bars that close by `until_ms`, from where the last call ended.

    Those behind it whose source bars have changed since are built anew. A minute in which nobody
    traded (a gap `no_trades`) is not missing. Bars of an import are never replaced by derived ones.
    Returns the number of bars written.
    """
    step = tf_ms(timeframe)
    target = Series(source.exchange, source.symbol, timeframe)
    origin, made = series_row(db, source), series_row(db, target)
    if origin is None or origin.first_ms is None:
        return 0
    start, end = floor_ms(origin.first_ms, step), floor_ms(until_ms, step)
    spans = []
    if made is not None and made.derived_to_ms is not None:
        start = made.derived_to_ms
        if made.redo_from_ms is not None and made.redo_to_ms is not None:
            spans.append((made.redo_from_ms, made.redo_to_ms))
    if end > start:
        spans.append((start, end))
    if not spans:
        return 0
    with db.write():
        n_written = sum(_built(db, source, target, *span) for span in spans)
        db.run(
            "UPDATE series SET derived_to_ms = ?, redo_from_ms = NULL, redo_to_ms = NULL"
            " WHERE id = ?",
            (max(start, end), _series_id(db, target)),
        )
    return n_written


def _built(db: Database, source: Series, target: Series, start_ms: int, end_ms: int) -> int:
    """Build the derived bars that open in [start, end), chunk by chunk; returns how many."""
    step, n_written = tf_ms(target.timeframe), 0
    span = step * max(1, _CHUNK * tf_ms(source.timeframe) // step)
    for low in range(start_ms, end_ms, span):
        high = min(end_ms, low + span)
        part = read_candles(db, source, start_ms=low, end_ms=high)
        quiet = covered_ms(db, source, start_ms=low, end_ms=high)
        bars = _not_imported(db, target, resample(part, target.timeframe, covered_ms=quiet))
        n_written += len(bars)
        upsert_candles(db, target, bars)
    return n_written


def _not_imported(db: Database, target: Series, bars: Candles) -> Candles:
    if not len(bars):
        return bars
    start, end = int(bars.ts_ms[0]), int(bars.ts_ms[-1]) + 1
    ranges = db.rows(
        "SELECT first_ms, last_ms FROM sources WHERE exchange = ? AND symbol = ?"
        " AND timeframe = ? AND kind IN ('import', 'native') AND first_ms < ? AND last_ms >= ?",
        (*target, end, start),
    )
    if not ranges:
        return bars
    inside = np.zeros(len(bars), np.bool_)
    for first, last in ranges:
        inside |= (bars.ts_ms >= first) & (bars.ts_ms <= last)
    stored = read_candles(db, target, start_ms=start, end_ms=end)
    keep = ~(inside & np.isin(bars.ts_ms, stored.ts_ms))
    ts_ms, *prices = bars.columns()
    return Candles(bars.timeframe, ts_ms[keep], *(column[keep] for column in prices))


def record_source(
    db: Database,
    series: Series,
    *,
    kind: str,
    name: str,
    first_ms: int,
    last_ms: int,
    n_rows: int,
    origin: str = "",
    fingerprint: str = "",
) -> None:
    """Remember where a range of candles came from; a known origin is not forgotten again."""
    db.run(
        "INSERT INTO sources (exchange, symbol, timeframe, kind, name, first_ms, last_ms, n_rows,"
        " origin, fingerprint) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " first_ms = min(first_ms, excluded.first_ms), last_ms = max(last_ms, excluded.last_ms),"
        " n_rows = excluded.n_rows, fingerprint = excluded.fingerprint,"
        " origin = CASE excluded.origin WHEN '' THEN origin ELSE excluded.origin END",
        (*series, kind, name, first_ms, last_ms, n_rows, origin, fingerprint),
    )
