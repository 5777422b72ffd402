"""A folder of recorded candles served as an exchange would: nothing beyond market time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from core import funding_files
from core.candle_files import CandleFile, Span, find, read_group, spans
from core.candle_law import finest_step
from core.config import Config
from core.domain import Candles, Floats, FundingRate, Market
from core.errors import ConfigError, DataError, ExchangeError
from core.timeframe import tf_ms

PAGE_BARS = 1000
_TICK_ROWS = 5000
_HELD_GROUPS = 2  # a window spans at most two row groups


class _Recording:
    """The files of one series: an index of row groups, of which the last two used are held."""

    def __init__(self, files: list[CandleFile]) -> None:
        self.timeframe = files[0].timeframe
        self._index: list[tuple[CandleFile, Span]] = [(f, s) for f in files for s in spans(f)]
        self._index.sort(key=lambda entry: entry[1].first_ms)
        self._load = lru_cache(maxsize=_HELD_GROUPS)(self._group)

    def _group(self, i: int) -> Candles:
        file, span = self._index[i]
        return read_group(file, span.group)

    @property
    def bounds_ms(self) -> tuple[int, int] | None:
        """First open and last close, or None without a bar."""
        if not self._index:
            return None
        last_ms = max(span.last_ms for _, span in self._index)
        return self._index[0][1].first_ms, last_ms + tf_ms(self.timeframe)

    def window(self, start_ms: int, end_ms: int) -> Candles:
        """Return the bars that open in [start_ms, end_ms); of an instant in two files, the last."""
        parts = []
        for i, (_, span) in enumerate(self._index):
            if span.last_ms >= start_ms and span.first_ms < end_ms:
                bars = self._load(i)
                first, last = np.searchsorted(bars.ts_ms, (start_ms, end_ms))
                parts.append(bars[int(first) : int(last)])
        if len(parts) == 1:
            return parts[0]
        return _joined(parts) if parts else Candles.empty(self.timeframe)

    def first_prices(self) -> Floats:
        """Return the prices of the first bars, (n,); empty without a bar."""
        if not self._index:
            return np.empty(0)
        bars = self._load(0)[:_TICK_ROWS]
        return np.concatenate((bars.open, bars.high, bars.low, bars.close))


class ReplayExchange:
    """Recorded candles up to market time; the clock is the one given to `bind`.

    Unbound it stands at the end of its data, so that all of it can be downloaded.
    """

    id = "replay"
    n_lanes = 1

    def __init__(self, files: list[CandleFile], *, symbols: tuple[str, ...], folder: Path) -> None:
        series = sorted({(file.symbol, file.timeframe) for file in files})
        self._recordings = {
            key: _Recording([f for f in files if (f.symbol, f.timeframe) == key]) for key in series
        }
        self._folder = folder
        self._funding: dict[str, list[FundingRate]] = {}
        self._lock = threading.Lock()
        bounds = [
            recording.bounds_ms
            for (symbol, _), recording in self._recordings.items()
            if symbol in symbols
        ]
        known = [bound for bound in bounds if bound is not None]
        if not known:
            raise ConfigError(
                f"exchange.replay.path {folder} holds no bar of {', '.join(symbols)};",
                remedy=f"it holds {', '.join(sorted({symbol for symbol, _ in series}))}",
            )
        self._first_ms = min(first for first, _ in known)
        self._end_ms = max(end for _, end in known)
        self._now_ms: Callable[[], int] = lambda: self._end_ms

    @classmethod
    def open(cls, config: Config) -> ReplayExchange:
        """Index the Parquet files of `exchange.replay.path`.

        Raises ConfigError for a folder without candles of the configured symbols, DataError for a
        file that cannot be read.
        """
        folder = Path(config.exchange.replay.path)
        try:
            files = [file for file in find([folder]) if file.path.suffix == ".parquet"]
        except DataError as error:
            raise ConfigError(
                f"exchange.replay.path: {error.message}", remedy=error.remedy
            ) from error
        return cls(files, symbols=config.symbols, folder=folder)

    def bind(self, now_ms: Callable[[], int]) -> None:
        """Take market time from a clock."""
        self._now_ms = now_ms

    @property
    def first_ms(self) -> int:
        """The earliest open of the configured symbols."""
        return self._first_ms

    @property
    def end_ms(self) -> int:
        """The latest close of the configured symbols."""
        return self._end_ms

    def server_time_ms(self) -> int:
        """Return market time, UTC ms."""
        return self._now_ms()

    def markets(self, symbols: tuple[str, ...], *, fresh: bool = False) -> dict[str, Market]:  # noqa: ARG002
        """Return a made-up record for each symbol recorded, its tick the finest step in the data.

        The tick comes from the first 5000 bars of the symbol's finest timeframe, which may lie in
        the future of market time: it is a constant of the market, not news.
        """
        found: dict[str, Market] = {}
        for symbol in symbols:
            own = [r for (name, _), r in self._recordings.items() if name == symbol]
            if not own:
                continue
            with self._lock:
                prices = min(own, key=lambda r: tf_ms(r.timeframe)).first_prices()
            if len(prices):
                kind = "swap" if ":" in symbol else "spot"
                tick = finest_step(prices)
                found[symbol] = Market(symbol=symbol, kind=kind, tick=tick, fallback=True)
        return found

    def candles(self, symbol: str, timeframe: str, *, start_ms: int, end_ms: int) -> Candles:
        """Return the recorded bars that open in [start_ms, end_ms) and not after market time.

        The forming bar is served as real exchanges do, but a recording cannot know it in part: its
        open stands for all four prices, with volume 0. Raises ExchangeError for a series that is
        not recorded.
        """
        recording = self._recordings.get((symbol, timeframe))
        if recording is None:
            raise ExchangeError(
                f"the replay folder {self._folder} holds no {timeframe} bars of {symbol};",
                remedy=f"it holds {self._contents()}",
            )
        now_ms = self._now_ms()
        with self._lock:
            bars = recording.window(start_ms, min(end_ms, now_ms + 1))
        return _with_forming(bars, now_ms)

    def serves(self, timeframe: str) -> bool:
        """Say whether bars of a timeframe are recorded, of every symbol."""
        symbols = {symbol for symbol, _ in self._recordings}
        return all((symbol, timeframe) in self._recordings for symbol in symbols)

    def page_bars(self, timeframe: str, *, start_ms: int, now_ms: int) -> int:  # noqa: ARG002
        """Return how many bars to ask for at once; any number is safe."""
        return PAGE_BARS

    def funding(self, symbol: str, *, start_ms: int, end_ms: int) -> list[FundingRate]:
        """Return recorded settlements in [start_ms, end_ms), none after market time.

        From `funding/NAME-funding.parquet` inside the folder or beside it; empty where absent.
        """
        if symbol not in self._funding:
            name = funding_files.name_of(symbol)
            places = (self._folder / "funding" / name, self._folder.parent / "funding" / name)
            path = next((place for place in places if place.is_file()), None)
            self._funding[symbol] = [] if path is None else funding_files.read(path)[0]
        until_ms = min(end_ms, self._now_ms() + 1)
        return [rate for rate in self._funding[symbol] if start_ms <= rate.ts_ms < until_ms]

    def open_interest(self, symbol: str) -> float | None:  # noqa: ARG002
        """Return None: no recording holds it."""
        return None

    def behind(self) -> ReplayExchange:
        """Return itself: nothing waits for files."""
        return self

    def close(self) -> None:
        """Let go of the bars held in memory."""
        self._recordings.clear()

    def _contents(self) -> str:
        return ", ".join(f"{symbol} {timeframe}" for symbol, timeframe in self._recordings)


def _with_forming(bars: Candles, now_ms: int) -> Candles:
    """Return bars with the newest, if it is still forming, reduced to its open."""
    closed = bars.closed_by(now_ms)
    if closed == len(bars):
        return bars
    columns: list[Any] = [column.copy() for column in bars.columns()]
    for column in columns[2:5]:
        column[closed:] = bars.open[closed:]
    columns[5][closed:] = 0.0
    return Candles(bars.timeframe, *columns)


def _joined(parts: list[Candles]) -> Candles:
    """Return the bars of parts in time order; of an instant in two parts, the later part's."""
    whole = [np.concatenate(columns) for columns in zip(*(p.columns() for p in parts), strict=True)]
    if len(whole[0]) > 1:
        order = np.argsort(whole[0], kind="stable")
        last = np.append(np.diff(whole[0][order]) > 0, True)
        whole = [column[order[last]] for column in whole]
    ts_ms, *prices = whole
    return Candles(parts[0].timeframe, ts_ms, *prices)
