"""Plotly figures shared by the dashboard and the report; colours that read on dark and light."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from core.views.words import local_times

UP, DOWN, ENTRY, NEUTRAL, ACCENT = "#1f9d83", "#e05252", "#3b82f6", "#8a8f98", "#d18b16"
GRID = "rgba(138, 143, 152, 0.18)"


def styled(figure: go.Figure, *, height: int, title: str = "") -> go.Figure:
    """Return a figure in the colours and margins that all of them share."""
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 40 if title else 12, "b": 8},
        title={"text": title, "font": {"size": 15}} if title else None,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": NEUTRAL},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hovermode="x unified",
        dragmode=False,  # a finger that scrolls the page must not catch on a chart
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": NEUTRAL, "activecolor": ENTRY},
    )
    figure.update_xaxes(gridcolor=GRID, zeroline=False)
    figure.update_yaxes(gridcolor=GRID, zerolinecolor=NEUTRAL, zerolinewidth=1)
    return figure


MAX_POINTS = 1500  # of a line: more than any screen shows


def equity_figure(
    curve: pd.DataFrame, *, zone: str, title: str = "", at_market: pd.DataFrame | None = None
) -> go.Figure:
    """Return cumulative net R with the distance from its high below it.

    `at_market` adds the same with open trades marked. Long curves are thinned; highs and lows stay.
    """
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, row_heights=[0.7, 0.3], vertical_spacing=0.04
    )
    if at_market is not None and len(at_market):
        _add_equity(figure, at_market, "ts_ms", ("open trades marked", ACCENT), zone=zone)
    _add_equity(figure, curve, "closed_ms", ("net R", ENTRY), zone=zone)
    figure.update_yaxes(title_text="R", row=1, col=1)
    figure.update_yaxes(title_text="R below high", row=2, col=1)
    return styled(figure, height=430, title=title)


def _add_equity(
    figure: go.Figure, curve: pd.DataFrame, instant: str, named: tuple[str, str], *, zone: str
) -> None:
    name, colour = named
    closed = instant == "closed_ms"
    for column, row in (("equity_r", 1), ("underwater_r", 2)):
        shown = thinned(curve, column)
        figure.add_scatter(
            x=local_times(shown[instant], zone),
            y=shown[column],
            name=name if row == 1 else f"{name}, below the high",
            mode="lines",
            line={
                "color": DOWN if row == 2 and closed else colour,
                "width": 1.8 if closed else 1,
                "shape": "hv" if closed else "linear",
            },
            fill="tozeroy" if row == 2 and closed else None,
            showlegend=row == 1,
            row=row,
            col=1,
        )


def thinned(curve: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the rows a screen can show: of each stretch the first, the extremes, the last."""
    if len(curve) <= MAX_POINTS:
        return curve
    values = curve[column].reset_index(drop=True)
    stretch = np.arange(len(curve)) // -(-4 * len(curve) // MAX_POINTS)
    grouped = values.groupby(stretch)
    firsts = np.flatnonzero(np.diff(stretch, prepend=-1))
    lasts = np.append(firsts[1:] - 1, len(curve) - 1)
    kept = np.unique(np.concatenate((firsts, grouped.idxmin(), grouped.idxmax(), lasts)))
    return curve.iloc[kept]


