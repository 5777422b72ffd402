"""The law of candles, and the files they travel in."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import candle_files
from core.candle_files import CandleFile, find, name_of, parse_name, read, read_group, spans, write
from core.candle_law import finest_step, lawful
from core.domain import Candles
from core.errors import DataError
from tests.history_world import RECORDED

MINUTE_MS = 60_000
T0_MS = 1_704_067_200_000  # 2024-01-01

prices = st.floats(0.01, 1000, allow_nan=False)
anything = st.one_of(
    st.none(), st.text(max_size=3), st.just("12.5"), st.floats(), st.integers(-(10**30), 10**30)
)
END_MS = T0_MS + 4 * MINUTE_MS
on_grid = st.integers(-1, 5).map(lambda i: T0_MS + i * MINUTE_MS)
instants = st.integers(0, 9).flatmap(lambda i: on_grid if i else st.just(T0_MS + 1) | anything)


@st.composite
def good_rows(draw: st.DrawFn) -> list[Any]:
    """Draw one row that is lawful but for, perhaps, its instant."""
    low, a, b, high = sorted(draw(st.lists(prices, min_size=4, max_size=4)))
    o, close = draw(st.permutations([a, b]))
    return [draw(instants), o, high, low, close, draw(st.floats(0, 1e9))]


rows_of_any_kind = st.lists(
    st.one_of(
        good_rows(), st.lists(anything, max_size=8), st.lists(prices, min_size=6, max_size=6)
    ),
    max_size=20,
)


def number(value: Any) -> float:
    """Return a value as a float, NaN if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def is_lawful(row: list[Any], start_ms: int, end_ms: int) -> bool:
    """Say whether a row is a bar, straight from the definition."""
    if len(row) < 6:
        return False
    ts, o, h, low, c, v = (number(value) for value in row[:6])
    if not all(np.isfinite(x) for x in (ts, o, h, low, c, v)):
        return False
    on_grid = int(ts) == ts and int(ts) % MINUTE_MS == 0 and start_ms <= ts < end_ms
    return on_grid and 0 < low <= min(o, c) <= max(o, c) <= h and v >= 0


@settings(deadline=None, max_examples=300)
@given(rows=rows_of_any_kind)
def test_the_law_keeps_exactly_the_bars(rows: list[list[Any]]) -> None:
    """Kept: the last lawful row of each instant, in order. Every other row is counted once."""
    bars, dropped = lawful(rows, timeframe="1m", start_ms=T0_MS, end_ms=END_MS)
    good = [row for row in rows if is_lawful(row, T0_MS, END_MS)]
    want = {int(float(row[0])): [number(x) for x in row[1:6]] for row in good}
    assert bars.ts_ms.tolist() == sorted(want)
    assert bars.ts_ms.dtype == np.int64
    got = np.column_stack(bars.columns()[1:]).tolist() if len(bars) else []
    assert got == [want[ts_ms] for ts_ms in sorted(want)]
    assert len(bars) + sum(dropped.values()) == len(rows)
    assert all(n > 0 for n in dropped.values())


@settings(deadline=None, max_examples=50)
@given(rows=rows_of_any_kind)
def test_the_law_of_a_law_is_itself(rows: list[list[Any]]) -> None:
    """What is lawful stays as it is, given as a matrix or as rows."""
    bars, _ = lawful(rows, timeframe="1m", start_ms=T0_MS, end_ms=END_MS)
    matrix = np.column_stack(bars.columns()).astype(np.float64)
    for again in (matrix, matrix.tolist()):
        twice, dropped = lawful(again, timeframe="1m", start_ms=T0_MS, end_ms=END_MS)
        assert dropped == {}
        assert all(
            np.array_equal(a, b) for a, b in zip(bars.columns(), twice.columns(), strict=True)
        )


