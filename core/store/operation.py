"""What keeps the process honest in the database: marks, runs, the clock row and the outbox."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from core.domain import Message
from core.store.db import Database

_KEEP_RUNS_MS = 14 * 86_400_000


def marks(db: Database) -> dict[str, int]:
    """Return, for each job, the due instant it was last done for."""
    return dict(db.rows("SELECT job, done_ms FROM job_marks"))


def move_mark(db: Database, job: str, *, done_ms: int) -> None:
    """Say that a job is done for a due instant; marks never move back."""
    db.run(
        "INSERT INTO job_marks VALUES (?, ?) ON CONFLICT DO UPDATE SET"
        " done_ms = max(done_ms, excluded.done_ms)",
        (job, done_ms),
    )


def record_run(
    db: Database,
    job: str,
    *,
    due_ms: int,
    started_wall_ms: int,
    took_ms: float,
    outcome: str,
    n: int = 0,
    detail: str = "",
) -> None:
    """Write one run of one job."""
    db.run(
        "INSERT INTO job_runs (job, due_ms, started_wall_ms, took_ms, outcome, n, detail)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (job, due_ms, started_wall_ms, took_ms, outcome, n, detail),
    )


def was_tried(db: Database, job: str, *, due_ms: int) -> bool:
    """Say whether a job was begun for a due instant or a later one, whatever came of it."""
    sql = "SELECT 1 FROM job_runs WHERE job = ? AND due_ms >= ? ORDER BY id DESC LIMIT 1"
    return db.value(sql, (job, due_ms)) is not None


def extend_episode(db: Database, job: str, kind: str, *, detail: str, wall_ms: int) -> None:
    """Count one more failure of a kind, as the first of an episode or a further one."""
    db.run(
        "INSERT INTO episodes (job, kind, detail, began_wall_ms, last_wall_ms)"
        " VALUES (:job, :kind, :detail, :at, :at) ON CONFLICT (job, kind)"
        " WHERE ended_wall_ms IS NULL DO UPDATE SET n = n + 1, detail = excluded.detail,"
        " last_wall_ms = excluded.last_wall_ms",
        {"job": job, "kind": kind, "detail": detail, "at": wall_ms},
    )


def open_episodes(db: Database, job: str = "") -> list[dict[str, Any]]:
    """Return the failures that are not over, of one job or of all, oldest first."""
    return db.dicts(
        "SELECT * FROM episodes WHERE ended_wall_ms IS NULL AND (:job = '' OR job = :job)"
        " ORDER BY id",
        {"job": job},
    )


def update_episode(db: Database, number: int, changes: Mapping[str, Any]) -> None:
    """Write new values into some columns of one episode."""
    sets = ", ".join(f"{name} = :{name}" for name in changes)
    db.run(f"UPDATE episodes SET {sets} WHERE id = :id", {**changes, "id": number})


def write_step(
    db: Database,
    step: str,
    *,
    state: str,
    done: int = 0,
    total: int = 0,
    eta_s: float | None = None,
    detail: str = "",
    wall_ms: int,
) -> None:
    """Write how far a step of the bootstrap is; `eta_s` is None where nobody can say."""
    db.run(
        "INSERT OR REPLACE INTO bootstrap (step, state, done, total, eta_s, detail, at_wall_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (step, state, done, total, eta_s, detail, wall_ms),
    )


def bootstrap_steps(db: Database) -> list[dict[str, Any]]:
    """Return the steps of the bootstrap that were begun or wait, in their order."""
    return db.dicts("SELECT * FROM bootstrap ORDER BY step")


def prune_runs(db: Database, *, wall_ms: int) -> int:
    """Drop runs older than two weeks that went well."""
    return db.run(
        "DELETE FROM job_runs WHERE outcome = 'ok' AND started_wall_ms < ?",
        (wall_ms - _KEEP_RUNS_MS,),
    )


def write_clock(db: Database, *, market_ms: int, wall_ms: int, speed: float) -> None:
    """Write what time it is in the market; views use this row."""
    db.run(
        "INSERT INTO clock VALUES (1, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " market_ms = excluded.market_ms, wall_ms = excluded.wall_ms, speed = excluded.speed",
        (market_ms, wall_ms, speed),
    )


def clock_row(db: Database) -> tuple[int, int, float] | None:
    """Return (market_ms, wall_ms, speed) of the last tick, or None before the first."""
    found = db.rows("SELECT market_ms, wall_ms, speed FROM clock WHERE id = 1")
    return (int(found[0][0]), int(found[0][1]), float(found[0][2])) if found else None


def set_label(db: Database, name: str, value: str) -> None:
    """Store a named text, such as the banner of a generated market."""
    db.run("INSERT OR REPLACE INTO labels VALUES (?, ?)", (name, value))


def label_of(db: Database, name: str) -> str:
    """Return a named text, or ''."""
    return str(db.value("SELECT value FROM labels WHERE name = ?", (name,)) or "")


def queue_messages(
    db: Database,
    messages: Iterable[Message],
    *,
    channels: Iterable[str],
    created_ms: int,
    expires_ms: int | None = None,
) -> int:
    """Put messages into the outbox, once per channel; returns how many are new.

    Call it inside the transaction that makes them true.
    """
    rows = [
        (m.dedupe_key, channel, m.kind, m.signal_id, m.text, int(m.silent), created_ms, expires_ms)
        for channel in channels
        for m in messages
    ]
    return db.run_many(
        "INSERT OR IGNORE INTO outbox (dedupe_key, channel, kind, signal_id, text, silent,"
        " created_ms, expires_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        rows,
    )


def waiting_messages(db: Database, channel: str, *, wall_ms: int, n: int) -> list[dict[str, Any]]:
    """Return the next messages a channel may try now, oldest first."""
    return db.dicts(
        "SELECT * FROM outbox WHERE channel = ? AND state IN ('pending', 'sending', 'ambiguous')"
        " AND next_wall_ms <= ? ORDER BY id LIMIT ?",
        (channel, wall_ms, n),
    )


def update_message(db: Database, number: int, changes: Mapping[str, Any]) -> None:
    """Write new values into some columns of one outbox row."""
    sets = ", ".join(f"{name} = :{name}" for name in changes)
    db.run(f"UPDATE outbox SET {sets} WHERE id = :id", {**changes, "id": number})


def outbox_counts(db: Database) -> dict[str, int]:
    """Return how many messages are in each state."""
    return dict(db.rows("SELECT state, count(*) FROM outbox GROUP BY state"))
