"""CSV in all its wrappings: plain, gzip, or one file in a zip; with a header line or without."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv

from core.candle_files.names import CandleFile, Form
from core.candle_files.words import CHUNK_ROWS, COLUMNS, SYMBOL, want_columns
from core.errors import DataError

_BLOCK_BYTES = 1 << 22
_FIRST_LINE_BYTES = 1 << 16
_OPEN_TIME = "open_time"  # what an archive's header calls the timestamp


def csv_chunks(file: CandleFile) -> Iterator[Any]:
    """Yield a CSV as record batches of at most 65 536 rows with the columns of candles.

    An archive's files have no header line, or one of their own; the order of columns is the same.
    Raises DataError for other columns and for a zip that is not one CSV; what pyarrow, gzip and
    zipfile raise of a damaged file is passed on.
    """
    wanted, found, first_row = _layout(file)
    kinds: dict[str, Any] = dict.fromkeys(found[1:6], pa.float64())
    if SYMBOL in wanted:
        kinds[SYMBOL] = pa.string()
    with (
        _opened(file) as stream,
        pa.csv.open_csv(
            stream,
            read_options=pa.csv.ReadOptions(
                block_size=_BLOCK_BYTES, autogenerate_column_names=not first_row
            ),
            convert_options=pa.csv.ConvertOptions(column_types=kinds, include_columns=found),
        ) as batches,
    ):
        for batch in batches:
            named = batch.rename_columns(wanted)
            for first in range(0, named.num_rows, CHUNK_ROWS):
                yield named.slice(first, CHUNK_ROWS)


def _layout(file: CandleFile) -> tuple[list[str], list[str], int]:
    """Return the columns wanted, what they are called in the file, and the first row's number."""
    wanted = [*COLUMNS, SYMBOL] if file.form is Form.MANY else [*COLUMNS]
    with _opened(file) as stream:
        line = stream.readline(_FIRST_LINE_BYTES).decode("utf-8-sig", "replace").rstrip("\r\n")
    if not line:
        raise DataError(
            f"{file.path} cannot be read: it is empty;", remedy="export or download it again"
        )
    names = [cell.strip('"') for cell in line.split(",")]
    if file.form is not Form.ARCHIVE:
        want_columns(wanted, names, file.path)
        return wanted, wanted, 1
    if names[0][:1].isdigit():
        found = [f"f{i}" for i in range(len(names))]
        want_columns(wanted, [*COLUMNS][: len(names)], file.path)
        return wanted, found[: len(wanted)], 0
    stamp = _OPEN_TIME if _OPEN_TIME in names else COLUMNS[0]
    found = [stamp, *wanted[1:]]
    want_columns(found, names, file.path)
    return wanted, found, 1


@contextmanager
def _opened(file: CandleFile) -> Iterator[IO[bytes] | gzip.GzipFile]:
    path = file.path
    if path.suffix == ".gz":
        with gzip.open(path) as unzipped:
            yield unzipped
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            inside = [info for info in archive.infolist() if not info.is_dir()]
            if len(inside) != 1 or not inside[0].filename.endswith(".csv"):
                names = ", ".join(info.filename for info in inside)[:200] or "nothing"
                raise DataError(
                    f"{path} holds {names};", remedy="a zip of candles holds exactly one .csv"
                )
            with archive.open(inside[0]) as member:
                yield member
    else:
        with path.open("rb") as plain:
            yield plain
