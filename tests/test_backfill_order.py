"""Newest first, over all symbols: soon enough to scan, whole at every instant, nothing wasted."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.app import App
from core.domain import Candles, Series
from core.errors import ExchangeError, ExchangeUnavailable
from core.jobs import backfill, scan
from core.jobs.backfill_plan import Plan, slices
from core.resample import resample
from core.store import candles as store
from core.store import gaps as gap_store
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from tests.engine_world import (
    FakeExchange,
    HandClock,
    aggregated,
    fake_engine,
    gap_states,
    part,
    same,
    stored,
)
from tests.worlds import MONDAY_MS, picked, random_candles

A, B, C = "BTC/USDT:USDT", "ETH/USDT:USDT", "SOL/USDT:USDT"
N_DAYS = 80
NOW_MS = MONDAY_MS + N_DAYS * DAY_MS
LISTED_MS = MONDAY_MS + 30 * DAY_MS + 5 * HOUR_MS  # where C's history begins
TRUTH = {
    A: random_candles(N_DAYS * 1440, seed=21),
    B: random_candles(N_DAYS * 1440, seed=22),
    C: part(random_candles(N_DAYS * 1440, seed=23), LISTED_MS, NOW_MS),
}
SETTINGS: dict[str, Any] = {
    "timeframes": ["15m", "1h"],
    "signals": {"lookback_candles": 70},  # 70 days of 1d are a seed, 70 bars of 4h are not
}


def engine(
    folder: Path, truth: dict[str, Candles] | None = None
) -> tuple[App, FakeExchange, HandClock]:
    """An engine that has nothing yet."""
    app, exchange, clock = fake_engine(folder, dict(truth or TRUTH), **SETTINGS)
    clock.at_ms = NOW_MS + 20_000
    return app, exchange, clock


def run(app: App, start_ms: int = MONDAY_MS - 365 * DAY_MS, **named: Any) -> list[dict[str, Any]]:
    """Backfill all symbols from long before there is anything."""
    symbols = app.config.symbols
    named = {"pause": lambda _: None, **named}
    return backfill.backfill(app, symbols=symbols, start_ms=start_ms, end_ms=None, **named)


def lacks(app: App, timeframe: str) -> list[str]:
    """Why each symbol cannot be scanned yet."""
    series = [Series("bitget", symbol, timeframe) for symbol in app.config.symbols]
    return [scan.lacks_history(app.db, app.config, one) for one in series]


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[tuple[App, FakeExchange]]:
    """An engine and its exchange, closed at the end."""
    app, exchange, _ = engine(tmp_path)
    yield app, exchange
    app.close()


def test_scanning_is_possible_long_before_history_is_whole(
    fresh: tuple[App, FakeExchange],
) -> None:
    """Each slice serves a timeframe more, for all symbols; the last one is the oldest."""
    app, exchange = fresh
    ready: dict[str, int] = {}

    def look(symbol: str, start_ms: int, end_ms: int) -> None:
        del symbol, start_ms, end_ms
        for timeframe in app.config.timeframes:
            if timeframe not in ready and not any(lacks(app, timeframe)):
                ready[timeframe] = exchange.n_asked

    exchange.before = look
    rows = run(app)
    assert [row["error"] for row in rows] == ["", "", ""]
    windows_4h = 3 * -(-71 * 240 // 199)  # 71 bars of 4h in minutes, for three symbols
    n_other = 3 * 3 + 3 * 2  # looking for the beginning, and the daily bars
    assert ready["15m"] == ready["1h"] <= windows_4h + n_other + 3 * len(rows)
    assert ready["1h"] * 4 < exchange.n_asked


def test_what_is_stored_is_whole_at_every_instant(fresh: tuple[App, FakeExchange]) -> None:
    """No symbol is more than a page ahead of another, and none has a hole behind its newest bar."""
    app, _ = fresh
    n_looks = 0

    def look(what: str, done: int, total: int) -> None:
        nonlocal n_looks
        n_looks += 1
        del what
        assert done <= total
        if n_looks % 50:
            return
        firsts = []
        for symbol in (A, B):
            row = store.series_row(app.db, Series("bitget", symbol, "1m"))
            if row is None or row.first_ms is None:
                continue
            firsts.append(row.first_ms)
            assert row.last_ms == NOW_MS - MINUTE_MS
            span = {"start_ms": row.first_ms, "end_ms": NOW_MS}
            assert gap_store.stored_holes(app.db, row.series, **span) == []
        if len(firsts) == 2:
            assert abs(firsts[0] - firsts[1]) <= 199 * MINUTE_MS

    run(app, progress=look)
    assert n_looks > 1000


def test_the_plan_is_what_is_asked_for(fresh: tuple[App, FakeExchange]) -> None:
    """Bars and requests are known before the first minute is asked for."""
    app, exchange = fresh
    plans: list[Plan] = []
    n_minutes = 0

    def count(symbol: str, start_ms: int, end_ms: int) -> None:
        nonlocal n_minutes
        del symbol
        n_minutes += end_ms - start_ms <= 199 * MINUTE_MS

    def announce(plan: Plan) -> None:
        nonlocal n_minutes
        plans.append(plan)
        assert exchange.n_asked <= 3 * 4
        n_minutes = 0

    exchange.before = count
    run(app, announce=announce)
    (plan,) = plans
    day_of_c = LISTED_MS // DAY_MS * DAY_MS
    n_bars = 2 * N_DAYS * 1440 + (NOW_MS - day_of_c) // MINUTE_MS
    assert (plan.n_symbols, plan.n_bars, plan.first_ms) == (3, n_bars, MONDAY_MS)
    n_edges = 3 * len(slices(app.config, oldest_ms=MONDAY_MS, until_ms=NOW_MS))
    assert plan.n_requests <= n_minutes <= plan.n_requests + n_edges
    n_stored = app.db.value("SELECT count(*) FROM ohlcv")
    assert plan.n_bytes == pytest.approx(53 * n_stored, rel=0.05)


def test_a_listing_is_found_without_walking_empty_years(
    fresh: tuple[App, FakeExchange],
) -> None:
    """Minutes are asked for from the first day on; one window before it proves that it is."""
    app, exchange = fresh
    oldest: list[int] = []
    exchange.before = lambda symbol, start_ms, end_ms: (
        oldest.append(start_ms) if symbol == C and end_ms - start_ms <= 199 * MINUTE_MS else None
    )
    run(app)
    assert same(stored(app, C), TRUTH[C])
    day_ms = LISTED_MS // DAY_MS * DAY_MS
    assert [start for start in oldest if start < day_ms] == [day_ms - 199 * MINUTE_MS]
    assert gap_states(app, C) == []


def test_daily_bars_that_begin_too_late_are_not_believed(tmp_path: Path) -> None:
    """An exchange that keeps days for less long than minutes loses us nothing."""
    app, exchange, _ = engine(tmp_path)
    whole = exchange.candles

    def candles(symbol: str, timeframe: str, *, start_ms: int, end_ms: int) -> Candles:
        first_ms = NOW_MS - 20 * DAY_MS if timeframe == "1d" else 0
        found = whole(symbol, timeframe, start_ms=start_ms, end_ms=end_ms)
        return part(found, first_ms, end_ms)

    exchange.candles = candles  # type: ignore[method-assign]
    run(app, MONDAY_MS)
    assert same(stored(app, A), TRUTH[A])
    assert same(stored(app, C), TRUTH[C])


def test_seeded_days_stand_and_older_ones_are_made(fresh: tuple[App, FakeExchange]) -> None:
    """The exchange's own days stay as they came; the others come from minutes."""
    app, _ = fresh
    run(app)
    days, found = aggregated(TRUTH[A], "1d"), stored(app, A, "1d")
    assert same(found[:-2], days[:-2])
    assert len(found) == len(days) == N_DAYS
    for made, own in zip(found.columns()[1:], days.columns()[1:], strict=True):
        assert made == pytest.approx(own, rel=1e-12)
    (source,) = app.db.rows(
        "SELECT kind, first_ms, last_ms FROM sources WHERE symbol = ? AND timeframe = '1d'", (A,)
    )
    assert source[0] == "native"
    assert source[2] == NOW_MS - 2 * DAY_MS  # the last day closed less than ten minutes ago
    minutes = resample(resample(resample(TRUTH[B], "5m"), "15m"), "1h")
    assert same(stored(app, B, "1h"), minutes)


