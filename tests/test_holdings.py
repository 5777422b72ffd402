"""`db_inspect.py` reads maintained counts only, touches nothing, and says what ails a bad file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import numpy as np
import pytest

from core import schema
from core.errors import StoreError
from core.jobs import holdings
from core.store import Database, open_database, operation
from core.store import candles as store
from core.store import gaps as gap_store
from core.store.db import open_current
from core.timeframe import MINUTE_MS
from tests.commands import answer, run, said
from tests.store_world import BASE, TRUTH
from tests.worlds import MONDAY_MS, picked

AT = [MONDAY_MS + m * MINUTE_MS for m in range(600)]
FIVE = BASE._replace(timeframe="5m")
CONFIG = "{app: {db_path: a.db}}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Settings and a database with one of everything an inspection shows."""
    (tmp_path / "config.yaml").write_text(CONFIG, encoding="utf-8")
    with open_database(tmp_path / "a.db") as db:
        fill(db)
    return tmp_path


@pytest.fixture
def db(folder: Path) -> Iterator[Database]:
    """That database, for reading."""
    with open_current(folder / "a.db") as database:
        yield database


def fill(db: Database) -> None:
    """480 minutes without 9 of them, half of them imported, two bars revised, and the rest."""
    kept = np.ones(480, np.bool_)
    kept[[10, 11, 12, 50, 100, 101, 102, 103, 104]] = False
    truth = picked(TRUTH, kept)
    store.upsert_candles(db, BASE, truth)
    truth.close[:2] += 1.0
    store.upsert_candles(db, BASE, truth[:2])
    for state, low, high in (("missing", 10, 13), ("unknown", 50, 51), ("no_trades", 100, 105)):
        gap_store.record_gaps(db, BASE, [(AT[low], AT[high])], state=state, now_ms=AT[480])
    db.run("UPDATE gaps SET next_ms = ? WHERE state = 'unknown'", (AT[500],))
    store.resample_series(db, BASE, "5m", until_ms=AT[480])
    store.record_source(
        db, BASE, kind="import", name="half", n_rows=235, first_ms=AT[0], last_ms=AT[235]
    )
    db.run(
        "INSERT INTO seams VALUES (?, ?, ?, ?, 'binance', 'x', 0.04, 12, 0.1, 0.5)",
        (*BASE, AT[236]),
    )
    db.run_many("INSERT INTO funding VALUES ('x', 'A/USDT', ?, 0.0001)", [(AT[i],) for i in (0, 8)])
    db.run("INSERT INTO open_interest VALUES ('x', 'A/USDT', ?, 7.0)", (AT[3],))
    operation.write_clock(db, market_ms=AT[483] + 5_000, wall_ms=1, speed=1.0)


def test_everything_is_counted_as_by_hand(db: Database) -> None:
    """Rows, holes in bars, revisions, age, sources with their share, seams and ranges."""
    found = holdings.inspect(db)
    minute, five = found["series"]
    assert minute == {
        **BASE._asdict(),
        "rows": 471,
        "first_ms": AT[0],
        "last_ms": AT[479],
        "age_min": 3,
        "missing": 3,
        "unknown": 1,
        "no_trades": 5,
        "revised": 2,
    }
    # absent: 10 for its missing minutes, 50 for the unknown one, 100 for want of any trade
    assert (five["timeframe"], five["rows"], five["age_min"]) == ("5m", 93, 3)
    (source,) = found["sources"]
    assert (source["name"], source["rows"], source["share"]) == ("half", 235, 0.4989)
    (seam,) = found["seams"]
    assert (seam["at_ms"], seam["before"], seam["basis_pct"]) == (AT[236], "binance", 0.04)
    funding, interest = found["funding"][0], found["open_interest"][0]
    assert (funding["rows"], funding["first_ms"], funding["last_ms"]) == (2, AT[0], AT[8])
    assert (interest["rows"], interest["first_ms"], interest["last_ms"]) == (1, AT[3], AT[3])
    assert found["market_ms"] == AT[483] + 5_000


def test_holes_are_listed_one_by_one(db: Database) -> None:
    """Start, end, length, state, reads and next try; another symbol's are left out."""
    rows = holdings.holes(db)
    listed = [(r["start_ms"], r["end_ms"], r["minutes"], r["state"], r["next_ms"]) for r in rows]
    assert listed == [
        (AT[10], AT[13], 3, "missing", 0),
        (AT[50], AT[51], 1, "unknown", AT[500]),
        (AT[100], AT[105], 5, "no_trades", 0),
    ]
    assert [row["reads"] for row in rows] == [1, 1, 1]
    assert holdings.holes(db, "A/USDT") == rows
    assert holdings.holes(db, "B/USDT") == []


def test_no_candle_is_read_for_it(db: Database) -> None:
    """With SQLite refusing any access to `ohlcv` it answers all the same."""

    def refuse(_: int, table: str | None, *__: str | None) -> int:
        return apsw.SQLITE_DENY if table == "ohlcv" else apsw.SQLITE_OK

    db._connection.authorizer = refuse
    with pytest.raises(apsw.AuthError):
        db.value("SELECT count(*) FROM ohlcv")
    assert holdings.inspect(db)["series"][0]["rows"] == 471


def test_an_empty_database_is_shown_as_empty(tmp_path: Path) -> None:
    """No series, no clock: nothing is divided by and nothing is missing."""
    open_database(tmp_path / "a.db").close()
    with open_current(tmp_path / "a.db") as db:
        found = holdings.inspect(db)
        assert found["market_ms"] is None
        assert found["series"] == found["jobs"] == holdings.holes(db) == []


def test_the_command_shows_it_and_leaves_the_wal_alone(folder: Path) -> None:
    """Beside a WAL that a script left for the scheduler: the counts, and not one byte moved."""
    with open_database(folder / "a.db", checkpointer=False) as db:
        store.upsert_candles(db, BASE._replace(symbol="B/USDT"), TRUTH)
    files = [folder / "a.db", folder / "a.db-wal"]
    before = [path.read_bytes() for path in files]
    assert len(before[1]) > 0
    config = folder / "config.yaml"
    found = answer("db_inspect.py", config=config)
    assert [row["rows"] for row in found["series"]] == [471, 93, 480]
    assert answer("db_inspect.py", "--holes", "B/USDT", config=config) == []
    text = run("db_inspect.py", "--holes", config=config).stdout
    assert "2024-01-01 00:10" in text
    assert "2024-01-01 08:20" in text  # the next try
    assert [path.read_bytes() for path in files] == before


def test_files_that_cannot_be_inspected_are_one_line_with_the_remedy(folder: Path) -> None:
    """A text, a damaged file, an older and a newer schema; an unknown symbol is exit 2."""
    config, path = folder / "config.yaml", folder / "a.db"
    line = said(run("db_inspect.py", "--holes", "Z/USDT", config=config), 2)
    assert "'Z/USDT'" in line
    assert "A/USDT" in line
    whole = path.read_bytes()
    for version, remedy in ((0, "init_db.py"), (schema.VERSION + 1, "update")):
        with open_database(path) as db:
            db.run(f"PRAGMA user_version = {version}")
        with pytest.raises(StoreError, match=remedy):
            open_current(path)
        path.write_bytes(whole)
    path.write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))
    with pytest.raises(StoreError, match="damaged"), open_current(path) as db:
        holdings.inspect(db)
    path.write_text("hello " * 999, encoding="utf-8")
    line = said(run("db_inspect.py", config=config), 1)
    assert "not a SQLite database" in line
    assert "restore a backup" in line
