"""The stored decisions of a stretch taken again by the present code, and what came out otherwise.

It writes nothing. What was delivered is not compared: that hangs on what had been told before.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np

from core import features, schema
from core.app import App
from core.candle_law import ALL_TIME_MS
from core.domain import Candidate, Delivery, Origin, Progress, Series, no_progress
from core.jobs.causality import Difference, same_bits
from core.jobs.explain import funnel_of
from core.jobs.follow import walkable_ms
from core.jobs.judge import Judge
from core.jobs.retro import tasks_of, with_fates
from core.jobs.retro_series import SeriesScan, scan_symbol
from core.jobs.scan import ScanReport
from core.plans import REFUSALS
from core.store import candles as store
from core.store import signals as signal_store
from core.store.db import Database, open_reader
from core.timeframe import DAY_MS, floor_ms

Row = dict[str, Any]

_PLACE = ("origin", "scan_stride", "delivery", "delivery_reason", "base_timeframe")
_FATE = (  # of what has ended; not `pnl_usd`, which a setting outside the strategy multiplies
    "status",
    "opened_ts_ms",
    "closed_ts_ms",
    "exit_price",
    "exit_reason",
    "tp1_hit",
    "tp1_ts_ms",
    "pnl_pct",
    "r_multiple",
    "gross_r",
    "ambiguous",
)
_MOVING = (*_FATE, "pnl_usd", "stop_now", "exec_state")
_SCORE = ("ml_p_raw", "ml_p", "p_lo", "p_hi", "ml_model", "why")
_SETTINGS = (  # these hang on settings outside the strategy as well: equity, gating, the model
    "position_notional",
    "ml_model",
    "ev_pct",
    "ev_lo_pct",
    "ev_r",
    "ev_lo_r",
    "gate",
    "gate_reason",
    "evidence",
)
_LATER = tuple(
    column.name
    for step in schema.MIGRATIONS
    for column in step.columns
    if column.table == "signals"
)  # empty in rows of an older program, which did not know them
_FILLED_LATER = ("hole", "seam", "bars")  # counts of a day that say whether its candles are as then


@dataclass(slots=True, kw_only=True)
class Redecided:
    """How many decisions were taken again, and which came out otherwise.

    `n_settings` are those that differ only in what settings outside the strategy decide too.
    `left_out` says of how many the candles, or what is known of the market, changed afterwards.
    """

    n: int = 0
    n_changed: int = 0
    n_ended: int = 0
    n_ended_otherwise: int = 0
    n_settings: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all that the strategy_id stands for came out the same."""
        return not (self.n_changed or self.n_ended_otherwise)


def redecide(
    app: App, *, start_ms: int, end_ms: int, progress: Progress = no_progress
) -> Redecided:
    """Decide every bar of a stretch again that was scanned in it, and follow what is found."""
    found = Redecided()
    with open_reader(app.db.path) as db:
        reading = replace(app, db=db)
        tasks = tasks_of(
            reading,
            ScanReport(),
            symbols=app.config.symbols,
            timeframes=app.config.timeframes,
            window=(start_ms, end_ms),
            stride=1,
            limit=0,
        )
        judge, n_done = Judge.of(reading), 0
        for symbol, group in groupby(tasks, key=lambda task: task.series.symbol):
            base = store.base_series(db, app.config.exchange.id, symbol)
            until_ms = walkable_ms(db, base, now_ms=ALL_TIME_MS[1])
            scans = scan_symbol(db.path, app.config, list(group), until_ms=until_ms)
            for one in scans:
                _compare(reading, one, judge, found)
            n_done += len(scans)
            progress("decide again", n_done, len(tasks))
    return found


