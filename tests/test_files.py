"""Candle files come in whole and go out again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.app import App
from core.domain import Series
from core.errors import DataError
from core.jobs import files, follow, retro, scan
from core.resample import resample
from core.store import candles as store
from core.store.signals import positions
from core.timeframe import DAY_MS, HOUR_MS
from tests.engine_world import (
    gap_states,
    part,
    same,
    stored,
    table,
)
from tests.history_world import SPOT, SWAP, at, bits, engine, written
from tests.worlds import MONDAY_MS, picked, random_candles

STATE = ("ohlcv", "series", "gaps", "sync_checkpoint", "sources")


def state(app: App, name: str) -> list[tuple[Any, ...]]:
    """A table's rows, but for what tells one copy of a file from another."""
    return table(app.db, name, without=["id", "fingerprint"])


def test_what_is_exported_is_what_was_imported(tmp_path: Path) -> None:
    """Spot and swap in one database, through Parquet and back, bit for bit."""
    truth = {SWAP: bits(3000, 1), SPOT: bits(2000, 2)}
    app = engine(tmp_path / "a")
    rows = files.import_files(app, [written(tmp_path / "in", *truth.items(), year=2024)])
    assert [(r["symbol"], r["rows"], r["new"]) for r in rows] == [
        (SPOT, 2000, 2000),
        (SWAP, 3000, 3000),
    ]
    for symbol, bars in truth.items():
        assert same(stored(app, symbol), bars)
        five = resample(bars, "5m")
        assert same(stored(app, symbol, "5m"), five)
        assert same(stored(app, symbol, "1h"), resample(resample(five, "15m"), "1h"))
    files.export_files(app, tmp_path / "out", [])
    again = engine(tmp_path / "b")
    files.import_files(again, [tmp_path / "out"])
    for name in STATE:
        assert state(again, name) == state(app, name)


def test_csv_and_parquet_give_the_same_bits(tmp_path: Path) -> None:
    """The shortest decimal of a float is that float."""
    bars = bits(500, 3)
    lines = ["timestamp,open,high,low,close,volume"]
    rows = zip(*(column.tolist() for column in bars.columns()), strict=True)
    lines += [",".join(map(repr, row)) for row in rows]
    (tmp_path / "BTC_USDT_USDT-1m.csv").write_text("\n".join(lines) + "\n")
    app = engine(tmp_path / "a")
    files.import_files(app, [tmp_path / "BTC_USDT_USDT-1m.csv"])
    assert same(stored(app, SWAP), bars)


def test_an_import_twice_is_an_import_once(tmp_path: Path) -> None:
    """No row, count, hole, source or checkpoint changes; nothing is reported as new."""
    kept = np.ones(1000, np.bool_)
    kept[[50, 51, 300]] = False
    folder = written(tmp_path / "in", (SWAP, picked(bits(1000, 4), kept)))
    app = engine(tmp_path / "a")
    files.import_files(app, [folder])
    before = [app.db.rows(f"SELECT * FROM {name}") for name in STATE]
    rows = files.import_files(app, [folder])
    assert [row["new"] for row in rows] == [0]
    assert [app.db.rows(f"SELECT * FROM {name}") for name in STATE] == before


def test_holes_of_an_import_are_missing_at_once(tmp_path: Path) -> None:
    """Between its bars, not before them; bars derived from them are absent; a window is obeyed."""
    kept = np.ones(600, np.bool_)
    kept[[7, *range(100, 160)]] = False
    folder = written(tmp_path / "in", (SWAP, picked(bits(600, 5), kept)))
    app = engine(tmp_path / "a")
    files.import_files(app, [folder], start_ms=at(3), until_ms=at(500))
    assert gap_states(app, SWAP) == [
        (at(7), at(8), "missing"),
        (at(100), at(160), "missing"),
    ]
    truth = part(picked(bits(600, 5), kept), at(3), at(500))
    assert same(stored(app, SWAP), truth)
    assert same(stored(app, SWAP, "5m"), resample(truth, "5m"))
    assert store.checkpoint_of(app.db, Series("bitget", SWAP, "1m")) == at(500)


def test_files_in_any_order_and_calls_end_the_same(tmp_path: Path) -> None:
    """An older file after a newer one, and one that fills a hole: the derived bars are whole."""
    truth = bits(3 * 1440, 6)
    pieces = [(2880, 4320), (0, 1000), (1200, 2880), (1000, 1200)]
    app = engine(tmp_path / "a")
    for i, (low, high) in enumerate(pieces):
        folder = written(tmp_path / str(i), (SWAP, truth[low:high]), year=2000 + i)
        files.import_files(app, [folder])
    once = engine(tmp_path / "b")
    files.import_files(once, [written(tmp_path / "all", (SWAP, truth))])
    assert gap_states(app, SWAP) == []
    for name in ("ohlcv", "sync_checkpoint"):
        assert table(app.db, name) == table(once.db, name)


