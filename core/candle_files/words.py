"""The columns of a candle file, and what is said of a file that cannot be used."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from core.errors import DataError

COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")
SYMBOL = "symbol"
ORIGIN_KEY = b"exchange"  # in a Parquet file's own metadata: where its candles were traded
CHUNK_ROWS = 65_536
# RuntimeError and NotImplementedError are zipfile's, for a password or a method it lacks;
# UnicodeError is pyarrow's, for a name of a column that is no text
UNREADABLE = (
    pa.ArrowException,
    OSError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,
    UnicodeError,
)


def want_columns(wanted: Sequence[str], names: Sequence[str], path: Path) -> None:
    """Raise DataError unless the wanted columns are there, each once."""
    absent = [name for name in wanted if name not in names]
    if absent == [SYMBOL]:
        raise DataError(
            f"{path}: its name says no pair, and it lacks the column {SYMBOL};",
            remedy="name it like BTC_USDT-1m-2024.csv (spot) or BTC_USDT_USDT-1m.csv (perpetual)",
        )
    twice = [name for name in wanted if names.count(name) > 1]
    if twice:
        raise DataError(
            f"{path} has the column {twice[0]} {names.count(twice[0])} times;",
            remedy="keep the one that is meant",
        )
    if absent:
        shown = ", ".join(names)[:200] or "none"
        raise DataError(
            f"{path} lacks the column(s) {', '.join(absent)}; it has {shown};",
            remedy=f"the columns are {', '.join(wanted)}",
        )


def want_checksum(path: Path) -> None:
    """Raise DataError for a file that differs from the SHA-256 an archive laid beside it.

    `BTCUSDT-1m-2024-01.zip.CHECKSUM` holds it as `sha256sum` writes it; without one nothing is
    checked.
    """
    beside = path.with_name(f"{path.name}.CHECKSUM")
    if not beside.is_file():
        return
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        said = beside.read_text(encoding="utf-8", errors="replace").split()[:1]
    except OSError as error:
        raise unreadable(path, error) from error
    if said != [found]:
        raise DataError(
            f"{path} is not what {beside.name} says;", remedy="download both of them again"
        )


def unreadable(path: Path, error: Exception) -> DataError:
    """Return one line about a file that is damaged, foreign or out of reach."""
    detail = str(error).strip().splitlines() or [type(error).__name__]
    return DataError(
        f"{path} cannot be read: {detail[0][:200]};", remedy="export or download it again"
    )
