"""What a process holds: memory, open files, threads. Of /proc, so on Linux alone."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Held(NamedTuple):
    """`written_mb` is memory of the process's own, without the code and files it has mapped."""

    written_mb: float
    files: int
    threads: int

    def is_steady(self, later: Held) -> bool:
        """Whether it holds no more handles later, and less than a tenth more memory."""
        same = later.files <= self.files and later.threads <= self.threads
        return same and later.written_mb < 1.1 * self.written_mb


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
