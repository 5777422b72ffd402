"""Edits of config.yaml while the engine runs: taken between two ticks, or refused; told once."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from core import notices
from core.app import App, wall_ms
from core.config import Config
from core.config_changes import Followed, changes, needs_restart, only_thresholds
from core.config_file import parse_config
from core.errors import ConfigError
from core.jobs.episodes import tell
from core.jobs.tell import TOLD
from core.notify import RedactSecrets, redact
from core.store import signals as signal_store

log = logging.getLogger("trader.edits")


class Edits:
    """Knows the file as it was last looked at; the settings in force are the app's."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._looked_at = _stamp(app.config_path)
        self._refused = ""  # the digest of what was refused: nobody is told twice
        self._bad = ""  # … and of what is wrong so far: an editor may not have finished

    def look(self) -> None:
        """Take an edit in, if there is one. To be called between two ticks."""
        stamp = _stamp(self._app.config_path)
        if stamp == self._looked_at and not self._bad:
            return
        try:
            raw = self._app.config_path.read_bytes()
        except OSError:
            raw = b""
        digest = hashlib.sha256(raw).hexdigest()
        with self._app.busy:
            if raw == self._app.config_text.encode():
                self._bad = self._refused = ""
            elif digest != self._refused:
                self._weigh(raw, digest)
        self._looked_at = stamp

    def _weigh(self, raw: bytes, digest: str) -> None:
        app = self._app
        try:
            new = parse_config(raw.decode("utf-8"), name=app.config_path.name)
            if fixed := needs_restart(app.config, new):
                raise ConfigError(f"{fixed[0]} cannot change while it runs: restart needed")
        except (ConfigError, UnicodeDecodeError) as error:
            if digest != self._bad:
                self._bad = digest  # said at the next look, if it is still so
                return
            said = redact(str(error), app.config)
            log.error("the edit of %s is refused: %s", app.config_path.name, said)
            tell(app, "config", f"config:{wall_ms()}", notices.settings_refused(said))
            self._bad, self._refused = "", digest
            return
        self._take(new, raw.decode("utf-8"))
        self._bad = self._refused = ""

    def _take(self, new: Config, text: str) -> None:
        app, old = self._app, self._app.config
        for handler in logging.getLogger().handlers:
            handler.addFilter(RedactSecrets.of(new))
        lines, before = changes(old, new, followed=_followed(app)), app.config_text
        app.config, app.config_text = new, text
        for line in lines:
            log.info("settings: %s", line)
        if lines and not only_thresholds(old, new):
            try:
                tell(app, "config", f"config:{wall_ms()}", notices.settings_changed(lines))
            except BaseException:  # taken at the next look, when it can be told
                app.config, app.config_text = old, before
                raise


def _followed(app: App) -> list[Followed]:
    """Return the signals that have not ended."""
    rows = signal_store.followed(app.db, exchange=app.config.exchange.id)
    return [
        Followed(
            row["symbol"],
            row["timeframe"],
            told=row["delivery"] in TOLD and row["origin"] == "live",
        )
        for row in rows
    ]


def _stamp(path: Path) -> tuple[int, int, int]:
    """Return what changes whenever the file does; zeros where it is gone."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0, 0
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
