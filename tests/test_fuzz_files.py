"""Damaged, foreign and odd candle and funding files: taken by the law, or refused in one line."""

from __future__ import annotations

import gzip
import io
import os
import random
import zipfile
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.app import App
from core.candle_files import COLUMNS
from core.errors import DataError
from core.jobs import files
from core.timeframe import HOUR_MS
from tests.engine_world import stored
from tests.history_world import SPOT, SWAP, archived, bits, engine, written
from tests.mutations import MORE, ODD, contents, mutated, refused
from tests.worlds import MONDAY_MS

BARS = bits(300, 9)
OTHER = "OTHER/USDT"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """An engine that holds candles and funding already."""
    folder = tmp_path_factory.mktemp("files")
    made = engine(folder / "a")
    files.import_paths(made, [written(folder / "in", (OTHER, bits(90, 2)), (SWAP, bits(90, 3)))])
    yield made
    made.close()


def columns_of_bars() -> dict[str, Any]:
    """The bars as plain lists, by column."""
    return {name: column.tolist() for name, column in zip(COLUMNS, BARS.columns(), strict=True)}


def parquet(columns: dict[str, Any]) -> bytes:
    """Columns as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def text(columns: dict[str, Any]) -> bytes:
    """Columns as CSV."""
    rows = zip(*columns.values(), strict=True)
    return "\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows), ""]).encode()


def zipped(name: str, content: bytes) -> bytes:
    """A zip of one file."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return sink.getvalue()


def funding() -> dict[str, Any]:
    """Settlements of a month."""
    return {
        "timestamp": [MONDAY_MS + i * 8 * HOUR_MS for i in range(90)],
        "funding_rate": [1e-4 * (i % 7 - 3) for i in range(90)],
    }


def whole_files() -> dict[str, bytes]:
    """A good file of every kind, by its name."""
    rows = columns_of_bars()
    many = {**rows, "symbol": [(SPOT, SWAP, "ETH/BTC")[i % 3] for i in range(len(BARS))]}
    return {
        "BTC_USDT-1m-2024.parquet": parquet(rows),
        "BTC_USDT-1m.csv": text(rows),
        "BTC_USDT_USDT-1m.csv.gz": gzip.compress(text(rows), mtime=0),
        "BTC_USDT-1m.csv.zip": zipped("x.csv", text(rows)),
        "BTCUSDT-1m-2024-01.zip": zipped("BTCUSDT-1m-2024-01.csv", archived(BARS)),
        "BTCUSDT-1m-2024-02.csv": archived(BARS, unit=1000, header=True),
        "candles-1m.parquet": parquet(many),
        "candles-1m.csv": text(many),
        "BTC_USDT_USDT-funding.parquet": parquet(funding()),
    }


WHOLE = whole_files()
NAMES = (
    *("BTC_USDT-1m", "BTC_USDT_USDT-1m", "ÄÖ_USDT-1m", "candles-1m", "BTC_USDT_USDT-funding"),
    *("BTC_USDT-5m", "BTC_USDT-1h-2024", "BTC_USDT-7m", "BTC_USDT-99999999999d"),
)


def taken_or_refused(app: App, path: Path) -> str:
    """Import one path by the law; returns what was said of it, '' where it was taken.

    Refused: not one row of one table differs. Taken: what is stored is lawful, and what another
    pair holds is as it was.
    """
    before, other = contents(app.db), stored(app, OTHER).columns()
    said = refused(lambda: files.import_paths(app, [path], market="spot"))
    if said:
        assert contents(app.db) == before
        assert path.name[:60].encode("utf-8", "replace").decode() in said or "holds" in said
    for kept, was in zip(stored(app, OTHER).columns(), other, strict=True):
        assert np.array_equal(kept, was)
    return said


def want_lawful(app: App) -> None:
    """Every stored bar keeps the law, whatever was imported."""
    broken = app.db.value(
        "SELECT count(*) FROM ohlcv WHERE NOT (0 < low AND low <= min(open, close)"
        " AND max(open, close) <= high AND volume >= 0 AND high < 9e999 AND volume < 9e999)"
    )
    assert broken == 0
    assert app.db.value("SELECT count(*) FROM funding WHERE NOT abs(rate_frac) < 0.2") == 0


