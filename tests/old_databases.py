"""Databases as the programs of earlier schemas left them: their tables, and rows of a real engine.

A database of today is lived in, rows are put into the tables it left empty, and all of it is handed
back to a database of the older schema, column by column as far as that one has them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from core import schema
from core.app import App
from core.schema import MIGRATIONS, VERSION
from tests.engine_world import opened
from tests.replay_world import ReplayWorld, market, prepared, replayed, without_minutes
from tests.test_kills import TALKATIVE

LIVED_MS = 3 * 3_600_000
OLD_FEATURES = 34  # of schemas 1 and 2, features version 1

# Schema 3 grew during three days without a new number. What its first databases had otherwise:
FIRST_SEAMS = """
CREATE TABLE seams (            -- where a series goes over from one source to another
  exchange TEXT NOT NULL, symbol TEXT NOT NULL, timeframe TEXT NOT NULL,
  at_ms INTEGER NOT NULL,                     -- open of the first bar of the later source
  before TEXT NOT NULL, after TEXT NOT NULL,  -- exchanges; '' is a file that does not say
  is_market INTEGER NOT NULL,                 -- 1: another market's prices; no setup spans it
  basis_pct REAL,                             -- step of the price across it, after against before
  n_compared INTEGER NOT NULL,                -- bars both sources had; 0: last close against open
  tick_before REAL, tick_after REAL,          -- finest price step on either side
  PRIMARY KEY (exchange, symbol, timeframe, at_ms)
) WITHOUT ROWID
"""
_AFTERWARDS = (
    "ALTER TABLE series DROP COLUMN redo_from_ms",
    "ALTER TABLE series DROP COLUMN redo_to_ms",
)
_MUCH_LATER = ("DROP TABLE funding_reads", "DROP TABLE market_changes", "DROP VIEW basis")
UNDONE: Mapping[str, Sequence[str]] = {
    "3, its first day": ("DROP TABLE seams", FIRST_SEAMS, *_AFTERWARDS, *_MUCH_LATER),
    "3, its second day": ("DROP TABLE seams", FIRST_SEAMS, *_AFTERWARDS),
    "3, its third day": ("DROP TABLE seams", FIRST_SEAMS),
}
KINDS = (*(str(version) for version in range(1, VERSION)), *UNDONE)


def version_of(kind: str) -> int:
    """The number that a kind of database says of itself."""
    return int(kind.partition(",")[0])


def lived_in(folder: Path) -> ReplayWorld:
    """A world of today whose database has seen three hours live, with rows in every table."""
    truth = dict(market(2, 16, 5))
    hole_ms = int(truth["BTC/USDT:USDT"].ts_ms[-1]) - 3 * 3_600_000
    truth["BTC/USDT:USDT"] = without_minutes(truth["BTC/USDT:USDT"], hole_ms, 13)
    world = prepared(folder, truth, replay_days=4 / 24, **TALKATIVE)
    app = opened(folder / "config.yaml")
    replayed(app, world.split_ms + LIVED_MS)
    with app.db.write():
        _fill(app)
    app.close()
    return world


def _fill(app: App) -> None:
    """Put rows into what three hours leave empty, and a record under older settings."""
    db, strategy = app.db, app.strategy
    settings = json.loads(db.value("SELECT settings FROM strategies"))
    settings["execution"]["trail_atr_mult"] = 3.0
    db.run("INSERT INTO strategies VALUES ('000old', ?, 1)", (json.dumps(settings),))
    names = [row[1] for row in db.rows("PRAGMA table_info(signals)") if row[1] != "id"]
    columns = ", ".join(names)
    theirs = ", ".join("'000old'" if name == "strategy_id" else name for name in names)
    newest = "SELECT id FROM signals WHERE status IN ('PENDING', 'OPEN') ORDER BY id DESC LIMIT 6"
    copied = f"INSERT INTO signals ({columns}) SELECT {theirs} FROM signals WHERE id IN ({newest})"
    n = db.run(copied)
    assert n == 6
    db.run(
        "INSERT INTO features SELECT s.id, f.version, f.vector FROM signals s JOIN signals o"
        " USING (exchange, symbol, timeframe, setup, direction, p0_ms, p1_ms)"
        " JOIN features f ON f.signal_id = o.id"
        " WHERE s.strategy_id = '000old' AND o.strategy_id <> '000old'"
    )
    db.run(
        "INSERT INTO outbox (dedupe_key, channel, kind, signal_id, text, created_ms)"
        " SELECT 'old ' || id, 'console', 'new_signal', id, 'told', decided_ms FROM signals"
        " WHERE strategy_id = '000old'"
    )
    first = db.value("SELECT min(id) FROM outbox")
    for i, state in enumerate(("pending", "sending", "ambiguous", "dead", "sent")):
        db.run("UPDATE outbox SET state = ? WHERE id = ?", (state, first + i))
    db.run("UPDATE outbox SET attempts = 1, sent_wall_ms = created_ms WHERE state = 'sent'")
    for table, rows in _ROWS.items():
        for row in rows:
            values = [strategy if value == "STRATEGY" else value for value in row]
            marks = ", ".join("?" * len(values))
            db.run(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", values)


def slimmed(source: Path, target: Path) -> Path:
    """A copy that keeps every table but few candles: small enough to be killed at every turn."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    db = _unsafe(target)
    db.execute("DELETE FROM ohlcv WHERE key % 97 <> 0")
    db.execute("DELETE FROM job_runs WHERE id % 97 <> 0")
    for table, column in (("features", "signal_id"), ("signals", "id")):
        db.execute(f"DELETE FROM {table} WHERE {column} % 20 <> 1 AND {column} <= 1400")
    db.execute("VACUUM")
    db.close()
    return target


