"""What is stored beside candles: funding with its history, open interest, market records."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core.app import App
from core.domain import FundingRate, Market, Progress, no_progress
from core.errors import ExchangeError, ExchangeUnavailable
from core.exchange import Exchange
from core.funding_law import SETTLE_MS
from core.jobs.fetching import NotInTime, answered, not_in_time
from core.jobs.sync import history_start_ms, store_markets, synced_symbols
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


class Span(NamedTuple):
    """A stretch of one symbol's settlements to be asked for, and what is known around it."""

    symbol: str
    start_ms: int
    end_ms: int
    known: tuple[int, int] | None  # what was asked for before: from, to


def refresh(app: App, *, due_ms: int) -> int:
    """Read what is due of all perpetuals, as many at once as there are lanes; returns the values.

    A symbol that fails is left for the next due instant and the others go on. Raises the first
    ExchangeError after all were tried; a failed read of open interest is no error, it is skipped.
    """
    exchange, clock = app.market()
    now_ms, stop_s = clock.now_ms(), time.monotonic() + BUDGET_S
    swaps = _swaps(app.config.symbols)
    failed = dict[str, ExchangeError]()
    charged = _swaps(synced_symbols(app))  # trades of removed pairs wait for their funding, too
    spans = [s for name in charged if (s := _recent(app, exchange, name, now_ms=now_ms))]
    n_stored = _read(app, exchange, spans, failed, stop_s=stop_s)
    n_slow = sum(isinstance(error, NotInTime) for error in failed.values())
    if due_ms % QUARTER_MS == 0:
        n_stored += _read_interest(app, exchange, swaps, stop_s=stop_s)
    n_stored += _read_records(app, exchange, failed, now_ms=now_ms, stop_s=stop_s)
    while swaps and time.monotonic() < stop_s:
        spans = [s for name in swaps if name not in failed and (s := _older(app, exchange, name))]
        swaps = [span.symbol for span in spans]
        n_stored += _read(app, exchange, spans, failed, stop_s=stop_s)
    if n_slow:  # newest funding: trades wait for it, so this look is not done
        raise _slow(exchange, n_slow)
    for error in failed.values():
        if not isinstance(error, NotInTime):
            raise error
    return n_stored


def _slow(exchange: Exchange, n_left: int) -> ExchangeUnavailable:
    return ExchangeUnavailable(
        f"{exchange.id} is slow: the funding of {n_left} symbols was not read in {BUDGET_S:.0f} s;",
        remedy="it is read at the next look",
    )


def _swaps(symbols: Iterable[str]) -> list[str]:
    return [symbol for symbol in symbols if ":" in symbol]


def _read(
    app: App,
    exchange: Exchange,
    spans: Iterable[Span],
    failed: dict[str, ExchangeError],
    *,
    stop_s: float = math.inf,
) -> int:
    """Ask for some spans and store each as it comes, a transaction each; note who fails."""

    def ask(span: Span) -> tuple[int, list[FundingRate]] | ExchangeError:
        try:
            return _asked(exchange, span)
        except ExchangeError as error:
            return error

    def late(span: Span) -> ExchangeError:
        return not_in_time(exchange, f"the funding of {span.symbol}")

    n_stored = 0
    for span, found in answered(exchange, ask, spans, until_s=stop_s, late=late):
        if isinstance(found, ExchangeError):
            failed[span.symbol] = found
            log.warning("left for the next look: %s", found)
        else:
            n_stored += _store(app, exchange, span, *found)
    return n_stored


def _asked(exchange: Exchange, span: Span) -> tuple[int, list[FundingRate]]:
    """Return the settlements of a span, and the instant from which it is known now.

    A chunk of history that is empty twice is the end of what the exchange has: 0.
    """
    rates = exchange.funding(span.symbol, start_ms=span.start_ms, end_ms=span.end_ms)
    is_history = span.known is not None and span.end_ms <= span.known[0]
    if is_history and not rates and span.end_ms - span.start_ms >= REACH_MS:
        rates = exchange.funding(span.symbol, start_ms=span.start_ms, end_ms=span.end_ms)
        return (span.start_ms if rates else 0), rates
    return span.start_ms, rates


def _store(
    app: App, exchange: Exchange, span: Span, from_ms: int, rates: Sequence[FundingRate]
) -> int:
    known = span.known or (from_ms, span.end_ms - 1)
    with app.db.write():
        store.widen_funding_read(
            app.db,
            exchange.id,
            span.symbol,
            from_ms=min(known[0], from_ms),
            to_ms=max(known[1], span.end_ms - 1),
        )
        return store_funding(app.db, exchange.id, span.symbol, rates)


