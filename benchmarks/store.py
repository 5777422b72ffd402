"""Storing and reading five years of one pair, beside the standard library's bare `sqlite3`.

The yardsticks run in a process of their own (there is only ever one SQLite library in a process)
on the same rows: `executemany` of an upsert into a `WITHOUT ROWID` table with the tuples made
beforehand, 10 000 a transaction, and `np.fromiter` over the cursor, the fastest way to an array
that the standard library has. Ours is the engine's own `upsert_candles`, holes, counts and derived
marks included, 20 000 a transaction, and `read_candles`; both sides include the checkpoint.
Ours waits for the disk at each commit (synchronous=FULL), the yardstick does not (NORMAL).
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import yard
from core.domain import Candles
from core.store import candles as store
from core.store import open_database, open_reader

_BARE = """
import itertools, sqlite3, sys, time
import numpy as np
rows = np.load(sys.argv[1])
db = sqlite3.connect(sys.argv[2], isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.execute("PRAGMA synchronous = NORMAL")
db.execute("CREATE TABLE ohlcv (series INT, ts INT, o REAL, h REAL, l REAL, c REAL, v REAL,"
           " PRIMARY KEY (series, ts)) WITHOUT ROWID")
tuples = [(1, int(r[0]), *map(float, r[1:])) for r in rows]
begun = time.perf_counter()
for i in range(0, len(tuples), 10_000):
    db.execute("BEGIN")
    db.executemany("INSERT INTO ohlcv VALUES (?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET"
                   " o = excluded.o, h = excluded.h, l = excluded.l, c = excluded.c,"
                   " v = excluded.v", tuples[i:i + 10_000])
    db.execute("COMMIT")
db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
wrote = time.perf_counter() - begun
begun = time.perf_counter()
cursor = db.execute("SELECT ts, o, h, l, c, v FROM ohlcv WHERE series = 1 ORDER BY ts")
np.fromiter(itertools.chain.from_iterable(cursor), float)
print(wrote, time.perf_counter() - begun)
"""
_CHUNK = 20_000


def _bare(rows: Path, file: Path) -> tuple[float, float]:
    """Return the yardstick's seconds to write and to read."""
    command = [sys.executable, "-c", _BARE, str(rows), str(file)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    write_s, read_s = (float(word) for word in out.split())
    return write_s, read_s


def _ours(bars: Candles, file: Path) -> tuple[float, float]:
    """Return the engine's seconds to write and to read."""
    begun = time.perf_counter()
    _store(bars, file)
    written = time.perf_counter()
    with open_reader(file) as db:
        store.read_candles(db, yard.SERIES, end_ms=int(bars.ts_ms[99]))  # loads the kernel
        reading = time.perf_counter()
        store.read_candles(db, yard.SERIES, end_ms=1 << 50)
        return written - begun, time.perf_counter() - reading


def _store(bars: Candles, path: Path) -> None:
    with open_database(path) as db:
        for i in range(0, len(bars), _CHUNK):
            store.upsert_candles(db, yard.SERIES, bars[i : i + _CHUNK])
        db.checkpoint(truncate=True)


def tables() -> list[yard.Table]:
    """Measure ingest, bytes a candle, and reading back, ours and the yardstick in turn."""
    bars = yard.candles(yard.FIVE_YEARS)
    times: list[tuple[float, ...]] = []
    with tempfile.TemporaryDirectory() as name:
        rows_file, file = Path(name) / "rows.npy", Path(name) / "x.db"
        np.save(rows_file, np.column_stack(bars.columns()))
        for _ in range(yard.N_RUNS):
            bare = _bare(rows_file, file)
            file.unlink()
            times.append((*bare, *_ours(bars, file)))
            size = file.stat().st_size / len(bars)
            file.unlink()
    bare_write, bare_read, write, read = map(statistics.median, zip(*times, strict=True))
    n = len(bars)
    rows = [
        yard.beside(
            "store 1m candles", n, ours_s=write, yard_s=bare_write, yard="sqlite3 executemany"
        ),
        yard.beside(
            "read them into arrays", n, ours_s=read, yard_s=bare_read, yard="np.fromiter, sqlite3"
        ),
    ]
    return [yard.Table(f"{n:,} candles; {size:.1f} bytes per stored candle", rows)]
