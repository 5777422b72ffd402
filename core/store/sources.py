"""Where stored candles came from: which files were read, how far, and where they were traded."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

from core.domain import Series
from core.store.db import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How a file looked when it was read, and whether it was read to its end.

    `file` tells one state of a file, read in one window, from every other.
    """

    file: str
    is_whole: bool
    refused: Mapping[str, int]

    def as_text(self) -> str:
        """Return the text that the database keeps."""
        return json.dumps([self.file, self.is_whole, dict(self.refused)])

    @classmethod
    def of_text(cls, text: str) -> Self | None:
        """Return the mark of `as_text`, None for a source without one."""
        if not text:
            return None
        file, is_whole, refused = json.loads(text)
        return cls(file=file, is_whole=is_whole, refused=refused)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One source of one series: its bars open in [first_ms, last_ms]."""

    series: Series
    name: str
    first_ms: int
    last_ms: int
    n_rows: int
    origin: str
    mark: Mark | None


def _source(row: tuple[Any, ...]) -> Source:
    return Source(
        series=Series(*row[:3]),
        name=row[3],
        first_ms=row[4],
        last_ms=row[5],
        n_rows=row[6],
        origin=row[7],
        mark=Mark.of_text(row[8]),
    )


_SELECT = (
    "SELECT exchange, symbol, timeframe, name, first_ms, last_ms, n_rows, origin, fingerprint"
    " FROM sources WHERE kind = 'import'"
)


def imports_named(db: Database, exchange: str, timeframe: str, name: str) -> list[Source]:
    """Return what was imported from files of one name, a source per series."""
    found = db.rows(
        f"{_SELECT} AND exchange = ? AND timeframe = ? AND name = ? ORDER BY id",
        (exchange, timeframe, name),
    )
    return [_source(row) for row in found]


def imports_between(db: Database, series: Series, *, start_ms: int, end_ms: int) -> list[Source]:
    """Return the imports of a series whose range reaches into [start, end)."""
    found = db.rows(
        f"{_SELECT} AND exchange = ? AND symbol = ? AND timeframe = ? AND first_ms < ?"
        " AND last_ms >= ? ORDER BY id",
        (*series, end_ms, start_ms),
    )
    return [_source(row) for row in found]


def forget_marks(
    db: Database, series: Series, *, first_ms: int, last_ms: int, but: Collection[str]
) -> None:
    """Have the files read again whose bars in [first_ms, last_ms] another source replaced."""
    for source in imports_between(db, series, start_ms=first_ms, end_ms=last_ms + 1):
        if source.name not in but:  # of a file of many series: all of them
            db.run(
                "UPDATE sources SET fingerprint = '' WHERE exchange = ? AND timeframe = ?"
                " AND kind = 'import' AND name = ?",
                (series.exchange, series.timeframe, source.name),
            )


def say_origin(db: Database, source: Source, origin: str) -> None:
    """Remember the exchange a source's candles were traded on."""
    db.run(
        "UPDATE sources SET origin = ? WHERE exchange = ? AND symbol = ? AND timeframe = ?"
        " AND kind = 'import' AND name = ?",
        (origin, *source.series, source.name),
    )