def damaged(app: App, folder: Path, name: str, cases: range) -> int:
    """Import mutilated copies of a file; returns how many were refused."""
    n_refused = 0
    for number in cases:
        chance = random.Random(f"{name} {number}")
        raw = mutated(WHOLE[name], chance, other=chance.choice(list(WHOLE.values())))
        path = folder / str(number) / name
        path.parent.mkdir()
        path.write_bytes(raw)
        n_refused += bool(taken_or_refused(app, path))
    want_lawful(app)
    return n_refused


@pytest.mark.parametrize("name", WHOLE)
def test_damaged_files_are_taken_by_the_law_or_refused(app: App, tmp_path: Path, name: str) -> None:
    """Flips, cuts, runs and splices in each kind of file."""
    assert damaged(app, tmp_path, name, range(15)) > 1


@pytest.mark.long
@pytest.mark.parametrize("name", WHOLE)
def test_many_damaged_files_are_taken_by_the_law_or_refused(
    app: App, tmp_path: Path, name: str
) -> None:
    """The same with more of them."""
    assert damaged(app, tmp_path, name, range(15, 15 + 15 * MORE)) > 30


def odd_columns(chance: random.Random, good: dict[str, Any]) -> dict[str, Any]:
    """Good columns, one or two of which are of another type, length of value, order or name."""
    columns: dict[str, Any] = {name: list(values) for name, values in good.items()}
    for _ in range(chance.randint(1, 2)):
        name = chance.choice(list(columns))
        columns[name] = _odd_column(columns[name], chance)
    names = list(columns)
    if chance.random() < 0.2:
        chance.shuffle(names)
    if chance.random() < 0.1:
        names.pop()
    return {name: columns[name] for name in names}


def _odd_column(values: Any, chance: random.Random) -> Any:
    plain = [
        0 if value is None else int(value) for value in np.nan_to_num(list(map(_number, values)))
    ]
    makes: tuple[Callable[[], Any], ...] = (
        lambda: pa.array([str(v) for v in values]),
        lambda: pa.array([str(v).encode() for v in values]),
        lambda: pa.array([bool(v) for v in plain]),
        lambda: pa.array([Decimal(v) for v in plain]),
        lambda: pa.array([[v] for v in plain]),
        lambda: pa.array([{"x": v} for v in plain]),
        lambda: pa.nulls(len(plain)),
        lambda: pa.array([str(v % 7) for v in plain]).dictionary_encode(),
        lambda: pa.array(
            plain,
            pa.timestamp(
                chance.choice(("s", "ms", "us", "ns")),
                tz=chance.choice((None, "UTC", "Asia/Tokyo")),
            ),
        ),
        lambda: pa.array([v % 30_000 for v in plain], pa.date32()),
        lambda: pa.array([v % 30_000 for v in plain], pa.duration("ms")),
        lambda: pa.array([v % 30_000 for v in plain], pa.float16()),
        lambda: pa.array([max(v, 0) for v in plain], pa.uint64()),
        lambda: [v if chance.random() < 0.9 else None for v in values],
        lambda: [
            v if chance.random() < 0.9 else chance.choice((np.nan, np.inf, -1.0, 1e308))
            for v in map(_number, values)
        ],
        lambda: [v * 1000 for v in map(_number, values)],
        lambda: [v / 1000 for v in map(_number, values)],
        lambda: chance.sample(list(values), len(values)),
        lambda: [values[0]] * len(values),
        lambda: [-v for v in map(_number, values)],
    )
    return chance.choice(makes)()


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


def odd_lines(chance: random.Random) -> bytes:
    """A CSV as other programs, people and languages write it."""
    rows = [line.split(",") for line in text(columns_of_bars()).decode().splitlines()]
    for _ in range(chance.randint(0, 3)):
        row = chance.choice(rows)
        row[chance.randrange(len(row))] = (
            str(chance.choice(ODD)).encode("utf-8", "replace").decode()
        )
    if chance.random() < 0.2:
        rows[chance.randrange(len(rows))] = chance.choice(([], ["x"], ["1"] * 40, rows[0]))
    if chance.random() < 0.2:
        chance.shuffle(rows)
    mark = chance.choice((",", ",", ",", ";", "\t", "|", ", "))
    end = chance.choice(("\n", "\n", "\r\n", "\r", "\n\n", ""))
    encoding = chance.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32", "cp037"))
    return end.join(mark.join(row) for row in rows).encode(encoding, "replace")


