"""Hooks at every database statement and file operation that code in `core/` comes to.

A site is where in `core/` an operation is asked for. What happens there is a test's: it counts, it
raises what a full disk raises, or it ends the process.
"""

from __future__ import annotations

import builtins
import io
import os
import sys
import tarfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from unittest import mock

import apsw
import numpy as np

from core.store import stepping

ROOT = Path(__file__).resolve().parents[1]
_CORE, _FOREIGN = f"{ROOT}{os.sep}core{os.sep}", f"{os.sep}site-packages{os.sep}"
_THROUGH = (f"{_CORE}store{os.sep}db.py", f"{_CORE}store{os.sep}stepping.py", __file__)
_ON_PATHS = ("replace", "rename", "unlink", "mkdir", "rmdir", "chmod")
_ON_OPEN_FILES = ("fsync", "ftruncate", "write")


class Site(NamedTuple):
    """A place in `core/` and the operation it asks for: a SQL word, or a function of `os`."""

    file: str
    line: int
    function: str
    operation: str

    @property
    def label(self) -> str:
        """The name a person gives it; lines move, so none is in it."""
        return f"{self.file}:{self.function} {self.operation}"

    @property
    def is_statement(self) -> bool:
        return self.operation.isupper()


class Act(Protocol):
    """What is done about one execution of a site; `whole` does it, `part` some of it."""

    def __call__(self, whole: Callable[[], Any], part: Callable[[], Any]) -> Any: ...


Judge = Callable[[Site], Act | None]


def site_here(operation: str) -> Site | None:
    """Return who in `core/` asks; None where a library does, whose files are its own affair."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_CORE) and name not in _THROUGH:
            return _site(frame, operation)
        if _FOREIGN in name or "importlib" in name:
            return None
        frame = frame.f_back  # type: ignore[assignment]
    return None


def _site(frame: Any, operation: str) -> Site:
    code = frame.f_code
    file = Path(code.co_filename).relative_to(ROOT).as_posix()
    return Site(file, frame.f_lineno, code.co_name, operation)


class Seen:
    """Counts how often each site is come to."""

    def __init__(self) -> None:
        self.n: Counter[Site] = Counter()

    def __call__(self, site: Site) -> None:
        self.n[site] += 1


@contextmanager
def hooked(judge: Judge) -> Iterator[None]:
    """Ask `judge` about every execution of a site in the block, whichever thread comes to it."""

    def through(operation: str, whole: Callable[[], Any], part: Callable[[], Any]) -> Any:
        site = site_here(operation)
        act = None if site is None else judge(site)
        return whole() if act is None else act(whole, part)

    patches = [*_statements(through), *_stepped(judge), *_files(through)]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in reversed(patches):
            patch.stop()


Through = Callable[[str, Callable[[], Any], Callable[[], Any]], Any]
_told = threading.local()  # what was decided in compiled stepping, and is to be done after it


def _statements(through: Through) -> list[Any]:
    """Put every statement of connections that are opened from now on through the hook."""

    class Hooked(apsw.Connection):
        def execute(self, *more: Any, **named: Any) -> Any:
            _again()
            word, run = more[0].split(None, 1)[0].upper(), super().execute
            return through(word, lambda: run(*more, **named), _nothing)

        def executemany(self, *more: Any, **named: Any) -> Any:
            _again()
            (sql, rows), run = more, super().executemany
            word, every = sql.split(None, 1)[0].upper(), list(rows)

            def part() -> None:
                run(sql, islice(every, (len(every) + 1) // 2), **named).fetchall()

            return through(f"{word} MANY", lambda: run(sql, every, **named), part)

        def wal_checkpoint(self, *more: Any, **named: Any) -> Any:
            run = super().wal_checkpoint
            return through("CHECKPOINT", lambda: run(*more, **named), _nothing)

        def backup(self, *more: Any, **named: Any) -> Any:
            run = super().backup
            return through("BACKUP", lambda: run(*more, **named), _nothing)

    return [mock.patch.object(apsw, "Connection", Hooked)]


def _again() -> None:
    """Do now what was decided while the statement was being stepped."""
    act, _told.act = getattr(_told, "act", None), None
    if act is not None:
        act(_nothing, _nothing)


def _stepped(judge: Judge) -> list[Any]:
    """Let compiled stepping end early where an error is wanted: apsw then says it."""
    read, feed = stepping.stepped, stepping.fed

    def stepped(connection: Any, sql: str, *more: Any, **named: Any) -> Any:
        site = site_here("SELECT STEPPED")
        _told.act = None if site is None else judge(site)
        return None if _told.act else read(connection, sql, *more, **named)

    def fed(connection: Any, sql: str, firsts: Any, others: Any) -> bool:
        site = site_here("INSERT STEPPED")
        _told.act = None if site is None else judge(site)
        if not _told.act:
            return feed(connection, sql, firsts, others)
        half = len(firsts) // 2
        feed(connection, sql, firsts[:half], np.ascontiguousarray(others[:, :half]))
        return False

    return [
        mock.patch.object(stepping, "stepped", stepped),
        mock.patch.object(stepping, "fed", fed),
    ]


def _nothing() -> None:
    """Do no part of it."""


def _files(through: Through) -> list[Any]:
    """Put the functions through the hook that change a file or a folder."""
    functions = {name: getattr(os, name) for name in (*_ON_PATHS, *_ON_OPEN_FILES)}
    places = ((builtins, "open"), (io, "open"), (tarfile, "bltn_open"))
    return [
        *(mock.patch.object(os, name, _wrapped(through, name, f)) for name, f in functions.items()),
        *(
            mock.patch.object(place, name, _opening(through, getattr(place, name)))
            for place, name in places
        ),
    ]


def _wrapped(through: Through, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
    def call(*more: Any, **named: Any) -> Any:
        return through(name, lambda: run(*more, **named), _nothing)

    return call


def _opening(through: Through, run: Callable[..., Any]) -> Callable[..., Any]:
    """Opening for writing: a part of it is a file that takes half of the first piece written."""

    def call(file: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
        def part() -> Any:
            return run(file, mode, *more, **named)

        if not set(mode) & set("wax+"):
            return part()
        return through("open", part, part)

    return call
