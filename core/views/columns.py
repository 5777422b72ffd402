"""Columns of a query as arrays, without an object per value: for the views that read every row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core.domain import Floats, Ints
from core.store import Database

_ABSENT = "9e999"  # stands for NULL, which a column of numbers cannot say; no price is infinite
_ROOM = 1 << 16


def numbers(
    db: Database, names: Sequence[str], rest: str, params: tuple[int, ...]
) -> tuple[Ints, dict[str, Floats]]:
    """Return the first column, whole numbers, and the others by name, NaN for NULL.

    `names` are SQL expressions, the first one of whole numbers that are never NULL; `rest` is what
    follows SELECT's columns.
    """
    ids, columns, _ = numbers_and_marks(db, names, (), rest, params)
    return ids, columns


def numbers_and_marks(
    db: Database, names: Sequence[str], words: Sequence[str], rest: str, params: tuple[int, ...]
) -> tuple[Ints, dict[str, Floats], dict[str, Ints]]:
    """Return `numbers`, and of each of `words`, texts, marks by which equal ones are known."""
    first, *others = names
    wanted = "".join(f", coalesce({name}, {_ABSENT})" for name in others)
    wanted += "".join(f", {name}" for name in words)
    ids, matrix, marks = db.columns_with_marks(
        f"SELECT {first}{wanted} {rest}",
        params,
        n_floats=len(others),
        n_words=len(words),
        room=_ROOM,
    )
    matrix[np.isinf(matrix)] = np.nan
    return ids, dict(zip(others, matrix, strict=True)), dict(zip(words, marks, strict=True))