def test_one_symbol_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    """Unlisted: given up at once and named. Unreachable: tried again when the others are done."""
    app, exchange, _ = engine(tmp_path)
    n_pauses = 0

    def before(symbol: str, start_ms: int, end_ms: int) -> None:
        is_minutes = end_ms - start_ms <= 199 * MINUTE_MS
        if symbol == B and is_minutes and start_ms < NOW_MS - DAY_MS and not n_pauses:
            raise ExchangeUnavailable("cut;", remedy="again")
        if symbol == C and start_ms < NOW_MS - 2 * DAY_MS < end_ms:
            raise ExchangeError("delisted;", remedy="remove it")

    def pause(_: float) -> None:
        nonlocal n_pauses
        n_pauses += 1

    exchange.before = before
    rows = {row["symbol"]: row for row in run(app, MONDAY_MS, pause=pause)}
    assert n_pauses == 1
    assert (rows[A]["error"], rows[B]["error"]) == ("", "")
    assert "delisted" in rows[C]["error"]
    assert same(stored(app, A), TRUTH[A])
    assert same(stored(app, B), TRUTH[B])
    kept = stored(app, C)
    assert len(kept)
    assert same(kept, part(TRUTH[C], int(kept.ts_ms[0]), NOW_MS))


def test_a_hole_between_two_pages_is_written_down(tmp_path: Path) -> None:
    """Wherever an outage lies against the windows, it is one hole, and all around it is there."""
    edges = [(NOW_MS - n * 199 * MINUTE_MS) for n in (3, 4, 5)]
    for i, hole in enumerate(
        [
            (edges[0] - 5 * MINUTE_MS, edges[0]),
            (edges[0], edges[0] + 7 * MINUTE_MS),
            (edges[1] - 3 * MINUTE_MS, edges[1] + 3 * MINUTE_MS),
            (edges[2], edges[0]),
        ]
    ):
        ts_ms = TRUTH[A].ts_ms
        truth = {A: picked(TRUTH[A], (ts_ms < hole[0]) | (ts_ms >= hole[1]))}
        app, _, _ = engine(tmp_path / str(i), truth)
        run(app, NOW_MS - 5 * DAY_MS)
        assert gap_states(app, A) == [(*hole, "missing")]
        assert same(stored(app, A), part(truth[A], NOW_MS - 5 * DAY_MS, NOW_MS))
        app.close()


