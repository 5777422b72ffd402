"""The week in one message: the record, the promise, the filter, model and data, the proof."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from core.messages.digest import Standing, standing_lines
from core.messages.phone import Look, clean, day, in_r, message, r_range, span, wrapped
from core.messages.record import Record, promise_lines, record_lines
from core.performance import Lift


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How model and data are: ages in ms, NaN and None where there is nothing to say.

    `brier` is that of the model's out-of-fold probabilities, `brier_mart` the coin flip's.
    `n_missing` minutes are missing of the week, `n_revised` of its candidates stand on candles
    that were changed later.
    """

    model: str | None
    model_age_ms: int | None
    brier: float
    brier_mart: float
    n_missing: int
    n_revised: int
    n_errors: int
    verified: str
    verified_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Week:
    """What a weekly summary says: by closing, of the week and of the twelve months before its end.

    Records of what was told LIVE and PAPER, and of every candidate followed. `lift` is what the
    filter's passed candidates brought over its rejected ones in the twelve months.
    """

    start_ms: int
    end_ms: int
    standing: Standing
    week: Sequence[Record]
    year: Sequence[Record]
    lift: Lift | None
    health: Health


def weekly_summary(week: Week, look: Look, *, report: str = "") -> str:
    """Return the week for a phone; `report` names the page with the rest."""
    lines = [
        "<b>WEEKLY SUMMARY</b>",
        f"{day(week.start_ms, look.zone)} to {day(week.end_ms, look.zone)}",
        "",
        *standing_lines(week.standing, look),
    ]
    for title, records in (("This week", week.week), ("12 months", week.year)):
        lines += ["", f"<b>{title}</b>"]
        for record in records:
            lines += record_lines(record)
    lines += ["", "<b>Promise</b>", *_promises(week.year)]
    lines += ["", "<b>Filter</b>", *lift_lines(week.lift)]
    lines += ["", "<b>Health</b>", *health_lines(week.health, look)]
    if report:
        lines += ["", *wrapped(f"Page: {report}")]
    return message(lines, look)


def _promises(year: Sequence[Record]) -> list[str]:
    found = [(record.title, promise_lines(record)) for record in year]
    said = [line for title, lines in found if lines for line in (title, *lines)]
    return said or ["nothing was promised: no scored trade"]


def lift_lines(lift: Lift | None) -> list[str]:
    """Return whether what passes the gate does better than what does not."""
    if lift is None or not lift.n_passed or not lift.n_rejected:
        return ["no passed and rejected trades yet"]
    if not math.isfinite(lift.lift_r_lo):
        verdict = "too few weeks to judge"
    elif lift.lift_r_lo > 0:
        verdict = "it earns its keep"
    elif lift.lift_r_hi < 0:
        verdict = "it chooses the WORSE ones"
    else:
        verdict = "no difference is shown"
    return [
        f"passed {lift.n_passed}, rejected {lift.n_rejected}",
        f"lift {in_r(lift.lift_r)}{r_range(lift.lift_r_lo, lift.lift_r_hi)}",
        verdict,
    ]


def health_lines(health: Health, look: Look) -> list[str]:
    """Return how model and data are, and the last proof that live equals retro."""
    lines = ["no model yet"]
    if health.model is not None:
        age = "" if health.model_age_ms is None else f", {span(health.model_age_ms)} old"
        lines = wrapped(f"model {clean(health.model, 40)}{age}")
        if math.isfinite(health.brier):
            lines.append(f"Brier {health.brier:.4f}, coin flip {health.brier_mart:.4f}")
    lines += [
        f"missing minutes {health.n_missing}",
        f"candidates on revised candles {health.n_revised}",
        f"failed runs {health.n_errors}",
    ]
    if health.verified_ms is None:
        return [*lines, *wrapped("live = retro: not checked yet (maintenance.py verify)")]
    return [
        *lines,
        *wrapped(clean(health.verified, 160)),
        f"checked {day(health.verified_ms, look.zone)}",
    ]
