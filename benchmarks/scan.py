"""What the retro-scan costs beside the limit: minutes of market decided and followed a second.

Recorded candles where they lie beside the project, else generated ones; five years of one pair at
15m, in memory and as the whole command, and of two pairs at three timeframes on one core. The limit
is one bare loop that decides at bars of 15m or of 5m and follows on minutes: with fewer bars to
decide it passes more minutes a second.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks import yard
from benchmarks.limit import walked
from core import candle_files, signals
from core.app import open_app
from core.config import Config
from core.costs import cost_rates
from core.domain import Candles, Market, Series
from core.execution import exit_rules, follow, new_states
from core.jobs import files
from core.jobs.retro_series import orders_of
from core.resample import resample
from core.store import candles as store
from core.store import open_reader
from core.timeframe import higher_timeframes, tf_ms
from demo.market import ASSETS, MarketSpec, generate

ROOT = Path(__file__).parents[1]
RECORDED = ROOT.parent / "shared" / "data" / "ohlcv"
SYMBOLS = ("BTC/USDT", "ETH/USDT")
YEARS = range(2020, 2025)
N_DAYS = 1827
START_MS = 1_577_836_800_000
_N_ROUNDS = 5


def tables() -> list[yard.Table]:
    """Measure, and return the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        n_all = _database(folder)
        base = _base(folder)
        one = ("--symbols", SYMBOLS[0], "--timeframes", "15m")
        took_s = _side_by_side(
            {
                "limit": partial(_limit, resample(base, "15m"), base),
                "finer": partial(_limit, resample(base, "5m"), base),
                "memory": _in_memory(base),
                "command": partial(_command, folder, *one),
                "command on one core": partial(_command, folder, *one, n_cores=1),
                "all": partial(_command, folder, "--timeframes", "15m", "1h", "4h", n_cores=1),
            }
        )
    n = len(base)

    def row(what: str, which: str, minutes: int) -> dict[str, str]:
        rate = minutes / took_s[which]
        return {
            "figure": what,
            "minutes/s": f"{rate / 1e6:.2f} M",
            "took": f"{took_s[which]:.3f} s",
            "to the 15m loop": f"1/{n / took_s['limit'] / rate:.3g}",
            "to the 5m loop": f"1/{n / took_s['finer'] / rate:.3g}",
        }

    rows = [
        row("limit: the bare loop over 15m bars", "limit", n),
        row("limit: the bare loop over 5m bars", "finer", n),
        row("scan and follow 15m, in memory", "memory", n),
        row("retro_scan.py 15m, whole command", "command", n),
        row("the same on one core", "command on one core", n),
        row("retro_scan.py 15m 1h 4h, two pairs, one core", "all", n_all),
    ]
    title = f"retro-scan of five years of minutes beside the limit; medians of {_N_ROUNDS} rounds"
    return [yard.Table(title, rows)]


def _side_by_side(runs: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """Return the median seconds of each run, all taken in turn so that noise meets them alike."""
    rounds = [{name: run() for name, run in runs.items()} for _ in range(_N_ROUNDS)]
    return {name: statistics.median(took[name] for took in rounds) for name in runs}


def _sources(folder: Path) -> list[Path]:
    """Return files with five years of minutes of each symbol."""
    if RECORDED.is_dir():
        return [
            RECORDED / candle_files.name_of(symbol, "1m", year=year)
            for symbol in SYMBOLS
            for year in YEARS
        ]
    spec = MarketSpec(start_ms=START_MS, days=N_DAYS, seed=1, assets=ASSETS[:2])
    for symbol, bars in zip(SYMBOLS, generate(spec).values(), strict=True):
        candle_files.write(folder / "files" / candle_files.name_of(symbol, "1m"), bars)
    return [folder / "files"]


def _database(folder: Path) -> int:
    """Make a database that knows the candles and was never scanned; returns how many minutes."""
    config = {
        "app": {"db_path": "ohlcv.db"},
        "exchange": {"id": "bench"},
        "symbols": list(SYMBOLS),
        "timeframes": ["15m", "1h", "4h"],
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    app = open_app(folder / "config.yaml")
    files.import_files(app, _sources(folder))
    n = app.db.value("SELECT sum(n_rows) FROM series WHERE timeframe = '1m'")
    app.db.checkpoint(truncate=True)
    app.close()
    shutil.move(folder / "ohlcv.db", folder / "fresh.db")
    return int(n)


def _base(folder: Path) -> Candles:
    with open_reader(folder / "fresh.db") as db:
        return store.read_candles(db, Series("bench", SYMBOLS[0], "1m"), end_ms=1 << 50)


def _seconds(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def _in_memory(base: Candles) -> Callable[[], float]:
    """Return a run of our scan and follow on arrays, compiled and warm."""
    config, market = Config(), Market(symbol=SYMBOLS[0], kind="spot", tick=0.0, fallback=True)
    first, second = higher_timeframes("15m")
    data = signals.ScanInput(
        series=Series("bench", SYMBOLS[0], "15m"),
        bars=resample(base, "15m"),
        higher=(resample(base, first), resample(base, second)),
        base=base,
        leader=None,
        market=market,
        missing_ms=base.ts_ms[:0],
    )

    def ours() -> None:
        found = signals.decided(data, config, first_ms=0, last_ms=1 << 60)
        orders = orders_of(found, config)
        follow(
            orders,
            new_states(orders),
            base,
            rules=exit_rules(config.execution),
            rates=cost_rates(config.signals, market),
            until_ms=1 << 60,
        )

    ours()
    return partial(_seconds, ours)


def _limit(bars: Candles, base: Candles) -> float:
    """Return the seconds of the bare loop, the middle one of a few: each takes milliseconds."""
    run = partial(walked, bars, base, step_ms=tf_ms(bars.timeframe))
    run()
    return statistics.median(_seconds(run) for _ in range(_N_ROUNDS))


def _command(folder: Path, *more: str, n_cores: int = 0) -> float:
    """Return the seconds of `retro_scan.py` over all of it, on a database never scanned."""
    command = [sys.executable, str(ROOT / "retro_scan.py"), "--config", str(folder / "config.yaml")]
    command += ["--start", "2020-01-01", "--end", "2024-12-31", "--workers", "1", *more]
    for left in folder.glob("ohlcv.db*"):
        left.unlink()
    with open(shutil.copy(folder / "fresh.db", folder / "ohlcv.db"), "rb") as copy:
        os.fsync(copy.fileno())  # else the first checkpoint pays for writing the copy
    with _cores(n_cores):
        return _seconds(partial(subprocess.run, command, check=True, capture_output=True, cwd=ROOT))


@contextmanager
def _cores(n: int) -> Iterator[None]:
    """Hold this process, and what it starts, to `n` cores; 0 is all of them."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[: n or None])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
