"""One SQLite in the process, in a build without the WAL-reset bug; one process moves the WAL."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from core import candle_files
from core.app import open_app
from core.store import open_database, open_reader
from core.store.db import WriterLock
from tests.commands import CONFIG, ROOT, run, said
from tests.worlds import random_candles

# Before these patches of their branches a checkpoint that meets a write can lose rows.
REPAIRED = {(3, 44): 6, (3, 50): 7, (3, 51): 3}

EVERYTHING = """
import importlib, pathlib, pkgutil, sys
import core, demo
names = [path.stem for path in pathlib.Path('.').glob('*.py')]
for package in (core, demo):
    names += [m.name for m in pkgutil.walk_packages(package.__path__, package.__name__ + '.')]
names = [name for name in names if not name.endswith('__main__') and name != 'dashboard']
for name in [*names, 'streamlit', 'xgboost', 'sklearn.isotonic', 'pandas', 'ccxt', 'joblib',
             'pyarrow.parquet', 'plotly.graph_objects', 'apscheduler.schedulers.blocking']:
    importlib.import_module(name)
print(len(names), *[name for name in sys.modules if 'sqlite3' in name])
"""


def test_the_build_cannot_lose_rows_to_a_wal_reset() -> None:
    """The version that runs, not the one that was asked for; 3.52 was withdrawn."""
    major, minor, patch = (int(part) for part in apsw.sqlite_lib_version().split(".")[:3])
    assert (major, minor) >= (3, 53) or patch >= REPAIRED.get((major, minor), 1 << 30)


def test_no_import_brings_a_second_sqlite() -> None:
    """Every module, every script and every library they use: `sqlite3` stays out."""
    command = [sys.executable, "-c", EVERYTHING]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    n_modules, *found = done.stdout.split()
    assert int(n_modules) > 80
    assert found == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Settings, candles to import, and an empty database whose WAL was moved."""
    (tmp_path / "config.yaml").write_text(CONFIG, encoding="utf-8")
    candle_files.write(tmp_path / "AAA_USDT-1m.parquet", random_candles(3_000, 3))
    with open_database(tmp_path / "data" / "ohlcv.db") as db:
        db.checkpoint(truncate=True)
    return tmp_path


def test_a_script_beside_a_scheduler_never_moves_the_wal(folder: Path) -> None:
    """Not as it writes, not as the last to close, not when told to; the lock's holder does."""
    config, path = folder / "config.yaml", folder / "data" / "ohlcv.db"
    before = path.read_bytes()
    lock = WriterLock(path.with_name("ohlcv.db.lock"))
    assert lock.acquire()
    files = ("--import", str(folder / "AAA_USDT-1m.parquet"))
    assert run("download_data.py", *files, config=config).returncode == 0
    assert run("scan_signals.py", config=config).returncode == 0
    assert run("analyze_results.py", config=config).returncode == 0
    line = said(run("maintenance.py", "checkpoint", config=config), 1)
    assert f"pid {os.getpid()}" in line
    assert path.read_bytes() == before
    assert path.with_name("ohlcv.db-wal").stat().st_size > 100_000
    lock.release()
    open_app(config).close()
    wal = path.with_name("ohlcv.db-wal")
    assert not wal.exists() or wal.stat().st_size == 0
    assert path.stat().st_size > len(before) + 100_000
    with open_reader(path) as db:
        assert db.value("SELECT n_rows FROM series WHERE timeframe = '1m'") == 3_000
