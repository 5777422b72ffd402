"""Parity by trial: a stretch lived through bar by bar gives the rows of its retro-scan.

Both happen in scratch databases made from the owner's candles; of his own nothing is written.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from core import features
from core.app import App
from core.config import Config
from core.domain import Candles, Series
from core.funding_law import SETTLE_MS
from core.jobs.causality import Difference, same_bits
from core.jobs.follow import follow_all
from core.jobs.retro import retro_scan
from core.jobs.scan import leader_of, scan_all
from core.market_context import spot_of
from core.store import candles as store
from core.store import signals as signal_store
from core.store.db import Database, WriterLock, open_database
from core.timeframe import DAY_MS, MINUTE_MS, floor_ms, higher_timeframes, tf_ms
from core.windows import NOISE_BARS

_MORE_BARS = 60  # of history than the windows need
_DRIFTING = ("walked_ms", "mfe_r", "mae_r")  # of a trade that goes on; not written each minute
_BESIDE = {  # what is stored beside candles: the column that says when a row is about
    "gaps": "start_ms",
    "funding": "ts_ms",
    "open_interest": "ts_ms",
    "seams": "at_ms",
    "markets": "0",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Bars of one series, and the instant up to which their trades are followed."""

    series: Series
    first_ms: int
    last_ms: int
    end_ms: int

    @property
    def others(self) -> list[str]:
        """The symbols it is read with: its leader, and a perpetual's spot pair."""
        symbol = self.series.symbol
        return [name for name in (leader_of(symbol), spot_of(symbol)) if name is not None]


@dataclass(slots=True, kw_only=True)
class Compared:
    """What a stretch came to: rows and trades of both, how many agree, and what does not."""

    n_rows: int = 0
    n_same_rows: int = 0
    n_trades: int = 0
    n_same_trades: int = 0
    differences: list[Difference] = field(default_factory=list)


# --- the owner's candles, handed over as they become known -----------------------------------


@dataclass(frozen=True, slots=True)
class Feed:
    """Candles by series and other rows by symbol as (instant known, table, row), copied."""

    bars: dict[Series, Candles]
    rows: dict[str, list[tuple[int, str, tuple[Any, ...]]]]

    def give(self, app: App, symbol: str, *, after_ms: int, until_ms: int) -> None:
        """Store what of a symbol became known in (after, until], as a sync would."""
        db = app.db
        with db.write():
            for series, bars in self.bars.items():
                if series.symbol == symbol:
                    first, end = bars.closed_by(after_ms), bars.closed_by(until_ms)
                    store.upsert_candles(db, series, bars[first:end])
            for known_ms, table, row in self.rows[symbol]:
                if after_ms < known_ms <= until_ms:
                    marks = ", ".join("?" * len(row))
                    db.run(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)
            base = store.base_series(db, app.config.exchange.id, symbol)
            store.move_checkpoint(db, base, next_ms=until_ms, now_ms=until_ms)


def feed_of(db: Database, config: Config, stretch: Stretch) -> Feed:
    """Copy what deciding a stretch and following its trades reads."""
    exchange, symbol, timeframe = stretch.series
    base = store.base_series(db, exchange, symbol)
    n_bars = config.signals.lookback_candles + _MORE_BARS
    wanted = {Series(exchange, symbol, name): n_bars for name in higher_timeframes(timeframe)}
    wanted |= {Series(exchange, name, timeframe): n_bars for name in (symbol, *stretch.others)}
    wanted[base] = max(wanted.get(base, 0), NOISE_BARS + _MORE_BARS)
    bars = {series: _bars(db, series, stretch, n) for series, n in wanted.items()}
    rows = {name: list(_beside(db, exchange, name)) for name in (symbol, *stretch.others)}
    return Feed(bars, rows)


def _bars(db: Database, series: Series, stretch: Stretch, n: int) -> Candles:
    before = store.last_candles(db, series, n, known_at_ms=stretch.first_ms)
    start_ms = int(before.ts_ms[0]) if len(before) else stretch.first_ms
    return store.read_candles(db, series, start_ms=start_ms, end_ms=stretch.end_ms)


