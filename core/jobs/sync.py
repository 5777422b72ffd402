"""Bringing candles in: the minute's sync, and the hole-by-hole bookkeeping around it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.app import App
from core.domain import Candles, Series
from core.errors import ExchangeError
from core.exchange import Exchange
from core.store import candles as store
from core.store import gaps as gap_store
from core.store import markets as market_store
from core.store.db import Database
from core.timeframe import DAY_MS, MINUTE_MS, floor_ms, tf_ms

log = logging.getLogger("trader.sync")

SETTLE_MS = 10 * MINUTE_MS  # a hole not filled within this is taken as missing
_QUIET_MS = 5 * MINUTE_MS  # the longest hole that may mean "nobody traded"
_READS = 3  # as often a hole is asked for before it is settled
_FIRST_SYNC_MS = 2 * DAY_MS  # what a first sync fetches; older history is download_data.py's


def sync_all(app: App, *, now_ms: int) -> int:
    """Fetch what closed since the last sync, for every symbol; returns the bars stored.

    A symbol that fails is said and left for the next cycle; the others go on.
    """
    exchange, _ = app.market()
    n_stored, failed, last_pages = 0, [], []
    for symbol in app.config.symbols:
        series = Series(exchange.id, symbol, app.config.data.base_timeframe)
        try:
            for page in _pages(app, exchange, series, now_ms=now_ms):
                if page.is_last:
                    last_pages.append(page)
                else:
                    n_stored += store_page(app, page, now_ms=now_ms)
        except ExchangeError as error:
            failed.append(f"{symbol}: {error}")
            log.warning("%s is left for the next cycle: %s", symbol, error)
    with app.db.write():  # the minute of all symbols is one commit; asking took no lock
        n_stored += sum(store_page(app, page, now_ms=now_ms) for page in last_pages)
    for page in last_pages:  # after all are stored: whether others traded decides
        try:
            settle_gaps(app, exchange, page.series, now_ms=now_ms)
        except ExchangeError as error:
            log.warning("holes of %s wait for the next cycle: %s", page.series.symbol, error)
    if failed and len(failed) == len(app.config.symbols):
        raise ExchangeError(failed[0])
    return n_stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One answer of the exchange: final bars of [.., end_ms), asked for from `known_ms` on."""

    series: Series
    bars: Candles
    known_ms: int
    end_ms: int
    is_last: bool


def _pages(app: App, exchange: Exchange, series: Series, *, now_ms: int) -> Iterator[Page]:
    """Fetch the final bars of one series up to now, overlap included, page by page.

    It goes back to holes that ended within `data.resample.lookback_minutes`: bars may come late.
    """
    step = tf_ms(series.timeframe)
    known = store.checkpoint_of(app.db, series)
    horizon = floor_ms(now_ms, step)
    if known is None:
        known = floor_ms(max(history_start_ms(app), now_ms - _FIRST_SYNC_MS), step)
    start = known - app.config.incremental.overlap_candles * step
    reach = floor_ms(now_ms - app.config.data.resample.lookback_minutes * MINUTE_MS, step)
    for gap in gap_store.gaps_between(app.db, series, start_ms=reach, end_ms=start):
        start = min(start, max(gap.start_ms, reach))
    while start < horizon:
        page = min(
            exchange.page_bars(series.timeframe, start_ms=start, now_ms=now_ms),
            app.config.incremental.batch_limit,
        )
        end = min(start + page * step, horizon)
        bars = fetch_final(exchange, series, start_ms=start, end_ms=end, now_ms=now_ms)
        yield Page(series=series, bars=bars, known_ms=known, end_ms=end, is_last=end == horizon)
        start = end
        known = max(known, store.checkpoint_of(app.db, series) or known)


def history_start_ms(app: App) -> int:
    """Return the first instant of history that the settings want."""
    day = app.config.backfill.start_date
    return (day.toordinal() - 719_163) * DAY_MS  # 719163 is 1970-01-01 as a proleptic ordinal


def fetch_final(
    exchange: Exchange, series: Series, *, start_ms: int, end_ms: int, now_ms: int
) -> Candles:
    """Return the bars of a window that are final by the exchange's clock."""
    bars = exchange.candles(series.symbol, series.timeframe, start_ms=start_ms, end_ms=end_ms)
    return bars[: bars.closed_by(now_ms)]


def store_page(app: App, page: Page, *, now_ms: int) -> int:
    """Store one page with its checkpoint and holes in one transaction; returns new bars.

    The checkpoint moves to the page's end only where a later bar, or ten minutes, confirm that
    nothing is still to come; what is missing before it is written down as unknown.
    """
    series, bars, known_ms, end_ms = page.series, page.bars, page.known_ms, page.end_ms
    step = tf_ms(series.timeframe)
    last_end = int(bars.ts_ms[-1]) + step if len(bars) else known_ms
    confirmed = max(last_end, min(end_ms, floor_ms(now_ms - SETTLE_MS, step)))
    with app.db.write():
        n_new = write_bars(app, series, bars)
        if confirmed > known_ms:
            record_holes(app, series, bars, start_ms=known_ms, end_ms=confirmed, now_ms=now_ms)
            store.move_checkpoint(app.db, series, next_ms=confirmed, now_ms=now_ms)
    return n_new


