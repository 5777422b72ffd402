"""kill -9 at named points of every command: done again, it ends as if nothing had been.

The points are the commits and the files put in place, before and after; see `kill_launcher`.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from core import drafts
from core.jobs import maintain
from core.messages import plain
from core.ml.folder import read_pointer
from core.notify import REPEAT
from core.store import open_reader
from core.timeframe import DAY_MS
from tests.engine_world import opened
from tests.fault_stage import AHEAD_MS, SETTINGS, Stage, truth_of
from tests.fault_starts import Starts, contents
from tests.fault_world import settle
from tests.replay_world import prepared

ROOT = Path(__file__).parents[1]
NOWHERE = ("-", 1, "before")
Kill = tuple[str, int, str]  # the point, which visit, before or after it


@dataclass(frozen=True, kw_only=True)
class Command:
    """A script with its arguments, `{}` the folder; done again by `again` where that differs."""

    start: str
    words: Sequence[str]
    again: Callable[[Stage], bool] = lambda _: False


def settled(stage: Stage) -> bool:
    """A promotion that got as far as its pointer is settled at the scheduler's start."""
    if read_pointer(stage.app.models_dir) is None:
        stage.leave()
        return False
    settle(stage, day=0, reason="no champion yet")
    stage.leave()
    return True


_PERIOD = ("--start", "2024-01-01", "--end", "2024-01-04")
COMMANDS = {
    "scheduler": Command(start="replay", words=("scheduler_run.py",)),
    "init_db": Command(start="old", words=("init_db.py",)),
    "import": Command(start="files", words=("download_data.py", "--import", "{}/history")),
    "export": Command(start="imported", words=("download_data.py", "--export", "{}/export")),
    "retro_scan": Command(start="imported", words=("retro_scan.py", *_PERIOD, "--workers", "1")),
    "train": Command(start="candidates", words=("maintenance.py", "train")),
    "calibrate": Command(start="trained", words=("maintenance.py", "calibrate")),
    "tune": Command(start="calibrated", words=("maintenance.py", "tune"), again=settled),
    "checkpoint": Command(start="lived", words=("maintenance.py", "checkpoint")),
    "vacuum": Command(start="lived", words=("maintenance.py", "vacuum", "--force")),
    "backup": Command(start="lived", words=("maintenance.py", "backup")),
    "restore": Command(start="copied", words=("maintenance.py", "restore", "--file", "{backup}")),
    "pack": Command(start="lived", words=("maintenance.py", "pack", "--file", "{}/out/all.pack")),
    "unpack": Command(
        start="copied",
        words=("maintenance.py", "unpack", "--force", "--file", "{}/out/all.pack"),
    ),
}


