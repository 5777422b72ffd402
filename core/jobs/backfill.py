"""Backfill: downloading the history that is missing, whatever interrupts it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from core.app import App
from core.domain import Candles, Progress, Series, no_progress
from core.errors import ExchangeError
from core.exchange import Exchange
from core.jobs.market_stats import backfill_funding
from core.jobs.sync import (
    derived_timeframes,
    fetch_final,
    record_holes,
    resample_symbol,
    settle_gaps,
    write_bars,
)
from core.store import candles as store
from core.store import gaps as gap_store
from core.store import markets as market_store
from core.timeframe import floor_ms, tf_ms

log = logging.getLogger("trader.backfill")


def backfill(
    app: App,
    *,
    symbols: Sequence[str],
    start_ms: int,
    end_ms: int | None,
    progress: Progress = no_progress,
) -> list[dict[str, Any]]:
    """Download what is missing between two instants, for each symbol; resumes by itself.

    A symbol that fails is reported and the others go on.
    """
    exchange, clock = app.market()
    now_ms = clock.now_ms()
    base = app.config.data.base_timeframe
    until = floor_ms(min(now_ms, end_ms or now_ms), tf_ms(base))
    _store_market_records(app, exchange, symbols, now_ms=now_ms)
    report: dict[str, dict[str, Any]] = {
        symbol: {"symbol": symbol, "new": 0, "error": ""} for symbol in symbols
    }
    steps = (
        partial(_backfill_series, start_ms=start_ms, until_ms=until, progress=progress),
        partial(_finish_backfill, until_ms=until),  # when all are there: did the others trade?
    )
    for step in steps:
        for symbol, row in report.items():
            try:
                if not row["error"]:
                    row["new"] += step(app, exchange, Series(exchange.id, symbol, base))
            except ExchangeError as error:
                log.error("%s is given up for now: %s", symbol, error)
                row["error"] = str(error)
    backfill_funding(app, symbols=symbols, progress=progress)
    return list(report.values())


def _store_market_records(
    app: App, exchange: Exchange, symbols: Sequence[str], *, now_ms: int
) -> None:
    found = exchange.markets(tuple(symbols))
    with app.db.write():
        market_store.upsert_markets(app.db, exchange.id, found.values(), now_ms=now_ms)


def _backfill_series(
    app: App,
    exchange: Exchange,
    series: Series,
    *,
    start_ms: int,
    until_ms: int,
    progress: Progress,
) -> int:
    """Fetch the holes of one series, oldest first; returns the bars stored."""
    step = tf_ms(series.timeframe)
    first = _first_candle_ms(exchange, series, start_ms=start_ms, until_ms=until_ms)
    wanted = _wanted(app, series, first, until_ms)
    total = sum(end - start for start, end in wanted) // step
    n_new = done = 0
    for low, high in wanted:
        start = low
        while start < high:
            page = exchange.page_bars(series.timeframe, start_ms=start, now_ms=until_ms)
            end = min(start + min(page, app.config.backfill.batch_limit) * step, high)
            bars = fetch_final(exchange, series, start_ms=start, end_ms=end, now_ms=until_ms)
            if not len(bars):  # an empty answer proves nothing: ask once more
                bars = fetch_final(exchange, series, start_ms=start, end_ms=end, now_ms=until_ms)
            n_new += len(bars)
            _store_history(app, series, bars, start_ms=start, end_ms=end, now_ms=until_ms)
            done += (end - start) // step
            progress(f"{series.symbol}", done, total)
            start = end
    with app.db.write():
        store.set_rooted(app.db, series)
        if store.checkpoint_of(app.db, series) is None:
            store.move_checkpoint(app.db, series, next_ms=until_ms, now_ms=until_ms)
    return n_new


def _finish_backfill(app: App, exchange: Exchange, series: Series, *, until_ms: int) -> int:
    """Settle the holes that stayed and build the derived bars; returns 0, for nothing is new."""
    settle_gaps(app, exchange, series, now_ms=until_ms, again=True)
    resample_symbol(app.db, series, derived_timeframes(app, series.timeframe), until_ms=until_ms)
    return 0


def _store_history(
    app: App, series: Series, bars: Candles, *, start_ms: int, end_ms: int, now_ms: int
) -> None:
    with app.db.write():
        write_bars(app, series, bars)
        record_holes(app, series, bars, start_ms=start_ms, end_ms=end_ms, now_ms=now_ms)
        known = store.checkpoint_of(app.db, series)
        if known is None or start_ms <= known:
            store.move_checkpoint(app.db, series, next_ms=end_ms, now_ms=now_ms)


def _wanted(app: App, series: Series, start_ms: int, until_ms: int) -> list[tuple[int, int]]:
    """Return the windows of [start, until) without bars; those without trades are not wanted."""
    quiet = [g for g in gap_store.gaps(app.db, series) if g.state == "no_trades"]
    wanted = []
    for hole in gap_store.stored_holes(app.db, series, start_ms=start_ms, end_ms=until_ms):
        inside = [(g.start_ms, g.end_ms) for g in quiet if hole[0] <= g.start_ms < hole[1]]
        wanted += gap_store.without(*hole, inside)
    return wanted


def _first_candle_ms(exchange: Exchange, series: Series, *, start_ms: int, until_ms: int) -> int:
    """Find the listing's first bar by bisection over days, so that no empty years are walked."""
    day = 86_400_000
    low, high = floor_ms(start_ms, day), floor_ms(until_ms, day)

    def has_bars(at_ms: int) -> bool:
        end = min(at_ms + 60 * tf_ms(series.timeframe), until_ms)
        return bool(
            len(exchange.candles(series.symbol, series.timeframe, start_ms=at_ms, end_ms=end))
        )

    if low >= high or has_bars(low):
        return low
    while high - low > day:
        middle = floor_ms((low + high) // 2, day)
        if has_bars(middle):
            high = middle
        else:
            low = middle
    return low
