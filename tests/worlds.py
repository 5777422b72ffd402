"""Seeded worlds for tests: random-walk candles, and the scan input made of them."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from core.config import Config, config_from
from core.domain import Bools, Candles, Ints, Market, Series
from core.market_context import NOTHING_STORED, MarketContext
from core.resample import resample
from core.signals import ScanInput
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS, higher_timeframes, tf_ms

MONDAY_MS = 1_704_067_200_000  # 2024-01-01 00:00 UTC
NO_MS: Ints = np.empty(0, np.int64)
Bytes = NDArray[np.uint8]


def random_candles(
    n: int,
    seed: int,
    timeframe: str = "1m",
    start_ms: int = MONDAY_MS,
    *,
    start_price: float = 10_000.0,
    tick: float = 0.5,
    steps: int = 64,
) -> Candles:
    """Return n bars of a driftless walk of ±1-tick steps, each opening at the close before.

    `steps` is their number a bar. With a tick that is a power of two every price, and every sum
    of prices, is exact.
    """
    chance = np.random.default_rng(seed)
    moves = chance.integers(0, 2, size=(n, steps), dtype=np.int8) * np.int8(2) - np.int8(1)
    path = np.cumsum(moves, axis=1, dtype=np.int64)
    first = round(start_price / tick)
    opens = first + np.concatenate(([0], np.cumsum(path[:-1, -1])))
    lowest = opens + np.minimum(path.min(axis=1), 0)
    if lowest.min() <= 0:
        raise ValueError(f"seed {seed} walks below zero; raise start_price")
    ts_ms = start_ms + tf_ms(timeframe) * np.arange(n, dtype=np.int64)
    volume = np.asarray(np.round(chance.gamma(2.0, 5.0, size=n), 3), np.float64)
    high = (opens + np.maximum(path.max(axis=1), 0)) * tick
    close = np.asarray((opens + path[:, -1]) * tick, np.float64)
    return Candles(timeframe, ts_ms, opens * tick, high, lowest * tick, close, volume)


_BITS = (np.arange(256)[:, None] >> np.arange(8)) & 1
_PATHS = np.cumsum(2 * _BITS - 1, axis=1)
_TOTAL, _TOP, _BOTTOM = (
    column.astype(np.int64) for column in (_PATHS[:, -1], _PATHS.max(1), _PATHS.min(1))
)


@njit(cache=True)
def _walked(drawn: Bytes, shared: Bytes, total: Ints, top: Ints, bottom: Ints) -> None:
    """Write the sum and the extremes of the steps of each minute, the shared bytes first."""
    for row in range(len(drawn)):
        at, highest, lowest = 0, -(1 << 30), 1 << 30
        for k in range(drawn.shape[1]):
            byte = shared[row, k] if k < shared.shape[1] else drawn[row, k]
            highest = max(highest, at + _TOP[byte])
            lowest = min(lowest, at + _BOTTOM[byte])
            at += _TOTAL[byte]
        total[row], top[row], bottom[row] = at, highest, lowest


def walk(
    rng: np.random.Generator,
    n_minutes: int,
    *,
    start_ticks: int = 1 << 20,
    tick: float = 1.0,
    beside: Bytes | None = None,
) -> Candles:
    """Return minutes of a continuous walk: 1024 steps of one tick each, one random bit a step.

    A byte is eight steps: tables of its sum and extremes replace the steps themselves. `beside`
    (n_minutes, k) are bytes that the first steps of each minute take from elsewhere: walks that
    share k of 128 are correlated by k / 128. With a `tick` that is a power of two prices are exact.
    """
    steps = [np.empty(n_minutes, np.int64) for _ in range(3)]
    for first in range(0, n_minutes, 10_000):
        rows = slice(first, min(first + 10_000, n_minutes))
        drawn = np.frombuffer(rng.bytes(128 * (rows.stop - first)), np.uint8).reshape(-1, 128)
        shared = drawn[:, :0] if beside is None else beside[rows]
        _walked(drawn, shared, *(column[rows] for column in steps))
    closes = start_ticks + np.cumsum(steps[0])
    opens = closes - steps[0]
    ts_ms = MONDAY_MS + MINUTE_MS * np.arange(n_minutes)
    columns = (opens, np.maximum(opens + steps[1], opens), np.minimum(opens + steps[2], opens))
    o, h, low, close = (np.asarray(tick * x, np.float64) for x in (*columns, closes))
    if low.min() <= 0:
        raise ValueError(f"{n_minutes} minutes from {start_ticks} ticks walk below zero")
    return Candles("1m", ts_ms, o, h, low, close, np.ones(n_minutes))


def picked(candles: Candles, rows: slice | Bools) -> Candles:
    """Return copies of some of the bars."""
    ts_ms, *prices = candles.columns()
    return Candles(candles.timeframe, ts_ms[rows].copy(), *(line[rows].copy() for line in prices))


def mapped(candles: Candles, *, scale: float = 1.0, mirror_at: float | None = None) -> Candles:
    """Return the same bars with prices scaled, or mirrored as p -> mirror_at - p."""
    ts_ms, o, h, low, c, v = candles.columns()
    if mirror_at is not None:
        return Candles(
            candles.timeframe,
            ts_ms,
            mirror_at - o,
            mirror_at - low,
            mirror_at - h,
            mirror_at - c,
            v,
        )
    return Candles(candles.timeframe, ts_ms, o * scale, h * scale, low * scale, c * scale, v)


def market_context(base: Candles, seed: int, timeframe: str = "15m") -> MarketContext:
    """Return funding, open interest and basis over some candles, from four days before them."""
    rng, first = np.random.default_rng(seed), int(base.ts_ms[0]) - 4 * DAY_MS
    end, step = int(base.ts_ms[-1]) + MINUTE_MS, tf_ms(timeframe)
    funding_ms = np.arange(first, end + 1, 8 * HOUR_MS, dtype=np.int64)
    interest_ms = np.arange(first, end + 1, 15 * MINUTE_MS, dtype=np.int64) + 6_000
    basis_ms = np.arange(int(base.ts_ms[0]) + step, end + 1, step, dtype=np.int64)
    return MarketContext(
        funding_ms=funding_ms,
        funding_frac=rng.normal(1e-4, 1e-4, len(funding_ms)),
        interest_ms=interest_ms,
        interest_qty=rng.uniform(900.0, 1100.0, len(interest_ms)),
        basis_ms=basis_ms,
        basis_pct=rng.normal(0.0, 0.05, len(basis_ms)),
    )


def scan_input(
    base: Candles,
    timeframe: str = "15m",
    *,
    leader_base: Candles | None = None,
    market: Market | None = None,
    missing_ms: Ints = NO_MS,
    seams_ms: Ints = NO_MS,
    context: MarketContext = NOTHING_STORED,
) -> ScanInput:
    """Return what `signals.scan` needs, all timeframes resampled from one base series."""
    first, second = higher_timeframes(timeframe)
    return ScanInput(
        series=Series("test", "AAA/USDT:USDT", timeframe),
        bars=resample(base, timeframe),
        higher=(resample(base, first), resample(base, second)),
        base=base,
        leader=None if leader_base is None else resample(leader_base, timeframe),
        market=market or Market(symbol="AAA/USDT:USDT", kind="swap", tick=0.5),
        missing_ms=missing_ms,
        seams_ms=seams_ms,
        context=context,
    )


def strategy(*, fibo: dict[str, float] | None = None, **signals: object) -> Config:
    """Return the default settings with some of `signals` replaced."""
    return config_from({"signals": {**signals, "fibo": fibo or {}}})
