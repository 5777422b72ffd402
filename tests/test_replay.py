"""A recording served as an exchange: the past whole, the forming bar blind, the future absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.candle_files import write
from core.clock import PacedClock, SteppedClock
from core.config import Config, config_from
from core.domain import Candles, FundingRate
from core.errors import ConfigError, ExchangeError
from core.exchange import connect, open_exchange
from core.exchange.replay import ReplayExchange

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
T0_MS = 1_704_067_200_000  # 2024-01-01
SPOT, SWAP = "BTC/USDT", "FIL/USDT:USDT"
DATA = Path(__file__).parents[2] / "shared" / "data"


def bars(n_bars: int, *, first_ms: int = T0_MS, level: float = 100.0) -> Candles:
    """Return lawful 1m candles on a tick of 0.05, no two closes in a row alike."""
    i = np.arange(n_bars, dtype=np.int64)
    o = level + (i % 7) * 0.05
    close = level + ((i + 1) % 7) * 0.05
    high, low = np.maximum(o, close) + 0.1, np.minimum(o, close) - 0.1
    values = (*(np.round(column, 2) for column in (o, high, low, close)), 1.0 + i)
    return Candles("1m", first_ms + MINUTE_MS * i, *values)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of one series with a hole between them, a swap that starts later, and funding."""
    root = tmp_path_factory.mktemp("recording")
    write(root / "BTC_USDT-1m-2023.parquet", bars(200, first_ms=T0_MS - 260 * MINUTE_MS))
    write(root / "BTC_USDT-1m-2024.parquet", bars(300))
    write(root / "FIL_USDT_USDT-1m-2024.parquet", bars(100, first_ms=T0_MS + HOUR_MS, level=5))
    (root / "funding").mkdir()
    stamps = [T0_MS + i * 30 * MINUTE_MS for i in range(10)]
    rates = pa.table({"timestamp": stamps, "funding_rate": [i * 1e-5 for i in range(10)]})
    pq.write_table(rates, root / "funding" / "FIL_USDT_USDT-funding.parquet")
    return root


def config(folder: Path, *symbols: str, **replay: Any) -> Config:
    """Return settings that replay a folder."""
    settings = {"id": "replay", "replay": {"path": str(folder), **replay}}
    return config_from({"exchange": settings, "symbols": symbols or (SPOT,)})


def at(folder: Path, now_ms: int) -> ReplayExchange:
    """Return the recording at one instant of market time."""
    exchange = ReplayExchange.open(config(folder))
    exchange.bind(lambda: now_ms)
    return exchange


