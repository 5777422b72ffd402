"""Laws of what the commands do and print: counts add up, repeats change nothing, JSON is whole."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from core import candle_files, views
from core.store.db import WriterLock, open_reader
from tests.commands import (
    CONFIG,
    N_MINUTES,
    PERIOD,
    ROOT,
    SYMBOL,
    Stage,
    again,
    answer,
    run,
    said,
    set_stage,
)
from tests.worlds import MONDAY_MS, random_candles


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Settings, candles, and a database made of them."""
    return set_stage(tmp_path_factory.mktemp("stage"))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("retro_scan.py", "--start", "2024-01-03", "--end", "2024-01-01"), ("2024-01-01", "swap")),
        (("download_data.py", "--import", "a", "--export", "b"), ("--import", "--export")),
        (("scan_signals.py", "--symbols", "ZZZ/USDT"), ("symbol", "ZZZ/USDT", SYMBOL)),
        (("scan_signals.py", "--timeframes", "2h"), ("timeframe", "2h", "15m, 1h")),
    ],
)
def test_arguments_that_make_no_sense_here_are_one_line(
    stage: Stage, command: tuple[str, ...], words: tuple[str, ...]
) -> None:
    """Exit 2, what was given, and what there is instead."""
    line = said(run(*command, config=stage.config), 2)
    for word in words:
        assert word in line


