"""One minute of the market: all that is done of 10, 50, 100 symbols x 5m to 4h, no network.

There is no yardstick to run beside it: the figure is CPU seconds of this process
(`time.process_time`) for what the scheduler calls when a minute is over, sync, resample, scan (with
a champion that judges what is found on 5m) and follow, on an exchange made of arrays. The goal is
0.3 s for the worst minute of 50 symbols, the one at which a bar of every timeframe closes.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks import yard
from core.app import App, open_app
from core.domain import Candles, Series
from core.jobs import follow, scan, sync
from core.store import candles as store
from core.timeframe import DAY_MS, MINUTE_MS
from tests.champion import enthrone
from tests.engine_world import FakeExchange, HandClock, write_config

SIZES = (10, 50, 100)
TIMEFRAMES = ("5m", "15m", "1h", "4h")
JOBS = ("sync", "resample", "scan", "follow")
_DAYS = 3


class World:
    """An engine that has followed some symbols for three days, and the day after them to come."""

    def __init__(self, folder: Path, n_symbols: int) -> None:
        bars = yard.candles(_DAYS + 1)
        self.now_ms = yard.START_MS + _DAYS * DAY_MS
        truth = {f"S{i:02}/USDT:USDT": _scaled(bars, 1 + i / 7) for i in range(n_symbols)}
        self.clock = HandClock(self.now_ms)
        path = write_config(
            folder,
            symbols=list(truth),
            timeframes=["5m"],
            signals={"lookback_candles": 100},
            data={"derived_timeframes": list(TIMEFRAMES)},
        )
        enthrone(path)
        self.app: App = open_app(path)
        self.app._market = (FakeExchange(truth, self.clock), self.clock)
        n_known = bars.closed_by(self.now_ms)
        with self.app.db.write():
            for symbol, series_bars in truth.items():
                series = Series("bitget", symbol, "1m")
                store.upsert_candles(self.app.db, series, series_bars[:n_known])
                store.move_checkpoint(self.app.db, series, next_ms=self.now_ms, now_ms=self.now_ms)
                store.set_rooted(self.app.db, series)
        sync.resample_all(self.app, now_ms=self.now_ms)
        scan.scan_all(self.app, now_ms=self.now_ms)

    def minute(self) -> list[float]:
        """Let one minute pass; return the CPU seconds of each of its jobs."""
        self.now_ms += MINUTE_MS
        self.clock.at_ms = self.now_ms + 2_000
        marks = [time.process_time()]
        for job in (sync.sync_all, sync.resample_all, scan.scan_all, follow.follow_all):
            job(self.app, now_ms=self.clock.at_ms)
            marks.append(time.process_time())
        return [after - before for before, after in pairwise(marks)]

    def judged(self) -> int:
        """Return how many candidates the champion has judged."""
        return int(self.app.db.value("SELECT count(*) FROM signals WHERE ml_model <> ''"))


def _scaled(bars: Candles, factor: float) -> Candles:
    ts_ms, *prices = bars.columns()
    return Candles("1m", ts_ms, *(np.round(column * factor, 2) for column in prices))


def tables() -> list[yard.Table]:
    """Measure a table for each number of symbols."""
    return [_table(n_symbols) for n_symbols in SIZES]


def _table(n_symbols: int) -> yard.Table:
    """Measure 244 minutes: many ordinary ones, and one at which all four timeframes close."""
    with tempfile.TemporaryDirectory() as name:
        world = World(Path(name), n_symbols)
        took = [(world.minute(), world.now_ms // MINUTE_MS) for _ in range(244)]
        n_judged = world.judged()
        world.app.close()
    closing: dict[str, Callable[[int], bool]] = {
        "an ordinary minute": lambda m: m % 5 != 0,
        "5m closes": lambda m: m % 5 == 0 and m % 15 != 0,
        "5m 15m close": lambda m: m % 15 == 0 and m % 60 != 0,
        "5m 15m 1h close": lambda m: m % 60 == 0 and m % 240 != 0,
        "5m 15m 1h 4h close": lambda m: m % 240 == 0,
    }
    rows = []
    for what, holds in closing.items():
        chosen = [cost for cost, minute in took if holds(minute)]
        medians = [statistics.median(column) for column in zip(*chosen, strict=True)]
        rows.append(
            {
                "minute": what,
                "n": str(len(chosen)),
                **{job: f"{s:.3f} s" for job, s in zip(JOBS, medians, strict=True)},
                "CPU": f"{statistics.median(map(sum, chosen)):.3f} s",
                "worst": f"{max(map(sum, chosen)):.3f} s",
            }
        )
    title = (
        f"one cycle, {n_symbols} symbols x {', '.join(TIMEFRAMES)}, {n_judged} candidates judged"
    )
    return yard.Table(title, rows)
