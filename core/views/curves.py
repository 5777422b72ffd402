"""Equity and distance from its high, book beside book: lived solid, retro-scan faint."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from core import equity as curves
from core.views.figures import ACCENT, ENTRY, NEUTRAL, UP, styled, thinned
from core.views.results import Results
from core.views.words import local_times

_BOOKS = (
    ("delivered", "delivered", UP),
    ("followed", "all", ENTRY),
    ("rejected", "rejected", ACCENT),
)
_FAINT = 0.65


def book_curves(found: Results) -> dict[tuple[str, str], pd.DataFrame]:
    """Return the closed equity of (book, origin): closed_ms, equity_r, underwater_r (<= 0).

    Books: `delivered` (LIVE and PAPER), `followed` (all), `rejected` by the gate. Live and retro
    are records of their own, each from 0. Without a trade there is no curve.
    """
    closed = found.rows[found.rows["is_closed"]]
    told = closed["delivery"].isin(("LIVE", "PAPER"))
    books = {"delivered": told, "followed": told | ~told, "rejected": closed["gate"] == "REJECT"}
    out = {}
    for name, chosen in books.items():
        for origin in ("live", "retro"):
            rows = closed[chosen & (closed["origin"] == origin)]
            if len(rows):
                out[name, origin] = _curve(rows)
    return out


def _curve(rows: pd.DataFrame) -> pd.DataFrame:
    steps = curves.equity_curve(
        rows["closed_ts_ms"].to_numpy(np.int64), rows["r_multiple"].to_numpy(np.float64)
    )
    return pd.DataFrame(dict(zip(("closed_ms", "equity_r", "underwater_r"), steps, strict=True)))


def books_figure(found: dict[tuple[str, str], pd.DataFrame], *, zone: str) -> go.Figure:
    """Return the curves of `book_curves` over their distances from their highs."""
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, row_heights=[0.68, 0.32], vertical_spacing=0.04
    )
    for book, label, colour in _BOOKS:
        for origin in ("retro", "live"):
            if (book, origin) in found:
                _add(figure, found[book, origin], (f"{label}, {origin}", colour, origin), zone)
    figure.update_yaxes(title_text="net R", row=1, col=1)
    figure.update_yaxes(title_text="R below high", row=2, col=1)
    figure.add_hline(y=0, line={"color": NEUTRAL, "width": 1}, row=1, col=1)
    return styled(figure, height=460).update_layout(hovermode="x unified", uirevision="books")


def _add(figure: go.Figure, curve: pd.DataFrame, named: tuple[str, str, str], zone: str) -> None:
    label, colour, origin = named
    for column, row in (("equity_r", 1), ("underwater_r", 2)):
        shown = thinned(curve, column)
        figure.add_scatter(
            x=local_times(shown["closed_ms"], zone),
            y=shown[column].round(3),
            name=label,
            legendgroup=label,
            mode="lines",
            opacity=_FAINT if origin == "retro" else 1.0,
            line={"color": colour, "width": 2.2 if origin == "live" else 1.4, "shape": "hv"},
            hovertemplate="%{y:+.2f} R",
            showlegend=row == 1,
            row=row,
            col=1,
        )
