"""Missing bars in the database: a gap covers no stored bar, and no two gaps of a series overlap."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.candle_law import holes_in
from core.domain import Candles, Ints, Series
from core.schema import KEY_SHIFT
from core.store.db import Database
from core.timeframe import MINUTE_MS, tf_ms

_COLUMNS = "start_ms, end_ms, state, n_reads, seen_ms, next_ms"
_OF = "exchange = ?1 AND symbol = ?2 AND timeframe = ?3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A run of missing bars: their opens lie in [start_ms, end_ms).

    It was asked for `n_reads` times and is not asked for again before `next_ms`.
    """

    start_ms: int
    end_ms: int
    state: str
    n_reads: int
    seen_ms: int
    next_ms: int


def _gap(row: tuple[Any, ...]) -> Gap:
    start_ms, end_ms, state, n_reads, seen_ms, next_ms = row
    return Gap(
        start_ms=start_ms,
        end_ms=end_ms,
        state=state,
        n_reads=n_reads,
        seen_ms=seen_ms,
        next_ms=next_ms,
    )


def stored_holes(
    db: Database, series: Series, *, start_ms: int, end_ms: int
) -> list[tuple[int, int]]:
    """Return the runs [start, end) of [start_ms, end_ms) in which no bar is stored.

    SQLite looks for the ends of runs in its own index; no bar is read.
    """
    number = db.value(f"SELECT id FROM series WHERE {_OF}", series)
    if number is None or end_ms <= start_ms:
        return [(start_ms, end_ms)] if end_ms > start_ms else []
    origin, step = int(number) << KEY_SHIFT, tf_ms(series.timeframe) // MINUTE_MS
    first, last = origin + -(-start_ms // MINUTE_MS), origin + (end_ms - 1) // MINUTE_MS
    found = db.rows(
        "SELECT a.key, (SELECT min(b.key) FROM ohlcv b WHERE b.key > a.key AND b.key <= ?2)"
        " FROM ohlcv a WHERE a.key BETWEEN ?1 AND ?2"
        " AND NOT EXISTS (SELECT 1 FROM ohlcv c WHERE c.key = a.key + ?3) ORDER BY a.key",
        (first, last, step),
    )
    head = db.value("SELECT min(key) FROM ohlcv WHERE key BETWEEN ? AND ?", (first, last))

    def opens(key: int) -> int:
        return (key - origin) * MINUTE_MS

    if head is None:
        return [(start_ms, end_ms)]
    runs = [(start_ms, opens(head))]
    runs += [(opens(a + step), end_ms if b is None else opens(b)) for a, b in found]
    return [(start, end) for start, end in runs if start < end]


def gaps(db: Database, series: Series, *, state: str | None = None) -> list[Gap]:
    """Return the gaps of a series in time order, perhaps only those of one state."""
    found = db.rows(
        f"SELECT {_COLUMNS} FROM gaps WHERE {_OF} AND (?4 IS NULL OR state = ?4) ORDER BY start_ms",
        (*series, state),
    )
    return [_gap(row) for row in found]


def gaps_between(db: Database, series: Series, *, start_ms: int, end_ms: int) -> list[Gap]:
    """Return the gaps of a series that reach into [start_ms, end_ms), in time order."""
    found = db.rows(
        f"SELECT {_COLUMNS} FROM gaps WHERE {_OF} AND start_ms < ?4 AND start_ms >= coalesce("
        f"(SELECT max(start_ms) FROM gaps WHERE {_OF} AND start_ms <= ?5), ?5)"
        " AND end_ms > ?5 ORDER BY start_ms",
        (*series, end_ms, start_ms),
    )
    return [_gap(row) for row in found]


def record_gaps(
    db: Database,
    series: Series,
    holes: Iterable[tuple[int, int]],
    *,
    state: str,
    now_ms: int,
) -> None:
    """Write down missing bars, read once so far; what is written down already stays as it is."""
    for start, end in holes:
        known = gaps_between(db, series, start_ms=start, end_ms=end)
        rest = without(start, end, [(gap.start_ms, gap.end_ms) for gap in known])
        db.run_many(
            "INSERT INTO gaps VALUES (?, ?, ?, ?, ?, ?, 1, ?, 0)",
            [(*series, low, high, state, now_ms) for low, high in rest],
        )


def without(start: int, end: int, known: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return what is left of [start, end) outside some disjoint runs in time order."""
    rest = []
    for low, high in known:
        if low > start:
            rest.append((start, low))
        start = max(start, high)
    return [*rest, (start, end)] if start < end else rest


def count_read(db: Database, series: Series, start_ms: int, *, next_ms: int) -> None:
    """Say that one gap was asked for once more, in vain, and when it may be asked for again."""
    db.run(
        f"UPDATE gaps SET n_reads = n_reads + 1, next_ms = ?5 WHERE {_OF} AND start_ms = ?4",
        (*series, start_ms, next_ms),
    )


def settle_gap(db: Database, series: Series, gap: Gap, *, state: str) -> None:
    """Settle one gap; `missing` runs that touch become one, whichever was settled first."""
    start, end = gap.start_ms, gap.end_ms
    touching = gaps_between(db, series, start_ms=start - 1, end_ms=end + 1)
    for other in touching if state == "missing" else ():
        if other.state == "missing" and other.start_ms != gap.start_ms:
            delete_gap(db, series, max(gap.start_ms, other.start_ms))
            start, end = min(start, other.start_ms), max(end, other.end_ms)
    db.run(
        f"UPDATE gaps SET state = ?4, end_ms = ?5 WHERE {_OF} AND start_ms = ?6",
        (*series, state, end, start),
    )


def delete_gap(db: Database, series: Series, start_ms: int) -> None:
    """Forget a gap that is no longer one."""
    db.run(f"DELETE FROM gaps WHERE {_OF} AND start_ms = ?", (*series, start_ms))


def fill_gaps(db: Database, series: Series, bars: Candles) -> None:
    """Take stored bars out of the gaps they lie in; what is left keeps its state."""
    first, end = int(bars.ts_ms[0]), int(bars.ts_ms[-1]) + tf_ms(series.timeframe)
    for gap in gaps_between(db, series, start_ms=first, end_ms=end):
        rest = holes_in(bars, start_ms=gap.start_ms, end_ms=gap.end_ms)
        if rest == [(gap.start_ms, gap.end_ms)]:
            continue
        delete_gap(db, series, gap.start_ms)
        db.run_many(
            "INSERT INTO gaps VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (*series, low, high, gap.state, gap.n_reads, gap.seen_ms, gap.next_ms)
                for low, high in rest
            ],
        )


def missing_ms(db: Database, series: Series, *, start_ms: int, end_ms: int) -> Ints:
    """Return the opens of the bars that are missing, `no_trades` excepted, in [start, end)."""
    step = tf_ms(series.timeframe)
    runs = [
        np.arange(max(gap.start_ms, start_ms), min(gap.end_ms, end_ms), step, dtype=np.int64)
        for gap in gaps_between(db, series, start_ms=start_ms, end_ms=end_ms)
        if gap.state != "no_trades"
    ]
    return np.concatenate(runs) if runs else np.empty(0, np.int64)


def covered_ms(db: Database, series: Series, *, start_ms: int, end_ms: int) -> Ints:
    """Return the opens of the bars in [start, end) during which nobody traded, from end to end.

    The gaps of all timeframes of the symbol count: a 5m bar without a single minute is one.
    """
    step = tf_ms(series.timeframe)
    found = db.rows(
        "SELECT start_ms, end_ms FROM gaps WHERE exchange = ? AND symbol = ? AND end_ms > ?"
        " AND start_ms < ? AND state = 'no_trades' ORDER BY start_ms",
        (series.exchange, series.symbol, start_ms, end_ms),
    )
    runs: list[tuple[int, int]] = []
    for start, end in found:
        low = runs.pop()[0] if runs and runs[-1][1] >= start else start
        runs.append((low, end))
    opens = [
        np.arange(-(-low // step) * step, high - step + 1, step, dtype=np.int64)
        for low, high in runs
    ]
    joined = np.concatenate(opens) if opens else np.empty(0, np.int64)
    return joined[(joined >= start_ms) & (joined < end_ms)]
