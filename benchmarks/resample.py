"""Derived bars beside pandas, on arrays and from database to database.

On arrays the yardstick is `DataFrame.resample(...).agg(...)`, each timeframe from 1m, as it is
usually written; ours is the kernel, chained as the engine chains it, complete bars only.

End to end both sides read five years of 1m candles from SQLite, make 5m, 15m, 1h, 4h and 1d and
upsert them back. pandas: `read_sql`, `resample().agg()`, `executemany`, on the standard library in
a process of its own. Ours: `resample_series`, as the scheduler calls it. Between them the same in
SQL alone: INSERT ... SELECT, each timeframe from the one before, on the engine's own layout.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import yard
from core.domain import Candles
from core.jobs.sync import resample_symbol
from core.resample import resample
from core.schema import KEY_SHIFT
from core.store import Database, open_database
from core.store import candles as store
from core.timeframe import MINUTE_MS, tf_ms

TIMEFRAMES = ("5m", "15m", "1h", "4h", "1d")
_NAMES = ("open", "high", "low", "close", "volume")
_HOW = dict(zip(_NAMES, ("first", "max", "min", "last", "sum"), strict=True))
_RULES = ("5min", "15min", "1h", "4h", "1D")

_PANDAS = """
import sqlite3, sys, time
import numpy as np, pandas as pd
rows = np.load(sys.argv[1])
db = sqlite3.connect(sys.argv[2], isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.execute("PRAGMA synchronous = NORMAL")
db.execute("CREATE TABLE ohlcv (tf INT, ts INT, open REAL, high REAL, low REAL, close REAL,"
           " volume REAL, PRIMARY KEY (tf, ts)) WITHOUT ROWID")
db.execute("BEGIN")
db.executemany("INSERT INTO ohlcv VALUES (1,?,?,?,?,?,?)", zip(*(c.tolist() for c in rows.T)))
db.execute("COMMIT")
db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
how = dict(open="first", high="max", low="min", close="last", volume="sum")
begun = time.perf_counter()
frame = pd.read_sql("SELECT ts, open, high, low, close, volume FROM ohlcv WHERE tf = 1 ORDER BY ts",
                    db, index_col="ts")
frame.index = pd.to_datetime(frame.index, unit="ms", utc=True)
for i, rule in enumerate(sys.argv[3:], 2):
    made = frame.resample(rule).agg(how).dropna()
    opens = made.index.as_unit("ms").asi8.tolist()
    db.execute("BEGIN")
    db.executemany("INSERT INTO ohlcv VALUES (?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET"
                   " open = excluded.open, high = excluded.high, low = excluded.low,"
                   " close = excluded.close, volume = excluded.volume",
                   zip([i] * len(made), opens, *(made[c].tolist() for c in made.columns)))
    db.execute("COMMIT")
db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
print(time.perf_counter() - begun)
"""

# A bar of complete groups; the first and last of each are joined by key: a bare column beside
# several min() and max() would take its row from whichever SQLite chose.
_CHAINED = f"""
INSERT INTO ohlcv (key, open, high, low, close, volume)
SELECT (:target << {KEY_SHIFT}) + g.bucket, a.open, g.high, g.low, b.close, g.volume FROM (
  SELECT (key & ((1 << {KEY_SHIFT}) - 1)) / :long * :long AS bucket, min(key) AS first,
         max(key) AS last, max(high) AS high, min(low) AS low, sum(volume) AS volume, count(*) AS n
  FROM ohlcv WHERE key BETWEEN :source << {KEY_SHIFT} AND ((:source + 1) << {KEY_SHIFT}) - 1
  GROUP BY bucket) g
JOIN ohlcv a ON a.key = g.first JOIN ohlcv b ON b.key = g.last WHERE g.n = :long / :short
ON CONFLICT (key) DO UPDATE SET open = excluded.open, high = excluded.high, low = excluded.low,
  close = excluded.close, volume = excluded.volume
"""


def _arrays(bars: Candles) -> dict[str, str]:
    frame = pd.DataFrame(
        dict(zip(_NAMES, bars.columns()[1:], strict=True)),
        index=pd.to_datetime(bars.ts_ms, unit="ms", utc=True),
    )

    def ours() -> None:
        made = bars
        for timeframe in TIMEFRAMES:
            made = resample(made, timeframe)

    def theirs() -> None:
        for rule in _RULES:
            frame.resample(rule).agg(_HOW)

    ours()
    return yard.beside(
        "on arrays",
        len(bars),
        ours_s=yard.median_s(ours),
        yard_s=yard.median_s(theirs),
        yard="pandas resample().agg()",
    )


def _pandas_s(bars: Candles, folder: Path) -> float:
    rows, times = folder / "rows.npy", []
    np.save(rows, np.column_stack(bars.columns()))
    for i in range(yard.N_RUNS):
        command = [sys.executable, "-c", _PANDAS, str(rows), str(folder / f"p{i}.db"), *_RULES]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        times.append(float(out))
        (folder / f"p{i}.db").unlink()
    return statistics.median(times)


def _forget(db: Database) -> None:
    """Drop the derived bars, so that each run writes them anew."""
    with db.write():
        db.run(f"DELETE FROM ohlcv WHERE key >= 2 << {KEY_SHIFT}")
        db.run("DELETE FROM series WHERE id > 1")
    db.checkpoint(truncate=True)


def _by_kernel(db: Database, until_ms: int) -> float:
    begun = time.perf_counter()
    resample_symbol(db, yard.SERIES, TIMEFRAMES, until_ms=until_ms)
    db.checkpoint(truncate=True)
    return time.perf_counter() - begun


def _by_sql(db: Database) -> float:
    begun = time.perf_counter()
    with db.write():
        for number, (source, target) in enumerate(pairwise(("1m", *TIMEFRAMES)), 1):
            minutes = {"short": tf_ms(source) // MINUTE_MS, "long": tf_ms(target) // MINUTE_MS}
            db.run(_CHAINED, {"source": number, "target": number + 1, **minutes})
    db.checkpoint(truncate=True)
    return time.perf_counter() - begun


def tables() -> list[yard.Table]:
    """Measure on arrays, then from database to database by pandas, by SQL and by the engine."""
    bars = yard.candles(yard.FIVE_YEARS)
    until_ms, kernel, sql = int(bars.ts_ms[-1]) + MINUTE_MS, [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yard_s = _pandas_s(bars, folder)
        with open_database(folder / "ours.db") as db:
            store.upsert_candles(db, yard.SERIES, bars)
            db.checkpoint(truncate=True)
            for _ in range(yard.N_RUNS):
                kernel.append(_by_kernel(db, until_ms))
                by_kernel = db.rows("SELECT key, open, high, low, close FROM ohlcv")
                _forget(db)
                sql.append(_by_sql(db))
                same = by_kernel == db.rows("SELECT key, open, high, low, close FROM ohlcv")
                _forget(db)
    n, beside = len(bars), "pandas read_sql, resample, executemany"
    end_to_end = [
        yard.beside(what, n, ours_s=statistics.median(times), yard_s=yard_s, yard=beside)
        for what, times in (("end to end, kernel", kernel), ("end to end, SQL alone", sql))
    ]
    title = f"{n:,} candles to {', '.join(TIMEFRAMES)}; kernel and SQL make the same bars: {same}"
    return [yard.Table(title, [_arrays(bars), *end_to_end])]
