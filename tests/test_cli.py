"""Laws of the commands: help is quick, a fault is one line with a code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from core import cli
from core.errors import ConfigError, StoreError
from tests.commands import CONFIG, PERIOD, SYMBOL, run, said

SCRIPTS: dict[str, tuple[str, ...]] = {  # and the arguments each cannot do without
    "init_db.py": (),
    "download_data.py": (),
    "scan_signals.py": (),
    "retro_scan.py": PERIOD,
    "train_meta.py": (),
    "calibrate_meta.py": (),
    "tune_thresholds.py": (),
    "maintenance.py": ("doctor",),
    "scheduler_run.py": (),
    "analyze_results.py": (),
    "db_inspect.py": (),
}
HEAVY = {
    *("numba", "numpy", "pandas", "xgboost", "apsw", "ccxt", "pydantic", "yaml", "rich"),
    *("requests", "streamlit", "plotly", "pyarrow", "sklearn", "scipy", "joblib", "apscheduler"),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_quick_and_shows_an_example(script: str) -> None:
    """Exit 0; the text holds a command to copy; no library is imported for it."""
    done = run(script, "-h", options=("-X", "importtime"))
    assert done.returncode == 0
    assert f"python {script}" in done.stdout
    assert "Example" in done.stdout
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert imported.isdisjoint(HEAVY)


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_unknown_argument_is_refused(script: str) -> None:
    """Exit 2 with the usage and the argument's name."""
    done = run(script, *SCRIPTS[script], "--nonsense")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "--nonsense" in done.stderr
    assert "usage:" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_bad_configuration_is_one_line(script: str, tmp_path: Path) -> None:
    """Exit 2, the file, the key and the value, before anything is created."""
    config = tmp_path / "config.yaml"
    config.write_text("risk: {mode: bold}\n", encoding="utf-8")
    line = said(run(script, *SCRIPTS[script], config=config), 2)
    for word in (str(config), "risk.mode", "'bold'"):
        assert word in line
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_missing_configuration_names_the_option(tmp_path: Path) -> None:
    """Exit 2, and what to give."""
    line = said(run("init_db.py", config=tmp_path / "none.yaml"), 2)
    assert "none.yaml" in line
    assert "--config" in line


@pytest.mark.parametrize("option", [("--log-level", "debug"), ("--log-level=debug",)])
def test_the_traceback_is_there_for_those_who_ask(option: tuple[str, ...], tmp_path: Path) -> None:
    """With `--log-level debug`, however it is written; the code and the line stay the same."""
    config = tmp_path / "config.yaml"
    config.write_text("risk: {mode: bold}\n", encoding="utf-8")
    done = run("init_db.py", *option, config=config)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize("script", ["db_inspect.py", "analyze_results.py"])
def test_a_reader_of_a_missing_database_says_how_to_make_one(script: str, tmp_path: Path) -> None:
    """Exit 1 and the remedy; nothing is created by looking."""
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    line = said(run(script, config=config), 1)
    assert "does not exist" in line
    assert "python init_db.py" in line
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("retro_scan.py", "--start", "2024-13-01", "--end", "2024-01-02"), ("2024-13-01",)),
        (("retro_scan.py", "--start", "2024-01-02"), ("--end",)),
        (("retro_scan.py", *PERIOD, "--stride", "0"), ("--stride", "'0'")),
        (("retro_scan.py", *PERIOD, "--workers", "²"), ("--workers", "'²'")),
        (("retro_scan.py", *PERIOD, "--timeframes", "7x"), ("--timeframes", "'7x'", "15m")),
        (("scan_signals.py", "--timeframes", "1h", "90s"), ("--timeframes", "'90s'")),
        (("maintenance.py", "dance"), ("dance", "backup")),
        (("maintenance.py",), ("step",)),
        (("tune_thresholds.py", "--mode", "x"), ("--mode", "'x'")),
        (("init_db.py", "--log-level", "loud"), ("--log-level", "loud")),
    ],
)
def test_a_wrong_argument_is_refused_with_its_value(
    command: tuple[str, ...], words: tuple[str, ...]
) -> None:
    """Exit 2 before anything is opened; the line names the option and what was given."""
    done = run(*command)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("bad", remedy="mend it"), 2, "error: bad mend it\n"),
        (StoreError("gone\n  away"), 1, "error: gone away\n"),
        (KeyError("x"), 1, "error: KeyError: 'x'; see it whole with --log-level debug\n"),
        (KeyboardInterrupt(), 1, "stopped\n"),
        (ValueError("bot12345678:" + "a" * 35), 1, "error: ValueError: ***; see it whole"),
    ],
)
def test_every_error_is_one_line_and_a_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ours with its remedy, others with their kind; what looks like a token is hidden."""

    def main(_: Sequence[str] | None) -> int:
        raise error

    assert cli.guarded(main) == code
    shown = capsys.readouterr().err
    assert shown.startswith(line)
    assert shown.count("\n") == 1


def test_a_traceback_shows_no_token(capsys: pytest.CaptureFixture[str]) -> None:
    """Not even the one that is asked for."""
    token = "12345678:" + "a" * 35

    def main(_: Sequence[str] | None) -> int:
        cli.setup_logging("debug")
        raise ValueError(f"https://api.test/bot{token}/x")

    assert cli.guarded(main) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert token not in shown


def test_results_for_people_are_tables(capsys: pytest.CaptureFixture[str]) -> None:
    """Lists of rows become tables, numbers get separators, nothing becomes a dash."""
    rows = [{"symbol": SYMBOL, "rows": 1234567, "last": None}]
    cli.show({"file": "x.db", "share": 0.123456, "series": rows}, as_json=False)
    shown = capsys.readouterr().out
    assert "0.1235" in shown
    assert re.search(r"symbol\s+rows\s+last", shown)
    assert re.search(rf"{SYMBOL}\s+1,234,567\s+-", shown)


def test_nested_results_are_read_without_scrolling(capsys: pytest.CaptureFixture[str]) -> None:
    """Tables inside groups have their heading, like groups are rows, long ones lines of their own.

    What is short stays in its line.
    """
    rows = [{"mean_p": 0.1 * i, "n": 1000 * i} for i in range(1, 4)]
    cell = {"mode": "ev", "value": None, "n": 5, "reason": "too few " * 30}
    result = {
        "calibrate": {"method": "platt", "reliability": rows, "note": ""},
        "tune": {"cells": {"* *": cell, "* 1h": cell}, "promotion": {"promoted": True, "note": ""}},
        "long": {f"name_{i}": i for i in range(30)},
    }
    cli.show(result, as_json=False)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 160
    for heading in ("calibrate", "calibrate / reliability", "tune / cells", "long"):
        assert f"\n{heading}\n" in f"\n{shown}"
    assert re.search(r"mean_p\s+n\n\s*0.1\s+1,000\n\s*0.2\s+2,000\n", shown)
    assert re.search(r"\n\* 1h\s+ev\s+-\s+5\s+too few", shown)
    assert "promotion  promoted yes, note -\n" in shown
    assert "\nname_29  29\n" in shown
    cli.show({"a": {"b": 1, "c": "x"}, "empty": {}}, as_json=False)
    assert capsys.readouterr().out == "a      b 1, c x\nempty  -\n"
