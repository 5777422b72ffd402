"""What every script shares: arguments, logging, progress, results on stdout, one-line errors."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from core import printing
from core.errors import ConfigError, TraderError, UsageError
from core.timeframe import tf_ms

if TYPE_CHECKING:
    from core.app import App
    from core.config import Config
    from core.domain import Progress
    from core.store.db import Database

log = logging.getLogger("trader")
show = printing.show

PATIENCE_S = 3.5  # after SIGTERM, for the transaction at work and the last messages
T = TypeVar("T")


def parser(doc: str | None, *, json_flag: bool = True) -> argparse.ArgumentParser:
    """Return a parser whose help is the script's docstring, with the options all scripts take."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--config", type=Path, default=Path("config.yaml"), metavar="PATH")
    made.add_argument(
        "--log-level",
        default="info",
        choices=("debug", "info", "warning", "error"),
        metavar="LEVEL",
    )
    if json_flag:
        made.add_argument("--json", action="store_true", help="print the result as JSON")
    return made


def day(text: str) -> date:
    """Return a date argument; argparse turns the error into exit code 2."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no date; write 2024-01-31") from error


def day_ms(value: date) -> int:
    """Return the first instant of a day, UTC ms."""
    return int(datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp() * 1000)


def positive(text: str) -> int:
    """Return a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def timeframe(text: str) -> str:
    """Return a timeframe argument."""
    try:
        tf_ms(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def setup_logging(level: str) -> None:
    """Send logs to stderr, with secrets taken out of them."""
    from core.notify import RedactSecrets

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(RedactSecrets())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("trader").setLevel(level.upper())


@contextmanager
def app(args: argparse.Namespace) -> Iterator[App]:
    """Open what a command works with, and release it whatever happens."""
    from core.app import open_app
    from core.store.db import explained

    setup_logging(args.log_level)
    opened = open_app(args.config.resolve())
    logging.getLogger().handlers[0].addFilter(_secrets_of(opened))
    with explained(opened.db.path):
        try:
            yield opened
        finally:
            opened.close()


def restored(args: argparse.Namespace) -> dict[str, Any]:
    """Put a backup back while nobody else keeps the database."""
    from core.app import database_path
    from core.config_file import load_config
    from core.errors import StoreError
    from core.jobs.maintain import restore
    from core.store.db import WriterLock

    setup_logging(args.log_level)
    path = args.config.resolve()
    target = database_path(load_config(path), path.parent)
    lock = WriterLock(target.with_name(target.name + ".lock"))
    if not lock.acquire():
        raise StoreError(
            f"the scheduler (pid {lock.holder()}) keeps the database;", remedy="stop it first"
        )
    try:
        return restore(args.file, target)
    finally:
        lock.release()


def unpacked(args: argparse.Namespace) -> dict[str, Any]:
    """Put a packed engine into the folder of the settings."""
    from core.jobs.pack import unpack

    setup_logging(args.log_level)
    root = args.config.resolve().parent
    return unpack(args.file, root, force=args.force, now_wall_ms=time.time_ns() // 1_000_000)


@contextmanager
def reader(args: argparse.Namespace) -> Iterator[tuple[Config, Database]]:
    """Open the database read-only, for commands that only look."""
    from core.app import database_path
    from core.config_file import load_config
    from core.store.db import explained, open_current

    setup_logging(args.log_level)
    path = args.config.resolve()
    config = load_config(path)
    place = database_path(config, path.parent)
    with explained(place), open_current(place) as db:
        yield config, db


def _secrets_of(opened: App) -> logging.Filter:
    from core.notify import RedactSecrets

    return RedactSecrets.of(opened.config)


def guarded(main: Callable[[Sequence[str] | None], int]) -> int:
    """Run a script's main; an error becomes one line on stderr and its exit code.

    With `--log-level debug` the traceback is logged before it.
    """
    try:
        code = main(None)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 1
    except BrokenPipeError:  # the reader went away; what is left in the buffer goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        log.debug("this is where it failed:", exc_info=True)
        sys.stderr.write(f"error: {_one_line(error)}\n")
        return error.exit_code if isinstance(error, TraderError) else 1
    return code


def _one_line(error: Exception) -> str:
    from core.notify.redaction import hide

    known = isinstance(error, TraderError)
    said = str(error) if known else f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and isinstance(error.filename, str):
        said = (
            f"{error.filename[:200]} cannot be used: {error.strerror}; check the path, its rights"
        )
        known = True
    hint = "" if known else "; see it whole with --log-level debug"
    return hide(" ".join(said.split()), ()) + hint


def check_known(what: str, wanted: Sequence[str], known: Sequence[str]) -> None:
    """Raise UsageError for names that are not among the known ones."""
    for name in wanted:
        if name not in known:
            raise UsageError(f"unknown {what} {name!r};", remedy=f"known: {', '.join(known)}")


def when(ts_ms: int | None) -> str:
    """Return an instant as people read it, UTC."""
    if ts_ms is None:
        return "-"
    return datetime.fromtimestamp(ts_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


@contextmanager
def progress(*, side_by_side: bool = False) -> Iterator[Progress]:
    """Yield a reporter: bars on a terminal, a line every few seconds elsewhere; on stderr.

    `side_by_side` is for works that go on at once: a bar each, and one line of all of them.
    """
    if sys.stderr.isatty():
        yield from _bars(side_by_side=side_by_side)
        return
    begun = last = time.monotonic()
    works: dict[str, tuple[int, int]] = {}

    def line(what: str, done: int, total: int) -> None:
        nonlocal last
        if not side_by_side:
            works.clear()
        works[what] = (done, total)
        now = time.monotonic()
        n_done, n_all = (sum(column) for column in zip(*works.values(), strict=True))
        if now - last < 3.0 and not (n_done and n_done == n_all):
            return
        last = now
        sys.stderr.write(_said(works, n_done, n_all, took_s=now - begun) + "\n")
        sys.stderr.flush()

    yield line


def _said(works: dict[str, tuple[int, int]], n_done: int, n_all: int, *, took_s: float) -> str:
    """Say in one line how far some works are."""
    rate = n_done / max(took_s, 1e-9)
    left = f", {span((n_all - n_done) / rate)} left" if n_done and n_all > n_done else ""
    if len(works) == 1:
        share = f"{n_done:,}/{n_all:,}" if n_all else f"{n_done:,}"
        return f"{next(iter(works))}: {share}{left}"
    each = ", ".join(f"{name} {100 * a // max(b, 1)} %" for name, (a, b) in works.items())
    return f"{n_done:,}/{n_all:,}, {rate:,.0f} a second{left}: {each}"


def _bars(*, side_by_side: bool) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn()]
    columns += [TaskProgressColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}")]
    with Bars(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as bars:
        tasks: dict[str, Any] = {}

        def update(what: str, done: int, total: int) -> None:
            name = what if side_by_side else ""
            if name not in tasks:
                tasks[name] = bars.add_task(what, total=None, rate="")
            speed = next(task.speed for task in bars.tasks if task.id == tasks[name])
            rate = f"{speed:,.0f}/s" if speed else ""
            bars.update(
                tasks[name], description=what, completed=done, total=total or None, rate=rate
            )

        yield update


def span(seconds: float) -> str:
    """Return a length of time as people say it.

    >>> span(42), span(750), span(6900)
    ('42 s', '13 min', '1 h 55 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def until_stopped(work: Callable[[], T], stop: threading.Event) -> T:
    """Run the work on a thread; end the process where it goes on long after `stop` was set.

    What waits for a silent exchange cannot be interrupted, but it holds no transaction, and any
    process of ours may be ended at any instant. Raises what the work raises.
    """
    result: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="work", daemon=True)
    thread.start()
    while thread.is_alive() and not stop.is_set():
        thread.join(0.2)
    thread.join(PATIENCE_S)
    if thread.is_alive():
        log.warning("something still waits for an answer; it is left")
        leave(0)
    if errors:
        raise errors[0]
    return result[0]


def leave(code: int) -> None:
    """End the process at once, without waiting for its threads."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def on_stop(stop: Callable[[], None]) -> None:
    """Call `stop` at SIGTERM and Ctrl-C, so that the work ends with its transaction."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop())