def test_each_fault_is_counted_by_its_reason() -> None:
    """One row of each fault: the counts name them."""
    ok = [T0_MS, 2, 3, 1, 2, 0]
    rows: list[list[Any]] = [
        [None, 2, 3, 1, 2, 0], [T0_MS + 1, 2, 3, 1, 2, 0], [T0_MS - MINUTE_MS, 2, 3, 1, 2, 0],
        [T0_MS, 2, 1, 3, 2, 0], [T0_MS, 2, 3, 0, 2, 0], [T0_MS, 2, 3, 1, 2, -1],
        [T0_MS, 2, 3, 1, 2, "x"], ok, [str(T0_MS), "2", "3", "1", "2.5", "7", "ignored"],
    ]  # fmt: skip
    bars, dropped = lawful(rows, timeframe="1m", start_ms=T0_MS, end_ms=T0_MS + MINUTE_MS)
    assert dropped == {
        "not_a_number": 2, "off_grid": 1, "outside": 1, "prices": 2, "volume": 1, "duplicate": 1,
    }  # fmt: skip
    assert (bars.close.tolist(), bars.volume.tolist()) == ([2.5], [7.0])


@pytest.mark.parametrize(
    ("decimals", "multiple"), [(0, 1), (1, 1), (1, 5), (2, 1), (2, 2), (3, 5), (8, 1)]
)
def test_the_finest_step_is_the_tick_prices_were_drawn_on(decimals: int, multiple: int) -> None:
    """Prices on a grid give that grid back, at any height."""
    rng = np.random.default_rng(decimals * 10 + multiple)
    for height in (1, 1000, 60_000):
        whole = height * 10**decimals + rng.integers(0, 1000, 400) * multiple
        whole -= whole % multiple
        drawn = np.array([float(f"{n}e-{decimals}") for n in whole])
        assert finest_step(drawn) == float(f"{multiple}e-{decimals}")


@pytest.mark.parametrize(
    ("name", "series"),
    [
        ("BTC_USDT-1m-2024.parquet", ("BTC/USDT", "1m")),
        ("FIL_USDT_USDT-1m-2024.parquet", ("FIL/USDT:USDT", "1m")),
        ("BTC_USDT-1m.parquet", ("BTC/USDT", "1m")),
        ("1000PEPE_USDT_USDT-15m-2024-05.csv", ("1000PEPE/USDT:USDT", "15m")),
        ("BTC_USDT_USDT-funding.parquet", None),
        ("BTC_USDT_USDT-8h-mark.parquet", None),
        ("BTC_USDT-7m-2024.parquet", None),
        ("BTC-1m.parquet", None),
        ("BTC_USDT-1m.parquet.tmp", None),
        (".BTC_USDT-1m.parquet", None),
    ],
)
def test_names_say_series(name: str, series: tuple[str, str] | None) -> None:
    """A name is a series or nothing."""
    assert parse_name(Path("some") / name) == series


@pytest.mark.parametrize("symbol", ["BTC/USDT", "FIL/USDT:USDT", "ETH/BTC", "BTC/USD:BTC"])
@pytest.mark.parametrize("year", [None, 2024])
def test_names_round_trip(symbol: str, year: int | None) -> None:
    """The name of a series is read as that series."""
    assert parse_name(Path(name_of(symbol, "4h", year=year))) == (symbol, "4h")


def walk(n_bars: int, *, first_ms: int = T0_MS) -> Candles:
    """Return lawful 1m candles whose values need every bit."""
    rng = np.random.default_rng(n_bars)
    o, close = rng.uniform(90, 110, (2, n_bars))
    high, low = np.maximum(o, close) + rng.random(n_bars), np.minimum(o, close) - rng.random(n_bars)
    ts_ms = first_ms + MINUTE_MS * np.arange(n_bars, dtype=np.int64)
    return Candles("1m", ts_ms, o, high, low, close, rng.random(n_bars) * 1e3)


def joined(chunks: list[Candles]) -> list[list[float]]:
    """Return the columns of chunks one after the other, as plain numbers."""
    columns = zip(*(chunk.columns() for chunk in chunks), strict=True)
    return [np.concatenate(column).tolist() for column in columns]


def plain(bars: Candles) -> list[list[float]]:
    """Return columns as plain numbers."""
    return [column.tolist() for column in bars.columns()]


