"""Backfill: the history that is missing, newest first, over all symbols, whatever interrupts it."""

from __future__ import annotations

import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from core.app import App
from core.domain import Candles, Progress, Series, no_progress
from core.errors import ExchangeError, ExchangeUnavailable, StoreError
from core.exchange import Exchange
from core.exchange.lanes import PACE_SLACK
from core.jobs.backfill_plan import (
    SLICE_MS,
    Plan,
    first_candle_ms,
    seeded_timeframes,
    slices,
)
from core.jobs.fetching import Want, answered, final_candles, in_turn
from core.jobs.market_stats import backfill_funding
from core.jobs.readings import SETTLE_MS, settle_gaps, write_bars
from core.jobs.seams import (
    LEAST_COMPARED,
    check_seams,
    compare,
    imported_bars,
    record_download,
)
from core.jobs.sync import derived_timeframes, resample_symbol
from core.store import candles as store
from core.store import gaps as gap_store
from core.store import markets as market_store
from core.store import sources as source_store
from core.timeframe import floor_ms, tf_ms

log = logging.getLogger("trader.backfill")

PASSES = 3  # a symbol that could not be reached is tried again when the others are done
_PAUSE_S = 10.0  # before the second pass; three times as long before each further one
_BYTES_PER_BAR = 53.0  # see docs/decisions/candle-layout.md


def backfill(
    app: App,
    *,
    symbols: Sequence[str],
    start_ms: int,
    end_ms: int | None,
    progress: Progress = no_progress,
    announce: Callable[[Plan], None] = lambda _: None,
    passes: int = PASSES,
    pause: Callable[[float], None] = time.sleep,
) -> list[dict[str, Any]]:
    """Download what is missing between two instants, for each symbol; resumes by itself.

    Newest first: what the scan's windows need comes in for all symbols before older history does.
    A symbol that fails is reported and the others go on; `announce` gets the plan before the first
    candle is asked for. Returns a row per symbol: its range, `new` bars, the minutes that stay
    `missing` or had `no_trades`, and the `error`, if any. Raises StoreError where the disk is too
    full for it.
    """
    exchange, clock = app.market()
    now_ms = clock.now_ms()
    until_ms = floor_ms(min(now_ms, end_ms or now_ms), tf_ms(app.config.data.base_timeframe))
    work = _Backfill(app, exchange, symbols, until_ms=until_ms, progress=progress)
    work.prepare(start_ms)
    plan = work.plan()
    announce(plan)
    free_bytes = shutil.disk_usage(app.db.path.parent).free
    if plan.n_bytes > free_bytes:
        raise StoreError(
            f"the history needs about {plan.n_bytes / 1e9:.1f} GB, {free_bytes / 1e9:.1f} GB are"
            f" free beside {app.db.path};",
            remedy="make room, or begin later with --start or backfill.start_date",
        )
    for number in range(passes):
        work.run()
        if not work.unreached or number == passes - 1:
            break
        log.warning("%s could not be reached; another try follows", ", ".join(work.unreached))
        pause(_PAUSE_S * 3**number)
        work.forgive()
        work.prepare(start_ms)
    backfill_funding(app, symbols=symbols, progress=progress)
    return [work.row(symbol) for symbol in symbols]


def planned(app: App, *, symbols: Sequence[str], start_ms: int) -> Plan:
    """Return what a backfill of some symbols up to now would ask for; no candle is stored."""
    exchange, clock = app.market()
    until_ms = floor_ms(clock.now_ms(), tf_ms(app.config.data.base_timeframe))
    work = _Backfill(app, exchange, symbols, until_ms=until_ms, progress=no_progress)
    work.prepare(start_ms)
    return work.plan()


