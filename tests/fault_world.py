"""Every job of the engine on worlds as small as can be, each from a folder prepared for it."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import shutil
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import apsw

from core import candle_files, report, schema
from core.app import App, settle_home, wall_ms
from core.config_edit import with_values
from core.domain import Candles, FundingRate, Series, no_progress
from core.jobs import (
    bootstrap,
    commands,
    edits,
    export,
    files,
    learning,
    life,
    maintain,
    market_stats,
    monitor,
    pack,
    promotion,
    retro,
    run,
    scheduler,
    setup,
    silence,
    summary,
    sync,
    tell,
    tools,
)
from core.ml.folder import read_pointer
from core.notify import REPEAT, ConsoleSink, Update
from core.store import models as model_store
from core.store import open_reader, operation
from core.store.candles import upsert_candles
from core.store.db import open_current
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from tests import candidate_world
from tests.engine_world import FakeExchange, HandClock, opened, part, table, write_config
from tests.replay_world import market
from tests.tiny_database import flat_bars
from tests.worlds import MONDAY_MS

OFF = (
    "cooldown_minutes",
    "max_open",
    "max_open_per_side",
    "max_consecutive_stops",
    "max_drawdown_r",
)
SETTINGS: dict[str, Any] = {
    "symbols": ["BTC/USDT:USDT", "ETH/USDT:USDT"],
    "timeframes": ["5m", "15m"],
    "signals": {
        "lookback_candles": 60,
        "min_tp_net_pct": 0.1,
        "fibo": {"piv_window": 3, "min_impulse_atr": 2.0},
    },
    "notify": {"telegram": {"send": "all"}},
    "guards": dict.fromkeys(OFF, 0),
    "backfill": {"start_date": "2024-01-01"},
    "backup": {"enabled": True},
    "models": {"meta": {"gating": {"per_pair_tf": {}, "min_closed_samples": 50}}},
}
BTC, ETH = SETTINGS["symbols"]
MARKET = (2, 4, 2)  # symbols, days, seed: what is told on the last day soon comes to an end
AHEAD_MS = 150 * MINUTE_MS
N_CANDIDATES = 400
LEARN_MS = candidate_world.START_MS + N_CANDIDATES * candidate_world.STEP_MS + 40 * DAY_MS
WALL_MS = 1_800_000_000_000


class Failed(Exception):  # noqa: N818  (what a job has said, not what it raised)
    """A job that says in its own way that it could not be done."""


@dataclass
class Stage:
    """A folder in which a job is done, and what of it lives on between two tries."""

    folder: Path
    clock: HandClock = field(default_factory=HandClock)
    told: io.StringIO = field(default_factory=io.StringIO)
    held: App | None = None
    looker: edits.Edits | None = None
    letters: Letters | None = None
    written: list[str] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def app(self) -> App:
        """The engine, open until the stage is left."""
        if self.held is None:
            self.held = opened(self.config)
            self.held.use_market(Live(truth_of(), self.clock), self.clock)
        return self.held

    def leave(self) -> None:
        """Let go of the engine as the end of a process does."""
        if self.held is not None:
            self.held.db.close()
            self.held.lock_file.release()
            self.held = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is done on a stage, from which prepared folder; `run` may be called until it is done.

    `opens`: it opens the database itself, where another does not get it opened beforehand. `own`:
    begins the files whose sites are this job's; it takes long, and others are quicker to the rest.
    """

    name: str
    start: str
    run: Callable[[Stage], object]
    opens: bool = False
    own: tuple[str, ...] = ("core/",)


# --- candles, decisions, messages ----------------------------------------------------------------


def truth_of() -> dict[str, Candles]:
    """What the exchange has."""
    return {name: part(bars, 0, END_MS) for name, bars in market(*MARKET).items()}


SPLIT_MS = MONDAY_MS + (MARKET[1] - 1) * DAY_MS - 10 * MINUTE_MS
END_MS = SPLIT_MS + AHEAD_MS


