"""Every run is a row; who fails is told of once, and once when it works again."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.app import App
from core.cadence import PIPELINE, WEEKLY, Due, missed, next_due
from core.config import Config
from core.errors import ExchangeError, ExchangeUnavailable, NotEnoughData, TraderError
from core.jobs import episodes, run
from core.jobs.child import run_child
from core.jobs.recorded import Stopped, Unfinished, recorded
from core.jobs.scheduler import beside
from core.jobs.weekly import Weekly
from core.store import operation
from core.timeframe import DAY_MS, MINUTE_MS
from tests.engine_world import FakeExchange, HandClock, fake_engine, opened, write_config
from tests.replay_world import market

NOW_MS = 1_700_000_040_000
TOKEN = "987654321:CANARYcanaryCANARYcanary-CANARY_ca"
CHANNEL = {"notify": {"deadman_url": "https://hc.test/secret-path"}}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """An engine without candles."""
    engine = opened(write_config(tmp_path, symbols=["BTC/USDT:USDT"], **CHANNEL))
    yield engine
    engine.close()


def rows(app: App) -> list[tuple[Any, ...]]:
    """The runs as written: job, outcome, detail."""
    return app.db.rows("SELECT job, outcome, detail FROM job_runs ORDER BY id")


def told(app: App) -> list[str]:
    """The kinds of what was queued for the owner."""
    return [kind for (kind,) in app.db.rows("SELECT kind FROM outbox ORDER BY id")]


def once(app: App, error: Exception | None, job: str = "auto_train") -> None:
    """One run that ends so."""
    with recorded(app, job, due_ms=NOW_MS) as at_work:
        at_work.done_ms = NOW_MS
        if error:
            raise error


def test_a_run_that_goes_well_is_a_row_and_moves_its_mark(app: App) -> None:
    """With what it counted; nobody is told."""
    with recorded(app, "resample", due_ms=NOW_MS) as at_work:
        at_work.n, at_work.done_ms = 3, NOW_MS
    found = app.db.rows("SELECT job, due_ms, outcome, n, detail FROM job_runs")
    assert found == [("resample", NOW_MS, "ok", 3, "")]
    assert operation.marks(app.db) == {"resample": NOW_MS}
    assert told(app) == []


@pytest.mark.parametrize(
    ("error", "outcome", "mark"),
    [
        (ExchangeUnavailable("down;", remedy="wait"), "error", NOW_MS),
        (RuntimeError("odd"), "error", NOW_MS),
        (Unfinished("goes on"), "overrun", None),
        (Stopped("the end"), "missed", None),
    ],
)
def test_no_exception_leaves_the_block(
    app: App, error: Exception, outcome: str, mark: int | None
) -> None:
    """Each becomes its outcome; work that was cut off is done again."""
    once(app, error)
    ((job, found, detail),) = rows(app)
    assert (job, found) == ("auto_train", outcome)
    assert str(error) in detail
    assert operation.marks(app.db).get("auto_train") == mark


def test_too_little_data_is_no_failure(app: App) -> None:
    """The row says what it waits for, the mark moves to the next date, nobody is alarmed."""
    once(app, ExchangeError("no"))
    with recorded(app, "auto_train", due_ms=NOW_MS) as at_work:
        at_work.n, at_work.done_ms = 1, NOW_MS
        raise NotEnoughData("120 of 400 have matured;", remedy="wait")
    assert at_work.waits == "120 of 400 have matured; wait"
    assert rows(app)[1:] == [("auto_train", "ok", "waits: 120 of 400 have matured; wait")]
    assert app.db.value("SELECT n FROM job_runs ORDER BY id DESC") == 0
    assert operation.marks(app.db) == {"auto_train": NOW_MS}
    assert told(app) == ["failure", "recovered"]


def test_a_run_beyond_its_limit_is_an_overrun_and_done(app: App) -> None:
    """It says how long it took."""
    with recorded(app, "resample", due_ms=NOW_MS, limit_s=0.0) as at_work:
        at_work.done_ms = NOW_MS
    ((_, outcome, detail),) = rows(app)
    assert outcome == "overrun"
    assert detail.startswith("took ")
    assert operation.marks(app.db) == {"resample": NOW_MS}


def test_a_kind_of_failure_is_told_once_and_its_end_once(app: App) -> None:
    """Three runs of one kind, one of another, two good ones: two failures, one recovery."""
    for error in (ExchangeError("no"), ExchangeError("no"), ExchangeError("no"), ValueError("x")):
        once(app, error)
    once(app, None)
    once(app, None)
    assert told(app) == ["failure", "failure", "recovered"]
    once(app, ExchangeError("no"))
    assert told(app) == ["failure", "failure", "recovered", "failure"]


def test_what_is_tried_at_every_look_may_pass_by_itself(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed sync is told when it has lasted; if it passes before, neither is told."""
    at_ms = NOW_MS
    monkeypatch.setattr("core.jobs.recorded.wall_ms", lambda: at_ms)
    for after_ms in (0, 20_000, 40_000):
        at_ms = NOW_MS + after_ms
        once(app, ExchangeUnavailable("down"), "incremental_sync")
    once(app, None, "incremental_sync")
    assert told(app) == []
    for after_ms in (0, 60_000, episodes.GRACE_MS, episodes.GRACE_MS + 20_000):
        at_ms = NOW_MS + DAY_MS + after_ms
        once(app, ExchangeUnavailable("down"), "incremental_sync")
    assert told(app) == ["failure"]
    text = app.db.value("SELECT text FROM outbox")
    assert "Fetching candles fails (3 times)" in text.replace("\n", " ")


