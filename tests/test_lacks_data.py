"""Too little data at the start is waited out, told apart from failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.app import App
from core.cadence import Due
from core.errors import NotEnoughData
from core.jobs import bootstrap, weekly
from core.messages import answers
from core.store import operation
from core.timeframe import MINUTE_MS
from tests.engine_world import fake_engine
from tests.test_bootstrap_jobs import BTC, EASY, history, worked_up


def test_what_lacks_data_is_left_to_the_weekly_work_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step says what it waits for, also after a look; weekly work keeps the rows true."""
    truth = history(BTC)
    app, _, clock = fake_engine(tmp_path, truth, **EASY)
    clock.at_ms = int(truth[BTC].ts_ms[-1]) - 30 * MINUTE_MS
    lack, begun = "12 of 50 closed candidates have matured: 38 are missing;", list[str]()

    def child(_: App, script: str, step: str, *__: str, **___: object) -> None:
        begun.append(step)
        if script == "maintenance.py" and len(begun) < 4:
            raise NotEnoughData(lack)

    monkeypatch.setattr(bootstrap, "run_child", child)
    monkeypatch.setattr(weekly, "run_child", child)
    worked_up(app)
    worked_up(app)
    assert begun == ["--start", "train"]
    shown = {row["step"][2:]: (row["state"], row["detail"]) for row in
             operation.bootstrap_steps(app.db)}  # fmt: skip
    later = ("waiting", "the step before it is not done; weekly work tries again")
    assert list(shown.values()) == [("done", ""), ("done", ""), ("waiting", lack), later, later]
    told = " ".join(answers.working_up(operation.bootstrap_steps(app.db)))
    assert "train waiting: 12 of 50 closed candidates" in told
    assert app.db.rows("SELECT kind FROM outbox") == []
    for job, states_then in (
        ("auto_train", ["waiting", "waiting", "waiting"]),
        ("auto_calibrate", ["waiting", "waiting", "waiting"]),
        ("auto_train", ["done", "waiting", "waiting"]),
    ):
        assert weekly.run_step(app, Due(clock.at_ms, job), stop=None)
        assert [row["state"] for row in operation.bootstrap_steps(app.db)][2:] == states_then
    assert begun == ["--start", "train", "train", "train"]
    assert app.db.rows("SELECT kind FROM outbox") == []
    app.close()
