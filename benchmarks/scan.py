"""What the retro-scan costs beside the limit: minutes of market decided and followed a second.

Recorded candles where they lie beside the project, else generated ones; five years of one pair at
15m, in memory and as the whole command, and of two pairs at three timeframes on one core.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
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


def tables() -> list[yard.Table]:
    """Measure, and return the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        n_minutes = _database(folder)
        base = _base(folder)
        limit_s, memory_s = _in_memory(base)
        finer_s = _limit(resample(base, "5m"), base)
        one_s = _command(folder, "--symbols", SYMBOLS[0], "--timeframes", "15m")
        all_s = _command(folder, "--timeframes", "15m", "1h", "4h")
    n = len(base)

    def row(what: str, took_s: float, minutes: int) -> dict[str, str]:
        return {
            "figure": what,
            "ours": f"{minutes / took_s / 1e6:.2f} M minutes/s ({took_s:.2f} s)",
            "yardstick": f"{n / limit_s / 1e6:.0f} M minutes/s",
            "ratio": f"1/{n / limit_s / (minutes / took_s):.0f}",
            "beside": "bare compiled loop, same candles",
        }

    rows = [
        row("the loop itself over 5m bars", finer_s, n),
        row("scan and follow 15m, in memory", memory_s, n),
        row("retro_scan.py 15m, whole command", one_s, n),
        row("retro_scan.py 15m 1h 4h, two pairs, one core", all_s, n_minutes),
    ]
    return [yard.Table("retro-scan of five years of minutes beside the limit", rows)]


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


def _median(run: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def _in_memory(base: Candles) -> tuple[float, float]:
    """Return seconds of the limit and of our scan and follow, on arrays."""
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
    return _limit(data.bars, base), _median(ours)


def _limit(bars: Candles, base: Candles) -> float:
    def run() -> None:
        walked(bars, base, step_ms=tf_ms(bars.timeframe))

    run()
    return _median(run)


def _command(folder: Path, *more: str) -> float:
    """Return the seconds of `retro_scan.py` over all of it, each time on an unscanned database."""
    command = [sys.executable, str(ROOT / "retro_scan.py"), "--config", str(folder / "config.yaml")]
    command += ["--start", "2020-01-01", "--end", "2024-12-31", "--workers", "1", *more]
    times = []
    for _ in range(3):
        for left in folder.glob("ohlcv.db*"):
            left.unlink()
        shutil.copy(folder / "fresh.db", folder / "ohlcv.db")
        begun = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
        times.append(time.perf_counter() - begun)
    return statistics.median(times)
