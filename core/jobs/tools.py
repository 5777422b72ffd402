"""The steps of `maintenance.py`, by name."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from core import drafts, evaluation_page
from core.app import App, wall_ms
from core.domain import Message, Progress
from core.errors import UsageError
from core.jobs import evaluation, learning, maintain, pack, run, tell, upgrade, verify
from core.jobs.explain import data_now_ms
from core.jobs.standing import note_verified
from core.notify import channels, sinks_of
from core.store import operation

_LINES = 40  # of differences that people are shown


def run_tool(app: App, args: argparse.Namespace, *, progress: Progress) -> tuple[Any, bool]:
    """Run one step; returns (what to show, whether all is well)."""
    step = args.step
    if step in ("train", "calibrate", "tune", "weekly", "rollback", "evaluate"):
        return _learning(app, args, progress), True
    if step == "verify":
        return _verify(app, args, progress)
    if step == "upgrade":
        return upgrade.upgrade(app, days=args.days, progress=progress)
    if step == "doctor":
        rows = maintain.doctor(app)
        shown = [{"state": state, "what": what, "remedy": remedy} for state, what, remedy in rows]
        return shown, all(state != "bad" for state, _, _ in rows)
    simple: dict[str, Callable[[], dict[str, Any]]] = {
        "pack": lambda: pack.pack(app, args.file, now_wall_ms=wall_ms()),
        "setup": lambda: _setup(app, args),
        "notify-test": lambda: _notify_test(app),
        "config": lambda: app.config.model_dump(mode="json"),
        "checkpoint": lambda: maintain.checkpoint(app),
        "vacuum": lambda: maintain.vacuum(app, force=args.force),
        "summary": lambda: _summary(app),
        "backup": lambda: maintain.backup(app, now_wall_ms=wall_ms()),
    }
    return simple[step](), True


def _summary(app: App) -> dict[str, Any]:
    from core.jobs import summary  # brings the plotting with it

    return summary.summarise(app, now_ms=data_now_ms(app))


def _setup(app: App, args: argparse.Namespace) -> dict[str, Any]:
    from core.jobs.setup import Setup, Wanted

    wanted = Wanted(
        pairs=args.pairs,
        equity_usd=args.equity,
        risk=args.risk,
        token=args.telegram_token,
        chat_id=args.chat_id,
        telegram=False if args.no_telegram else None,
    )
    is_asked = sys.stdin.isatty() and not args.yes

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def ask(question: str) -> str:
        sys.stderr.write(question)
        sys.stderr.flush()
        return sys.stdin.readline()

    return Setup(app, wanted, ask=ask if is_asked else None, say=say).run()


def _learning(app: App, args: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    step, now_ms, where = args.step, data_now_ms(app), app.models_dir
    drafts.sweep([where])  # a step before this one may have been killed
    if step == "train":
        return learning.train(
            app.db, app.config, models_dir=where, now_ms=now_ms, progress=progress
        )
    if step == "calibrate":
        return learning.calibrate(app.db, app.config, models_dir=where, now_ms=now_ms)
    if step == "evaluate":
        return evaluation.record(app, in_words=not args.json)
    act = {"tune": learning.tune, "rollback": learning.rollback, "weekly": learning.weekly}[step]
    done = act(app.db, app.config, models_dir=where, config_path=app.config_path, now_ms=now_ms)
    if step in ("tune", "weekly"):
        tell.queue_weekly_work(app, done.get("tune", done), now_ms=now_ms)
    return done


def evaluated(
    args: argparse.Namespace, *, report_ms: int, end_ms: int | None, progress: Progress
) -> tuple[Any, Any]:
    """Judge the model on a folder of candles; return every figure, and what people are shown."""
    request = evaluation.Request(
        data=[args.data],
        train=args.train,
        unseen=args.unseen,
        report_ms=report_ms,
        end_ms=end_ms,
        out=args.out,
    )
    found = evaluation.evaluate(args.config.resolve(), request, progress=progress)
    written = f"{args.out}: {evaluation.PAGE}, {evaluation.FIGURES}; cache: {found['cache']}"
    return found, evaluation_page.terminal(found) | {"written": written}


def _verify(app: App, args: argparse.Namespace, progress: Progress) -> tuple[dict[str, Any], bool]:
    found = verify.verify(app, n_points=args.points, seed=args.seed, progress=progress)
    note_verified(app.db, found["verified"], ok=bool(found["ok"]), now_ms=data_now_ms(app))
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
        operation.wake_channels(app.db)
    return {"sent": run.deliver_waiting(app, sinks_of(app.config))}
