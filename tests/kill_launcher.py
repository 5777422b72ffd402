"""Run one of the scripts and end it, as kill -9 does, before or after a named point.

    python -m tests.kill_launcher POINT VISIT before|after FILE SCRIPT [ARGUMENT ...]

A point is a commit or the putting in place of a file: `core/jobs/scan.py:_store_found COMMIT`.
With `-` for a point nothing is ended; FILE gets how often each point was come to.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.fault_hooks import ROOT, Act, Site, hooked

OPERATIONS = ("COMMIT", "replace", "rename")


class Points:
    """Counts visits, and ends the process at one of them."""

    def __init__(self, point: str, visit: int, when: str) -> None:
        self.point, self.visit, self.when = point, visit, when
        self.n: Counter[str] = Counter()

    def __call__(self, site: Site) -> Act | None:
        if site.operation not in OPERATIONS:
            return None
        self.n[site.label] += 1
        is_it = site.label == self.point and self.n[site.label] == self.visit
        return partial(_end, self.when) if is_it else None


def _end(when: str, whole: Callable[[], Any], part: Callable[[], Any]) -> None:
    del part
    if when == "after":
        whole()
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run the script."""
    point, visit, when, file, script, *arguments = sys.argv[1:]
    points = Points(point, int(visit), when)
    sys.argv = [script, *arguments]
    try:
        with hooked(points):
            runpy.run_path(str(ROOT / script), run_name="__main__")
    finally:
        Path(file).write_text(json.dumps(points.n))


if __name__ == "__main__":
    main()
