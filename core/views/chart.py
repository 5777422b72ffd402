"""The candles of one candidate with its impulse, its plan and what became of it; nothing else."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from core.avwap import avwap
from core.domain import CLOSED
from core.fibo import retracement
from core.views.figures import ACCENT, DOWN, ENTRY, NEUTRAL, UP, styled
from core.views.words import local_time, local_times, price_text, utc_text

FIBONACCI = (0.236, 0.382, 0.5, 0.618, 0.786)
_LEVELS = (
    ("tp2", "TP2", UP, "dash"),
    ("tp1", "TP1", UP, "solid"),
    ("entry", "Entry", ENTRY, "solid"),
    ("sl", "Stop", DOWN, "solid"),
)
_HEIGHT = 560
_LABEL_SHARE = 0.035  # of the axis: closer labels would cover one another
_ROOM_BARS = 14  # to the right of the last bar, where the levels are named


def candle_figure(bars: pd.DataFrame, *, zone: str, title: str = "") -> go.Figure:
    """Return candles over their volume on the wall time of a zone; UTC stands in the hover."""
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, row_heights=[0.84, 0.16], vertical_spacing=0.02
    )
    x = local_times(bars["ts_ms"], zone)
    rising = (bars["close"] >= bars["open"]).to_numpy()
    figure.add_candlestick(
        x=x,
        **{name: bars[name] for name in ("open", "high", "low", "close")},
        increasing={"line": {"color": UP, "width": 1}, "fillcolor": UP},
        decreasing={"line": {"color": DOWN, "width": 1}, "fillcolor": DOWN},
        hovertext=[utc_text(ts_ms) for ts_ms in bars["ts_ms"]],
        name="candles",
        showlegend=False,
        row=1,
        col=1,
    )
    figure.add_bar(
        x=x,
        y=bars["volume"],
        marker={"color": np.where(rising, UP, DOWN), "opacity": 0.5, "line": {"width": 0}},
        name="volume",
        showlegend=False,
        row=2,
        col=1,
    )
    figure.update_xaxes(rangeslider_visible=False)
    figure.update_yaxes(side="right")
    figure.update_yaxes(showticklabels=False, showgrid=False, row=2)
    styled(figure, height=_HEIGHT, title=title)
    return figure.update_layout(bargap=0.15, hovermode="x unified")


def signal_figure(bars: pd.DataFrame, signal: dict[str, Any], *, zone: str) -> go.Figure:
    """Return a candidate's candles with its impulse, Fibonacci, AVWAP, plan, fills and exits."""
    figure = candle_figure(bars, zone=zone)
    if bars.empty:
        return figure
    step = int(bars["ts_ms"].diff().min()) if len(bars) > 1 else 60_000
    end_ms = int(bars["ts_ms"].iloc[-1]) + _ROOM_BARS * step
    impulse = _impulse(bars, signal)
    if impulse is not None:
        _add_fibonacci(figure, signal, impulse, end_ms=end_ms, zone=zone)
        _add_avwap(figure, bars, signal, zone)
        _add_impulse(figure, signal, impulse, zone)
    _add_boxes(figure, signal, end_ms=end_ms, zone=zone)
    _add_levels(figure, bars, signal, end_ms=end_ms, zone=zone)
    _add_marks(figure, signal, zone)
    low, high = _span(bars, signal)
    figure.update_yaxes(range=[low, high], row=1, col=1)
    # What the reader zoomed to stays while the same candidate is shown.
    return figure.update_layout(uirevision=str(signal["id"]))


def _span(bars: pd.DataFrame, signal: dict[str, Any]) -> tuple[float, float]:
    """The prices shown: shapes do not widen an axis by themselves."""
    levels = [float(signal[name]) for name, *_ in _LEVELS]
    low = min(float(bars["low"].min()), *levels)
    high = max(float(bars["high"].max()), *levels)
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _impulse(bars: pd.DataFrame, signal: dict[str, Any]) -> tuple[float, float] | None:
    """The prices of P0 and P1, or None where their bars are not stored."""
    by_time = bars.set_index("ts_ms")
    if signal["p0_ms"] not in by_time.index or signal["p1_ms"] not in by_time.index:
        return None
    ends = ("low", "high") if signal["direction"] == "long" else ("high", "low")
    p0, p1 = (float(by_time.loc[signal[f"p{k}_ms"], ends[k]]) for k in (0, 1))
    return p0, p1


def _add_fibonacci(
    figure: go.Figure,
    signal: dict[str, Any],
    impulse: tuple[float, float],
    *,
    end_ms: int,
    zone: str,
) -> None:
    """Retracements of the impulse, thin, named at their left end."""
    start, end = local_time(signal["p0_ms"], zone), local_time(end_ms, zone)
    for ratio in FIBONACCI:
        price = retracement(*impulse, ratio)
        _line(figure, start, end, price, {"color": NEUTRAL, "width": 0.6, "dash": "dot"})
        figure.add_annotation(
            x=start,
            y=price,
            text=f"{ratio:g}",
            showarrow=False,
            xanchor="right",
            font={"color": NEUTRAL, "size": 10},
        )


def _line(figure: go.Figure, x0: Any, x1: Any, y: float, line: dict[str, Any]) -> None:
    figure.add_shape(type="line", x0=x0, x1=x1, y0=y, y1=y, line=line, row=1, col=1)


