"""What is stored beside candles: funding with its history, open interest, market records."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from core import funding_files
from core.app import App
from core.domain import FundingRate, Progress, no_progress
from core.errors import ExchangeError, ExchangeUnavailable
from core.exchange import Exchange
from core.funding_law import SETTLE_MS
from core.jobs.sync import history_start_ms, refresh_markets
from core.market_context import REACH_MS
from core.store import candles as candle_store
from core.store import markets as store
from core.store import operation
from core.store.db import Database
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS, floor_ms

log = logging.getLogger("trader.stats")

QUARTER_MS = 15 * MINUTE_MS
BUDGET_S = 20.0  # what is not read by then is left for the next due instant: minutes must not wait
RECORDS = "market_records"  # the mark of the day whose records are stored
_OVERLAP_MS = DAY_MS  # read again each time: rates may be published late, or corrected
_CHUNK_MS = 180 * DAY_MS  # of history, in one transaction


def refresh(app: App, *, due_ms: int) -> int:
    """Read what is due of all perpetuals; returns the values stored.

    A symbol that fails is left for the next due instant and the others go on. Raises the first
    ExchangeError after all were tried; a failed read of open interest is no error, it is skipped.
    """
    exchange, clock = app.market()
    now_ms, stop_s = clock.now_ms(), time.monotonic() + BUDGET_S
    swaps = _swaps(app.config.symbols)
    work: list[Callable[[], int]] = []
    work += [partial(read_recent_funding, app, exchange, s, now_ms=now_ms) for s in swaps]
    if due_ms % QUARTER_MS == 0:
        work += [partial(_read_interest, app, exchange, s) for s in swaps]
    work.append(partial(_read_records, app, now_ms=now_ms))
    work += [partial(_some_history, app, exchange, s, stop_s=stop_s) for s in swaps]
    n_stored, failed = 0, list[ExchangeError]()
    for i, one in enumerate(work):
        if time.monotonic() >= stop_s:
            if i < len(swaps):  # newest funding: trades wait for it, so this look is not done
                failed.append(_slow(exchange, len(swaps) - i))
            break
        try:
            n_stored += one()
        except ExchangeError as error:
            failed.append(error)
            log.warning("left for the next look: %s", error)
    if failed:
        raise failed[0]
    return n_stored


def _slow(exchange: Exchange, n_left: int) -> ExchangeUnavailable:
    return ExchangeUnavailable(
        f"{exchange.id} is slow: the funding of {n_left} symbols was not read in {BUDGET_S:.0f} s;",
        remedy="it is read at the next look",
    )


def _swaps(symbols: Iterable[str]) -> list[str]:
    return [symbol for symbol in symbols if ":" in symbol]


def read_recent_funding(app: App, exchange: Exchange, symbol: str, *, now_ms: int) -> int:
    """Read from the newest settlements known to now, once an hour; returns those stored.

    More often only while a settlement of the last ten minutes is awaited.
    """
    known = store.funding_read_of(app.db, exchange.id, symbol)
    reach = store.funding_frontier_ms(app.db, exchange.id, symbol, until_ms=now_ms)
    if known is not None and known[1] >= floor_ms(now_ms, HOUR_MS) and reach == now_ms:
        return 0
    start_ms = now_ms - REACH_MS if known is None else known[1] - _OVERLAP_MS
    rates = exchange.funding(symbol, start_ms=start_ms, end_ms=now_ms + 1)
    with app.db.write():
        from_ms = start_ms if known is None else known[0]
        store.widen_funding_read(app.db, exchange.id, symbol, from_ms=from_ms, to_ms=now_ms)
        return store_funding(app.db, exchange.id, symbol, rates)


def store_funding(
    db: Database, exchange: str, symbol: str, rates: Sequence[FundingRate], *, replace: bool = True
) -> int:
    """Store settlements and mark the signals that were made without them; returns how many.

    Those have been described or charged without: neither is taken back. Call it in `db.write()`.
    """
    fresh = store.upsert_funding(db, exchange, symbol, rates, replace=replace)
    if fresh:
        known_ms = {"first": fresh[0] + SETTLE_MS, "last": fresh[-1] + SETTLE_MS + REACH_MS}
        db.run(
            "UPDATE signals SET data_revised = 1 WHERE exchange = :exchange AND symbol = :symbol"
            " AND data_revised = 0 AND (decided_ms BETWEEN :first AND :last"
            " OR (opened_ts_ms < :newest AND coalesce(closed_ts_ms, :newest) >= :oldest"
            " AND json_extract(exec_state, '$.walked_ms') >= :oldest))",
            {"exchange": exchange, "symbol": symbol, "oldest": fresh[0], "newest": fresh[-1]}
            | known_ms,
        )
    return len(fresh)


def read_older_funding(app: App, exchange: Exchange, symbol: str) -> Iterator[int]:
    """Read what is older than was asked for, back to the first candle; yields those stored.

    A chunk is a transaction, so that it goes on wherever it was stopped. A chunk that is empty
    twice is the end of what the exchange has, and is never asked for again.
    """
    start_ms = _first_wanted_ms(app, exchange, symbol)
    while known := store.funding_read_of(app.db, exchange.id, symbol):
        from_ms, to_ms = known
        if from_ms <= start_ms:
            return
        low_ms = max(start_ms, from_ms - _CHUNK_MS)
        rates = exchange.funding(symbol, start_ms=low_ms, end_ms=from_ms)
        if not rates and from_ms - low_ms >= REACH_MS:
            rates = exchange.funding(symbol, start_ms=low_ms, end_ms=from_ms)
            low_ms = low_ms if rates else 0
        with app.db.write():
            n_stored = store_funding(app.db, exchange.id, symbol, rates)
            store.widen_funding_read(app.db, exchange.id, symbol, from_ms=low_ms, to_ms=to_ms)
        yield n_stored


def _first_wanted_ms(app: App, exchange: Exchange, symbol: str) -> int:
    row = candle_store.series_row(app.db, candle_store.base_series(app.db, exchange.id, symbol))
    known = row.first_ms if row else None
    return (history_start_ms(app) if known is None else known) - REACH_MS


def _some_history(app: App, exchange: Exchange, symbol: str, *, stop_s: float) -> int:
    n_stored = 0
    for n_more in read_older_funding(app, exchange, symbol):
        n_stored += n_more
        if time.monotonic() >= stop_s:
            break
    return n_stored


def backfill_funding(
    app: App, *, symbols: Sequence[str], progress: Progress = no_progress
) -> dict[str, int]:
    """Read all funding of some symbols, as far back as their candles; returns those stored.

    A symbol that fails is said and the others go on: the scheduler tries again.
    """
    exchange, clock = app.market()
    stored, swaps = dict[str, int](), _swaps(symbols)
    for i, symbol in enumerate(swaps):
        progress(f"funding {symbol}", i, len(swaps))
        try:
            stored[symbol] = read_recent_funding(app, exchange, symbol, now_ms=clock.now_ms())
            stored[symbol] += sum(read_older_funding(app, exchange, symbol))
        except ExchangeError as error:
            log.warning("the funding of %s is left for the scheduler: %s", symbol, error)
    return stored


def import_funding(app: App, paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Store the settlements of files `NAME-funding.parquet` among files and folders.

    What the exchange itself said stays as it is. Repeating it changes nothing. Returns a row per
    file, as `files.import_files` does.
    """
    report = []
    for path, symbol in funding_files.find(paths):
        rates, n_refused = funding_files.read(path)
        with app.db.write():
            n_new = store_funding(app.db, app.config.exchange.id, symbol, rates, replace=False)
        report.append(
            {
                "file": path.name,
                "symbol": symbol,
                "timeframe": "funding",
                "rows": len(rates),
                "new": n_new,
                "refused": {"no_rate": n_refused} if n_refused else {},
                "first_ms": rates[0].ts_ms if rates else None,
                "last_ms": rates[-1].ts_ms if rates else None,
                "origin": "",
                "note": "",
            }
        )
    return report


def _read_interest(app: App, exchange: Exchange, symbol: str) -> int:
    """Read the open interest of now, once in a quarter of an hour; there is no history of it."""
    clock = app.market()[1]
    start_ms = floor_ms(clock.now_ms(), QUARTER_MS)
    known_ms, _ = store.interest_of(
        app.db, exchange.id, symbol, start_ms=start_ms, end_ms=start_ms + QUARTER_MS
    )
    if len(known_ms):
        return 0
    try:
        qty = exchange.open_interest(symbol)
    except ExchangeError as error:
        log.warning("no open interest of %s this time: %s", symbol, error)
        return 0
    if qty is None or not 0 < qty < float("inf"):
        return 0
    return store.insert_interest(app.db, exchange.id, symbol, clock.now_ms(), qty)


def _read_records(app: App, *, now_ms: int) -> int:
    """Store the day's market records, once."""
    day_ms = floor_ms(now_ms, DAY_MS)
    if operation.marks(app.db).get(RECORDS, 0) >= day_ms:
        return 0
    n_stored = refresh_markets(app, now_ms=now_ms, fresh=True)
    operation.move_mark(app.db, RECORDS, done_ms=day_ms)
    return n_stored
