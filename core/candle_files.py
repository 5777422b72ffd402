"""Candle files: Parquet and CSV, one series each, told apart by their names."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from core.candle_law import ALL_TIME_MS, lawful
from core.domain import Candles, Floats
from core.errors import ConfigError, DataError
from core.timeframe import tf_ms

COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")
_NAME = re.compile(
    r"(?P<base>[A-Za-z0-9][A-Za-z0-9.]*)_(?P<quote>[A-Za-z0-9.]+?)(_(?P<settle>[A-Za-z0-9.]+))?"
    r"-(?P<timeframe>\d+[mhd])(-\d{4}(-\d{2})?)?\.(parquet|csv)"
)
_CHUNK_ROWS = 65_536
_ROW_GROUP_ROWS = 131_072
_SMALL_FROM, _SECONDS_BELOW = 1e8, 1e11  # seconds of 1973 to 5138; the same in ms is 1970 to 1973
_MICROSECONDS_FROM = 1e14  # 1e14 ms is the year 5138


class CandleFile(NamedTuple):
    """One file and the series its name says it holds."""

    path: Path
    symbol: str
    timeframe: str


class Span(NamedTuple):
    """One row group of a Parquet file: its number, and its first and last open."""

    group: int
    first_ms: int
    last_ms: int


def parse_name(path: Path) -> tuple[str, str] | None:
    """Return the unified symbol and timeframe a file's name says, or None if it says neither.

    >>> parse_name(Path("FIL_USDT_USDT-1m-2024.parquet")), parse_name(Path("BTC_USDT-5m.csv"))
    (('FIL/USDT:USDT', '1m'), ('BTC/USDT', '5m'))
    """
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    try:
        tf_ms(match["timeframe"])
    except ConfigError:
        return None
    settle = f":{match['settle']}" if match["settle"] else ""
    return f"{match['base']}/{match['quote']}{settle}", match["timeframe"]


def name_of(symbol: str, timeframe: str, *, year: int | None = None) -> str:
    """Return the Parquet name of a series, as `parse_name` reads it."""
    years = "" if year is None else f"-{year:04d}"
    return f"{symbol.replace('/', '_').replace(':', '_')}-{timeframe}{years}.parquet"


def find(paths: Sequence[Path]) -> list[CandleFile]:
    """Return the candle files among files and folders (searched to the bottom), sorted by path.

    Raises DataError for a path that is absent, or that holds no candle file.
    """
    found: set[CandleFile] = set()
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} does not exist;", remedy="name a candle file or a folder")
        inside = path.rglob("*") if path.is_dir() else [path]
        files = {CandleFile(p, *series) for p in inside if (series := parse_name(p)) is not None}
        if not files:
            raise DataError(
                f"{path} holds no candle file;",
                remedy="names are like BTC_USDT-1m-2024.parquet (spot) or FIL_USDT_USDT-1m.csv",
            )
        found |= files
    return sorted(found)


def read(
    file: CandleFile,
    *,
    start_ms: int = ALL_TIME_MS[0],
    end_ms: int = ALL_TIME_MS[1],
    dropped: Counter[str] | None = None,
) -> Iterator[Candles]:
    """Yield the lawful bars that open in [start_ms, end_ms), chunk by chunk, as the file orders.

    A chunk is at most 65 536 rows, sorted and unique in itself; chunks of an unsorted file may
    overlap. Rows that break the law of candles are left out and counted by reason into `dropped`;
    rows outside the window are not counted. Raises DataError for a file without the columns
    `timestamp, open, high, low, close, volume`, or whose timestamps are not UTC ms.
    """
    tables = _parquet_chunks if file.path.suffix == ".parquet" else _csv_chunks
    try:
        for table in tables(file, start_ms, end_ms):
            rows = _rows(table, file)
            bars, faults = lawful(rows, timeframe=file.timeframe, start_ms=start_ms, end_ms=end_ms)
            faults.pop("outside", None)
            if dropped is not None:
                dropped.update(faults)
            if len(bars):
                yield bars
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file.path, error) from error


def spans(file: CandleFile) -> list[Span]:
    """Return the row groups of a Parquet file with their first and last open, from its metadata.

    A row group without rows is left out. Raises DataError for an unusable file.
    """
    try:
        with pq.ParquetFile(file.path) as parquet:
            _want_columns(parquet.schema_arrow.names, file.path)
            groups = range(parquet.metadata.num_row_groups)
            bounds = [(group, _bounds(parquet, group, file)) for group in groups]
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file.path, error) from error
    return [Span(group, *found) for group, found in bounds if found is not None]


def read_group(file: CandleFile, group: int) -> Candles:
    """Return the lawful bars of one row group of a Parquet file. Raises DataError."""
    try:
        with pq.ParquetFile(file.path) as parquet:
            table = parquet.read_row_group(group, columns=list(COLUMNS))
        rows = _rows(table, file)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file.path, error) from error
    start_ms, end_ms = ALL_TIME_MS
    return lawful(rows, timeframe=file.timeframe, start_ms=start_ms, end_ms=end_ms)[0]


def write(path: Path, candles: Candles) -> None:
    """Write bars as Parquet (zstd), whole or not at all; `read` gives the same bits back."""
    table = pa.table(dict(zip(COLUMNS, candles.columns(), strict=True)))
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        pq.write_table(table, draft, compression="zstd", row_group_size=_ROW_GROUP_ROWS)
        os.replace(draft, path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error};", remedy="check the folder") from error
    finally:
        draft.unlink(missing_ok=True)


def _parquet_chunks(file: CandleFile, start_ms: int, end_ms: int) -> Iterator[Any]:
    groups = [s.group for s in spans(file) if s.last_ms >= start_ms and s.first_ms < end_ms]
    with pq.ParquetFile(file.path) as parquet:
        yield from parquet.iter_batches(
            batch_size=_CHUNK_ROWS, row_groups=groups, columns=list(COLUMNS)
        )


def _csv_chunks(file: CandleFile, start_ms: int, end_ms: int) -> Iterator[Any]:
    del start_ms, end_ms  # a CSV has no index: the law cuts the window
    prices: dict[str, Any] = dict.fromkeys(COLUMNS[1:], pa.float64())
    options = pa.csv.ConvertOptions(column_types=prices)
    with pa.csv.open_csv(file.path, convert_options=options) as batches:
        _want_columns(batches.schema.names, file.path)
        for batch in batches:
            for first in range(0, batch.num_rows, _CHUNK_ROWS):
                yield batch.slice(first, _CHUNK_ROWS)


def _rows(table: Any, file: CandleFile) -> Floats:
    """Return a (n, 6) matrix of a chunk, its timestamps in ms; absent values are NaN."""
    stamps = table.column("timestamp")
    if pa.types.is_timestamp(stamps.type):
        stamps = stamps.cast(pa.timestamp("ms")).cast(pa.int64())
    columns = [stamps, *(table.column(name) for name in COLUMNS[1:])]
    rows = np.column_stack(
        [np.asarray(column.cast(pa.float64(), safe=False)) for column in columns]
    )
    known = rows[np.isfinite(rows[:, 0]), 0]
    if len(known):
        _want_milliseconds(known.min(), known.max(), n_rows=len(known), file=file)
    return rows


def _want_milliseconds(first: float, last: float, *, n_rows: int, file: CandleFile) -> None:
    """Raise DataError for timestamps in seconds, micro- or nanoseconds."""
    apart = (last - first) / (n_rows - 1) if n_rows > 1 else 0.0
    in_seconds = _SMALL_FROM <= last < _SECONDS_BELOW and apart < tf_ms(file.timeframe)
    if in_seconds or last >= _MICROSECONDS_FROM:
        unit = "seconds" if in_seconds else "micro- or nanoseconds"
        raise DataError(
            f"{file.path}: timestamp {last:.0f} is in {unit};",
            remedy="give UTC milliseconds, or a Parquet timestamp column",
        )


def _bounds(parquet: Any, group: int, file: CandleFile) -> tuple[int, int] | None:
    """Return first and last open of a row group, from statistics where they are usable."""
    metadata = parquet.metadata.row_group(group)
    if not metadata.num_rows:
        return None
    where = parquet.schema_arrow.names.index("timestamp")
    statistics = metadata.column(where).statistics
    if (
        pa.types.is_integer(parquet.schema_arrow.field("timestamp").type)
        and statistics is not None
        and statistics.has_min_max
    ):
        first_ms, last_ms = int(statistics.min), int(statistics.max)
        _want_milliseconds(first_ms, last_ms, n_rows=metadata.num_rows, file=file)
        return first_ms, last_ms
    stamps = _rows(parquet.read_row_group(group, columns=list(COLUMNS)), file)[:, 0]
    known = stamps[np.isfinite(stamps)]
    return (int(known.min()), int(known.max())) if len(known) else None


def _want_columns(names: Sequence[str], path: Path) -> None:
    """Raise DataError unless the six columns are there."""
    absent = [name for name in COLUMNS if name not in names]
    if absent:
        raise DataError(
            f"{path} lacks the column(s) {', '.join(absent)}; it has {', '.join(names) or 'none'};",
            remedy=f"the columns are {', '.join(COLUMNS)}",
        )


def _unreadable(path: Path, error: Exception) -> DataError:
    detail = str(error).strip().splitlines() or [type(error).__name__]
    return DataError(
        f"{path} cannot be read: {detail[0][:200]};", remedy="export or download it again"
    )
