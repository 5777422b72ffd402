"""Candle files: Parquet and CSV, found by name, read by the law of candles, written whole."""

from core.candle_files.names import (
    ARCHIVE_EXCHANGE,
    CandleFile,
    Form,
    find,
    find_all,
    name_of,
    name_of_many,
    parse_name,
    split_pair,
)
from core.candle_files.reading import (
    Part,
    Span,
    chunks,
    is_empty,
    origin_of,
    read,
    read_group,
    spans,
)
from core.candle_files.words import COLUMNS, want_checksum
from core.candle_files.writing import write, write_many

__all__ = [
    "ARCHIVE_EXCHANGE",
    "COLUMNS",
    "CandleFile",
    "Form",
    "Part",
    "Span",
    "chunks",
    "find",
    "find_all",
    "is_empty",
    "name_of",
    "name_of_many",
    "origin_of",
    "parse_name",
    "read",
    "read_group",
    "spans",
    "split_pair",
    "want_checksum",
    "write",
    "write_many",
]
