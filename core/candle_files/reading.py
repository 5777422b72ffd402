"""Reading candle files chunk by chunk, by the law of candles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.candle_files.names import ARCHIVE_EXCHANGE, CandleFile, Form, is_symbol
from core.candle_files.texts import csv_chunks
from core.candle_files.words import (
    CHUNK_ROWS,
    COLUMNS,
    ORIGIN_KEY,
    SYMBOL,
    UNREADABLE,
    unreadable,
    want_columns,
)
from core.candle_law import ALL_TIME_MS, lawful
from core.domain import Candles, Floats
from core.errors import DataError
from core.timeframe import tf_ms

_SMALL_FROM, _SECONDS_BELOW = 1e8, 1e11  # seconds of 1973 to 5138; the same in ms is 1970 to 1973
_MICROSECONDS_FROM = 1e14  # 1e14 ms is the year 5138


class Span(NamedTuple):
    """One row group of a Parquet file: its number, and its first and last open."""

    group: int
    first_ms: int
    last_ms: int


class Part(NamedTuple):
    """The rows of one series in a chunk: the lawful bars, and how many rows fell, by reason."""

    symbol: str
    bars: Candles
    fallen: dict[str, int]


def read(
    file: CandleFile,
    *,
    start_ms: int = ALL_TIME_MS[0],
    end_ms: int = ALL_TIME_MS[1],
    dropped: Counter[str] | None = None,
) -> Iterator[Candles]:
    """Yield the lawful bars of a file of one series that open in [start_ms, end_ms).

    They come chunk by chunk as the file orders them; rows that break the law are counted by reason
    into `dropped`, rows outside the window are not. Raises DataError as `chunks` does.
    """
    for parts in chunks(file, start_ms=start_ms, end_ms=end_ms):
        for part in parts:
            if dropped is not None:
                dropped.update({why: n for why, n in part.fallen.items() if why != "outside"})
            if len(part.bars):
                yield part.bars


def chunks(
    file: CandleFile, *, start_ms: int = ALL_TIME_MS[0], end_ms: int = ALL_TIME_MS[1]
) -> Iterator[list[Part]]:
    """Yield a file chunk by chunk, each as one part per series; the bars open in [start, end).

    A chunk is at most 65 536 rows, a part sorted and unique in itself; those of an unsorted file
    may overlap. Row groups of a Parquet file that lie outside the window are not read. Raises
    DataError for a file that is damaged, lacks a column, or whose timestamps are not UTC ms (an
    archive's may be microseconds).
    """
    tables = _parquet_chunks if file.path.suffix == ".parquet" else _csv_chunks
    try:
        for table in tables(file, start_ms, end_ms):
            parts = []
            for symbol, rows in _by_series(table, _rows(table, file), file):
                law = lawful(rows, timeframe=file.timeframe, start_ms=start_ms, end_ms=end_ms)
                parts.append(Part(symbol, *law))
            yield parts
    except UNREADABLE as error:
        raise unreadable(file.path, error) from error


def is_empty(file: CandleFile) -> bool:
    """Say whether a Parquet file has no rows; of other files nothing is known without reading."""
    if file.path.suffix != ".parquet":
        return False
    try:
        with pq.ParquetFile(file.path) as parquet:
            return not parquet.metadata.num_rows
    except UNREADABLE as error:
        raise unreadable(file.path, error) from error


def origin_of(file: CandleFile) -> str:
    """Return the exchange a file says its candles were traded on, '' where it does not say."""
    if file.form is Form.ARCHIVE:
        return ARCHIVE_EXCHANGE
    if file.path.suffix != ".parquet":
        return ""
    try:
        metadata = pq.read_schema(file.path).metadata or {}
    except UNREADABLE as error:
        raise unreadable(file.path, error) from error
    return str(metadata.get(ORIGIN_KEY, b"").decode("utf-8", "replace"))


def spans(file: CandleFile) -> list[Span]:
    """Return the row groups of a Parquet file with their first and last open, from its metadata.

    A row group without rows is left out. Raises DataError for an unusable file.
    """
    try:
        with pq.ParquetFile(file.path) as parquet:
            want_columns(_wanted(file), parquet.schema_arrow.names, file.path)
            groups = range(parquet.metadata.num_row_groups)
            bounds = [(group, _bounds(parquet, group, file)) for group in groups]
    except UNREADABLE as error:
        raise unreadable(file.path, error) from error
    return [Span(group, *found) for group, found in bounds if found is not None]


def read_group(file: CandleFile, group: int) -> Candles:
    """Return the lawful bars of one row group of a Parquet file. Raises DataError."""
    try:
        with pq.ParquetFile(file.path) as parquet:
            table = parquet.read_row_group(group, columns=list(COLUMNS))
        rows = _rows(table, file)
    except UNREADABLE as error:
        raise unreadable(file.path, error) from error
    start_ms, end_ms = ALL_TIME_MS
    return lawful(rows, timeframe=file.timeframe, start_ms=start_ms, end_ms=end_ms)[0]


def _parquet_chunks(file: CandleFile, start_ms: int, end_ms: int) -> Iterator[Any]:
    wanted = _wanted(file)
    groups = [s.group for s in spans(file) if s.last_ms >= start_ms and s.first_ms < end_ms]
    with pq.ParquetFile(file.path) as parquet:
        yield from parquet.iter_batches(
            batch_size=CHUNK_ROWS, row_groups=groups, columns=list(wanted)
        )


def _csv_chunks(file: CandleFile, start_ms: int, end_ms: int) -> Iterator[Any]:
    del start_ms, end_ms  # a CSV has no index: the law cuts the window
    return csv_chunks(file)


def _wanted(file: CandleFile) -> tuple[str, ...]:
    return (*COLUMNS, SYMBOL) if file.form is Form.MANY else COLUMNS


def _by_series(table: Any, rows: Floats, file: CandleFile) -> list[tuple[str, Floats]]:
    """Return the rows of a chunk by series, in the order of their first appearance."""
    if file.form is not Form.MANY:
        return [(file.symbol, rows)]
    coded = table.column(SYMBOL).cast(pa.string()).dictionary_encode()
    symbols = coded.dictionary.to_pylist()
    strange = [symbol for symbol in symbols if not is_symbol(symbol)]
    if strange or coded.null_count:
        raise DataError(
            f"{file.path}: its column {SYMBOL} says {strange[0] if strange else 'nothing'!r};",
            remedy="write BTC/USDT (spot) or BTC/USDT:USDT (perpetual)",
        )
    codes = np.asarray(coded.indices)
    return [(symbol, rows[codes == code]) for code, symbol in enumerate(symbols)]


def _rows(table: Any, file: CandleFile) -> Floats:
    """Return a (n, 6) matrix of a chunk, its timestamps in ms; absent values are NaN."""
    stamps = table.column("timestamp")
    if pa.types.is_timestamp(stamps.type):
        stamps = stamps.cast(pa.timestamp("ms")).cast(pa.int64())
    columns = [stamps, *(table.column(name) for name in COLUMNS[1:])]
    rows = np.column_stack(
        [np.asarray(column.cast(pa.float64(), safe=False)) for column in columns]
    )
    if file.form is Form.ARCHIVE:  # its spot files are in microseconds from 2025 on
        rows[rows[:, 0] >= _MICROSECONDS_FROM, 0] /= 1000
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
