"""kill -9 at any moment: what comes out in the end is what an undisturbed run gives."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import pytest

from core.cadence import PIPELINE
from core.errors import StoreError
from core.jobs import maintain
from core.store import Database, open_reader
from core.timeframe import MINUTE_MS
from tests.engine_world import opened, table
from tests.figures import Record
from tests.forked_scheduler import Forked
from tests.replay_world import ReplayWorld, market, prepared, replayed, without_minutes

ROOT = Path(__file__).parents[1]
TALKATIVE: dict[str, Any] = {  # much is told, so that there is much to lose
    "notify": {"telegram": {"send": "all"}, "digest_hour": 18},
    "signals": {"min_tp_net_pct": 0.1, "fibo": {"piv_window": 3, "min_impulse_atr": 2.0}},
    "timeframes": ["5m", "15m"],
    "guards": dict.fromkeys(("max_open", "max_open_per_side", "max_drawdown_r"), 0),
}
MANY = 50  # kills, from which on most processes are forked
WAIT_S = 60.0  # for a child that makes no progress at all
TABLES = {  # what must be equal, and the columns that say when or how often it was tried
    "candles": (),
    "series": ("id",),
    "gaps": ("n_reads", "seen_ms", "next_ms"),  # who dies may ask once more
    "sync_checkpoint": (),
    "signals": ("id",),
    "scan_positions": (),
    "skipped_bars": (),
    "funnel": (),
    "strategies": ("seen_ms",),
    "job_marks": (),
    "outbox": ("id", "text", "attempts", "next_wall_ms", "last_error", "sent_id", "sent_wall_ms"),
}


def world_of(folder: Path, *, hours: int) -> ReplayWorld:
    """Two symbols, 20 days of scanned history, and some hours to come with two outages."""
    truth = dict(market(2, 21, 5))
    end_ms = max(int(bars.ts_ms[-1]) for bars in truth.values()) + MINUTE_MS
    for start, n in ((hours * 40, 7), (hours * 20, 13)):
        truth = {s: without_minutes(b, end_ms - start * MINUTE_MS, n) for s, b in truth.items()}
    return prepared(folder, truth, replay_days=hours / 24, **TALKATIVE)


@dataclass
class Child:
    """A real `scheduler_run.py` on a stepped replay; `loads_s` is how long it may take to begin."""

    config: Path
    process: subprocess.Popen[bytes] | Forked
    loads_s: float = 1.0

    @classmethod
    def start(cls, config: Path, *, forked: bool = False) -> Child:
        log = config.parent / "stderr.txt"
        if forked:
            return cls(config, Forked.start(config, log), loads_s=0.1)
        command = [sys.executable, str(ROOT / "scheduler_run.py"), "--config", str(config)]
        quiet = [*command, "--log-level", "error"]
        with log.open("ab") as end:
            return cls(config, subprocess.Popen(quiet, stdout=subprocess.DEVNULL, stderr=end))

    def reached(self, at_ms: int) -> bool:
        """Wait until its pipeline is done with an instant; False when it ended before."""
        deadline = time.monotonic() + WAIT_S
        while self.process.poll() is None:
            if done_ms(self.config.with_name("ohlcv.db")) >= at_ms:
                return True
            assert time.monotonic() < deadline, said(self.config)
            time.sleep(0.008)
        assert self.process.returncode == 0, said(self.config)
        return False

    def end(self, number: int) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)  # nothing, where it has ended by itself
        return self.process.wait()


def said(config: Path) -> str:
    """What the children wrote on stderr."""
    return (config.parent / "stderr.txt").read_text()


def done_ms(path: Path) -> int:
    """The instant the whole pipeline is done for, as a reader beside the writer sees it."""
    try:
        with open_reader(path) as db:
            marks = dict(db.rows("SELECT job, done_ms FROM job_marks"))
    except (StoreError, apsw.Error):
        return 0
    return min((marks.get(job, 0) for job in PIPELINE), default=0)


def contents(db: Database) -> dict[str, list[tuple[Any, ...]]]:
    """The tables as they must be."""
    return {name: table(db, name, without=skip) for name, skip in TABLES.items()}


def killed_to_the_end(world: ReplayWorld, config: Path, *, n_kills: int, seed: int) -> int:
    """Kill and restart: mostly at random minutes of market time, now and then while it starts.

    Of more than a few all but each tenth are forked. Returns how many were killed in their work.
    """
    rng = random.Random(seed)
    n_early = n_kills // 5
    span = (world.end_ms - world.split_ms) // MINUTE_MS
    minutes = sorted(rng.randrange(2, span) for _ in range(n_kills - n_early))
    stops: list[int | None] = [world.split_ms + m * MINUTE_MS for m in minutes]
    for _ in range(n_early):
        stops.insert(rng.randrange(len(stops)), None)
    n_killed = 0
    for number, at_ms in enumerate(stops):
        child = Child.start(config, forked=n_kills > MANY and number % 10 > 0)
        if at_ms is None:
            time.sleep(rng.uniform(0.05, 1.0) * child.loads_s)
        else:
            child.reached(at_ms)
            time.sleep(rng.uniform(0.0, 0.02))  # anywhere in the next two minutes
        code = child.end(signal.SIGKILL)
        assert code in (-signal.SIGKILL, 0)  # the data may end before the last kills come
        n_killed += code != 0
        with open_reader(config.with_name("ohlcv.db")) as db:
            assert db.value("PRAGMA quick_check") == "ok"
    assert n_killed >= 0.9 * n_kills
    return n_killed


def check(world: ReplayWorld, *, n_kills: int, seed: int) -> str:
    """Compare a killed run with an undisturbed one; returns what was compared."""
    calm = opened(world.copy("calm"))
    replayed(calm)
    want = contents(calm.db)
    calm.close()
    config = world.copy("killed")
    n_killed = killed_to_the_end(world, config, n_kills=n_kills, seed=seed)
    last = Child.start(config)
    assert not last.reached(1 << 60)
    app = opened(config)
    got = contents(app.db)
    for name in TABLES:
        assert got[name] == want[name], name
    assert app.db.value("PRAGMA integrity_check") == "ok"
    assert maintain.invariants(app)["broken"] == {}
    keys = app.db.rows("SELECT dedupe_key, channel FROM outbox")
    assert len(keys) == len(set(keys)) >= 8
    live = "FROM signals WHERE origin = 'live'"
    assert app.db.value(f"SELECT count(*) {live}") >= 20
    assert app.db.value(f"SELECT count(*) {live} AND delivery = 'PAPER'") >= 3
    assert app.db.rows("SELECT DISTINCT state FROM outbox") == [("sent",)]
    errors = app.db.rows("SELECT DISTINCT detail FROM job_runs WHERE outcome <> 'ok'")
    assert errors == []
    app.close()
    n_rows = sum(map(len, got.values()))
    return f"{n_killed} kills; {n_rows:,} rows of {len(TABLES)} tables equal, {len(keys)} messages"


@pytest.fixture(scope="module")
def half_a_day(tmp_path_factory: pytest.TempPathFactory) -> ReplayWorld:
    """Twelve hours to come."""
    return world_of(tmp_path_factory.mktemp("kills") / "start", hours=12)


@pytest.mark.small
def test_twenty_kills_leave_no_trace(half_a_day: ReplayWorld) -> None:
    """Half a day of replay, killed twenty times at random moments, each time started again."""
    check(half_a_day, n_kills=20, seed=11)


@pytest.mark.long(minutes=3)
def test_two_hundred_kills_leave_no_trace(tmp_path: Path, record_property: Record) -> None:
    """A day of replay, killed two hundred times."""
    figure = check(world_of(tmp_path / "start", hours=24), n_kills=200, seed=12)
    record_property("of 200:", figure)


def test_a_second_scheduler_is_refused_and_a_stop_is_clean(half_a_day: ReplayWorld) -> None:
    """The second names the first's pid and leaves; SIGTERM ends the first with code 0."""
    config = half_a_day.copy("two")
    first = Child.start(config)
    assert first.reached(half_a_day.split_ms + 5 * MINUTE_MS)
    command = [sys.executable, str(ROOT / "scheduler_run.py"), "--config", str(config)]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert f"pid {first.process.pid}" in second.stderr
    assert second.stderr.count("\n") == 1
    assert first.end(signal.SIGTERM) == 0
    app = opened(config)
    assert app.holds_lock
    assert maintain.invariants(app)["broken"] == {}
    app.close()