def _compare(app: App, scan: SeriesScan, judge: Judge, found: Redecided) -> None:
    now, stored = _now(app, scan, judge), _stored(app, scan)
    (counted, alike), changed_ms = _days(app, scan), _record_changed_ms(app.db, scan.task.series)
    base = store.base_series(app.db, *scan.task.series[:2]).timeframe
    for identity in sorted({*now, *stored}):
        old, new = stored.get(identity), now.get(identity)
        row = old or now[identity]
        day_ms = floor_ms(row["ts_ms"], DAY_MS)
        if old is None and day_ms not in counted:
            continue  # nobody had looked at that day
        if old is None and day_ms not in alike:
            found.left_out["its day was not scanned as a whole, or holes were filled since"] += 1
        elif row["decided_ms"] <= changed_ms:
            found.left_out["the exchange changed the market's record since"] += 1
        elif old is not None and old["data_revised"]:
            found.left_out["its candles or funding came or changed later"] += 1
        elif old is not None and old["base_timeframe"] != base:
            found.left_out["finer candles came since"] += 1
        else:
            _count(scan.task.series, old, new, found)


def _count(series: Series, old: Row | None, new: Row | None, found: Redecided) -> None:
    """Count one decision, and keep what is unlike."""
    found.n += 1
    if old and new and any(_came_later(k, v) and not same_bits(v, new[k]) for k, v in old.items()):
        found.left_out["of these a feature, and its score: what it is read from came later"] += 1
    if old is None or new is None:
        decision = [("row", "none" if old is None else "there", "none" if new is None else "there")]
        fate: list[tuple[str, Any, Any]] = []
    else:
        decision, fate = list(_unlike(old, new)), list(_ended_unlike(old, new))
        found.n_ended += old["closed_ts_ms"] is not None
        found.n_settings += _told_otherwise(old, new) and not decision
    found.n_changed += bool(decision)
    found.n_ended_otherwise += bool(fate) and not decision
    row = old or new or {}
    found.differences += [
        Difference(
            series=series,
            at_ms=row["ts_ms"],
            check="decided again",
            what=f"{row['setup']} {row['direction']}",
            column=column,
            wanted=wanted,
            found=value,
        )
        for column, wanted, value in (*decision, *fate)
    ]


def _unlike(old: Row, new: Row) -> Iterator[tuple[str, Any, Any]]:
    """Yield the columns that a decision sets and that came out otherwise, with both values.

    A score is compared where the same model spoke of the same features, and what an older program
    did not write is not missed.
    """
    unlike = [
        (name, old[name], value)
        for name, value in new.items()
        if name not in (*_PLACE, *_MOVING, *_SETTINGS, *_SCORE)
        and name in old
        and not same_bits(old[name], value)
        and not _came_later(name, old[name])
    ]
    yield from unlike
    is_same = all(same_bits(old.get(k), v) for k, v in new.items() if k.startswith("feature "))
    if not unlike and is_same and old["ml_model"] == new["ml_model"]:
        for name in _SCORE:
            unknown = name in _LATER and old[name] in (None, "")
            if not unknown and not same_bits(old[name], new[name]):
                yield name, old[name], new[name]


def _came_later(name: str, old: Any) -> bool:
    """Say whether a feature was unknown then: a leader or a spot pair may have come since."""
    return name.startswith("feature ") and isinstance(old, float) and math.isnan(old)


def _told_otherwise(old: Row, new: Row) -> bool:
    """Say whether what settings outside the strategy decide too came out otherwise.

    A row stored before there was a model is not scored afterwards: of it only the size counts.
    """
    is_unscored = old["ml_model"] is None and new["ml_model"] is not None
    names = _SETTINGS[:1] if is_unscored else _SETTINGS
    return any(not same_bits(old[name], new[name]) for name in names)


def _ended_unlike(old: Row, new: Row) -> Iterator[tuple[str, Any, Any]]:
    """Yield in what a trade that has ended, or an order that came to nothing, ends otherwise."""
    if old["status"] not in ("PENDING", "OPEN"):
        for name in _FATE:
            if not same_bits(old[name], new[name]):
                yield name, old[name], new[name]


