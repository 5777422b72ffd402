"""The steps of `maintenance.py`, by name."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

from core.app import App, wall_ms
from core.domain import Message, Progress
from core.errors import UsageError
from core.jobs import learning, maintain, run, verify
from core.jobs.explain import data_now_ms
from core.notify import channels, sinks_of
from core.store import operation

_LINES = 40  # of differences that people are shown


def run_tool(app: App, args: argparse.Namespace, *, progress: Progress) -> tuple[Any, bool]:
    """Run one step; returns (what to show, whether all is well)."""
    step = args.step
    if step in ("train", "calibrate", "tune", "weekly", "rollback", "evaluate"):
        return _learning(app, step, progress), True
    if step == "verify":
        return _verify(app, args, progress)
    if step == "doctor":
        rows = maintain.doctor(app)
        shown = [{"state": state, "what": what, "remedy": remedy} for state, what, remedy in rows]
        return shown, all(state != "bad" for state, _, _ in rows)
    if step == "notify-test":
        return _notify_test(app), True
    if step == "config":
        return app.config.model_dump(mode="json"), True
    simple: dict[str, Callable[[], dict[str, Any]]] = {
        "checkpoint": lambda: maintain.checkpoint(app),
        "vacuum": lambda: maintain.vacuum(app, force=args.force),
        "backup": lambda: maintain.backup(app, now_wall_ms=wall_ms()),
    }
    return simple[step](), True


def _learning(app: App, step: str, progress: Progress) -> dict[str, Any]:
    now_ms, where = data_now_ms(app), app.models_dir
    if step == "train":
        return learning.train(
            app.db, app.config, models_dir=where, now_ms=now_ms, progress=progress
        )
    if step == "calibrate":
        return learning.calibrate(app.db, app.config, models_dir=where, now_ms=now_ms)
    if step == "evaluate":
        return learning.evaluate(app.db, app.config)
    act = {"tune": learning.tune, "rollback": learning.rollback, "weekly": learning.weekly}[step]
    return act(app.db, app.config, models_dir=where, config_path=app.config_path, now_ms=now_ms)


def _verify(app: App, args: argparse.Namespace, progress: Progress) -> tuple[dict[str, Any], bool]:
    found = verify.verify(app, n_points=args.points, seed=args.seed, progress=progress)
    figure = json.dumps({"figure": found["verified"], "wall_ms": wall_ms()})
    with app.db.write():  # the health page shows it
        operation.set_label(app.db, "verified", figure)
    ok, n_more = bool(found["ok"]), len(found["failed"]) - _LINES
    if n_more > 0 and not args.json:
        found["failed"] = found["failed"][:_LINES]
        found["not shown"] = f"{n_more} more differences: see them with --json"
    if args.invariants:
        tables = maintain.invariants(app)
        found["invariants broken"] = tables["broken"]
        ok = ok and not tables["broken"]
    return found, ok


def _notify_test(app: App) -> dict[str, Any]:
    if not channels(app.config):
        raise UsageError(
            "no channel is on;", remedy="set notify.console or notify.telegram.enabled"
        )
    now = wall_ms()
    message = Message(dedupe_key=f"test:{now}", kind="test", text="Test message: it works.")
    with app.db.write():
        operation.queue_messages(app.db, [message], channels=channels(app.config), created_ms=now)
    return {"sent": run.deliver_waiting(app, sinks_of(app.config))}
