"""Recorded candles through the database and back: not a bit is lost."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from core import candle_files
from core.candle_files import CandleFile
from core.domain import Candles
from core.jobs import files
from core.resample import resample
from core.timeframe import is_derivable
from tests.engine_world import same, stored
from tests.history_world import DERIVED, RECORDED, engine

needs_recorded = pytest.mark.skipif(
    not RECORDED.is_dir(), reason="no recorded candles beside the project (or in TRADER_RECORDED)"
)
SAMPLE = ("SUI_USDT-1m-2024.parquet", "BNB_USDT-5m-2024.parquet")


def whole(found: list[CandleFile]) -> Candles:
    """The bars of one series' files, read without the project."""
    table = pq.ParquetDataset([file.path for file in found]).read()
    columns = [table.column(name).to_numpy() for name in candle_files.COLUMNS]
    return Candles(found[0].timeframe, *columns)


def check(tmp_path: Path, paths: list[Path]) -> int:
    """Import, resample and export some recorded files; returns the rows compared."""
    app = engine(tmp_path / "a")
    rows = files.import_files(app, paths)
    assert not any(row["refused"] for row in rows)
    assert all(row["new"] == row["rows"] for row in rows)
    found = candle_files.find(paths)
    for symbol in sorted({file.symbol for file in found}):
        mine = [file for file in found if file.symbol == symbol]
        bars = whole(mine)
        for timeframe in DERIVED["data"]["derived_timeframes"]:
            if is_derivable(timeframe, bars.timeframe):
                bars = resample(bars, timeframe)
                assert len(bars)
                assert same(stored(app, symbol, timeframe), bars)
    out = files.export_files(app, tmp_path / "out", [])
    assert sorted(Path(row["file"]).name for row in out) == sorted(f.path.name for f in found)
    for file in found:
        assert pq.read_table(tmp_path / "out" / file.path.name).equals(pq.read_table(file.path))
    assert {row["note"] for row in files.import_files(app, paths)} == {files.ALREADY}
    return sum(row["rows"] for row in out)


@needs_recorded
def test_a_year_of_recorded_candles_comes_back_as_it_was(tmp_path: Path) -> None:
    """One spot year of minutes, one of 5m: names, values and order, and the bars made of them."""
    assert check(tmp_path, [RECORDED / name for name in SAMPLE]) == 527_040 + 105_408


@pytest.mark.long
@needs_recorded
def test_all_recorded_candles_come_back_as_they_were(tmp_path: Path) -> None:
    """Every pair and year there is, spot and perpetual, outages and missing months included."""
    n_rows = sum(pq.read_metadata(path).num_rows for path in RECORDED.glob("*.parquet"))
    assert n_rows > 0
    assert check(tmp_path, [RECORDED]) == n_rows
