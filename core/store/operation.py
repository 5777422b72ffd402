"""What keeps the process honest in the database: marks, runs, the clock row and the outbox."""

from __future__ import annotations

import json
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


def settle_step(db: Database, name: str, state: str, *, detail: str, wall_ms: int) -> None:
    """Write what became of a step that the bootstrap tried and left to others; else nothing."""
    db.run(
        "UPDATE bootstrap SET state = ?, detail = ?, at_wall_ms = ?, done = 0, total = 0,"
        " eta_s = NULL WHERE substr(step, 3) = ? AND (state = 'failed' OR detail <> '')",
        (state, detail[:300], wall_ms, name),
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


def pauses(db: Database) -> list[tuple[int, int | None]]:
    """Return when the owner wanted no signals, [from, to) in market time; None: until now."""
    return [(int(a), b) for a, b in db.rows("SELECT from_ms, to_ms FROM pauses ORDER BY id")]


def set_paused(db: Database, wanted: bool, *, now_ms: int) -> bool:
    """Begin or end a pause in market time; False when there was nothing to change.

    It holds for every decision not taken yet: where one is stored beyond `now_ms`, from after it.
    Call it inside a transaction, as the scan decides in one: then no decision is told otherwise
    than a retro-scan of the same stretch would have it.
    """
    newest = db.value("SELECT max(decided_ms) FROM signals WHERE origin = 'live'")
    at_ms = max(now_ms, newest or 0) + 1
    if wanted == bool(db.value("SELECT count(*) FROM pauses WHERE to_ms IS NULL")):
        return False
    if wanted:
        db.run("INSERT INTO pauses (from_ms) VALUES (?)", (at_ms,))
    else:
        db.run("UPDATE pauses SET to_ms = ? WHERE to_ms IS NULL", (at_ms,))
    return True


def take_command(db: Database, number: int, command: str, *, wall_ms: int) -> bool:
    """Mark a command of the owner as taken; False when it was before."""
    return bool(
        db.run("INSERT OR IGNORE INTO commands VALUES (?, ?, ?)", (number, command[:40], wall_ms))
    )


def is_taken(db: Database, number: int) -> bool:
    """Say whether a command was carried out before."""
    return db.value("SELECT 1 FROM commands WHERE update_id = ?", (number,)) is not None


def count_foreign(db: Database) -> None:
    """Count a message of somebody who may not command."""
    with db.write():
        set_label(db, "foreign_messages", str(int(label_of(db, "foreign_messages") or 0) + 1))


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


def claim_message(db: Database, row: Mapping[str, Any], *, text: str, lease_wall_ms: int) -> bool:
    """Take a message for one attempt, committed before it is made; False when another has it."""
    with db.write():
        return (
            db.run(
                "UPDATE outbox SET state = 'sending', attempts = attempts + 1, text = ?,"
                " lease_wall_ms = ? WHERE id = ? AND state = ? AND attempts = ?",
                (text, lease_wall_ms, row["id"], row["state"], row["attempts"]),
            )
            == 1
        )


def end_leases(db: Database) -> int:
    """Say that whoever was sending is gone; returns how many messages it leaves in doubt."""
    return db.run("UPDATE outbox SET lease_wall_ms = 0 WHERE state = 'sending'")


def hurry_messages(db: Database, channel: str, *, wall_ms: int) -> None:
    """Let what waits for a channel to get well be tried soon: it took another message."""
    db.run(
        "UPDATE outbox SET next_wall_ms = ?1 WHERE channel = ?2 AND state = 'pending'"
        " AND next_wall_ms > ?1",
        (wall_ms, channel),
    )


def rest_channel(db: Database, channel: str, *, until_wall_ms: int, reason: str) -> None:
    """Let a whole channel rest, and say why; it may be told after a restart, too."""
    set_label(db, f"rest:{channel}", json.dumps([until_wall_ms, reason]))


def rest_of(db: Database, channel: str) -> tuple[int, str]:
    """Return until when a channel rests and why; (0, '') when it does not."""
    until_wall_ms, reason = json.loads(label_of(db, f"rest:{channel}") or '[0, ""]')
    return int(until_wall_ms), str(reason)


def wake_channels(db: Database) -> None:
    """Let channels that the owner was to mend be tried at once; a 429 keeps its time."""
    with db.write():
        for name, value in db.rows("SELECT name, value FROM labels WHERE name LIKE 'rest:%'"):
            channel, (_, reason) = str(name).partition(":")[2], json.loads(value)
            if not str(reason).startswith("429"):
                rest_channel(db, channel, until_wall_ms=0, reason="")
                hurry_messages(db, channel, wall_ms=0)


def void_waits(db: Database, *, wall_ms: int) -> None:
    """Let all that waits be tried now: it was to wait by a clock that has been set back since."""
    with db.write():
        db.run("UPDATE outbox SET next_wall_ms = ?1 WHERE next_wall_ms > ?1", (wall_ms,))
        db.run("DELETE FROM labels WHERE name LIKE 'rest:%'")


def outbox_counts(db: Database) -> dict[str, int]:
    """Return how many messages are in each state."""
    return dict(db.rows("SELECT state, count(*) FROM outbox GROUP BY state"))
