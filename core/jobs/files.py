"""Candle files into the database, and out again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core import candle_files
from core.app import App
from core.candle_law import ALL_TIME_MS
from core.domain import Progress, Series, no_progress
from core.errors import DataError
from core.jobs.readings import write_bars
from core.jobs.sync import derived_timeframes, resample_symbol
from core.store import candles as store
from core.store import gaps as gap_store
from core.timeframe import tf_ms


def import_files(
    app: App,
    paths: Sequence[Path],
    *,
    start_ms: int | None = None,
    until_ms: int | None = None,
    progress: Progress = no_progress,
) -> list[dict[str, Any]]:
    """Store every candle of some Parquet or CSV files, and what is made from them.

    With a window, only bars that open in [start_ms, until_ms). Repeating it changes nothing. Holes
    between an import's bars are `missing` at once. Returns a row per file: rows read, rows new,
    rows refused by reason, first and last bar.
    """
    files = candle_files.find(paths)
    report = []
    for i, file in enumerate(files):
        progress(f"import {file.path.name}", i, len(files))
        report.append(_import_file(app, file, window=_window(start_ms, until_ms)))
    names = sorted({(file.symbol, file.timeframe) for file in files}, key=lambda n: tf_ms(n[1]))
    for symbol, timeframe in names:
        series = Series(app.config.exchange.id, symbol, timeframe)
        if store.series_row(app.db, series) is not None:
            finish_import(app, series)
    progress("import", len(files), len(files))
    return report


def _window(start_ms: int | None, until_ms: int | None) -> tuple[int, int]:
    first, last = ALL_TIME_MS
    return (
        first if start_ms is None else start_ms,
        last if until_ms is None else until_ms,
    )


def _import_file(
    app: App, file: candle_files.CandleFile, *, window: tuple[int, int]
) -> dict[str, Any]:
    series = Series(app.config.exchange.id, file.symbol, file.timeframe)
    n_rows, n_new, first, last = 0, 0, None, 0
    dropped: Counter[str] = Counter()
    for bars in candle_files.read(file, start_ms=window[0], end_ms=window[1], dropped=dropped):
        if not len(bars):
            continue
        first = int(bars.ts_ms[0]) if first is None else min(first, int(bars.ts_ms[0]))
        last = max(last, int(bars.ts_ms[-1]))
        n_rows += len(bars)
        with app.db.write():
            n_new += write_bars(app, series, bars)
            store.record_source(
                app.db,
                series,
                kind="import",
                name=file.path.name,
                first_ms=first,
                last_ms=last,
                n_rows=n_rows,
            )
    return {
        "file": file.path.name,
        "symbol": file.symbol,
        "timeframe": file.timeframe,
        "rows": n_rows,
        "new": n_new,
        "refused": dict(dropped),
        "first_ms": first,
        "last_ms": last,
    }


def finish_import(app: App, series: Series) -> None:
    """Write down the holes of an imported series, move its checkpoint, build derived bars."""
    row = store.series_row(app.db, series)
    if row is None or row.first_ms is None or row.last_ms is None:
        raise DataError(f"{series.symbol} {series.timeframe}: the files hold no candles")
    end = row.last_ms + tf_ms(series.timeframe)
    with app.db.write():
        holes = gap_store.stored_holes(app.db, series, start_ms=row.first_ms, end_ms=end)
        gap_store.record_gaps(app.db, series, holes, state="missing", now_ms=end)
        store.move_checkpoint(app.db, series, next_ms=end, now_ms=end)
        store.set_rooted(app.db, series)
    resample_symbol(app.db, series, derived_timeframes(app, series.timeframe), until_ms=end)


def export_files(app: App, folder: Path, symbols: Sequence[str]) -> list[dict[str, Any]]:
    """Write the base candles of some symbols (all, when none are named) as Parquet files."""
    folder.mkdir(parents=True, exist_ok=True)
    report = []
    for row in store.series_rows(app.db):
        series = row.series
        base = store.base_timeframe_of(app.db, series.exchange, series.symbol)
        wanted = not symbols or series.symbol in symbols
        if not wanted or series.timeframe != base or row.last_ms is None:
            continue
        bars = store.read_candles(app.db, series, end_ms=row.last_ms + 1)
        path = folder / candle_files.name_of(series.symbol, series.timeframe)
        candle_files.write(path, bars)
        report.append({"file": str(path), "symbol": series.symbol, "rows": len(bars)})
    return report
