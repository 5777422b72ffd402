"""Exports: a file per year, whole or not at all, and back again bit for bit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from core import candle_files
from core.app import App
from core.domain import Candles, Series
from core.errors import DataError
from core.jobs import files
from core.jobs.readings import write_bars
from core.resample import resample
from core.store import candles as store
from tests.engine_world import same, stored, table
from tests.history_world import SPOT, SWAP, at, bits, engine, written
from tests.worlds import MONDAY_MS

BEFORE_MS = MONDAY_MS - 500 * 60_000  # 2023-12-31 15:40


def moved(bars: Candles, by_ms: int) -> Candles:
    """The same bars at another time."""
    ts_ms, *prices = bars.columns()
    return Candles(bars.timeframe, ts_ms + by_ms, *prices)


def filled(folder: Path) -> tuple[App, dict[str, Candles]]:
    """An engine with spot and swap candles on both sides of a new year, 5m base for a third."""
    truth = {
        "BNB/USDT": moved(bits(300, 3, "5m"), BEFORE_MS - MONDAY_MS),
        SPOT: moved(bits(1000, 1), BEFORE_MS - MONDAY_MS),
        SWAP: bits(700, 2),
    }
    app = engine(folder / "a")
    files.import_files(app, [written(folder / "in", *truth.items())], origin="kraken")
    return app, truth


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("one_file", [True, False])
def test_an_export_imported_elsewhere_is_the_same(
    tmp_path: Path, suffix: str, one_file: bool
) -> None:
    """Every format and layout carries every bit of every series; Parquet its origin too."""
    app, truth = filled(tmp_path)
    out = tmp_path / "out"
    rows = files.export_files(app, out, [], suffix=suffix, one_file=one_file)
    if one_file:
        assert names(out) == [f"candles-1m{suffix}", f"candles-5m{suffix}"]
    else:
        assert names(out) == sorted(
            f"{name}-{year}{suffix}"
            for name, years in (
                ("BNB_USDT-5m", (2023, 2024)),
                ("BTC_USDT-1m", (2023, 2024)),
                ("BTC_USDT_USDT-1m", (2024,)),
            )
            for year in years
        )
    assert sum(row["rows"] for row in rows) == sum(map(len, truth.values()))
    again = engine(tmp_path / "b")
    files.import_files(again, [out])
    for name in ("candles", "gaps", "sync_checkpoint"):
        assert table(again.db, name) == table(app.db, name)
    want = {"kraken"} if suffix == ".parquet" else {""}
    assert {row[0] for row in again.db.rows("SELECT origin FROM sources")} == want


def test_a_year_ends_at_its_last_minute(tmp_path: Path) -> None:
    """The first bar of 2024 opens the file of 2024; a window and symbols cut what is written."""
    app, truth = filled(tmp_path)
    files.export_files(app, tmp_path / "out", [SPOT])
    old, new = (next(candle_files.read(file)) for file in candle_files.find([tmp_path / "out"]))
    assert same(old, truth[SPOT][:500])
    assert int(new.ts_ms[0]) == MONDAY_MS
    [row] = files.export_files(
        app, tmp_path / "cut", [SPOT], start_ms=at(-3), until_ms=at(0), timeframes=["1m"]
    )
    assert (Path(row["file"]).name, row["rows"]) == ("BTC_USDT-1m-2023.parquet", 3)
    assert files.export_files(app, tmp_path / "none", ["ZZZ/USDT"]) == []
    assert files.export_files(app, tmp_path / "none", [], start_ms=at(99_999), one_file=True) == []
    assert not (tmp_path / "none").exists()


def test_longer_timeframes_are_written_on_request(tmp_path: Path) -> None:
    """Derived or imported, what is stored of them."""
    app, truth = filled(tmp_path)
    rows = files.export_files(app, tmp_path / "out", [], timeframes=["5m", "1h"])
    made = {(row["symbol"], row["timeframe"]) for row in rows}
    assert made == {(s, t) for s in truth for t in ("5m", "1h")}
    [file] = [
        f for f in candle_files.find([tmp_path / "out"]) if (f.symbol, f.timeframe) == (SWAP, "5m")
    ]
    assert same(next(candle_files.read(file)), resample(truth[SWAP], "5m"))


def test_the_origin_written_is_the_one_all_bars_have(tmp_path: Path) -> None:
    """Downloaded bars are the exchange's own; mixed with a file's of another, nothing is said."""
    app = engine(tmp_path / "a")
    series = Series("bitget", SWAP, "1m")

    def origins() -> list[str]:
        rows = files.export_files(app, tmp_path / "out", [SWAP])
        said = [candle_files.origin_of(file) for file in candle_files.find([tmp_path / "out"])]
        assert [row["origin"] for row in rows] == said
        return said

    write_bars(app, series, bits(300, 4))
    assert origins() == ["bitget"]
    later = moved(bits(100, 5), 300 * 60_000)
    folder = written(tmp_path / "in", (SWAP, later))
    files.import_files(app, [folder], origin="bitget")
    assert origins() == ["bitget"]
    files.import_files(app, [folder], origin="okx")
    assert origins() == [""]
    files.import_files(app, [written(tmp_path / "in", (SWAP, bits(400, 4)), year=2024)])
    app.db.run("DELETE FROM sources WHERE origin = 'okx'")
    assert origins() == [""]


def test_only_candles_of_this_exchange_are_written(tmp_path: Path) -> None:
    """Another exchange's candles of the same name would land in the same file."""
    app, truth = filled(tmp_path)
    store.upsert_candles(app.db, Series("okx", SPOT, "1m"), bits(2000, 6))
    rows = files.export_files(app, tmp_path / "out", [SPOT])
    assert sum(row["rows"] for row in rows) == len(truth[SPOT])


