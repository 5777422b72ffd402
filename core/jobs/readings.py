"""A reading of the exchange into the database: its bars, what they revise, the holes it leaves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from core.app import App
from core.candle_law import holes_in
from core.domain import Candles, Ints, Series
from core.errors import ExchangeError
from core.exchange import Exchange
from core.jobs.fetching import Want, final_candles
from core.store import candles as store
from core.store import gaps as gap_store
from core.store.db import Database
from core.store.gaps import Gap
from core.timeframe import MINUTE_MS, tf_ms

SETTLE_MS = 10 * MINUTE_MS  # a hole not filled within this is taken as missing
_QUIET_MS = 5 * MINUTE_MS  # the longest hole that may mean "nobody traded"
_READS = 3  # as often a hole is asked for before it is settled
_LONGEST_WAIT_MS = 16 * MINUTE_MS


def write_bars(app: App, series: Series, bars: Candles) -> int:
    """Store bars and mark the signals that had used one of other values; returns new bars.

    Or that had gone by a settled hole which one of them fills.
    """
    filling_ms = _filling(app.db, series, bars)
    written = store.upsert_candles(app.db, series, bars)
    changed_ms = np.union1d(written.revised_ms, filling_ms)
    if len(changed_ms):
        first, last = int(changed_ms[0]), int(changed_ms[-1])
        app.db.run(
            "UPDATE signals SET data_revised = 1 WHERE exchange = ? AND symbol = ?"
            " AND p0_ms <= ? AND (closed_ts_ms IS NULL OR closed_ts_ms > ?)",
            (series.exchange, series.symbol, last, first),
        )
    return written.n_new


def _filling(db: Database, series: Series, bars: Candles) -> Ints:
    """Return the opens of bars that lie in settled holes, in time order."""
    opens_ms = bars.ts_ms
    inside = np.zeros(len(opens_ms), np.bool_)
    span = (int(opens_ms[0]), int(opens_ms[-1]) + 1) if len(opens_ms) else (0, 0)
    for gap in gap_store.gaps_between(db, series, start_ms=span[0], end_ms=span[1]):
        if gap.state != "unknown":
            low, high = np.searchsorted(opens_ms, (gap.start_ms, gap.end_ms))
            inside[low:high] = True
    return opens_ms[inside]


def record_holes(
    app: App, series: Series, bars: Candles, *, start_ms: int, end_ms: int, now_ms: int
) -> None:
    """Write down what a window lacks as unknown; before a series' first bar nothing is missing."""
    row = store.series_row(app.db, series)
    if row is None or row.first_ms is None:
        return
    holes = holes_in(bars, start_ms=max(start_ms, row.first_ms), end_ms=end_ms)
    gap_store.record_gaps(app.db, series, holes, state="unknown", now_ms=now_ms)


def count_reads(app: App, series: Series, *, start_ms: int, end_ms: int, now_ms: int) -> None:
    """Say that the settled holes inside a window were asked for once more, in vain."""
    for gap in gap_store.gaps_between(app.db, series, start_ms=start_ms, end_ms=end_ms):
        if gap.state != "unknown" and start_ms <= gap.start_ms and gap.end_ms <= end_ms:
            _count(app.db, series, gap, now_ms=now_ms)


def _count(db: Database, series: Series, gap: Gap, *, now_ms: int) -> None:
    """Count a read; from the third on the next one waits, twice as long each time."""
    beyond = gap.n_reads + 1 - _READS
    next_ms = now_ms
    if beyond >= 0:
        next_ms += min(_LONGEST_WAIT_MS, 2 ** (beyond + 1) * MINUTE_MS)
    if gap.state == "unknown" and gap.end_ms + SETTLE_MS > now_ms:
        next_ms = min(next_ms, gap.end_ms + SETTLE_MS)
    gap_store.count_read(db, series, gap.start_ms, next_ms=next_ms)


