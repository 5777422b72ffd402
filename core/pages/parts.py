"""What all pages share: plain text, tables with the owner's times, charts, and one-line errors."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from core import views
from core.errors import TraderError

CHART = {"displaylogo": False, "displayModeBar": "hover", "scrollZoom": False}
GREY = "color: #8a8f98"
_HEAD_START_S = 0.6


def plain(text: object) -> str:
    """Return text that Markdown shows as it stands."""
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~$:-])", r"\\\1", str(text))


def guarded(page: Callable[[], None]) -> None:
    """Show a page, or the one sentence that says why it cannot be shown now."""
    try:
        page()
    except TraderError as error:
        st.error(plain(error))


def chart(figure: Any, key: str, alt: str) -> None:
    """Show a figure; the key keeps the reader's zoom over refreshes."""
    st.plotly_chart(figure, key=key, config=CHART, alt=alt)


def let_tables_come_first() -> None:
    """On the first run of a visit, hold what follows back for a moment.

    The browser fetches the code of tables and charts when the first of each comes; that of charts
    is ten times larger, and beside it the table would appear seconds later.
    """
    if "visited" not in st.session_state:
        st.session_state["visited"] = True
        time.sleep(_HEAD_START_S)


def table(frame: pd.DataFrame, zone: str, *, empty: str) -> None:
    """Show a frame with its instants in the owner's zone, or say why there is none."""
    if frame.empty:
        st.caption(plain(empty))
        return
    st.dataframe(
        times_written(frame, zone),
        hide_index=True,
        column_config=_helped(frame, zone),
        placeholder=views.NOTHING,
    )


def still_table(frame: pd.DataFrame, thin: Sequence[bool] = ()) -> None:
    """Show a table that cannot be sorted; rows that `thin` marks are grey."""
    shown = frame.reset_index(drop=True).rename(columns=plain).map(plain)
    marks = list(thin) or [False] * len(shown)
    styled = shown.style.hide(axis="index").apply(
        lambda _: [GREY if mark else "" for mark in marks], axis=0
    )
    st.table(styled)


def times_written(frame: pd.DataFrame, zone: str) -> pd.DataFrame:
    """Return a table with its instants in a zone and its lengths of time in words."""
    written = frame.copy()
    for name in frame.columns:
        if name == "age_ms":
            written[name] = [views.span(ms) for ms in frame[name]]
        elif name.endswith("_ms"):
            written[name] = [
                None if pd.isna(ms) else views.clock_text(int(ms), zone) for ms in frame[name]
            ]
    return written.rename(columns=_title)


def _title(name: str) -> str:
    return name.removesuffix("_ms").replace("_", " ")


def _helped(frame: pd.DataFrame, zone: str) -> dict[str, Any]:
    """Say on hover of a column of instants which zone it is in, and its newest value in UTC."""
    out = {}
    for name in frame.columns:
        if name.endswith("_ms") and name != "age_ms" and frame[name].notna().any():
            newest = views.utc_text(float(frame[name].max()))
            hint = f"{times_hint(zone)} The newest is {newest}."
            out[_title(name)] = st.column_config.TextColumn(help=hint)
    return out


def times_hint(zone: str) -> str:
    """Say which zone a column of instants is in, and how to read it in UTC."""
    return (
        "UTC." if zone == "UTC" else f"{zone}. The switch UTC at the top shows every time in UTC."
    )
