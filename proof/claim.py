"""The nouns: a claim, and where its figure is read from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """Tests of the long suite, by file and function; every case of each must pass.

    The figure is what they recorded with `record_property`, else how many passed.
    """

    ids: Sequence[str]


def tests(*ids: str) -> Cases:
    """Return the tests of some files, by their ids without the folder."""
    return Cases(ids=[f"tests/{name}" for name in ids])


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A cell of a table of `python -m benchmarks`: nothing is asserted.

    The table is the first of `name` whose title holds `title`, the row the first that holds `row`
    in its first column. `at_most` is what the figure must not exceed, in its own unit.
    """

    name: str
    title: str = ""
    row: str = ""
    column: str
    at_most: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Figures of another run (`runs.COMMANDS`), by their places in its JSON.

    A place is names joined by `/`; `name=value` chooses the row of a list. A figure of three
    numbers is a value with its interval. Nothing is asserted.
    """

    run: str
    places: Sequence[str]
    digits: int = 2
    scale: float = 1.0


Evidence = Cases | Bench | Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What is said, and what shows it.

    `readme` is a passage of README.md, word for word but for line breaks, that says so. Where it
    holds the figure, `quotes` is that part of it: its numbers must be those of docs/proof.md.
    """

    says: str
    by: Evidence
    readme: str = ""
    quotes: str = ""

    def __post_init__(self) -> None:
        """Refuse a quotation that the passage does not hold."""
        if self.quotes not in self.readme:
            raise ValueError(f"{self.quotes!r} is not in {self.readme!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Claims that belong together."""

    title: str
    claims: Sequence[Claim]