def _now(app: App, scan: SeriesScan, judge: Judge) -> dict[tuple[Any, ...], Row]:
    """Return what the present code decides, as rows by identity."""
    pairs = list(with_fates(app, scan))
    verdicts = judge.verdicts([candidate for candidate, _ in pairs]) if pairs else []
    rows = [
        signal_store.signal_row(
            candidate,
            verdict,
            strategy=app.strategy,
            origin=Origin.RETRO,
            scan_stride=1,
            delivery=Delivery.NONE,
            delivery_reason="",
            base_timeframe="",
            exec_state="",
        )
        | fate
        | _named(candidate)
        for (candidate, fate), verdict in zip(pairs, verdicts, strict=True)
    ]
    return {tuple(row[name] for name in signal_store.IDENTITY): row for row in rows}


def _named(candidate: Candidate) -> Row:
    values = zip(features.NAMES, candidate.features.tolist(), strict=True)
    return {f"feature {name}": value for name, value in values}


def _stored(app: App, scan: SeriesScan) -> dict[tuple[Any, ...], Row]:
    """Return the stored rows of the same bars; features only where they are of today's version."""
    task, found = scan.task, {}
    for row in app.db.dicts(
        "SELECT s.*, f.version, f.vector FROM signals s JOIN features f ON f.signal_id = s.id"
        " WHERE exchange = ? AND symbol = ? AND timeframe = ? AND strategy_id = ?"
        " AND ts_ms BETWEEN ? AND ?",
        (*task.series, app.strategy, task.first_ms, task.last_ms),
    ):
        vector = np.frombuffer(row.pop("vector"), "<f8").tolist()
        if row["version"] == features.VERSION:
            row |= {f"feature {n}": x for n, x in zip(features.NAMES, vector, strict=True)}
        found[tuple(row[name] for name in signal_store.IDENTITY)] = row
    return found


def _days(app: App, scan: SeriesScan) -> tuple[set[int], set[int]]:
    """Return the days of which bars were counted then, and of them those that look alike now.

    All their bars were counted, with the same holes and seams.
    """
    task, found = scan.task, scan.found
    refused_ms = found.refused["ts_ms"].tolist()
    words = (REFUSALS[code] for code in found.refused["refusal"].tolist())
    setups = [*found.taken["ts_ms"].tolist(), *refused_ms]
    now = funnel_of(found.opens_ms, setups, zip(refused_ms, words, strict=True))
    then = app.db.rows(
        "SELECT day_ms, reason, n FROM funnel WHERE exchange = ? AND symbol = ? AND timeframe = ?"
        " AND strategy_id = ?",
        (*task.series, app.strategy),
    )
    ours, theirs = _by_day(now), _by_day(then)
    return {*theirs}, {
        day
        for day, counts in theirs.items()
        if all(counts.get(name) == ours.get(day, {}).get(name) for name in _FILLED_LATER)
    }


def _by_day(counts: list[tuple[int, str, int]]) -> Mapping[int, dict[str, int]]:
    days: dict[int, dict[str, int]] = {}
    for day_ms, reason, n in counts:
        days.setdefault(day_ms, {})[reason] = n
    return days


def _record_changed_ms(db: Database, series: Series) -> int:
    """Return when the exchange last changed what it says of a symbol, or 0."""
    found = db.value(
        "SELECT max(at_ms) FROM market_changes WHERE exchange = ? AND symbol = ?", series[:2]
    )
    return int(found or 0)


def shown(difference: Difference) -> dict[str, Any]:
    """Return a difference as people read it."""
    row = difference.as_row()
    return {
        "series": row["series"],
        "bar": row["instant"],
        "setup": row["what"],
        "column": row["column"],
        "stored": row["wanted"],
        "now": row["found"],
    }


def record_of_others(db: Database, strategy: str) -> tuple[int, int, dict[str, Any]]:
    """Return the rows of other strategies, how many go on, and the settings last seen of them."""
    n, n_open = db.rows(
        "SELECT count(*), count(*) FILTER (WHERE status IN ('PENDING', 'OPEN')) FROM signals"
        " WHERE strategy_id <> ?",
        (strategy,),
    )[0]
    text = db.value(
        "SELECT settings FROM strategies WHERE strategy_id <> ? ORDER BY seen_ms DESC LIMIT 1",
        (strategy,),
    )
    return int(n), int(n_open), json.loads(text or "{}")
