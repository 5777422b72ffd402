"""What the guards read of the past is enough: the same answers as from everything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from core.app import App
from core.config import Guards
from core.delivery import Decision
from core.domain import Status
from core.jobs.guards import guard_pass, past_decisions
from core.store.signals import insert_signals, record_strategy
from core.timeframe import DAY_MS, HOUR_MS
from tests.engine_world import opened, write_config
from tests.test_delivery import T0, TIGHT
from tests.test_delivery_laws import MODES, world


def row_of(decision: Decision, template: dict[str, Any]) -> dict[str, Any]:
    """The stored row of a decision; what is not over yet is open."""
    names = ("exchange", "symbol", "timeframe", "setup", "direction", "p0_ms", "p1_ms")
    over = Status.SL if decision.stopped else Status.TP if decision.r_multiple else Status.EXPIRED
    status = Status.OPEN if decision.closed_ts_ms is None else over
    columns = ("decided_ms", "ev_pct", "ev_lo_pct", "cost_r", "closed_ts_ms", "r_multiple")
    return {
        **template,
        **dict(zip(names, decision.identity, strict=True)),
        **{name: getattr(decision, name) for name in columns},
        "gate": decision.gate.value,
        "evidence": decision.evidence.value,
        "delivery": None if decision.delivery is None else decision.delivery.value,
        "delivery_reason": decision.delivery_reason,
        "status": status.value,
    }


def engine(folder: Path, guards: Guards, send: str) -> App:
    """An engine with these guards and a channel."""
    notify = {"telegram": {"send": send}, "paper_per_day": 3}
    return opened(write_config(folder, guards=guards.model_dump(mode="json"), notify=notify))


def plain_row(strategy: str) -> dict[str, Any]:
    """The columns that no guard reads."""
    zeros = ("ts_ms", "actionable_ms", "valid_until_ms", "entry", "sl", "tp1", "tp2", "atr")
    more = ("leverage", "risk_pct", "position_notional", "liquidation", "p_mart")
    words = {"origin": "live", "rationale": "", "regime": "", "gate_reason": "", "exec_state": ""}
    return {
        **dict.fromkeys((*zeros, *more), 0),
        **words,
        "strategy_id": strategy,
        "scan_stride": 1,
        "base_timeframe": "1m",
    }


@given(
    seed=st.integers(0, 10_000),
    send=MODES,
    day=st.integers(32, 100),
    cooldown=st.sampled_from([90, 90, 60 * 24 * 50]),
    streak=st.sampled_from([0, 2, 5]),
    step_ms=st.sampled_from([HOUR_MS, 8 * HOUR_MS]),
)
@settings(max_examples=100, deadline=None)
def test_the_past_that_is_read_is_enough(
    tmp_path_factory: Any, seed: int, send: str, day: int, cooldown: int, streak: int, step_ms: int
) -> None:
    """Decided from the database a day's rows come out as in one pass over all there ever was."""
    guards = TIGHT.model_copy(
        update={
            "cooldown_minutes": cooldown,
            "max_consecutive_stops": streak,
            "stop_pause_hours": 900 if cooldown == 90 else 1,
            "max_open": 20,
            "max_open_per_side": 14,
            "max_drawdown_r": 2.0,
        }
    )
    rows = [
        row
        if i % 12 or step_ms == HOUR_MS
        else replace(row, closed_ts_ms=None, r_multiple=None, stopped=False)
        for i, row in enumerate(
            world(seed, n=400 if step_ms > HOUR_MS else 260, days=110, step_ms=step_ms)
        )
    ]
    rows.sort(key=lambda row: row.order)
    app = engine(tmp_path_factory.mktemp("guards"), guards, send)
    answers = guard_pass(app.config).go_on(rows)
    first_ms = next(row.decided_ms for row in rows if row.decided_ms >= T0 + day * DAY_MS)
    end_ms = first_ms + 5 * DAY_MS
    old = [
        replace(row, delivery=how, delivery_reason=why)
        for row, (how, why) in zip(rows, answers, strict=True)
        if row.decided_ms < first_ms
    ]
    template = plain_row(record_strategy(app.db, app.config, now_ms=T0))
    stored = [row_of(decision, template) for decision in old]
    insert_signals(app.db, stored, [np.zeros(1)] * len(stored), version=1)
    new = [row for row in rows if first_ms <= row.decided_ms < end_ms]
    past = past_decisions(app, first_ms=first_ms, end_ms=first_ms)
    assert len(past) < len(old) or cooldown > 90 or day < 60
    again = guard_pass(app.config).go_on([*past, *new])[len(past) :]
    expected = [a for row, a in zip(rows, answers, strict=True) if row in new]
    assert again == expected
    app.close()