def odd_files(app: App, folder: Path, cases: range) -> int:
    """Import files that were written whole, but not by our law; returns how many were refused."""
    n_refused = 0
    for number in cases:
        chance = random.Random(number)
        name = chance.choice(NAMES)
        is_text = "funding" not in name and chance.random() < 0.5
        rows = funding() if "funding" in name else columns_of_bars()
        try:
            raw = odd_lines(chance) if is_text else parquet(odd_columns(chance, rows))
        except (pa.ArrowException, OverflowError):
            continue  # no such file can be written
        path = folder / str(number) / f"{name}{'.csv' if is_text else '.parquet'}"
        path.parent.mkdir()
        path.write_bytes(raw)
        n_refused += bool(taken_or_refused(app, path))
    want_lawful(app)
    return n_refused


def test_odd_columns_and_lines_are_taken_by_the_law_or_refused(app: App, tmp_path: Path) -> None:
    """Other types, units, orders, encodings, separators and fields."""
    assert 15 < odd_files(app, tmp_path, range(70)) < 68


@pytest.mark.long
def test_many_odd_columns_and_lines_are_taken_by_the_law_or_refused(
    app: App, tmp_path: Path
) -> None:
    """The same with more of them."""
    assert odd_files(app, tmp_path, range(70, 70 + 60 * MORE)) > 300


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_under_every_other_name_is_taken_by_the_law_or_refused(
    app: App, tmp_path: Path, name: str
) -> None:
    """A wrong ending, an empty file, a few bytes, a web page: one line that names it."""
    contents_of = (
        *WHOLE.values(),
        b"",
        b"\x00",
        b"\xef\xbb\xbf",
        b"PK\x03\x04",
        b"\x1f\x8b",
        b"PAR1PAR1",
        b"<html>no</html>",
    )
    for number, raw in enumerate(contents_of):
        path = tmp_path / str(number) / name
        path.parent.mkdir()
        path.write_bytes(raw)
        taken_or_refused(app, path)
    want_lawful(app)


def test_folders_that_turn_in_circles_and_odd_names_end(app: App, tmp_path: Path) -> None:
    """Links to themselves and upwards, folders named like files, names of no encoding, pipes."""
    root = tmp_path / "deep" / "/".join("d" * 40)
    root.mkdir(parents=True)
    (root / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "BTC_USDT-5m.csv").symlink_to(tmp_path / "gone.csv")
    (tmp_path / "ETH_USDT-1m.parquet").mkdir()
    os.mkfifo(tmp_path / "SOL_USDT-1m.csv")
    odd = os.fsencode(tmp_path) + b"/\xff\xfe_USDT-1m.csv"
    Path(os.fsdecode(odd)).write_bytes(WHOLE["BTC_USDT-1m.csv"])
    (root / "BTC_USDT-1m.csv").write_bytes(WHOLE["BTC_USDT-1m.csv"])
    assert refused(lambda: files.import_paths(app, [tmp_path])) == ""
    assert "self" in refused(lambda: files.import_paths(app, [tmp_path / "self"]))


