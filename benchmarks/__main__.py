"""Print what the engine costs beside bare yardsticks: `python -m benchmarks` (or `make bench`).

Machines are noisy: read the ratios, not the seconds. Every figure is the median of three runs.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from core import cli
from core.domain import Candles, Series
from core.resample import resample
from core.store import candles as store
from core.store import open_database
from demo.market import ASSETS, MarketSpec, generate

N_DAYS = 365
START_MS = 1_704_067_200_000
_SERIES = Series("bench", "BTC/USDT:USDT", "1m")

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
    db.executemany("INSERT INTO ohlcv VALUES (?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET c = c",
                   tuples[i:i + 10_000])
    db.execute("COMMIT")
db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
wrote = time.perf_counter() - begun
begun = time.perf_counter()
cursor = db.execute("SELECT ts, o, h, l, c, v FROM ohlcv WHERE series = 1 ORDER BY ts")
np.fromiter(itertools.chain.from_iterable(cursor), float)
print(wrote, time.perf_counter() - begun)
"""


def _median(run: Callable[[], float]) -> float:
    return statistics.median(run() for _ in range(3))


def _bare(bars: Candles, folder: Path) -> tuple[float, float]:
    """Time the yardstick in a process of its own: one SQLite library per process."""
    np.save(folder / "rows.npy", np.column_stack(bars.columns()))
    times = []
    for i in range(3):
        command = [sys.executable, "-c", _BARE, str(folder / "rows.npy"), str(folder / f"b{i}.db")]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        times.append(tuple(float(word) for word in out.split()))
    wrote, read = zip(*times, strict=True)
    return statistics.median(wrote), statistics.median(read)


def _ingest(bars: Candles, folder: Path) -> tuple[float, float]:
    """Return seconds to store the bars and bytes per candle; a new database each time."""
    sizes = []

    def run() -> float:
        path = Path(tempfile.mkdtemp(dir=folder)) / "x.db"
        with open_database(path) as db:
            begun = time.perf_counter()
            for i in range(0, len(bars), 20_000):
                with db.write():
                    store.upsert_candles(db, _SERIES, bars[i : i + 20_000])
            db.checkpoint(truncate=True)
            took = time.perf_counter() - begun
        sizes.append(path.stat().st_size / len(bars))
        return took

    return _median(run), sizes[-1]


def _read(bars: Candles, folder: Path) -> float:
    with open_database(folder / "read.db") as db:
        store.upsert_candles(db, _SERIES, bars)

        def run() -> float:
            begun = time.perf_counter()
            store.read_candles(db, _SERIES, end_ms=1 << 50)
            return time.perf_counter() - begun

        return _median(run)


def _resample(bars: Candles) -> tuple[float, float]:
    """Return seconds for 5m, 15m and 1h by our kernel and by pandas."""
    names = ("open", "high", "low", "close", "volume")
    frame = pd.DataFrame(
        dict(zip(names, bars.columns()[1:], strict=True)),
        index=pd.to_datetime(bars.ts_ms, unit="ms", utc=True),
    )
    how = dict(zip(names, ("first", "max", "min", "last", "sum"), strict=True))

    def ours() -> float:
        begun = time.perf_counter()
        for timeframe in ("5m", "15m", "1h"):
            resample(bars, timeframe)
        return time.perf_counter() - begun

    def theirs() -> float:
        begun = time.perf_counter()
        for rule in ("5min", "15min", "1h"):
            frame.resample(rule).agg(how)
        return time.perf_counter() - begun

    ours()
    return _median(ours), _median(theirs)


def main() -> int:
    """Measure and print the table."""
    spec = MarketSpec(start_ms=START_MS, days=N_DAYS, seed=1, assets=ASSETS[:1])
    bars = generate(spec)[ASSETS[0].symbol]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bare_write, bare_read = _bare(bars, folder)
        write, size = _ingest(bars, folder)
        read = _read(bars, folder)
    ours, pandas_s = _resample(bars)
    n = len(bars)

    def row(what: str, took: float, yard: float, beside: str) -> dict[str, str]:
        return {
            "figure": what,
            "ours": f"{n / took / 1e6:.2f} M/s",
            "yardstick": f"{n / yard / 1e6:.2f} M/s",
            "ratio": f"{yard / took:.2f}x",
            "beside": beside,
        }

    rows = [
        row("store 1m candles", write, bare_write, "bare sqlite3 executemany, same rows"),
        row("read them into arrays", read, bare_read, "np.fromiter over sqlite3"),
        row("resample to 5m, 15m, 1h", ours, pandas_s, "pandas resample().agg()"),
    ]
    cli.show(rows, as_json=False, title=f"{n:,} candles; bytes per stored candle: {size:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.guarded(lambda _: main()))