def test_a_symbol_that_no_name_can_tell_is_refused(tmp_path: Path) -> None:
    """A dated future's name would be read as another's; in one file its column says it."""
    app = engine(tmp_path / "a")
    dated, bars = "BTC/USDT:USDT-240329", bits(50, 7)
    write_bars(app, Series("bitget", dated, "1m"), bars)
    with pytest.raises(DataError, match="--one-file"):
        files.export_files(app, tmp_path / "out", [])
    files.export_files(app, tmp_path / "out", [], one_file=True)
    again = engine(tmp_path / "b")
    files.import_files(again, [tmp_path / "out"])
    assert same(stored(again, dated), bars)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("one_file", [True, False])
def test_an_export_that_fails_leaves_the_old_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, one_file: bool
) -> None:
    """A full disk neither damages what is there nor leaves a draft behind."""
    app, _ = filled(tmp_path)
    out = tmp_path / "out"
    files.export_files(app, out, [], suffix=suffix, one_file=one_file)
    before = {name: (out / name).read_bytes() for name in names(out)}

    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    for module, name in (
        (pq, "write_table"),
        (pyarrow.csv, "write_csv"),
        (pq.ParquetWriter, "write_table"),
        (os, "fsync"),
    ):
        monkeypatch.setattr(module, name, full_disk)
    with pytest.raises(DataError, match="No space left"):
        files.export_files(app, out, [], suffix=suffix, one_file=one_file)
    assert {name: (out / name).read_bytes() for name in names(out)} == before


def test_progress_names_each_file(tmp_path: Path) -> None:
    """In both directions, to the end."""
    app, _ = filled(tmp_path)
    told: list[tuple[str, int, int]] = []
    files.export_files(app, tmp_path / "out", [], progress=lambda *step: told.append(step))
    assert [step[1:] for step in told] == [(i, 5) for i in range(6)]
    assert [step[0] for step in told[:-1]] == [f"export {name}" for name in names(tmp_path / "out")]
