"""A new database works itself up behind the live minute, and goes on wherever it was killed."""

from __future__ import annotations

import itertools
import json
import random
import signal
import subprocess
import sys
import threading
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.app import App
from core.domain import Candles
from core.exchange.lanes import Pacer
from core.jobs import backfill, bootstrap, maintain, retro, run
from core.jobs.bootstrap import STEPS, Bootstrap, todo
from core.jobs.scheduler import beside
from core.store import open_reader, operation
from core.timeframe import DAY_MS, MINUTE_MS, floor_ms
from tests.bitget_server import BitgetServer, serving, walks
from tests.engine_world import fake_engine, gap_states, opened, part, same, stored, write_config
from tests.replay_world import market, signals
from tests.worlds import MONDAY_MS

ROOT = Path(__file__).parents[1]
BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
DAYS = 24
EASY: dict[str, Any] = {
    "signals": {"min_tp_net_pct": 0.1, "fibo": {"piv_window": 3, "min_impulse_atr": 2.0}},
    "timeframes": ["15m", "1h"],
    "backfill": {"start_date": "2024-01-01"},
}


class Instant:
    """A clock that only sleeping moves; what is planned happens on the way."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.plan: list[tuple[float, Any]] = []

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, for_s: float) -> None:
        until_s = self.now_s + for_s
        while self.plan and self.plan[0][0] <= until_s:
            at_s, act = self.plan.pop(0)
            self.now_s = max(self.now_s, at_s)
            act()
        self.now_s = max(self.now_s, until_s)


@given(
    arrivals=st.lists(st.floats(0.0, 3.0), max_size=25).map(sorted),
    n_behind=st.integers(1, 40),
)
def test_a_live_request_goes_before_all_that_can_wait(arrivals: list[float], n_behind: int) -> None:
    """It leaves with the next slot, no request behind in between; the pace is never exceeded."""
    clock = Instant()
    pacer = Pacer(0.05, monotonic=clock.monotonic, sleep=clock.sleep)
    behind = pacer.behind()
    left: list[tuple[float, str, float]] = []
    waiting: list[float] = []

    def live(at_s: float) -> None:
        waiting.append(at_s)
        if len(waiting) > 1:
            return  # who waits for the first to leave goes right after it
        while waiting:
            pacer.take()
            left.append((clock.now_s, "live", waiting.pop(0)))

    clock.plan = [(at_s, lambda at_s=at_s: live(at_s)) for at_s in arrivals]
    for _ in range(n_behind):
        behind.take()
        left.append((clock.now_s, "behind", 0.0))
    while clock.plan:
        clock.sleep(0.05)
    times = [at_s for at_s, _, _ in left]
    step_s = 0.05 * 1.04
    assert all(b - a >= step_s - 1e-9 for a, b in itertools.pairwise(times))
    assert len(left) == len(arrivals) + n_behind
    for at_s, kind, wanted_s in left:
        if kind == "live":
            assert not [t for t, k, _ in left if k == "behind" and wanted_s < t < at_s]
            n_ahead = sum(k == "live" and wanted_s - 1e-9 <= t < at_s for t, k, _ in left)
            assert at_s <= wanted_s + (n_ahead + 1) * step_s + 1e-9


def test_many_threads_behind_leave_the_front_alone() -> None:
    """With real threads: while eight wait behind, each in front leaves before the next of them."""
    pacer = Pacer(0.02)
    behind, order, lock = pacer.behind(), list[str](), threading.Lock()
    over = threading.Event()

    def wait_behind() -> None:
        while not over.is_set():
            behind.take()
            with lock:
                order.append("behind")

    threads = [threading.Thread(target=wait_behind) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        time.sleep(0.05)
        with lock:
            n_before = len(order)
        pacer.take()
        with lock:
            assert len(order) - n_before <= 1  # one may have left before we came
            order.append("front")
    over.set()
    for thread in threads:
        thread.join()
    assert order.count("front") == 10
    assert order.count("behind") >= 10


def history(*symbols: str) -> dict[str, Candles]:
    """Generated candles of some symbols."""
    return {s: market(2, DAYS, 5)[s] for s in symbols}


def worked_up(app: App, stop: threading.Event | None = None) -> None:
    """Do all that is left."""
    stop = stop or threading.Event()
    work = Bootstrap(app, beside(app), stop=stop, turn=threading.Lock())
    while work.look():
        pass
    work._app.db.close()


def states(app: App) -> dict[str, str]:
    """The steps as people see them."""
    return {row["step"]: row["state"] for row in operation.bootstrap_steps(app.db)}


def test_a_new_database_works_itself_up(tmp_path: Path) -> None:
    """History, candidates as a retro-scan finds them, a try at a model; then nothing is left."""
    truth = history(BTC, ETH)
    app, exchange, clock = fake_engine(tmp_path / "a", truth, **EASY)
    end_ms = int(truth[BTC].ts_ms[-1]) + MINUTE_MS
    clock.at_ms = end_ms - 30 * MINUTE_MS + 5_000
    assert todo(app).symbols == [BTC, ETH]
    run.run_due(app)
    worked_up(app)
    assert todo(app) == ([], [], False)
    shown = states(app)
    assert {shown[step] for step in STEPS[:2]} == {"done"}
    assert set(shown) == set(STEPS)
    assert {shown[step] for step in STEPS[2:]} in ({"done"}, {"waiting"})
    assert app.db.rows("SELECT detail FROM episodes") == []
    until_ms = floor_ms(clock.at_ms, MINUTE_MS)
    for symbol in truth:
        assert same(stored(app, symbol), part(truth[symbol], 0, until_ms))
    assert len(signals(app)) >= 50
    n_asked = exchange.n_asked
    worked_up(app)
    assert exchange.n_asked == n_asked
    other, _, their_clock = fake_engine(tmp_path / "b", truth, **EASY)
    their_clock.at_ms = clock.at_ms
    run.run_due(other)
    backfill.backfill(other, symbols=[BTC, ETH], start_ms=MONDAY_MS, end_ms=None)
    retro.retro_scan(other, start_ms=0, end_ms=end_ms, workers=1)
    skip = ("id",)
    assert signals(app, *skip) == signals(other, *skip)
    for engine in (app, other):
        assert maintain.invariants(engine)["broken"] == {}
        engine.close()


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What would be run in child processes, instead of running it."""
    begun: list[tuple[str, ...]] = []
    monkeypatch.setattr(bootstrap, "run_child", lambda _, *words, **__: begun.append(words))
    return begun


