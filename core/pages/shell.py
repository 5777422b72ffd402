"""The frame of the dashboard: one config file, the head, three pages, and the refresh."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from core import views
from core.errors import TraderError
from core.pages.head import show_head
from core.pages.health import health_page
from core.pages.parts import guarded, plain
from core.pages.results import results_page
from core.pages.signals import signals_page

REFRESH_S = 10
PAGES = ("Signals & Candles", "Results", "Health")


def show(config_path: Path, *, icon: Path) -> None:
    """Show the dashboard of one config file; a named icon would be fetched from the web."""
    st.set_page_config(page_title="Trader_AI", page_icon=str(icon), layout="wide")
    try:
        place = views.place(config_path)
    except TraderError as error:
        st.error(plain(error))
        return
    st.fragment(lambda: _body(place), run_every=REFRESH_S)()


def _body(place: views.Place) -> None:
    """Show the state bar and the open page; the fragment that refreshes runs all of it."""
    place, state = show_head(place)
    if not state.is_readable:
        return
    tabs = st.tabs(PAGES, key="page", on_change="rerun", bind="query-params")
    pages: tuple[Callable[[], None], ...] = (
        lambda: signals_page(place, state),
        lambda: results_page(place, state),
        lambda: health_page(place),
    )
    for tab, page in zip(tabs, pages, strict=True):
        if tab.open:
            with tab:
                guarded(page)
