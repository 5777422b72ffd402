"""The guards' view of the database: stored and new decisions, and the pass under the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.app import App
from core.config import Config
from core.delivery import WINDOW_MS, Decision, Pass, Pause
from core.domain import Candidate, Delivery, Evidence, Gate, Side, Status, Verdict
from core.notify import channels
from core.store import signals as signal_store
from core.timeframe import MINUTE_MS


def run_guards(
    config: Config,
    decisions: Sequence[Decision],
    *,
    muted: bool = False,
    pauses: Sequence[Pause] = (),
) -> list[tuple[Delivery, str]]:
    """Return how each decision is delivered, under the settings."""
    return guard_pass(config, muted=muted, pauses=pauses).go_on(decisions)


def guard_pass(config: Config, *, muted: bool = False, pauses: Sequence[Pause] = ()) -> Pass:
    """Return the pass of the guards under the settings, before its first decision."""
    return Pass(
        guards=config.guards,
        send=config.notify.telegram.send,
        paper_per_day=config.notify.paper_per_day,
        muted=muted or not channels(config),
        pauses=pauses,
    )


def decision_of(
    candidate: Candidate,
    verdict: Verdict,
    *,
    late: bool = False,
    fate: Mapping[str, Any] | None = None,
) -> Decision:
    """Return what the guards need to know of a new candidate; `fate`: what became of it."""
    fate = fate or {}
    return Decision(
        identity=(
            *candidate.series,
            candidate.setup.value,
            candidate.plan.side.direction,
            candidate.p0_ms,
            candidate.p1_ms,
        ),
        symbol=candidate.series.symbol,
        side=candidate.plan.side,
        decided_ms=candidate.decided_ms,
        gate=verdict.gate,
        evidence=verdict.evidence,
        ev_pct=verdict.score.ev_pct if verdict.score else None,
        ev_lo_pct=verdict.score.ev_lo_pct if verdict.score else None,
        cost_r=candidate.plan.cost_r,
        late=late,
        opened_ts_ms=fate.get("opened_ts_ms"),
        closed_ts_ms=fate.get("closed_ts_ms"),
        r_multiple=fate.get("r_multiple"),
        stopped=fate.get("status") == Status.SL.value,
    )


def past_decisions(app: App, *, first_ms: int, end_ms: int) -> list[Decision]:
    """Return what the guards need of the past to decide rows from `first_ms` to before `end_ms`.

    Stored decisions of the present strategy, as `delivery.deliver` asks for them.
    """
    stored = stored_decisions(app, start_ms=first_ms - WINDOW_MS, end_ms=end_ms)
    return told_before_window(app, first_ms=first_ms) + stored


def told_before_window(app: App, *, first_ms: int) -> list[Decision]:
    """Return the decisions older than `WINDOW_MS` that rows from `first_ms` on still feel."""
    guards = app.config.guards
    rows = signal_store.told_and_felt(
        app.db,
        strategy=app.strategy,
        before_ms=first_ms - WINDOW_MS,
        quiet_from_ms=first_ms - guards.cooldown_minutes * MINUTE_MS,
        # Of one instant and side only one row is told: two more settle any tie.
        n_closings=guards.max_consecutive_stops + 2,
    )
    return [decision_of_row(row) for row in rows]


def stored_decisions(app: App, *, start_ms: int, end_ms: int) -> list[Decision]:
    """Return the decisions stored in [start, end), with their delivery and exit."""
    rows = signal_store.decisions_between(
        app.db, strategy=app.strategy, start_ms=start_ms, end_ms=end_ms
    )
    return [decision_of_row(row) for row in rows]


def decision_of_row(row: dict[str, Any]) -> Decision:
    """Return a stored decision as the guards see it."""
    return Decision(
        identity=tuple(row[name] for name in signal_store.IDENTITY[:-1]),
        symbol=row["symbol"],
        side=Side.of(row["direction"]),
        decided_ms=row["decided_ms"],
        gate=Gate(row["gate"]),
        evidence=Evidence(row["evidence"]),
        ev_pct=row["ev_pct"],
        ev_lo_pct=row["ev_lo_pct"],
        cost_r=row["cost_r"],
        delivery=Delivery(row["delivery"]),
        delivery_reason=row["delivery_reason"],
        opened_ts_ms=row["opened_ts_ms"],
        closed_ts_ms=row["closed_ts_ms"],
        r_multiple=row["r_multiple"],
        stopped=row["status"] == Status.SL.value,
    )