def test_what_is_added_later_is_done_and_nothing_else(
    tmp_path: Path, children: list[tuple[str, ...]]
) -> None:
    """A pair: its history and series; a timeframe: its series; a strategy: all series anew."""
    truth = history(BTC, ETH)
    app, _, clock = fake_engine(tmp_path, truth, **EASY)
    clock.at_ms = int(truth[BTC].ts_ms[-1]) - 30 * MINUTE_MS

    def edit(**more: Any) -> None:
        raw = {"app": {"db_path": "ohlcv.db"}, "symbols": [BTC], **EASY, **more}
        app.config_path.write_text(json.dumps(raw))
        app.reload_config()

    edit()
    worked_up(app)
    children.clear()
    edit(symbols=[BTC, ETH])
    assert todo(app) == ([ETH], [], False)
    worked_up(app)
    assert len(stored(app, ETH)) > 0
    assert [words[0] for words in children] == ["retro_scan.py", *["maintenance.py"] * 3]
    assert children[0][children[0].index("--symbols") + 1 :][:2] == (ETH, "--timeframes")
    edit(symbols=[BTC, ETH], timeframes=["15m", "1h", "30m"])
    assert todo(app).series == [(BTC, "30m"), (ETH, "30m")]
    edit(symbols=[BTC, ETH], risk={"mode": "aggressive"})
    assert todo(app) == ([], [(s, tf) for s in (BTC, ETH) for tf in EASY["timeframes"]], False)
    edit(symbols=[BTC, ETH], guards={"max_open": 1})
    assert todo(app) == ([], [], False)
    edit(symbols=[BTC, ETH], backfill={"start_date": "2023-06-01"})
    assert todo(app).symbols == [BTC, ETH]
    app.close()


