"""A generated market as history and replay: databases with the past scanned, ready to go on."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from core import candle_files
from core.app import App
from core.domain import Candles
from core.jobs import files, follow, retro, run
from core.timeframe import DAY_MS, MINUTE_MS
from demo.market import ASSETS, MarketSpec, generate
from tests.engine_world import opened, part, write_config
from tests.worlds import MONDAY_MS, picked


@cache
def market(n_symbols: int, days: int, seed: int) -> Mapping[str, Candles]:
    """Generated candles by symbol; the same object each time, not to be changed."""
    more = (replace(asset, symbol=f"X{asset.symbol}") for asset in ASSETS)
    assets = tuple(islice((*ASSETS, *more), n_symbols))
    return generate(MarketSpec(start_ms=MONDAY_MS, days=days, seed=seed, assets=assets))


def without_minutes(bars: Candles, start_ms: int, n: int) -> Candles:
    """Bars with a hole of n minutes."""
    inside = (bars.ts_ms >= start_ms) & (bars.ts_ms < start_ms + n * MINUTE_MS)
    return picked(bars, ~inside)


@dataclass(frozen=True, kw_only=True)
class ReplayWorld:
    """A folder whose database knows the past; `copy` gives others that start alike."""

    folder: Path
    truth: Mapping[str, Candles]
    split_ms: int
    end_ms: int

    @property
    def files(self) -> Path:
        """Where the replay's candles lie."""
        return self.folder / "replay"

    def copy(self, name: str) -> Path:
        """Return the configuration of a copy of this world."""
        target = self.folder.parent / name
        shutil.copytree(self.folder, target)
        return target / "config.yaml"


def prepared(
    folder: Path, truth: Mapping[str, Candles], *, replay_days: float, **settings: Any
) -> ReplayWorld:
    """Import the history of a market, scan it, and lay the rest ready as a replay."""
    first_ms = min(int(bars.ts_ms[0]) for bars in truth.values())
    end_ms = max(int(bars.ts_ms[-1]) for bars in truth.values()) + MINUTE_MS
    split_ms = end_ms - int(replay_days * DAY_MS)
    for symbol, bars in truth.items():
        name = candle_files.name_of(symbol, "1m")
        candle_files.write(folder / "history" / name, part(bars, 0, split_ms))
        candle_files.write(folder / "replay" / name, part(bars, split_ms, end_ms))
    defaults: dict[str, Any] = {
        "exchange": {"id": "replay", "replay": {"path": "replay", "speed": 0}},
        "symbols": list(truth),
        "timeframes": ["15m", "1h"],
    }
    app = opened(write_config(folder, **{**defaults, **settings}))
    files.import_files(app, [folder / "history"], origin=app.config.exchange.id)
    retro.retro_scan(app, start_ms=first_ms, end_ms=split_ms, workers=1)
    app.close()
    return ReplayWorld(folder=folder, truth=truth, split_ms=split_ms, end_ms=end_ms)


class Until(threading.Event):
    """A stop that is set once market time has come to an instant."""

    def __init__(self, app: App, at_ms: int) -> None:
        super().__init__()
        self.clock = app.market()[1]
        self.at_ms = at_ms

    def is_set(self) -> bool:
        return self.clock.now_ms() >= self.at_ms


def replayed(app: App, until_ms: int | None = None) -> None:
    """Run a stepped replay to an instant, or to the end of its data."""
    run.run_stepped(app, stop=threading.Event() if until_ms is None else Until(app, until_ms))


def signals(app: App, *without: str) -> list[dict[str, Any]]:
    """The rows of `signals` in the order of their identity, their features with them."""
    rows = app.db.dicts(
        "SELECT s.*, f.version AS features_version, f.vector FROM signals s JOIN features f"
        " ON f.signal_id = s.id ORDER BY decided_ms, symbol, timeframe, setup, direction, p0_ms"
    )
    return [{name: v for name, v in row.items() if name not in without} for row in rows]


def walked_on(app: App, patch: pytest.MonkeyPatch) -> None:
    """Write the state of every open row, also where nothing happened for less than an hour."""
    patch.setattr(follow, "_SAVE_EVERY_MS", 0)
    follow.follow_all(app, now_ms=1 << 52)


def agreeing(
    live: App, past: App, outage_ms: int, patch: pytest.MonkeyPatch
) -> list[dict[str, Any]]:
    """Compare the books of both; returns those of the live one."""
    walked_on(live, patch)
    walked_on(past, patch)
    ours, theirs = (signals(app, "id", "origin") for app in (live, past))
    late = [row for row in ours if row["delivery_reason"] == "late"]
    assert all(row["decided_ms"] >= outage_ms for row in late)
    delivery = ("delivery", "delivery_reason")
    assert [bare(row, delivery) for row in ours] == [bare(row, delivery) for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        if mine["decided_ms"] <= outage_ms:
            assert mine == other
    return ours


def bare(row: dict[str, Any], without: tuple[str, ...]) -> dict[str, Any]:
    """A row without some of its columns."""
    return {name: value for name, value in row.items() if name not in without}
