"""Stored candles out into files, a year at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from core import candle_files, drafts
from core.app import App
from core.candle_law import ALL_TIME_MS
from core.domain import Candles, Progress, Series, no_progress
from core.errors import DataError
from core.exchange.replay import ReplayExchange
from core.store import candles as store
from core.store import gaps as gap_store
from core.store import sources as source_store
from core.timeframe import tf_ms


class _Year(NamedTuple):
    """What one file holds: the bars of a series that open in [start_ms, end_ms) of a year."""

    series: Series
    year: int
    start_ms: int
    end_ms: int


def export_files(
    app: App,
    folder: Path,
    symbols: Sequence[str] = (),
    *,
    timeframes: Sequence[str] = (),
    start_ms: int | None = None,
    until_ms: int | None = None,
    suffix: str = ".parquet",
    one_file: bool = False,
    progress: Progress = no_progress,
) -> list[dict[str, Any]]:
    """Write stored candles of some symbols (all, when none are named), a file per year.

    Of each symbol its base candles, or those of `timeframes` that are stored, imported or derived.
    `one_file`: all symbols in one file per timeframe, told apart by a column. Each file appears
    whole or not at all; one of the same name is replaced. A Parquet file says on which exchange
    its candles were traded where that is one and known. Returns a row per file and series.
    """
    window = (
        ALL_TIME_MS[0] if start_ms is None else start_ms,
        ALL_TIME_MS[1] if until_ms is None else until_ms,
    )
    drafts.sweep([folder])
    rows = _wanted(app, symbols, timeframes)
    years = [year for row in rows for year in _years(row, window)]
    if not one_file:
        return _one_per_year(app, folder, years, suffix=suffix, progress=progress)
    report = []
    for timeframe in dict.fromkeys(year.series.timeframe for year in years):
        path = folder / candle_files.name_of_many(timeframe, suffix=suffix)
        mine = [year for year in years if year.series.timeframe == timeframe]
        report += _one_for_all(app, path, mine, progress=progress)
    return report


def _wanted(app: App, symbols: Sequence[str], timeframes: Sequence[str]) -> list[store.SeriesRow]:
    exchange = app.config.exchange.id
    found = []
    for row in store.series_rows(app.db):
        series = row.series
        if series.exchange != exchange or (symbols and series.symbol not in symbols):
            continue
        base = store.base_timeframe_of(app.db, exchange, series.symbol)
        if row.n_rows and series.timeframe in (timeframes or (base,)):
            found.append(row)
    return found


def _years(row: store.SeriesRow, window: tuple[int, int]) -> Iterator[_Year]:
    """Yield the years that a series reaches into, cut to a window."""
    if row.first_ms is None or row.last_ms is None:
        return
    first = max(row.first_ms, window[0])
    end = min(row.last_ms + tf_ms(row.series.timeframe), window[1])
    while first < end:
        year = datetime.fromtimestamp(first / 1000, UTC).year
        until = min(end, int(datetime(year + 1, 1, 1, tzinfo=UTC).timestamp()) * 1000)
        yield _Year(row.series, year, first, until)
        first = until


def _bars(app: App, year: _Year) -> Candles:
    return store.read_candles(app.db, year.series, start_ms=year.start_ms, end_ms=year.end_ms)


def _one_per_year(
    app: App, folder: Path, years: Sequence[_Year], *, suffix: str, progress: Progress
) -> list[dict[str, Any]]:
    report = []
    for i, part in enumerate(years):
        series = part.series
        name = candle_files.name_of(series.symbol, series.timeframe, year=part.year, suffix=suffix)
        progress(f"export {name}", i, len(years))
        if candle_files.parse_name(Path(name)) != (series.symbol, series.timeframe):
            raise DataError(
                f"{series.symbol} cannot be told by a file name;", remedy="export with --one-file"
            )
        bars = _bars(app, part)
        if len(bars):
            origin = _origin([_origins(app, part)])
            candle_files.write(folder / name, bars, origin=origin)
            report.append(_row(folder / name, series, len(bars), origin))
    progress("export", len(years), len(years))
    return report


def _one_for_all(
    app: App, path: Path, years: Sequence[_Year], *, progress: Progress
) -> list[dict[str, Any]]:
    n_rows: dict[Series, int] = {}

    def parts() -> Iterator[tuple[str, Candles]]:
        for i, part in enumerate(years):
            progress(f"export {part.series.symbol} {part.year} to {path.name}", i, len(years))
            bars = _bars(app, part)
            n_rows[part.series] = n_rows.get(part.series, 0) + len(bars)
            yield part.series.symbol, bars

    origin = _origin([_origins(app, part) for part in years])
    if candle_files.write_many(path, parts(), origin=origin):
        progress("export", len(years), len(years))
    else:
        path.unlink()
    return [_row(path, series, n, origin) for series, n in n_rows.items() if n]


def _row(path: Path, series: Series, n_rows: int, origin: str) -> dict[str, Any]:
    return {
        "file": str(path),
        "symbol": series.symbol,
        "timeframe": series.timeframe,
        "rows": n_rows,
        "origin": origin,
    }


def _origin(found: Sequence[set[str]]) -> str:
    """Return the one exchange that all candles were traded on, '' where none or several are."""
    origins = set().union(*found)
    return origins.pop() if len(origins) == 1 else ""


def _origins(app: App, part: _Year) -> set[str]:
    """Return the exchanges that the bars of a window were traded on, '' for one nobody named.

    What no file brought was downloaded; a replay does not say what it replays.
    """
    series, step = part.series, tf_ms(part.series.timeframe)
    sources = source_store.imports_between(
        app.db, series, start_ms=part.start_ms, end_ms=part.end_ms
    )
    runs = sorted((source.first_ms, source.last_ms + step) for source in sources)
    rest = gap_store.without(part.start_ms, part.end_ms, runs)
    origins = {source.origin for source in sources}
    if any(
        gap_store.stored_holes(app.db, series, start_ms=start, end_ms=end) != [(start, end)]
        for start, end in rest
    ):
        origins.add("" if series.exchange == ReplayExchange.id else series.exchange)
    return origins
