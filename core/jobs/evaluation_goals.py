"""Honest goals for a setup model on pairs or times it never saw, beside what came.

From an independent study of four crypto pairs, 2020 to 2024: what must hold for the program to be
right, what would be ambitious, and what that study's three models reached.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.jobs.evaluation_figures import HEADLINE
from core.selection import Estimate

Figures = Mapping[str, Any]
HEADLINES = ("all", "same", "unseen")


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One figure: what must hold, what is ambitious, what the study saw; `of` says the figure."""

    name: str
    must: str
    ambitious: str
    study: str
    of: Callable[[Figures], str]
    is_right: Callable[[Figures], bool | None]
    is_reached: Callable[[Figures], bool | None]


def _lift(figures: Figures, name: str) -> Estimate:
    return Estimate(*_numbers(figures["lift_30"]["model"][name]))


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _slope(figures: Figures) -> Estimate:
    return Estimate(*_numbers(figures["calibration_slope"]))


def _skill(figures: Figures) -> Estimate:
    return Estimate(*_numbers(figures["brier_skill_mart"]))


def _best_tenth(figures: Figures) -> Estimate:
    return Estimate(*_numbers(figures["coverage"][0]["net_r"]))


def _gate_honesty(figures: Figures) -> Estimate:
    return Estimate(*_numbers(figures["gate"]["promised_less_realised_r"]))


def _honesty(figures: Figures) -> Estimate:
    rows = figures["coverage"]
    row = next(row for row in rows if row["coverage"] == HEADLINE)
    return Estimate(*_numbers(row["promised_less_realised_r"]))


def _kept(found: Estimate) -> bool | None:
    if not found.standard_error > 0:
        return None
    return abs(found.value) <= 2 * found.standard_error


GOALS = (
    Goal(
        name="calibration slope",
        must="0.7 to 1.3",
        ambitious="0.8 to 1.2",
        study="0.76 to 1.05",
        of=lambda f: _slope(f).text(digits=2),
        is_right=lambda f: 0.7 <= _slope(f).value <= 1.3,
        is_reached=lambda f: 0.8 <= _slope(f).value <= 1.2,
    ),
    Goal(
        name="Brier skill over the coin flip",
        must="at least -0.003",
        ambitious="at least 0",
        study="-0.0033 to +0.0028",
        of=lambda f: _skill(f).text(digits=4),
        is_right=lambda f: _skill(f).value >= -0.003,
        is_reached=lambda f: _skill(f).value >= 0,
    ),
    Goal(
        name="win-rate lift of the best 30 %, points",
        must="low end above 0",
        ambitious="+4",
        study="+2.8 to +7.2",
        of=lambda f: _lift(f, "win_rate").text(scale=100, digits=1),
        is_right=lambda f: _lift(f, "win_rate").low > 0,
        is_reached=lambda f: _lift(f, "win_rate").value >= 0.04,
    ),
    Goal(
        name="lift of win-rate less coin flip, best 30 %, points",
        must="low end above -2",
        ambitious="+1",
        study="-0.3 to +2.0",
        of=lambda f: _lift(f, "over_mart").text(scale=100, digits=1),
        is_right=lambda f: _lift(f, "over_mart").low > -0.02,
        is_reached=lambda f: _lift(f, "over_mart").value >= 0.01,
    ),
    Goal(
        name="net R lift of the best 30 %",
        must="above 0",
        ambitious="+0.03, low end above 0",
        study="+0.030 to +0.096",
        of=lambda f: _lift(f, "net_r").text(),
        is_right=lambda f: _lift(f, "net_r").value > 0,
        is_reached=lambda f: _lift(f, "net_r").value >= 0.03 and _lift(f, "net_r").low > 0,
    ),
    Goal(
        name="net R of the best 10 %",
        must="shown with its interval",
        ambitious="at least 0",
        study="-0.055 to -0.016",
        of=lambda f: _best_tenth(f).text(),
        is_right=lambda _: True,
        is_reached=lambda f: _best_tenth(f).value >= 0,
    ),
    Goal(
        name="promised less realised R of what the gate passed",
        must="shown",
        ambitious="within 2 standard errors of 0",
        study="+0.02 to +0.17",
        of=lambda f: _gate_honesty(f).text() if f["gate"]["n"] else "it passed none",
        is_right=lambda _: True,
        is_reached=lambda f: _kept(_gate_honesty(f)),
    ),
    Goal(
        name="promised less realised R of the best 30 %",
        must="shown",
        ambitious="within 2 standard errors of 0",
        study="-",
        of=lambda f: _honesty(f).text(),
        is_right=lambda _: True,
        is_reached=lambda f: _kept(_honesty(f)),
    ),
)


def goal_rows(figures: Mapping[str, Figures]) -> list[dict[str, Any]]:
    """Return a row per goal and sample: the figure, and whether it is right and reached.

    `figures` are of one way of judging, by sample. None: the figure does not exist.
    """
    return [
        _row(goal, name, figures[name])
        for goal in GOALS
        for name in HEADLINES
        if figures.get(name, {}).get("n")
    ]


def _row(goal: Goal, name: str, figures: Figures) -> dict[str, Any]:
    figure = goal.of(figures)
    exists = figure != "-"
    return {
        "goal": goal.name,
        "sample": name,
        "figure": figure,
        "must": goal.must,
        "holds": goal.is_right(figures) if exists else None,
        "ambitious": goal.ambitious,
        "reached": goal.is_reached(figures) if exists else None,
        "study": goal.study,
    }


def certificate_row(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the goal of abstaining: at least 90 % of the report's months, as the study saw."""
    n_abstained = sum(not one["certified"] for one in found)
    return {
        "goal": "months at whose start no limit was certified",
        "sample": "same",
        "figure": f"{n_abstained} of {len(found)}",
        "must": "shown",
        "holds": True,
        "ambitious": "at least 90 % where the time after loses",
        "reached": n_abstained >= 0.9 * len(found) if found else None,
        "study": "11 of 12",
    }
