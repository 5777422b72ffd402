"""Bar by bar is the same as all at once, and no later candle matters, on long stretches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from core.app import App
from core.domain import FundingRate, Series
from core.jobs import files
from core.jobs.parity import Compared, Stretch, compared
from core.jobs.verify import verify
from core.store import markets as market_store
from core.timeframe import DAY_MS, HOUR_MS, tf_ms
from tests.engine_world import opened, stored, write_config
from tests.figures import Record
from tests.history_world import RECORDED
from tests.replay_world import market, prepared, without_minutes
from tests.worlds import MONDAY_MS

SYMBOLS = ("BTC/USDT:USDT", "ETH/USDT:USDT", "SOL/USDT:USDT")
SPOT = ("BTC/USDT", "ETH/USDT", "SUI/USDT")
needs_recorded = pytest.mark.skipif(
    not RECORDED.is_dir(), reason="no recorded candles beside the project (or in TRADER_RECORDED)"
)


def stretch_of(series: Series, first_ms: int, days: int) -> Stretch:
    """Some days of a series, and 120 bars more for its trades."""
    step = tf_ms(series.timeframe)
    last_ms = first_ms + days * DAY_MS - step
    return Stretch(series=series, first_ms=first_ms, last_ms=last_ms, end_ms=last_ms + 122 * step)


def assert_alike(found: Compared, *, n_rows: int, n_trades: int) -> None:
    """Nothing differs, and there was enough that could."""
    assert found.differences == []
    assert found.n_same_rows == found.n_rows >= n_rows
    assert found.n_same_trades == found.n_trades >= n_trades


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """Sixteen days of three perpetuals with a hole, funding, open interest and a spot pair."""
    truth = dict(market(3, 16, 5))
    hole_ms = MONDAY_MS + 9 * DAY_MS + 5 * HOUR_MS
    truth[SYMBOLS[1]] = without_minutes(truth[SYMBOLS[1]], hole_ms, 45)
    truth[SYMBOLS[0].partition(":")[0]] = truth[SYMBOLS[2]]
    folder = tmp_path_factory.mktemp("parity") / "w"
    signals = {"min_tp_net_pct": 0.3}
    world = prepared(folder, truth, replay_days=1 / 24, signals=signals)
    app = opened(world.folder / "config.yaml")
    rng = np.random.default_rng(4)
    for symbol in SYMBOLS:
        instants = range(MONDAY_MS - 4 * DAY_MS, MONDAY_MS + 16 * DAY_MS, 8 * HOUR_MS)
        rates = [FundingRate(at_ms, float(rng.normal(0, 1e-3))) for at_ms in instants]
        market_store.upsert_funding(app.db, "replay", symbol, rates)
        for at_ms in stored(app, symbol, "15m").ts_ms.tolist():
            qty = float(rng.uniform(90, 110))
            market_store.insert_interest(app.db, "replay", symbol, at_ms + 6000, qty)
    yield app
    app.close()


@pytest.mark.parametrize("series", [(SYMBOLS[0], "15m"), (SYMBOLS[1], "5m"), (SYMBOLS[2], "15m")])
def test_seven_days_lived_through_are_their_retro_scan(
    generated: App, tmp_path: Path, series: tuple[str, str]
) -> None:
    """Each closed bar in turn, with a hole, awaited funding and a leader that comes second."""
    stretch = stretch_of(Series("replay", *series), MONDAY_MS + 7 * DAY_MS, 7)
    found = compared(generated, stretch, tmp_path / "scratch")
    assert_alike(found, n_rows=25, n_trades=8)


def engine(folder: Path, *, months: int) -> App:
    """An engine with the first months of a recorded year."""
    replay = {"id": "replay", "replay": {"path": "none", "speed": 0}}
    config = write_config(
        folder, exchange=replay, symbols=list(SPOT), timeframes=["15m", "1h", "4h"]
    )
    app = opened(config)
    paths = [RECORDED / f"{symbol.replace('/', '_')}-1m-2024.parquet" for symbol in SPOT]
    files.import_files(app, paths, until_ms=MONDAY_MS + months * 30 * DAY_MS)
    return app


@needs_recorded
def test_sixty_points_and_three_stretches_of_recorded_candles(tmp_path: Path) -> None:
    """The owner's command on two months of three pairs."""
    app = engine(tmp_path / "a", months=2)
    found = verify(app, n_points=60, seed=2)
    app.close()
    assert (found["checked"], found["same"], found["failed"]) == (60, 60, [])
    assert found["ok"]
    assert found["candidates_compared"] >= 25


def long_engine(folder: Path) -> App:
    """A recorded year of three pairs; where none is at hand, as much of a generated market."""
    if RECORDED.is_dir():
        return engine(folder, months=12)
    world = prepared(folder, market(3, 125, 5), replay_days=1 / 24)
    return opened(world.folder / "config.yaml")


@pytest.mark.long(minutes=2)
def test_ninety_days_and_four_hundred_points(tmp_path: Path, record_property: Record) -> None:
    """Three pairs, bar by bar for ninety days; 400 points and twenty stretches more."""
    app, n_rows, n_trades = long_engine(tmp_path / "a"), 0, 0
    for number, symbol in enumerate(app.config.symbols):
        stretch = stretch_of(Series("replay", symbol, "15m"), MONDAY_MS + 30 * DAY_MS, 90)
        found = compared(app, stretch, tmp_path / str(number))
        assert_alike(found, n_rows=400, n_trades=100)
        n_rows, n_trades = n_rows + found.n_rows, n_trades + found.n_trades
    points = verify(app, n_points=400, seed=5)
    app.close()
    assert (points["checked"], points["same"], points["failed"]) == (400, 400, [])
    assert points["candidates_compared"] >= 150
    record_property("bar by bar", f"{n_rows:,} rows and {n_trades:,} trades equal")
    record_property("points", f"{points['same']} of {points['checked']} equal")