@pytest.mark.parametrize("name", [b"candles\xff-1m.csv", b"candles-\xed\xa0\x80-1m.parquet"])
def test_a_name_that_is_no_text_is_refused(app: App, tmp_path: Path, name: bytes) -> None:
    """The database could not say where its candles come from."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    path.write_bytes(WHOLE["candles-1m.csv" if name.endswith(b"csv") else "candles-1m.parquet"])
    said = refused(lambda: files.import_paths(app, [path]))
    assert "rename" in said
    said.encode()


def test_a_pipe_is_refused_and_not_waited_for(app: App, tmp_path: Path) -> None:
    """Nobody writes into it: reading it would never end."""
    for name in ("SOL_USDT-1m.csv", "SOL_USDT_USDT-funding.parquet"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError, match=name):
            files.import_paths(app, [tmp_path / name])


@pytest.mark.parametrize(
    "name",
    ["../up-1m.csv", "/etc/x.csv", "a\\..\\b.csv", "x.csv/", "ü\u202e.csv", "x" * 300 + ".csv"],
)
def test_names_inside_a_zip_lead_nowhere(app: App, tmp_path: Path, name: str) -> None:
    """Members are read where they are, never written: what they are called has no effect."""
    path = tmp_path / "in" / "BTC_USDT-1m.csv.zip"
    path.parent.mkdir()
    path.write_bytes(zipped(name, WHOLE["BTC_USDT-1m.csv"]))
    taken_or_refused(app, path)
    assert [found.name for found in tmp_path.rglob("*") if found.is_file()] == [path.name]


@pytest.mark.parametrize("filling", [b"0", b"1,", b"\n", b"timestamp,open,high,low,close,volume\n"])
@pytest.mark.parametrize("ending", ["csv.gz", "csv.zip"])
def test_a_bomb_is_refused_without_being_held(
    app: App, tmp_path: Path, filling: bytes, ending: str
) -> None:
    """40 MB in a few kB: neither the memory nor the patience for them is spent."""
    head = b"timestamp,open,high,low,close,volume\n"
    whole = head + filling * (40_000_000 // len(filling))
    path = tmp_path / f"BTC_USDT-1m.{ending}"
    path.write_bytes(gzip.compress(whole, 1) if ending == "csv.gz" else zipped("x.csv", whole))
    del whole
    before = pa.default_memory_pool().max_memory()
    assert taken_or_refused(app, path)
    assert pa.default_memory_pool().max_memory() - before < 24_000_000


def test_a_bar_still_to_come_is_refused(app: App, tmp_path: Path) -> None:
    """One row of the year 2087 would move the checkpoint there, and nothing be read ever after."""
    rows = columns_of_bars()
    rows["timestamp"][-1] += 60_000 << 25
    path = tmp_path / "BTC_USDT_USDT-1m.csv"
    path.write_bytes(text(rows))
    assert "2087-10-18" in taken_or_refused(app, path)


def test_a_bad_funding_file_keeps_its_whole_folder_out(app: App, tmp_path: Path) -> None:
    """As with candles: all is checked before the first row is stored."""
    written(tmp_path, ("NEW/USDT", bits(60, 4)))
    (tmp_path / "A_USDT_USDT-funding.parquet").write_bytes(parquet(funding()))
    (tmp_path / "B_USDT_USDT-funding.parquet").write_bytes(b"PAR1 or not")
    before = contents(app.db)
    assert "B_USDT_USDT-funding.parquet" in refused(lambda: files.import_paths(app, [tmp_path]))
    assert contents(app.db) == before


@pytest.mark.parametrize("name", WHOLE)
def test_a_column_that_is_there_twice_is_refused(app: App, tmp_path: Path, name: str) -> None:
    """Which of them is meant nobody knows."""
    columns = (
        funding() if "funding" in name else {**columns_of_bars(), "symbol": [SPOT] * len(BARS)}
    )
    path = tmp_path / name
    if path.suffix == ".parquet":
        table = pa.table([*columns.values(), columns["timestamp"]], [*columns, "timestamp"])
        pq.write_table(table, path)
    elif path.suffix == ".csv" and not name.startswith("BTCUSDT"):
        path.write_bytes(text({**columns, "x": columns["open"]}).replace(b",x\n", b",open\n", 1))
    else:
        pytest.skip("the layout of an archive's columns is fixed")
    assert taken_or_refused(app, path)


@pytest.mark.parametrize("unit", [1e-3, 1e3, 1e6])
def test_funding_in_another_unit_of_time_is_refused(app: App, tmp_path: Path, unit: float) -> None:
    """Seconds, micro- and nanoseconds would be settlements of 1970 or of no calendar."""
    columns = funding()
    columns["timestamp"] = [int(ts_ms * unit) for ts_ms in columns["timestamp"]]
    path = tmp_path / "A_USDT_USDT-funding.parquet"
    path.write_bytes(parquet(columns))
    assert path.name in taken_or_refused(app, path)
