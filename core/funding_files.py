"""Files of funding rates: Parquet, one symbol each, told apart by their names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.domain import FundingRate
from core.errors import DataError
from core.funding_law import lawful_rates

_SUFFIX = "-funding.parquet"
_EVER_MS = (1_230_768_000_000, 10**14)  # 2009, before there was anything to trade, to 5138


def name_of(symbol: str) -> str:
    """Return the name of a symbol's file.

    >>> name_of("BTC/USDT:USDT")
    'BTC_USDT_USDT-funding.parquet'
    """
    return f"{symbol.replace('/', '_').replace(':', '_')}{_SUFFIX}"


def symbol_of(path: Path) -> str | None:
    """Return the perpetual whose rates a file holds by its name, or None.

    >>> symbol_of(Path("BTC_USDT_USDT-funding.parquet")), symbol_of(Path("BTC_USDT-1m.parquet"))
    ('BTC/USDT:USDT', None)
    """
    parts = path.name.removesuffix(_SUFFIX).split("_")
    if not path.name.endswith(_SUFFIX) or len(parts) != 3 or not all(parts):
        return None
    base, quote, settle = parts
    return f"{base}/{quote}:{settle}"


def find(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """Return the funding files among files and folders (searched to the bottom), with symbols."""
    found = set()
    for path in paths:
        inside = path.rglob(f"*{_SUFFIX}") if path.is_dir() else [path]
        named = {(p, symbol) for p in inside if (symbol := symbol_of(p)) is not None}
        found |= {(p, symbol) for p, symbol in named if p.is_file()}  # a pipe would be waited for
    return sorted(found)


def read(path: Path) -> tuple[list[FundingRate], int]:
    """Return a file's settlements, oldest first, and how many of its rows are no rates.

    Raises DataError for a file without the columns `timestamp, funding_rate`, and for one of whose
    rows none is a rate at a time in UTC ms.
    """
    try:
        table = pq.read_table(path, columns=["timestamp", "funding_rate"])
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise _unreadable(path, error) from error
    start_ms, end_ms = _EVER_MS
    found, n_refused = lawful_rates(_pairs(table, path), start_ms=start_ms, end_ms=end_ms)
    if table.num_rows and not found:
        raise DataError(
            f"{path}: none of its {table.num_rows} rows is a funding rate;",
            remedy="give timestamp in UTC milliseconds and funding_rate as a fraction",
        )
    return found, n_refused


def _pairs(table: Any, path: Path) -> list[tuple[Any, Any]]:
    """Return the rows; a type whose values Python lacks is no more readable than a damaged file."""
    try:
        columns = [table.column(name).to_pylist() for name in ("timestamp", "funding_rate")]
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise _unreadable(path, error) from error
    return list(zip(*columns, strict=True))


def _unreadable(path: Path, error: Exception) -> DataError:
    said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return DataError(f"{path} cannot be read: {said};", remedy="replace it")
