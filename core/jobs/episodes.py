"""Failures from their first run to the first that goes well: told once, and once when over."""

from __future__ import annotations

from core import notices
from core.app import App, wall_ms
from core.cadence import PIPELINE, STATS
from core.domain import Message
from core.notify import channels
from core.store import operation

GRACE_MS = 120_000  # what is tried again at every look may pass by itself: so long nobody is told
_RETRIED = (*PIPELINE, STATS, "look", "notify_closed")


def failed(app: App, job: str, kind: str, detail: str, *, at_wall_ms: int) -> None:
    """Note a failed run; queue a message where its kind has lasted and is not told yet.

    Call it inside the transaction that records the run.
    """
    operation.extend_episode(app.db, job, kind, detail=detail, wall_ms=at_wall_ms)
    grace_ms = GRACE_MS if job in _RETRIED else 0
    for episode in operation.open_episodes(app.db, job):
        is_due = at_wall_ms - episode["began_wall_ms"] >= grace_ms
        if episode["kind"] == kind and is_due and not episode["told"]:
            text = notices.failure(job, detail, n=episode["n"])
            tell(app, "failure", f"failure:{episode['id']}", text)
            operation.update_episode(app.db, episode["id"], {"told": 1})


def went_well(app: App, job: str, *, at_wall_ms: int) -> None:
    """End the open episodes of a job; one message for those that were told of."""
    ended = operation.open_episodes(app.db, job)
    for episode in ended:
        operation.update_episode(app.db, episode["id"], {"ended_wall_ms": at_wall_ms})
    told = [episode for episode in ended if episode["told"]]
    if told:
        lasted_ms = at_wall_ms - min(episode["began_wall_ms"] for episode in told)
        text = notices.recovery(job, lasted_s=lasted_ms / 1000, n=sum(e["n"] for e in told))
        tell(app, "recovered", f"recovered:{told[0]['id']}", text)


def tell(app: App, kind: str, key: str, text: str, *, silent: bool = False) -> None:
    """Queue a message of the engine about itself, once per key."""
    row = operation.clock_row(app.db)
    message = Message(dedupe_key=key, kind=kind, text=text, silent=silent)
    with app.db.write():
        operation.queue_messages(
            app.db,
            [message],
            channels=channels(app.config),
            created_ms=row[0] if row else wall_ms(),
        )