def series(path: Path) -> CandleFile:
    """Return a file as the BTC/USDT 1m series."""
    return CandleFile(path, "BTC/USDT", "1m")


def test_a_round_trip_is_exact_and_windows_cut_it(tmp_path: Path) -> None:
    """What is written is read bit for bit, over row groups and chunks; a window is its slice."""
    bars = walk(150_000)
    path = tmp_path / "new" / "BTC_USDT-1m.parquet"
    write(path, bars)
    [file] = find([path])
    dropped: Counter[str] = Counter()
    chunks = list(read(file, dropped=dropped))
    assert len(chunks) >= 3
    assert joined(chunks) == plain(bars)
    assert not dropped
    start_ms, end_ms = T0_MS + 131_000 * MINUTE_MS, T0_MS + 131_100 * MINUTE_MS + 1
    cut = list(read(file, start_ms=start_ms, end_ms=end_ms))
    assert joined(cut) == plain(bars[131_000:131_101])
    assert joined([read_group(file, span.group) for span in spans(file)]) == plain(bars)
    assert [(s.first_ms, s.last_ms) for s in spans(file)] == [
        (T0_MS, T0_MS + 131_071 * MINUTE_MS),
        (T0_MS + 131_072 * MINUTE_MS, T0_MS + 149_999 * MINUTE_MS),
    ]


def test_an_empty_series_round_trips(tmp_path: Path) -> None:
    """No bars are a file without bars."""
    path = tmp_path / "BTC_USDT-1m.parquet"
    write(path, Candles.empty("1m"))
    assert list(read(series(path))) == []
    assert spans(series(path)) == []