def settle_gaps(
    app: App,
    exchange: Exchange,
    names: Iterable[Series],
    *,
    now_ms: int,
    again: bool = False,
    until_s: float = math.inf,
) -> dict[str, ExchangeError]:
    """Read unknown holes again; what stays empty becomes `no_trades` or `missing`.

    A hole met only after its ten minutes, as after downtime, is read three times at once: so it
    comes to the same as if we had been there. `again`: `missing` ones too that may be quiet. All
    are read before the first is judged: whether the others traded decides. Returns why the holes
    of some symbols could not be read.
    """
    due = [
        (series, group)
        for series in names
        for group in _grouped(
            _due(app.db, series, now_ms=now_ms, again=again),
            exchange.page_bars(series.timeframe, start_ms=now_ms, now_ms=now_ms)
            * tf_ms(series.timeframe),
        )
    ]
    failed: dict[str, ExchangeError] = {}
    for number in range(_READS):
        wants = {
            Want(series, group[0].start_ms, group[-1].end_ms): group
            for series, group in due
            if _is_to_read(_left(app.db, series, group), number, now_ms=now_ms)
        }
        for want, bars in final_candles(exchange, wants, now_ms=now_ms, until_s=until_s):
            if isinstance(bars, ExchangeError):
                failed[want.series.symbol] = bars
                continue
            with app.db.write():
                write_bars(app, want.series, bars)
                for gap in _left(app.db, want.series, wants[want]):
                    _count(app.db, want.series, gap, now_ms=now_ms)
    with app.db.write():
        for series, group in due:
            for gap in _left(app.db, series, group):
                _judge(app.db, series, gap, now_ms=now_ms)
    return failed


def _due(db: Database, series: Series, *, now_ms: int, again: bool) -> list[Gap]:
    unknown = gap_store.gaps(db, series, state="unknown")
    due = [gap for gap in unknown if again or gap.next_ms <= now_ms]
    if again:
        due += [
            gap
            for gap in gap_store.gaps(db, series, state="missing")
            if _is_quiet(db, series, gap) and _others_traded(db, series, gap)
        ]
    return sorted(due, key=lambda gap: gap.start_ms)


def _is_to_read(left: Iterable[Gap], number: int, *, now_ms: int) -> bool:
    """Say whether holes are read once more: all once, those of long ago three times in all."""
    return any(
        number == 0 or (gap.n_reads < _READS and now_ms - gap.end_ms >= SETTLE_MS) for gap in left
    )


def _left(db: Database, series: Series, group: Sequence[Gap]) -> Iterator[Gap]:
    """Yield what is left of some holes, as far as their state is what it was."""
    for read in group:
        span = {"start_ms": read.start_ms, "end_ms": read.end_ms}
        for gap in gap_store.gaps_between(db, series, **span):
            if gap.state == read.state:
                yield gap


def _grouped(gaps: Sequence[Gap], page_ms: int) -> Iterator[list[Gap]]:
    """Yield the holes that one request covers together; a wider one stands alone."""
    group: list[Gap] = []
    for gap in gaps:
        if group and gap.end_ms - group[0].start_ms > page_ms:
            yield group
            group = []
        group.append(gap)
    if group:
        yield group


def _judge(db: Database, series: Series, gap: Gap, *, now_ms: int) -> None:
    """Settle what is left of a hole, if it was read often enough."""
    if gap.n_reads < _READS:
        return
    if _is_quiet(db, series, gap) and _others_traded(db, series, gap):
        gap_store.settle_gap(db, series, gap, state="no_trades")
        store.reopen_derived(db, series, from_ms=gap.start_ms, to_ms=gap.end_ms)
    elif gap.state == "unknown" and now_ms - gap.end_ms >= SETTLE_MS:
        gap_store.settle_gap(db, series, gap, state="missing")


def _is_quiet(db: Database, series: Series, gap: Gap) -> bool:
    """Say whether at most five minutes lie between the bars on either side of a hole."""
    step = tf_ms(series.timeframe)
    if gap.end_ms - gap.start_ms > _QUIET_MS:
        return False
    around = store.read_candles(
        db, series, start_ms=gap.end_ms - _QUIET_MS - step, end_ms=gap.start_ms + _QUIET_MS + 1
    ).ts_ms
    before, after = around[around < gap.start_ms], around[around >= gap.end_ms]
    return bool(len(before) and len(after) and after[0] - before[-1] - step <= _QUIET_MS)


def _others_traded(db: Database, series: Series, gap: Gap) -> bool:
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
