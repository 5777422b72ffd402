"""Does the gate earn its keep? Its record over matured candidates that carried a score."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from core.gate_lift import GateLift, gate_lift
from core.selection import Candidates
from core.strict_json import plain
from core.views.results import Results

__all__ = ["GATE_NOTE", "GateLift", "gate_as_json", "gate_record", "gate_table"]

GATE_NOTE = (
    "Matured candidates that carried a score, judged by the verdict of their time. Differences are"
    " paired by week, intervals are 90 %. As many by cost or at random are taken inside each month"
    " over all candidates, filled or not; at random shows where 90 % of the draws lie."
)


def gate_record(found: Results) -> GateLift | None:
    """Return what the gate passed beside what it rejected; None without a scored, matured trade."""
    rows = found.rows[found.rows["ml_p"].notna() & found.rows["is_mature"]]
    if not rows["is_counted"].any():
        return None
    passed = (rows["gate"] == "PASS").to_numpy(bool)
    affordable = (rows["gate_reason"] != "cost").to_numpy(bool)
    return gate_lift(_candidates(rows), passed, affordable)


def _candidates(rows: pd.DataFrame) -> Candidates:
    closed = rows["is_counted"].to_numpy(bool)
    ended = rows["closed_ts_ms"].where(rows["closed_ts_ms"] > 0, rows["valid_until_ms"])
    return Candidates(
        symbol=pd.factorize(rows["symbol"])[0],
        block=np.asarray(rows["month"].cat.codes, np.int64),
        decided_ms=rows["decided_ms"].to_numpy(np.int64),
        ended_ms=ended.to_numpy(np.int64),
        closed=closed,
        r=rows["r_multiple"].where(closed).to_numpy(np.float64),
        gross_r=rows["gross_r"].where(closed).to_numpy(np.float64),
        p_mart=rows["p_mart"].to_numpy(np.float64),
        cost_r=rows["cost_r"].to_numpy(np.float64),
    )


def gate_as_json(found: GateLift | None) -> dict[str, Any] | None:
    """Return the gate's record as plain JSON values, with its sentence; None for none."""
    if found is None:
        return None
    listed = _listed(asdict(found))
    return {"sentence": found.sentence, **plain(listed)}


def _listed(value: Any) -> Any:
    """Intervals as lists: JSON knows no tuples."""
    if isinstance(value, dict):
        return {name: _listed(item) for name, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def gate_table(found: GateLift) -> pd.DataFrame:
    """Return the gate's record in words: passed, rejected, and the ways that need no model.

    The last columns are differences to what each way leaves; `at random` shows where draws lie.
    """
    ways = (
        ("passed", found.passed, found.lift),
        ("rejected", found.rejected, None),
        ("as many by cost alone", found.cheapest, found.cheapest_lift),
    )
    rows = [
        {
            "candidates": name,
            "n (n_eff)": f"{worth.metrics.n:,} ({worth.metrics.n_eff:,.0f})",
            "net R": f"{worth.metrics.mean_r:+.3f}",
            "win-rate | coin flip": f"{worth.metrics.win_rate:.1%} | {worth.metrics.p_mart:.1%}",
            "net R over the rest": lifts.net_r.text() if lifts else "-",
            "win-rate over the rest, points": (
                lifts.win_rate.text(scale=100, digits=1) if lifts else "-"
            ),
        }
        for name, worth, lifts in ways
    ]
    drawn = {
        "candidates": "as many at random",
        "n (n_eff)": "-",
        "net R": found.random.net_r.text(),
        "win-rate | coin flip": f"{found.random.win_rate.value:.1%}",
    }
    return pd.DataFrame([*rows, drawn]).fillna("-")