class Live(FakeExchange):
    """The exchange of arrays; of BTC it shows three minutes an hour late, and it has funding."""

    def candles(self, symbol: str, timeframe: str, *, start_ms: int, end_ms: int) -> Candles:
        late = range(SPLIT_MS + 20 * MINUTE_MS, SPLIT_MS + 23 * MINUTE_MS, MINUTE_MS)
        is_hidden = self.clock.at_ms < SPLIT_MS + HOUR_MS
        self.hidden = {(BTC, ts_ms) for ts_ms in late} if is_hidden else set()
        return super().candles(symbol, timeframe, start_ms=start_ms, end_ms=end_ms)

    def funding(self, *_: object, **window: Any) -> list[FundingRate]:
        every, end_ms = 8 * HOUR_MS, min(window["end_ms"], self.clock.at_ms)
        first_ms = -(-window["start_ms"] // every) * every
        return [FundingRate(t, 1e-4) for t in range(first_ms, end_ms, every)]

    def open_interest(self, *_: object) -> float | None:
        return 5.0


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


def open_new(stage: Stage) -> None:
    """Make the database, take the place as home, and close."""
    stage.leave()
    settle_home(stage.app, take_over=False)
    app, stage.held = stage.app, None
    app.close()


def migrate(stage: Stage) -> None:
    """Bring a database of the first schema to the present one."""
    stage.leave()
    assert stage.app.db.value("PRAGMA user_version")


def import_all(stage: Stage) -> None:
    """Files of two exchanges."""
    files.import_files(stage.app, [stage.folder / "other"], origin="binance")
    files.import_files(stage.app, [stage.folder / "history"], origin="bitget")


def scan_past(stage: Stage) -> None:
    """All history at once."""
    retro.retro_scan(stage.app, start_ms=0, end_ms=SPLIT_MS, workers=1)


def live(stage: Stage) -> None:
    """Minute after minute, looked at every five; and what is told of them."""
    app, clock = stage.app, stage.clock
    sinks = {"console": ConsoleSink(stage.told)}
    errors = "SELECT max(id), detail FROM job_runs WHERE outcome = 'error' AND id > ?"
    newest = app.db.value("SELECT max(id) FROM job_runs") or 0
    for at_ms in range(SPLIT_MS + 5_000, END_MS, 5 * MINUTE_MS):
        if at_ms < clock.at_ms:
            continue
        clock.at_ms = at_ms
        run.run_due(app)
        number, detail = app.db.rows(errors, (newest,))[0]
        if number:
            raise Failed(detail)
        run.deliver_waiting(app, sinks)
    run.deliver_waiting(app, sinks)


def start_up(stage: Stage) -> None:
    """What a scheduler does once, before its first minute; and what it does when data stay out."""
    app, stage.clock.at_ms = stage.app, END_MS + HOUR_MS
    now_ms = stage.clock.at_ms
    settle_home(app, take_over=False)
    sync.refresh_markets(app, now_ms=now_ms, fresh=True)
    scheduler.settle_models(app, now_ms=now_ms)
    silence.came_back(app, now_ms=now_ms)
    silence.watch(app, now_ms=now_ms, is_complete=True)
    beat = life.heartbeat_path(app)
    life.Life(app).complete(now_ms)
    if not beat.exists():
        raise Failed("no heartbeat: the log says why")


def look_at_market(stage: Stage) -> None:
    """Funding, open interest and records."""
    stage.clock.at_ms = SPLIT_MS
    market_stats.refresh(stage.app, due_ms=SPLIT_MS)


def digest(stage: Stage) -> None:
    """The day in one message."""
    tell.queue_digest(stage.app, now_ms=END_MS)


class Letters:
    """An inbox with what an owner writes, and a stranger; what is not confirmed comes again."""

    def __init__(self) -> None:
        words = ["status", "pause", "signals", "signal 1", "why BTC", "performance", "resume"]
        self.waiting = [Update(i, f"/{word}", is_foreign=False) for i, word in enumerate(words, 1)]
        self.waiting.append(Update(99, "/pause", is_foreign=True))

    def updates(self, **_: object) -> list[Update]:
        return list(self.waiting)

    def confirm(self, update: Update) -> None:
        self.waiting.remove(update)


def answer(stage: Stage) -> None:
    """Every command once; if an answer says that it cannot be given, the owner asks anew."""
    letters = stage.letters = stage.letters or Letters()
    commands.poll_once(stage.app, letters, wait_s=0)  # type: ignore[arg-type]
    sorry = "FROM outbox WHERE text LIKE '%could not be answered%'"
    keys = [str(key) for (key,) in stage.app.db.rows(f"SELECT dedupe_key {sorry}")]
    if keys:
        numbers = [int(key.partition(":")[2]) for key in keys]
        for number in numbers:
            stage.app.db.run("DELETE FROM commands WHERE update_id = ?", (number,))
        stage.app.db.run(f"DELETE {sorry}")
        letters.waiting = [u for u in Letters().waiting if u.number in numbers] + letters.waiting
        raise Failed("a command could not be answered, and its answer says so")


def work_up(stage: Stage) -> None:
    """A new database, whose children are left out."""
    app, stage.clock.at_ms = stage.app, SPLIT_MS
    other = scheduler.beside(app)
    work = bootstrap.Bootstrap(app, other, stop=threading.Event(), turn=threading.Lock())
    try:
        with mock.patch.object(bootstrap, "run_child"):
            while work.look():
                pass
    finally:
        other.db.close()
    failed = [row for row in operation.bootstrap_steps(app.db) if row["state"] == "failed"]
    if failed:
        raise Failed(failed[0]["detail"])


# --- the owner's tools ---------------------------------------------------------------------------


def edit(stage: Stage) -> None:
    """A good edit while the engine runs, then one that is refused."""
    app = stage.app
    if stage.looker is None:
        stage.looker = edits.Edits(app)
    for values in ({"risk.equity_usd": 5000.0}, {"risk.equity_usd": -1.0}):
        text = with_values(app.config_text, values)
        if str(values) not in stage.written:
            app.config_path.write_text(text, encoding="utf-8")
            stage.written.append(str(values))
        for _ in range(2):
            stage.looker.look()


def upkeep(stage: Stage) -> None:
    """Checkpoint, backup, old runs, space, statistics."""
    app = stage.app
    newest = app.db.value("SELECT max(id) FROM job_runs")
    scheduler.upkeep(app)
    asked = "SELECT detail FROM job_runs WHERE id > ? AND outcome = 'error'"
    if said := app.db.value(asked, (newest,)):
        raise Failed(said)


def close_wal(stage: Stage) -> None:
    """The checkpoint by hand, and a vacuum that is wanted anyhow."""
    maintain.checkpoint(stage.app)
    maintain.vacuum(stage.app, force=True)


def make_copies(stage: Stage) -> None:
    """A backup, and all there is in one file."""
    maintain.backup(stage.app, now_wall_ms=wall_ms())
    pack.pack(stage.app, stage.folder / "out" / "all.pack", now_wall_ms=wall_ms())


def put_back(stage: Stage) -> None:
    """The backup in place of the database."""
    stage.leave()
    (source,) = (stage.folder / "data" / "backups").glob("*.db")
    maintain.restore(source, stage.folder / "ohlcv.db")


def unpack_anew(stage: Stage) -> None:
    """The packed engine into a folder of its own, then over itself."""
    stage.leave()
    (stage.folder / "new").mkdir(exist_ok=True)
    for root in (stage.folder / "new", stage.folder):
        source = stage.folder / "out" / "all.pack"
        pack.unpack(source, root, force=True, now_wall_ms=wall_ms())


def export_all(stage: Stage) -> None:
    """Candles into files, year by year and all in one."""
    for suffix in (".parquet", ".csv"):
        export.export_files(stage.app, stage.folder / "export", suffix=suffix)
    export.export_files(stage.app, stage.folder / "export", one_file=True)


def write_report(stage: Stage) -> None:
    """The report, its figures and its tables."""
    report.write_report(stage.app.db.path, stage.folder / "reports")


def summarise(stage: Stage) -> None:
    """The week's page and its message."""
    summary.summarise(stage.app, now_ms=END_MS)


def settle_first(stage: Stage) -> None:
    """The first settings."""
    stage.leave()
    wanted = setup.Wanted(pairs=[BTC], equity_usd=500.0, risk="normal", telegram=False)
    setup.Setup(stage.app, wanted, ask=None, say=lambda _: None).run()


# --- the model -----------------------------------------------------------------------------------


def weekly_step(stage: Stage, step: str, *, day: int = 0) -> Any:
    """A step as `maintenance.py` does it, some days after the candidates have matured."""
    app = stage.app
    args = argparse.Namespace(step=step, json=True)
    with mock.patch.object(tools, "data_now_ms", return_value=LEARN_MS + day * DAY_MS):
        done, _ = tools.run_tool(app, args, progress=no_progress)
    note = done.get("promotion", done).get("config_note")
    if note:
        raise Failed(note)
    return done


def tune(stage: Stage) -> None:
    """Limits, promotion, the tuner's block and the message.

    Once the pointer names the draft it is not repeated: the scheduler's start settles the rest.
    """
    if read_pointer(stage.app.models_dir) is None:
        weekly_step(stage, "tune")
    settle(stage, day=0, reason="no champion yet")


def settle(stage: Stage, *, day: int, reason: str) -> None:
    """Bring the tables and the settings in line with the pointer."""
    app = stage.app
    places = {"models_dir": app.models_dir, "config_path": app.config_path}
    now_ms = LEARN_MS + day * DAY_MS
    note = promotion.settle(app.db, app.config, **places, now_ms=now_ms, reason=reason)
    if note:
        raise Failed(note)
    app.reload_config()


def another(stage: Stage) -> str:
    """The next Sunday's bundle, calibrated."""
    weekly_step(stage, "train", day=7)
    return str(weekly_step(stage, "calibrate", day=7)["bundle"])


def promote(stage: Stage) -> None:
    """It becomes the current one."""
    app = stage.app
    (row,) = model_store.bundles(app.db, state="draft") or model_store.bundles(app.db)[:1]
    places: dict[str, Any] = {"models_dir": app.models_dir, "config_path": app.config_path}
    done = learning.promote(
        app.db, app.config, **places, bundle=row["id"], now_ms=LEARN_MS + 7 * DAY_MS
    )
    if done["config_note"]:
        raise Failed(done["config_note"])


def roll_back(stage: Stage) -> None:
    """Back to the one before; what was cut short is settled likewise."""
    named = read_pointer(stage.app.models_dir)
    assert named is not None
    stage.written.append(named["bundle"])
    if named["bundle"] == stage.written[0]:
        weekly_step(stage, "rollback", day=8)
    settle(stage, day=8, reason="rolled back to")


def watch_model(stage: Stage) -> None:
    """Does it keep its word?"""
    monitor.monitor(stage.app, now_ms=LEARN_MS + 9 * DAY_MS)


_OF_REPORTS = ("core/report", "core/views/", "core/jobs/summary")
_OF_TRAINING = ("core/jobs/training", "core/ml/", "core/store/models")
JOBS = (
    Job(name="open", start="files", run=open_new, opens=True),
    Job(name="migrate", start="old", run=migrate, opens=True),
    Job(name="import", start="files", run=import_all),
    Job(name="bootstrap", start="files", run=work_up),
    Job(name="setup", start="files", run=settle_first, opens=True),
    Job(name="retro_scan", start="imported", run=scan_past),
    Job(name="market_stats", start="imported", run=look_at_market),
    Job(name="live", start="scanned", run=live),
    Job(name="start_up", start="lived", run=start_up),
    Job(name="digest", start="lived", run=digest),
    Job(name="commands", start="lived", run=answer),
    Job(name="edit", start="lived", run=edit),
    Job(name="upkeep", start="lived", run=upkeep),
    Job(name="checkpoint", start="lived", run=close_wal),
    Job(name="copies", start="lived", run=make_copies),
    Job(name="export", start="imported", run=export_all),
    Job(name="report", start="imported", run=write_report, own=_OF_REPORTS),
    Job(name="summary", start="imported", run=summarise, own=_OF_REPORTS),
    Job(name="restore", start="copied", run=put_back, opens=True),
    Job(name="unpack", start="copied", run=unpack_anew, opens=True),
    Job(name="train", start="candidates", run=partial(weekly_step, step="train"), own=_OF_TRAINING),
    Job(name="calibrate", start="trained", run=partial(weekly_step, step="calibrate")),
    Job(name="tune", start="calibrated", run=tune),
    Job(name="promote", start="another", run=promote),
    Job(name="rollback", start="promoted", run=roll_back),
    Job(name="monitor", start="promoted", run=watch_model),
)


# --- what they begin with, and what comes of them ------------------------------------------------


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
_STAMP = re.compile(r"20\d{6}-\d{6}(-\d{3})?")
_TABLES_OF = re.compile(r"(.*/)?ohlcv\.db(\.before-restore)?")
_DRAFT = re.compile(r"(.*/)?\.[^/]+\.\d+-[0-9a-f]{8}\.(tmp|old)(-journal|/.*)?")


def contents(stage: Stage) -> dict[str, Any]:
    """Tables as another process sees them, and files by name with what is in them.

    What is left of a draft is no file: the next start removes it.
    """
    found: dict[str, Any] = {}
    for path in sorted(p for p in stage.folder.rglob("*") if p.is_file()):
        name = path.relative_to(stage.folder).as_posix()
        if path.name.endswith(("-wal", "-shm", ".lock")) or _DRAFT.fullmatch(name):
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
