"""The day in one message: the sign of life, what was found, what came of it, what was missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from core.domain import Delivery, Gate
from core.messages.phone import (
    Look,
    Row,
    clean,
    escaped,
    in_r,
    message,
    side_of,
    span,
    when,
    wrapped,
)
from core.messages.record import Record, record_lines, streak_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How things stand: the state with its reason, how old the data are, what is open.

    `state` is CERTIFIED, UNCERTIFIED, DEGRADED or UNGATED. `data_age_ms` is that of the series
    furthest behind, None without candles. `paused_ms` is since when no signals are told.
    """

    state: str
    reason: str
    data_age_ms: int | None
    n_pending: int
    n_open: int
    paused_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """What a digest tells of [start_ms, end_ms).

    `found` were decided in it, `ended` are delivered trades that closed in it; `records` are the
    running ones of what was told.
    """

    start_ms: int
    end_ms: int
    found: Sequence[Row]
    ended: Sequence[Row]
    records: Sequence[Record] = ()


def standing_lines(standing: Standing, look: Look) -> list[str]:
    """Return how things stand."""
    age = standing.data_age_ms
    data = "Data: no candles yet" if age is None else f"Data {span(max(0, age))} old"
    lines = [
        f"<b>{escaped(standing.state, 14)}</b>",
        *wrapped(clean(standing.reason, 240)),
        data,
        f"Open {standing.n_open}, waiting for entry {standing.n_pending}",
    ]
    if standing.paused_ms is not None:
        lines += ["<b>PAUSED</b> since", when(standing.paused_ms, look.zone), "/resume ends it"]
    return lines


def digest(day: Day, look: Look, *, standing: Standing | None = None, n_best: int = 3) -> str:
    """Return the day's digest."""
    n = Counter(str(row["delivery"]) for row in day.found)
    passed = [row for row in day.found if row["gate"] == Gate.PASS]
    lines = ["<b>DIGEST</b>", when(day.start_ms, look.zone), f"to {when(day.end_ms, look.zone)}"]
    lines += ["", *standing_lines(standing, look)] if standing else []
    lines += [
        "",
        f"Found {len(day.found)}, passed the gate {len(passed)}",
        f"Live {n[Delivery.LIVE]}, paper {n[Delivery.PAPER]}",
    ]
    if not n[Delivery.LIVE] + n[Delivery.PAPER]:
        lines += ["", "Nothing qualified.", *_reasons(day.found)]
    lines += ["", *_ended(day.ended)] if day.ended else []
    rest = [row for row in passed if row["delivery"] in (Delivery.DIGEST, Delivery.NONE)]
    if rest:
        lines += ["", f"Best of the {len(rest)} not sent:"]
        lines += [line for row in sorted(rest, key=_rank)[:n_best] for line in _missed(row)]
    for record in day.records:
        lines += ["", *record_lines(record), *streak_lines(record)]
    return message(lines, look)


def _ended(rows: Sequence[Row]) -> list[str]:
    lines = []
    for kind in (Delivery.LIVE, Delivery.PAPER):
        results = [r["r_multiple"] for r in rows if r["delivery"] == kind]
        results = [r for r in results if r is not None]
        if results:
            n_won = sum(r > 0 for r in results)
            lines.append(
                f"Closed {kind.lower()} {len(results)}: won {n_won}, net {in_r(sum(results))}"
            )
    return lines


def _reasons(rows: Sequence[Row]) -> list[str]:
    counts = Counter(
        str(row["delivery_reason"] if row["gate"] == Gate.PASS else row["gate_reason"])
        for row in rows
    )
    return [f"{escaped(reason.replace('_', ' '), 28)}: {n}" for reason, n in counts.most_common(5)]


def _rank(row: Row) -> tuple[bool, float]:
    low = row["ev_lo_pct"]
    return (low is None, row["cost_r"] if low is None else -low)


def _missed(row: Row) -> list[str]:
    low = row["ev_lo_pct"]
    worth = f"cost {row['cost_r']:.3f} R" if low is None else f"EV low end {low:+.2f} %"
    reason = escaped(str(row["delivery_reason"]).replace("_", " "), 16)
    result = row.get("r_multiple")
    lines = [
        f"#S{int(row['id'])} {escaped(row['symbol'], 18)} "
        f"{escaped(row['timeframe'], 4)} {side_of(row).direction}",
        f"  {worth}, {reason}",
    ]
    return lines if result is None else [*lines, f"  ended {in_r(result)}"]