_LONG_AGO_MS = 1_680_000_000_000  # before the first candle: no decision is touched
_BTC = ("replay", "BTC/USDT:USDT")
_ROWS: dict[str, list[tuple[Any, ...]]] = {
    "funding": [(*_BTC, _LONG_AGO_MS + i * 28_800_000, 0.0001 * i) for i in range(5)],
    "open_interest": [(*_BTC, _LONG_AGO_MS, 12_345.5)],
    "funding_reads": [(*_BTC, 0, _LONG_AGO_MS)],
    "market_changes": [(*_BTC, _LONG_AGO_MS, '{"tick": 0.1}')],
    "seams": [("replay", "ETH/USDT:USDT", "1m", _LONG_AGO_MS, "binance", "", 0.02, 60, 0.1, 0.01)],
    "skipped_bars": [("replay", "BTC/USDT:USDT", "5m", 1_704_067_200_000, "000old")],
    "bundles": [
        ("b1", "STRATEGY", None, "retired", "", 1_704_200_000_000, 1_704_200_000_001, 7, "{}"),
        ("b2", "STRATEGY", "b1", "draft", "too little", 1_704_300_000_000, None, 8, '{"n": 3}'),
    ],
    "scores": [(1, "b1", 1_704_100_000_000, 0.4, 0.41, 0.1, -0.2, 0.05, -0.1)],
    "trials": [(1, "b1", '{"depth": 3}', '{"log_loss": 0.69}', 1_704_200_000_000)],
    "tunings": [(1, "b1", "*/*", "ev", None, 12, 9.5, 0, "{}", 1_704_200_000_000)],
    "promotions": [(1, 1_704_200_000_001, "STRATEGY", "b1", "first")],
    "states": [(1, 1_704_200_000_001, "STRATEGY", "b1", "UNCERTIFIED", "too few", "{}")],
    "monitor_figures": [("STRATEGY", "b1", 1_704_200_000_001, "{}")],
    "pauses": [(1, 1_704_100_000_000, 1_704_100_600_000)],
    "commands": [(991, "/status", 1_704_100_000_000)],
    "episodes": [(1, "sync_ohlcv", "ExchangeUnavailable", 5, 6, 2, "down", 1, 7)],
    "labels": [("banner", "GENERATED")],
    "bootstrap": [("1 backfill", "done", 9, 9, None, "", 8)],
}