class _Backfill:
    """One run over some symbols; `errors` holds why a symbol was given up."""

    def __init__(
        self,
        app: App,
        exchange: Exchange,
        symbols: Sequence[str],
        *,
        until_ms: int,
        progress: Progress,
    ) -> None:
        self.app = app
        self.exchange = exchange
        self.base = app.config.data.base_timeframe
        self.series = {symbol: Series(exchange.id, symbol, self.base) for symbol in symbols}
        self.until_ms = until_ms
        self.first_ms: dict[str, int] = {}
        self.errors: dict[str, ExchangeError] = {}
        self.n_new: Counter[str] = Counter()
        self._progress = progress
        self._n_done: Counter[str] = Counter()
        self._n_wanted: Counter[str] = Counter()

    @property
    def unreached(self) -> list[str]:
        """The symbols given up for a reason that may pass."""
        return [s for s, error in self.errors.items() if isinstance(error, ExchangeUnavailable)]

    def row(self, symbol: str) -> dict[str, Any]:
        """Return what a symbol has come to."""
        series, step = self.series[symbol], tf_ms(self.base)
        stored = store.series_row(self.app.db, series)
        lacking: Counter[str] = Counter()
        for gap in gap_store.gaps(self.app.db, series):
            lacking[gap.state] += (gap.end_ms - gap.start_ms) // step
        return {
            "symbol": symbol,
            "first_ms": stored.first_ms if stored else None,
            "last_ms": stored.last_ms if stored else None,
            "new": self.n_new[symbol],
            "missing": lacking["missing"] + lacking["unknown"],
            "no_trades": lacking["no_trades"],
            "error": str(self.errors.get(symbol, "")),
        }

    def forgive(self) -> None:
        """Take the symbols that could not be reached back into the work."""
        for symbol in self.unreached:
            del self.errors[symbol]

    def prepare(self, start_ms: int) -> None:
        """Store the market records and find where each symbol's history begins, if need be."""
        found = self.exchange.markets(tuple(self.series))
        with self.app.db.write():
            market_store.upsert_markets(
                self.app.db, self.exchange.id, found.values(), now_ms=self.until_ms
            )

        def first(symbol: str) -> int | ExchangeError:
            try:
                return first_candle_ms(
                    self.exchange, self.series[symbol], start_ms=start_ms, until_ms=self.until_ms
                )
            except ExchangeError as error:
                return error

        unlisted = self.series.keys() - found.keys() if found else set[str]()
        for symbol in unlisted:
            self._give_up(symbol, _unlisted(self.exchange, symbol))
        unknown = [s for s in self.series if s not in unlisted and s not in self.first_ms]
        for symbol, found_ms in answered(self.exchange, first, unknown):
            if isinstance(found_ms, ExchangeError):
                self._give_up(symbol, found_ms)
            else:
                self.first_ms[symbol] = found_ms
                wanted = self._wanted(symbol, found_ms, self.until_ms)
                self._n_wanted[symbol] = sum(b - a for a, b in wanted) // tf_ms(self.base)

    def plan(self) -> Plan:
        """Return what is about to be asked for."""
        page = self.exchange.page_bars(self.base, start_ms=self.until_ms, now_ms=self.until_ms)
        n_bars = sum(self._n_wanted.values())
        n_requests = sum(-(-n // page) for n in self._n_wanted.values())
        derived = derived_timeframes(self.app, self.base)
        share = 1 + sum(tf_ms(self.base) / tf_ms(timeframe) for timeframe in derived)
        return Plan(
            n_symbols=len(self.first_ms),
            n_bars=n_bars,
            n_requests=n_requests,
            seconds=n_requests * self.app.config.exchange.rate_limit_ms / 1000 * PACE_SLACK,
            n_bytes=int(n_bars * share * _BYTES_PER_BAR),
            first_ms=min(self.first_ms.values(), default=self.until_ms),
        )

    def run(self) -> None:
        """Do all that is left for the symbols that are not given up."""
        for symbol in self._living():
            self._progress(symbol, self._n_done[symbol], self._n_wanted[symbol])
        self._catch_up()
        oldest_ms = min(self.first_ms.values(), default=self.until_ms)
        spans = slices(self.app.config, oldest_ms=oldest_ms, until_ms=self.until_ms)
        for i, (low, high) in enumerate(spans):
            self._slice(low, high)
            if i == 0:  # not sooner: the finest bars stored are taken for a series' base
                self._seed()

    def _living(self) -> list[str]:
        return [symbol for symbol in self.first_ms if symbol not in self.errors]

    def _give_up(self, symbol: str, error: ExchangeError) -> None:
        log.error("%s is given up for now: %s", symbol, error)
        self.errors[symbol] = error

    def _catch_up(self) -> None:
        """Fetch what closed since a series was last asked for: oldest first, as the sync does.

        Else the checkpoint would stand beyond bars that nobody has asked for yet.
        """
        lists = []
        for symbol in self._living():
            known_ms = store.checkpoint_of(self.app.db, self.series[symbol])
            if known_ms is not None and known_ms < self.until_ms:
                lists.append(self._windows(symbol, known_ms, self.until_ms)[::-1])
        self._fetch(in_turn(lists))

    def _seed(self) -> None:
        """Fetch the longest context windows as the exchange's own bars; see `seeded_timeframes`."""
        settled_ms = self.until_ms - SETTLE_MS
        wants = []
        for timeframe in seeded_timeframes(self.app.config):
            step = tf_ms(timeframe)
            reach_ms = self.app.config.signals.lookback_candles * step + SLICE_MS
            for symbol in self._living() if self.exchange.serves(timeframe) else ():
                row = store.series_row(self.app.db, self.series[symbol])
                start_ms = max(self.first_ms[symbol], self.until_ms - reach_ms)
                if row is None or row.first_ms is None or row.first_ms > start_ms:
                    series = Series(self.exchange.id, symbol, timeframe)
                    start_ms = -floor_ms(-start_ms, step)
                    wants.append(Want(series, start_ms, floor_ms(settled_ms, step)))
        for want, bars in final_candles(self.exchange, wants, now_ms=settled_ms):
            if isinstance(bars, ExchangeError):
                log.warning("%s %s come later: %s", want.series.symbol, want.series.timeframe, bars)
            elif len(bars):
                self._store_seed(want.series, bars)

    def _store_seed(self, series: Series, bars: Candles) -> None:
        with self.app.db.write():
            write_bars(self.app, series, bars)
            store.record_source(
                self.app.db,
                series,
                kind="native",
                name=self.exchange.id,
                first_ms=int(bars.ts_ms[0]),
                last_ms=int(bars.ts_ms[-1]),
                n_rows=len(bars),
            )
            if bars.ts_ms[0] <= self.first_ms[series.symbol]:
                store.set_rooted(self.app.db, series)

    def _slice(self, low: int, high: int) -> None:
        """Fetch one slice of all symbols, settle its holes and build its derived bars."""
        lists = [self._windows(symbol, low, high) for symbol in self._living()]
        self._fetch(in_turn(lists))
        self._look_before(low)
        names = [self.series[symbol] for symbol in self._living()]
        for symbol, error in settle_gaps(
            self.app, self.exchange, names, now_ms=self.until_ms, again=True
        ).items():
            self._give_up(symbol, error)
        for symbol in self._living():
            series = self.series[symbol]
            timeframes = derived_timeframes(self.app, self.base)
            resample_symbol(self.app.db, series, timeframes, until_ms=self.until_ms)
            check_seams(self.app.db, series)
            if low <= self.first_ms[symbol]:
                self._root(series)

    def _look_before(self, low: int) -> None:
        """Ask once more for what lies just before a beginning: no hole says that it is missing."""
        firsts: dict[str, int] = {}
        while True:
            wants = []
            for symbol in self._living():
                row = store.series_row(self.app.db, self.series[symbol])
                if row is None or row.first_ms is None or row.first_ms == firsts.get(symbol):
                    continue
                firsts[symbol] = row.first_ms
                if low <= self.first_ms[symbol] < row.first_ms:
                    wants += self._windows(symbol, self.first_ms[symbol], row.first_ms)[:1]
            if not wants:
                return
            self._fetch(wants)

    def _root(self, series: Series) -> None:
        with self.app.db.write():
            if store.series_row(self.app.db, series) is not None:
                store.set_rooted(self.app.db, series)

    def _windows(self, symbol: str, low: int, high: int) -> list[Want]:
        """Return what a symbol lacks in a span as windows of one request each, newest first."""
        step = tf_ms(self.base)
        page = self.exchange.page_bars(self.base, start_ms=low, now_ms=self.until_ms)
        page_ms = min(page, self.app.config.backfill.batch_limit) * step
        wants = []
        for hole in reversed(self._wanted(symbol, low, high)):
            start, end = self._with_neighbours(symbol, *hole)
            edges = range(end, start, -page_ms)
            wants += [Want(self.series[symbol], max(start, edge - page_ms), edge) for edge in edges]
        return wants

    def _with_neighbours(self, symbol: str, start: int, end: int) -> tuple[int, int]:
        """Widen a hole beside an import by some of its bars, to see whether both are one market."""
        series, step = self.series[symbol], tf_ms(self.base)
        db, pad_ms = self.app.db, LEAST_COMPARED * step
        if not source_store.imports_between(db, series, start_ms=start - step, end_ms=end + step):
            return start, end
        return start - pad_ms, min(end + pad_ms, self.until_ms)

    def _wanted(self, symbol: str, low: int, high: int) -> list[tuple[int, int]]:
        """Return the runs of a span without bars; those without trades are not wanted."""
        series, low = self.series[symbol], max(low, self.first_ms[symbol])
        wanted = []
        for hole in gap_store.stored_holes(self.app.db, series, start_ms=low, end_ms=high):
            known = gap_store.gaps_between(self.app.db, series, start_ms=hole[0], end_ms=hole[1])
            quiet = [(g.start_ms, g.end_ms) for g in known if g.state == "no_trades"]
            wanted += gap_store.without(*hole, quiet)
        return wanted

    def _fetch(self, wants: Iterable[Want]) -> None:
        """Fetch and store windows; a symbol that fails is left out from then on."""
        left = (want for want in wants if want.series.symbol not in self.errors)
        for want, bars in final_candles(self.exchange, left, now_ms=self.until_ms):
            symbol = want.series.symbol
            if symbol in self.errors:
                continue
            if isinstance(bars, ExchangeError):
                self._give_up(symbol, bars)
                continue
            self.n_new[symbol] += self._store(want, bars)
            self._n_done[symbol] += (want.end_ms - want.start_ms) // tf_ms(self.base)
            total = max(self._n_wanted[symbol], self._n_done[symbol])
            self._progress(symbol, self._n_done[symbol], total)

    def _store(self, want: Want, bars: Candles) -> int:
        """Store a window with its holes and its checkpoint; returns new bars."""
        db, (series, start_ms, end_ms) = self.app.db, want
        with db.write():
            before, known_ms = store.series_row(db, series), store.checkpoint_of(db, series)
            imported = imported_bars(db, series, start_ms=start_ms, end_ms=end_ms)
            n_new = write_bars(self.app, series, bars)
            if len(imported):
                record_download(db, series, bars)
                compare(db, series, imported, bars)
            now = store.series_row(db, series)
            if now is not None and now.first_ms is not None:
                newer_ms = before.first_ms if before and before.first_ms else known_ms
                holes = gap_store.stored_holes(
                    db,
                    series,
                    start_ms=max(start_ms, now.first_ms),
                    end_ms=max(end_ms, newer_ms or end_ms) if now.first_ms < end_ms else end_ms,
                )
                gap_store.record_gaps(db, series, holes, state="unknown", now_ms=self.until_ms)
            if known_ms is None or start_ms <= known_ms:
                store.move_checkpoint(db, series, next_ms=end_ms, now_ms=self.until_ms)
        return n_new


def _unlisted(exchange: Exchange, symbol: str) -> ExchangeError:
    return ExchangeError(
        f"{exchange.id} does not list {symbol};",
        remedy="correct symbols: BTC/USDT is spot, BTC/USDT:USDT the perpetual",
    )
