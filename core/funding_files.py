"""Files of funding rates: Parquet, one symbol each, told apart by their names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from core.domain import FundingRate
from core.errors import DataError
from core.funding_law import lawful_rates

_SUFFIX = "-funding.parquet"
_EVER_MS = (0, 2**53)


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
        found |= {(p, symbol) for p in inside if (symbol := symbol_of(p)) is not None}
    return sorted(found)


def read(path: Path) -> tuple[list[FundingRate], int]:
    """Return a file's settlements, oldest first, and how many of its rows are no rates.

    Raises DataError for a file without the columns `timestamp, funding_rate`.
    """
    try:
        table = pq.read_table(path, columns=["timestamp", "funding_rate"])
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read: {error};", remedy="replace it") from error
    columns = (table.column(name).to_pylist() for name in ("timestamp", "funding_rate"))
    start_ms, end_ms = _EVER_MS
    return lawful_rates(zip(*columns, strict=True), start_ms=start_ms, end_ms=end_ms)
