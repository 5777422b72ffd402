"""The funnel counts each bar once, adds up, and names what came closest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.app import App
from core.domain import Series
from core.jobs import retro, scan
from core.jobs.explain import market_now_ms
from core.timeframe import DAY_MS, HOUR_MS
from tests.engine_world import opened, stored, write_config
from tests.replay_world import ReplayWorld, market, prepared
from tests.worlds import MONDAY_MS

SYMBOLS = ("BTC/USDT:USDT", "ETH/USDT:USDT")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ReplayWorld:
    """Two symbols, their history scanned up to the newest candle, in the middle of a day."""
    folder = tmp_path_factory.mktemp("explain") / "w"
    signals = {"min_tp_net_pct": 0.8, "max_cost_r": 0.08}
    return prepared(folder, market(2, 14, 5), replay_days=10 / 24, signals=signals)


@pytest.fixture
def app(world: ReplayWorld, tmp_path: Path) -> Iterator[App]:
    """An engine on a copy of that world."""
    engine = opened(world.copy(tmp_path.name))
    yield engine
    engine.close()


def bars_counted(app: App) -> dict[tuple[str, str, int], int]:
    """How many bars of each series are counted on each day."""
    rows = app.db.rows("SELECT symbol, timeframe, day_ms, n FROM funnel WHERE reason = 'bars'")
    return {(symbol, timeframe, day_ms): n for symbol, timeframe, day_ms, n in rows}


def bars_stored(app: App) -> dict[tuple[str, str, int], int]:
    """How many bars of each series are stored of each day."""
    counts: dict[tuple[str, str, int], int] = {}
    for symbol in app.config.symbols:
        for timeframe in app.config.timeframes:
            for ts_ms in stored(app, symbol, timeframe).ts_ms.tolist():
                key = (symbol, timeframe, ts_ms - ts_ms % DAY_MS)
                counts[key] = counts.get(key, 0) + 1
    return counts


def test_the_first_live_bar_is_not_counted_again(app: App, world: ReplayWorld) -> None:
    """A retro-scan up to the newest candle counted it; the live scan that begins there does not."""
    assert bars_counted(app) == bars_stored(app)
    before = app.db.rows("SELECT * FROM funnel ORDER BY symbol, timeframe, day_ms, reason")
    assert scan.scan_all(app, now_ms=world.split_ms).n_bars == 4
    assert app.db.rows("SELECT * FROM funnel ORDER BY symbol, timeframe, day_ms, reason") == before


def test_a_first_live_bar_that_nobody_counted_is_counted(app: App, world: ReplayWorld) -> None:
    """History scanned up to six hours before: only the new bar is added to its day."""
    app.db.run("DELETE FROM funnel")
    app.db.run("DELETE FROM signals WHERE id NOT IN (SELECT signal_id FROM features)")
    retro.retro_scan(app, start_ms=0, end_ms=world.split_ms - 6 * HOUR_MS, workers=1)
    before = bars_counted(app)
    scan.scan_all(app, now_ms=world.split_ms)
    day_ms = world.split_ms - world.split_ms % DAY_MS
    for (symbol, timeframe, at_ms), n in bars_counted(app).items():
        assert n == before[symbol, timeframe, at_ms] + (at_ms == day_ms)


def test_bars_between_two_strategies_are_counted_once(app: App, world: ReplayWorld) -> None:
    """A new strategy goes on from the older one's position, over bars a retro-scan has counted."""
    scan.scan_all(app, now_ms=world.split_ms - 5 * HOUR_MS)
    changed = app.config.signals.model_copy(update={"min_tp_net_pct": 0.7})
    app.config = app.config.model_copy(update={"signals": changed})
    retro.retro_scan(app, start_ms=0, end_ms=world.split_ms - HOUR_MS, workers=1)
    scan.scan_all(app, now_ms=world.split_ms)
    counted = dict.fromkeys(bars_stored(app), 0)
    for symbol, timeframe, day_ms, n in app.db.rows(
        "SELECT symbol, timeframe, day_ms, n FROM funnel WHERE reason = 'bars' AND strategy_id = ?",
        (app.strategy,),
    ):
        counted[symbol, timeframe, day_ms] = n
    assert counted == bars_stored(app)
