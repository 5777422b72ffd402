"""A whole engine in a folder, an exchange made of arrays, and a market time set by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.app import App, open_app
from core.domain import Candles, FundingRate, Market, Series
from core.errors import ExchangeUnavailable
from core.exchange import Exchange
from core.store import candles as store
from core.store import gaps as gap_store
from core.store.db import Database
from core.timeframe import tf_ms
from tests.worlds import picked

QUIET: dict[str, Any] = {
    "auto": {name: {"enabled": False} for name in ("train", "calibrate", "tune", "summary")},
    "backup": {"enabled": False},
}
FAR_MS = 1 << 52


class HandClock:
    """Market time that stands until it is set."""

    speed = 1.0
    finished = False

    def __init__(self, now_ms: int = 0) -> None:
        self.at_ms = now_ms

    def now_ms(self) -> int:
        return self.at_ms

    def settled(self, next_due_ms: int) -> None:
        """Wait for nobody."""

    def wait_s(self, due_ms: int) -> float:
        return max(0.0, (due_ms - self.at_ms) / 1000)


def aggregated(bars: Candles, timeframe: str) -> Candles:
    """Longer bars as an exchange shows them: of whatever minutes there are, partial ones too."""
    if not len(bars):
        return Candles.empty(timeframe)
    opens = bars.ts_ms - bars.ts_ms % tf_ms(timeframe)
    ts_ms, first = np.unique(opens, return_index=True)
    last = np.append(first[1:], len(bars)) - 1
    return Candles(
        timeframe,
        ts_ms,
        bars.open[first],
        np.maximum.reduceat(bars.high, first),
        np.minimum.reduceat(bars.low, first),
        bars.close[last],
        np.add.reduceat(bars.volume, first),
    )


class FakeExchange:
    """Candles by symbol, served up to the clock; the newest one still forming.

    `hidden` are (symbol, open) it does not show yet, `failing` symbols it cannot serve; `before`
    is called with every request and may raise.
    """

    id = "bitget"
    n_lanes = 1

    def __init__(self, truth: dict[str, Candles], clock: HandClock, *, page: int = 199) -> None:
        self.truth = truth
        self.clock = clock
        self.page = page
        self.n_asked = 0
        self.hidden: set[tuple[str, int]] = set()
        self.failing: set[str] = set()
        self.timeframes = {"1m", "5m", "15m", "1h", "4h", "1d"}
        self.before: Callable[[str, int, int], None] = lambda *_: None

    def server_time_ms(self) -> int:
        return self.clock.at_ms

    def markets(self, symbols: tuple[str, ...], **_: object) -> dict[str, Market]:
        return {s: Market(symbol=s, kind="swap", tick=0.5) for s in symbols if s in self.truth}

    def candles(self, symbol: str, timeframe: str, *, start_ms: int, end_ms: int) -> Candles:
        self.n_asked += 1
        self.before(symbol, start_ms, end_ms)
        if symbol in self.failing:
            raise ExchangeUnavailable(f"{symbol} is down;", remedy="wait")
        bars, now_ms = self.truth[symbol], self.clock.at_ms
        if timeframe != bars.timeframe:
            return part(aggregated(part(bars, 0, now_ms), timeframe), start_ms, end_ms)
        assert (end_ms - start_ms) // tf_ms(timeframe) >= 1
        shown = (bars.ts_ms >= start_ms) & (bars.ts_ms < min(end_ms, now_ms))
        for name, ts in self.hidden:
            if name == symbol:
                shown &= bars.ts_ms != ts
        served = picked(bars, shown)
        forming = served.ts_ms + tf_ms(timeframe) > now_ms
        for column in (served.high, served.low, served.close):
            column[forming] = served.open[forming]
        served.volume[forming] /= 2
        return served

    def serves(self, timeframe: str) -> bool:
        return timeframe in self.timeframes

    def page_bars(self, *_: object, **__: object) -> int:
        return self.page

    def funding(self, *_: object, **__: object) -> list[FundingRate]:
        return []

    def open_interest(self, *_: object) -> float | None:
        return None

    def behind(self) -> FakeExchange:
        return self

    def close(self) -> None:
        """Hold nothing."""


def write_config(folder: Path, **settings: Any) -> Path:
    """Write settings, without the weekly work and backups unless they say so."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(json.dumps({"app": {"db_path": "ohlcv.db"}} | QUIET | settings))
    return path


def opened(path: Path, market: tuple[Exchange, Any] | None = None) -> App:
    """Open an engine that does not wait for the disk, perhaps on a market of the test's own."""
    app = open_app(path)
    app.db.rows("PRAGMA synchronous = OFF")
    app._market = market
    return app


def fake_engine(
    folder: Path, truth: dict[str, Candles], *, page: int = 199, **settings: Any
) -> tuple[App, FakeExchange, HandClock]:
    """Return an engine on an exchange of arrays."""
    clock = HandClock()
    exchange = FakeExchange(truth, clock, page=page)
    path = write_config(folder, symbols=list(truth), **settings)
    return opened(path, (exchange, clock)), exchange, clock


def stored(app: App, symbol: str, timeframe: str = "1m") -> Candles:
    """Return what is stored of a series."""
    return store.read_candles(
        app.db, Series(app.config.exchange.id, symbol, timeframe), end_ms=FAR_MS
    )


def gap_states(app: App, symbol: str, timeframe: str = "1m") -> list[tuple[int, int, str]]:
    """Return the gaps of a series as (start, end, state)."""
    series = Series(app.config.exchange.id, symbol, timeframe)
    return [(g.start_ms, g.end_ms, g.state) for g in gap_store.gaps(app.db, series)]


def same(left: Candles, right: Candles) -> bool:
    """Say whether two series are equal bit for bit."""
    pairs = zip(left.columns(), right.columns(), strict=True)
    return left.timeframe == right.timeframe and all(np.array_equal(a, b) for a, b in pairs)


def part(bars: Candles, start_ms: int, end_ms: int) -> Candles:
    """Return the bars that open in [start_ms, end_ms)."""
    first, last = np.searchsorted(bars.ts_ms, (start_ms, end_ms))
    return bars[int(first) : int(last)]


def table(db: Database, name: str, *, without: Sequence[str] = ()) -> list[tuple[Any, ...]]:
    """Return a table's rows in the order of their values, some columns left out."""
    columns = [row[1] for row in db.rows(f"PRAGMA table_info({name})") if row[1] not in without]
    return sorted(db.rows(f"SELECT {', '.join(columns)} FROM {name}"), key=repr)
