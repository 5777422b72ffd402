"""Candles as exchanges and other tools lay them down: archives, wrappings, many in one file."""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from core import candle_files
from core.candle_files import CandleFile, Form, chunks, find, find_all, read, split_pair
from core.domain import Candles
from core.errors import DataError
from tests.engine_world import same
from tests.history_world import ARCHIVE_HEADER, MONTH, SPOT, SWAP, archived, at, bits, zipped
from tests.worlds import picked


def whole(file: CandleFile) -> dict[str, Candles]:
    """The bars of a file by series."""
    found: dict[str, list[Candles]] = {}
    for parts in chunks(file):
        for part in parts:
            found.setdefault(part.symbol, []).append(part.bars)
    return {
        symbol: Candles(
            file.timeframe,
            *(np.concatenate(c) for c in zip(*(b.columns() for b in bars), strict=True)),
        )
        for symbol, bars in found.items()
    }


@pytest.mark.parametrize(
    ("pair", "split"),
    [
        ("BTCUSDT", ("BTC", "USDT")), ("ETHBTC", ("ETH", "BTC")), ("BTCFDUSD", ("BTC", "FDUSD")),
        ("BTCTUSD", ("BTC", "TUSD")), ("USDCUSDT", ("USDC", "USDT")), ("BNBBUSD", ("BNB", "BUSD")),
        ("1000PEPEUSDC", ("1000PEPE", "USDC")), ("EURUSD", ("EUR", "USD")),
        ("USDT", None), ("BTC", None), ("BTCXYZ", None),
    ],
)  # fmt: skip
def test_a_pair_is_split_at_the_longest_quote(pair: str, split: tuple[str, str] | None) -> None:
    """The base is never empty; an unknown quote is none."""
    assert split_pair(pair) == split


