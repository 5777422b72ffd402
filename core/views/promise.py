"""Was the promise kept: expected against realised R, and what the gate's filter was worth."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from core import performance
from core.bootstrap import LEVEL, SEED
from core.views.figures import ENTRY, NEUTRAL, styled
from core.views.model import Scores
from core.views.results import THIN_N_EFF, trades_of
from core.views.tables import mean_r_text

N_BINS = 6
_NAMES = ("promised_r", "mean_r", "mean_r_lo", "mean_r_hi", "n", "n_eff", "is_thin")


def promised(found: Scores) -> dict[str, pd.DataFrame]:
    """Return the promised EV against the mean net R that came of it, by source of the score.

    Per source up to N_BINS bins of equal numbers of closed trades by rising EV: promised_r,
    mean_r with its interval, n, n_eff, is_thin. Out-of-fold scores beside those told at the time.
    """
    sources = {"told at the decision": found.stored, "out of fold": found.folds}
    return {name: _bins(frame) for name, frame in sources.items()}


def _bins(frame: pd.DataFrame) -> pd.DataFrame:
    closed = frame[frame["is_closed"] & frame["ev_r"].notna()].sort_values("ev_r", kind="stable")
    rows = []
    for places in np.array_split(np.arange(len(closed)), min(N_BINS, max(1, len(closed) // 10))):
        part = closed.iloc[places].sort_values("decided_ms", kind="stable")
        if len(part):
            rng = np.random.default_rng(SEED)
            m = performance.metrics(trades_of(part.assign(ambiguous=False)), rng)
            figures = {name: getattr(m, name) for name in _NAMES[1:6]}
            rows.append({"promised_r": float(part["ev_r"].mean()), **figures})
    table = pd.DataFrame(rows, columns=list(_NAMES[:-1]))
    return table.assign(is_thin=table["n_eff"] < THIN_N_EFF)


def promise_figure(tables: dict[str, pd.DataFrame]) -> go.Figure:
    """Return promised EV (x) and what came of it (y), thin bins hollow; dashes: promise kept."""
    figure = go.Figure()
    ends = [
        float(value)
        for table in tables.values()
        for name in ("promised_r", "mean_r")
        for value in table[name]
        if math.isfinite(value)
    ] or [0.0, 1.0]
    span = [min(ends), max(ends)]
    figure.add_scatter(
        x=span, y=span, mode="lines", name="promise kept", line={"color": NEUTRAL, "dash": "dash"}
    )
    for (name, table), colour in zip(tables.items(), (ENTRY, "#a855f7"), strict=True):
        if len(table):
            _add_bins(figure, name, table, colour)
    figure.add_hline(y=0, line={"color": NEUTRAL, "width": 1})
    figure.update_xaxes(title_text="promised EV, R")
    figure.update_yaxes(title_text="mean net R that came")
    return styled(figure, height=340).update_layout(hovermode="closest")


def _add_bins(figure: go.Figure, name: str, table: pd.DataFrame, colour: str) -> None:
    y = table["mean_r"]
    figure.add_scatter(
        x=table["promised_r"],
        y=y,
        mode="markers",
        name=f"{name}, {LEVEL:.0%} interval",
        marker={
            "color": colour,
            "size": 9,
            "symbol": np.where(table["is_thin"], "circle-open", "circle").tolist(),
        },
        error_y={
            "array": table["mean_r_hi"] - y,
            "arrayminus": y - table["mean_r_lo"],
            "color": colour,
            "thickness": 1.2,
        },
        customdata=np.stack([table["n"], table["n_eff"].fillna(0).astype(int)], axis=1),
        hovertemplate="promised %{x:+.2f} R, came %{y:+.2f} R, n %{customdata[0]}"
        " (n_eff %{customdata[1]})<extra></extra>",
    )


def promise_table(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the same in words."""
    rows: list[tuple[str, Any]] = [
        (name, row) for name in tables for row in tables[name].itertuples()
    ]
    return pd.DataFrame(
        [
            {
                "score": name,
                "promised EV, R": f"{row.promised_r:+.2f}",
                "came, net R a trade": mean_r_text(row),
                "n (n_eff)": f"{row.n} ({int(row.n_eff)})",
            }
            for name, row in rows
        ],
        columns=["score", "promised EV, R", "came, net R a trade", "n (n_eff)"],
    )
