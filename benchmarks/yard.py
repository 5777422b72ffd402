"""What every table shares: medians, the candles that are measured, a row of figures."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from core.domain import Candles, Series
from demo.market import ASSETS, MarketSpec, generate

START_MS = 1_609_459_200_000  # 2021-01-01
SERIES = Series("bench", ASSETS[0].symbol, "1m")
N_RUNS = 3


class Table(NamedTuple):
    """A title and its rows, each a mapping of column to what is printed."""

    title: str
    rows: list[dict[str, str]]


@cache
def candles(n_days: int) -> Candles:
    """Return seeded 1m candles of one pair; made once a run."""
    spec = MarketSpec(start_ms=START_MS, days=n_days, seed=1, assets=ASSETS[:1])
    return generate(spec)[ASSETS[0].symbol]


FIVE_YEARS = 1825  # days


def median_s(run: Callable[[], object]) -> float:
    """Return the median wall seconds of a few calls."""
    return statistics.median(_seconds(run) for _ in range(N_RUNS))


def _seconds(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def rate(n: int, took_s: float) -> str:
    """Return a speed as people read it."""
    return f"{n / took_s / 1e6:.2f} M/s"


def beside(what: str, n: int, *, ours_s: float, yard_s: float, yard: str) -> dict[str, str]:
    """Return one row: our speed, the yardstick's in the same run, and their ratio."""
    return {
        "figure": what,
        "ours": rate(n, ours_s),
        "yardstick": rate(n, yard_s),
        "ratio": f"{yard_s / ours_s:.2f}x",
        "beside": yard,
    }