def test_a_failed_write_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails while writing neither damages the file nor leaves a draft behind."""
    path = tmp_path / "BTC_USDT-1m.parquet"
    write(path, walk(5))

    def full_disk(*args: Any, **named: Any) -> None:
        Path(args[1]).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full_disk)
    with pytest.raises(DataError, match="No space left"):
        write(path, walk(9))
    assert os.listdir(tmp_path) == [path.name]
    assert joined(list(read(series(path)))) == plain(walk(5))


def table(bars: Candles, **replaced: Any) -> pa.Table:
    """Return bars as an Arrow table with some columns replaced."""
    columns = dict(zip(candle_files.COLUMNS, bars.columns(), strict=True))
    return pa.table({**columns, **replaced})


@pytest.mark.parametrize(
    "kind", [pa.timestamp("ms"), pa.timestamp("ns", "UTC"), pa.timestamp("us"), pa.float64()]
)
def test_timestamps_of_every_parquet_kind_are_ms(tmp_path: Path, kind: pa.DataType) -> None:
    """A timestamp column means the same instants as ms."""
    bars = walk(50)
    stamps = pa.array(bars.ts_ms)
    if pa.types.is_timestamp(kind):
        stamps = stamps.cast(pa.timestamp("ms"))
    path = tmp_path / "BTC_USDT-1m.parquet"
    pq.write_table(table(bars, timestamp=stamps.cast(kind)), path)
    assert joined(list(read(series(path)))) == plain(bars)
    assert [s[1:] for s in spans(series(path))] == [(T0_MS, T0_MS + 49 * MINUTE_MS)]


@pytest.mark.parametrize(("factor", "unit"), [(1e-3, "seconds"), (1e3, "micro"), (1e6, "nano")])
@pytest.mark.parametrize("n_bars", [1, 50])
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_other_units_of_time_are_refused(
    tmp_path: Path, factor: float, unit: str, n_bars: int, suffix: str
) -> None:
    """Integers that are no ms are named, with the file, instead of giving bars of 1970."""
    bars = walk(n_bars)
    path = tmp_path / f"BTC_USDT-1m.{suffix}"
    stamps = (bars.ts_ms * factor).astype(np.int64)
    if suffix == "csv":
        pa.csv.write_csv(table(bars, timestamp=stamps), path)
    else:
        pq.write_table(table(bars, timestamp=stamps), path)
    with pytest.raises(DataError, match=unit) as caught:
        list(read(series(path)))
    assert str(path) in str(caught.value)


def test_csv_gives_the_same_bars_as_parquet(tmp_path: Path) -> None:
    """A CSV with the six columns, in any order and with more beside them, is read exactly."""
    bars = walk(70_000)
    path = tmp_path / "BTC_USDT-1m.csv"
    columns = ["close", "timestamp", "high", "note", "low", "open", "volume"]
    notes = pa.array(["x"] * len(bars))
    pa.csv.write_csv(table(bars, note=notes).select(columns), path)
    [file] = find([tmp_path])
    chunks = list(read(file))
    assert len(chunks) > 1
    assert joined(chunks) == plain(bars)


def test_csv_reads_iso_instants_and_counts_bad_rows(tmp_path: Path) -> None:
    """Dates as text are UTC instants; rows that break the law are counted by reason."""
    path = tmp_path / "BTC_USDT-1m.csv"
    path.write_text(
        "timestamp,open,high,low,close,volume\n"
        "2024-01-01 00:00:00,2,3,1,2,5\n"
        "2024-01-01 00:00:30,2,3,1,2,5\n"
        "2024-01-01 00:01:00,2,3,,2,5\n"
        "2024-01-01 00:02:00,2,1,3,2,5\n"
        "2024-01-01 00:03:00,2,3,1,2,6\n"
    )
    dropped: Counter[str] = Counter()
    [bars] = read(series(path), dropped=dropped)
    assert bars.ts_ms.tolist() == [T0_MS, T0_MS + 3 * MINUTE_MS]
    assert dropped == {"off_grid": 1, "not_a_number": 1, "prices": 1}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("BTC_USDT-1m.csv", "time,o,h,l,c,v\n1,2,3,1,2,0\n", "lacks the column"),
        ("BTC_USDT-1m.csv", "timestamp,open,high,low,close,volume\n1,a,3,1,2,0\n", "cannot be"),
        ("BTC_USDT-1m.csv", "", "cannot be read"),
        ("BTC_USDT-1m.parquet", "PAR1 not at all", "cannot be read"),
    ],
)
def test_a_file_that_is_no_candle_file_is_named(
    tmp_path: Path, name: str, content: str, says: str
) -> None:
    """Wrong columns, foreign text and damage are one line that names the file."""
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=says) as caught:
        list(read(series(path)))
    assert str(path) in str(caught.value)


def test_a_parquet_file_without_the_columns_is_named(tmp_path: Path) -> None:
    """A missing column is said, and what is there instead."""
    path = tmp_path / "BTC_USDT-1m.parquet"
    pq.write_table(table(walk(3)).drop(["volume"]), path)
    with pytest.raises(DataError, match="volume"):
        list(read(series(path)))


def test_find_takes_files_and_folders_once_in_order(tmp_path: Path) -> None:
    """A file named twice counts once; other files in a folder are passed over."""
    for name in ("b/ETH_USDT-1m.csv", "a/BTC_USDT-1m.parquet", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find([tmp_path, tmp_path / "a" / "BTC_USDT-1m.parquet"])
    assert [(f.path.name, f.symbol) for f in found] == [
        ("BTC_USDT-1m.parquet", "BTC/USDT"),
        ("ETH_USDT-1m.csv", "ETH/USDT"),
    ]


@pytest.mark.parametrize("name", ["absent", "notes.txt", "empty"])
def test_find_refuses_a_path_without_candles(tmp_path: Path, name: str) -> None:
    """An absent path, a foreign file and an empty folder are named."""
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=name):
        find([tmp_path / name])


@pytest.mark.skipif(not RECORDED.is_dir(), reason="no recorded candles beside the project")
def test_recorded_candles_are_lawful_to_the_last_row() -> None:
    """A year of real 5m bars: each row is a bar, and none is lost."""
    [file] = find([RECORDED / "SOL_USDT-5m-2020.parquet"])
    dropped: Counter[str] = Counter()
    chunks = list(read(file, dropped=dropped))
    assert sum(map(len, chunks)) == 41_042
    assert not dropped
    assert min(float(chunk.low.min()) for chunk in chunks) == 1.0301
