"""Ways to lay out candles in SQLite, side by side: the figures behind decisions/candle-layout.md.

Each layout gets the same year of one pair through apsw's `executemany` with its rows ready, 14 days
a transaction, then the newest minute of 50 further series, an hour long, one commit a minute (what
a live engine writes). All are read back in time order into float64 arrays by `np.fromiter`, or
`np.frombuffer` where a row is a blob; the engine's compiled stepping is left out, to compare
layouts and not readers. The yardstick is the layout in use, the packed key; `exact` says whether
every float came back bit for bit.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import apsw
import numpy as np

from benchmarks import yard
from core.domain import Floats
from core.timeframe import DAY_MS, MINUTE_MS

_DAYS, _N_LIVE, _N_MINUTES = 365, 50, 60
_TICK = 0.01
_PRICES = "open REAL, high REAL, low REAL, close REAL, volume REAL"
_SET = ", ".join(f"{c} = excluded.{c}" for c in ("open", "high", "low", "close", "volume"))
_READ = "SELECT {ts}, open, high, low, close, volume FROM ohlcv WHERE {of} ORDER BY {by}"
_PACKED = "key BETWEEN 1 << 26 AND (2 << 26) - 1"
Rows = Iterable[tuple[Any, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One table: how bars (n, 6) of a series become its rows, and the rows bars again."""

    name: str
    table: str
    insert: str
    rows_of: Callable[[int, Floats], Rows]
    read: str
    bars_of: Callable[[apsw.Cursor], Floats]


def _lists(bars: Floats) -> list[list[Any]]:
    return [bars[:, 0].astype(np.int64).tolist(), *(bars[:, i].tolist() for i in range(1, 6))]


def _texts(number: int, bars: Floats) -> Rows:
    names = ("bitget", f"S{number:02}/USDT:USDT", "1m")
    return [(*names, *row) for row in zip(*_lists(bars), strict=True)]


def _numbered(number: int, bars: Floats) -> Rows:
    return [(number, 1, *row) for row in zip(*_lists(bars), strict=True)]