def test_an_import_says_what_it_took(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """A row per file, each number that of the file; importing again finds nothing new."""
    wanted = {
        "file": "AAA_USDT-1m.parquet",
        "symbol": SYMBOL,
        "timeframe": "1m",
        "rows": N_MINUTES,
        "new": N_MINUTES,
        "refused": {},
        "first_ms": MONDAY_MS,
        "last_ms": MONDAY_MS + (N_MINUTES - 1) * 60_000,
        "origin": "",
        "note": "",
    }
    assert stage.imported == [wanted]
    command = ("download_data.py", "--import", str(stage.parquet))
    repeated = wanted | {"new": 0, "note": "already imported"}
    assert again(capsys, *command, config=stage.config) == [repeated]


def test_an_import_of_nothing_is_an_error(stage: Stage, tmp_path: Path) -> None:
    """Exit 1: a folder without candle files, with the names that would be taken."""
    line = said(run("download_data.py", "--import", str(tmp_path), config=stage.config), 1)
    assert str(tmp_path) in line
    assert "-1m" in line


def test_an_export_reads_back_and_one_of_nothing_is_an_empty_list(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exported file holds every bar; for a symbol that is not stored JSON is []."""
    arguments = ("--export", str(tmp_path), "--symbols")
    rows = answer("download_data.py", *arguments, SYMBOL, config=stage.config)
    assert [row["rows"] for row in rows] == [N_MINUTES]
    (file,) = candle_files.find([tmp_path])
    assert (file.symbol, sum(map(len, candle_files.read(file)))) == (SYMBOL, N_MINUTES)
    assert again(capsys, "download_data.py", *arguments, "ZZZ/USDT", config=stage.config) == []


def test_inspecting_counts_what_was_imported(stage: Stage) -> None:
    """1m bars as given, 15m bars a fifteenth of them, no signal yet that a scan did not store."""
    found = answer("db_inspect.py", config=stage.config)
    rows = {row["timeframe"]: row["rows"] for row in found["series"]}
    assert (rows["1m"], rows["15m"], rows["1d"]) == (N_MINUTES, N_MINUTES // 15, 4)
    assert found["bytes"] > 0
    text = run("db_inspect.py", config=stage.config)
    assert text.returncode == 0
    assert "2024-01-04 23:59" in text.stdout


def test_a_dry_scan_explains_and_stores_nothing(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    """The newest closed bar of each timeframe is looked at; the position does not move."""
    command = ("scan_signals.py", "--dry-run", "--explain")
    first = answer(*command, config=stage.config)
    for found in (first, again(capsys, *command, config=stage.config)):
        assert found["bars"] == 2
        assert found["stored"] == 0
        assert found["waiting"] == {}
        (name,) = [key for key in found if key.startswith("funnel")]
        assert [row["step"] for row in found[name]][:2] == ["bars", "setups"]


def test_a_retro_scan_counts_alike_dry_stored_and_repeated(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dry it stores nothing; then all candidates; then none again. The counts add up."""
    command = ("retro_scan.py", *PERIOD)
    dry = again(capsys, *command, "--dry-run", config=stage.config)
    stored = answer(*command, config=stage.config)
    twice = again(capsys, *command, config=stage.config)
    n_candidates = dry["setups"] - sum(dry["refused"].values())
    assert dry["bars"] == 3 * (96 + 24)
    assert n_candidates > 0
    assert (dry["stored"], stored["stored"], twice["stored"]) == (0, n_candidates, 0)
    assert stored | {"stored": 0} == twice == dry
    with open_reader(stage.database) as db:
        assert db.value("SELECT count(*) FROM signals") == n_candidates


def test_the_record_is_written_and_printed_alike(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every stored candidate is in the record; JSON on stdout is metrics.json; words have all."""
    again(capsys, "retro_scan.py", *PERIOD, config=stage.config)
    out = ("--out", str(tmp_path))
    found = again(capsys, "analyze_results.py", *out, config=stage.config)
    with open_reader(stage.database) as db:
        n_stored = db.value("SELECT count(*) FROM signals")
        n_closed = db.value("SELECT count(*) FROM signals WHERE r_multiple NOT NULL")
    book = found["books"]["followed"]
    assert (book["n_candidates"], book["n_closed"]) == (n_stored, n_closed)
    assert n_closed > 0
    assert json.loads((tmp_path / "metrics.json").read_text()) == found
    day = ("--start", "2024-01-02", "--end", "2024-01-02")
    assert (
        again(capsys, "analyze_results.py", *out, *day, config=stage.config)["books"]["followed"][
            "n_candidates"
        ]
        < n_stored
    )
    text = run("analyze_results.py", *out, config=stage.config)
    assert text.returncode == 0, text.stderr
    for word in ("win-rate over", "deflated", "funding", "coin", "report.html", "trades.csv"):
        assert word in text.stdout


def test_the_owners_tools_answer_in_json(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """Doctor, checkpoint, backup and verify: whole, merged, copied, and the same bits."""
    rows = answer("maintenance.py", "doctor", config=stage.config)
    assert {row["state"] for row in rows} <= {"ok", "warn"}
    assert any("is whole" in row["what"] for row in rows)
    merged = again(capsys, "maintenance.py", "checkpoint", config=stage.config)
    assert merged["wal_bytes"] == 0
    copy = Path(again(capsys, "maintenance.py", "backup", config=stage.config)["file"])
    assert copy.parent == stage.config.parent / "data" / "backups"
    with open_reader(copy) as db:
        assert db.value("SELECT count(*) FROM ohlcv") > N_MINUTES
    checked = answer("maintenance.py", "verify", "--points", "12", config=stage.config)
    assert (checked["checked"], checked["same"], checked["failed"]) == (12, 12, [])
    assert checked["verified"] in views.parity_text(views.place(stage.config).db_path)


def test_the_settings_in_force_are_shown_without_secrets(tmp_path: Path) -> None:
    """`maintenance.py config` prints every section; token, address and keys are hidden."""
    config = tmp_path / "config.yaml"
    extra = (
        "notify: {deadman_url: 'https://hc.test/abcdef', telegram: {bot_token: '12345:tokentoken'}}"
    )
    text = CONFIG.replace("id: replay,", "id: replay, ccxt: {apiKey: keykeykey},")
    config.write_text(text + extra, encoding="utf-8")
    done = run("maintenance.py", "config", "--json", config=config)
    shown = json.loads(done.stdout)
    assert shown["signals"]["lookback_candles"] == 60
    assert shown["symbols"] == [SYMBOL]
    for secret in ("abcdef", "tokentoken", "keykeykey"):
        assert secret not in done.stdout + done.stderr


def test_too_little_history_is_a_line_that_says_how_much_is_missing(stage: Stage) -> None:
    """Exit 1 of the training, with the command that helps."""
    line = said(run("train_meta.py", config=stage.config), 1)
    assert "are missing" in line
    assert "python retro_scan.py" in line


def test_a_second_scheduler_is_refused(stage: Stage) -> None:
    """Exit 1, the process that holds the database, and what to do."""
    lock = WriterLock(stage.database.with_name("ohlcv.db.lock"))
    assert lock.acquire()
    try:
        line = said(run("scheduler_run.py", "--once", config=stage.config), 1)
    finally:
        lock.release()
    assert f"pid {os.getpid()}" in line
    assert "stop it first" in line


def test_one_pass_of_the_scheduler_ends(tmp_path: Path) -> None:
    """`--once` on a replay at its first minute: four stages, a look beside candles, exit 0."""
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    candle_files.write(tmp_path / "candles" / "AAA_USDT-1m.parquet", random_candles(30, 1))
    done = run("scheduler_run.py", "--once", config=config)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"done\s+5\n", done.stdout)


def test_a_reader_that_goes_away_is_no_crash(stage: Stage) -> None:
    """`init_db.py | head -0`: exit 1 and not a word, however little was to be written."""
    command = [sys.executable, "init_db.py", "--config", str(stage.config)]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            command, check=False, stdout=writing, stderr=subprocess.PIPE, cwd=ROOT, timeout=300
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")
