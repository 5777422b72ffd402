"""What is on its way to a file or folder: written under a name of its own, put in place whole.

A draft is named after its process: what a killed one left can be told from work under way.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path

_LEFT = re.compile(
    r"\.(?P<name>.+)\.(?P<pid>\d+)-[0-9a-f]{8}\.(?P<kind>tmp|old)(-journal|-wal|-shm)?"
)


def draft_of(path: Path, *, kind: str = "tmp") -> Path:
    """Return a name beside a path that nobody else has; kind `old`: for what has to give way."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.{kind}")


def replace_file(path: Path, content: bytes, *, mode: int) -> None:
    """Replace a file so that a reader sees the old bytes or the new, never a mixture."""
    draft = draft_of(path)
    try:
        write_synced(draft, content, mode=mode)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def replace_folder(path: Path, draft: Path) -> None:
    """Put a whole folder in place of another, or of none; if it cannot be, the old one stays.

    In between there is neither for an instant: `sweep` puts the old one back where that was the
    last of its process.
    """
    old = draft_of(path, kind="old")
    with moves() as move:
        if path.exists():
            move(path, old)
        move(draft, path)
    sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def unused(path: Path) -> Path:
    """Return a name where nothing lies: the path itself, or with the next number."""
    names = (path.with_name(f"{path.name}-{n}") for n in count(2))
    return next(name for name in chain([path], names) if not name.exists())


@contextmanager
def draft_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside a path, and remove what is left of it in the end."""
    draft = draft_of(path)
    draft.mkdir(mode=0o700)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def moves() -> Iterator[Callable[[Path, Path], None]]:
    """Yield what moves a file or folder; if the block fails, all it moved is where it was."""
    done: list[tuple[Path, Path]] = []

    def move(source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        done.append((source, target))
        source.replace(target)

    try:
        yield move
    except BaseException:
        for source, target in reversed(done):
            if target.exists() and not source.exists():
                target.replace(source)
        raise


def write_synced(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a new file and wait until it is on the disk."""
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(mode)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folders: Iterable[Path]) -> list[Path]:
    """Remove what ended processes left half done in some folders; returns what was removed.

    A folder that had given way to one that never came is put back. Call it while nothing of this
    process is on its way there: its number may have been another's before.
    """
    swept = []
    for folder in dict.fromkeys(folders):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            found = _LEFT.fullmatch(path.name)
            if found is None or _is_at_work(int(found["pid"])):
                continue
            place = path.with_name(found["name"])
            if found["kind"] == "old" and not place.exists():
                path.rename(place)
            elif path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            swept.append(path)
    return swept


def _is_at_work(pid: int) -> bool:
    """Say whether another process of that number runs."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
