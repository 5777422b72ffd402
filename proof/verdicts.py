"""From the stored outputs to a claim's figure and its verdict."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proof.claim import Bench, Cases, Claim, Evidence, Figures
from proof.runs import BENCH, COMMANDS, Shelf

NOT_RUN, FAILED = "not run", "FAILED"
NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?|[-+]?\.\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the page."""

    says: str
    command: str
    figure: str
    verdict: str


def row_of(claim: Claim, shelf: Shelf) -> Row:
    """Return what the stored outputs say of a claim."""
    figure, verdict = _found(claim.by, shelf)
    return Row(says=claim.says, command=command_of(claim.by), figure=figure, verdict=verdict)


def command_of(by: Evidence) -> str:
    """Return what shows a claim alone, as people would type it."""
    if isinstance(by, Cases):
        return "pytest " + " ".join(by.ids)
    return f"python -m benchmarks {by.name}" if isinstance(by, Bench) else COMMANDS[by.run]


def _found(by: Evidence, shelf: Shelf) -> tuple[str, str]:
    if isinstance(by, Cases):
        return of_tests(by, shelf.tests())
    run = BENCH + by.name if isinstance(by, Bench) else by.run
    output = shelf.output(run)
    if output is None:
        noted = shelf.log().get(run, {})
        if noted.get("code"):
            return "", f"{FAILED}: code {noted['code']}"
        return "", ": ".join(filter(None, (NOT_RUN, noted.get("reason", ""))))
    if isinstance(by, Bench):
        return _of_bench(by, output[by.name]["tables"])
    return of_places(by, output), "measured"


def of_tests(by: Cases, ended: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """Return what some tests recorded, and whether each of them passed.

    Every case counts; one that failed, was skipped or did not run decides the verdict.
    """
    figures, n_passed, amiss = list[str](), 0, dict[str, str]()
    for name in by.ids:
        cases = [row for key, row in ended.items() if key.partition("[")[0] == name]
        if not cases:
            amiss.setdefault(NOT_RUN, "")
        for row in cases:
            n_passed += row["outcome"] == "passed"
            if row["outcome"] == "failed":
                amiss[FAILED] = row["reason"]
            elif row["outcome"] == "skipped":
                amiss["skipped"] = row["reason"]
            figures += [f"{what} {value}" for what, value in row["figures"].items()]
    told = "; ".join(figures) if figures else f"{n_passed} passed" if n_passed else ""
    if NOT_RUN in amiss and n_passed:
        amiss[NOT_RUN] = "some of them"
    for verdict in (FAILED, "skipped", NOT_RUN):
        if verdict in amiss:
            return told, ": ".join(filter(None, (verdict, amiss[verdict])))
    return told, "passed"


def _of_bench(by: Bench, tables: list[dict[str, Any]]) -> tuple[str, str]:
    for table in tables:
        if by.title in table["title"]:
            for row in table["rows"]:
                if by.row in str(next(iter(row.values()))) and by.column in row:
                    figure = str(row[by.column])
                    return figure, _reached(figure, by.at_most)
    return "", f"{NOT_RUN}: this machine cannot measure it"


def _reached(figure: str, at_most: float | None) -> str:
    if at_most is None:
        return "measured"
    found = numbers(figure)
    holds = bool(found) and float(found[0]) <= at_most
    return f"{'reached' if holds else 'MISSED'} (must: {at_most:g})"


def of_places(by: Figures, output: Any) -> str:
    """Return the figures of some places as text."""
    return ", ".join(_text(_at(output, place), by) for place in by.places)


def _at(output: Any, place: str) -> Any:
    """Return what stands at a place; a number whose ends stand beside it, with them."""
    holder: Any = None
    for step in place.split("/"):
        holder = output
        if isinstance(output, list):
            name, _, wanted = step.partition("=")
            output = next(row for row in output if str(row[name]) == wanted)
        else:
            output = output[step]
    last = place.rpartition("/")[2]
    if isinstance(holder, dict) and f"{last}_lo" in holder:
        return [output, holder[f"{last}_lo"], holder[f"{last}_hi"]]
    return output


def _text(value: Any, by: Figures) -> str:
    if isinstance(value, list):
        middle, low, high = (_number(x, by) for x in value)
        return f"{middle} [{low}, {high}]"
    if isinstance(value, float):
        return _number(value, by)
    return f"{value:,}" if type(value) is int else str(value)


def _number(value: float | None, by: Figures) -> str:
    return "-" if value is None else f"{value * by.scale:.{by.digits}f}"


def numbers(text: str) -> list[str]:
    """Return the numbers of a text, without separators of thousands and signs of plus."""
    found = (match.group().replace(",", "") for match in NUMBER.finditer(text))
    return [number.removeprefix("+") for number in found]


def is_among(number: str, figures: list[str]) -> bool:
    """Say whether a quoted number is one of the figures, rounded as it is quoted."""
    digits = len(number.partition(".")[2])
    return any(round(float(figure), digits) == float(number) for figure in figures)