def test_no_secret_gets_into_a_row_or_a_message(app: App) -> None:
    """Neither a token nor the address of the switch, whatever an error says."""
    once(app, RuntimeError(f"GET /bot{TOKEN}/x and https://hc.test/secret-path failed"))
    kept = [
        *rows(app),
        *app.db.rows("SELECT * FROM outbox"),
        *app.db.rows("SELECT * FROM episodes"),
    ]
    assert len(kept) == 3
    for word in (TOKEN, "CANARY", "secret-path"):
        assert word not in repr(kept)


def test_minutes_nobody_looked_at_are_a_row_once(tmp_path: Path) -> None:
    """Half an hour away: one row with its 29 minutes, however often we look afterwards."""
    truth = {"BTC/USDT:USDT": market(3, 42, 5)["BTC/USDT:USDT"][-1440:]}
    start_ms = int(truth["BTC/USDT:USDT"].ts_ms[700])
    app, _, clock = fake_engine(tmp_path, truth)
    for minutes in (0, 1, 2, 32, 33):
        clock.at_ms = start_ms + minutes * MINUTE_MS + 5_000
        run.run_due(app)
        run.run_due(app)
    found = app.db.rows("SELECT job, due_ms, n FROM job_runs WHERE outcome = 'missed'")
    assert found == [(PIPELINE[0], start_ms + 3 * MINUTE_MS, 29)]
    app.close()


def test_weeks_left_out_are_counted() -> None:
    """A month away: the newest instant is due, the three before it are missed."""
    config = Config()
    newest_ms = next_due(NOW_MS, {"auto_train": NOW_MS - 8 * DAY_MS}, config)
    assert newest_ms is not None
    marks = {"auto_train": newest_ms.due_ms - 4 * 7 * DAY_MS}
    (miss,) = missed(NOW_MS, marks, config)
    assert (miss.job, miss.n, miss.due_ms) == ("auto_train", 3, newest_ms.due_ms - 21 * DAY_MS)
    assert missed(NOW_MS, {"auto_train": newest_ms.due_ms - 7 * DAY_MS}, config) == []


def _broken(*_: object, **__: object) -> None:
    raise RuntimeError("broken")


@pytest.mark.parametrize("bad", ["market_stats.refresh", "tell.queue_digest"])
def test_a_raising_job_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    """Minutes go on whatever else fails, and the failure is there to be read."""
    truth = {"BTC/USDT:USDT": market(3, 42, 5)["BTC/USDT:USDT"][-2880:]}
    start_ms = int(truth["BTC/USDT:USDT"].ts_ms[700])
    app, _, clock = fake_engine(tmp_path, truth)
    monkeypatch.setattr(f"core.jobs.{bad}", _broken)
    for minute in range(0, 25 * 60, 30):
        clock.at_ms = start_ms + minute * MINUTE_MS + 5_000
        run.run_due(app)
    marks = operation.marks(app.db)
    assert {marks[job] for job in PIPELINE} == {start_ms + 1470 * MINUTE_MS}
    failed = app.db.rows("SELECT DISTINCT detail FROM job_runs WHERE outcome = 'error'")
    assert failed == [("RuntimeError: broken",)]
    app.close()


def script(folder: Path, body: str) -> str:
    """A child of our own; returns its path."""
    path = folder / "child.py"
    path.write_text(body)
    return str(path)


def test_a_child_is_nice_alone_on_its_core_and_heard(app: App, tmp_path: Path) -> None:
    """Its priority, its threads and its last words."""
    body = (
        "import os, sys\nprint(os.nice(0), os.environ['OMP_NUM_THREADS'], file=sys.stderr)\n"
        "print('error: no data', file=sys.stderr); sys.exit(1)"
    )
    heard: list[str] = []
    with pytest.raises(TraderError, match=r"^no data$"):
        run_child(app, script(tmp_path, body), heard=heard.append)
    assert heard == [f"{os.nice(0) + 10} 1", "no data"]


