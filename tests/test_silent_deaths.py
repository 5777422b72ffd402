"""Nothing dies silently: whatever raises, in the loop or beside it, is a row, told once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apscheduler.schedulers.background import BackgroundScheduler

from core.app import App
from core.cadence import PIPELINE, WEEKLY, Due
from core.jobs import bootstrap, commands, maintain, run, scheduler, silence
from core.jobs.bootstrap import Bootstrap
from core.jobs.edits import Edits
from core.jobs.episodes import GRACE_MS
from core.jobs.life import Life
from core.jobs.weekly import Weekly
from core.store import operation
from core.timeframe import DAY_MS, MINUTE_MS
from tests.engine_world import FakeExchange, HandClock, opened, write_config
from tests.replay_world import market

BTC = "BTC/USDT:USDT"


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """A live engine of one pair, the weekly work on."""
    truth = {BTC: market(3, 42, 5)[BTC][-1440:]}
    clock = HandClock(int(truth[BTC].ts_ms[700]) + 5_000)
    auto: dict[str, Any] = {"auto": {}}
    path = write_config(tmp_path, symbols=[BTC], **auto)
    engine = opened(path, (FakeExchange(truth, clock), clock))
    yield engine
    engine.close()


def broken(*_: object, **__: object) -> None:
    """What raises, whatever it is called for."""
    raise RuntimeError("broken")


def failures(app: App) -> list[tuple[str, str]]:
    """The jobs that failed, and how."""
    return app.db.rows("SELECT job, detail FROM job_runs WHERE outcome = 'error' ORDER BY id")


def told(app: App) -> list[str]:
    """The kinds of what was queued for the owner."""
    return [kind for (kind,) in app.db.rows("SELECT kind FROM outbox ORDER BY id")]


def looked(app: App, times: int = 1) -> None:
    """Looks as the scheduler makes them."""
    for _ in range(times):
        scheduler.look(app, for_s=0.0, stop=threading.Event(), weekly=None, life=Life(app),
                       edits=Edits(app))  # fmt: skip


def test_the_jobs_have_their_names_and_cadences(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the settings' documentation, the database every half hour; each guarded."""
    seen: dict[str, float] = {}

    def note(_: Any, __: Any, trigger: str, *, seconds: float, id: str) -> None:  # noqa: A002
        assert trigger == "interval"
        seen[id] = seconds

    monkeypatch.setattr(BackgroundScheduler, "add_job", note)
    stop = threading.Event()
    stop.set()
    scheduler.run_forever(app, stop=stop)
    assert seen == {
        **dict.fromkeys(PIPELINE, 20.0),
        **dict.fromkeys(WEEKLY, 30),
        "notify_closed": 0.5,
        "db_checkpoint": 1800,
    }
    assert {"auto_train", "auto_calibrate", "auto_tune"} < set(WEEKLY)


