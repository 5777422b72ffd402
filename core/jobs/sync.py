"""Bringing candles in: the minute's sync of all symbols, and the bars made from them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from core.app import App
from core.domain import Candles, Market, Series
from core.errors import ExchangeError
from core.exchange import Exchange
from core.jobs.fetching import NotInTime, Want, final_candles, in_turn
from core.jobs.readings import SETTLE_MS, count_reads, record_holes, settle_gaps, write_bars
from core.jobs.recorded import Unfinished
from core.jobs.seams import compare, imported_bars
from core.store import candles as store
from core.store import gaps as gap_store
from core.store import markets as market_store
from core.store import signals as signal_store
from core.store.db import Database
from core.timeframe import DAY_MS, MINUTE_MS, floor_ms, tf_ms

log = logging.getLogger("trader.sync")

LIMIT_S = 45.0  # of one sync: a slow exchange must not hold the minute
_FIRST_SYNC_MS = 2 * DAY_MS  # what a first sync fetches; older history is download_data.py's
_REMOVED_MS = 7 * DAY_MS  # at most so much in one sync of a pair that is only followed to its end


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One answer of the exchange: the final bars of a window."""

    want: Want
    bars: Candles
    known_ms: int  # what came before this was asked for when the sync began


def synced_symbols(app: App) -> tuple[str, ...]:
    """Return the symbols whose candles are wanted: those scanned, and those only followed.

    A symbol that was removed from the settings is followed until none of its signals is open.
    """
    base, scanned = app.config.data.base_timeframe, app.config.symbols
    followed = signal_store.followed_symbols(
        app.db, exchange=app.config.exchange.id, base_timeframe=base
    )
    return (*scanned, *(symbol for symbol in followed if symbol not in scanned))


def sync_all(app: App, *, now_ms: int) -> int:
    """Fetch what closed since the last sync, for every symbol; returns the bars stored.

    A symbol that fails is said and left for the next cycle; the others go on. So is one whose
    answers do not come within LIMIT_S. Raises Unfinished where there is more to catch up on than
    fits into that: what came is stored.
    """
    exchange, _ = app.market()
    until_s = time.monotonic() + LIMIT_S
    symbols = synced_symbols(app)
    n_stored, last_pages, behind = 0, [], set[str]()
    failed: dict[str, ExchangeError] = {}
    for page in _pages(app, exchange, symbols, failed, now_ms=now_ms, until_s=until_s):
        if page.want.end_ms == floor_ms(now_ms, tf_ms(page.want.series.timeframe)):
            last_pages.append(page)
        else:
            n_stored += store_page(app, page, now_ms=now_ms)
            behind.add(page.want.series.symbol)
    with app.db.write():  # the minute of all symbols is one commit; asking took no lock
        n_stored += sum(store_page(app, page, now_ms=now_ms) for page in last_pages)
    whole = [page.want.series for page in last_pages]
    unread = settle_gaps(app, exchange, whole, now_ms=now_ms, until_s=until_s)
    for symbol, error in unread.items():
        log.warning("holes of %s wait for the next cycle: %s", symbol, error)
    cut = {symbol for symbol, error in failed.items() if isinstance(error, NotInTime)}
    if behind & cut:
        raise Unfinished(f"{len(behind & cut)} symbols are not caught up after {LIMIT_S:.0f} s")
    if failed and len(failed) == len(symbols):
        raise next(iter(failed.values()))
    return n_stored


def _pages(
    app: App,
    exchange: Exchange,
    symbols: Sequence[str],
    failed: dict[str, ExchangeError],
    *,
    now_ms: int,
    until_s: float,
) -> Iterator[Page]:
    """Yield what the exchange has of every symbol, in time order within each; note who fails."""
    base = app.config.data.base_timeframe
    known, windows = {}, []
    for symbol in symbols:
        series = Series(exchange.id, symbol, base)
        known[symbol] = _known_ms(app, series, now_ms=now_ms)
        start = _start_ms(app, series, known_ms=known[symbol], now_ms=now_ms)
        is_scanned = symbol in app.config.symbols
        until_ms = now_ms if is_scanned else min(now_ms, known[symbol] + _REMOVED_MS)
        windows.append(_windows(app, exchange, series, start_ms=start, now_ms=until_ms))
    wants = (want for want in in_turn(windows) if want.series.symbol not in failed)
    for want, bars in final_candles(exchange, wants, now_ms=now_ms, until_s=until_s):
        symbol = want.series.symbol
        if symbol in failed:
            continue
        if isinstance(bars, ExchangeError):
            failed[symbol] = bars
            log.warning("%s is left for the next cycle: %s", symbol, bars)
        else:
            yield Page(want=want, bars=bars, known_ms=known[symbol])


def _known_ms(app: App, series: Series, *, now_ms: int) -> int:
    known = store.checkpoint_of(app.db, series)
    if known is None:
        first = max(history_start_ms(app), now_ms - _FIRST_SYNC_MS)
        known = floor_ms(first, tf_ms(series.timeframe))
    return known


def _start_ms(app: App, series: Series, *, known_ms: int, now_ms: int) -> int:
    """Return where to read from: an overlap before what is known, and recent holes once due.

    Bars may come late: holes that ended within `data.resample.lookback_minutes` are asked for
    again, ever more rarely, but each time while the series is silent: it may wake any minute.
    """
    step = tf_ms(series.timeframe)
    row = store.series_row(app.db, series)
    is_silent = row is None or row.last_ms is None or row.last_ms + 2 * step < now_ms
    start = known_ms - app.config.incremental.overlap_candles * step
    reach = floor_ms(now_ms - app.config.data.resample.lookback_minutes * MINUTE_MS, step)
    for gap in gap_store.gaps_between(app.db, series, start_ms=reach, end_ms=start):
        if is_silent or gap.next_ms <= now_ms:
            start = min(start, max(gap.start_ms, reach))
    return start


