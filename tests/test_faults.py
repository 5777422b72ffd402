"""A fault at any statement or file operation: an error that is said, and nothing half done.

What a full disk, a lock, a bad sector or a read-only file raises is raised at every place in
`core/` that asks SQLite or the file system for something, in every job; see `fault_world`.
"""

from __future__ import annotations

import errno
import os
import random
import resource
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

from core.jobs import maintain
from core.jobs.invariants import POINTER
from core.store import Database, open_database, open_reader, operation
from core.timeframe import DAY_MS
from tests.fault_hooks import Act, Seen, Site, hooked
from tests.fault_stage import WALL_MS, Failed, Job, Stage
from tests.fault_starts import Starts, contents
from tests.fault_world import JOBS

SAID = "fault of a test"
BY_NAME = {job.name: job for job in JOBS}
FEWEST = {"live": 95, "bootstrap": 60, "import": 30, "retro_scan": 25, "tune": 30, "commands": 25}
OF_SQLITE = (apsw.FullError, apsw.IOError, apsw.BusyError, apsw.ReadOnlyError)
OF_FILES = (errno.ENOSPC, errno.EIO, errno.EROFS)


def error_at(site: Site, number: int) -> Exception:
    """What may be raised there; the kinds take turns."""
    if site.is_statement:
        return OF_SQLITE[number % len(OF_SQLITE)](SAID)
    code = OF_FILES[number % len(OF_FILES)]
    return OSError(code, f"{os.strerror(code)}, {SAID}")