def test_a_pair_that_cannot_be_had_does_not_hold_up_the_others(
    tmp_path: Path, children: list[tuple[str, ...]]
) -> None:
    """Its error is shown; the others are scanned; it is tried again later."""
    truth = history(BTC, ETH)
    app, exchange, clock = fake_engine(tmp_path, truth, **EASY)
    clock.at_ms = int(truth[BTC].ts_ms[-1]) - 30 * MINUTE_MS
    exchange.failing = {ETH}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bootstrap, "_pause", lambda *_: None)
        worked_up(app)
    assert states(app)[STEPS[0]] == "failed"
    assert states(app)[STEPS[1]] == "waiting"  # for the pair that is still to come
    assert todo(app).symbols == [ETH]
    (scanned,) = [words for words in children if words[0] == "retro_scan.py"]
    assert scanned[scanned.index("--symbols") + 1 :][:2] == (BTC, "--timeframes")
    app.close()


@pytest.mark.usefixtures("children")
def test_the_rows_say_how_far_it_is_and_how_long_it_takes(tmp_path: Path) -> None:
    """While history comes in: done, total and the seconds left; a reader sees it."""
    truth = history(BTC)
    app, exchange, clock = fake_engine(tmp_path, truth, **EASY)
    clock.at_ms = int(truth[BTC].ts_ms[-1]) - 30 * MINUTE_MS
    seen: list[dict[str, Any]] = []

    def look(*_: object) -> None:
        with open_reader(app.db.path) as db:
            seen.extend(r for r in operation.bootstrap_steps(db) if r["state"] == "running")

    exchange.before = look
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "_WRITE_S", 0.0)
        worked_up(app)
    told = [row for row in seen if row["done"]]
    assert len(told) >= 20
    assert all(0 < row["done"] <= row["total"] for row in told)
    assert all(row["eta_s"] >= 0 for row in told)
    assert {row["step"] for row in told} == {STEPS[0]}
    app.close()


@pytest.mark.usefixtures("children")
def test_a_stop_is_heard_within_a_request(tmp_path: Path) -> None:
    """The step is recorded as missed, nobody is told, and it goes on at the next start."""
    truth = history(BTC)
    app, exchange, clock = fake_engine(tmp_path, truth, **EASY)
    clock.at_ms = int(truth[BTC].ts_ms[-1]) - 30 * MINUTE_MS
    stop = threading.Event()
    exchange.before = lambda *_: stop.set() if exchange.n_asked == 40 else None
    work = Bootstrap(app, beside(app), stop=stop, turn=threading.Lock())
    work.look()
    work._app.db.close()
    assert exchange.n_asked <= 45
    rows = app.db.rows("SELECT job, outcome FROM job_runs ORDER BY id")
    assert rows == [("bootstrap_backfill", "missed")]
    assert app.db.rows("SELECT * FROM outbox") == []
    n_stored = len(stored(app, BTC))
    assert n_stored > 0
    stop.clear()
    worked_up(app)
    assert same(stored(app, BTC), part(truth[BTC], 0, floor_ms(clock.at_ms, MINUTE_MS)))
    app.close()


