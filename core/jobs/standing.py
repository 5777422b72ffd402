"""How things stand, for messages: the proof, the age of the data, what is open, the price now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from core.app import App
from core.domain import Series
from core.messages import PriceNow, Standing
from core.store import candles as store
from core.store import operation, states
from core.store.db import Database
from core.timeframe import tf_ms

VERIFIED = "verified"  # the label of the last proof that live equals retro, as JSON


def standing(app: App, *, now_ms: int) -> Standing:
    """Return how things stand at an instant of market time."""
    state, reason = proof(app.db, app.strategy)
    told = "delivery IN ('LIVE', 'PAPER') AND origin = 'live'"
    counts = dict(
        app.db.rows(
            f"SELECT status, count(*) FROM signals WHERE status IN ('PENDING', 'OPEN') AND {told}"
            " GROUP BY status"
        )
    )
    lasting = [start for start, end in operation.pauses(app.db) if end is None]
    return Standing(
        state=state,
        reason=reason,
        data_age_ms=data_age_ms(app, now_ms=now_ms),
        n_pending=counts.get("PENDING", 0),
        n_open=counts.get("OPEN", 0),
        paused_ms=lasting[0] if lasting else None,
    )


def proof(db: Database, strategy: str) -> tuple[str, str]:
    """Return how far an edge is proven for a strategy, and the reason in words."""
    found = states.current_state(db, strategy)
    if found is None:
        return "UNGATED", "No proven edge: no model has been promoted yet."
    return found.state.value, found.reason


def data_age_ms(app: App, *, now_ms: int) -> int | None:
    """Return the age of the newest candle of the configured symbol furthest behind, or None."""
    ages = []
    for symbol in app.config.symbols:
        base = store.base_series(app.db, app.config.exchange.id, symbol)
        row = store.series_row(app.db, base)
        if row is None or row.last_ms is None:
            return None
        ages.append(now_ms - row.last_ms - tf_ms(base.timeframe))
    return max(ages, default=None)


def price_now(db: Database, row: Mapping[str, Any], *, now_ms: int) -> PriceNow | None:
    """Return the newest close of a row's symbol known at an instant, or None without candles."""
    base = Series(row["exchange"], row["symbol"], row["base_timeframe"])
    bars = store.last_candles(db, base, 1, known_at_ms=now_ms)
    if not len(bars):
        return None
    return PriceNow(float(bars.close[-1]), int(bars.ts_ms[-1]) + tf_ms(base.timeframe))


def note_verified(db: Database, said: str, *, ok: bool, now_ms: int) -> None:
    """Keep what the last proof that live equals retro came to."""
    value = json.dumps({"said": said if ok else f"DIFFERENT: {said}", "at_ms": now_ms})
    with db.write():
        operation.set_label(db, VERIFIED, value)
