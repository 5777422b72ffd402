"""Plotly figures of an evaluation: what taking fewer paid, and which promises were kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from core.views.figures import ACCENT, DOWN, ENTRY, NEUTRAL, UP, styled

_BAND = "rgba(59, 130, 246, 0.16)"
_RANDOM_BAND = "rgba(138, 143, 152, 0.16)"
Rows = Sequence[Mapping[str, Any]]


def paid_figure(coverage: Rows) -> go.Figure:
    """Return mean net R by the share taken: of the model, of cost, of the coin flip, of chance."""
    figure, x = go.Figure(), [100 * row["coverage"] for row in coverage]
    drawn = [row["controls"]["random"]["net_r"] for row in coverage]
    _band(figure, x, drawn, "as many at random, 90 % of draws", _RANDOM_BAND)
    _band(figure, x, [row["net_r"] for row in coverage], "the model, 90 % interval", _BAND)
    lines = (
        ("the model", [row["net_r"][0] for row in coverage], ENTRY, "solid"),
        ("cheapest in R", [_net(row, "cost") for row in coverage], UP, "dash"),
        ("likeliest for a coin flip", [_net(row, "mart") for row in coverage], ACCENT, "dash"),
        ("at random", [found[0] for found in drawn], NEUTRAL, "dot"),
    )
    for name, y, colour, dash in lines:
        figure.add_scatter(
            x=x,
            y=y,
            name=name,
            mode="lines+markers",
            line={"color": colour, "width": 2, "dash": dash},
            customdata=[row["n"] for row in coverage] if name == "the model" else None,
            hovertemplate="%{y:+.3f} R" + (", n %{customdata}" if name == "the model" else ""),
        )
    figure.add_hline(y=0, line={"color": NEUTRAL, "width": 1})
    figure.update_xaxes(title_text="share of candidates taken, best first (%)")
    figure.update_yaxes(title_text="net R a trade")
    return _roomy(styled(figure, height=380))


def _net(row: Mapping[str, Any], control: str) -> float | None:
    found: float | None = row["controls"][control]["net_r"][0]
    return found


def reliability_figure(reliability: Mapping[str, Rows]) -> go.Figure:
    """Return the win-rate that came by the probability that was said, raw and calibrated."""
    figure = go.Figure()
    for name, label, colour in (
        ("before", "raw score", NEUTRAL),
        ("after", "calibrated", ENTRY),
    ):
        _points(figure, reliability[name], label, colour, scale=100)
    _diagonal(figure, [*reliability["before"], *reliability["after"]], scale=100)
    figure.update_xaxes(title_text="probability of a win that was said (%)")
    figure.update_yaxes(title_text="win-rate that came (%)")
    return _roomy(styled(figure, height=380))


def promise_figure(promise: Rows) -> go.Figure:
    """Return the net R that came by the expected value that was promised."""
    figure = go.Figure()
    _points(figure, promise, "a tenth of the trades each", ENTRY, scale=1)
    _diagonal(figure, promise, scale=1)
    figure.add_hline(y=0, line={"color": NEUTRAL, "width": 1})
    figure.update_xaxes(title_text="expected net R that was promised")
    figure.update_yaxes(title_text="mean net R that came")
    return _roomy(styled(figure, height=380))


def certificates_figure(found: Rows) -> go.Figure:
    """Return the best mean R and its lower bound that each month's tuner saw in its window."""
    figure = go.Figure()
    months = [row["month"] for row in found]
    for name, label, colour in (
        ("estimate", "seen in the window", ENTRY),
        ("lower", "proven at least", DOWN),
    ):
        figure.add_scatter(
            x=months,
            y=[row[name] for row in found],
            name=label,
            mode="lines+markers",
            line={"color": colour, "width": 2},
        )
    figure.add_hline(y=0, line={"color": NEUTRAL, "width": 1})
    figure.update_xaxes(type="category")
    return _roomy(styled(figure, height=300))


def _points(figure: go.Figure, rows: Rows, name: str, colour: str, *, scale: float) -> None:
    y = [scale * row["came"][0] for row in rows]
    known = [row["came"] if None not in row["came"] else [row["came"][0]] * 3 for row in rows]
    figure.add_scatter(
        x=[scale * row["said"] for row in rows],
        y=y,
        name=name,
        mode="markers+lines",
        line={"color": colour, "width": 1, "dash": "dot"},
        marker={"color": colour, "size": 8},
        error_y={
            "array": [scale * (high - value) for value, _, high in known],
            "arrayminus": [scale * (value - low) for value, low, _ in known],
            "color": colour,
            "thickness": 1.2,
        },
        customdata=[row["n"] for row in rows],
        hovertemplate="said %{x:.3g}, came %{y:.3g}, n %{customdata}",
    )


def _diagonal(figure: go.Figure, rows: Rows, *, scale: float) -> None:
    """Where promises are kept."""
    said = [scale * row["said"] for row in rows]
    ends = [min(said, default=0.0), max(said, default=0.0)]
    figure.add_scatter(
        x=ends,
        y=ends,
        name="as said",
        mode="lines",
        line={"color": ACCENT, "width": 1.5, "dash": "dash"},
        hoverinfo="skip",
    )


def _band(
    figure: go.Figure, x: list[float], found: Sequence[Sequence[Any]], name: str, fill: str
) -> None:
    for place, shown in ((2, False), (1, True)):
        figure.add_scatter(
            x=x,
            y=[values[place] for values in found],
            mode="lines",
            line={"width": 0},
            fill="tonexty" if shown else None,
            fillcolor=fill if shown else None,
            name=name,
            showlegend=shown,
            hoverinfo="skip",
        )


def _roomy(figure: go.Figure) -> go.Figure:
    return figure.update_layout(
        hovermode="closest", margin={"l": 8, "r": 8, "t": 60, "b": 8}, legend={"y": 1.04}
    )
