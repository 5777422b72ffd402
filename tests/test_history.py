"""History comes in whole and goes out again: imports, exports, and backfills that resume."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import candle_files
from core.app import App
from core.domain import Candles, Series
from core.errors import DataError, ExchangeUnavailable
from core.jobs import follow, history, retro, scan, sync
from core.resample import resample
from core.store import candles as store
from core.store.signals import positions
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from tests.engine_world import (
    FAR_MS,
    fake_engine,
    gap_states,
    opened,
    part,
    same,
    stored,
    table,
    write_config,
)
from tests.worlds import MONDAY_MS, picked, random_candles

SWAP, SPOT = "BTC/USDT:USDT", "BTC/USDT"
DERIVED: dict[str, Any] = {
    "data": {"derived_timeframes": ["5m", "15m", "1h"]},
    "timeframes": ["15m"],
}
STATE = ("ohlcv", "series", "gaps", "sync_checkpoint", "sources")


def bits(n: int, seed: int, timeframe: str = "1m") -> Candles:
    """Lawful candles whose prices need every bit."""
    bars = random_candles(n, seed, timeframe)
    rng = np.random.default_rng(seed)
    for column in bars.columns()[1:5]:
        np.multiply(column, np.pi, out=column)
    bars.volume[:] = rng.uniform(0, 1, n)
    return bars


def written(folder: Path, *series: tuple[str, Candles], year: int | None = None) -> Path:
    """A folder of candle files."""
    for symbol, bars in series:
        candle_files.write(folder / candle_files.name_of(symbol, bars.timeframe, year=year), bars)
    return folder


def engine(folder: Path, **settings: Any) -> App:
    """An engine without an exchange."""
    return opened(write_config(folder, symbols=[SWAP], **{**DERIVED, **settings}))


def at(minute: int) -> int:
    """A minute of the test's world."""
    return MONDAY_MS + minute * MINUTE_MS


def test_what_is_exported_is_what_was_imported(tmp_path: Path) -> None:
    """Spot and swap in one database, through Parquet and back, bit for bit."""
    truth = {SWAP: bits(3000, 1), SPOT: bits(2000, 2)}
    app = engine(tmp_path / "a")
    rows = history.import_files(app, [written(tmp_path / "in", *truth.items())])
    assert [(r["symbol"], r["rows"], r["new"]) for r in rows] == [
        (SPOT, 2000, 2000),
        (SWAP, 3000, 3000),
    ]
    for symbol, bars in truth.items():
        assert same(stored(app, symbol), bars)
        five = resample(bars, "5m")
        assert same(stored(app, symbol, "5m"), five)
        assert same(stored(app, symbol, "1h"), resample(resample(five, "15m"), "1h"))
    history.export_files(app, tmp_path / "out", [])
    again = engine(tmp_path / "b")
    history.import_files(again, [tmp_path / "out"])
    for name in STATE:
        assert table(again.db, name, without=["id"]) == table(app.db, name, without=["id"])


def test_csv_and_parquet_give_the_same_bits(tmp_path: Path) -> None:
    """The shortest decimal of a float is that float."""
    bars = bits(500, 3)
    lines = ["timestamp,open,high,low,close,volume"]
    rows = zip(*(column.tolist() for column in bars.columns()), strict=True)
    lines += [",".join(map(repr, row)) for row in rows]
    (tmp_path / "BTC_USDT_USDT-1m.csv").write_text("\n".join(lines) + "\n")
    app = engine(tmp_path / "a")
    history.import_files(app, [tmp_path / "BTC_USDT_USDT-1m.csv"])
    assert same(stored(app, SWAP), bars)


def test_an_import_twice_is_an_import_once(tmp_path: Path) -> None:
    """No row, count, hole, source or checkpoint changes; nothing is reported as new."""
    kept = np.ones(1000, np.bool_)
    kept[[50, 51, 300]] = False
    folder = written(tmp_path / "in", (SWAP, picked(bits(1000, 4), kept)))
    app = engine(tmp_path / "a")
    history.import_files(app, [folder])
    before = [app.db.rows(f"SELECT * FROM {name}") for name in STATE]
    rows = history.import_files(app, [folder])
    assert [row["new"] for row in rows] == [0]
    assert [app.db.rows(f"SELECT * FROM {name}") for name in STATE] == before


def test_holes_of_an_import_are_missing_at_once(tmp_path: Path) -> None:
    """Between its bars, not before them; bars derived from them are absent; a window is obeyed."""
    kept = np.ones(600, np.bool_)
    kept[[7, *range(100, 160)]] = False
    folder = written(tmp_path / "in", (SWAP, picked(bits(600, 5), kept)))
    app = engine(tmp_path / "a")
    history.import_files(app, [folder], start_ms=at(3), until_ms=at(500))
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
        history.import_files(app, [folder])
    once = engine(tmp_path / "b")
    history.import_files(once, [written(tmp_path / "all", (SWAP, truth))])
    assert gap_states(app, SWAP) == []
    for name in ("ohlcv", "sync_checkpoint"):
        assert table(app.db, name) == table(once.db, name)


