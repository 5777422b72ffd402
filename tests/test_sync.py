"""The minute's sync: final candles only, every hole accounted for, nothing lost by being away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.app import App
from core.domain import Candles, Series
from core.errors import ExchangeError
from core.jobs import sync
from core.resample import resample
from core.store import candles as store
from core.store.signals import record_strategy
from core.timeframe import HOUR_MS, MINUTE_MS
from tests.engine_world import (
    FakeExchange,
    HandClock,
    fake_engine,
    gap_states,
    part,
    same,
    stored,
)
from tests.tiny_database import add
from tests.worlds import MONDAY_MS, picked, random_candles

A, B = "BTC/USDT:USDT", "ETH/USDT:USDT"
N_BARS = 60 * 10
START_MS = MONDAY_MS + 5 * HOUR_MS  # the first sync; it fetches what there is before
TRUTH = {A: random_candles(N_BARS, seed=1), B: random_candles(N_BARS, seed=2)}
DERIVED: dict[str, Any] = {
    "data": {"derived_timeframes": ["5m", "15m", "1h"]},
    "timeframes": ["15m"],
}


def minute(n: int) -> int:
    """The n-th minute after the first sync."""
    return START_MS + n * MINUTE_MS


def holed(symbol: str, *holes: tuple[int, int]) -> Candles:
    """A symbol's truth without the minutes [a, b) after the first sync."""
    ts_ms = TRUTH[symbol].ts_ms
    kept = np.ones(len(ts_ms), np.bool_)
    for a, b in holes:
        kept &= (ts_ms < minute(a)) | (ts_ms >= minute(b))
    return picked(TRUTH[symbol], kept)


def engine(
    folder: Path, truth: dict[str, Candles] | None = None
) -> tuple[App, FakeExchange, HandClock]:
    """An engine that has synced once, at START_MS."""
    app, exchange, clock = fake_engine(folder, dict(truth or TRUTH), **DERIVED)
    cycle(app, clock, 0)
    return app, exchange, clock


def cycle(app: App, clock: HandClock, *minutes: int) -> None:
    """Sync and resample at the given minutes."""
    for n in minutes:
        clock.at_ms = minute(n)
        sync.sync_all(app, now_ms=clock.at_ms)
        sync.resample_all(app, now_ms=clock.at_ms)


def checkpoint(app: App, symbol: str) -> int | None:
    """The instant before which every final bar was asked for."""
    return store.checkpoint_of(app.db, Series("bitget", symbol, "1m"))


def test_only_final_candles_are_stored(tmp_path: Path) -> None:
    """Whatever the second of the minute, the forming candle is left out and closed ones are in."""
    app, _, clock = engine(tmp_path)
    for n, second in ((1, 0), (1, 1), (1, 59), (2, 0), (3, 30), (7, 59)):
        clock.at_ms = minute(n) + second * 1000
        sync.sync_all(app, now_ms=clock.at_ms)
        for symbol, truth in TRUTH.items():
            assert same(stored(app, symbol), part(truth, MONDAY_MS, minute(n)))
            assert checkpoint(app, symbol) == minute(n)
    assert not gap_states(app, A)


def test_the_first_sync_records_no_hole_before_the_first_candle(tmp_path: Path) -> None:
    """A series is not missing what lies before it began."""
    app, _, _ = engine(tmp_path)
    assert same(stored(app, A), part(TRUTH[A], MONDAY_MS, START_MS))
    assert gap_states(app, A) == []


def test_a_repeated_cycle_changes_nothing(tmp_path: Path) -> None:
    """Sync and resample twice in the same minute are the same as once."""
    app, _, clock = engine(tmp_path, {A: holed(A, (20, 22)), B: TRUTH[B]})
    cycle(app, clock, *range(1, 40))
    tables = ("ohlcv", "series", "gaps")
    before = [app.db.rows(f"SELECT * FROM {name}") for name in tables]
    cycle(app, clock, 39, 39)
    assert [app.db.rows(f"SELECT * FROM {name}") for name in tables] == before


