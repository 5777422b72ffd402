"""What came of it all: against a clean scan of the true candles, and against the owner's phone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from core.app import App
from core.domain import Candles, Series
from core.jobs import maintain, market_stats, retro, sync
from core.jobs.scan import leader_of
from core.store import candles as store
from core.store import signals as signal_store
from core.timeframe import MINUTE_MS
from tests.engine_world import gap_states, opened, part, same, stored
from tests.vices_world import joined
from tests.whole_phone import Result, compare_messages
from tests.whole_world import COOLDOWN_MINUTES, Whole

Row = dict[str, Any]
Identity = tuple[Any, ...]
FAILURES = {"exchange": ("bitget",), "disk": ("disk I/O error", "is full", "File too large")}
REREAD_MS = 60 * MINUTE_MS  # after a candle is put right, until the engine has surely read it again
ENDS = (
    "status", "opened_ts_ms", "closed_ts_ms", "exit_price", "exit_reason", "tp1_hit", "tp1_ts_ms",
    "pnl_pct", "pnl_usd", "r_multiple", "gross_r", "ambiguous", "stop_now", "exec_state",
)  # fmt: skip
UNLIKE_BY_NATURE = ("id", "origin", "delivery", "delivery_reason", "data_revised")
DRIFTING = ("walked_ms", "mfe_r", "mae_r")  # of a trade that goes on; not written each minute


def clean_twin(world: Whole, live: App) -> App:
    """Return an engine that was given the true candles at once, and has scanned them.

    Of a hole it believes what the live one has recorded: that is compared by itself.
    """
    app = opened(world.twin)
    until_ms = world.end_ms
    with app.db.write():
        for symbol, bars in world.story.truth.items():
            series = Series("bitget", symbol, "1m")
            store.upsert_candles(app.db, series, part(bars, world.split_ms, until_ms))
            for low, high, state in holes_of(world, live, symbol):
                app.db.run(
                    "INSERT INTO gaps VALUES (?, ?, ?, ?, ?, ?, 3, 0, 0)",
                    (*series, low, high, state),
                )
            store.move_checkpoint(app.db, series, next_ms=until_ms, now_ms=until_ms)
            timeframes = sync.derived_timeframes(app, "1m")
            sync.resample_symbol(app.db, series, timeframes, until_ms=until_ms)
        for symbol, rates in world.funding.items():
            known = [rate for rate in rates if rate.ts_ms < until_ms]
            market_stats.store_funding(app.db, "bitget", symbol, known)
        for row in live.db.rows("SELECT * FROM open_interest"):
            app.db.run("INSERT INTO open_interest VALUES (?, ?, ?, ?)", row)
    retro.retro_scan(app, start_ms=world.split_ms, end_ms=until_ms, workers=1)
    return app


def holes_of(world: Whole, live: App, symbol: str) -> list[tuple[int, int, str]]:
    """Return the holes that were recorded of a symbol since the start."""
    return [gap for gap in joined(gap_states(live, symbol)) if gap[0] >= world.split_ms]


def result_of(world: Whole) -> Result:
    """Compare what was lived through with what it should have been."""
    result = Result()
    live = opened(world.config)
    clean = clean_twin(world, live)
    _candles(world, live, clean, result)
    ours, theirs = rows_of(live), rows_of(clean)
    _signals(world, live, ours, theirs, result)
    _deliveries(world, ours, theirs, result)
    compare_messages(world, live, result)
    _jobs(live, result)
    assert live.db.value("PRAGMA integrity_check") == "ok"
    assert maintain.invariants(live)["broken"] == {}
    live.close()
    clean.close()
    return result


# --- candles ---


def _candles(world: Whole, live: App, clean: App, result: Result) -> None:
    for symbol, bars in world.story.truth.items():
        want = part(bars, 0, world.end_ms)
        for timeframe in ("1m", "5m", "15m", "1h", "4h", "1d"):
            got = part(stored(live, symbol, timeframe), 0, world.end_ms)
            true = want if timeframe == "1m" else stored(clean, symbol, timeframe)
            result.compared[f"{timeframe} candles"] += len(true)
            if not same(got, true):
                result.unlike("candles", "", f"{symbol} {timeframe} {_where(got, true)}")
        _holes(holes_of(world, live, symbol), joined(sorted(world.story.holes[symbol])), result)


def _holes(
    stored: list[tuple[int, int, str]], true: list[tuple[int, int, str]], result: Result
) -> None:
    """Every minute that lacks is recorded and no other; where nobody traded it may be missing."""
    got, want = _minutes(stored), _minutes(true)
    result.compared["holes"] += len(true)
    result.compared["minutes that lack"] += len(want)
    for at_ms, state in want.items():
        if got.get(at_ms) != state:
            is_careful = (state, got.get(at_ms)) == ("no_trades", "missing")
            reason = "no_trades recorded as missing" if is_careful else ""
            result.unlike("minute that lacks", reason, (at_ms, state, got.get(at_ms)))
    for at_ms in got.keys() - want.keys():
        result.unlike("minute recorded as lacking", "", (at_ms, got[at_ms]))


def _minutes(holes: list[tuple[int, int, str]]) -> dict[int, str]:
    """Return the state of each minute inside some holes."""
    return {at_ms: state for low, high, state in holes for at_ms in range(low, high, MINUTE_MS)}


def _where(got: Candles, true: Candles) -> str:
    """Return how two series differ: how many bars, and the first few."""
    lost = np.setdiff1d(true.ts_ms, got.ts_ms).tolist()
    more = np.setdiff1d(got.ts_ms, true.ts_ms).tolist()
    both = np.intersect1d(got.ts_ms, true.ts_ms)
    values = [np.vstack(x.columns()[1:])[:, np.isin(x.ts_ms, both)] for x in (got, true)]
    other = both[(values[0] != values[1]).any(axis=0)].tolist()
    found = {"lost": lost, "more": more, "other": other}
    return ", ".join(f"{len(opens)} {name} {opens[:3]}" for name, opens in found.items())


# --- signals and trades ---


def rows_of(app: App) -> dict[tuple[Any, ...], Row]:
    """Return the signals by identity with their features; of open trades without what drifts."""
    found = {}
    for row in app.db.dicts(
        "SELECT s.*, f.version AS features_version, f.vector"
        " FROM signals s JOIN features f ON f.signal_id = s.id ORDER BY decided_ms, id"
    ):
        state = json.loads(row["exec_state"])
        drifts = DRIFTING if row["closed_ts_ms"] is None else ()
        row["exec_state"] = {name: x for name, x in state.items() if name not in drifts}
        found[tuple(row[name] for name in signal_store.IDENTITY)] = row
    return found


def _signals(
    world: Whole,
    live: App,
    ours: Mapping[Identity, Row],
    theirs: Mapping[Identity, Row],
    result: Result,
) -> None:
    """Each row is its twin's; one that went by candles which changed since says so."""
    why = Reasons(world, live)
    for identity, mine, true in pairs(ours, theirs):
        row = mine or true or {}
        is_new = row["decided_ms"] > world.split_ms
        result.compared["signals" if is_new else "signals of before"] += 1
        result.compared["trades"] += row["opened_ts_ms"] is not None
        if mine is None or true is None:
            kind = "signal not found" if mine is None else "signal found besides"
            result.unlike(kind, why.of_decision(row), (identity, row["decided_ms"]))
            continue
        unlike = [
            name
            for name, value in mine.items()
            if name not in UNLIKE_BY_NATURE and repr(value) != repr(true[name])
        ]
        if unlike:
            kind = "trade" if {*unlike} <= {*ENDS} else "decision"
            values = [(name, mine[name], true[name]) for name in unlike if name != "exec_state"]
            result.unlike(kind, "data_revised" if mine["data_revised"] else "", (identity, values))


