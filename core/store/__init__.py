"""The one SQLite file: the connection's rules here, each subject's statements in its module."""

from core.store.db import Database, open_database, open_reader

__all__ = ["Database", "open_database", "open_reader"]
