"""A short-lived read-only connection whose every failure is one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw

from core.config import Config
from core.config_file import load_config
from core.errors import StoreError
from core.store import Database, open_reader

BUSY_MS = 1500  # a page would rather say "locked" than stand still

LOCKED = "is locked by another process;"
DAMAGED = "is damaged;"
FOREIGN = "is not a database of this program;"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the owner's database is, and the zone his times are shown in."""

    config: Config
    db_path: Path
    zone: str


def place(config_path: Path) -> Place:
    """Return what a config file says of the database; paths are relative to the file.

    Raises ConfigError.
    """
    config = load_config(config_path)
    db_path = (config_path.parent / config.app.db_path).resolve()
    return Place(config=config, db_path=db_path, zone=config.app.timezone)


@contextmanager
def reading(path: Path) -> Iterator[Database]:
    """Open the database for one question and close it again.

    Raises StoreError with the remedy when it is missing, foreign, locked, damaged or older than
    the program.
    """
    try:
        with open_reader(path) as db:
            db.rows(f"PRAGMA busy_timeout = {BUSY_MS}")
            db.rows("BEGIN")  # all queries of a question see one state of the tables
            yield db
    except apsw.BusyError as error:
        raise StoreError(f"{path} {LOCKED}", remedy="wait for it or stop it") from error
    except apsw.NotADBError as error:
        raise StoreError(f"{path} {FOREIGN}", remedy="move it away or restore a backup") from error
    except apsw.CorruptError as error:
        raise StoreError(
            f"{path} {DAMAGED}", remedy="run: python maintenance.py restore"
        ) from error
    except apsw.SQLError as error:
        raise StoreError(
            f"{path} has not the tables of this program ({error});", remedy="run: python init_db.py"
        ) from error
    except apsw.Error as error:
        raise StoreError(f"cannot read {path} ({error});", remedy="look at its disk") from error
