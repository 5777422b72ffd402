"""The engine on the health page: sizes, latencies, errors, messages, versions, live = retro."""

from __future__ import annotations

import json
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core import schema
from core.store.operation import label_of
from core.views.reading import reading
from core.views.words import size_text, utc_text

_RUNS, _ERRORS = 500, 20
_LIBRARIES = ("streamlit", "plotly", "pandas", "numpy", "numba", "apsw", "ccxt", "xgboost-cpu")
WAL_HIGH_BYTES = 256_000_000  # the scheduler keeps it far smaller


def latencies(path: Path) -> pd.DataFrame:
    """Return one row a job over its last _RUNS runs: n, median, p95 and longest time in ms.

    `done_ms` is the due instant it is done for, `n_failed` all failures stored.
    """
    with reading(path) as db:
        names = [job for (job,) in db.rows("SELECT DISTINCT job FROM job_runs ORDER BY job")]
        rows = []
        for name in names:
            runs = db.rows(
                "SELECT took_ms, outcome FROM job_runs WHERE job = ? ORDER BY id DESC LIMIT ?",
                (name, _RUNS),
            )
            took = np.array([float(run[0]) for run in runs])
            rows.append(
                {
                    "job": name,
                    "last": runs[0][1],
                    "done_ms": db.value("SELECT done_ms FROM job_marks WHERE job = ?", (name,)),
                    "runs": len(runs),
                    "median, ms": float(np.median(took)),
                    "p95, ms": float(np.quantile(took, 0.95)),
                    "longest, ms": float(took.max()),
                    "failed": sum(outcome != "ok" for _, outcome in runs),
                }
            )
    return pd.DataFrame(rows)


def errors(path: Path) -> pd.DataFrame:
    """Return the newest runs that did not go well, newest first."""
    with reading(path) as db:
        found = db.dicts(
            "SELECT job, outcome, due_ms, started_wall_ms, detail FROM job_runs"
            " WHERE outcome <> 'ok' ORDER BY id DESC LIMIT ?",
            (_ERRORS,),
        )
    return pd.DataFrame(found)


def waiting(path: Path) -> pd.DataFrame:
    """Return the messages of each channel by state, and how long the oldest waits."""
    with reading(path) as db:
        found = db.dicts(
            "SELECT channel, state, count(*) AS n, min(created_ms) AS oldest_ms,"
            " max(attempts) AS attempts, coalesce(max(last_error), '') AS last_error FROM outbox"
            " GROUP BY channel, state ORDER BY channel, state"
        )
    return pd.DataFrame(found)


def sizes(path: Path) -> dict[str, Any]:
    """Return the sizes of the file and its WAL, in bytes, and whether the WAL is too long."""
    wal = path.with_name(path.name + "-wal")
    found = {"file": path.stat().st_size, "wal": wal.stat().st_size if wal.exists() else 0}
    return {**found, "wal_is_high": found["wal"] > WAL_HIGH_BYTES}


def sizes_text(found: dict[str, Any]) -> str:
    """Return the sizes in a sentence, with what a long WAL means."""
    high = (
        "; the WAL is long: a reader holds it, or no scheduler runs" if found["wal_is_high"] else ""
    )
    return f"database {size_text(found['file'])}, WAL {size_text(found['wal'])}{high}"


def versions() -> str:
    """Return the versions that decide what is seen here."""
    words = [f"schema {schema.VERSION}", f"Python {sys.version.split()[0]}"]
    for name in _LIBRARIES:
        try:
            words.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(words)


def parity_text(path: Path) -> str:
    """Return the stored figure of `maintenance.py verify`: live = retro, no look-ahead."""
    with reading(path) as db:
        text = label_of(db, "verified")
    if not text:
        return (
            "Live = retro is not measured on this database yet: run python maintenance.py verify."
        )
    found = json.loads(text)
    return f"Live = retro, measured on candles until {utc_text(found['at_ms'])}: {found['said']}."