def pairs(
    ours: Mapping[Identity, Row], theirs: Mapping[Identity, Row]
) -> Iterator[tuple[Identity, Row | None, Row | None]]:
    """Yield the rows of both by identity, in the order of their decisions."""
    both = {**ours, **theirs}
    for identity in sorted(both, key=lambda key: (both[key]["decided_ms"], str(key))):
        yield identity, ours.get(identity), theirs.get(identity)


class Reasons:
    """Why a signal may be there or not: candles that were others when it was decided."""

    def __init__(self, world: Whole, live: App) -> None:
        self._spans: list[tuple[str, str, int, int]] = []
        revised = {r.series.symbol for r in store.series_rows(live.db) if r.n_revised}
        for (symbol, open_ms), draft in world.server.drafts.items():
            if symbol in revised:
                self._add("revised candle", symbol, open_ms, draft.until_ms)
        for (symbol, open_ms), shown_ms in world.server.late_ms.items():
            self._add("late candle", symbol, open_ms, shown_ms)

    def _add(self, why: str, symbol: str, open_ms: int, true_ms: int) -> None:
        self._spans.append((why, symbol, open_ms, true_ms + REREAD_MS))

    def of_decision(self, row: Row) -> str:
        """Return the reason, or ''."""
        symbols = (row["symbol"], leader_of(row["symbol"]))
        for why, symbol, low, high in self._spans:
            if symbol in symbols and low < row["decided_ms"] <= high:
                return why
        return ""


