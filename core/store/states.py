"""Who speaks and how far that is proven: states, the record they rest on, its newest figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from core.domain import CLOSED, FOLLOWED, Gate
from core.proof_state import Proof, StateRow
from core.store.db import Database

_COLUMNS = "SELECT at_ms, bundle, state, reason FROM states WHERE strategy_id = ?"


def insert_state(
    db: Database, strategy: str, row: StateRow, *, figures: Mapping[str, Any] | None = None
) -> None:
    """Append a state; it holds for decisions after its instant."""
    db.run(
        "INSERT INTO states (at_ms, strategy_id, bundle, state, reason, figures)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (row.at_ms, strategy, row.bundle, row.state, row.reason, _json(figures or {})),
    )


def states_of(db: Database, strategy: str) -> list[StateRow]:
    """Return every state a strategy was in, oldest first."""
    return [_row(row) for row in db.rows(f"{_COLUMNS} ORDER BY id", (strategy,))]


def current_state(db: Database, strategy: str) -> StateRow | None:
    """Return the newest state of a strategy, or None before the first."""
    found = db.rows(f"{_COLUMNS} ORDER BY id DESC LIMIT 1", (strategy,))
    return _row(found[0]) if found else None


def _row(row: tuple[Any, ...]) -> StateRow:
    at_ms, bundle, state, reason = row
    return StateRow(at_ms=int(at_ms), bundle=str(bundle), state=Proof(state), reason=str(reason))


def champion_at(db: Database, strategy: str, *, now_ms: int) -> tuple[str, int] | None:
    """Return the bundle that speaks at an instant and since when, or None.

    Promoted twice in a row it speaks since the first; after another spoke, since it came back.
    """
    found = db.rows(
        "SELECT bundle, at_ms FROM promotions WHERE strategy_id = ? AND at_ms < ? ORDER BY id",
        (strategy, now_ms),
    )
    if not found:
        return None
    bundle, since_ms = found[-1]
    for name, at_ms in reversed(found):
        if name != bundle:
            break
        since_ms = at_ms
    return str(bundle), int(since_ms)


def judged_rows(
    db: Database,
    strategy: str,
    *,
    bundle: str,
    since_ms: int,
    passed_since_ms: int,
    until_ms: int,
) -> list[dict[str, Any]]:
    """Return the fully scanned candidates whose score was said at their decision.

    All that `bundle` scored after `since_ms`, and what any bundle passed after `passed_since_ms`;
    decided before `until_ms`, with what was known by then: later ends are blank. Their order does
    not depend on when they were stored.
    """
    known = ", ".join(f"'{status}'" for status in CLOSED)
    waiting = ", ".join(f"'{status}'" for status in FOLLOWED)
    ended = f"status NOT IN ({waiting}) AND closed_ts_ms <= :until"
    return db.dicts(
        "SELECT symbol, timeframe, entry, sl, tp2, p_mart, ml_p, ev_r, ev_lo_r, ml_model, gate,"
        " decided_ms, valid_until_ms,"
        f" CASE WHEN {ended} THEN closed_ts_ms END AS ended_ms,"
        f" CASE WHEN {ended} AND status IN ({known}) THEN r_multiple END AS r"
        " FROM signals WHERE strategy_id = :strategy AND scan_stride = 1 AND ml_p IS NOT NULL"
        " AND decided_ms > min(:since, :passed_since) AND decided_ms < :until"
        " AND (ml_model = :bundle AND decided_ms > :since"
        f" OR gate = '{Gate.PASS}' AND decided_ms > :passed_since)"
        " ORDER BY decided_ms, exchange, symbol, timeframe, setup, direction, p0_ms, p1_ms",
        {
            "strategy": strategy,
            "bundle": bundle,
            "since": since_ms,
            "passed_since": passed_since_ms,
            "until": until_ms,
        },
    )


def replace_figures(
    db: Database, strategy: str, *, bundle: str, at_ms: int, figures: Mapping[str, Any]
) -> None:
    """Store the newest figures of a strategy's champion in place of the last ones."""
    db.run(
        "INSERT OR REPLACE INTO monitor_figures VALUES (?, ?, ?, ?)",
        (strategy, bundle, at_ms, _json(figures)),
    )


def newest_figures(db: Database, strategy: str) -> dict[str, Any] | None:
    """Return `bundle`, `at_ms` and `figures` of the last look at the champion, or None."""
    found = db.dicts(
        "SELECT bundle, at_ms, figures FROM monitor_figures WHERE strategy_id = ?", (strategy,)
    )
    return {**found[0], "figures": json.loads(found[0]["figures"])} if found else None


def _json(figures: Mapping[str, Any]) -> str:
    return json.dumps(figures, sort_keys=True, allow_nan=False)
