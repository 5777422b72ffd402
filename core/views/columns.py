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
    first, *others = names
    wanted = ", ".join(f"coalesce({name}, {_ABSENT})" for name in others)
    ids, matrix = db.columns(
        f"SELECT {first}, {wanted} {rest}", params, n_floats=len(others), room=_ROOM
    )
    matrix[np.isinf(matrix)] = np.nan
    return ids, dict(zip(others, matrix, strict=True))