def _add_avwap(figure: go.Figure, bars: pd.DataFrame, signal: dict[str, Any], zone: str) -> None:
    """The volume-weighted average price from the impulse's start on."""
    anchor = int(np.searchsorted(bars["ts_ms"].to_numpy(), signal["p0_ms"]))
    columns = (bars[name].to_numpy(np.float64) for name in ("high", "low", "close", "volume"))
    line = avwap(*columns, anchor)[anchor:]
    figure.add_scatter(
        x=local_times(bars["ts_ms"].iloc[anchor:], zone),
        y=line,
        mode="lines",
        line={"color": "#a855f7", "width": 1.5},
        hovertemplate="%{y:.6g}",
        name="AVWAP",
        row=1,
        col=1,
    )


def _add_impulse(
    figure: go.Figure, signal: dict[str, Any], impulse: tuple[float, float], zone: str
) -> None:
    below, above = "bottom center", "top center"
    figure.add_scatter(
        x=local_times([signal["p0_ms"], signal["p1_ms"]], zone),
        y=list(impulse),
        mode="lines+markers+text",
        line={"color": ACCENT, "width": 2},
        marker={"size": 7, "color": ACCENT},
        text=["P0", "P1"],
        textposition=[below, above] if signal["direction"] == "long" else [above, below],
        textfont={"color": ACCENT},
        hoverinfo="skip",
        name="impulse",
        row=1,
        col=1,
    )


def _add_boxes(figure: go.Figure, signal: dict[str, Any], *, end_ms: int, zone: str) -> None:
    """What the trade may lose and win, over its time: from the decision to its end."""
    done_ms = signal["closed_ts_ms"] or end_ms
    start, end = local_time(signal["decided_ms"], zone), local_time(min(done_ms, end_ms), zone)
    for to, colour, opacity in (("sl", DOWN, 0.13), ("tp1", UP, 0.13), ("tp2", UP, 0.06)):
        figure.add_shape(
            type="rect",
            x0=start,
            x1=end,
            y0=float(signal["entry"]),
            y1=float(signal[to]),
            fillcolor=colour,
            opacity=opacity,
            line={"width": 0},
            layer="below",
            row=1,
            col=1,
        )


def _add_levels(
    figure: go.Figure,
    bars: pd.DataFrame,
    signal: dict[str, Any],
    *,
    end_ms: int,
    zone: str,
) -> None:
    decided, end = local_time(signal["decided_ms"], zone), local_time(end_ms, zone)
    low, high = _span(bars, signal)
    levels = [(float(signal[name]), label, colour, dash) for name, label, colour, dash in _LEVELS]
    moved = signal["stop_now"]
    if signal["status"] == "OPEN" and moved is not None and moved != signal["sl"]:
        levels.append((float(moved), "Stop now", DOWN, "dot"))
    places = spread([price for price, *_ in levels], _LABEL_SHARE * (high - low))
    for (price, label, colour, dash), y in zip(levels, places, strict=True):
        _line(figure, decided, end, price, {"color": colour, "width": 1.4, "dash": dash})
        figure.add_annotation(
            x=end,
            y=y,
            text=f"{label} {price_text(price)}",
            showarrow=False,
            xanchor="right",
            yanchor="bottom",
            font={"color": colour, "size": 11},
        )


def spread(values: list[float], apart: float) -> list[float]:
    """Return where labels go so that none covers another: in their order, at least `apart`.

    >>> spread([1.0, 5.0, 1.5], 1.0)
    [1.0, 5.0, 2.0]
    """
    out, last = list(values), -math.inf
    for i in sorted(range(len(values)), key=values.__getitem__):
        out[i] = last = max(values[i], last + apart)
    return out


def _add_marks(figure: go.Figure, signal: dict[str, Any], zone: str) -> None:
    """The fill, the part that left at TP1, and the end."""
    up = "triangle-up" if signal["direction"] == "long" else "triangle-down"
    if signal["opened_ts_ms"]:
        at = (signal["opened_ts_ms"], signal["opened_price"])
        _mark(figure, at, name="filled", symbol=up, colour=ENTRY, zone=zone)
    if signal["tp1_ts_ms"]:
        at = (signal["tp1_ts_ms"], signal["tp1"])
        _mark(figure, at, name="part out at TP1", symbol="diamond", colour=UP, zone=zone)
    if signal["status"] in CLOSED and signal["exit_price"] is not None:
        colour = UP if (signal["r_multiple"] or 0) > 0 else DOWN
        at = (signal["closed_ts_ms"], signal["exit_price"])
        name = f"exit: {signal['exit_reason']}"
        _mark(figure, at, name=name, symbol="x", colour=colour, zone=zone)


def _mark(
    figure: go.Figure,
    at: tuple[int, float],
    *,
    name: str,
    symbol: str,
    colour: str,
    zone: str,
) -> None:
    figure.add_scatter(
        x=local_times([at[0]], zone),
        y=[at[1]],
        mode="markers",
        marker={
            "symbol": symbol,
            "size": 12,
            "color": colour,
            "line": {"color": "white", "width": 1},
        },
        customdata=[utc_text(at[0])],
        hovertemplate="%{y:.6g}, %{customdata}",
        name=name,
        row=1,
        col=1,
    )