def test_an_import_with_other_values_rebuilds_what_was_made(tmp_path: Path) -> None:
    """The file wins, its derived bars follow, and the change is counted."""
    truth = bits(600, 7)
    app = engine(tmp_path / "a")
    history.import_files(app, [written(tmp_path / "1", (SWAP, truth))])
    other = picked(truth, slice(None))
    other.volume[100:110] *= 2
    history.import_files(app, [written(tmp_path / "2", (SWAP, other))])
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
            history.import_files(app, [written(folder, (SWAP, bars))])
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
            history.import_files(app, [path])
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
        history.import_files(app, [folder], until_ms=split)
        assert same(stored(app, SWAP, "15m"), resample(part(bars, 0, split), "15m"))
        assert same(stored(app, SWAP, "1h"), resample(resample(part(bars, 0, split), "15m"), "1h"))
        scan.scan_all(app, now_ms=split)
    live, retrospective = apps
    for day in range(1, 11):
        history.import_files(live, [folder], until_ms=split + day * DAY_MS)
        scan.scan_all(live, now_ms=split + day * DAY_MS)
        follow.follow_all(live, now_ms=split + day * DAY_MS)
    history.import_files(retrospective, [folder])
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


class Dead(BaseException):
    """The process is gone."""


def test_a_backfill_interrupted_anywhere_resumes_to_the_same_end(tmp_path: Path) -> None:
    """Deaths between and inside requests, and failures in between, cost nothing but time."""
    rng = random.Random(3)
    kept = np.ones(4 * 1440, np.bool_)
    kept[2000:2400] = kept[3000:3003] = False
    truth = {SWAP: picked(bits(4 * 1440, 12), kept), SPOT: bits(4 * 1440, 13)[900:]}
    app, exchange, clock = fake_engine(tmp_path, truth, page=40, **DERIVED)
    clock.at_ms = MONDAY_MS + 4 * DAY_MS
    exchange.hidden = {(SPOT, at(5000))}
    history.import_files(app, [written(tmp_path / "in", (SWAP, truth[SWAP][1000:1500]))])
    deaths = failures = 0
    left = 0

    def disturb(symbol: str, start_ms: int, end_ms: int) -> None:
        del symbol, start_ms, end_ms
        nonlocal left
        left -= 1
        if left == 0:
            raise Dead if rng.random() < 0.5 else ExchangeUnavailable("cut", remedy="again")

    exchange.before = disturb
    for _ in range(100):
        left = rng.randrange(1, 60)
        try:
            rows = history.backfill(app, symbols=list(truth), start_ms=MONDAY_MS, end_ms=None)
        except Dead:
            deaths += 1
            app.close()
            app = opened(app.config_path, (exchange, clock))
            continue
        failures += sum(bool(row["error"]) for row in rows)
        if not any(row["error"] for row in rows):
            break
    assert deaths >= 3
    assert failures >= 3
    assert gap_states(app, SWAP) == [
        (at(2000), at(2400), "missing"),
        (at(3000), at(3003), "no_trades"),
    ]
    assert gap_states(app, SPOT) == [(at(5000), at(5001), "no_trades")]
    quiet = {SWAP: [at(3000 + n) for n in range(3)], SPOT: [at(5000)]}
    for symbol, bars in truth.items():
        shown = picked(bars, ~np.isin(bars.ts_ms, [ts for s, ts in exchange.hidden if s == symbol]))
        assert same(stored(app, symbol), shown)
        five = resample(shown, "5m", covered_ms=np.array(quiet[symbol]))
        assert same(stored(app, symbol, "5m"), five)
        assert same(stored(app, symbol, "15m"), resample(five, "15m"))


def test_a_download_fills_the_holes_an_import_left(tmp_path: Path) -> None:
    """`missing` is asked for again: the exchange may have what the file had not."""
    kept = np.ones(1440, np.bool_)
    kept[100:400] = False
    truth = bits(1440, 14)
    app, _, clock = fake_engine(tmp_path, {SWAP: truth}, **DERIVED)
    clock.at_ms = MONDAY_MS + DAY_MS
    history.import_files(app, [written(tmp_path / "in", (SWAP, picked(truth, kept)))])
    rows = history.backfill(app, symbols=[SWAP], start_ms=MONDAY_MS, end_ms=None)
    assert [row["new"] for row in rows] == [300]
    assert gap_states(app, SWAP) == []
    assert same(stored(app, SWAP), truth)
    assert same(stored(app, SWAP, "5m"), resample(truth, "5m"))
    assert history.backfill(app, symbols=[SWAP], start_ms=MONDAY_MS, end_ms=None)[0]["new"] == 0


def test_a_sync_goes_on_where_a_backfill_ended(tmp_path: Path) -> None:
    """Backfill to an end date, then minutes: one series without a seam."""
    truth = bits(3 * 1440, 15)
    app, _, clock = fake_engine(tmp_path, {SWAP: truth}, **DERIVED)
    clock.at_ms = MONDAY_MS + 2 * DAY_MS + 30_000
    history.backfill(app, symbols=[SWAP], start_ms=MONDAY_MS, end_ms=MONDAY_MS + DAY_MS)
    assert same(stored(app, SWAP), part(truth, 0, MONDAY_MS + DAY_MS))
    sync.sync_all(app, now_ms=clock.at_ms)
    assert same(stored(app, SWAP), part(truth, 0, MONDAY_MS + 2 * DAY_MS))
    assert gap_states(app, SWAP) == []
    assert len(store.read_candles(app.db, Series("bitget", SWAP, "1d"), end_ms=FAR_MS)) == 0
