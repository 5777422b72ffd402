"""Drafts: put in place whole, moved back where that fails, swept when their process is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core import drafts
from core.errors import StoreError
from core.jobs import maintain
from core.store import open_database


def pid_of_nobody() -> int:
    """The number of a process that has ended."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_the_sweep_takes_what_dead_processes_left_and_nothing_else(tmp_path: Path) -> None:
    """Files, folders and SQLite's side files; not those of the living, nor what is no draft."""
    dead, alive = pid_of_nobody(), os.getppid()
    left = [f".a.txt.{dead}-0123abcd.tmp", f".b.db.{dead}-0123abcd.tmp-journal"]
    kept = [f".c.{alive}-0123abcd.tmp", ".d.tmp", f"e.{dead}-0123abcd.tmp", "f.txt"]
    for name in (*left, *kept):
        (tmp_path / name).write_text("x")
    folder = tmp_path / f".bundle.{dead}-0123abcd.tmp"
    (folder / "more").mkdir(parents=True)
    swept = drafts.sweep([tmp_path, tmp_path / "absent"])
    assert sorted(path.name for path in swept) == sorted([*left, folder.name])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_the_sweep_puts_back_what_had_given_way_to_nothing(tmp_path: Path) -> None:
    """A folder moved aside by a process that died before its successor came; else it goes."""
    dead = pid_of_nobody()
    for name in ("lost", "there"):
        aside = tmp_path / f".{name}.{dead}-0123abcd.old"
        aside.mkdir()
        (aside / "old").write_text(name)
    (tmp_path / "there").mkdir()
    drafts.sweep([tmp_path])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lost", "there"]
    assert (tmp_path / "lost" / "old").read_text() == "lost"
    assert not (tmp_path / "there" / "old").exists()


def test_moves_that_fail_are_undone(tmp_path: Path) -> None:
    """The third cannot be done: the first two are where they were."""
    for name in "ab":
        (tmp_path / name).write_text(name)
    pairs = (("a", "x/a"), ("b", "a"), ("absent", "b"))
    with pytest.raises(FileNotFoundError), drafts.moves() as move:
        [move(tmp_path / source, tmp_path / target) for source, target in pairs]
    assert [(tmp_path / name).read_text() for name in "ab"] == ["a", "b"]


def test_a_restore_that_was_cut_short_is_told(tmp_path: Path) -> None:
    """No empty database takes its place: restored again, it goes on."""
    path, copy = tmp_path / "a.db", tmp_path / "copy.db"
    with open_database(path) as db:
        db.backup_to(copy)
    path.rename(tmp_path / "a.db.before-restore")  # where a kill may leave it
    with pytest.raises(StoreError, match="restore again"):
        open_database(path)
    maintain.restore(copy, path)
    with open_database(path) as db:
        assert db.value("PRAGMA integrity_check") == "ok"