def same(left: Candles, right: Candles) -> bool:
    """Say whether two series are equal bit for bit."""
    pairs = zip(left.columns(), right.columns(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


@settings(deadline=None, max_examples=60)
@given(
    now=st.integers(-270 * 60_000, 310 * 60_000),
    start=st.integers(-270, 310),
    n_bars=st.integers(0, 600),
)
def test_what_is_served_is_the_past_and_a_blind_forming_bar(
    folder: Path, now: int, start: int, n_bars: int
) -> None:
    """Every closed bar of the window is exact, the forming one is its open, the rest is absent."""
    now_ms, start_ms = T0_MS + now, T0_MS + start * MINUTE_MS
    end_ms = start_ms + n_bars * MINUTE_MS
    got = at(folder, now_ms).candles(SPOT, "1m", start_ms=start_ms, end_ms=end_ms)
    want = [bars(200, first_ms=T0_MS - 260 * MINUTE_MS), bars(300)]
    rows = [row for part in want for row in zip(*part.columns(), strict=True)]
    rows = [row for row in rows if start_ms <= row[0] < end_ms and row[0] <= now_ms]
    closed = got.closed_by(now_ms)
    assert len(got) == len(rows)
    assert len(got) - closed <= 1
    served = list(zip(*got.columns(), strict=True))
    assert served[:closed] == rows[:closed]
    for mine, true in zip(served[closed:], rows[closed:], strict=True):
        assert mine == (true[0], true[1], true[1], true[1], true[1], 0.0)


def test_serving_a_forming_bar_does_not_damage_the_recording(folder: Path) -> None:
    """Once it has closed, the bar that was served blind is served as it was."""
    now_ms = T0_MS + 10 * MINUTE_MS
    exchange = at(folder, now_ms)
    window = {"start_ms": T0_MS, "end_ms": T0_MS + HOUR_MS}
    assert exchange.candles(SPOT, "1m", **window).volume[10] == 0.0
    exchange.bind(lambda: now_ms + MINUTE_MS)
    assert same(exchange.candles(SPOT, "1m", **window)[:11], bars(300)[:11])


def test_only_what_is_recorded_is_served(folder: Path) -> None:
    """Another timeframe or symbol is refused, with what there is."""
    exchange = at(folder, T0_MS)
    for symbol, timeframe in ((SPOT, "5m"), ("NO/USDT", "1m")):
        with pytest.raises(ExchangeError, match="FIL/USDT:USDT 1m"):
            exchange.candles(symbol, timeframe, start_ms=T0_MS, end_ms=T0_MS + HOUR_MS)


def test_markets_are_made_up_from_the_data_and_say_so(folder: Path) -> None:
    """The tick is the finest step of the prices; unknown symbols are absent."""
    found = at(folder, T0_MS).markets((SPOT, SWAP, "NO/USDT"))
    assert set(found) == {SPOT, SWAP}
    assert [(m.kind, m.tick, m.fallback) for m in found.values()] == [
        ("spot", 0.05, True), ("swap", 0.05, True),
    ]  # fmt: skip


def test_funding_comes_up_to_now(folder: Path) -> None:
    """Settlements in the window and not after market time; none where nothing is recorded."""
    exchange = at(folder, T0_MS + 90 * MINUTE_MS)
    got = exchange.funding(SWAP, start_ms=T0_MS + 30 * MINUTE_MS, end_ms=T0_MS + 10 * HOUR_MS)
    want = [(30, 1e-5), (60, 2e-5), (90, 3 * 1e-5)]
    assert got == [FundingRate(T0_MS + m * MINUTE_MS, rate) for m, rate in want]
    early = exchange.funding(SWAP, start_ms=T0_MS, end_ms=T0_MS + 30 * MINUTE_MS)
    assert [rate.ts_ms for rate in early] == [T0_MS]
    assert exchange.funding(SPOT, start_ms=T0_MS, end_ms=T0_MS + HOUR_MS) == []


def test_bounds_are_those_of_the_configured_symbols(folder: Path) -> None:
    """First open and last close; unbound, the market stands at the end with all bars final."""
    both = ReplayExchange.open(config(folder, SPOT, SWAP))
    assert (both.first_ms, both.end_ms) == (T0_MS - 260 * MINUTE_MS, T0_MS + 300 * MINUTE_MS)
    swap = ReplayExchange.open(config(folder, SWAP))
    assert (swap.first_ms, swap.end_ms) == (T0_MS + HOUR_MS, T0_MS + 160 * MINUTE_MS)
    assert swap.server_time_ms() == swap.end_ms
    got = swap.candles(SWAP, "1m", start_ms=swap.first_ms, end_ms=swap.end_ms)
    assert same(got, bars(100, first_ms=T0_MS + HOUR_MS, level=5))


def test_of_two_files_with_one_instant_the_later_one_stands(tmp_path: Path) -> None:
    """Files may overlap: each instant is served once."""
    write(tmp_path / "BTC_USDT-1m-2023.parquet", bars(10))
    write(tmp_path / "BTC_USDT-1m-2024.parquet", bars(10, first_ms=T0_MS + 5 * MINUTE_MS, level=7))
    exchange = at(tmp_path, T0_MS + HOUR_MS)
    got = exchange.candles(SPOT, "1m", start_ms=T0_MS, end_ms=T0_MS + HOUR_MS)
    assert got.ts_ms.tolist() == [T0_MS + i * MINUTE_MS for i in range(15)]
    assert same(got[5:], bars(10, first_ms=T0_MS + 5 * MINUTE_MS, level=7))


def test_an_unusable_folder_is_a_configuration_error(tmp_path: Path, folder: Path) -> None:
    """An absent folder, one without candles and one without our symbols are named."""
    for path, symbol in ((tmp_path / "none", SPOT), (tmp_path, SPOT), (folder, "NO/USDT")):
        with pytest.raises(ConfigError, match=r"exchange\.replay\.path"):
            open_exchange(config(path, symbol))


def test_connect_starts_where_it_is_told(folder: Path) -> None:
    """A resumed instant wins, then the configured day, then the first candle."""
    first_ms = T0_MS - 260 * MINUTE_MS
    for replay, resume_ms, want_ms in (
        ({}, None, first_ms),
        ({"start": "2024-01-01"}, None, T0_MS),
        ({"start": "2020-01-01"}, None, first_ms),
        ({"start": "2024-01-01"}, T0_MS + HOUR_MS, T0_MS + HOUR_MS),
    ):
        exchange, clock = connect(config(folder, **replay), resume_ms=resume_ms)
        assert isinstance(clock, PacedClock)
        assert clock.now_ms() == exchange.server_time_ms() == want_ms
        assert clock.speed == 1800.0


@pytest.mark.parametrize(("speed", "stepped"), [(0, False), (1800, True)])
def test_a_stepped_replay_walks_to_its_end(folder: Path, speed: float, stepped: bool) -> None:
    """Minute by minute each bar becomes final exactly when the clock reaches its close."""
    settings = config(folder, SWAP, speed=speed)
    exchange, clock = connect(settings, resume_ms=None, stepped=stepped)
    assert isinstance(clock, SteppedClock)
    n_final, n_steps = [], 0
    while not clock.finished:
        now_ms = exchange.server_time_ms()
        got = exchange.candles(SWAP, "1m", start_ms=T0_MS, end_ms=now_ms + HOUR_MS)
        n_final.append(got.closed_by(now_ms))
        clock.settled(now_ms + MINUTE_MS)
        n_steps += 1
    assert n_final == list(range(101))
    assert n_steps == 101


@pytest.mark.skipif(not DATA.is_dir(), reason="no recorded candles beside the project")
def test_the_recorded_market_is_served() -> None:
    """Real bars across a change of year, with funding beside the folder and a real tick."""
    new_year_ms = T0_MS
    exchange = ReplayExchange.open(config(DATA / "ohlcv", "BTC/USDT"))
    exchange.bind(lambda: new_year_ms + HOUR_MS + 1)
    got = exchange.candles(
        "BTC/USDT", "1m", start_ms=new_year_ms - HOUR_MS, end_ms=new_year_ms + 2 * HOUR_MS
    )
    assert len(got) == 121
    assert np.all(np.diff(got.ts_ms) == MINUTE_MS)
    assert exchange.markets(("BTC/USDT",))["BTC/USDT"].tick == 0.01
    rates = exchange.funding(
        "BTC/USDT:USDT", start_ms=new_year_ms - 24 * HOUR_MS, end_ms=new_year_ms + 24 * HOUR_MS
    )
    hours = [(rate.ts_ms - new_year_ms) // HOUR_MS for rate in rates]
    assert hours == [-24, -16, -8, 0]