class HalfWritten:
    """A file that takes half of the first piece written to it."""

    def __init__(self, file: Any, error: Exception) -> None:
        self._file, self._error = file, error

    def write(self, piece: Any) -> int:
        self._file.write(piece[: len(piece) // 2])
        self._file.flush()
        raise self._error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> HalfWritten:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@dataclass
class Trouble:
    """Raises at the first site that is due, once until it is armed again.

    `due` says how many visits of a site are left until it is.
    """

    due: dict[Site, int]
    when: str = "part"  # … of it is done, or nothing
    number: int = 0
    fired: Site | None = None
    is_armed: bool = False

    def __call__(self, site: Site) -> Act | None:
        if not self.is_armed or site not in self.due:
            return None
        self.due[site] -= 1
        if self.due[site] > 0:
            return None
        del self.due[site]
        self.fired, self.is_armed, self.number = site, False, self.number + 1
        return partial(self._act, site, error_at(site, self.number))

    def _act(
        self,
        site: Site,
        error: Exception,
        whole: Callable[[], Any],
        part: Callable[[], Any],
    ) -> Any:
        del whole
        made = part() if self.when == "part" else None
        if site.operation == "open" and made is not None:
            return HalfWritten(made, error)
        raise error


def is_said(error: BaseException) -> bool:
    """Whether an error is the fault, was raised because of it, or is what a job says of it."""
    seen: BaseException | None = error
    while seen is not None:
        if SAID in str(seen) or isinstance(seen, Failed):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def want_sound(stage: Stage, *, is_over: bool) -> None:
    """No open transaction, no broken invariant, a whole file.

    While a promotion is not over its pointer may be ahead of the table: the next start settles it.
    """
    if stage.held is None:
        return
    app = stage.held
    assert not app.db._connection.in_transaction
    with open_reader(app.db.path) as db:
        assert db.value("PRAGMA quick_check") == "ok"
    broken = maintain.invariants(app)["broken"]
    assert set(broken) <= (set() if is_over else {POINTER})


@dataclass
class Trial:
    """One job with faults: until every site was one, and in the end all is as it is without."""

    job: Job
    starts: Starts
    root: Path
    wall: Wall
    n_stages: int = 0
    number: int = 0

    def stage(self) -> Stage:
        """A new stage for the job."""
        self.n_stages += 1
        return self.starts.copy(self.job.start, self.root / f"{self.n_stages}" / "w")

    def run(self, stage: Stage) -> None:
        """Do the job a day after it was last tried."""
        self.wall.now_ms += DAY_MS
        if not self.job.opens:
            _ = stage.app
        self.job.run(stage)

    def calm(self) -> tuple[dict[str, Any], Seen]:
        """What comes of it undisturbed, and the sites it comes to."""
        stage, seen = self.stage(), Seen()
        with hooked(seen):
            if not self.job.opens:
                _ = stage.app
            seen.n.clear()
            self.run(stage)
        found = contents(stage)
        n = Counter(seen.n)
        want_sound(stage, is_over=True)
        stage.leave()
        seen.n = n
        return found, seen

    def troubled(self, due: dict[Site, int], want: dict[str, Any], *, when: str) -> set[Site]:
        """Do it with a fault in each try, until one has none; returns where they were."""
        stage, fired = self.stage(), set[Site]()
        trouble = Trouble(due, when, self.number)
        raised: Exception | None = Failed("not tried yet")
        with hooked(trouble):
            if not self.job.opens:
                _ = stage.app
            while raised is not None:
                trouble.fired, trouble.is_armed, raised = None, True, None
                try:
                    self.run(stage)
                except Exception as error:
                    if trouble.fired is None or not is_said(error):
                        raise
                    raised = error
                trouble.is_armed = False
                if trouble.fired is not None:
                    fired.add(trouble.fired)
                want_sound(stage, is_over=raised is None)
        self.number = trouble.number
        found = contents(stage)
        stage.leave()
        where = f"{self.job.name}: {sorted(site.label for site in fired)}"
        assert sorted(found) == sorted(want), where
        for name, rows in want.items():
            assert found[name] == rows, f"{where}: {name}"
        return fired

    def each(self, due: dict[Site, int], want: dict[str, Any], *, when: str) -> set[Site]:
        """Do it anew until every site that is due was faulty once; returns those that were."""
        met = set[Site]()
        while due:
            fired = self.troubled(due, want, when=when)
            if not fired:  # after a fault there may be fewer visits than without
                assert max(due.values()) > 1, sorted(site.label for site in due)
                due.update(dict.fromkeys(due, 1))
            met |= fired
        return met


@dataclass
class Wall:
    """A wall clock that moves a little each time it is looked at."""

    now_ms: int = WALL_MS

    def time_ns(self) -> int:
        self.now_ms += 7
        return self.now_ms * 1_000_000


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> Starts:
    """The folders jobs start from."""
    return Starts(tmp_path_factory.mktemp("starts"))


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    """The wall clock of everything here."""
    made = Wall()
    monkeypatch.setattr(time, "time_ns", made.time_ns)
    return made


@pytest.mark.parametrize("name", BY_NAME)
def test_a_fault_anywhere_is_said_and_leaves_no_trace(
    name: str, starts: Starts, tmp_path: Path, wall: Wall
) -> None:
    """Every site of a job once; the job, tried again, ends with what an undisturbed run gives."""
    job = BY_NAME[name]
    trial = Trial(job, starts, tmp_path, wall)
    want, seen = trial.calm()
    sites = [site for site in seen.n if site.file.startswith(job.own)]
    assert len(sites) >= FEWEST.get(name, 4)
    assert trial.each(dict.fromkeys(sites, 1), want, when="part") == set(sites)


@pytest.mark.long
@pytest.mark.parametrize("when", ["part", "nothing"])
@pytest.mark.parametrize("name", BY_NAME)
def test_faults_at_later_visits_leave_no_trace_either(
    name: str, when: str, starts: Starts, tmp_path: Path, wall: Wall
) -> None:
    """Every site the job comes to, at a visit drawn from all there are; with each kind of error."""
    trial, rng = Trial(BY_NAME[name], starts, tmp_path, wall), random.Random(f"{name} {when}")
    want, seen = trial.calm()
    for trial.number in range(2):
        due = {site: rng.randint(1, n) for site, n in sorted(seen.n.items())}
        assert trial.each(due, want, when=when) == set(seen.n)


def _fill(db: Database) -> None:
    with db.write():
        for number in range(60):
            operation.set_label(db, f"{number}", "x" * 1000)


@pytest.mark.parametrize("room_bytes", [0, 100, 4_200, 9_000, 30_000])
def test_a_disk_that_is_really_full_costs_what_was_not_committed(
    room_bytes: int, tmp_path: Path
) -> None:
    """The log cannot grow on: the commit says so, nothing of it is kept, and the next one holds."""
    path, limit = tmp_path / "a.db", resource.getrlimit(resource.RLIMIT_FSIZE)
    with open_database(path) as db:
        with db.write():
            operation.set_label(db, "before", "")
        held = maintain.wal_bytes(path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (held + room_bytes, limit[1]))
        try:
            with pytest.raises((apsw.FullError, apsw.IOError)):
                _fill(db)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        with db.write():
            operation.set_label(db, "after", "")
    with open_reader(path) as db:
        assert db.rows("SELECT name FROM labels ORDER BY name") == [("after",), ("before",)]
        assert db.value("PRAGMA integrity_check") == "ok"
