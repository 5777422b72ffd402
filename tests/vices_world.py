"""Markets to disturb, followed by the minute or of old days; and what must be left of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from core.domain import Series
from core.errors import ExchangeError
from core.jobs import backfill
from core.resample import resample
from core.store import candles as store
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from tests.bitget_world import NOW_MS, World, world
from tests.engine_world import gap_states, part, same, stored
from tests.vices import PAGES, TIMEOUT_MS, TRANSPORT, Story, Vices
from tests.worlds import random_candles

BTC, ETH, SPOT = "BTC/USDT:USDT", "ETH/USDT:USDT", "SOL/USDT"
SYMBOLS = (BTC, ETH, SPOT)
SLOW = ("time-out", "trickle")  # each costs its wait
DAY_START_MS = NOW_MS - 12 * HOUR_MS
SYNCED_MS = DAY_START_MS - 5 * MINUTE_MS  # the first sync overlaps as every other does
END_MS = NOW_MS + 6 * HOUR_MS
RECENT = {
    symbol: random_candles(24 * 60, seed=i, start_ms=DAY_START_MS - 3 * HOUR_MS)
    for i, symbol in enumerate(SYMBOLS)
}
# by the minute; after an outage of ours of an hour and a half, and one of more than a page
CYCLES = (*range(9), *range(100, 108), *range(310, 318))
CALM = (340, 360, 380)  # nothing is asked for more rarely than every 16 minutes
OLD_MS = NOW_MS - 35 * DAY_MS + 12 * HOUR_MS  # a midnight
LISTED_MS = OLD_MS + 30 * HOUR_MS + 7 * MINUTE_MS
OLD_END_MS = OLD_MS + 3 * DAY_MS  # still older than what the recent endpoint holds
OLD = {
    BTC: random_candles(5 * 1440, seed=11, start_ms=OLD_MS - DAY_MS),
    ETH: random_candles(3 * 1440, seed=12, start_ms=LISTED_MS),
    SPOT: random_candles(5 * 1440, seed=13, start_ms=OLD_MS - DAY_MS),
}


@contextmanager
def live(folder: Path, told: Story, **options: Any) -> Iterator[World]:
    """An engine that has synced once, on the market of a story."""
    options["backfill"] = {"start_date": "2024-06-01"}
    with world(folder, told.truth, timeout_ms=TIMEOUT_MS, **options) as w:
        yield w


def follow(w: World, minutes: Sequence[int]) -> int:
    """Run the cycles; returns how many found nobody home. Nothing unfinished is ever stored."""
    n_failed = 0
    for minute in minutes:
        try:
            w.cycle(NOW_MS + minute * MINUTE_MS)
        except ExchangeError:
            n_failed += 1
        for row in store.series_rows(w.app.db):
            if row.series.timeframe == "1m" and row.last_ms is not None:
                assert row.last_ms < NOW_MS + minute * MINUTE_MS
    return n_failed


def fetched(w: World, *, symbols: Sequence[str] = SYMBOLS, **options: Any) -> dict[str, str]:
    """Backfill the old days; returns each symbol's error."""
    window = {"start_ms": OLD_MS, "end_ms": OLD_END_MS, "pause": lambda _: None}
    rows = backfill.backfill(w.app, symbols=symbols, **{**window, **options})
    return {row["symbol"]: row["error"] for row in rows}


def assert_true(w: World, told: Story, start_ms: int, end_ms: int) -> None:
    """The stored minutes, holes and longer bars of a window are the story's, bit for bit."""
    for symbol, bars in told.truth.items():
        want = part(bars, start_ms, end_ms)
        assert same(stored(w.app, symbol), want), symbol
        holes = [hole for hole in told.holes[symbol] if want.ts_ms[0] < hole[0] < end_ms]
        assert joined(gap_states(w.app, symbol)) == holes, symbol
        quiet_ms = np.array(told.quiet_ms(symbol), np.int64)
        five = resample(want, "5m", covered_ms=quiet_ms)
        fifteen = resample(five, "15m", covered_ms=np.empty(0, np.int64))
        assert same(part(stored(w.app, symbol, "5m"), start_ms, end_ms), five), symbol
        assert same(part(stored(w.app, symbol, "15m"), start_ms, end_ms), fifteen), symbol


def joined(gaps: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Return gaps with those of one state that touch made one."""
    whole: list[tuple[int, int, str]] = []
    for low, high, state in gaps:
        touches = bool(whole) and whole[-1][1:] == (low, state)
        whole.append((whole.pop()[0] if touches else low, high, state))
    return whole


def n_revised(w: World, symbol: str) -> int:
    """Return how many candles of a symbol were stored with other values first."""
    row = store.series_row(w.app.db, Series("bitget", symbol, "1m"))
    assert row is not None
    return row.n_revised


def mild(name: str, seed: int) -> Vices:
    """One vice alone."""
    if name in TRANSPORT:
        p = 0.02 if name in SLOW else 0.4
        return Vices(seed, transport=[name], p_transport=p, where="candles")
    return Vices(seed, pages=[name], p_page=0.5)


def wild(seed: int, **options: Any) -> Vices:
    """All vices at once; some requests fail as often as they are tried."""
    quick = [name for name in TRANSPORT if name not in SLOW]
    return Vices(seed, transport=quick * 20 + list(SLOW), pages=list(PAGES), **options)


def least(name: str) -> int:
    """How often one vice must have been met for the test to mean something."""
    return 1 if name in SLOW else 3
