"""The daily look at what the champion said and what came of it; how a state is set and told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from core import messages, monitoring
from core.app import App
from core.config import Config
from core.domain import Floats, Gate, Ints, Message
from core.messages import Look
from core.monitoring import NEVER_MS, Bets, EProcess, Scored
from core.notify import channels
from core.proof_state import (
    Proof,
    StateRow,
    degraded_reason,
    state_after_promotion,
)
from core.proof_time import ProofTime, proof_time, sentence
from core.splits import matures_ms
from core.store import operation
from core.store import states as store
from core.store.db import Database
from core.strict_json import plain
from core.timeframe import DAY_MS, tf_ms

_SEED = 17
_PACE_DAYS = 365  # the time to proof looks this far back: at the present pace
_Rows = Sequence[Mapping[str, Any]]


def monitor(app: App, *, now_ms: int) -> int:
    """Look at the champion's record as of an instant; returns how many trades it passed had closed.

    Stores the newest figures, and withdraws the certificate, telling so, where the evidence
    against its promise has become too strong. A repeat for the same instant changes nothing.
    """
    speaking = store.champion_at(app.db, app.strategy, now_ms=now_ms)
    if speaking is None:
        return 0
    bundle, since_ms = speaking
    rows = store.judged_rows(
        app.db,
        app.strategy,
        bundle=bundle,
        since_ms=since_ms,
        passed_since_ms=now_ms - _PACE_DAYS * DAY_MS,
        until_ms=now_ms,
    )
    own = [row for row in rows if row["ml_model"] == bundle and row["decided_ms"] > since_ms]
    bets = bets_of(_passed(own))
    found = monitoring.evidence_against(bets, until_ms=now_ms)
    figures = _figures(app.config, rows, own=own, found=found, bets=bets, now_ms=now_ms)
    figures["since_ms"] = since_ms
    with app.db.write():
        store.replace_figures(app.db, app.strategy, bundle=bundle, at_ms=now_ms, figures=figures)
        if found.rejected_ms is not None:
            _withdraw(app, bundle, found, figures, now_ms=now_ms)
    return int(figures["evidence"]["n"])


def bets_of(passed: _Rows) -> Bets:
    """Return passed candidates, in decision order, as bets against what they were promised."""
    entry, stop, tp2 = (_column(passed, name) for name in ("entry", "sl", "tp2"))
    ended = [NEVER_MS if row["ended_ms"] is None else row["ended_ms"] for row in passed]
    return Bets(
        promise_r=monitoring.promised_r(_column(passed, "ev_lo_r")),
        best_r=np.abs(tp2 - entry) / np.abs(entry - stop),
        r=_column(passed, "r"),
        decided_ms=_instants(passed, "decided_ms"),
        settled_ms=np.array(ended, np.int64),
    )


def _column(rows: _Rows, name: str) -> Floats:
    return np.array([np.nan if row[name] is None else row[name] for row in rows], np.float64)


def _instants(rows: _Rows, name: str) -> Ints:
    return np.array([row[name] for row in rows], np.int64)


def _figures(
    config: Config, rows: _Rows, *, own: _Rows, found: EProcess, bets: Bets, now_ms: int
) -> dict[str, Any]:
    """Return the figures of a look as JSON takes them: the champion's record and the pace.

    The record of the champion is its own; the pace is that of all champions of the last year.
    """
    hold_bars = config.execution.max_hold_candles
    ripe = _ripe(own, _known_ms(own, hold_bars=hold_bars), now_ms=now_ms)
    recent = _passed([row for row in rows if row["decided_ms"] > now_ms - _PACE_DAYS * DAY_MS])
    time = _pace(recent, _known_ms(recent, hold_bars=hold_bars), now_ms=now_ms)
    return dict(
        plain(
            {
                "scored": asdict(_record(ripe)),
                "passed": asdict(_record(_passed(ripe))),
                "evidence": _evidence(found, bets),
                "time_to_proof": None if time is None else asdict(time),
                "time_to_proof_sentence": sentence(time),
            }
        )
    )


def _pace(passed: _Rows, known_ms: Ints, *, now_ms: int) -> ProofTime | None:
    """The time to proof from the weeks of which every trade has matured, whatever its timeframe."""
    longest_ms = int((known_ms - _instants(passed, "decided_ms")).max()) if passed else 0
    closed = _scored(_ripe(passed, known_ms, now_ms=now_ms))
    return proof_time(
        closed.r,
        closed.decided_ms,
        closed.closed_ms,
        closed.symbol,
        until_ms=now_ms - longest_ms,
    )


def _evidence(found: EProcess, bets: Bets) -> dict[str, Any]:
    """The bets so far: `n` trades that closed, what they earned and were to earn at least."""
    known = np.isfinite(bets.r)
    return {
        "e": found.last,
        "e_peak": found.peak,
        "alpha": monitoring.ALPHA,
        "rejected_ms": found.rejected_ms,
        "n": int(known.sum()),
        "mean_r": float(bets.r[known].mean()) if known.any() else None,
        "promise_r": float(bets.promise_r[known].mean()) if known.any() else None,
    }


def _passed(rows: _Rows) -> _Rows:
    return [row for row in rows if row["gate"] == Gate.PASS]


def _known_ms(rows: _Rows, *, hold_bars: int) -> Ints:
    hold_ms = np.array([hold_bars * tf_ms(row["timeframe"]) for row in rows], np.int64)
    return matures_ms(_instants(rows, "valid_until_ms"), hold_ms)


def _ripe(rows: _Rows, known_ms: Ints, *, now_ms: int) -> _Rows:
    """The closed trades among those whose end is known whatever it was: no more stops than due."""
    ripe = zip(rows, (known_ms < now_ms).tolist(), strict=True)
    return [row for row, is_ripe in ripe if is_ripe and row["r"] is not None]


def _record(rows: _Rows) -> monitoring.Record:
    return monitoring.record_of(_scored(rows), np.random.default_rng(_SEED))


def _scored(rows: _Rows) -> Scored:
    codes = np.unique(np.array([row["symbol"] for row in rows], str), return_inverse=True)[1]
    return Scored(
        p=_column(rows, "ml_p"),
        p_mart=_column(rows, "p_mart"),
        ev_r=_column(rows, "ev_r"),
        ev_lo_r=_column(rows, "ev_lo_r"),
        r=_column(rows, "r"),
        decided_ms=_instants(rows, "decided_ms"),
        closed_ms=_instants(rows, "ended_ms"),
        symbol=codes.astype(np.int64),
    )


def _withdraw(
    app: App, bundle: str, found: EProcess, figures: Mapping[str, Any], *, now_ms: int
) -> None:
    """Set DEGRADED where the certificate that is refuted is still in force."""
    state = store.current_state(app.db, app.strategy)
    if state is None or state.state is not Proof.CERTIFIED or state.bundle != bundle:
        return
    evidence = figures["evidence"]
    reason = degraded_reason(
        e_peak=found.peak,
        alpha=monitoring.ALPHA,
        n=evidence["n"],
        r=evidence["mean_r"],
        promise_r=evidence["promise_r"],
    )
    row = StateRow(at_ms=now_ms, bundle=bundle, state=Proof.DEGRADED, reason=reason)
    set_state(app.db, app.config, app.strategy, row, figures=figures)


def set_promoted_state(
    db: Database,
    config: Config,
    strategy: str,
    *,
    bundle: str,
    thresholds: Mapping[str, Any],
    window_days: int,
    now_ms: int,
) -> bool:
    """Set the state that a bundle's own certificates give it as it begins to speak."""
    state, reason = state_after_promotion(
        thresholds,
        window_days=window_days,
        bundle=bundle,
        history=store.states_of(db, strategy),
    )
    row = StateRow(at_ms=now_ms, bundle=bundle, state=state, reason=reason)
    return set_state(db, config, strategy, row)


def set_state(
    db: Database,
    config: Config,
    strategy: str,
    row: StateRow,
    *,
    figures: Mapping[str, Any] | None = None,
) -> bool:
    """Append a state and queue the news of it, in one transaction (the caller's, if one is open).

    Nothing happens where the same bundle is in that state already; another bundle in the same
    state is stored and not told. Returns whether a row was added.
    """
    with db.write():
        last = store.current_state(db, strategy)
        if last is not None and (last.bundle, last.state) == (row.bundle, row.state):
            return False
        store.insert_state(db, strategy, row, figures=figures)
        if last is None or last.state is not row.state:
            message = Message(
                dedupe_key=f"state:{strategy}:{row.bundle}:{row.at_ms}:{row.state}",
                kind="state",
                text=messages.state_changed(
                    row.state,
                    Look(
                        zone=ZoneInfo(config.app.timezone),
                        banner=operation.label_of(db, "banner"),
                    ),
                    reason=row.reason,
                    at_ms=row.at_ms,
                    bundle=row.bundle,
                    before="" if last is None else last.state,
                ),
            )
            operation.queue_messages(db, [message], channels=channels(config), created_ms=row.at_ms)
    return True