def test_slices_cover_history_once() -> None:
    """From now back to the oldest instant, without overlap, the first ones short."""
    from core.config import config_from

    config = config_from({})
    found = slices(config, oldest_ms=MONDAY_MS - 1000 * DAY_MS, until_ms=NOW_MS)
    assert found[0][1] == NOW_MS
    assert found[-1][0] == MONDAY_MS - 1000 * DAY_MS
    assert all(older[1] == newer[0] for newer, older in pairwise(found))
    days = np.array([(high - low) / DAY_MS for low, high in found])
    assert days[:3].round(1).tolist() == [3.1, 9.4, 37.6]
    assert (days[3:-1] == 60).all()


def test_an_unlisted_symbol_is_named_before_anything_is_asked(tmp_path: Path) -> None:
    """It is no part of the plan, costs no request, and the others come in."""
    app, exchange, _ = engine(tmp_path)
    asked = []
    exchange.before = lambda symbol, *_: asked.append(symbol)
    plans: list[Plan] = []
    rows = backfill.backfill(
        app,
        symbols=["NO/USDT:USDT", A],
        start_ms=NOW_MS - 3 * DAY_MS,
        end_ms=None,
        announce=plans.append,
    )
    assert [bool(row["error"]) for row in rows] == [True, False]
    assert "NO/USDT:USDT" in rows[0]["error"]
    assert set(asked) == {A}
    assert (plans[0].n_symbols, plans[0].n_bars) == (1, 3 * 1440)