def _keys(number: int, bars: Floats) -> list[int]:
    keys: list[int] = ((number << 26) + bars[:, 0].astype(np.int64) // MINUTE_MS).tolist()
    return keys


def _packed(number: int, bars: Floats) -> Rows:
    return list(zip(_keys(number, bars), *_lists(bars)[1:], strict=True))


def _ticks(number: int, bars: Floats) -> Rows:
    ticks = np.rint(bars[:, 1:5] / _TICK).astype(np.int64).T.tolist()
    return list(zip(_keys(number, bars), *ticks, bars[:, 5].tolist(), strict=True))


def _singles(number: int, bars: Floats) -> Rows:
    blobs = [row.tobytes() for row in bars[:, 1:].astype("<f4")]
    return list(zip(_keys(number, bars), blobs, strict=True))


def _days(number: int, bars: Floats) -> Rows:
    day = bars[:, 0].astype(np.int64) // DAY_MS
    edges = [0, *(np.flatnonzero(np.diff(day)) + 1).tolist(), len(bars)]
    return [
        ((number << 26) + int(day[a]), bars[a:b].astype("<f8").tobytes())
        for a, b in pairwise(edges)
    ]


def _of_rows(cursor: apsw.Cursor) -> Floats:
    return np.fromiter(chain.from_iterable(cursor), np.float64).reshape(-1, 6)


def _of_ticks(cursor: apsw.Cursor) -> Floats:
    bars = _of_rows(cursor)
    bars[:, 1:5] = np.round(bars[:, 1:5] * _TICK, 2)
    return bars


def _of_singles(cursor: apsw.Cursor) -> Floats:
    flat: list[Any] = list(chain.from_iterable(cursor))
    prices = np.frombuffer(b"".join(flat[1::2]), "<f4").reshape(-1, 5)
    return np.column_stack((np.array(flat[::2]), prices)).astype(np.float64)


def _of_days(cursor: apsw.Cursor) -> Floats:
    return np.frombuffer(b"".join(blob for (blob,) in cursor), "<f8").reshape(-1, 6)


def _upsert(n: int, conflict: str = _SET) -> str:
    return f"INSERT INTO ohlcv VALUES ({', '.join('?' * n)}) ON CONFLICT DO UPDATE SET {conflict}"


_MINUTE = f"(key & ((1 << 26) - 1)) * {MINUTE_MS}"
LAYOUTS = (
    Layout(
        name="packed key (in use)",
        table=f"key INTEGER PRIMARY KEY, {_PRICES})",
        insert=_upsert(6),
        rows_of=_packed,
        read=_READ.format(ts=_MINUTE, of=_PACKED, by="key"),
        bars_of=_of_rows,
    ),
    Layout(
        name="WITHOUT ROWID, 3 columns",
        table=f"series INT, tf INT, ts INT, {_PRICES}, PRIMARY KEY (series, tf, ts)) WITHOUT ROWID",
        insert=_upsert(8),
        rows_of=_numbered,
        read=_READ.format(ts="ts", of="series = 1 AND tf = 1", by="ts"),
        bars_of=_of_rows,
    ),
    Layout(
        name="rowid + index, 3 columns",
        table=f"series INT, tf INT, ts INT, {_PRICES}, PRIMARY KEY (series, tf, ts))",
        insert=_upsert(8),
        rows_of=_numbered,
        read=_READ.format(ts="ts", of="series = 1 AND tf = 1", by="ts"),
        bars_of=_of_rows,
    ),
    Layout(
        name="text keys, WITHOUT ROWID",
        table=f"exchange TEXT, symbol TEXT, tf TEXT, ts INT, {_PRICES},"
        " PRIMARY KEY (exchange, symbol, tf, ts)) WITHOUT ROWID",
        insert=_upsert(9),
        rows_of=_texts,
        read=_READ.format(
            ts="ts", of="exchange = 'bitget' AND symbol = 'S01/USDT:USDT' AND tf = '1m'", by="ts"
        ),
        bars_of=_of_rows,
    ),
    Layout(
        name="packed key, prices in ticks",
        table="key INTEGER PRIMARY KEY, open INT, high INT, low INT, close INT, volume REAL)",
        insert=_upsert(6),
        rows_of=_ticks,
        read=_READ.format(ts=_MINUTE, of=_PACKED, by="key"),
        bars_of=_of_ticks,
    ),
    Layout(
        name="packed key, float32 blob",
        table="key INTEGER PRIMARY KEY, bar BLOB)",
        insert=_upsert(2, "bar = excluded.bar"),
        rows_of=_singles,
        read=f"SELECT {_MINUTE}, bar FROM ohlcv WHERE {_PACKED} ORDER BY key",
        bars_of=_of_singles,
    ),
    Layout(
        name="one blob a day",
        table="key INTEGER PRIMARY KEY, bars BLOB)",
        insert=_upsert(2, "bars = excluded.bars"),
        rows_of=_days,
        read=f"SELECT bars FROM ohlcv WHERE {_PACKED} ORDER BY key",
        bars_of=_of_days,
    ),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run of one layout cost; times in seconds, `live_s` a minute of 50 series."""

    write_s: float
    size: float
    live_s: float
    read_s: float
    exact: bool


def _cost(layout: Layout, bars: Floats, path: Path) -> Cost:
    db = apsw.Connection(str(path))
    for pragma in ("journal_mode = WAL", "synchronous = OFF", "wal_autocheckpoint = 2000"):
        db.execute(f"PRAGMA {pragma}").fetchall()
    db.execute(f"CREATE TABLE ohlcv ({layout.table}")
    cuts = np.searchsorted(bars[:, 0], yard.START_MS + np.arange(0, _DAYS + 14, 14) * DAY_MS)
    pieces = [list(layout.rows_of(1, bars[a:b])) for a, b in pairwise(cuts.tolist())]
    begun = time.perf_counter()
    for piece in pieces:
        with db:
            db.executemany(layout.insert, piece)
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    write_s = time.perf_counter() - begun
    size = path.stat().st_size / len(bars)
    live_s = _live(db, layout, bars)
    begun = time.perf_counter()
    found = layout.bars_of(db.execute(layout.read))
    read_s = time.perf_counter() - begun
    db.close()
    return Cost(write_s, size, live_s, read_s, exact=found.tobytes() == bars.tobytes())


def _live(db: apsw.Connection, layout: Layout, bars: Floats) -> float:
    """Return the seconds of one more minute of 50 series; a blob grows and is written whole."""
    whole = layout.rows_of is _days
    minutes = []
    for i in range(_N_MINUTES):
        part = bars[: 721 + i] if whole else bars[720 + i : 721 + i]
        minutes.append([row for n in range(_N_LIVE) for row in layout.rows_of(n + 2, part)])
    begun = time.perf_counter()
    for rows in minutes:
        with db:
            db.executemany(layout.insert, rows)
    return (time.perf_counter() - begun) / _N_MINUTES


def tables() -> list[yard.Table]:
    """Measure each layout three times, in turn."""
    bars: Floats = np.column_stack(yard.candles(_DAYS).columns()).astype(np.float64)
    costs: dict[str, list[Cost]] = {layout.name: [] for layout in LAYOUTS}
    with tempfile.TemporaryDirectory() as name:
        for run in range(yard.N_RUNS):
            for i, layout in enumerate(LAYOUTS):
                path = Path(name) / f"{run}-{i}.db"
                costs[layout.name].append(_cost(layout, bars, path))
                path.unlink()
    rows, base = [], costs[LAYOUTS[0].name]
    for name, mine in costs.items():
        row = {"layout": name, "bytes": f"{mine[0].size:.1f}"}
        for what in ("write", "read", "live"):
            ours, yards = ([getattr(cost, f"{what}_s") for cost in runs] for runs in (mine, base))
            row[what] = f"{statistics.median(yards) / statistics.median(ours):.2f}x"
        rows.append(row | {"exact": "yes" if mine[0].exact else "no"})
    title = f"{len(bars):,} candles by layout: bytes a candle; speeds beside the layout in use"
    return [yard.Table(title, rows)]