def _recent(app: App, exchange: Exchange, symbol: str, *, now_ms: int) -> Span | None:
    """Return what is to be asked of the newest settlements known to now: once an hour.

    More often only while a settlement of the last ten minutes is awaited.
    """
    known = store.funding_read_of(app.db, exchange.id, symbol)
    reach = store.funding_frontier_ms(app.db, exchange.id, symbol, until_ms=now_ms)
    if known is not None and known[1] >= floor_ms(now_ms, HOUR_MS) and reach == now_ms:
        return None
    start_ms = now_ms - REACH_MS if known is None else known[1] - _OVERLAP_MS
    return Span(symbol, start_ms, now_ms + 1, known)


def _older(app: App, exchange: Exchange, symbol: str) -> Span | None:
    """Return the newest chunk of what is older than was asked for, back to the first candle."""
    known = store.funding_read_of(app.db, exchange.id, symbol)
    start_ms = _first_wanted_ms(app, exchange, symbol)
    if known is None or known[0] <= start_ms:
        return None
    return Span(symbol, max(start_ms, known[0] - _CHUNK_MS), known[0], known)


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


def _first_wanted_ms(app: App, exchange: Exchange, symbol: str) -> int:
    row = candle_store.series_row(app.db, candle_store.base_series(app.db, exchange.id, symbol))
    known = row.first_ms if row else None
    return (history_start_ms(app) if known is None else known) - REACH_MS


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
        failed = dict[str, ExchangeError]()
        span = _recent(app, exchange, symbol, now_ms=clock.now_ms())
        stored[symbol] = _read(app, exchange, [span] if span else [], failed)
        while not failed and (span := _older(app, exchange, symbol)):
            stored[symbol] += _read(app, exchange, [span], failed)
    return stored


def import_funding(app: App, paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Store the settlements of files `NAME-funding.parquet` among files and folders.

    All files are read before the first is stored. What the exchange itself said stays as it is.
    Repeating it changes nothing. Returns a row per file, as `files.import_files` does.
    """
    from core import funding_files  # with it comes pyarrow: 25 MB that the scheduler can do without

    report = []
    found = [(path, symbol, funding_files.read(path)) for path, symbol in funding_files.find(paths)]
    for path, symbol, (rates, n_refused) in found:
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


def _read_interest(app: App, exchange: Exchange, symbols: Sequence[str], *, stop_s: float) -> int:
    """Read the open interest of now, once in a quarter of an hour; there is no history of it."""
    clock = app.market()[1]
    start_ms = floor_ms(clock.now_ms(), QUARTER_MS)
    span = {"start_ms": start_ms, "end_ms": start_ms + QUARTER_MS}
    due = [s for s in symbols if not len(store.interest_of(app.db, exchange.id, s, **span)[0])]

    def ask(symbol: str) -> tuple[float | None, int]:
        try:
            return exchange.open_interest(symbol), clock.now_ms()
        except ExchangeError as error:
            log.warning("no open interest of %s this time: %s", symbol, error)
            return None, 0

    n_stored = 0
    for symbol, (qty, at_ms) in answered(
        exchange, ask, due, until_s=stop_s, late=lambda _: (None, 0)
    ):
        if qty is not None and 0 < qty < float("inf"):
            n_stored += store.insert_interest(app.db, exchange.id, symbol, at_ms, qty)
    return n_stored


def _read_records(
    app: App, exchange: Exchange, failed: dict[str, ExchangeError], *, now_ms: int, stop_s: float
) -> int:
    """Store the day's market records, once."""
    day_ms = floor_ms(now_ms, DAY_MS)
    if operation.marks(app.db).get(RECORDS, 0) >= day_ms:
        return 0

    def ask(symbols: tuple[str, ...]) -> dict[str, Market] | ExchangeError:
        try:
            return exchange.markets(symbols, fresh=True)
        except ExchangeError as error:
            return error

    def late(_: tuple[str, ...]) -> ExchangeError:
        return not_in_time(exchange, "its market records")

    wants = [app.config.symbols]
    ((_, found),) = answered(exchange, ask, wants, until_s=stop_s, late=late)
    if isinstance(found, ExchangeError):
        failed[RECORDS] = found
        return 0
    n_stored = store_markets(app, exchange, found, now_ms=now_ms)
    operation.move_mark(app.db, RECORDS, done_ms=day_ms)
    return n_stored
