"""What a scan counts, and what time the market has for scripts that act on what is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from core.app import App, wall_ms
from core.domain import Ints, Series
from core.store import candles as store
from core.store import operation
from core.store.db import Database
from core.timeframe import DAY_MS, floor_ms, tf_ms


def market_now_ms(app: App) -> int:
    """Return market time without asking the exchange: for scripts that act on what is stored.

    Live it is this machine's clock. In a replay it is the end of the newest stored base bar, or
    the scheduler's last tick where that is later.
    """
    if app.config.exchange.id != "replay":
        return wall_ms()
    tick = operation.clock_row(app.db)
    return max(_newest_end_ms(app), tick[0] if tick else 0)


def data_now_ms(app: App) -> int:
    """Return the instant up to which there is data: "now" for training on what is stored.

    A database of recorded years is trained as of its end, not as of today.
    """
    return min(_newest_end_ms(app) or wall_ms(), market_now_ms(app))


def _newest_end_ms(app: App) -> int:
    """Return the end of the newest stored base bar of the configured symbols, or 0."""
    exchange = app.config.exchange.id
    bases = [store.base_series(app.db, exchange, symbol) for symbol in app.config.symbols]
    rows = [store.series_row(app.db, base) for base in bases]
    ends = [
        row.last_ms + tf_ms(row.series.timeframe)
        for row in rows
        if row is not None and row.last_ms is not None
    ]
    return max(ends, default=0)


def funnel_of(
    opens_ms: Ints, setups_ms: Iterable[int], refusals: Iterable[tuple[int, str]]
) -> list[tuple[int, str, int]]:
    """Return a scan's counts as (day, reason, n): bars, setups and refusals, by their opens."""
    days, n_bars = np.unique(opens_ms - opens_ms % DAY_MS, return_counts=True)
    counts = Counter(
        {(day, "bars"): n for day, n in zip(days.tolist(), n_bars.tolist(), strict=True)}
    )
    counts.update((floor_ms(ts_ms, DAY_MS), "setups") for ts_ms in setups_ms)
    counts.update((floor_ms(ts_ms, DAY_MS), reason) for ts_ms, reason in refusals)
    return [(day, reason, n) for (day, reason), n in counts.items()]


def uncounted(db: Database, series: Series, strategy: str, opens_ms: Ints) -> Ints:
    """Return those of some bars that no retro-scan has counted yet.

    It counts the bars of a day from the first on: those beyond as many are new.
    """
    days_ms = opens_ms - opens_ms % DAY_MS
    kept = np.zeros(len(opens_ms), np.bool_)
    for day_ms in np.unique(days_ms).tolist():
        n_counted = db.value(
            "SELECT n FROM funnel WHERE exchange = ? AND symbol = ? AND timeframe = ?"
            " AND strategy_id = ? AND day_ms = ? AND reason = 'bars'",
            (*series, strategy, day_ms),
        )
        stored = store.read_candles(db, series, start_ms=day_ms, end_ms=day_ms + DAY_MS).ts_ms
        place = np.searchsorted(stored, opens_ms)
        kept |= (days_ms == day_ms) & (place >= (n_counted or 0))
    return opens_ms[kept]
