"""What a command works with: settings, database, lock and, when asked for, the exchange."""

from __future__ import annotations

import logging
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, RLock
from typing import TYPE_CHECKING

from core import drafts
from core.config import Config, strategy_id
from core.config_file import load_config
from core.errors import StoreError
from core.schema import VERSION
from core.store import operation
from core.store.copies import Kept, kept_as_it_is
from core.store.db import Database, WriterLock, open_database

if TYPE_CHECKING:
    from core.clock import Clock
    from core.exchange import Exchange

log = logging.getLogger("trader")


def wall_ms() -> int:
    """Return the machine's own time, UTC ms; for leases, heartbeats and run times only."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class App:
    """One command's world. `holds_lock` says whether it may move the WAL."""

    config: Config
    config_path: Path
    config_text: str
    db: Database
    lock_file: WriterLock
    holds_lock: bool
    busy: RLock = field(default_factory=RLock)
    looking: Lock = field(default_factory=Lock)
    kept: Kept | None = None  # the copy that was made because opening migrated the database
    muted: bool = False  # a copied database: everything is recorded, nothing is sent
    _market: tuple[Exchange, Clock] | None = None
    _strategy: tuple[Config, str] | None = None

    @property
    def is_file_in_force(self) -> bool:
        """Whether config.yaml is what we work with; else an edit waits, or was refused."""
        try:
            text = self.config_path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return False
        return text == self.config_text.replace("\r\n", "\n")

    @property
    def root(self) -> Path:
        """The folder that relative paths in the configuration start from."""
        return self.config_path.parent

    @property
    def models_dir(self) -> Path:
        """Where bundles live: the folder of the exported model."""
        return (self.root / self.config.models.meta.model_path).parent

    @property
    def strategy(self) -> str:
        """The present strategy_id."""
        if self._strategy is None or self._strategy[0] is not self.config:
            self._strategy = (self.config, strategy_id(self.config))
        return self._strategy[1]

    def market(self) -> tuple[Exchange, Clock]:
        """Return the exchange and the market's clock, connecting at the first call."""
        if self._market is None:
            from core.exchange import connect

            row = operation.clock_row(self.db)
            self._market = connect(self.config_here(), resume_ms=row[0] if row else None)
        return self._market

    def use_market(self, exchange: Exchange, clock: Clock) -> None:
        """Work on a market that another app has connected to."""
        self._market = exchange, clock

    def config_here(self) -> Config:
        """Return the settings with the replay folder as an absolute path."""
        replay = self.config.exchange.replay
        there = replay.model_copy(update={"path": str(self.root / replay.path)})
        exchange = self.config.exchange.model_copy(update={"replay": there})
        return self.config.model_copy(update={"exchange": exchange})

    def reload_config(self) -> None:
        """Read the configuration again, after the tuner wrote its block."""
        self.config = load_config(self.config_path)
        self.config_text = self.config_path.read_text(encoding="utf-8")

    def close(self) -> None:
        """Release everything."""
        if self._market is not None:
            self._market[0].close()
        if self.holds_lock:
            self.db.rows("PRAGMA busy_timeout = 500")  # a reader may keep the WAL: the next start
            self.db.checkpoint(truncate=True)
        self.db.close()
        self.lock_file.release()


def settle_home(app: App, *, take_over: bool) -> bool:
    """Say whether this database lives here; one copied from elsewhere starts muted.

    Two copies that both send would tell the owner everything twice. `take_over` makes this
    place its home. To be called by the holder of the writer lock at its start: whoever was sending
    is gone, and a channel that was closed may have been mended.
    """
    operation.end_leases(app.db)
    operation.wake_channels(app.db)
    tick = operation.clock_row(app.db)
    if tick is not None and tick[1] > wall_ms():
        operation.void_waits(app.db, wall_ms=wall_ms())
    here = f"{platform.node()}:{app.db.path.resolve()}"
    known = operation.label_of(app.db, "home")
    if take_over or not known:
        with app.db.write():
            operation.set_label(app.db, "home", here)
        known = here
    app.muted = known != here
    return not app.muted


def database_path(config: Config, root: Path) -> Path:
    """Return where the database of a configuration lies."""
    return root / config.app.db_path


def keep_copy(db: Database, config: Config, root: Path) -> Kept:
    """Keep a proven copy of the database as it is among the backups."""
    folder, keep = root / config.backup.dir, config.backup.keep
    return kept_as_it_is(db, folder, keep=keep, now_wall_ms=wall_ms())


def open_app(config_path: Path) -> App:
    """Read the settings, open (or create, or migrate) the database and try for the writer lock.

    A database of an older schema is copied first, and left alone where another process keeps it.
    """
    config = load_config(config_path)
    path = database_path(config, config_path.parent)
    lock = WriterLock(path.with_name(path.name + ".lock"))
    holds = lock.acquire()
    kept: list[Kept] = []

    def keep(db: Database, version: int) -> None:
        if not holds:
            raise StoreError(
                f"{path} has schema {version}, and another process (pid {lock.holder()}) keeps it;",
                remedy="stop that, then run: make upgrade",
            )
        kept.append(keep_copy(db, config, config_path.parent))
        log.warning("schema %d becomes %d; a copy as it was: %s", version, VERSION, kept[0].path)

    try:
        app = App(
            config=config,
            config_path=config_path,
            config_text=config_path.read_text(encoding="utf-8"),
            db=open_database(path, checkpointer=holds, before_migration=keep),
            lock_file=lock,
            holds_lock=holds,
            kept=kept[0] if kept else None,
        )
        if holds:
            sweep_up(app)
    except BaseException:
        lock.release()
        raise
    return app


def sweep_up(app: App) -> None:
    """Remove what killed processes left half done where the engine writes files of its own."""
    named = ("reports", app.config.app.data_dir, app.config.backup.dir)
    folders = [app.root / name for name in named]
    for path in drafts.sweep([app.root, app.db.path.parent, app.models_dir, *folders]):
        log.info("%s was left half done by a process that ended; it is removed", path)
