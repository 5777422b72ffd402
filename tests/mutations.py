"""Seeded mishaps of bytes and of values: what disks, networks and strangers make of an input.

A case is a number: `random.Random(number)` gives the same mishap again. The law they serve is
`refused`: an input is taken, or refused in one line that an owner can act on.
"""

from __future__ import annotations

import copy
import hashlib
import random
from collections.abc import Callable
from typing import Any

from core.errors import TraderError
from core.store.db import Database

MORE = 20  # how many times as many cases the long share has
LONGEST_LINE = 1000
NUMBERS: tuple[Any, ...] = (
    *(0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**30, 10**400),
    *(0.0, -0.0, 0.5, -1e-9, 1e300, 1e-320, float("nan"), float("inf"), float("-inf")),
)
TEXTS = (
    *("", " ", "0", "-1", "1e999", "nan", "null", "true", "²", "٣", "1_000", "0x10", "é", "💥"),
    *("\x00", "\u202e", "a\nb", "';DROP TABLE signals;--", "<html>", "../..", "%00", "\ud800"),
    *("9" * 5000, "x" * 10_000, "2024-01-01", "BTC/USDT", "[" * 500),
)
SHAPES: tuple[Any, ...] = (None, True, False, [], {}, [[]], [None], {"": None}, [[1, 2], [3]])
ODD = (*NUMBERS, *TEXTS, *SHAPES)


def mutated(raw: bytes, chance: random.Random, *, other: bytes = b"") -> bytes:
    """The bytes after one to three mishaps; `other` is what may be spliced in."""
    for _ in range(chance.randint(1, 3)):
        raw = _mishap(raw, chance, other)
    return raw


def _mishap(raw: bytes, chance: random.Random, other: bytes) -> bytes:
    at = chance.randrange(len(raw) + 1)
    to = min(len(raw), at + 1 + int(chance.expovariate(1 / 40)))
    start = chance.randrange(len(other) + 1)
    flipped = bytes([(raw[at] if at < len(raw) else 0) ^ (1 << chance.randrange(8))])
    middle = (
        *(flipped + raw[at + 1 : to],) * 3,
        bytes([chance.choice((0, 255, 10, 44))]) * (to - at),
        b"",
        raw[at:to] * chance.randint(2, 50),
        chance.randbytes(to - at),
        other[start : start + (to - at)] + raw[at:to],
    )
    return raw[:at] if chance.random() < 0.1 else raw[:at] + chance.choice(middle) + raw[to:]


def bent(value: Any, chance: random.Random, *, odd: tuple[Any, ...] = ODD) -> Any:
    """A copy of a JSON value of which one to three places are odd, absent, doubled or wrapped."""
    root = [copy.deepcopy(value)]
    for _ in range(chance.randint(1, 3)):
        holder: Any = root
        place: Any = 0
        while root and isinstance(holder[place], dict | list) and holder[place]:
            if chance.random() < 0.12:
                break
            holder = holder[place]
            is_map = isinstance(holder, dict)
            place = chance.choice(list(holder)) if is_map else chance.randrange(len(holder))
        if root:
            _bend(holder, place, chance, odd)
    return root[0] if root else None


def _bend(holder: Any, place: Any, chance: random.Random, odd: tuple[Any, ...]) -> None:
    match chance.randrange(8):
        case 0:
            del holder[place]
        case 1:
            holder[place] = [holder[place]]
        case 2:
            holder[place] = {"x": holder[place]}
        case 3:
            holder[place] = str(holder[place])
        case 4 if isinstance(holder, list):
            holder.insert(place, copy.deepcopy(holder[place]))
        case _:
            holder[place] = copy.deepcopy(chance.choice(odd))


def refused(work: Callable[[], object]) -> str:
    """What is said of an input, '' where it is taken; an error that is no refusal goes through.

    The line is one line, not a book, and not another error's name alone.
    """
    try:
        work()
    except TraderError as error:
        said = str(error)
        assert said.strip()
        assert "\n" not in said
        assert len(said) <= LONGEST_LINE, f"{len(said)} characters: {said[:300]}"
        return said
    return ""


def contents(db: Database) -> dict[str, str]:
    """A digest of all rows of each table: what may not change where an input is refused."""
    names = db.rows("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    return {
        name: hashlib.sha256(
            repr(sorted(db.rows(f"SELECT * FROM {name}"), key=repr)).encode()
        ).hexdigest()
        for (name,) in names
    }
