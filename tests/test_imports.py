"""Imports: whole or nothing of a bad file, resumed wherever they die, skipped when known."""

from __future__ import annotations

import gzip
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core import candle_files
from core.app import App
from core.candle_files import CandleFile, Part, reading, texts
from core.domain import Candles, Series
from core.errors import DataError
from core.jobs import files
from core.jobs.readings import write_bars
from core.store.db import Database
from core.timeframe import HOUR_MS
from tests.engine_world import opened, same, stored, table
from tests.history_world import (
    MONTH,
    SPOT,
    SWAP,
    archived,
    at,
    bits,
    engine,
    written,
    zipped,
)
from tests.worlds import MONDAY_MS, picked

HEAD = "timestamp,open,high,low,close,volume\n"
STATE = ("candles", "series", "gaps", "sync_checkpoint", "sources")


class Dead(BaseException):
    """The process is gone."""


def dying(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Let the process die before the statement at which `left` runs out; below 0 it never does."""
    fate = {"left": -1}

    def mortal(method: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **named: Any) -> Any:
            fate["left"] -= 1
            if fate["left"] == 0:
                raise Dead
            return method(*args, **named)

        return called

    for name in ("run", "run_many", "rows"):
        monkeypatch.setattr(Database, name, mortal(getattr(Database, name)))
    return fate


def small_chunks(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Read files in chunks of a few rows."""
    for module in (reading, texts):
        monkeypatch.setattr(module, "CHUNK_ROWS", rows)


def mixed_folder(folder: Path) -> Path:
    """Files of every form: two years of a series with a hole, unsorted text, many in one."""
    kept = np.ones(900, np.bool_)
    kept[[50, 51, 300, *range(700, 760)]] = False
    written(folder, (SWAP, picked(bits(900, 1), kept)[:400]), year=2023)
    written(folder, (SWAP, picked(bits(900, 1), kept)[400:]), year=2024)
    candle_files.write(folder / "x.csv", bits(500, 2))
    head, *lines = (folder / "x.csv").read_text().splitlines()
    (folder / "x.csv").unlink()
    shuffled = "\n".join([head, *lines[300:], f"{at(3) + 1},1,1,1,1,1", *lines[:300]])
    (folder / "ETH_USDT-1m.csv.gz").write_bytes(gzip.compress(shuffled.encode()))
    both = [("AAA/USDT", bits(250, 3)), ("BBB/USDT:USDT", bits(350, 4)), ("AAA/USDT", bits(20, 3))]
    candle_files.write_many(folder / "candles-1m.parquet", both)
    zipped(folder / "spot" / f"{MONTH}.zip", a=archived(bits(150, 5)))
    return folder


def test_an_import_that_dies_anywhere_ends_as_if_it_had_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed again and again, at any statement: the same candles, holes, marks and derived bars."""
    small_chunks(monkeypatch, 100)
    folder = mixed_folder(tmp_path / "in")
    once = engine(tmp_path / "once")
    files.import_files(once, [folder])
    want = {name: table(once.db, name) for name in STATE}
    fate = dying(monkeypatch)
    n_deaths = 0
    for seed in range(6):
        rng = random.Random(seed)
        app = engine(tmp_path / str(seed))
        while True:
            fate["left"] = rng.randrange(40, 120)
            try:
                files.import_files(app, [folder])
                fate["left"] = -1
                break
            except Dead:
                fate["left"] = -1
                n_deaths += 1
                app.close()
                app = opened(app.config_path)
        assert {name: table(app.db, name) for name in STATE} == want
        rows = files.import_files(app, [folder])
        assert {row["note"] for row in rows} == {files.ALREADY}
        assert {name: table(app.db, name) for name in STATE} == want
        app.close()
    assert n_deaths >= 30


def test_an_interrupted_file_goes_on_after_its_last_stored_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was stored is not stored again, what was not is; the report counts the whole file."""
    small_chunks(monkeypatch, 100)
    truth = bits(1000, 6)
    folder = written(tmp_path / "in", (SWAP, truth))
    app = engine(tmp_path / "a")
    taken: list[int] = []
    fate = {"left": 4}

    def write(app: App, series: Series, bars: Candles) -> int:
        fate["left"] -= 1
        if fate["left"] == -1:
            raise Dead
        taken.append(int(bars.ts_ms[0]))
        return write_bars(app, series, bars)

    monkeypatch.setattr(files, "write_bars", write)
    with pytest.raises(Dead):
        files.import_files(app, [folder])
    assert same(stored(app, SWAP), truth[:400])
    taken.clear()
    [row] = files.import_files(app, [folder])
    assert taken == [at(n) for n in range(400, 1000, 100)]
    assert (row["rows"], row["new"], row["note"]) == (1000, 600, "")
    assert same(stored(app, SWAP), truth)


def test_a_known_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row says what it had, refused rows too; touched, longer or in a window it is read."""
    path = tmp_path / "BTC_USDT_USDT-1m.csv"
    candle_files.write(path, bits(300, 7))
    path.write_text(path.read_text() + f"{at(300)},1,2,3,4,5\n{at(301)},1,1,1,1,-1\n")
    app = engine(tmp_path / "a")
    [first] = files.import_files(app, [path])
    refused = {"prices": 1, "volume": 1}
    assert (first["rows"], first["new"], first["refused"], first["note"]) == (300, 300, refused, "")
    read: list[Path] = []
    chunks = candle_files.chunks

    def counted(file: CandleFile, **window: int) -> Iterator[list[Part]]:
        read.append(file.path)
        return chunks(file, **window)

    monkeypatch.setattr(candle_files, "chunks", counted)
    assert files.import_files(app, [path]) == [first | {"new": 0, "note": files.ALREADY}]
    assert read == []
    files.import_files(app, [path], until_ms=at(200))
    assert len(read) == 2
    assert files.import_files(app, [path])[0]["note"] == ""
    os.utime(path, ns=(1, 1))
    assert files.import_files(app, [path])[0]["note"] == ""
    assert files.import_files(app, [path])[0]["note"] == files.ALREADY
    with path.open("a") as more:
        more.write(f"{at(310)},1,1,1,1,1\n")
    [row] = files.import_files(app, [path])
    assert (row["rows"], row["new"], row["note"]) == (301, 1, "")


def test_the_file_imported_last_stands(tmp_path: Path) -> None:
    """A, B, A of other values: A's. Both at once: the later name's, and again changes nothing."""
    app = engine(tmp_path / "a")
    one, two = bits(600, 8), bits(600, 8)[200:400]
    two.volume[:] *= 2.0
    first = written(tmp_path / "1", (SWAP, one), year=2023)
    second = written(tmp_path / "2", (SWAP, two), year=2024)
    for folder, volume in ((first, one), (second, two), (first, one), (first, one)):
        files.import_files(app, [folder])
        got = stored(app, SWAP).volume[200:400]
        assert got.tolist() == (volume if volume is two else one[200:400]).volume.tolist()
    files.import_files(app, [first, second])
    before = [app.db.rows(f"SELECT * FROM {name}") for name in STATE]
    assert stored(app, SWAP).volume[200:400].tolist() == two.volume.tolist()
    rows = files.import_files(app, [first, second])
    assert [row["note"] for row in rows] == [files.ALREADY] * 2
    assert [app.db.rows(f"SELECT * FROM {name}") for name in STATE] == before


def halved(path: Path) -> None:
    """Half of a good file."""
    text = path.with_name("whole.csv")
    candle_files.write(text, bits(3000, 1))
    if path.suffix == ".parquet":
        candle_files.write(path, bits(3000, 1))
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.read_bytes()))
    else:
        zipped(path, a=text.read_bytes())
    text.unlink()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def summed(path: Path) -> None:
    """A good file beside the checksum of another."""
    candle_files.write(path, bits(9, 1))
    path.with_name(f"{path.name}.CHECKSUM").write_text(f"{'0' * 64}  {path.name}\n")


BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no parquet": ("ETH_USDT-1m.parquet", lambda p: p.write_text("no"), "cannot be read"),
    "half a parquet": ("ETH_USDT-1m.parquet", halved, "cannot be read"),
    "half a gzip": ("ETH_USDT-1m.csv.gz", halved, "cannot be read"),
    "half a zip": ("ETH_USDT-1m.csv.zip", halved, "cannot be read"),
    "no rows": ("ETH_USDT-1m.parquet", lambda p: candle_files.write(p, bits(1, 1)[:0]), "no rows"),
    "a header": ("ETH_USDT-1m.csv", lambda p: p.write_text(HEAD), "no rows"),
    "nothing": ("ETH_USDT-1m.csv", lambda p: p.write_text(""), "empty"),
    "bad rows": ("ETH_USDT-1m.csv", lambda p: p.write_text(HEAD + "0,1,1,2,1,1\n"), "every row"),
    "a letter at the end": (
        "ETH_USDT-1m.csv",
        lambda p: p.write_text(HEAD + "0,1,1,1,1,1\n" * 200_000 + "0,x,1,1,1,1\n"),
        "cannot be read",
    ),
    "minutes as 5m": ("ETH_USDT-5m.parquet", lambda p: candle_files.write(p, bits(90, 1)), "grid"),
    "5m as minutes": (
        "ETH_USDT-1m.parquet",
        lambda p: candle_files.write(p, bits(90, 1, "5m")),
        "5 minutes apart",
    ),
    "no symbol": ("candles-1m.parquet", lambda p: candle_files.write(p, bits(9, 1)), "symbol"),
    "another sum": ("ETH_USDT-1m.csv", summed, "CHECKSUM"),
}


@pytest.mark.parametrize("what", BAD)
def test_one_bad_file_is_one_line_and_nothing_is_stored(tmp_path: Path, what: str) -> None:
    """However good the others are, and however late in the file the fault: nothing half done."""
    name, spoil, says = BAD[what]
    folder = written(tmp_path / "in", ("AAA/USDT", bits(100, 9)), ("ZZZ/USDT", bits(100, 9)))
    spoil(folder / name)
    app = engine(tmp_path / "a")
    with pytest.raises(DataError, match=says) as caught:
        files.import_files(app, [folder])
    assert str(folder / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [table(app.db, name) for name in STATE] == [[]] * len(STATE)


def test_a_file_outside_the_window_is_no_fault(tmp_path: Path) -> None:
    """It has nothing to give, says so, and leaves no series behind."""
    folder = written(tmp_path / "in", (SWAP, bits(100, 10)))
    candle_files.write(folder / "BTC_USDT-1m.csv", bits(100, 10))
    app = engine(tmp_path / "a")
    rows = files.import_files(app, [folder], start_ms=at(500))
    assert [(r["symbol"], r["rows"], r["first_ms"], r["last_ms"]) for r in rows] == [
        (SPOT, 0, None, None),
        (SWAP, 0, None, None),
    ]
    assert table(app.db, "series") == []


def test_many_series_of_one_file_are_stored_as_of_many_files(tmp_path: Path) -> None:
    """Spot and swap in one file or in two: the same database; a row of the report for each."""
    truth = {SPOT: bits(700, 11), SWAP: bits(500, 12)}
    apart, together = engine(tmp_path / "a"), engine(tmp_path / "b")
    files.import_files(apart, [written(tmp_path / "apart", *truth.items())])
    candle_files.write_many(tmp_path / "candles-1m.csv", truth.items())
    rows = files.import_files(together, [tmp_path / "candles-1m.csv"])
    assert [(r["symbol"], r["rows"]) for r in rows] == [(SPOT, 700), (SWAP, 500)]
    for name in ("candles", "gaps", "sync_checkpoint"):
        assert table(together.db, name) == table(apart.db, name)
    rows = files.import_files(together, [tmp_path / "candles-1m.csv"])
    assert [(r["symbol"], r["rows"], r["note"]) for r in rows] == [
        (SPOT, 700, files.ALREADY),
        (SWAP, 500, files.ALREADY),
    ]


def test_the_origin_of_candles_is_kept(tmp_path: Path) -> None:
    """As told, else as the file or its name says, else ''; told later it is added, never lost."""
    app = engine(tmp_path / "a")
    candle_files.write(tmp_path / "BTC_USDT-1m.parquet", bits(9, 13), origin="kraken")
    candle_files.write(tmp_path / "ETH_USDT-1m.csv", bits(9, 13), origin="kraken")
    zipped(tmp_path / "SOLUSDT-1m-2024-01.zip", a=archived(bits(9, 13)))
    for told, want in (("", ["kraken", "", "binance"]), ("okx", ["okx"] * 3), ("", ["okx"] * 3)):
        rows = files.import_files(app, [tmp_path], origin=told, market="spot")
        assert [(row["symbol"], row["origin"]) for row in rows] == [
            *zip((SPOT, "ETH/USDT", "SOL/USDT"), want, strict=True)
        ]
        assert app.db.rows("SELECT origin FROM sources ORDER BY name") == [(w,) for w in want]
    os.utime(tmp_path / "ETH_USDT-1m.csv", ns=(1, 1))
    files.import_files(app, [tmp_path / "ETH_USDT-1m.csv"])
    assert app.db.rows("SELECT DISTINCT origin FROM sources") == [("okx",)]


def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the check and its last row: it is not remembered as read."""
    folder = written(tmp_path / "in", (SWAP, bits(50, 14)))
    app = engine(tmp_path / "a")
    [path] = folder.iterdir()

    def write(app: App, series: Series, bars: Candles) -> int:
        os.utime(path, ns=(5, 5))
        return write_bars(app, series, bars)

    monkeypatch.setattr(files, "write_bars", write)
    with pytest.raises(DataError, match="changed while it was read"):
        files.import_files(app, [folder])
    assert table(app.db, "sources") == []


def test_a_folder_of_candles_and_funding_is_imported_whole(tmp_path: Path) -> None:
    """Both kinds from one folder, or each alone; a path with neither is refused."""
    folder = written(tmp_path / "in", (SWAP, bits(120, 41)))
    rates = {"timestamp": [MONDAY_MS, MONDAY_MS + 8 * HOUR_MS], "funding_rate": [1e-4, -2e-4]}
    (folder / "funding").mkdir()
    pq.write_table(pa.table(rates), folder / "funding" / "BTC_USDT_USDT-funding.parquet")
    for paths in ([folder], [folder / "funding", folder]):
        app = engine(tmp_path / str(len(paths)))
        rows = files.import_paths(app, paths)
        assert {(row["timeframe"], row["new"]) for row in rows} == {("1m", 120), ("funding", 2)}
        assert app.db.value("SELECT sum(rate_frac) FROM funding") == pytest.approx(-1e-4)
        app.close()
    with pytest.raises(DataError):
        files.import_paths(engine(tmp_path / "x"), [tmp_path / "1"])
