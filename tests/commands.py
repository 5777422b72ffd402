"""Running the commands as an owner does, on a folder of generated candles."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from core import candle_files
from tests.worlds import random_candles

ROOT = Path(__file__).resolve().parents[1]
PERIOD = ("--start", "2024-01-01", "--end", "2024-01-03")
SYMBOL, N_MINUTES = "AAA/USDT", 4 * 1440
CONFIG = f"""
exchange: {{id: replay, replay: {{path: candles, speed: 0}}}}
symbols: [{SYMBOL}]
timeframes: [15m, 1h]
signals: {{lookback_candles: 60, min_tp_net_pct: 0.2, fibo: {{piv_window: 3}}}}
"""


def run(
    script: str, *arguments: str, config: Path | None = None, options: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run one command as an owner does, from the program's folder."""
    place = () if config is None else ("--config", str(config))
    command = [sys.executable, *options, script, *arguments, *place]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=300
    )


def said(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line a failed command ends with; it shows no traceback."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert done.stdout == ""
    return last


def answer(script: str, *arguments: str, config: Path) -> Any:
    """The JSON a command prints: all of its stdout."""
    done = run(script, *arguments, "--json", config=config)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def again(capsys: pytest.CaptureFixture[str], script: str, *arguments: str, config: Path) -> Any:
    """The same as `answer` without another process: for repeats, which take as long as firsts."""
    main = importlib.import_module(script.removesuffix(".py")).main
    assert main([*arguments, "--json", "--config", str(config)]) == 0
    return json.loads(capsys.readouterr().out)


@dataclass(frozen=True)
class Stage:
    """A folder with settings, four days of candles, and a database made of them."""

    config: Path
    parquet: Path
    imported: list[dict[str, Any]]

    @property
    def database(self) -> Path:
        """Where the database lies."""
        return self.config.parent / "data" / "ohlcv.db"


def set_stage(folder: Path) -> Stage:
    """Set the stage with the commands themselves."""
    config, parquet = folder / "config.yaml", folder / "candles" / "AAA_USDT-1m.parquet"
    config.write_text(CONFIG, encoding="utf-8")
    candle_files.write(parquet, random_candles(N_MINUTES, 3, start_price=4_000))
    made = answer("init_db.py", config=config)
    assert made["series"] == made["signals"] == 0
    rows = answer("download_data.py", "--import", str(parquet), config=config)
    return Stage(config, parquet, rows)
