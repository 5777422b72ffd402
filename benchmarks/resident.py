"""What the scheduler's process holds in memory while it works, its first hours' work included.

A real `scheduler_run.py` on a loopback exchange in a process of its own: live minutes beside a
bootstrap of some history, its children apart, and a champion that judges what each minute brings.
Read from /proc; elsewhere there is nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks import yard
from core.jobs.child import resident_bytes
from core.store import open_reader, operation
from core.store.db import Database
from tests.champion import enthrone
from tests.engine_world import write_config

N_PAIRS, DAYS, FOR_S = 10, 20, 200.0
MUST_MB, STRETCH_MB = 260, 200
_ROOT = Path(__file__).resolve().parents[1]
_LOOSE: dict[str, Any] = {  # so that a random walk has candidates in every minute
    "min_tp_net_pct": 0.0,
    "lookback_candles": 100,
    "atr_mult_sl": 2.0,
    "max_cost_r": 5.0,
    "fees": {"maker_pct": 0.0, "taker_pct": 0.0},
    "fibo": {"piv_window": 2, "min_impulse_atr": 0.5},
}


def tables() -> list[yard.Table]:
    """Let it work for some minutes and look every half a second."""
    command = [sys.executable, "-m", "tests.bitget_server", "--symbols", str(N_PAIRS)]
    command += ["--days", str(DAYS), "--delay-ms", "50"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
    try:
        url = server.stdout.readline().strip() if server.stdout else ""
        with tempfile.TemporaryDirectory() as name:
            row = _measured(_world(Path(name), url))
            return [yard.Table("memory of the scheduler, a champion in force", [row])]
    finally:
        server.terminate()
        server.wait(10)


def _world(folder: Path, url: str) -> Path:
    """Write the settings, and a champion for them; returns the settings' path."""
    names = ["BTC", "ETH", "SOL", *(f"C{i:03d}" for i in range(3, N_PAIRS))]
    start = datetime.now(UTC).date() - timedelta(days=DAYS - 1)
    api = {"urls": {"api": dict.fromkeys(("spot", "mix", "common", "margin"), url)}}
    config = write_config(
        folder,
        symbols=[f"{name}/USDT:USDT" for name in names],
        exchange={"id": "bitget", "rate_limit_ms": 20, "ccxt": api},
        timeframes=["1m", "5m", "15m"],
        signals=_LOOSE,
        backfill={"start_date": str(start)},
    )
    enthrone(config)
    return config


def _measured(config: Path) -> dict[str, str]:
    command = [sys.executable, str(_ROOT / "scheduler_run.py"), "--config", str(config)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=_ROOT
    )
    seen = [0]
    try:
        until_s = time.monotonic() + FOR_S
        while time.monotonic() < until_s and process.poll() is None:
            seen.append(resident_bytes(process.pid))
            time.sleep(0.5)
        with open_reader(config.with_name("ohlcv.db")) as db:
            done = _done(db)
        beat = json.loads((config.with_name("data") / "heartbeat").read_text())
    finally:
        process.terminate()
        process.wait(10)
    alive = time.time() * 1000 - beat["wall_ms"] < 60_000
    return {
        "pairs": str(N_PAIRS),
        **done,
        "at the end": f"{seen[-1] / 1e6:.0f} MB",
        "most": f"{max(seen) / 1e6:.0f} MB",
        "must": f"{MUST_MB} MB",
        "stretch": f"{STRETCH_MB} MB",
        "alive": "yes" if alive else "no",
    }


def _done(db: Database) -> dict[str, str]:
    minutes = db.value("SELECT count(*) FROM job_runs WHERE job = 'execute_signals'")
    judged = db.value("SELECT count(*) FROM signals WHERE origin = 'live' AND ml_model <> ''")
    shown = operation.bootstrap_steps(db)
    return {
        "minutes": str(minutes),
        "judged": str(judged),
        "bootstrap": ", ".join(f"{row['step'][2:]} {row['state']}" for row in shown),
    }