def write_bars(app: App, series: Series, bars: Candles) -> int:
    """Store bars and mark the signals that had used one of other values; returns new bars."""
    written = store.upsert_candles(app.db, series, bars)
    if len(written.revised_ms):
        first, last = int(written.revised_ms[0]), int(written.revised_ms[-1])
        app.db.run(
            "UPDATE signals SET data_revised = 1 WHERE exchange = ? AND symbol = ?"
            " AND p0_ms <= ? AND (closed_ts_ms IS NULL OR closed_ts_ms > ?)",
            (series.exchange, series.symbol, last, first),
        )
    return written.n_new


def record_holes(
    app: App, series: Series, bars: Candles, *, start_ms: int, end_ms: int, now_ms: int
) -> None:
    """Write down what a window lacks as unknown; before a series' first bar nothing is missing."""
    row = store.series_row(app.db, series)
    if row is None or row.first_ms is None:
        return
    holes = gap_store.holes_in(bars, start_ms=max(start_ms, row.first_ms), end_ms=end_ms)
    gap_store.record_gaps(app.db, series, holes, state="unknown", now_ms=now_ms)


def settle_gaps(
    app: App, exchange: Exchange, series: Series, *, now_ms: int, again: bool = False
) -> None:
    """Read unknown holes again; what stays empty becomes `no_trades` or `missing`.

    A hole met only after its ten minutes, as after downtime, is read three times at once: so it
    comes to the same as if we had been there. `again`: `missing` ones too that may be quiet.
    """
    for gap in gap_store.gaps(app.db, series):
        look = gap.state == "unknown"
        if again and gap.state == "missing":
            look = _is_quiet(app.db, series, gap) and _others_traded(app.db, series, gap)
        is_old = now_ms - gap.end_ms >= SETTLE_MS
        n_reads = max(1, _READS - gap.n_reads) if is_old else 1
        for _ in range(n_reads if look else 0):
            bars = fetch_final(
                exchange, series, start_ms=gap.start_ms, end_ms=gap.end_ms, now_ms=now_ms
            )
            with app.db.write():
                write_bars(app, series, bars)
                n_left = _settle(app.db, series, gap, now_ms=now_ms)
            if not n_left:
                break


def _settle(db: Database, series: Series, read: gap_store.Gap, *, now_ms: int) -> int:
    """Count one more read of what is left of a hole, settle what can be; returns what cannot."""
    n_left = 0
    for gap in gap_store.gaps_between(db, series, start_ms=read.start_ms, end_ms=read.end_ms):
        if gap.state != read.state:
            continue
        gap_store.count_read(db, series, gap.start_ms)
        n_reads = gap.n_reads + 1
        if n_reads >= _READS and _is_quiet(db, series, gap) and _others_traded(db, series, gap):
            gap_store.settle_gap(db, series, gap, state="no_trades")
            store.reopen_derived(db, series, gap.start_ms)
        elif now_ms - gap.end_ms >= SETTLE_MS and n_reads >= _READS and read.state == "unknown":
            gap_store.settle_gap(db, series, gap, state="missing")
        else:
            n_left += 1
    return n_left


def _is_quiet(db: Database, series: Series, gap: gap_store.Gap) -> bool:
    """Say whether at most five minutes lie between the bars on either side of a hole."""
    step = tf_ms(series.timeframe)
    around = store.read_candles(
        db, series, start_ms=gap.end_ms - _QUIET_MS - step, end_ms=gap.start_ms + _QUIET_MS + 1
    ).ts_ms
    before, after = around[around < gap.start_ms], around[around >= gap.end_ms]
    return bool(len(before) and len(after) and after[0] - before[-1] - step <= _QUIET_MS)


def _others_traded(db: Database, series: Series, gap: gap_store.Gap) -> bool:
    """Say whether every minute of a hole has a bar of some other symbol."""
    lacking = set(range(gap.start_ms, gap.end_ms, tf_ms(series.timeframe)))
    for row in store.series_rows(db):
        other = row.series
        if other._replace(symbol=series.symbol) == series and other != series:
            bars = store.read_candles(db, other, start_ms=gap.start_ms, end_ms=gap.end_ms)
            lacking.difference_update(bars.ts_ms.tolist())
            if not lacking:
                return True
    return False


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
    made = {row.series: row.derived_to_ms or 0 for row in store.series_rows(app.db)}
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
    for symbol in app.config.symbols:
        if symbol not in found:
            log.warning("%s does not list %s; check `symbols` in the config", exchange.id, symbol)
    with app.db.write():
        changed = market_store.upsert_markets(app.db, exchange.id, found.values(), now_ms=now_ms)
    for symbol in changed:
        log.warning("the market record of %s changed; see the table market_changes", symbol)
    return len(found)
