"""A real scheduler in a process of its own that need not load the libraries first.

A server of forks loads them once; each child then runs the whole of `scheduler_run.py`. Loading
takes most of a second and touches no file of ours, so kills lose nothing by leaving it out.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import scheduler_run

FORKS = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Forked:
    """A scheduler on a replay, with the words of `subprocess.Popen` for what a test asks of it."""

    process: BaseProcess

    @classmethod
    def start(cls, config: Path, log: Path) -> Forked:
        """Start it; its stderr goes to the end of `log`."""
        FORKS.set_forkserver_preload(["tests.loaded_scheduler", __name__])
        process = FORKS.Process(target=_run, args=(str(config), str(log)), daemon=True)
        process.start()
        return cls(process)

    @property
    def pid(self) -> int:
        return self.process.pid or 0

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing, where it has ended by itself."""
        if self.process.is_alive():
            os.kill(self.pid, number)

    def wait(self) -> int:
        self.process.join()
        assert self.process.exitcode is not None
        return self.process.exitcode


def _run(config: str, log: str) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), 2)
    sys.exit(scheduler_run.main(["--config", config, "--log-level", "error"]))