def test_a_revised_candle_is_updated_counted_and_carried_on(tmp_path: Path) -> None:
    """Inside the overlap: new values, a revision, derived bars anew, marks on who used it."""
    app, exchange, clock = engine(tmp_path)
    cycle(app, clock, *range(1, 16))
    strategy = record_strategy(app.db, app.config, now_ms=0)
    mine = {"exchange": "bitget", "symbol": A, "opened_ts_ms": None, "closed_ts_ms": None}
    older = add(app.db, strategy, 1.0, **mine, p0_ms=minute(5))
    closed = add(app.db, strategy, 2.0, **{**mine, "closed_ts_ms": minute(13)}, p0_ms=minute(5))
    later = add(app.db, strategy, 3.0, **mine, p0_ms=minute(14))
    other = add(app.db, strategy, 4.0, **{**mine, "symbol": B}, p0_ms=minute(5))
    truth = picked(TRUTH[A], slice(None))
    i = int(np.searchsorted(truth.ts_ms, minute(13)))
    truth.high[i] += 100.0
    truth.volume[i] += 1.0
    exchange.truth[A] = truth
    cycle(app, clock, 16)
    assert same(stored(app, A), part(truth, MONDAY_MS, minute(16)))
    assert same(stored(app, A, "5m"), resample(part(truth, MONDAY_MS, minute(15)), "5m"))
    row = store.series_row(app.db, Series("bitget", A, "1m"))
    assert row is not None
    assert row.n_revised == 1
    marked = {n for (n,) in app.db.rows("SELECT id FROM signals WHERE data_revised = 1")}
    assert marked == {older}
    assert {closed, later, other}.isdisjoint(marked)


def test_a_hole_is_unknown_until_its_candle_comes(tmp_path: Path) -> None:
    """It stops the frontier; when the candle comes the next minute, no trace of it stays."""
    app, exchange, clock = engine(tmp_path)
    series = Series("bitget", A, "1m")
    exchange.hidden = {(A, minute(3))}
    cycle(app, clock, 1, 2, 3, 4)
    assert (checkpoint(app, A), gap_states(app, A)) == (minute(3), [])
    cycle(app, clock, 5)
    assert gap_states(app, A) == [(minute(3), minute(4), "unknown")]
    assert sync.frontier_ms(app.db, series) == minute(3)
    assert not len(part(stored(app, A, "5m"), minute(0), minute(5)))
    exchange.hidden = set()
    cycle(app, clock, 6)
    assert gap_states(app, A) == []
    assert sync.frontier_ms(app.db, series) == minute(6)
    assert same(stored(app, A, "5m"), resample(part(TRUTH[A], MONDAY_MS, minute(6)), "5m"))


def test_a_short_hole_while_others_traded_is_no_trades_after_three_reads(tmp_path: Path) -> None:
    """Then it counts as covered: the derived bar is made of the minutes there are."""
    app, _, clock = engine(tmp_path, {A: holed(A, (2, 4)), B: TRUTH[B]})
    cycle(app, clock, *range(1, 6))
    assert gap_states(app, A) == [(minute(2), minute(4), "unknown")]
    cycle(app, clock, 6)
    assert gap_states(app, A) == [(minute(2), minute(4), "no_trades")]
    made = part(stored(app, A, "5m"), minute(0), minute(5))
    assert made.ts_ms.tolist() == [minute(0)]
    assert made.volume[0] == sum(part(holed(A, (2, 4)), minute(0), minute(5)).volume)


@pytest.mark.parametrize(
    "truth",
    [
        {A: holed(A, (2, 4))},
        {A: holed(A, (2, 4)), B: holed(B, (3, 5))},
        {A: holed(A, (2, 8)), B: TRUTH[B]},
    ],
    ids=["alone", "the other traded in part", "six minutes"],
)
def test_what_is_not_quiet_is_missing_after_ten_minutes(
    tmp_path: Path, truth: dict[str, Candles]
) -> None:
    """Without a witness for every minute, or too long: unknown for ten minutes, then missing."""
    app, _, clock = engine(tmp_path, truth)
    end = 4 if len(part(truth[A], minute(4), minute(8))) else 8
    cycle(app, clock, *range(1, end + 10))
    assert gap_states(app, A) == [(minute(2), minute(end), "unknown")]
    assert sync.frontier_ms(app.db, Series("bitget", A, "1m")) == minute(2)
    cycle(app, clock, end + 10)
    assert gap_states(app, A) == [(minute(2), minute(end), "missing")]
    assert sync.frontier_ms(app.db, Series("bitget", A, "1m")) == minute(end + 10)
    assert minute(0) not in stored(app, A, "5m").ts_ms