def test_an_import_with_other_values_rebuilds_what_was_made(tmp_path: Path) -> None:
    """The file wins, its derived bars follow, and the change is counted."""
    truth = bits(600, 7)
    app = engine(tmp_path / "a")
    files.import_files(app, [written(tmp_path / "1", (SWAP, truth))])
    other = picked(truth, slice(None))
    other.volume[100:110] *= 2
    files.import_files(app, [written(tmp_path / "2", (SWAP, other))])
    assert same(stored(app, SWAP, "15m"), resample(resample(other, "5m"), "15m"))
    row = store.series_row(app.db, Series("bitget", SWAP, "1m"))
    assert row is not None
    assert row.n_revised == 10


def test_imported_longer_bars_stand_over_derived_ones(tmp_path: Path) -> None:
    """5m files beside 1m files: theirs are kept, and 15m is made of them, in either order."""
    minutes = bits(600, 8)
    five = resample(minutes, "5m")
    five.volume[:] *= 3.0
    ends = []
    for name, order in (("a", (minutes, five)), ("b", (five, minutes))):
        app = engine(tmp_path / name)
        for bars in order:
            folder = tmp_path / name / bars.timeframe
            files.import_files(app, [written(folder, (SWAP, bars))])
        ends.append(app)
        assert same(stored(app, SWAP, "5m"), five)
        assert same(stored(app, SWAP, "15m"), resample(five, "15m"))
    assert table(ends[0].db, "candles") == table(ends[1].db, "candles")


def test_an_unusable_path_is_one_line_and_stores_nothing(tmp_path: Path) -> None:
    """A folder without candles, and a file that is none."""
    app = engine(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "BTC_USDT-1m.parquet").write_text("no parquet")
    for path in (tmp_path / "empty", tmp_path / "none", tmp_path / "BTC_USDT-1m.parquet"):
        with pytest.raises(DataError):
            files.import_files(app, [path])
    assert table(app.db, "candles") == []


def test_the_engine_works_on_a_base_of_5m(tmp_path: Path) -> None:
    """Imported 5m, derived 15m and 1h, scanned live and retro, followed on 5m: the same books."""
    bars = random_candles(60 * 288, 11, "5m", start_price=4000.0, steps=64)
    folder = written(tmp_path / "in", (SWAP, bars))
    settings = {"data": {"base_timeframe": "5m", "derived_timeframes": ["15m", "1h"]}}
    signals = {"signals": {"min_tp_net_pct": 0.2}}
    apps = [engine(tmp_path / name, **settings, **signals) for name in ("live", "retro")]
    split, end = MONDAY_MS + 50 * DAY_MS, MONDAY_MS + 60 * DAY_MS
    for app in apps:
        files.import_files(app, [folder], until_ms=split)
        assert same(stored(app, SWAP, "15m"), resample(part(bars, 0, split), "15m"))
        assert same(stored(app, SWAP, "1h"), resample(resample(part(bars, 0, split), "15m"), "1h"))
        scan.scan_all(app, now_ms=split)
    live, retrospective = apps
    for day in range(1, 11):
        files.import_files(live, [folder], until_ms=split + day * DAY_MS)
        scan.scan_all(live, now_ms=split + day * DAY_MS)
        follow.follow_all(live, now_ms=split + day * DAY_MS)
    files.import_files(retrospective, [folder])
    retrospective.db.run("DELETE FROM scan_positions")
    retro.retro_scan(retrospective, start_ms=split - HOUR_MS, end_ms=end, workers=1)
    assert positions(live.db, live.strategy)[Series("bitget", SWAP, "15m")] == end - 900_000
    skipped = ("id", "origin", "delivery", "delivery_reason", "exec_state", "scan_stride")
    rows = [table(app.db, "signals", without=skipped) for app in apps]
    assert len(rows[0]) >= 10
    assert rows[0] == rows[1]
    bases = live.db.rows("SELECT DISTINCT base_timeframe FROM signals")
    assert bases == [("5m",)]
    closed = live.db.rows("SELECT opened_ts_ms, closed_ts_ms FROM signals WHERE status = 'SL'")
    assert len(closed) >= 3
    assert all(ms % 300_000 == 0 for row in closed for ms in row)
