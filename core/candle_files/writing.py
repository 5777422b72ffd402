"""Writing candle files: whole or not at all, and such that reading gives the same bits back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from core import drafts
from core.candle_files.words import COLUMNS, ORIGIN_KEY, SYMBOL
from core.domain import Candles
from core.errors import DataError

_ROW_GROUP_ROWS = 131_072
# prices repeat too little for a dictionary: without one files are half as large, sooner written
_PARQUET: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 6,
    "use_dictionary": [SYMBOL],
    "column_encoding": {COLUMNS[0]: "DELTA_BINARY_PACKED"},
}
_CSV = pa.csv.WriteOptions(quoting_style="none")  # floats as the shortest decimals that give them


def write(path: Path, candles: Candles, *, origin: str = "") -> None:
    """Write bars as Parquet (zstd) or CSV, by the path's suffix; `read` gives the same bits back.

    A Parquet file remembers the exchange they were traded on, `origin`, where it is known.
    """
    table = _table(candles, origin)
    with _draft(path) as draft:
        if path.suffix == ".csv":
            pa.csv.write_csv(table, draft, _CSV)
        else:
            pq.write_table(table, draft, row_group_size=_ROW_GROUP_ROWS, **_PARQUET)


def write_many(path: Path, parts: Iterable[tuple[str, Candles]], *, origin: str = "") -> int:
    """Write parts of many series, one after the other, with a column `symbol`; returns the rows.

    Only one part is in memory at a time.
    """
    n_rows = 0
    schema = _table(Candles.empty("1m"), origin, symbol="").schema
    with _draft(path) as draft, _writer(draft, schema, is_text=path.suffix == ".csv") as writer:
        for symbol, bars in parts:
            for first in range(0, len(bars), _ROW_GROUP_ROWS):
                part = bars[first : first + _ROW_GROUP_ROWS]
                writer.write_table(_table(part, origin, symbol=symbol))
            n_rows += len(bars)
    return n_rows


def _writer(draft: Path, schema: Any, *, is_text: bool) -> Any:
    if is_text:
        return pa.csv.CSVWriter(draft, schema, write_options=_CSV)
    return pq.ParquetWriter(draft, schema, **_PARQUET)


def _table(bars: Candles, origin: str, *, symbol: str | None = None) -> Any:
    columns: dict[str, Any] = dict(zip(COLUMNS, bars.columns(), strict=True))
    if symbol is not None:
        columns[SYMBOL] = pa.repeat(symbol, len(bars))
    table = pa.table(columns)
    return table.replace_schema_metadata({ORIGIN_KEY: origin}) if origin else table


@contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """Yield a temporary name that becomes the path when all went well, and goes when not."""
    draft = drafts.draft_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        with draft.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(draft, path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error};", remedy="check the folder") from error
    finally:
        draft.unlink(missing_ok=True)
