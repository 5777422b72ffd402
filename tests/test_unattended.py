"""Months alone: signs of life, a clean end whatever goes on, silence told, no hung minute."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from core.cadence import PIPELINE, WEEKLY
from core.jobs import maintain, run, scheduler, sync
from core.jobs.holders import holders
from core.jobs.life import Life, heartbeat_path
from core.notify import systemd
from core.store import open_database, open_reader, operation
from core.timeframe import DAY_MS, MINUTE_MS
from tests.bitget_server import BitgetServer, Fault, serving, walks
from tests.bitget_world import NOW_MS, world
from tests.engine_world import (
    FakeExchange,
    HandClock,
    fake_engine,
    opened,
    part,
    same,
    stored,
    write_config,
)
from tests.replay_world import market, prepared
from tests.worlds import random_candles

ROOT = Path(__file__).parents[1]
END_S = 5.0  # the promise
WAIT_S = 60.0
BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
HANG = Fault(manner="hold", for_s=120.0)


def until(holds: Callable[[], Any]) -> Any:
    """Wait for something to come true; returns it."""
    deadline = time.monotonic() + WAIT_S
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


class Switch(BaseHTTPRequestHandler):
    """A dead man's switch that counts."""

    calls: list[str]

    def do_GET(self) -> None:
        self.calls.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Stay quiet."""


@contextmanager
def switch() -> Iterator[tuple[str, list[str]]]:
    """Serve a switch; yields its address and its calls."""
    calls: list[str] = []
    handler = type("Handler", (Switch,), {"calls": calls})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/ping", calls
        server.shutdown()


@dataclass
class Live:
    """A real `scheduler_run.py` on a loopback exchange, as systemd starts it."""

    config: Path
    server: BitgetServer
    process: subprocess.Popen[bytes]
    socket: socket.socket
    calls: list[str]

    def marks(self) -> dict[str, int]:
        """The marks, as a reader beside it sees them."""
        with open_reader(self.config.with_name("ohlcv.db")) as db:
            return operation.marks(db)

    def ticked(self) -> bool:
        """Whether the pipeline has come to its end once."""
        return self.heartbeat.exists() and bool(self.marks().get(PIPELINE[-1]))

    @property
    def heartbeat(self) -> Path:
        """Where its heartbeat lies."""
        return self.config.with_name("data") / "heartbeat"

    def said(self) -> str:
        """What systemd was told so far."""
        self.socket.setblocking(False)
        words = []
        try:
            while True:
                words.append(self.socket.recv(4096).decode())
        except BlockingIOError:
            return "\n".join(words)

    def end(self) -> int:
        """Send SIGTERM; returns the exit code. Fails where it takes longer than promised."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(END_S)


