"""Signs of life of the long-lived process: heartbeat file, dead man's switch, systemd."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from pathlib import Path

from core.app import App, wall_ms
from core.notify import systemd
from core.notify.deadman import sign_of_life
from core.timeframe import MINUTE_MS

log = logging.getLogger("trader.life")

_DOG_S = 1.0  # at most one word a second to systemd, however fast a replay goes
_FILE_S = 0.5
_PING_S = 10.0  # a replay completes minutes by the hundred; the switch is called this rarely


class Life:
    """Says that the loop moves. Fed by the loop itself: a side thread would outlive its hanging."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._path = heartbeat_path(app)
        self._fed_s = self._beat_s = self._pinged_s = float("-inf")
        self._minute_ms = 0
        self._pinging = threading.Lock()

    def moved(self) -> None:
        """Feed the watchdog: a piece of work has ended, well or not."""
        if time.monotonic() - self._fed_s >= _DOG_S:
            self._fed_s = time.monotonic()
            systemd.say("READY=1\nWATCHDOG=1")

    def complete(self, market_ms: int) -> None:
        """All that was due is done: write the heartbeat, and call the switch once a minute."""
        now_s = time.monotonic()
        if now_s - self._beat_s >= _FILE_S:
            self._beat_s = now_s
            _write_beat(self._path, market_ms=market_ms)
        if market_ms // MINUTE_MS > self._minute_ms and now_s - self._pinged_s >= _PING_S:
            self._minute_ms, self._pinged_s = market_ms // MINUTE_MS, now_s
            self._ping()

    def stopping(self) -> None:
        """Tell systemd that the end is wanted."""
        systemd.say("STOPPING=1")

    def _ping(self) -> None:
        """Call the dead man's switch beside the loop; while one call lasts there is no other."""
        if self._app.config.notify.deadman_url and self._pinging.acquire(blocking=False):
            threading.Thread(target=self._call, name="sign of life", daemon=True).start()

    def _call(self) -> None:
        try:
            sign_of_life(self._app.config)
        finally:
            self._pinging.release()


def heartbeat_path(app: App) -> Path:
    """Return where the heartbeat lies."""
    return app.root / app.config.app.data_dir / "heartbeat"


def _write_beat(path: Path, *, market_ms: int) -> None:
    """Replace the heartbeat whole; a full disk is told of by what needs the disk more."""
    beat = {"wall_ms": wall_ms(), "market_ms": market_ms, "pid": os.getpid()}
    partial = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(beat))
        partial.replace(path)
    except OSError as error:
        log.warning("no heartbeat: %s", error)