def test_what_raises_around_the_pipeline_is_told(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch that fails at each look: minutes go on, a row each, told once it has lasted, over."""
    looked(app)
    with monkeypatch.context() as patch:
        patch.setattr(silence, "watch", broken)
        at_ms = operation.marks(app.db)[PIPELINE[-1]]
        clock = app.market()[1]
        assert isinstance(clock, HandClock)
        clock.at_ms += MINUTE_MS
        looked(app, 2)
        assert operation.marks(app.db)[PIPELINE[-1]] == at_ms + MINUTE_MS
        assert failures(app) == [("look", "RuntimeError: broken")] * 2
        assert told(app) == []
        app.db.run("UPDATE episodes SET began_wall_ms = began_wall_ms - ?", (GRACE_MS,))
        looked(app, 2)
        assert told(app) == ["failure"]
    looked(app, 2)
    assert told(app) == ["failure", "recovered"]


def test_looks_that_find_nothing_write_nothing(app: App) -> None:
    """Neither they nor a round of sending with nothing to send is a row."""
    looked(app)
    sending = scheduler.Sending(app)
    before = app.db.rows("SELECT job FROM job_runs")
    looked(app, 3)
    for _ in range(3):
        sending.round()
    sending.close()
    assert app.db.rows("SELECT job FROM job_runs") == before
    assert {job for (job,) in before} == {*PIPELINE, "market_stats"} & {j for (j,) in before}


def test_a_round_of_sending_that_fails_is_a_row(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that sends something, too."""
    sending = scheduler.Sending(app)
    with monkeypatch.context() as patch:
        patch.setattr(scheduler, "deliver_waiting", broken)
        sending.round()
    assert failures(app) == [("notify_closed", "RuntimeError: broken")]
    assert len(operation.open_episodes(app.db, "notify_closed")) == 1
    sending.round()
    assert operation.open_episodes(app.db, "notify_closed") == []
    sending.close()


def test_upkeep_that_fails_is_a_row_and_told(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reclaiming space, the last of it, as well as the backup."""
    monkeypatch.setattr(maintain, "tidy", broken)
    monkeypatch.setattr(maintain, "daily_backup", broken)
    scheduler.upkeep(app)
    assert failures(app) == [
        ("daily_upkeep", "RuntimeError: broken"), ("tidy", "RuntimeError: broken")
    ]  # fmt: skip
    assert told(app) == ["failure", "failure"]


def test_a_bootstrap_that_cannot_even_look_is_a_row(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread goes on, and the row says why nothing comes of it."""
    monkeypatch.setattr(bootstrap, "todo", broken)
    monkeypatch.setattr(bootstrap, "LOOK_S", 0.01)
    stop = threading.Event()
    thread = Bootstrap(app, scheduler.beside(app), stop=stop, turn=threading.Lock()).start()
    while len(failures(app)) < 2:
        assert thread.is_alive()
        stop.wait(0.01)
    stop.set()
    thread.join(20)
    assert failures(app)[0] == ("bootstrap", "RuntimeError: broken")
    assert told(app) == ["failure"]


def test_a_listener_that_fails_is_a_row(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything but an outage of the bot: that passes by itself."""
    monkeypatch.setattr(commands, "inbox_of", broken)
    monkeypatch.setattr(commands, "_IDLE_S", 0.01)
    monkeypatch.setattr(commands, "_TROUBLE_S", 0.02)
    stop = threading.Event()
    thread = commands.listen(app, scheduler.beside(app), stop=stop)
    assert thread is not None
    while not failures(app):
        assert thread.is_alive()
        stop.wait(0.01)
    stop.set()
    thread.join(20)
    assert set(failures(app)) == {("commands", "RuntimeError: broken")}
    assert told(app) == ["failure"]


class Noted(Weekly):
    """Weekly work that is begun and never ends."""

    begun: list[Due]

    @property
    def is_busy(self) -> bool:
        return bool(self.begun)

    def start(self, due: Due) -> bool:
        self.begun.append(due)
        return True


def test_no_child_works_on_settings_that_are_not_in_force(app: App) -> None:
    """While the file holds a refused edit weekly work waits, and it is said; mended, it begins."""
    weekly = Noted(app, stop=threading.Event())
    weekly.begun = []
    run.run_due(app)
    app.db.run("UPDATE job_marks SET done_ms = done_ms - ? WHERE job = 'auto_train'", (8 * DAY_MS,))
    good, edits = app.config_path.read_text(), Edits(app)
    app.config_path.write_text(json.dumps(json.loads(good) | {"exchange": {"id": "kraken"}}))
    for _ in range(3):
        edits.look()
        run.run_due(app, weekly=weekly)
    work = Bootstrap(app, scheduler.beside(app), stop=threading.Event(), turn=threading.Lock())
    assert not work.look()
    work._app.db.close()
    assert weekly.begun == []
    assert told(app) == ["config"]
    assert "weekly work waits" in " ".join(app.db.value("SELECT text FROM outbox").split())
    app.config_path.write_text(good)
    edits.look()
    run.run_due(app, weekly=weekly)
    assert [due.job for due in weekly.begun] == ["auto_train"]
