"""A retro-scan of any cut, stopped or repeated, leaves the same rows and counts each bar once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import candle_files
from core.app import App
from core.execution import order_of
from core.jobs import files, retro, retro_series
from core.signals import candidates_of, decided
from core.store.signals import update_signal
from core.timeframe import DAY_MS, HOUR_MS, floor_ms
from tests.engine_world import opened, table, write_config
from tests.replay_world import market, without_minutes
from tests.worlds import random_candles, scan_input, strategy

SYMBOLS = ("BTC/USDT:USDT", "ETH/USDT:USDT")
TABLES = ("signals", "features", "funnel")
N_DAYS = 16
SETTINGS: dict[str, Any] = {
    "symbols": list(SYMBOLS),
    "timeframes": ["15m", "1h"],
    "signals": {"min_tp_net_pct": 0.3, "max_cost_r": 1.0},
}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A folder of candles with an outage, and the first midnight."""
    folder = tmp_path_factory.mktemp("retro")
    truth = market(2, N_DAYS, 5)
    first_ms = int(truth[SYMBOLS[0]].ts_ms[0])
    for symbol in SYMBOLS:
        bars = without_minutes(truth[symbol], first_ms + 9 * DAY_MS + 5 * HOUR_MS, 200)
        candle_files.write(folder / candle_files.name_of(symbol, "1m"), bars)
    return folder, first_ms


@pytest.fixture
def app(start: tuple[Path, int], tmp_path: Path) -> Iterator[App]:
    """An engine that has the candles and has scanned nothing."""
    one = engine(start[0], tmp_path / "a")
    yield one
    one.close()


def engine(candles: Path, folder: Path) -> App:
    """Return an engine with these candles."""
    one = opened(write_config(folder, **SETTINGS))
    files.import_files(one, [candles])
    return one


def tables(app: App) -> dict[str, Any]:
    """Everything a retro-scan writes."""
    return {name: table(app.db, name) for name in TABLES}


def scanned(app: App, first_ms: int, days: tuple[int, int] = (0, N_DAYS), **how: Any) -> Any:
    """Scan some days."""
    first, end = (first_ms + day * DAY_MS for day in days)
    return retro.retro_scan(app, start_ms=first, end_ms=end, workers=1, **how)


