"""A machine's clock that is set while the engine runs."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta, tzinfo
from functools import partial
from pathlib import Path
from typing import Any

import apscheduler.schedulers.base
import pytest
from apscheduler.schedulers.background import BackgroundScheduler

from core.app import App, settle_home, wall_ms
from core.jobs import scheduler
from core.store import operation
from tests.engine_world import opened, write_config
from tests.outbox_world import queue
from tests.test_unattended import until


def more_than(found: list[int], n: int) -> bool:
    """Say whether a list has grown beyond a length."""
    return len(found) > n


def test_triggers_go_on_where_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour back, twice: the jobs run on, as they would without."""
    off = [timedelta()]
    now_s = time.time

    class Datetime(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.now(tz) + off[0]

    monkeypatch.setattr(apscheduler.schedulers.base, "datetime", Datetime)
    monkeypatch.setattr(time, "time", lambda: now_s() + off[0].total_seconds())
    monkeypatch.setattr(scheduler, "_STAND_BY_S", 0.05)
    runs, stop = list[int](), threading.Event()
    triggers = BackgroundScheduler(timezone="UTC")
    triggers.add_job(runs.append, "interval", (1,), seconds=0.05, misfire_grace_time=None)
    triggers.start()
    thread = threading.Thread(target=scheduler.stand_by, args=(triggers, stop))
    thread.start()
    try:
        for hours in (0, 1, 2):
            off[0] = timedelta(hours=-hours)
            n_before = len(runs)
            until(partial(more_than, runs, n_before + 3))
    finally:
        stop.set()
        thread.join()
        triggers.shutdown()


def waiting(app: App) -> None:
    """Queue a message that is to be tried again in a minute, on a channel that rests as long."""
    queue(app.db, ["told in the end"], channel="console")
    until_ms = wall_ms() + 60_000
    with app.db.write():
        operation.update_message(app.db, 1, {"attempts": 1, "next_wall_ms": until_ms})
        operation.rest_channel(app.db, "console", until_wall_ms=until_ms, reason="429")


def test_what_waits_to_be_sent_does_not_wait_for_the_old_time_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A minute's wait is not an hour's because the clock was set back meanwhile."""
    app = opened(write_config(tmp_path))
    waiting(app)
    sending = scheduler.Sending(app)
    sending.round()
    assert "told in the end" not in capsys.readouterr().out
    now_s, now_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: now_s() - 3600)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() - 3600 * 10**9)
    sending.close()
    assert "told in the end" in capsys.readouterr().out
    app.close()


def test_waits_of_a_clock_that_was_set_back_while_nothing_ran_are_void(tmp_path: Path) -> None:
    """The last tick lies in the future: what was to wait by its clock is tried at the start."""
    app = opened(write_config(tmp_path))
    for ahead_ms, rests in ((-1000, True), (3_600_000, False)):
        if rests:
            waiting(app)
        with app.db.write():
            operation.write_clock(app.db, market_ms=0, wall_ms=wall_ms() + ahead_ms, speed=1.0)
        settle_home(app, take_over=False)
        assert (operation.rest_of(app.db, "console")[0] > wall_ms()) is rests
        next_ms = app.db.value("SELECT next_wall_ms FROM outbox")
        assert (next_ms > wall_ms()) is rests
    app.close()