def _deliveries(
    world: Whole, ours: Mapping[Identity, Row], theirs: Mapping[Identity, Row], result: Result
) -> None:
    """A row is delivered as its twin, but where lateness touched it or one the guards remember."""
    touched: dict[str, int] = {}
    lacking_ms = {  # where the group was without one of its rows
        (mine or true or {})["decided_ms"]
        for _, mine, true in pairs(ours, theirs)
        if not (mine and true) or (mine["delivery_reason"] == "late" and _way(mine) != _way(true))
    }
    for identity, mine, true in pairs(ours, theirs):
        row = mine or true or {}
        at_ms, symbol = row["decided_ms"], row["symbol"]
        if at_ms <= world.split_ms:
            continue
        result.compared["deliveries"] += 1
        if mine and true and _way(mine) == _way(true):
            continue
        is_felt = at_ms - touched.get(symbol, 0) <= COOLDOWN_MINUTES * MINUTE_MS
        is_felt |= at_ms in lacking_ms
        touched[symbol] = at_ms
        lacking_ms.add(at_ms)
        if mine and true:
            reasons = {
                "late": mine["delivery_reason"] == "late",
                "settings edited": at_ms > world.guards_edited_ms,
                "after one that differs": is_felt,
            }
            reason = next((name for name, holds in reasons.items() if holds), "")
            result.unlike("delivery", reason, (identity, at_ms, _way(mine), _way(true)))


def _way(row: Row) -> tuple[str, str]:
    return row["delivery"], row["delivery_reason"]


# --- the record ---


def _jobs(live: App, result: Result) -> None:
    """What failed was the exchange or the disk; and what else the database says of it all."""
    db = live.db
    failed = db.rows("SELECT job, detail FROM job_runs WHERE outcome = 'error'")
    for job, detail in failed:
        known = [name for name, words in FAILURES.items() if any(w in detail for w in words)]
        result.unlike("job failed", known[0] if known else "", (job, detail))

    def counted(sql: str) -> dict[str, int]:
        return {" ".join(row[:-1]).strip(): row[-1] for row in db.rows(sql)}

    result.facts = {
        "job runs": counted("SELECT job, outcome, count(*) FROM job_runs GROUP BY 1, 2"),
        "delivered": counted(
            "SELECT delivery, delivery_reason, count(*) FROM signals WHERE origin = 'live'"
            " GROUP BY 1, 2"
        ),
        "messages": counted("SELECT kind, count(*) FROM outbox GROUP BY 1"),
        "candles revised": db.value("SELECT sum(n_revised) FROM series"),
        "signals marked revised": db.value("SELECT sum(data_revised) FROM signals"),
        "bars absent": db.value("SELECT count(*) FROM skipped_bars"),
    }