@dataclass
class Case:
    """A command on stages of its own."""

    command: Command
    starts: Starts
    root: Path
    n_stages: int = 0

    def stage(self) -> Stage:
        """A new folder to run it in."""
        self.n_stages += 1
        return self.starts.copy(self.command.start, self.root / f"{self.n_stages}" / "w")

    def launch(self, stage: Stage, kill: Kill = NOWHERE) -> tuple[int, str, dict[str, int]]:
        """Run it; returns its code, what it printed, and how often it came to each point."""
        point, visit, when = kill
        backups = sorted((stage.folder / "data" / "backups").glob("*.db"))
        words = [
            word.replace("{backup}", str(backups[0]) if backups else "").replace(
                "{}", str(stage.folder)
            )
            for word in self.command.words
        ]
        visits = self.root / "visits.json"
        command = [sys.executable, "-m", "tests.kill_launcher", point, str(visit), when]
        command += [str(visits), *words, "--config", str(stage.config)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        seen = json.loads(visits.read_text()) if done.returncode == 0 else {}
        return done.returncode, done.stdout, seen

    def calm(self) -> tuple[dict[str, Any], dict[str, int]]:
        """What comes of it undisturbed, and the points it comes to."""
        stage = self.stage()
        _, _, seen = self.launch(stage)
        return started(stage), seen

    def killed(self, kills: Sequence[Kill], want: dict[str, Any]) -> None:
        """Kill it at each point in turn, each time started again; where it ends, anew.

        Nothing may tell what comes of it from a calm run.
        """
        left = list(kills)
        while left:
            stage, before, said, code = self.stage(), len(left), "", -1
            while left and code and not self.command.again(stage):
                code, printed, _ = self.launch(stage, left[0])
                said += printed
                want_whole(stage)
                del left[: code != 0]
            if code and not self.command.again(stage):
                code, printed, _ = self.launch(stage)
                said += printed
                assert code == 0
            assert len(left) < before, left[0]
            found = started(stage)
            assert sorted(found) == sorted(want), kills
            for name, rows in want.items():
                assert found[name] == rows, f"{kills}: {name}"
            if self.command.start == "replay":
                want_told(stage, said)


def want_whole(stage: Stage) -> None:
    """The database, where there is one, is not damaged."""
    for path in stage.folder.glob("**/ohlcv.db"):
        with open_reader(path) as db:
            assert db.value("PRAGMA integrity_check") == "ok"


def started(stage: Stage) -> dict[str, Any]:
    """What is there after the next start: sound, and without drafts."""
    app = opened(stage.config)
    assert app.holds_lock
    assert maintain.invariants(app)["broken"] == {}
    app.close()
    left = [path for path in stage.folder.rglob(".*") if drafts.sweep([path.parent])]
    assert left == []
    return contents(stage)


def want_told(stage: Stage, said: str) -> None:
    """Every message was printed; a second time only with the mark of a repeat."""
    with open_reader(stage.config.with_name("ohlcv.db")) as db:
        rows = db.rows("SELECT text, state FROM outbox")
    assert len(rows) >= 8
    for text, state in rows:
        words = plain(text.removeprefix(f"{REPEAT}\n"))
        n_marked = said.count(f"{REPEAT}\n{words}")
        assert state == "sent"
        assert said.count(words) >= 1
        assert said.count(words) - n_marked <= 1


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> Starts:
    """The folders commands start in; `replay` has the last hours still to come."""
    made = Starts(tmp_path_factory.mktemp("starts"))
    more = {"exchange": {"id": "replay", "replay": {"path": "replay", "speed": 0}}}
    prepared(made.root / "replay", truth_of(), replay_days=AHEAD_MS / DAY_MS, **SETTINGS | more)
    return made


AT_LEAST = {  # the points a quick run is killed at, and on which visit
    "scheduler": (
        ("core/jobs/sync.py:sync_all COMMIT", 9, "before"),
        ("core/jobs/scan.py:_store_found COMMIT", 2, "before"),
        ("core/jobs/scan.py:_store_found COMMIT", 1, "after"),
        ("core/notify/outbox.py:_accepted COMMIT", 1, "before"),
        ("core/store/operation.py:claim_message COMMIT", 2, "after"),
        ("core/jobs/follow.py:_save COMMIT", 3, "before"),
    ),
    "tune": (("core/drafts.py:move replace", 2, "before"),),
}


@pytest.mark.parametrize("name", AT_LEAST)
def test_kills_at_some_points_leave_no_trace(name: str, starts: Starts, tmp_path: Path) -> None:
    """The minute's commits, a message between its sending and its record, a bundle half placed."""
    case = Case(COMMANDS[name], starts, tmp_path)
    want, seen = case.calm()
    assert {point for point, _, _ in AT_LEAST[name]} <= seen.keys()
    case.killed(AT_LEAST[name], want)


@pytest.mark.long
@pytest.mark.parametrize("name", COMMANDS)
def test_kills_at_every_point_leave_no_trace(name: str, starts: Starts, tmp_path: Path) -> None:
    """Before and after each, in the order in which the command comes to them."""
    case = Case(COMMANDS[name], starts, tmp_path)
    want, seen = case.calm()
    kills = [(point, 1, when) for point in seen for when in ("before", "after")]
    assert len(kills) >= 2 or name in ("checkpoint", "vacuum")
    case.killed(kills, want)
