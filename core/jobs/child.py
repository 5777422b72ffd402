"""Heavy work in a child process: of low priority, on one core, with an end to time and memory."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from core.app import App
from core.errors import NotEnoughData, TraderError
from core.jobs.recorded import Stopped

log = logging.getLogger("trader.child")

LIMIT_S = 3600.0  # of a weekly step
LIMIT_BYTES = 2 << 30  # resident, of any child
NICE = 10
_LOOK_S = 0.2
_END_S = 1.0  # for a child that is asked to end, before it is made to
_ONE_CORE = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "LOKY_MAX_CPU_COUNT")
_ROOT = Path(__file__).resolve().parents[2]


def run_child(
    app: App,
    script: str,
    *arguments: str,
    stop: threading.Event | None = None,
    limit_s: float = LIMIT_S,
    limit_bytes: int = LIMIT_BYTES,
    heard: Callable[[str], None] = lambda _: None,
) -> None:
    """Run one of the scripts to its end, on the app's settings; `heard` gets its log lines.

    Raises TraderError with its last line where it fails (NotEnoughData where that is what it says),
    and where it takes too long or too much memory (it is killed then); Stopped where `stop` is set
    meanwhile.
    """
    command = [sys.executable, str(_ROOT / script), *arguments, "--config", str(app.config_path)]
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env=os.environ | dict.fromkeys(_ONE_CORE, "1"),
            start_new_session=True,  # Ctrl-C in the terminal is for the scheduler to hand on
        )
        try:
            with suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, child.pid, NICE)
            lines = _Lines(said, heard)
            _watch(child, lines, stop=stop, limit_s=limit_s, limit_bytes=limit_bytes)
        finally:
            _end(child)
        lines.read()
    if child.returncode:
        if lines.last.startswith(NotEnoughData.SAID):
            raise NotEnoughData(lines.last.removeprefix(NotEnoughData.SAID))
        name = " ".join((script, *arguments[:1]))
        raise TraderError(lines.last or f"{name} ended with code {child.returncode}")


def _watch(
    child: subprocess.Popen[bytes],
    lines: _Lines,
    *,
    stop: threading.Event | None,
    limit_s: float,
    limit_bytes: int,
) -> None:
    until_s = time.monotonic() + limit_s
    while child.poll() is None:
        if stop is not None and stop.is_set():
            raise Stopped("the scheduler stops; it is done again at the next start")
        if time.monotonic() >= until_s:
            raise TraderError(f"it was ended: it took longer than {limit_s:.0f} s")
        if resident_bytes(child.pid) > limit_bytes:
            raise TraderError(
                f"it was ended: it took more than {limit_bytes / 1e6:.0f} MB of memory;",
                remedy="scan fewer pairs or timeframes, or a later backfill.start_date",
            )
        lines.read()
        with suppress(subprocess.TimeoutExpired):
            child.wait(_LOOK_S)


def resident_bytes(pid: int) -> int:
    """Return the memory a process holds; 0 where the system does not say (no /proc)."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(_END_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


class _Lines:
    """What a child writes, line by line; `last` is the newest that is not empty."""

    def __init__(self, said: IO[str], heard: Callable[[str], None]) -> None:
        self._said = said
        self._heard = heard
        self._place = 0
        self.last = ""

    def read(self) -> None:
        """Take in what is new: the child's place in the file is not ours, so it is read by ours."""
        raw = os.pread(self._said.fileno(), 1 << 20, self._place)
        whole = raw[: raw.rfind(b"\n") + 1]
        self._place += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            if line.strip():
                self.last = line.strip().removeprefix("error: ")
                self._heard(self.last)
