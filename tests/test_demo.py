"""The demo's own bookkeeping: it prepares a market, and its count of losses can find one."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.app import open_app
from core.domain import Candles
from core.errors import UsageError
from core.jobs import run
from core.schema import KEY_SHIFT
from core.timeframe import DAY_MS, HOUR_MS
from demo.market import ASSETS, MarketSpec, generate
from demo.report import lost_or_doubled, market_rows
from demo.stage import (
    START_MS,
    Stage,
    fresh_folder,
    prepare,
    recorded_stage,
    write_candles,
    write_config,
)

N_DAYS = 31


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Stage, dict[str, Any]]:
    """Prepare a small market and replay half a day of it through the real jobs."""
    folder = tmp_path_factory.mktemp("demo")
    spec = MarketSpec(start_ms=START_MS, days=N_DAYS, seed=3, assets=ASSETS[:2])
    stage = Stage(
        folder=folder,
        symbols=tuple(asset.symbol for asset in spec.assets),
        start_ms=START_MS,
        split_ms=START_MS + 30 * DAY_MS,
        end_ms=START_MS + 30 * DAY_MS + 12 * HOUR_MS,
        banner="GENERATED",
    )
    market = {
        symbol: bars[: int(bars.ts_ms.searchsorted(stage.end_ms))]
        for symbol, bars in generate(spec).items()
    }
    write_candles(stage, market)
    write_config(stage, speed=0, timeframes=("15m",), paper=12)
    figures = prepare(stage, [folder / "history"])
    app = open_app(stage.config_path)
    run.run_stepped(app, stop=threading.Event())
    app.close()
    return stage, figures


def test_a_market_without_an_edge_loses_its_costs(
    replayed: tuple[Stage, dict[str, Any]],
) -> None:
    """Gross is zero within three errors, and net is gross minus costs in every trade."""
    books = replayed[1]["books"]
    gross, net, cost = (np.array(books[name]) for name in ("gross", "net", "cost"))
    assert len(gross) > 100
    assert abs(gross.mean()) < 3 * gross.std() / np.sqrt(len(gross)) * 2  # trades overlap
    assert np.allclose(net, gross - cost, atol=1e-12)
    assert (cost > 0).all()
    names = {row[""] for row in market_rows({"NULL": replayed[1]})}
    assert {"net R per trade (± 2 SE)", "certified thresholds"} <= names


def test_an_undisturbed_replay_lost_nothing(
    replayed: tuple[Stage, dict[str, Any]], tmp_path: Path
) -> None:
    """Every candle served is stored once, and the signals are those of a retro-scan."""
    stage, _ = replayed
    found = lost_or_doubled(stage, [stage.folder / "history"], tmp_path / "check")
    assert found["candles served"] > 1000
    assert found["signals found live"] > 0
    assert found["ok"], found


def test_the_count_finds_what_is_lost(
    replayed: tuple[Stage, dict[str, Any]], tmp_path: Path
) -> None:
    """A candle and a signal taken away are missed: the count is not a formality."""
    stage, _ = replayed
    app = open_app(stage.config_path)
    minute = (stage.split_ms + HOUR_MS) // 60_000
    mask = (1 << KEY_SHIFT) - 1
    app.db.run(
        "DELETE FROM ohlcv WHERE key = (SELECT min(key) FROM ohlcv WHERE key & ? = ?)",
        (mask, minute),
    )
    number = app.db.value("SELECT max(id) FROM signals WHERE origin = 'live'")
    app.db.run("DELETE FROM features WHERE signal_id = ?", (number,))
    app.db.run("DELETE FROM outbox WHERE signal_id = ?", (number,))
    app.db.run("DELETE FROM signals WHERE id = ?", (number,))
    app.close()
    found = lost_or_doubled(stage, [stage.folder / "history"], tmp_path / "check")
    assert found["candles lost, doubled, different"].startswith("1, 0")
    assert found["signals lost, doubled, unexpected"].startswith("1, 0")
    assert not found["ok"]


def test_recorded_candles_are_cut_thirty_days_before_their_end(tmp_path: Path) -> None:
    """The replay holds the last thirty days, the rest is imported, short pairs are left out."""
    spec = MarketSpec(start_ms=START_MS, days=40, seed=3, assets=ASSETS[:2])
    market: dict[str, Candles] = generate(spec)
    short = list(market)[1]
    market[short] = market[short][: 5 * 1440]
    source = Stage(
        folder=tmp_path / "source",
        symbols=tuple(market),
        start_ms=START_MS,
        split_ms=spec.end_ms,
        end_ms=spec.end_ms,
        banner="",
    )
    write_candles(source, market)
    stage, paths, left_out = recorded_stage(tmp_path / "demo", source.folder / "history")
    assert stage.symbols == (ASSETS[0].symbol,)
    assert len(paths) == 1
    assert len(left_out) == 1
    assert short in left_out[0]
    assert stage.split_ms == START_MS + 10 * DAY_MS
    assert replace(stage, folder=Path()).end_ms == spec.end_ms


def test_a_foreign_folder_is_not_emptied(tmp_path: Path) -> None:
    """The demo clears its own folder only."""
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        fresh_folder(tmp_path)
    assert (tmp_path / "precious.txt").exists()
    fresh_folder(tmp_path / "demo")
    fresh_folder(tmp_path / "demo")
