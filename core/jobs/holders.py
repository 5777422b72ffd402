"""Which other processes hold the database's log: a reader that does not let go keeps it growing."""

from __future__ import annotations

import os
import time
from pathlib import Path

_READ_LOCKS = range(123, 128)  # bytes of the -shm file that a read transaction locks one of
_LOOK_S = 0.3  # who holds one at two looks so far apart is no passing question
_NAME_MAX = 60


def holders(database: Path) -> list[str]:
    """Return who holds a read transaction for longer than a moment, as `pid 12 (python x.py)`.

    Nobody where the system does not say (no /proc).

    Source: SQLite, file format and locking of the wal-index (walformat.html, section 2.3).
    """
    shm = database.with_name(f"{database.name}-shm")
    first = _reading(shm)
    if not first:
        return []
    time.sleep(_LOOK_S)
    return [f"pid {pid} ({_name(pid)})" for pid in sorted(first & _reading(shm))]


def _reading(shm: Path) -> set[int]:
    """Return the processes, but this one, that lock one of the bytes of readers."""
    try:
        inode, lines = shm.stat().st_ino, Path("/proc/locks").read_text().splitlines()
    except OSError:
        return set()
    found = set()
    for line in lines:  # 1: POSIX  ADVISORY  READ 12 fe:00:345 124 124
        words = line.split()
        if len(words) == 8 and words[1] == "POSIX" and words[3] == "READ":
            is_ours = words[5].rpartition(":")[2] == str(inode)
            if is_ours and int(words[6]) in _READ_LOCKS:
                found.add(int(words[4]))
    return found - {os.getpid()}


def _name(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "gone"
    return " ".join([Path(words[0]).name, *words[1:]]).strip()[:_NAME_MAX] or "?"