def test_a_long_outage_of_one_symbol_is_one_missing_gap(tmp_path: Path) -> None:
    """Half an hour settled minute by minute is not mistaken for quiet minutes."""
    app, _, clock = engine(tmp_path, {A: holed(A, (2, 32)), B: TRUTH[B]})
    cycle(app, clock, *range(1, 60))
    assert gap_states(app, A) == [(minute(2), minute(32), "missing")]
    assert gap_states(app, B) == []


def test_a_settled_hole_is_asked_for_ever_more_rarely(tmp_path: Path) -> None:
    """Each minute at first, then after 2, 4, 8 … minutes; never outside `lookback_minutes`."""
    app, exchange, clock = engine(tmp_path, {A: holed(A, (2, 32)), B: TRUTH[B]})
    asked: list[int] = []

    def note(symbol: str, start_ms: int, end_ms: int) -> None:
        if symbol == A and start_ms <= minute(2) and end_ms >= minute(32):
            asked.append((clock.at_ms - START_MS) // MINUTE_MS)

    exchange.before = note
    cycle(app, clock, *range(33, 300))
    late = [n for n in asked if n >= 45]
    waits = np.diff(late)
    assert len(waits) >= 3
    assert waits.tolist() == sorted(waits.tolist())
    assert waits[-1] == 16
    assert late[-1] <= 32 + 180


@pytest.mark.parametrize("witness", [True, False], ids=["no_trades", "missing"])
def test_a_candle_that_comes_after_its_hole_was_settled_repairs_it(
    tmp_path: Path, *, witness: bool
) -> None:
    """Within `lookback_minutes` it is found: the gap goes, and derived bars are made anew."""
    truth = dict(TRUTH) if witness else {A: TRUTH[A]}
    app, exchange, clock = engine(tmp_path, truth)
    exchange.hidden = {(A, minute(2)), (A, minute(3))}
    cycle(app, clock, *range(1, 100))
    state = "no_trades" if witness else "missing"
    assert gap_states(app, A) == [(minute(2), minute(4), state)]
    exchange.hidden = {(A, minute(3))}
    cycle(app, clock, *range(100, 140))
    assert gap_states(app, A) == [(minute(3), minute(4), state)]
    exchange.hidden = set()
    cycle(app, clock, *range(140, 181))
    assert gap_states(app, A) == []
    for timeframe in ("5m", "15m", "1h"):
        steps = {"5m": ["5m"], "15m": ["5m", "15m"], "1h": ["5m", "15m", "1h"]}[timeframe]
        bars = part(TRUTH[A], MONDAY_MS, minute(181))
        for step in steps:
            bars = resample(bars, step)
        assert same(stored(app, A, timeframe), bars)


@pytest.mark.parametrize("witness", [True, False], ids=["no_trades", "missing"])
def test_a_candle_that_comes_after_its_hole_was_settled_marks_who_went_by_the_hole(
    tmp_path: Path, *, witness: bool
) -> None:
    """Decisions and exits took it that nobody traded, or that it is lost: a revision."""
    truth = dict(TRUTH) if witness else {A: TRUTH[A]}
    app, exchange, clock = engine(tmp_path, truth)
    exchange.hidden = {(A, minute(2))}
    cycle(app, clock, *range(1, 20))
    strategy = record_strategy(app.db, app.config, now_ms=0)
    mine = {"exchange": "bitget", "symbol": A, "opened_ts_ms": None, "closed_ts_ms": None}
    older = add(app.db, strategy, 1.0, **mine, p0_ms=minute(1))
    add(app.db, strategy, 2.0, **{**mine, "closed_ts_ms": minute(2)}, p0_ms=minute(1))
    add(app.db, strategy, 3.0, **mine, p0_ms=minute(3))
    add(app.db, strategy, 4.0, **mine, p0_ms=minute(59))
    exchange.hidden = {(A, minute(60))}
    cycle(app, clock, *range(20, 63))
    assert gap_states(app, A) == [(minute(60), minute(61), "unknown")]
    exchange.hidden = set()
    cycle(app, clock, 63)  # before anybody went by it
    assert gap_states(app, A) == []
    assert app.db.rows("SELECT id FROM signals WHERE data_revised = 1") == [(older,)]


def test_an_empty_page_confirms_nothing_younger_than_ten_minutes(tmp_path: Path) -> None:
    """While the exchange shows nothing the checkpoint trails by ten minutes, then all is there."""
    app, exchange, clock = engine(tmp_path)
    exchange.truth = {s: part(t, MONDAY_MS, minute(3)) for s, t in TRUTH.items()}
    for n in range(1, 30):
        cycle(app, clock, n)
        assert checkpoint(app, A) == minute(max(min(n, 3), n - 10))
    exchange.truth = dict(TRUTH)
    cycle(app, clock, 30)
    assert gap_states(app, A) == gap_states(app, B) == []
    assert same(stored(app, A), part(TRUTH[A], MONDAY_MS, minute(30)))


def test_one_symbol_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    """It is caught up later; only when all fail is the sync itself an error."""
    app, exchange, clock = engine(tmp_path, {A: TRUTH[A], B: holed(B, (1, 2))})
    exchange.failing = {A}
    cycle(app, clock, *range(1, 9))
    assert checkpoint(app, A) == START_MS
    assert same(stored(app, B), part(holed(B, (1, 2)), MONDAY_MS, minute(8)))
    exchange.failing = {A, B}
    with pytest.raises(ExchangeError, match="is down"):
        cycle(app, clock, 9)
    exchange.failing = set()
    cycle(app, clock, 10)
    assert same(stored(app, A), part(TRUTH[A], MONDAY_MS, minute(10)))


def test_a_symbol_that_fails_while_a_hole_is_read_again_does_not_stop_the_others(
    tmp_path: Path,
) -> None:
    """The candles of the minute are stored already; the hole waits."""
    app, exchange, clock = engine(tmp_path, {A: holed(A, (1, 2)), B: TRUTH[B]})
    cycle(app, clock, 1, 2)

    def refuse(symbol: str, start_ms: int, end_ms: int) -> None:
        if (symbol, start_ms, end_ms) == (A, minute(1), minute(2)):
            raise ExchangeError("no")

    exchange.before = refuse
    cycle(app, clock, 3)
    assert gap_states(app, A) == [(minute(1), minute(2), "unknown")]
    assert checkpoint(app, B) == minute(3)


holes = st.lists(
    st.tuples(st.sampled_from([A, B, "all"]), st.integers(1, 70), st.integers(1, 14)), max_size=4
)
ticks = st.lists(st.booleans(), min_size=90, max_size=90)


@settings(
    deadline=None,
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(holes=holes, ticks=ticks)
def test_being_away_changes_nothing_in_the_end(
    tmp_path_factory: pytest.TempPathFactory,
    holes: list[tuple[str, int, int]],
    ticks: list[bool],
) -> None:
    """Candles, derived bars and gaps are the same whichever minutes were slept through."""
    truth = {
        symbol: holed(symbol, *((a, a + n) for who, a, n in holes if who in (symbol, "all")))
        for symbol in (A, B)
    }
    ends = []
    for awake in ([True] * 90, ticks):
        app, _, clock = engine(tmp_path_factory.mktemp("w"), truth)
        cycle(app, clock, *(n for n in range(1, 91) if awake[n - 1]), *range(91, 105))
        series = [stored(app, s, t) for s in (A, B) for t in ("1m", "5m", "15m", "1h")]
        ends.append((series, [gap_states(app, s) for s in (A, B)]))
        app.close()
    assert all(same(x, y) for x, y in zip(ends[0][0], ends[1][0], strict=True))
    assert ends[0][1] == ends[1][1]