def test_a_child_that_lacks_data_says_so_to_its_parent(app: App) -> None:
    """The real command on an empty database: told apart from a failure, in its own words."""
    with pytest.raises(NotEnoughData, match=r"yet: 0 of 50 closed .* 50 are missing"):
        run_child(app, "maintenance.py", "train", "--log-level", "warning")
    with pytest.raises(TraderError, match="no model") as found:
        run_child(app, "maintenance.py", "calibrate", "--log-level", "warning")
    assert not isinstance(found.value, NotEnoughData)


@pytest.mark.parametrize(
    ("body", "limits", "why"),
    [
        ("import time; time.sleep(60)", {"limit_s": 0.5}, "took longer than 0 s"),
        ("x = bytearray(300_000_000)\nwhile True: pass", {"limit_bytes": 150_000_000}, "150 MB"),
        (
            "import signal, time\nsignal.signal(15, signal.SIG_IGN); time.sleep(60)",
            {"limit_s": 1.0},
            "took longer",
        ),
    ],
)
def test_a_child_beyond_its_limits_is_killed(
    app: App, tmp_path: Path, body: str, limits: dict[str, Any], why: str
) -> None:
    """Time and memory, also where it does not want to end; nothing is left of it."""
    begun = time.monotonic()
    pid = tmp_path / "pid"
    head = f"import os, pathlib; pathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\n"
    with pytest.raises(TraderError, match=why):
        run_child(app, script(tmp_path, head + body), **limits)
    assert time.monotonic() - begun < 30
    assert not Path(f"/proc/{pid.read_text()}").exists()


def test_a_child_ends_with_the_scheduler(app: App, tmp_path: Path) -> None:
    """A stop ends it, and it counts as not done."""
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(Stopped):
        run_child(app, script(tmp_path, "import time; time.sleep(60)"), stop=stop)


def test_weekly_work_does_not_hold_up_the_minute(tmp_path: Path) -> None:
    """While the child works minutes go on; the steps come in order, and their marks when done."""
    truth = {"BTC/USDT:USDT": market(3, 42, 5)["BTC/USDT:USDT"][-1440:]}
    start_ms = int(truth["BTC/USDT:USDT"].ts_ms[700])
    auto: dict[str, Any] = {"auto": {}}  # on, as shipped
    clock = HandClock(start_ms + 5_000)
    path = write_config(tmp_path, symbols=list(truth), **auto)
    app = opened(path, (FakeExchange(truth, clock), clock))
    stop = threading.Event()
    weekly = Weekly(beside(app), stop=stop)
    with app.db.write():
        for job in WEEKLY:
            operation.move_mark(app.db, job, done_ms=start_ms - 8 * DAY_MS)
    run.run_due(app, weekly=weekly)
    assert weekly.is_busy
    minute = 0
    while weekly.is_busy:
        minute += 1
        clock.at_ms = start_ms + minute * MINUTE_MS + 5_000
        run.run_due(app, weekly=weekly)
    assert minute >= 3
    assert operation.marks(app.db)["execute_signals"] == start_ms + minute * MINUTE_MS
    assert weekly.wait(60)
    for _ in WEEKLY:
        run.run_due(app, weekly=weekly)
        assert weekly.wait(60)
    found = app.db.rows(
        "SELECT job, outcome, n, substr(detail, 1, 23) FROM job_runs WHERE job LIKE 'auto_%'"
        " AND outcome <> 'missed' AND job <> 'auto_summary'"
    )
    assert found == [  # there is nothing to learn from yet, and nothing was learned
        ("auto_train", "ok", 0, "waits: 0 of 50 closed c"),
        ("auto_calibrate", "ok", 0, "waits: no model is trai"),
        ("auto_tune", "ok", 0, "waits: no model is trai"),
    ]
    assert "failure" not in told(app)
    row = operation.bootstrap_steps(app.db)
    assert row == []  # nothing was left to the weekly work
    assert all(operation.marks(app.db)[job] >= start_ms - 7 * DAY_MS for job in WEEKLY)
    weekly.app.db.close()
    app.close()


def test_a_weekly_step_that_is_cut_short_is_done_again(tmp_path: Path) -> None:
    """Its mark stays, the row says missed, nobody is told."""
    app = opened(write_config(tmp_path, symbols=["BTC/USDT:USDT"]))
    stop = threading.Event()
    weekly = Weekly(beside(app), stop=stop)
    assert weekly.start(Due(NOW_MS, "auto_train"))
    assert not weekly.start(Due(NOW_MS, "auto_tune"))
    stop.set()
    assert weekly.wait(10)
    assert [row[:2] for row in rows(app)] == [("auto_train", "missed")]
    assert operation.marks(app.db) == {}
    assert told(app) == []
    weekly.app.db.close()
    app.close()
