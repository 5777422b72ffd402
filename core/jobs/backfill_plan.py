"""What a backfill fetches, in which order, and what it costs: decided before it begins."""

from __future__ import annotations

import logging
from typing import NamedTuple

from core.config import Config
from core.domain import Series
from core.errors import ExchangeError, ExchangeUnavailable
from core.exchange import Exchange
from core.timeframe import DAY_MS, floor_ms, higher_timeframes, tf_ms

log = logging.getLogger("trader.backfill")

SLICE_MS = 60 * DAY_MS  # of history, over all symbols, before any goes further back


class Plan(NamedTuple):
    """What a backfill is about to ask for."""

    n_symbols: int
    n_bars: int
    n_requests: int
    seconds: float
    n_bytes: int
    first_ms: int


def seeded_timeframes(config: Config) -> list[str]:
    """Return the context timeframes whose windows are too long to wait for their minutes.

    300 daily bars are 2200 requests of minutes or 2 of days: the exchange's own bars are taken for
    the windows a new series begins with. Like imported ones they stand over derived ones.
    """
    context = {name for own in config.timeframes for name in higher_timeframes(own)}
    lookback = config.signals.lookback_candles
    return sorted(
        (t for t in context.difference(config.timeframes) if lookback * tf_ms(t) > SLICE_MS),
        key=tf_ms,
    )


def slices(config: Config, *, oldest_ms: int, until_ms: int) -> list[tuple[int, int]]:
    """Return the spans [low, high) history is fetched in, newest first.

    First what the window of each scanned timeframe needs, the shortest first, then equal slices.
    """
    lookback = config.signals.lookback_candles
    names = {*config.timeframes}.union(*(higher_timeframes(t) for t in config.timeframes))
    names -= {*seeded_timeframes(config)}
    depths = sorted({(lookback + 1) * tf_ms(name) for name in names})
    edges = [until_ms - depth for depth in depths if until_ms - depth > oldest_ms]
    low = edges[-1] if edges else until_ms
    while low > oldest_ms:
        low -= SLICE_MS
        edges.append(max(low, oldest_ms))
    return list(zip(edges, [until_ms, *edges], strict=False))


def first_candle_ms(exchange: Exchange, series: Series, *, start_ms: int, until_ms: int) -> int:
    """Return the first day, from `start_ms` on, on which an exchange has candles of a series.

    Sought on daily candles, 200 days a request, so that no empty years are walked minute by
    minute, and believed where the minutes before it are empty too. Else it is `start_ms` itself.
    """
    low, step = floor_ms(start_ms, DAY_MS), tf_ms(series.timeframe)
    try:
        day_ms = _first_day_ms(exchange, series.symbol, start_ms=low, until_ms=until_ms)
        before_ms = day_ms - step * exchange.page_bars(
            series.timeframe, start_ms=low, now_ms=until_ms
        )
        if day_ms == low or not len(
            exchange.candles(series.symbol, series.timeframe, start_ms=before_ms, end_ms=day_ms)
        ):
            return day_ms
    except ExchangeUnavailable:
        raise
    except ExchangeError as error:
        log.warning("%s: its beginning is not known: %s", series.symbol, error)
    return low


def _first_day_ms(exchange: Exchange, symbol: str, *, start_ms: int, until_ms: int) -> int:
    """Return the open of the first daily candle, `start_ms` where there is none."""
    page_ms = exchange.page_bars("1d", start_ms=start_ms, now_ms=until_ms) * DAY_MS
    for start in range(start_ms, until_ms if exchange.serves("1d") else start_ms, page_ms):
        end = min(start + page_ms, until_ms)
        bars = exchange.candles(symbol, "1d", start_ms=start, end_ms=end)
        if len(bars):
            return int(bars.ts_ms[0])
    return start_ms
