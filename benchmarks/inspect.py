"""`db_inspect.py` on a file of 1 GB: wall seconds of the whole command, its imports included.

The yardsticks, on the same file in the same run: the interpreter with `apsw` and the settings
imported and nothing read, and SQLite counting the rows of `ohlcv`, which is what a look without
maintained counts costs at least.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import yard
from core.domain import Series
from core.store import Database, open_database
from core.store import candles as store
from core.store import gaps as gap_store
from core.timeframe import MINUTE_MS

_N_SYMBOLS = 8
_N_SIGNALS, _N_RUNS, _N_HOLES = 30_000, 100_000, 500
_ROOT = Path(__file__).parents[1]
_IMPORTS = "import apsw, numpy, rich.console, rich.table, core.config_file"


def _fill(db: Database) -> None:
    """Store 21 million candles, and of everything else what years of running leave behind."""
    db.rows("PRAGMA synchronous = OFF")
    bars = yard.candles(yard.FIVE_YEARS)
    for i in range(_N_SYMBOLS):
        series = Series("bench", f"S{i}/USDT:USDT", "1m")
        for low in range(0, len(bars), 100_000):
            store.upsert_candles(db, series, bars[low : low + 100_000])
        first = int(bars.ts_ms[-1]) + 10 * MINUTE_MS
        holes = [
            (first + k * 9 * MINUTE_MS, first + (k * 9 + 2) * MINUTE_MS) for k in range(_N_HOLES)
        ]
        gap_store.record_gaps(db, series, holes, state="missing", now_ms=first)
    db.run("INSERT INTO clock VALUES (1, ?1, ?1, 1.0)", (int(bars.ts_ms[-1]) + 2 * MINUTE_MS,))
    count = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
    db.run(
        f"{count} INSERT INTO job_runs (job, due_ms, started_wall_ms, took_ms, outcome)"
        " SELECT 'job ' || (i % 8), i, i, 1.0, 'ok' FROM n",
        (_N_RUNS,),
    )
    columns = [row for row in db.rows("PRAGMA table_info(signals)") if row[1] != "id"]
    values = [_value(str(name), str(kind)) for _, name, kind, *_ in columns]
    db.run(
        f"{count} INSERT INTO signals ({', '.join(str(row[1]) for row in columns)})"
        f" SELECT {', '.join(values)} FROM n",
        (_N_SIGNALS,),
    )
    db.checkpoint(truncate=True)


def _value(name: str, kind: str) -> str:
    """Return SQL for one column of a made-up signal, about as long as a real one."""
    chosen = {
        "direction": "'long'",
        "origin": "'retro'",
        "status": "iif(i % 3, 'SL', 'TP')",
        "p0_ms": "i",
        "rationale": "hex(zeroblob(60))",
        "exec_state": "hex(zeroblob(150))",
    }
    return chosen.get(name, "'word'" if kind == "TEXT" else "i % 97")


def _run(*arguments: str) -> None:
    command = [sys.executable, *arguments]
    subprocess.run(command, check=True, cwd=_ROOT, stdout=subprocess.DEVNULL)


def tables() -> list[yard.Table]:
    """Build the file, ask, and delete it."""
    with tempfile.TemporaryDirectory() as name:
        config, path = Path(name) / "config.yaml", Path(name) / "x.db"
        config.write_text("app: {db_path: x.db}\n", encoding="utf-8")
        with open_database(path) as db:
            _fill(db)
            n = int(db.value("SELECT sum(n_rows) FROM series"))
            counting = yard.median_s(lambda: db.value("SELECT sum(close) FROM ohlcv"))
        size = path.stat().st_size
        asked = yard.median_s(lambda: _run("db_inspect.py", "--config", str(config)))
        listed = yard.median_s(lambda: _run("db_inspect.py", "--holes", "--config", str(config)))
        imports = yard.median_s(lambda: _run("-c", _IMPORTS))
    rows = [
        {"what": "db_inspect.py", "took": f"{asked:.2f} s"},
        {"what": f"db_inspect.py --holes ({_N_SYMBOLS * _N_HOLES:,})", "took": f"{listed:.2f} s"},
        {"what": "of it, imports alone", "took": f"{imports:.2f} s"},
        {"what": "beside: SELECT sum(close) FROM ohlcv", "took": f"{counting:.2f} s"},
    ]
    return [yard.Table(f"a look at {n:,} candles, {size / 1e9:.2f} GB", rows)]