def _windows(
    app: App, exchange: Exchange, series: Series, *, start_ms: int, now_ms: int
) -> list[Want]:
    """Return the windows of one request each from an instant up to now."""
    step = tf_ms(series.timeframe)
    horizon, wants = floor_ms(now_ms, step), []
    while start_ms < horizon:
        page = exchange.page_bars(series.timeframe, start_ms=start_ms, now_ms=now_ms)
        n_bars = min(page, app.config.incremental.batch_limit)
        end_ms = min(start_ms + n_bars * step, horizon)
        wants.append(Want(series, start_ms, end_ms))
        start_ms = end_ms
    return wants


def history_start_ms(app: App) -> int:
    """Return the first instant of history that the settings want."""
    day = app.config.backfill.start_date
    return (day.toordinal() - 719_163) * DAY_MS  # 719163 is 1970-01-01 as a proleptic ordinal


def store_page(app: App, page: Page, *, now_ms: int) -> int:
    """Store one page with its checkpoint and holes in one transaction; returns new bars.

    The checkpoint moves to the page's end only where a later bar, or ten minutes, confirm that
    nothing is still to come; what is missing before it is written down as unknown.
    """
    series, start_ms, end_ms = page.want
    bars, step = page.bars, tf_ms(series.timeframe)
    with app.db.write():
        known_ms = max(page.known_ms, store.checkpoint_of(app.db, series) or 0)
        imported = imported_bars(app.db, series, start_ms=start_ms, end_ms=min(known_ms, end_ms))
        last_end = int(bars.ts_ms[-1]) + step if len(bars) else known_ms
        confirmed = max(last_end, min(end_ms, floor_ms(now_ms - SETTLE_MS, step)))
        n_new = write_bars(app, series, bars)
        if len(imported):
            compare(app.db, series, imported, bars)
        if start_ms < known_ms:
            count_reads(app, series, start_ms=start_ms, end_ms=known_ms, now_ms=now_ms)
        if confirmed > known_ms:
            record_holes(app, series, bars, start_ms=known_ms, end_ms=confirmed, now_ms=now_ms)
            store.move_checkpoint(app.db, series, next_ms=confirmed, now_ms=now_ms)
    return n_new


def frontier_ms(db: Database, series: Series) -> int:
    """Return the instant up to which a base series is settled: known, or known to be missing."""
    asked = store.checkpoint_of(db, series) or 0
    unknown = gap_store.gaps(db, series, state="unknown")
    return min([asked, *(gap.start_ms for gap in unknown)])


def derived_timeframes(app: App, base: str) -> list[str]:
    """Return the timeframes made from a base, finest first: those listed, and those needed."""
    from core.timeframe import higher_timeframes, is_derivable

    wanted = {*app.config.data.derived_timeframes, *app.config.timeframes}
    for timeframe in app.config.timeframes:
        wanted.update(higher_timeframes(timeframe))
    return sorted((t for t in wanted if is_derivable(t, base)), key=tf_ms)


def _source_of(timeframe: str, made: Sequence[str], base: str) -> str:
    """Return the coarsest series a timeframe can be chained from."""
    from core.timeframe import is_derivable

    return max((t for t in (base, *made) if is_derivable(timeframe, t)), key=tf_ms)


def resample_symbol(db: Database, base: Series, timeframes: Sequence[str], *, until_ms: int) -> int:
    """Build the derived bars of one symbol that close by an instant, chained fine to coarse."""
    n_made = 0
    for i, timeframe in enumerate(timeframes):
        source = _source_of(timeframe, timeframes[:i], base.timeframe)
        part = Series(base.exchange, base.symbol, source)
        n_made += store.resample_series(db, part, timeframe, until_ms=until_ms)
    return n_made


def resample_all(app: App, *, now_ms: int) -> int:
    """Build the derived bars that closed by now, for every symbol whose minutes are settled."""
    exchange, _ = app.market()
    base = app.config.data.base_timeframe
    timeframes = derived_timeframes(app, base)
    if not timeframes:
        return 0
    made = {
        row.series: row.derived_to_ms or 0
        for row in store.series_rows(app.db)
        if row.redo_from_ms is None
    }
    n_made = 0
    with app.db.write():
        for symbol in app.config.symbols:
            series = Series(exchange.id, symbol, base)
            until = min(now_ms, frontier_ms(app.db, series))
            due = [
                timeframe
                for timeframe in timeframes
                if floor_ms(until, tf_ms(timeframe))
                > made.get(Series(exchange.id, symbol, timeframe), 0)
            ]
            if due:
                n_made += resample_symbol(app.db, series, timeframes, until_ms=until)
    return n_made


def refresh_markets(app: App, *, now_ms: int, fresh: bool = False) -> int:
    """Store the exchange's market records of the configured symbols; returns how many."""
    exchange, _ = app.market()
    found = exchange.markets(app.config.symbols, fresh=fresh)
    return store_markets(app, exchange, found, now_ms=now_ms)


def store_markets(app: App, exchange: Exchange, found: Mapping[str, Market], *, now_ms: int) -> int:
    """Store market records, saying what is not listed and what has changed; returns how many."""
    for symbol in app.config.symbols:
        if symbol not in found:
            log.warning("%s does not list %s; check `symbols` in the config", exchange.id, symbol)
    with app.db.write():
        changed = market_store.upsert_markets(app.db, exchange.id, found.values(), now_ms=now_ms)
    for symbol in changed:
        log.warning("the market record of %s changed; see the table market_changes", symbol)
    return len(found)