def cells_figure(tables: Mapping[str, pd.DataFrame]) -> go.Figure:
    """Return mean net R with its interval of each cell of some breakdowns, in their own order.

    Thin cells are grey; nothing is ranked.
    """
    places = [(by.replace("_", " "), str(value)) for by in tables for value in tables[by][by]]
    # unseen, and first: an axis of two levels takes its order from the first trace
    whole = [list(column) for column in zip(*places, strict=True)] or [[], []]
    figure = go.Figure(go.Scatter(x=[0] * len(places), y=whole, opacity=0, showlegend=False))
    figure.update_traces(hoverinfo="skip", mode="markers")
    for thin, colour in ((False, ENTRY), (True, NEUTRAL)):
        parts = [(by, table[table["is_thin"] == thin]) for by, table in tables.items()]
        x = pd.concat([part["mean_r"] for _, part in parts])
        high = pd.concat([part["mean_r_hi"] for _, part in parts])
        low = pd.concat([part["mean_r_lo"] for _, part in parts])
        figure.add_scatter(
            x=x,
            y=[
                [by.replace("_", " ") for by, part in parts for _ in range(len(part))],
                [str(value) for by, part in parts for value in part[by]],
            ],
            mode="markers",
            marker={"color": colour, "size": 7},
            error_x={"array": high - x, "arrayminus": x - low, "color": colour, "thickness": 1.2},
            customdata=pd.concat([part["n_eff"] for _, part in parts]).astype("int64"),
            hovertemplate="%{x:.2f} R, n_eff %{customdata}<extra></extra>",
            name="too small a sample" if thin else "net R a trade, 90 % interval",
        )
    figure.update_yaxes(type="multicategory", autorange="reversed")
    figure.add_vline(x=0, line={"color": NEUTRAL, "width": 1})
    figure.update_xaxes(title_text="R")
    return styled(figure, height=120 + 22 * len(places)).update_layout(hovermode="closest")


def coverage_figure(table: pd.DataFrame) -> go.Figure:
    """Return the win-rate with its interval beside the coin flip's, by coverage, and net R."""
    figure = make_subplots(rows=1, cols=2, subplot_titles=("win-rate", "mean net R a trade"))
    x = 100 * table["coverage"]
    _add_band(figure, x, 100 * table["win_rate_lo"], 100 * table["win_rate_hi"], col=1)
    _add_line(figure, x, 100 * table["win_rate"], "win-rate", ENTRY, col=1)
    _add_line(figure, x, 100 * table["p_mart"], "coin flip", ACCENT, col=1, dash="dash")
    _add_band(figure, x, table["mean_r_lo"], table["mean_r_hi"], col=2)
    _add_line(figure, x, table["mean_r"], "mean net R", ENTRY, col=2)
    figure.update_xaxes(
        title_text="share of candidates taken, best first (%)", autorange="reversed"
    )
    figure.update_yaxes(ticksuffix=" %", col=1)
    figure.update_yaxes(ticksuffix=" R", col=2)
    return styled(figure, height=330).update_layout(
        margin={"l": 8, "r": 8, "t": 60, "b": 8}, legend={"y": 1.12}
    )


def _add_line(
    figure: go.Figure, x: Any, y: Any, name: str, colour: str, *, col: int, dash: str = "solid"
) -> None:
    figure.add_scatter(
        x=x,
        y=y,
        name=name,
        mode="lines+markers",
        line={"color": colour, "width": 2, "dash": dash},
        showlegend=col == 1,
        row=1,
        col=col,
    )


def _add_band(figure: go.Figure, x: Any, low: Any, high: Any, *, col: int) -> None:
    nothing = {"width": 0}
    figure.add_scatter(
        x=x, y=high, mode="lines", line=nothing, hoverinfo="skip", showlegend=False, row=1, col=col
    )
    figure.add_scatter(
        x=x,
        y=low,
        mode="lines",
        line=nothing,
        fill="tonexty",
        fillcolor="rgba(59, 130, 246, 0.16)",
        name="90 % interval",
        showlegend=col == 1,
        row=1,
        col=col,
    )


def histogram_figure(table: pd.DataFrame) -> go.Figure:
    """Return how many candidates fell into each probability bin, by what became of them."""
    figure = go.Figure()
    centre = 50 * (table["low"] + table["high"])
    kinds = (
        ("n_wins", "won", UP),
        ("n_losses", "lost", DOWN),
        ("n_other", "not filled or not ended", NEUTRAL),
    )
    for column, name, colour in kinds:
        figure.add_bar(x=centre, y=table[column], name=name, marker={"color": colour})
    figure.update_layout(barmode="stack", bargap=0.06)
    figure.update_xaxes(title_text="calibrated probability of a win (%)", range=[0, 100])
    return styled(figure, height=300)
