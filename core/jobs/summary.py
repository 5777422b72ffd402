"""The weekly summary: the week and the twelve months before its end, as message and page."""

from __future__ import annotations

import json
import math
from typing import Any

from core import messages, views
from core.app import App, wall_ms
from core.config_file import replace_text
from core.jobs import record, tell
from core.jobs.standing import VERIFIED, standing
from core.messages import Health, Week
from core.performance import Lift
from core.store import candles as store
from core.store import operation
from core.store.gaps import missing_ms
from core.store.models import bundles
from core.timeframe import DAY_MS
from core.weekly_report import weekly_html

_WEEK_MS, _YEAR_MS = 7 * DAY_MS, 365 * DAY_MS


def week_of(app: App, found: views.Results, *, now_ms: int) -> Week:
    """Return what there is to say of the week that ends at an instant of market time.

    `found` is the record of the twelve months before it, as pages show it.
    """
    start_ms = now_ms - _WEEK_MS
    books = tuple(record.TITLES)
    return Week(
        start_ms=start_ms,
        end_ms=now_ms,
        standing=standing(app, now_ms=now_ms),
        week=[record.record(app, book, start_ms=start_ms, end_ms=now_ms) for book in books],
        year=[
            record.record(app, book, start_ms=now_ms - _YEAR_MS, end_ms=now_ms) for book in books
        ],
        lift=lift_of(views.gate_record(found)),
        health=health(app, start_ms=start_ms, now_ms=now_ms),
    )


def lift_of(gate: views.GateLift | None) -> Lift | None:
    """Return the gate's record in the message's words; None where it passed all or none."""
    if gate is None or not gate.passed.metrics.n or not gate.rejected.metrics.n:
        return None
    net_r = gate.lift.net_r
    return Lift(
        n_passed=gate.passed.metrics.n,
        n_rejected=gate.rejected.metrics.n,
        lift_r=net_r.value,
        lift_r_lo=net_r.low,
        lift_r_hi=net_r.high,
    )


def health(app: App, *, start_ms: int, now_ms: int) -> Health:
    """Return how the champion and the data since an instant are."""
    champions = bundles(app.db, strategy=app.strategy, state="champion")
    model = champions[0] if champions else None
    facts = model["metrics"].get("calibration", {}) if model else {}
    verified: dict[str, Any] = json.loads(operation.label_of(app.db, VERIFIED) or "{}")
    return Health(
        model=str(model["id"]) if model else None,
        model_age_ms=max(0, now_ms - int(model["data_until_ms"])) if model else None,
        brier=float(facts.get("brier", math.nan)),
        brier_mart=float(facts.get("brier_mart", math.nan)),
        n_missing=_n_missing(app, start_ms=start_ms, end_ms=now_ms),
        n_revised=int(
            app.db.value(
                "SELECT count(*) FROM signals WHERE strategy_id = ? AND data_revised <> 0"
                " AND decided_ms >= ? AND decided_ms < ?",
                (app.strategy, start_ms, now_ms),
            )
        ),
        n_errors=int(
            app.db.value(
                "SELECT count(*) FROM job_runs WHERE outcome <> 'ok' AND started_wall_ms >= ?",
                (wall_ms() - _WEEK_MS,),
            )
        ),
        verified=str(verified.get("said", "")),
        verified_ms=verified.get("at_ms"),
    )


def _n_missing(app: App, *, start_ms: int, end_ms: int) -> int:
    bases = [store.base_series(app.db, app.config.exchange.id, s) for s in app.config.symbols]
    return sum(len(missing_ms(app.db, b, start_ms=start_ms, end_ms=end_ms)) for b in bases)


def year_of(app: App, *, now_ms: int) -> views.Results:
    """Return the record of the twelve months before an instant, as pages show it."""
    return views.results(app.db.path, strategy=app.strategy, start_ms=now_ms - _YEAR_MS)


def summarise(app: App, *, now_ms: int) -> dict[str, Any]:
    """Write the week's page and queue its message; returns where the page is."""
    look, zone = tell.look_of(app), app.config.app.timezone
    found = year_of(app, now_ms=now_ms)
    week = week_of(app, found, now_ms=now_ms)
    name = f"reports/weekly-{messages.day(now_ms, look.zone)}.html"
    path = app.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, weekly_html(week, found, look=look, zone=zone))
    text = messages.weekly_summary(week, look, report=name)
    tell.queue_notice(app, "weekly_summary", text, now_ms=now_ms)
    return {"page": str(path), "from_ms": week.start_ms, "to_ms": week.end_ms}