@pytest.fixture(scope="module")
def whole(start: tuple[Path, int], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one scan of everything in one piece writes."""
    one = engine(start[0], tmp_path_factory.mktemp("whole"))
    report = scanned(one, start[1])
    assert report.n_stored > 200
    assert report.refusals["hole"] > 0
    assert report.deliveries["PAPER best_few"] > 20
    found = tables(one)
    one.close()
    return found


def in_chunks(patch: pytest.MonkeyPatch, days: int) -> None:
    """Let chunks and tails be short."""
    patch.setattr(retro, "_CHUNK_MS", days * DAY_MS)
    patch.setattr(retro, "_LEAST_CHUNK_MS", days * DAY_MS)
    patch.setattr(retro_series, "_TAIL_MS", 2 * HOUR_MS)


@pytest.mark.parametrize("days", [1, 5])
def test_the_length_of_a_chunk_does_not_matter(
    app: App,
    start: tuple[Path, int],
    whole: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    days: int,
) -> None:
    """Cut at midnights, read in pieces, trades walked on past each end: the same rows."""
    in_chunks(monkeypatch, days)
    scanned(app, start[1])
    assert tables(app) == whole


def test_more_processes_change_nothing(
    app: App, start: tuple[Path, int], whole: dict[str, Any]
) -> None:
    """Two workers find what one finds."""
    end_ms = start[1] + N_DAYS * DAY_MS
    retro.retro_scan(app, start_ms=start[1], end_ms=end_ms, workers=2)
    assert tables(app) == whole


def test_interrupted_and_repeated_it_ends_the_same(
    app: App, start: tuple[Path, int], whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after some chunks, then run again; and once more, which stores nothing."""
    in_chunks(monkeypatch, 3)

    def stopping(_: str, done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scanned(app, start[1], progress=stopping)
    stored = app.db.value("SELECT count(*) FROM signals")
    assert 0 < stored < len(whole["signals"])
    assert scanned(app, start[1]).n_stored == len(whole["signals"]) - stored
    assert tables(app) == whole
    report = scanned(app, start[1])
    assert report.n_stored == 0
    assert tables(app) == whole


def test_a_pause_of_the_owner_holds_in_the_past_too(
    app: App, start: tuple[Path, int], whole: dict[str, Any]
) -> None:
    """Nothing decided within it would have been told; before it all is as it was."""
    from_ms, to_ms = start[1] + N_DAYS // 2 * DAY_MS, start[1] + (N_DAYS // 2 + 2) * DAY_MS
    app.db.run("INSERT INTO pauses (from_ms, to_ms) VALUES (?, ?)", (from_ms, to_ms))
    scanned(app, start[1])
    rows = app.db.rows("SELECT decided_ms, delivery, delivery_reason FROM signals")
    paused = [row for row in rows if from_ms <= row[0] < to_ms]
    assert paused
    assert {row[1:] for row in paused} == {("NONE", "paused")}
    assert "paused" not in {row[2] for row in rows if row not in paused}
    assert len(rows) == len(whole["signals"])


def test_a_dry_run_says_the_same_and_stores_nothing(
    app: App, start: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its guards go on from chunk to chunk as if the rows were there."""
    in_chunks(monkeypatch, 3)
    dry = scanned(app, start[1], dry_run=True).as_dict()
    assert tables(app) == {name: [] for name in TABLES}
    wet = scanned(app, start[1]).as_dict()
    assert dry | {"stored": 0} == wet | {"stored": 0}


def bars_by_day(app: App) -> dict[int, int]:
    """How many bars were counted on each day of all series."""
    return dict(
        app.db.rows("SELECT day_ms, sum(n) FROM funnel WHERE reason = 'bars' GROUP BY day_ms")
    )


def test_bars_are_counted_on_their_own_day(app: App, start: tuple[Path, int]) -> None:
    """Each day holds the bars that open on it: 96 and 24 of both symbols, less in an outage."""
    scanned(app, start[1])
    stored = app.db.rows(
        f"SELECT ts_ms - ts_ms % {DAY_MS}, count(*) FROM candles"
        " WHERE timeframe IN ('15m', '1h') GROUP BY 1"
    )
    counted = bars_by_day(app)
    assert counted == dict(stored)
    assert counted[start[1]] == 2 * (96 + 24)
    assert counted[start[1] + 9 * DAY_MS] == 2 * (96 + 24 - 14 - 4)  # 05:00 to 08:20 is missing


def test_overlapping_scans_count_each_bar_once(
    app: App, start: tuple[Path, int], whole: dict[str, Any]
) -> None:
    """Three scans that overlap count what one scan of all counts."""
    for days in ((0, 9), (5, N_DAYS), (2, 12)):
        scanned(app, start[1], days)
    assert table(app.db, "funnel") == whole["funnel"]
    assert len(table(app.db, "signals")) == len(whole["signals"])


def test_a_stored_delivery_is_taken_as_it_is(app: App, start: tuple[Path, int]) -> None:
    """What was told before counts for the guards as it was told, not as it would be now."""
    scanned(app, start[1], symbols=SYMBOLS[:1])
    told = app.db.rows("SELECT id FROM signals WHERE delivery = 'PAPER' ORDER BY id")
    assert len(told) > 10
    with app.db.write():
        for (number,) in told:
            update_signal(app.db, number, {"delivery": "DIGEST", "delivery_reason": "not_best"})
    before = table(app.db, "signals")
    report = scanned(app, start[1], dry_run=True, symbols=SYMBOLS[:1])
    assert report.deliveries["PAPER best_few"] == 0
    assert table(app.db, "signals") == before


def test_a_limit_keeps_the_newest_of_each_series(app: App, start: tuple[Path, int]) -> None:
    """Seven of each series, the last ones, marked."""
    scanned(app, start[1], limit_per_pair=7)
    kept = app.db.rows(
        "SELECT symbol, timeframe, ts_ms, scan_stride FROM signals ORDER BY ts_ms, id"
    )
    assert len(kept) == 4 * 7
    assert {row[3] for row in kept} == {0}
    scanned(app, start[1])
    for symbol in SYMBOLS:
        for timeframe in SETTINGS["timeframes"]:
            newest = app.db.rows(
                "SELECT ts_ms FROM signals WHERE symbol = ? AND timeframe = ?"
                " ORDER BY ts_ms DESC LIMIT 7",
                (symbol, timeframe),
            )
            mine = [row[2:3] for row in kept if row[:2] == (symbol, timeframe)]
            assert sorted(mine) == sorted(newest)


def test_a_stride_counts_from_the_first_bar(
    app: App, start: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every seventh bar from the start, whatever the chunks."""
    in_chunks(monkeypatch, 2)
    scanned(app, start[1], stride=7)
    rows = app.db.rows("SELECT timeframe, ts_ms, scan_stride FROM signals")
    assert len(rows) > 30
    assert {row[2] for row in rows} == {7}
    for timeframe, ts_ms, _ in rows:
        step = 7 * {"15m": 15, "1h": 60}[timeframe] * 60_000
        assert (ts_ms - floor_ms(start[1], DAY_MS)) % step == 0


def test_orders_of_rows_are_orders_of_plans() -> None:
    """The retro-scan's orders and the live ones are the same bits."""
    config, data = strategy(min_tp_net_pct=0), scan_input(random_candles(20_000, seed=3))
    found = decided(data, config, first_ms=0, last_ms=2**62)
    plans = [candidate.plan for candidate in candidates_of(found, config)]
    assert len(plans) > 20
    alone = np.concatenate([order_of(plan, "15m") for plan in plans])
    assert retro_series.orders_of(found, config).tobytes() == alone.tobytes()