@contextmanager
def live(folder: Path, *, weekly: bool = False, hang: str = "") -> Iterator[Live]:
    """Start it; weekly work is overdue if wanted, requests for `hang` are never answered."""
    truth = walks(1, days=2, seed=3, now_ms=time.time_ns() // 1_000_000)
    server = BitgetServer(truth, now_ms=lambda: time.time_ns() // 1_000_000)
    address = folder / "notify"
    with (
        serving(server),
        switch() as (url, calls),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox,
    ):
        inbox.bind(str(address))
        if hang:
            server.disturb(*[HANG] * 500, where=hang)
        more: dict[str, Any] = {"auto": {}} if weekly else {}
        config = write_config(
            folder,
            symbols=list(truth),
            exchange={"id": "bitget", "ccxt": server.ccxt()},
            incremental={"run_seconds": 1},
            notify={"deadman_url": url},
            backfill={"start_date": "2026-01-01"},
            **more,
        )
        if weekly:
            with open_database(folder / "ohlcv.db") as db, db.write():
                for job in WEEKLY:
                    operation.move_mark(db, job, done_ms=1)
        command = [sys.executable, str(ROOT / "scheduler_run.py"), "--config", str(config)]
        env = {"PATH": "", "NOTIFY_SOCKET": str(address)}
        log = (folder / "stderr.txt").open("ab")
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, env=env)
        try:
            yield Live(config, server, process, inbox, calls)
        finally:
            process.kill()
            process.wait()


def test_a_running_engine_shows_that_it_lives_and_ends_cleanly(tmp_path: Path) -> None:
    """Heartbeat file, dead man's switch, systemd; SIGTERM: code 0 in time, database whole."""
    with live(tmp_path) as engine:
        until(engine.ticked)
        beat = json.loads(engine.heartbeat.read_text())
        assert beat["pid"] == engine.process.pid
        assert abs(beat["market_ms"] - beat["wall_ms"]) < 60_000
        until(lambda: engine.calls)
        assert engine.calls[0] == "/ping"
        later = until(lambda: json.loads(engine.heartbeat.read_text())["wall_ms"] > beat["wall_ms"])
        assert later
        assert engine.end() == 0
        said = engine.said()
    assert said.startswith("READY=1\nWATCHDOG=1")
    assert said.count("WATCHDOG=1") >= 2
    assert said.endswith("STOPPING=1")
    with open_reader(tmp_path / "ohlcv.db") as db:
        assert db.value("PRAGMA quick_check") == "ok"
        assert db.rows("SELECT * FROM job_runs WHERE outcome = 'error'") == []


@pytest.mark.parametrize("hang", ["public/time", "symbols", "contracts", "candles"])
def test_a_hung_request_does_not_hold_up_the_end(tmp_path: Path, hang: str) -> None:
    """While the exchange is silent, at the start or later: code 0 in time."""
    with live(tmp_path, hang=hang) as engine:
        until(lambda: engine.server.asked(hang) or engine.server.asked("candles"))
        assert engine.end() == 0


def children(pid: int) -> list[str]:
    """The children of a process that run a script of ours."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(") ")[2].split()
            line = stat.with_name("cmdline").read_text()
        except OSError:
            continue
        if int(words[1]) == pid and words[0] != "Z" and "maintenance.py" in line:
            found.append(stat.parent.name)
    return found


def test_weekly_work_ends_with_the_scheduler_and_is_done_again(tmp_path: Path) -> None:
    """SIGTERM while the child trains: both are gone in time, and its mark has not moved."""
    with live(tmp_path, weekly=True) as engine:
        (child, *_) = until(lambda: children(engine.process.pid))
        assert engine.end() == 0
        assert not Path(f"/proc/{child}").exists()
        assert engine.marks()["auto_train"] == 1


def test_systemd_is_told_or_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A datagram to the socket it named, abstract ones too; without one, or a dead one, nothing."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not systemd.say("READY=1")
    assert not systemd.say("READY=1", address=str(tmp_path / "none"))
    for address, name in ((str(tmp_path / "s"), str(tmp_path / "s")), ("@trader-t", "\0trader-t")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
            inbox.bind(name)
            assert systemd.say("WATCHDOG=1", address=address)
            assert inbox.recv(100) == b"WATCHDOG=1"


def test_the_switch_never_holds_up_the_loop(tmp_path: Path) -> None:
    """A switch that does not answer: the tick is over at once, and no second call is begun."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/ping"
        app = opened(write_config(tmp_path, symbols=[BTC], notify={"deadman_url": url}))
        life = Life(app)
        for minute in range(3):
            life._pinged_s = float("-inf")
            life.complete(NOW_MS + minute * MINUTE_MS)
        calling = [t for t in threading.enumerate() if t.name == "sign of life"]
        assert len(calling) == 1
        assert json.loads(heartbeat_path(app).read_text())["market_ms"] == NOW_MS
        app.close()


def test_a_trickling_exchange_cannot_hold_the_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One symbol's answers drip for ever: the others are stored, it is left for the next look."""
    monkeypatch.setattr(sync, "LIMIT_S", 1.5)
    truth = {
        s: random_candles(4 * 1440, seed=i, start_ms=NOW_MS - 2 * DAY_MS, start_price=60_000.0)
        for i, s in enumerate((BTC, ETH))
    }
    with world(tmp_path, truth) as w:
        w.cycle(NOW_MS)
        w.server.vices = Drip("ETHUSDT")
        w.cycle(NOW_MS + MINUTE_MS)
        assert same(stored(w.app, BTC), part(truth[BTC], NOW_MS - 2 * DAY_MS, NOW_MS + MINUTE_MS))
        assert int(stored(w.app, ETH).ts_ms[-1]) == NOW_MS - MINUTE_MS
        w.server.vices = None
        monkeypatch.setattr(sync, "LIMIT_S", 60.0)
        w.cycle(NOW_MS + 2 * MINUTE_MS)
        assert int(stored(w.app, ETH).ts_ms[-1]) == NOW_MS + MINUTE_MS
        w.server.closing.set()


class Drip:
    """Sends the answers of one symbol byte by byte."""

    def __init__(self, name: str) -> None:
        self.name = name

    def strike(self, path: str, query: Any) -> Fault | None:
        is_meant = path.endswith("candles") and query.get("symbol") == self.name
        return Fault(manner="trickle", for_s=60.0) if is_meant else None

    def spoil(self, path: str, query: Any, rows: list[Any]) -> list[Any]:  # noqa: ARG002
        return rows


def test_a_backlog_beyond_the_limit_goes_on_before_anything_is_scanned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut short it is an overrun and its mark stays; the next looks finish it, in order."""
    truth = {BTC: market(3, 42, 5)[BTC][-2 * 1440 :]}
    start_ms = int(truth[BTC].ts_ms[0])
    app, _, clock = fake_engine(tmp_path, truth, page=60)
    clock.at_ms = start_ms + 1440 * MINUTE_MS
    seconds = iter(range(10_000))
    monkeypatch.setattr("time.monotonic", lambda: next(seconds))
    monkeypatch.setattr(sync, "LIMIT_S", 4.0)
    assert run.run_due(app).failed
    outcomes = [o for (o,) in app.db.rows("SELECT outcome FROM job_runs ORDER BY id")]
    assert outcomes == ["overrun"]
    for _ in range(40):
        if not run.run_due(app).failed:
            break
        assert app.db.value("SELECT count(*) FROM job_runs WHERE job = 'scan_signals'") == 0
    assert len(stored(app, BTC)) == 1440
    assert operation.open_episodes(app.db) == []
    app.close()


def test_a_reader_that_holds_the_wal_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row, a message, the doctor; nothing is lost, and the log shrinks when it lets go."""
    monkeypatch.setattr(maintain, "WAL_WARN_BYTES", 200_000)
    app = opened(write_config(tmp_path, symbols=[BTC]))
    app.db.rows("PRAGMA journal_size_limit = 100000")
    with open_reader(app.db.path) as reader:
        reader.run("BEGIN")
        reader.value("SELECT count(*) FROM labels")
        app.db.rows("PRAGMA busy_timeout = 20")
        for i in range(400):
            operation.set_label(app.db, f"n{i}", "x" * 1000)
        scheduler.upkeep(app)
        assert maintain.wal_bytes(app.db.path) > 200_000
        ((outcome, detail),) = app.db.rows(
            "SELECT outcome, detail FROM job_runs WHERE job = 'db_checkpoint'"
        )
        assert outcome == "error"
        assert "a reader holds the database" in detail
        assert any(s == "warn" and w.startswith("WAL") for s, w, _ in maintain.doctor(app))
    scheduler.upkeep(app)
    assert maintain.wal_bytes(app.db.path) <= 100_000
    kinds = [k for (k,) in app.db.rows("SELECT kind FROM outbox ORDER BY id")]
    assert kinds == ["failure", "recovered"]
    assert app.db.value("SELECT count(*) FROM labels") >= 400
    app.close()


def test_a_minute_costs_little_while_a_reader_holds_the_wal(tmp_path: Path) -> None:
    """Under 200 kB for three pairs: 12 MB an hour; let go, one look at it and it is empty.

    It cannot be bounded but by its growth: SQLite writes nothing over what a reader still sees.
    """
    truth = {s: market(3, 42, 5)[s][-6 * 1440 :] for s in list(market(3, 42, 5))}
    past = prepared(tmp_path / "w", truth, replay_days=0.5, exchange={"id": "bitget"})
    clock = HandClock(past.split_ms + 5_000)
    app = opened(past.copy("a"), (FakeExchange(truth, clock), clock))
    run.run_due(app)
    app.db.checkpoint(truncate=True)
    with open_reader(app.db.path) as reader:
        reader.run("BEGIN")
        seen = reader.value("SELECT count(*) FROM job_runs")
        app.db.rows("PRAGMA busy_timeout = 20")
        for _ in range(60):
            clock.at_ms += MINUTE_MS
            assert not run.run_due(app).failed
        scheduler.upkeep(app)
        assert 60 * 20_000 < maintain.wal_bytes(app.db.path) < 60 * 200_000
        assert reader.value("SELECT count(*) FROM job_runs") == seen
    scheduler.upkeep(app)
    assert maintain.wal_bytes(app.db.path) < 50_000  # that it was looked at is written, too
    assert app.db.value("SELECT count(*) FROM job_runs") > seen + 4 * 60
    app.close()


HOLDER = """
import sys
from pathlib import Path
from core.store import open_reader
with open_reader(Path(sys.argv[1])) as db:
    if sys.argv[2] == "hold":
        db.run("BEGIN")
    db.value("SELECT count(*) FROM labels")
    print("here", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the system does not say who locks")
def test_who_holds_the_wal_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its process, in the message and by the doctor; who only has the file open is not."""
    app = opened(write_config(tmp_path, symbols=[BTC]))
    monkeypatch.setattr(maintain, "WAL_WARN_BYTES", 1000)
    command = [sys.executable, "-c", HOLDER, str(app.db.path)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": ROOT}
    with (
        subprocess.Popen([*command, "hold"], **pipes) as holder,
        subprocess.Popen([*command, "look"], **pipes) as looker,
    ):
        for child in (holder, looker):
            assert child.stdout is not None
            assert child.stdout.readline() == b"here\n"
        app.db.rows("PRAGMA busy_timeout = 20")
        operation.set_label(app.db, "n", "x" * 1000)
        scheduler.upkeep(app)
        said = app.db.value("SELECT detail FROM job_runs WHERE job = 'db_checkpoint'")
        assert f"end pid {holder.pid} (" in said
        assert f"pid {looker.pid}" not in said
        (remedy,) = [r for _, what, r in maintain.doctor(app) if what.startswith("WAL")]
        assert f"pid {holder.pid} (" in remedy
        for child in (holder, looker):
            child.communicate()
    assert holders(app.db.path) == []
    app.close()