def test_what_can_wait_does_not_let_a_held_wal_grow(tmp_path: Path) -> None:
    """While a reader holds it above its bound, nothing more is fetched."""
    truth = history(BTC)
    app, exchange, clock = fake_engine(tmp_path, truth, **EASY)
    clock.at_ms = int(truth[BTC].ts_ms[-1]) - 30 * MINUTE_MS
    stop = threading.Event()
    work = Bootstrap(app, beside(app), stop=stop, turn=threading.Lock())
    with pytest.MonkeyPatch.context() as patch, open_reader(app.db.path) as reader:
        patch.setattr(bootstrap, "WAL_MAX_BYTES", maintain.wal_bytes(app.db.path) + 200_000)
        reader.run("BEGIN")
        reader.value("SELECT count(*) FROM labels")
        thread = work.start()
        deadline = time.monotonic() + 30
        while maintain.wal_bytes(app.db.path) <= bootstrap.WAL_MAX_BYTES:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.3)
        n_asked = exchange.n_asked
        time.sleep(0.5)
        assert exchange.n_asked <= n_asked + 1
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
    app.close()


def ticked(folder: Path, *, since_s: float) -> bool:
    """Say whether a scheduler has completed a look since an instant: it then hears SIGTERM."""
    return any(path.stat().st_mtime > since_s for path in folder.rglob("heartbeat"))


def killed_while_it_works_up(folder: Path, *, n_kills: int, days: int) -> None:
    """Kill a real scheduler at random moments of its first hour; then let it finish."""
    truth = walks(2, days=days, seed=4, now_ms=time.time_ns() // 1_000_000)
    server = BitgetServer(truth, now_ms=lambda: time.time_ns() // 1_000_000)
    rng = random.Random(5)
    first_ms = -floor_ms(-min(int(bars.ts_ms[0]) for bars in truth.values()), DAY_MS)
    start = str(date.fromordinal(719_163 + first_ms // DAY_MS))
    with serving(server):
        config = write_config(
            folder,
            **{**EASY, "backfill": {"start_date": start}},
            symbols=list(truth),
            exchange={"id": "bitget", "rate_limit_ms": 5, "ccxt": server.ccxt()},
            incremental={"run_seconds": 1},
        )
        path, command = folder / "ohlcv.db", [sys.executable, str(ROOT / "scheduler_run.py")]
        log = (folder / "stderr.txt").open("ab")
        for number in range(n_kills + 1):
            child = subprocess.Popen(
                [*command, "--config", str(config)], stdout=subprocess.DEVNULL, stderr=log
            )
            deadline = time.monotonic() + (rng.uniform(1.5, 6.0) if number < n_kills else 240)
            last, begun_s = number == n_kills, time.time()
            while time.monotonic() < deadline and not (
                finished(config, path) and (not last or ticked(folder, since_s=begun_s))
            ):
                time.sleep(0.1)
            assert child.poll() is None
            child.send_signal(signal.SIGKILL if number < n_kills else signal.SIGTERM)
            code = child.wait(20)
            with open_reader(path) as db:
                assert db.value("PRAGMA quick_check") == "ok"
        assert code == 0
        app = opened(config)
        assert todo(app) == ([], [], False)
        for symbol, bars in truth.items():
            got = stored(app, symbol)
            assert same(got, part(bars, first_ms, int(got.ts_ms[-1]) + 1))
            assert [s for _, _, s in gap_states(app, symbol) if s == "missing"] == []
        assert len(signals(app)) >= 3
        assert maintain.invariants(app)["broken"] == {}
        app.close()


def finished(config: Path, path: Path) -> bool:
    """Whether nothing is left to do, as a reader sees it."""
    try:
        with open_reader(path) as db:
            rows = operation.bootstrap_steps(db)
            shown = {row["step"]: row["state"] for row in rows}
    except Exception:
        return False
    ended = all(row["state"] in ("done", "failed") or row["detail"] for row in rows)
    return ended and shown.get(STEPS[1]) == "done"


@pytest.mark.long
def test_kills_while_it_works_up_leave_no_trace(tmp_path: Path) -> None:
    """Ten of them: complete history, no hole, candidates, all steps done."""
    killed_while_it_works_up(tmp_path, n_kills=10, days=20)
