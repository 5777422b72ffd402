"""What a process holds: memory, open files, threads. Of /proc, so on Linux alone."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

POOLED = 4  # handles that pools may yet take; one leaked in every hour of a day is four times that


class Held(NamedTuple):
    """`written_mb` is memory of the process's own, without the code and files it has mapped."""

    written_mb: float
    files: int
    threads: int

    def is_steady(self, later: Held) -> bool:
        """Whether it holds less than a tenth more memory later, and no more handles.

        But for a few: a pool starts its last thread, or opens its last connection, the first time
        that all others are busy.
        """
        files, threads = later.files - self.files, later.threads - self.threads
        return max(files, threads) <= POOLED and later.written_mb < 1.1 * self.written_mb


def held_by(pid: int) -> Held:
    """Look at a running process. Raises OSError where there is no such process, or no /proc."""
    folder = Path(f"/proc/{pid}")
    lines = (folder / "status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return Held(
        int(status["RssAnon"].split()[0]) / 1000,
        sum(1 for _ in (folder / "fd").iterdir()),
        int(status["Threads"]),
    )
