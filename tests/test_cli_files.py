"""`download_data.py` on files, as an owner runs it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from core import candle_files
from core.domain import Candles
from core.errors import UsageError
from tests.commands import CONFIG, again, answer, run, said
from tests.engine_world import same
from tests.history_world import MONTH, SPOT, SWAP, archived, at, bits, written, zipped
from tests.worlds import MONDAY_MS

SCRIPT = "download_data.py"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration of an empty place."""
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.replace("AAA/USDT", SPOT), encoding="utf-8")
    return path


def read(path: Path) -> dict[str, Candles]:
    """The bars of a file of one chunk, by series."""
    [file] = candle_files.find_all([path])
    [parts] = candle_files.chunks(file)
    return {part.symbol: part.bars for part in parts}


def test_an_archive_becomes_a_csv(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A download of an archive, told which market it is, cut to a day, out again as text."""
    truth = bits(3000, 1)
    archive = zipped(config.parent / f"{MONTH}.zip", a=archived(truth, unit=1000))
    line = said(run(SCRIPT, "--import", str(archive), config=config), 1)
    assert str(archive) in line
    assert "--market spot" in line
    [row] = answer(
        SCRIPT, "--import", str(archive), "--market", "swap", "--end", "2024-01-02", config=config
    )
    assert (row["symbol"], row["new"], row["origin"]) == (SWAP, 1440, "binance")
    out = config.parent / "out"
    again(capsys, SCRIPT, "--export", str(out), "--format", "csv", config=config)
    assert same(read(out / "BTC_USDT_USDT-1m-2024.csv")[SWAP], truth[:1440])


def test_all_symbols_go_into_one_file(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Spot and swap side by side, of the timeframe and days asked for, with their origin."""
    truth = {SPOT: bits(2880, 2), SWAP: bits(2880, 3)}
    folder = written(config.parent / "in", *truth.items())
    again(capsys, SCRIPT, "--import", str(folder), "--origin", "Kraken", config=config)
    out = config.parent / "out"
    command = ("--export", str(out), "--one-file", "--start", "2024-01-02", "--timeframes", "15m")
    rows = again(capsys, SCRIPT, *command, config=config)
    assert [(row["symbol"], row["rows"]) for row in rows] == [(SPOT, 96), (SWAP, 96)]
    found = read(out / "candles-15m.parquet")
    assert {symbol: int(bars.ts_ms[0]) for symbol, bars in found.items()} == dict.fromkeys(
        truth, at(1440)
    )
    assert truth[SPOT].ts_ms[0] == MONDAY_MS
    rows = again(capsys, SCRIPT, "--export", str(out), "--one-file", config=config)
    assert {row["origin"] for row in rows} == {"kraken"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--market", "spot"], "--market is for --import"),
        (["--export", "x", "--origin", "okx"], "--origin is for --import"),
        (["--import", "x", "--one-file"], "--one-file is for --export"),
        (["--format", "csv"], "--format is for --export"),
        (["--import", "x", "--timeframes", "5m"], "--timeframes is for --export"),
        (["--import", "x", "--export", "y"], "exclude each other"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: list[str], says: str) -> None:
    """Before anything is opened, with what to add."""
    with pytest.raises(UsageError, match=says):
        importlib.import_module("download_data").main(arguments)


@pytest.mark.parametrize(
    "arguments", [["--market", "cash"], ["--origin", "a b"], ["--format", "x"]]
)
def test_a_value_that_is_none_of_the_known_ends_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The parser names the value."""
    with pytest.raises(SystemExit) as caught:
        importlib.import_module("download_data").main(arguments)
    assert caught.value.code == 2
    assert arguments[1] in capsys.readouterr().err
