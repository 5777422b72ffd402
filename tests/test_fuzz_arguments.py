"""The command line with odd arguments: done, or refused in one line with exit code 1 or 2."""

from __future__ import annotations

import importlib
import io
import random
from pathlib import Path

import pytest

from core import cli
from core.jobs import files
from core.store import open_reader
from tests.history_world import SWAP, bits, engine, written
from tests.mutations import LONGEST_LINE, TEXTS, contents

UNKNOWN = "--log-level debug"  # what is said of an error that nobody foresaw
PLAIN = tuple(text for text in TEXTS if "\x00" not in text and text != "\ud800")
VALUES = (
    *PLAIN,
    *("1h", "7m", "9999999d", "2024-01-01", "2024-13-01", "0001-01-01", "9999-12-31", "1e9"),
    *("BTC/USDT:USDT", "config.yaml", ".", "/dev/null", "nowhere/x.db", "-x"),
    *("0", "1", "1.5", "9" * 30, "nan", "inf", "ev", "p", "swap", "csv", "conservative"),
)
OPTIONS: dict[str, tuple[str, ...]] = {
    script: tuple(f"--{name}" for name in names.split())
    for script, names in {
        "init_db": "",
        "db_inspect": "holes",
        "download_data": "symbols start end import export format market origin timeframes one-file",
        "scan_signals": "symbols timeframes dry-run explain days",
        "retro_scan": "start end stride limit-per-pair symbols timeframes dry-run",
        "tune_thresholds": "mode window-days dry-run",
        "train_meta": "",
        "calibrate_meta": "",
        "analyze_results": "start end out",
        "maintenance": "file points seed invariants force data train unseen train-until"
        " report-until pairs equity risk telegram-token chat-id no-telegram yes",
    }.items()
}
STEPS = ("config", "doctor", "restore", "pack", "unpack", "evaluate", "setup", "verify", "summary")
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine without an exchange, with some candles; the commands run in it."""
    deep = tmp_path / "a" / "b" / "c"
    app = engine(deep, exchange={"id": "replay", "replay": {"path": "none"}})
    files.import_files(app, [written(tmp_path / "in", (SWAP, bits(200, 3)))])
    app.close()
    monkeypatch.chdir(deep)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    return deep


def arguments(chance: random.Random) -> tuple[str, list[str]]:
    """A script, and what somebody might type after its name."""
    script = chance.choice(sorted(OPTIONS))
    words = [chance.choice(STEPS)] if script == "maintenance" and chance.random() < 0.95 else []
    if script == "retro_scan" and chance.random() < 0.8:
        words += ["--start", "2024-01-01", "--end", "2024-01-01", "--workers", "1"]
    for option in chance.sample(OPTIONS[script], min(len(OPTIONS[script]), chance.randint(0, 3))):
        values = [chance.choice(VALUES) for _ in range(chance.choice((0, 1, 1, 1, 2)))]
        if values and chance.random() < 0.3:
            words.append(f"{option}={values[0]}")
        else:
            words += [option, *values]
    return script, [*words, *(["--json"] if chance.random() < 0.3 else [])]


def said(script: str, words: list[str], capsys: Capture) -> tuple[int, str]:
    """Run a command in this process as its script does; returns its code and its last line."""
    main = importlib.import_module(script).main
    try:
        code = cli.guarded(lambda _: int(main([*words, "--log-level", "error"])))
    except SystemExit as left:
        code = int(left.code or 0)
    err = capsys.readouterr().err
    assert code in (0, 1, 2)
    assert "Traceback" not in err
    lines = err.strip().splitlines()
    assert code in (0, 1) or lines
    return code, lines[-1] if code and lines else ""


def odd_arguments(folder: Path, capsys: Capture, cases: range) -> int:
    """Run commands with odd arguments; returns how many were refused. Candles stay as they were."""
    n_refused = 0
    with open_reader(folder / "ohlcv.db") as db:
        before = contents(db)["ohlcv"]
    for number in cases:
        script, words = arguments(random.Random(number))
        code, line = said(script, words, capsys)
        assert UNKNOWN not in line, (number, script, [word[:60] for word in words])
        assert len(line) < LONGEST_LINE * 12, (number, script)
        n_refused += bool(code)
    with open_reader(folder / "ohlcv.db") as db:
        assert contents(db)["ohlcv"] == before
    return n_refused


def test_odd_arguments_are_done_or_refused(folder: Path, capsys: Capture) -> None:
    """Dates of no calendar, numbers without end, paths to nowhere, options for something else."""
    assert odd_arguments(folder, capsys, range(60)) > 30


@pytest.mark.long
def test_many_odd_arguments_are_done_or_refused(folder: Path, capsys: Capture) -> None:
    """The same with five times as many."""
    assert odd_arguments(folder, capsys, range(60, 60 + 60 * 5)) > 150