@pytest.mark.parametrize(
    ("place", "symbol"),
    [
        (f"spot/monthly/klines/BTCUSDT/1m/{MONTH}.zip", SPOT),
        (f"spot/daily/klines/BTCUSDT/1m/{MONTH}-15.zip", SPOT),
        (f"data/futures/um/monthly/klines/BTCUSDT/1m/{MONTH}.csv", SWAP),
        (f"futures/{MONTH}.csv", SWAP),
        ("futures/um/ETHBTC-4h-2024-01.zip", "ETH/BTC:BTC"),
        (f"spot/futures/{MONTH}.zip", SWAP),
        (f"futures/um/monthly/markPriceKlines/BTCUSDT/1m/{MONTH}.zip", None),
        (f"futures/um/daily/indexPriceKlines/BTCUSDT/1m/{MONTH}-01.zip", None),
        ("futures/cm/monthly/klines/BTCUSD/1m/BTCUSD-1m-2024-01.zip", None),
        ("spot/BTCUSDT-3d-2024-01.zip", None),
        ("spot/BTCUSDT-aggTrades-2024-01.zip", None),
        ("spot/BTCUSDT-1m-2024-01.zip.CHECKSUM", None),
    ],
)
def test_names_and_places_of_archives(tmp_path: Path, place: str, symbol: str | None) -> None:
    """The nearest folder tells spot from perpetual; what is no traded candle is passed over."""
    for name in (place, "spot/ETH_USDT-1m.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [file.symbol for file in find_all([tmp_path]) if file.form is Form.ARCHIVE]
    assert found == [symbol] * (symbol is not None)


def test_an_archive_that_may_be_either_market_is_named(tmp_path: Path) -> None:
    """Neither path nor argument: one line with the remedy; one of them decides, both must agree."""
    bare = zipped(tmp_path / f"{MONTH}.zip", a=archived(bits(5, 1)))
    with pytest.raises(DataError, match=f"{MONTH}.*--market spot"):
        find_all([tmp_path])
    assert [find_all([bare], market=m)[0].symbol for m in ("spot", "swap")] == [SPOT, SWAP]
    placed = zipped(tmp_path / "spot" / f"{MONTH}.zip", a=archived(bits(5, 1)))
    assert find_all([placed], market="spot")[0].symbol == SPOT
    with pytest.raises(DataError, match="leave --market out"):
        find_all([placed], market="swap")


def test_an_archive_of_an_unknown_quote_is_named(tmp_path: Path) -> None:
    """It is not passed over in silence, nor guessed at."""
    path = zipped(tmp_path / "spot" / "BTCXYZ-1m-2024-01.zip", a=archived(bits(5, 1)))
    with pytest.raises(DataError, match="BTCXYZ ends in no quote"):
        find_all([path])


@pytest.mark.parametrize("unit", [1, 1000])
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("suffix", ["csv", "zip"])
def test_an_archive_gives_the_bars_it_was_made_of(
    tmp_path: Path, unit: int, header: bool, suffix: str
) -> None:
    """Bit for bit: zipped or not, headed or not, in milliseconds or microseconds."""
    truth = bits(70_000, 2)
    path = tmp_path / "spot" / f"{MONTH}.{suffix}"
    content = archived(truth, unit=unit, header=header)
    if suffix == "zip":
        zipped(path, **{MONTH: content})
    else:
        path.parent.mkdir()
        path.write_bytes(content)
    [file] = find_all([tmp_path])
    assert candle_files.origin_of(file) == "binance"
    found = whole(file)
    assert list(found) == [SPOT]
    assert same(found[SPOT], truth)


def test_an_archive_may_change_its_unit_and_hold_bad_rows(tmp_path: Path) -> None:
    """Both units in one file; an instant between milliseconds is off the grid; nanoseconds fail."""
    truth = bits(20, 3)
    between = archived(truth[10:11], unit=1000).replace(b"000,", b"001,", 1)
    path = tmp_path / f"{MONTH}.csv"
    path.write_bytes(archived(truth[:10]) + between + archived(truth[11:], unit=1000))
    [file] = find_all([path], market="swap")
    dropped: Counter[str] = Counter()
    kept = np.arange(20) != 10
    assert [same(bars, picked(truth, kept)) for bars in read(file, dropped=dropped)] == [True]
    assert dropped == {"off_grid": 1}
    path.write_bytes(archived(truth, unit=1_000_000))
    with pytest.raises(DataError, match="nanoseconds"):
        list(read(file))


@pytest.mark.parametrize("suffix", ["csv.gz", "csv.zip", "csv"])
def test_own_names_come_in_every_wrapping(tmp_path: Path, suffix: str) -> None:
    """Compressed or not, the same bars; `find`, which replays use, keeps to Parquet and CSV."""
    truth = bits(3000, 4)
    candle_files.write(tmp_path / "out" / "x.csv", truth)
    text = (tmp_path / "out" / "x.csv").read_bytes()
    path = tmp_path / "in" / f"BTC_USDT-1m-2024.{suffix}"
    path.parent.mkdir()
    if suffix == "csv.zip":
        zipped(path, inside=text)
    else:
        path.write_bytes(gzip.compress(text) if suffix == "csv.gz" else text)
    [file] = find_all([tmp_path / "in"])
    assert (file.symbol, file.form) == (SPOT, Form.OWN)
    assert same(whole(file)[SPOT], truth)
    if suffix != "csv":
        with pytest.raises(DataError, match="holds no candle file"):
            find([tmp_path / "in"])


def damage(path: Path, how: str) -> None:
    """Make a file unusable in one way."""
    text = archived(bits(5000, 5))
    zipped(path, a=text)
    raw = bytearray(path.read_bytes())
    if how == "cut":
        path.write_bytes(raw[: len(raw) // 2])
    elif how == "flipped":
        raw[len(raw) // 2] ^= 0xFF
        path.write_bytes(raw)
    elif how == "two":
        zipped(path, a=text, b=text)
    elif how == "none":
        zipped(path)
    elif how == "empty":
        zipped(path, a=b"")
    elif how == "narrow":
        zipped(path, a=b"1704067200000,1,2,3\n")
    elif how == "headed otherwise":
        zipped(path, a=b"t,o,h,l,c,v\n1704067200000,1,2,1,1,3\n")
    elif how == "ragged":
        zipped(path, a=text + b"1704067200000,1,2\n")


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("cut", "cannot be read"), ("flipped", "cannot be read"), ("two", "exactly one .csv"),
        ("none", "exactly one .csv"), ("empty", "it is empty"), ("narrow", "close, volume"),
        ("headed otherwise", "lacks the column"), ("ragged", "cannot be read"),
    ],
)  # fmt: skip
def test_a_damaged_archive_is_one_line(tmp_path: Path, how: str, says: str) -> None:
    """Every way a download goes wrong ends in a line that names the file."""
    path = tmp_path / "spot" / f"{MONTH}.zip"
    damage(path, how)
    [file] = find_all([path])
    with pytest.raises(DataError, match=says) as caught:
        list(read(file))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_half_gzip_is_refused(tmp_path: Path) -> None:
    """A stream that ends early is damage, not the end of the candles."""
    candle_files.write(tmp_path / "x.csv", bits(3000, 6))
    raw = gzip.compress((tmp_path / "x.csv").read_bytes())
    path = tmp_path / "BTC_USDT-1m.csv.gz"
    path.write_bytes(raw[: len(raw) // 2])
    [file] = find_all([path])
    with pytest.raises(DataError, match="cannot be read"):
        list(read(file))


def test_a_checksum_beside_a_file_is_obeyed(tmp_path: Path) -> None:
    """The sum as archives write it: of this file it passes, of another it is named."""
    path = zipped(tmp_path / f"{MONTH}.zip", a=archived(bits(5, 7)))
    beside = path.with_name(f"{path.name}.CHECKSUM")
    candle_files.want_checksum(path)
    beside.write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    candle_files.want_checksum(path)
    for other in (f"{'0' * 64}  {path.name}\n", ""):
        beside.write_text(other)
        with pytest.raises(DataError, match="CHECKSUM"):
            candle_files.want_checksum(path)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("interleaved", [True, False])
def test_many_series_share_a_file(tmp_path: Path, suffix: str, interleaved: bool) -> None:
    """Spot and swap beside one another, in blocks or bar by bar: each comes out bit for bit."""
    truth = {SPOT: bits(3000, 8), SWAP: bits(2000, 9)}
    path = tmp_path / candle_files.name_of_many("1m", suffix=suffix)
    blocks = [
        (symbol, bars[i : i + (1 if interleaved else 3000)])
        for i in range(0, 3000, 1 if interleaved else 3000)
        for symbol, bars in truth.items()
    ]
    if interleaved:
        blocks = blocks[:600]
        truth = {symbol: bars[:300] for symbol, bars in truth.items()}
    assert candle_files.write_many(path, blocks) == sum(map(len, truth.values()))
    [file] = find_all([tmp_path])
    assert (file.symbol, file.form) == ("", Form.MANY)
    found = whole(file)
    assert sorted(found) == sorted(truth)
    assert all(same(found[symbol], truth[symbol]) for symbol in truth)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_file_without_a_pair_needs_a_symbol_column(tmp_path: Path, suffix: str) -> None:
    """Neither name nor column, or a column that is no ccxt symbol: one line, with what to write."""
    path = tmp_path / f"BTCUSDT-1m{suffix}"
    candle_files.write(path, bits(5, 10))
    [file] = find_all([path])
    with pytest.raises(DataError, match=r"BTC_USDT-1m-2024\.csv"):
        list(read(file))
    candle_files.write_many(path, [("BTCUSDT", bits(5, 10))])
    with pytest.raises(DataError, match=r"'BTCUSDT'.*BTC/USDT:USDT"):
        list(read(file))


def test_symbols_may_be_coded_but_not_absent(tmp_path: Path) -> None:
    """A dictionary column is text too; a row without a symbol belongs to nobody."""
    bars = bits(4, 11)
    columns = dict(zip(candle_files.COLUMNS, bars.columns(), strict=True))
    coded = pa.array([SPOT, SWAP, SPOT, SWAP]).dictionary_encode()
    path = tmp_path / "mine-1m.parquet"
    pq.write_table(pa.table({**columns, "symbol": coded}), path)
    [file] = find_all([path])
    assert {s: b.ts_ms.tolist() for s, b in whole(file).items()} == {
        SPOT: [at(0), at(2)],
        SWAP: [at(1), at(3)],
    }
    pq.write_table(pa.table({**columns, "symbol": pa.array([SPOT, None, SPOT, SWAP])}), path)
    with pytest.raises(DataError, match="column symbol"):
        list(read(file))


def test_a_header_of_newer_archives_is_theirs(tmp_path: Path) -> None:
    """The header is told by its first cell: a file of nothing but it holds no rows."""
    path = zipped(tmp_path / "spot" / f"{MONTH}.zip", a=f"{ARCHIVE_HEADER}\n".encode())
    [file] = find_all([path])
    assert list(read(file)) == []
