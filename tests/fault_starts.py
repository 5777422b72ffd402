"""What jobs begin with, and what comes of them: prepared folders, tables and files compared."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import apsw

from core import candle_files, schema
from core.config_edit import with_values
from core.domain import Series
from core.jobs import (
    pack,
)
from core.notify import REPEAT
from core.store import open_reader
from core.store.candles import upsert_candles
from core.store.db import open_current
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from tests import candidate_world
from tests.engine_world import part, table, write_config
from tests.fault_stage import (
    BTC,
    ETH,
    LEARN_MS,
    N_CANDIDATES,
    SETTINGS,
    SPLIT_MS,
    Stage,
    truth_of,
)
from tests.fault_world import (
    another,
    import_all,
    live,
    make_copies,
    promote,
    scan_past,
    tune,
    weekly_step,
)
from tests.tiny_database import flat_bars
from tests.worlds import MONDAY_MS


def write_files(folder: Path) -> None:
    """Candle files of the past: a hole, a few bars that will be revised, and another origin."""
    truth = truth_of()
    btc, eth = (part(truth[name], 0, SPLIT_MS) for name in (BTC, ETH))
    hole_ms = MONDAY_MS + 6 * HOUR_MS
    early, late = part(btc, 0, hole_ms), part(btc, hole_ms + HOUR_MS, SPLIT_MS)
    name = candle_files.name_of(BTC, "1m")
    candle_files.write(folder / "history" / name, early)
    candle_files.write(folder / "history" / "late" / name.replace(".", "-2024."), late)
    eth.volume[-3:] *= 2
    seam_ms = SPLIT_MS - 2 * DAY_MS
    here, there = part(eth, seam_ms, SPLIT_MS), part(eth, 0, seam_ms)
    candle_files.write(folder / "history" / candle_files.name_of(ETH, "1m"), here)
    candle_files.write(folder / "other" / candle_files.name_of(ETH, "1m", year=2024), there)


def write_old(folder: Path) -> None:
    """A database of the first schema."""
    write_config(folder, **SETTINGS)
    with closing(apsw.Connection(str(folder / "ohlcv.db"))) as db:
        db.execute(schema.MIGRATIONS[0].sql)
        db.execute("PRAGMA user_version = 1")


def write_candidates(folder: Path) -> None:
    """Closed candidates of which one feature knows more than the market."""
    made = candidate_world.world(folder, n=N_CANDIDATES, skill=3.0)
    newest = flat_bars(LEARN_MS - MINUTE_MS, 1, MINUTE_MS, "1m")
    upsert_candles(made.db, Series("bitget", "A/USDT", "1m"), newest)
    made.db.close()
    easy = {"models.meta.gating.use_ev": False, "models.meta.gating.target_winrate_pct": 40.0}
    made.config_path.write_text(with_values(made.config_path.read_text(), easy))


MADE_BY: dict[str, tuple[str, Callable[[Stage], object]]] = {
    "imported": ("files", import_all),
    "scanned": ("imported", scan_past),
    "lived": ("scanned", live),
    "copied": ("lived", make_copies),
    "trained": ("candidates", partial(weekly_step, step="train")),
    "calibrated": ("trained", partial(weekly_step, step="calibrate")),
    "tuned": ("calibrated", tune),
    "another": ("tuned", another),
    "promoted": ("another", promote),
}


@dataclass(frozen=True)
class Starts:
    """The folders jobs start from, each made when it is first asked for."""

    root: Path

    def of(self, name: str) -> Path:
        """Return a folder that is only to be copied."""
        folder = self.root / name
        if folder.exists():
            return folder
        if name in MADE_BY:
            before, act = MADE_BY[name]
            stage = self.copy(before, folder)
            act(stage)
            stage.app.db.checkpoint(truncate=True)
            stage.leave()
        elif name == "files":
            write_config(folder, **SETTINGS)
            write_files(folder)
        elif name == "old":
            write_old(folder)
        else:
            write_candidates(folder)
        return folder

    def copy(self, name: str, folder: Path) -> Stage:
        """Return a stage that starts like this."""
        shutil.copytree(self.of(name), folder)
        return Stage(folder)


# what may differ: when, how often and by whom it was tried
_LEFT_OUT: dict[str, tuple[str, ...]] = {
    "series": ("id",),
    "gaps": ("n_reads", "seen_ms", "next_ms"),
    "markets": ("updated_ms",),
    "funding_reads": ("from_ms", "to_ms"),
    "outbox": ("id", "attempts", "next_wall_ms", "lease_wall_ms", "last_error", "sent_wall_ms"),
}
_NOT_COMPARED = (
    *("ohlcv", "job_runs", "episodes", "sqlite_stat1", "sqlite_stat4"),
    "open_interest",  # there is no history of it: what was not read in its minute is not had
)
_OF_TROUBLE = {"failure", "recovered", "weekly_work"}  # what else is told where a job fails
_OF_NOW = ("answer", "weekly_summary")  # their texts tell of the wall clock and of failed runs
_NOW_MS = 1_750_000_000_000  # candles are older; a later instant is of the wall clock
_WALL = re.compile(r"1(7[5-9]|[89]\d)\d{10}")
_STAMP = re.compile(r"20\d{6}-\d{6}(-\d+)?")
_TABLES_OF = re.compile(r"(.*/)?ohlcv\.db(\.before-restore)?")
_ONCE_MORE = re.compile(r"(.*/)?ohlcv\.db\.before-restore-\d+")  # by a restore that was repeated
_DRAFT = re.compile(r"(.*/)?\.[^/]+\.\d+-[0-9a-f]{8}\.(tmp|old)(-journal|/.*)?")


def contents(stage: Stage) -> dict[str, Any]:
    """Tables as another process sees them, and files by name with what is in them.

    What is left of a draft is no file: the next start removes it.
    """
    found: dict[str, Any] = {}
    for path in sorted(p for p in stage.folder.rglob("*") if p.is_file()):
        name = path.relative_to(stage.folder).as_posix()
        passing = path.name.endswith(("-wal", "-shm", ".lock")) or _DRAFT.fullmatch(name)
        if passing or _ONCE_MORE.fullmatch(name):
            continue
        name = _STAMP.sub("when", name)
        if _TABLES_OF.fullmatch(name):
            found |= {f"{name} {t}": rows for t, rows in tables(path, stage.folder).items()}
        else:
            found[name] = _content(path)
    return found


def _content(path: Path) -> Any:
    if path.suffix == ".db":
        with open_reader(path) as db:
            return db.value("PRAGMA integrity_check")
    if path.name == "heartbeat":
        return sorted(json.loads(path.read_text()))
    if path.name == "all.pack":
        return sorted(pack.verified(path)["files"])
    if path.suffix == ".html":
        return "page" if path.read_text().rstrip().endswith("</html>") else "half a page"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tables(path: Path, folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """The tables of a database, without what depends on when and how often things were tried."""

    def plain(value: Any) -> Any:
        if isinstance(value, str):
            value = _WALL.sub("wall", value.replace(str(folder), "here"))
            return value.removeprefix(f"{REPEAT}\n")
        return "wall" if isinstance(value, int) and value >= _NOW_MS else value

    with open_current(path) as db:
        names = [n for (n,) in db.rows("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        found = {
            name: [tuple(map(plain, r)) for r in table(db, name, without=_LEFT_OUT.get(name, ()))]
            for name in (*names, "candles")
            if name not in _NOT_COMPARED
        }
    told = [row for row in found["outbox"] if not set(row) & _OF_TROUBLE]
    found["outbox"] = [row[:4] if row[2] in _OF_NOW else row for row in told]
    return found
