"""The demo's figures: markets side by side, and what a killed scheduler lost or doubled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core import candle_files
from core.app import open_app
from core.config_file import load_config
from core.domain import Series
from core.jobs import files, retro
from core.store import candles as store
from core.store import operation
from core.store.db import open_reader
from core.store.signals import IDENTITY
from core.timeframe import tf_ms
from demo.stage import Stage, write_config


def _mean_pm(values: Sequence[float]) -> str:
    """Return a mean with two naive standard errors; weeks and pairs overlap, so rather more."""
    if not values:
        return "-"
    array = np.array(values)
    return f"{array.mean():+.3f} ± {2 * array.std() / np.sqrt(len(array)):.3f}"


def _interval(found: Sequence[float | None] | None, scale: float = 1.0) -> str:
    if not found or found[0] is None:
        return "-"
    mean, low, high = (scale * (value or 0.0) for value in found)
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def market_rows(figures: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the table of all markets: what every trade earned, and what ranking was worth."""
    names = list(figures)
    rows: list[tuple[str, list[str]]] = []

    def row(what: str, of: Any) -> None:
        rows.append((what, [str(of(figures[name])) for name in names]))

    row("1m candles imported", lambda f: f"{f['candles']:,}")
    row("setups found", lambda f: f"{f['scan']['setups']:,}")
    row("candidates stored, all followed", lambda f: f"{f['scan']['stored']:,}")
    row("trades closed", lambda f: f"{f['books']['n']:,}")
    row("gross R per trade (± 2 SE)", lambda f: _mean_pm(f["books"]["gross"]))
    row(
        "costs R per trade",
        lambda f: f"{np.mean(f['books']['cost']):.3f}" if f["books"]["n"] else "-",
    )
    row("net R per trade (± 2 SE)", lambda f: _mean_pm(f["books"]["net"]))
    row("out of sample: trades (effective)", lambda f: _lifted(f, "n_text"))
    row("AUC of the model | of the coin flip", lambda f: _lifted(f, "auc_text"))
    row("net R of the best 30 % [90 %]", lambda f: _lifted(f, "top_text"))
    row("best 30 % minus the rest [90 %]", lambda f: _lifted(f, "lift_text"))
    row("win-rate | coin flip, best 30 %", lambda f: _lifted(f, "rate_text"))
    row("certified thresholds", lambda f: _certified(f["model"]))
    return [{"": what, **dict(zip(names, values, strict=True))} for what, values in rows]


def _lifted(figures: Mapping[str, Any], name: str) -> str:
    lift = figures.get("lift") or {}
    if not lift.get("n"):
        return "-"
    top = next((row for row in lift["coverage"] if abs(row["coverage"] - 0.3) < 0.01), None)
    texts = {
        "n_text": f"{lift['n']:,} ({lift['n_eff']:.0f})",
        "auc_text": f"{lift['auc']:.3f} | {lift['auc_mart']:.3f}",
        "lift_text": _interval(lift["lift_30"]["mean_r_over_rest"]),
    }
    if top is not None and top["n"]:
        low, high = top["mean_r_interval"]
        texts["top_text"] = _interval((top["mean_r"], low, high))
        texts["rate_text"] = f"{top['win_rate']:.1%} | {top['p_mart']:.1%}"
    return texts.get(name, "-")


def _certified(model: Mapping[str, Any]) -> str:
    if "missing" in model:
        return str(model["missing"])
    return str(model["tune"]["n_certified"])


def lost_or_doubled(stage: Stage, sources: Sequence[Path], scratch: Path) -> dict[str, Any]:
    """Compare what the scheduler stored with what was served, and with an undisturbed scan.

    Candles: every bar served up to the market's time against every bar stored. Signals: a
    retro-scan of the same bars in a fresh database must find the same identities. Messages: each
    told signal has its message, accepted once or marked as a possible repeat.
    """
    config = load_config(stage.config_path)
    with open_reader(stage.folder / config.app.db_path) as db:
        clock = operation.clock_row(db)
        now_ms = clock[0] if clock else stage.split_ms
        lost = doubled = different = served = 0
        for file in candle_files.find([stage.replay_dir]):
            truth = list(candle_files.read(file, end_ms=now_ms - tf_ms("1m") + 1))
            series = Series("replay", file.symbol, "1m")
            end = store.checkpoint_of(db, series) or 0
            stored = store.read_candles(db, series, start_ms=stage.split_ms, end_ms=now_ms)
            ts = np.concatenate([t.ts_ms for t in truth]) if truth else np.empty(0, np.int64)
            close = np.concatenate([t.close for t in truth]) if truth else np.empty(0)
            keep = ts < end
            ts, close = ts[keep], close[keep]
            served += len(ts)
            lost += len(np.setdiff1d(ts, stored.ts_ms))
            doubled += len(stored) - len(np.unique(stored.ts_ms))
            same = np.isin(stored.ts_ms, ts)
            different += int(np.sum(stored.close[same] != close[np.isin(ts, stored.ts_ms)]))
        found = _live_signals(stage, db)
        untold, told, repeats = _messages(db)
    expected = _expected_signals(stage, sources, scratch, found["positions"])
    mine = found["identities"]
    return {
        "candles served": served,
        "candles lost, doubled, different": f"{lost}, {doubled}, {different}",
        "signals found live": len(mine),
        "signals lost, doubled, unexpected": (
            f"{len(expected - mine)}, {found['doubled']}, {len(mine - expected)}"
        ),
        "messages sent": told,
        "messages lost, possible repeats (marked)": f"{untold}, {repeats}",
        "trades opened, closed since the replay began": f"{found['opened']}, {found['closed']}",
        "ok": not (lost or doubled or different or untold or found["doubled"] or expected ^ mine),
    }