def handed_back(source: Path, target: Path, kind: str, *, today: bool = False) -> Path:
    """Make a database of an older kind and give it what it can hold of a source's rows.

    `today` makes one of the present schema with the same rows: what migrating must come to.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    version = version_of(kind)
    old = _unsafe(target)
    for step in MIGRATIONS[:version]:
        _apply(old, step)
    for statement in UNDONE.get(kind, ()):
        old.execute(statement)
    held = {table: _columns(old, table) for table in _tables(old)}
    if today:
        old.close()
        target.unlink()
        old = _unsafe(target)
        schema.migrate(old.execute, version=0)
    old.execute("ATTACH ? AS source", (str(source),))
    old.execute("BEGIN")
    for table, columns in held.items():
        _give(old, table, columns, is_market=not today)
    if version < 3:
        cut = "version = 1, vector = substr(vector, 1, ?)"
        old.execute(f"UPDATE features SET {cut}", (8 * OLD_FEATURES,))
    old.execute("COMMIT")
    old.execute("DETACH source")
    old.execute(f"PRAGMA user_version = {VERSION if today else version}")
    old.close()
    return target


def _unsafe(path: Path) -> apsw.Connection:
    """A new database that does not wait for the disk."""
    made = apsw.Connection(str(path))
    made.execute("PRAGMA journal_mode = MEMORY").fetchall()
    made.execute("PRAGMA synchronous = OFF")
    return made


def _apply(old: apsw.Connection, step: schema.Step) -> None:
    old.execute(step.sql)
    for table, name, kind in step.columns:
        if name not in _columns(old, table):
            old.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")


def _give(old: apsw.Connection, table: str, columns: Sequence[str], *, is_market: bool) -> None:
    names = [name for name in columns if name != "is_market"]
    into, values = ", ".join(names), ", ".join(names)
    if "is_market" in columns and is_market:
        into, values = f"{into}, is_market", f"{values}, 1"
    old.execute(f"INSERT INTO main.{table} ({into}) SELECT {values} FROM source.{table}")


def _tables(db: apsw.Connection) -> list[str]:
    found = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    return [name for (name,) in found if not name.startswith("sqlite_")]


def _columns(db: apsw.Connection, table: str) -> list[str]:
    return [row[1] for row in db.execute(f"PRAGMA table_info({table})")]


def contents(path: Path) -> dict[str, Any]:
    """Every row of every table, with the type of each value, and the schema without comments."""
    db = apsw.Connection(str(path))
    found: dict[str, Any] = {}
    for table in _tables(db):
        columns = _columns(db, table)
        typed = ", ".join(f"typeof({name}), {name}" for name in columns)
        order = ", ".join(str(2 * i + 2) for i in range(len(columns)))
        found[table] = columns, list(db.execute(f"SELECT {typed} FROM {table} ORDER BY {order}"))
    found["schema"] = sorted(
        (kind, name, table, bare(sql or ""))
        for kind, name, table, sql in db.execute(
            "SELECT type, name, tbl_name, sql FROM sqlite_schema"
        )
    )
    found["version"] = db.execute("PRAGMA user_version").fetchall()
    found["integrity"] = db.execute("PRAGMA integrity_check").fetchall()
    db.close()
    return found


def bare(sql: str) -> str:
    """The text of a statement without its comments and the spaces between its words."""
    return " ".join(" ".join(line.partition("--")[0] for line in sql.splitlines()).split())


@contextmanager
def each_statement(before: Any) -> Iterator[None]:
    """Call `before(sql)` ahead of every statement of every connection opened meanwhile."""

    def hook(connection: apsw.Connection) -> None:
        def trace(_: Any, sql: str, __: Any) -> bool:
            before(sql)
            return True

        connection.exec_trace = trace

    apsw.connection_hooks.append(hook)
    try:
        yield
    finally:
        apsw.connection_hooks.remove(hook)


def copy_of(path: Path, folder: Path) -> Path:
    """A fresh copy of a closed database in a folder of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return Path(shutil.copy(path, folder / "ohlcv.db"))