def _beside(db: Database, exchange: str, symbol: str) -> Iterator[tuple[int, str, tuple[Any, ...]]]:
    """Yield rows with the instant at which a live engine has them: a funding rate ten minutes on.

    Seams and the market's record are of all times.
    """
    for table, column in _BESIDE.items():
        for instant, *row in db.rows(
            f"SELECT {column}, * FROM {table} WHERE exchange = ? AND symbol = ?", (exchange, symbol)
        ):
            known_ms = instant + (1 if table == "gaps" else 0)
            if table == "funding":
                known_ms = floor_ms(instant, MINUTE_MS) + SETTLE_MS
            yield (0 if table in ("seams", "markets") else known_ms), table, tuple(row)


@contextmanager
def scratch(app: App, folder: Path, *, use_model: bool) -> Iterator[App]:
    """Yield an engine with the owner's settings on an empty database of its own."""
    folder.mkdir(parents=True)
    meta = app.config.models.meta
    model_path = str(app.root / meta.model_path)
    meta = meta.model_copy(update={"enabled": meta.enabled and use_model, "model_path": model_path})
    models = app.config.models.model_copy(update={"meta": meta})
    lock = WriterLock(folder / "ohlcv.db.lock")
    lock.acquire()
    with open_database(folder / "ohlcv.db") as db:
        db.rows("PRAGMA synchronous = OFF")  # it is thrown away
        if use_model:
            _copy_models(app.db, db)
        yield App(
            config=app.config.model_copy(update={"models": models}),
            config_path=folder / "config.yaml",
            config_text=app.config_text,
            db=db,
            lock_file=lock,
            holds_lock=True,
        )
    lock.release()


def _copy_models(source: Database, target: Database) -> None:
    for table in ("bundles", "promotions", "states"):
        rows = source.rows(f"SELECT * FROM {table}")
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            target.run_many(f"INSERT INTO {table} VALUES ({marks})", rows)


# --- the two ways ----------------------------------------------------------------------------


def live(app: App, feed: Feed, stretch: Stretch) -> None:
    """Live through a stretch: each bar is scanned when it closes, trades are followed to the end.

    What a stretch is read with arrives after it: until then a scan has to wait.
    """
    series, step = stretch.series, tf_ms(stretch.series.timeframe)
    _begin(app, feed, stretch)
    base_step = tf_ms(store.base_series(app.db, *series[:2]).timeframe)
    waited_for = [name for name in stretch.others if name in app.config.symbols]
    for now_ms in range(stretch.first_ms + step, stretch.last_ms + step + 1, step):
        before_ms = now_ms - base_step  # exits of the last minute come after the decision
        feed.give(app, series.symbol, after_ms=now_ms - step, until_ms=before_ms)
        follow_all(app, now_ms=before_ms)
        others = [name for name in stretch.others if name not in waited_for]
        for name in others:
            feed.give(app, name, after_ms=now_ms - step, until_ms=now_ms)
        feed.give(app, series.symbol, after_ms=before_ms, until_ms=now_ms)
        if waited_for:
            _scan(app, series, now_ms)
        for name in waited_for:
            feed.give(app, name, after_ms=now_ms - step, until_ms=now_ms)
        _scan(app, series, now_ms)
        follow_all(app, now_ms=now_ms)
    _follow_to_the_end(app, feed, stretch)


def _begin(app: App, feed: Feed, stretch: Stretch) -> None:
    """Give what was known when the first bar opened, and put the position before it."""
    series = stretch.series
    for name in (series.symbol, *stretch.others):
        feed.give(app, name, after_ms=-1, until_ms=stretch.first_ms)
        base = store.base_series(app.db, series.exchange, name)
        if store.series_row(app.db, base) is not None:
            store.set_rooted(app.db, base)
    position_ms = stretch.first_ms - tf_ms(series.timeframe)
    signal_store.move_position(app.db, series, app.strategy, position_ms=position_ms)


def _scan(app: App, series: Series, now_ms: int) -> None:
    scan_all(app, now_ms=now_ms, symbols=[series.symbol], timeframes=[series.timeframe])


def _follow_to_the_end(app: App, feed: Feed, stretch: Stretch) -> None:
    after_ms = stretch.last_ms + tf_ms(stretch.series.timeframe)
    symbol = stretch.series.symbol
    while after_ms < stretch.end_ms:
        until_ms = min(after_ms + DAY_MS, stretch.end_ms)
        feed.give(app, symbol, after_ms=after_ms, until_ms=until_ms)
        follow_all(app, now_ms=until_ms)
        after_ms = until_ms