def _live_signals(stage: Stage, db: Any) -> dict[str, Any]:
    names = ", ".join(IDENTITY)
    rows = db.rows(f"SELECT {names} FROM signals WHERE origin = 'live'")
    opened, closed = db.rows(
        "SELECT sum(opened_ts_ms > ?1), sum(closed_ts_ms > ?1 AND r_multiple IS NOT NULL)"
        " FROM signals",
        (stage.split_ms,),
    )[0]
    positions = {
        (symbol, timeframe): position
        for symbol, timeframe, position in db.rows(
            "SELECT symbol, timeframe, position_ms FROM scan_positions"
        )
    }
    first = db.rows("SELECT symbol, timeframe, min(ts_ms) FROM signals WHERE origin = 'live'")
    return {
        "identities": set(rows),
        "doubled": len(rows) - len(set(rows)),
        "opened": opened or 0,
        "closed": closed or 0,
        "positions": positions,
        "first": first,
    }


def _messages(db: Any) -> tuple[int, int, int]:
    untold = db.value(
        "SELECT count(*) FROM signals s WHERE origin = 'live' AND delivery IN ('LIVE', 'PAPER')"
        " AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.signal_id = s.id"
        " AND o.kind = 'new_signal' AND o.state IN ('sent', 'ambiguous', 'pending', 'sending'))"
    )
    told = db.value("SELECT count(*) FROM outbox WHERE state = 'sent'")
    repeats = db.value("SELECT count(*) FROM outbox WHERE state = 'sent' AND attempts > 1")
    return int(untold), int(told), int(repeats)


def _expected_signals(
    stage: Stage,
    sources: Sequence[Path],
    scratch: Path,
    positions: Mapping[tuple[str, str], int],
) -> set[tuple[Any, ...]]:
    """Scan the same bars in a fresh database and return the identities found."""
    copy = Stage(
        folder=scratch,
        symbols=stage.symbols,
        start_ms=stage.start_ms,
        split_ms=stage.split_ms,
        end_ms=stage.end_ms,
        banner=stage.banner,
    )
    config = load_config(stage.config_path)
    write_config(copy, speed=0, timeframes=config.timeframes, paper=0)
    app = open_app(copy.config_path)
    try:
        recent = stage.split_ms - 400 * 86_400_000
        own = app.config.exchange.id
        files.import_files(app, [*sources], start_ms=recent, until_ms=stage.split_ms, origin=own)
        files.import_files(app, [stage.replay_dir], start_ms=stage.split_ms, origin=own)
        end = max(positions.values(), default=stage.split_ms) + tf_ms("1d")
        retro.retro_scan(app, start_ms=stage.split_ms - tf_ms("1d"), end_ms=end, workers=1)
        names = ", ".join(IDENTITY)
        rows = app.db.rows(f"SELECT {names}, ts_ms FROM signals")
    finally:
        app.close()
    i_symbol, i_timeframe = IDENTITY.index("symbol"), IDENTITY.index("timeframe")
    return {
        tuple(row[:-1])
        for row in rows
        if _was_live(stage, row[i_symbol], row[i_timeframe], row[-1], positions)
    }


def _was_live(
    stage: Stage,
    symbol: str,
    timeframe: str,
    ts_ms: int,
    positions: Mapping[tuple[str, str], int],
) -> bool:
    """Say whether a bar closed after the replay began, and was reached by the live scan."""
    closed_ms = ts_ms + tf_ms(timeframe)
    return stage.split_ms < closed_ms and ts_ms <= positions.get((symbol, timeframe), 0)
