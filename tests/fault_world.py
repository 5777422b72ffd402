"""Every job of the engine, each on a stage as small as can be."""

from __future__ import annotations

import argparse
import threading
from functools import partial
from typing import Any
from unittest import mock

from core import report
from core.app import settle_home, wall_ms
from core.config_edit import with_values
from core.domain import no_progress
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
from core.notify import ConsoleSink
from core.store import models as model_store
from core.store import operation
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from tests.fault_stage import (
    BTC,
    END_MS,
    LEARN_MS,
    SPLIT_MS,
    Failed,
    Job,
    Letters,
    Stage,
)


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