def retro(app: App, feed: Feed, stretch: Stretch) -> None:
    """Scan the same stretch as history."""
    series = stretch.series
    for name in (series.symbol, *stretch.others):
        feed.give(app, name, after_ms=-1, until_ms=stretch.end_ms)
    retro_scan(
        app,
        start_ms=stretch.first_ms,
        end_ms=stretch.last_ms + tf_ms(series.timeframe),
        symbols=[series.symbol],
        timeframes=[series.timeframe],
        workers=1,
    )


# --- the comparison --------------------------------------------------------------------------


def compared(app: App, stretch: Stretch, folder: Path, *, use_model: bool = False) -> Compared:
    """Live through a stretch and scan it as history, in a folder; returns where they differ."""
    feed = feed_of(app.db, app.config, stretch)
    with ExitStack() as stack:
        ours, theirs = (
            stack.enter_context(scratch(app, folder / name, use_model=use_model))
            for name in ("live", "retro")
        )
        live(ours, feed, stretch)
        retro(theirs, feed, stretch)
        found = _rows_compared(stretch.series, _rows(ours.db), _rows(theirs.db))
        found.differences += _funnels_compared(stretch, ours.db, theirs.db)
    return found


def _rows(db: Database) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return the signals by identity, with their features; of open trades without what drifts."""
    found = {}
    for row in db.dicts(
        "SELECT s.*, f.version AS features_version, f.vector"
        " FROM signals s JOIN features f ON f.signal_id = s.id ORDER BY decided_ms, id"
    ):
        state, vector = json.loads(row.pop("exec_state")), row.pop("vector")
        drifts = _DRIFTING if row["closed_ts_ms"] is None else ()
        row |= {f"state {name}": x for name, x in state.items() if name not in drifts}
        values = np.frombuffer(vector, "<f8").tolist()
        row |= {f"feature {name}": x for name, x in zip(features.NAMES, values, strict=True)}
        found[tuple(row[name] for name in signal_store.IDENTITY)] = row
    return found


def _rows_compared(
    series: Series,
    ours: dict[tuple[Any, ...], dict[str, Any]],
    theirs: dict[tuple[Any, ...], dict[str, Any]],
) -> Compared:
    found = Compared()
    for identity in sorted({*ours, *theirs}):
        unlike = list(_unlike(ours.get(identity), theirs.get(identity)))
        row = ours.get(identity) or theirs[identity]
        is_trade = row["opened_ts_ms"] is not None
        found.n_rows += 1
        found.n_same_rows += not unlike
        found.n_trades += is_trade
        found.n_same_trades += is_trade and not unlike
        found.differences += [
            Difference(
                series=series,
                at_ms=row["ts_ms"],
                check="live = retro",
                what=f"{row['setup']} {row['direction']}",
                column=column,
                wanted=retro_value,
                found=live_value,
            )
            for column, live_value, retro_value in unlike
        ]
    return found


def _unlike(
    ours: dict[str, Any] | None, theirs: dict[str, Any] | None
) -> Iterator[tuple[str, Any, Any]]:
    if ours is None or theirs is None:
        yield "row", "none" if ours is None else "there", "none" if theirs is None else "there"
        return
    for column, value in ours.items():
        if column not in ("id", "origin") and not same_bits(value, theirs[column]):
            yield column, value, theirs[column]


def _funnels_compared(stretch: Stretch, ours: Database, theirs: Database) -> Iterator[Difference]:
    """Yield the days on which bars, setups or refusals were counted unlike."""
    counts: dict[tuple[int, str], list[int]] = defaultdict(lambda: [0, 0])
    for i, db in enumerate((ours, theirs)):
        for day_ms, reason, n in db.rows("SELECT day_ms, reason, n FROM funnel"):
            counts[day_ms, reason][i] += n
    for (day_ms, reason), (n_live, n_retro) in sorted(counts.items()):
        if n_live != n_retro:
            yield Difference(
                series=stretch.series,
                at_ms=day_ms,
                check="live = retro",
                what="funnel of the day",
                column=reason,
                wanted=n_retro,
                found=n_live,
            )
