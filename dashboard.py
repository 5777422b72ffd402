"""The dashboard: candidates on their candles, the record with its intervals, the engine's health.

Example: streamlit run dashboard.py -- --config config.yaml

It only reads. It listens on 127.0.0.1 (see .streamlit/config.toml); to reach it from elsewhere
use an SSH tunnel or a reverse proxy that asks for a login.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from core import views
from core.errors import TraderError

REFRESH_S = 10
ICON = Path(__file__).resolve().parent / "docs" / "icon.png"  # a named icon is fetched from the web
PAGES = ("Signals & Candles", "Results", "Health")
_CHART = {"displaylogo": False, "displayModeBar": "hover"}
_STOPPED_MS = 5 * 60_000


def config_path() -> Path:
    """Return the config file named after `--`, else by TRADER_CONFIG, else config.yaml."""
    parser = argparse.ArgumentParser(prog="dashboard.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--config", default=os.environ.get("TRADER_CONFIG", "config.yaml"))
    known, _ = parser.parse_known_args(sys.argv[1:])
    return Path(known.config)


def plain(text: object) -> str:
    """Return text that Markdown shows as it stands."""
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~$:-])", r"\\\1", str(text))


def span(ms: float | None) -> str:
    """Return a length of time in one or two units."""
    if ms is None or pd.isna(ms):
        return "unknown"
    seconds = int(abs(ms) // 1000)
    for unit, length, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit} {seconds % length // part} {smaller}"
    return f"{seconds // 60} min" if seconds >= 60 else f"{seconds} s"


def clock_text(ms: int | None, zone: str) -> str:
    """Return an instant in the owner's zone."""
    return "unknown" if ms is None else f"{views.local_time(ms, zone):%Y-%m-%d %H:%M}"


def guarded(page: Callable[[], None]) -> None:
    """Show a page, or the one sentence that says why it cannot be shown now."""
    try:
        page()
    except TraderError as error:
        st.error(plain(error))


@st.cache_data(max_entries=4, show_spinner=False)
def cached_results(version: tuple[Any, ...]) -> views.Results:
    """Return the record; computed anew when the version of the data has moved."""
    return views.results(Path(version[0]))


@st.cache_data(max_entries=4, show_spinner=False)
def cached_model(version: tuple[Any, ...]) -> tuple[views.Coverage, dict[str, pd.DataFrame]]:
    """Return coverage and the histograms of p; computed anew when the data has moved."""
    path = Path(version[0])
    return views.coverage(path), views.ml_p_histogram(path)


@st.cache_data(max_entries=4, show_spinner=False)
def cached_choices(version: tuple[Any, ...]) -> dict[str, list[str]]:
    """Return what can be filtered by; asked anew when the version of the data has moved."""
    return views.choices(Path(version[0]))


def show_state(place: views.Place) -> views.State:
    """Show the bar that heads every page and return what it found."""
    state = views.state(place.db_path)
    if state.banner:
        st.warning(plain(state.banner), icon=":material/science:")
    if not state.is_readable:
        st.error(plain(state.sentence), icon=":material/database_off:")
        return state
    cells = st.columns([3, 2, 2, 3])
    cells[0].metric(f"Market time ({place.zone})", clock_text(state.market_ms, place.zone))
    cells[0].caption(plain(engine_text(state)))
    # Without a tick the newest candle is the only clock there is, and has no age.
    has_age = state.ticked and state.data_ms is not None
    age = f"{span((state.market_ms or 0) - (state.data_ms or 0))} ago" if has_age else "–"
    cells[1].metric("Newest candle closed", age)
    cells[1].caption(plain(f"{state.n_series} series stored"))
    cells[2].metric("Candidates", f"{state.n_signals:,}")
    cells[2].caption(plain(f"strategy {state.strategy or 'none yet'}"))
    cells[3].metric("Evidence", state.evidence.evidence.value)
    cells[3].caption(plain(state.evidence.sentence))
    if state.sentence:
        st.info(plain(state.sentence))
    return state


def engine_text(state: views.State) -> str:
    """Say how the clock runs and when it last ticked by this machine's own time."""
    if not state.ticked or state.wall_ms is None:
        return "no scheduler has run; this is the newest candle"
    ago_ms = time.time() * 1000 - state.wall_ms
    pace = {1.0: "live", 0.0: "stepped replay"}.get(
        state.speed or 0.0, f"replay at {state.speed:g}x"
    )
    if ago_ms > _STOPPED_MS:
        return f"{pace}; the engine does not run: its last tick was {span(ago_ms)} ago"
    return f"{pace}; the engine ticked {span(ago_ms)} ago"


def signals_page(place: views.Place, state: views.State) -> None:
    """Show the chosen candidate on its candles, and the table to choose from."""
    if state.health is views.Health.NO_CANDLES:
        return
    filters = chosen_filters(place)
    found = views.latest_signals(place.db_path, filters)
    chart = st.container()
    number = table_choice(found, place.zone)
    with chart:
        if number is None:
            if state.n_signals:
                st.info("No candidate passes these filters.")
            recent_page(place, state)
        else:
            signal_chart(place, number)


def chosen_filters(place: views.Place) -> views.Filters:
    """Show one choice for each filter and return what is chosen."""
    values = cached_choices(views.version(place.db_path))
    shown = ("symbol", "timeframe", "direction", "status", "gate", "delivery")
    cells = st.columns(len(shown))
    chosen: dict[str, Any] = {
        name: tuple(
            cell.multiselect(name, sorted(values[name]), key=f"filter-{name}", placeholder="all")
        )
        for cell, name in zip(cells, shown, strict=True)
    }
    return views.Filters(**chosen)


def table_choice(found: pd.DataFrame, zone: str) -> int | None:
    """Show the table and return the id chosen in it, by the link, or the newest one's."""
    if found.empty:
        return None
    ids = [int(number) for number in found["id"]]
    wanted = st.query_params.get("signal", "")
    chosen = int(wanted) if wanted.isdigit() else ids[0]
    # New rows shift positions: a key of its own for each list keeps the mark on the same id.
    key = f"candidates-{hash(tuple(ids))}"
    rows = [ids.index(chosen)] if chosen in ids else []
    shown = found.drop(columns=["gate_reason", "delivery_reason"])
    shown.insert(1, "decided", views.local_times(found["decided_ms"], zone))
    event = st.dataframe(
        shown.drop(columns="decided_ms"),
        key=key,
        on_select="rerun",
        selection_mode="single-row",
        selection_default={"selection": {"rows": rows, "columns": [], "cells": []}},
        hide_index=True,
        height=380,
        placeholder="–",
        column_config=columns_of(zone),
    )
    marked = event["selection"]["rows"]
    if marked and ids[marked[0]] != chosen:
        chosen = ids[marked[0]]
        st.query_params["signal"] = str(chosen)
    return chosen


def columns_of(zone: str) -> dict[str, Any]:
    """Return how the table of candidates is written."""
    number = st.column_config.NumberColumn
    prices = {name: number(name.upper(), format="%.6g") for name in ("entry", "sl", "tp1", "tp2")}
    shares = {"p_mart": "coin flip p", "ml_p": "model p"}
    in_r = {"ev_r": "EV (R)", "cost_r": "cost (R)", "r_multiple": "net (R)"}
    return {
        "id": number("#", format="%d", pinned=True),
        "decided": st.column_config.DatetimeColumn(f"decided ({zone})", format="YYYY-MM-DD HH:mm"),
        **prices,
        **{name: number(label, format="percent") for name, label in shares.items()},
        **{name: number(label, format="%.2f") for name, label in in_r.items()},
        "exit_reason": "exit",
    }


def signal_chart(place: views.Place, number: int) -> None:
    """Show one candidate: its head line, its chart, and its numbers."""
    signal = views.signal_detail(place.db_path, number)
    if signal is None:
        st.info(f"There is no candidate #{number}.")
        return
    st.subheader(plain(f"#{number}  {headline(signal)}"), anchor=False)
    bars = views.candles_around(place.db_path, signal)
    if bars.empty:
        st.info("Its candles are not stored.")
    else:
        figure = views.signal_figure(bars, signal, zone=place.zone)
        st.plotly_chart(figure, key=f"chart-{number}", config=_CHART, alt=headline(signal))
    st.caption(plain(signal["rationale"]))
    st.caption(plain(verdict_text(signal)))


def headline(signal: dict[str, Any]) -> str:
    """Return a candidate in one line."""
    result = "" if signal["r_multiple"] is None else f", net {signal['r_multiple']:+.2f} R"
    return (
        f"{signal['symbol']} {signal['timeframe']} {signal['direction']} ({signal['setup']}):"
        f" {signal['status']}{result}"
    )


def verdict_text(signal: dict[str, Any]) -> str:
    """Return gate, evidence and delivery, with the model's p only beside the coin flip's."""
    p = "no model" if signal["ml_p"] is None else f"model p {signal['ml_p']:.0%}"
    ambiguous = "; order inside a minute unknown, worst case taken" if signal["ambiguous"] else ""
    revised = "; its candles were revised later" if signal["data_revised"] else ""
    return (
        f"Gate {signal['gate']} ({signal['gate_reason'] or 'no reason'}), {signal['evidence']},"
        f" delivery {signal['delivery']} ({signal['delivery_reason'] or 'no reason'}). {p}, coin"
        f" flip {signal['p_mart']:.0%}, cost {signal['cost_r']:.2f} R, regime {signal['regime']}"
        f"{ambiguous}{revised}."
    )


def recent_page(place: views.Place, state: views.State) -> None:
    """Show the newest candles of a series, where there is no candidate to show."""
    fresh = views.freshness(place.db_path)
    if fresh.empty or state.market_ms is None:
        return
    names = [tuple(row) for row in fresh[["exchange", "symbol", "timeframe"]].to_numpy()]
    label = st.selectbox("Series", [" ".join(name) for name in names], key="series")
    series = views.Series(*names[[" ".join(name) for name in names].index(label)])
    bars = views.recent_candles(place.db_path, series, n=200, until_ms=state.market_ms)
    figure = views.candle_figure(bars, zone=place.zone)
    st.plotly_chart(figure, key="recent", config=_CHART, alt=f"candles of {label}")


def results_page(place: views.Place, state: views.State) -> None:
    """Show the record on three books, then what the model's scores were worth."""
    if not state.n_signals:
        return
    version = views.version(place.db_path)
    found = cached_results(version)
    titles = {name: book.title for name, book in found.books.items()}
    st.dataframe(views.metrics_table(found), hide_index=True, height="content")
    st.caption(plain(views.METRICS_NOTE))
    book = st.segmented_control(
        "Book",
        list(titles),
        default="followed",
        format_func=lambda name: titles[name],
        key="book",
        required=True,
    )
    curve = views.equity(found, book or "followed")
    if curve.empty:
        st.info("No trade of this book has ended yet.")
    else:
        st.plotly_chart(
            views.equity_figure(curve, zone=place.zone), key="equity", config=_CHART, alt="equity"
        )
        by = st.selectbox("Break down by", views.BY, key="by")
        cells = views.breakdown(found, book or "followed", by)
        st.dataframe(views.breakdown_table(cells), hide_index=True, height="content")
        st.caption(f"Cells with an effective sample under {views.THIN_N_EFF} prove nothing alone.")
    model_section(*cached_model(version))


def model_section(coverage: views.Coverage, histograms: dict[str, pd.DataFrame]) -> None:
    """Show coverage against win-rate, and how the probabilities are spread."""
    st.subheader("Coverage against win-rate", anchor=False)
    st.caption(plain(coverage.sentence))
    if not coverage.table.empty:
        st.plotly_chart(
            views.coverage_figure(coverage.table), key="coverage", config=_CHART, alt="coverage"
        )
        st.dataframe(views.coverage_table(coverage), hide_index=True, height="content")
    st.subheader("Calibrated probabilities", anchor=False)
    for source, table in histograms.items():
        if int(table[["n_wins", "n_losses", "n_other"]].to_numpy().sum()) == 0:
            st.info(f"No scores {source} yet.")
            continue
        st.caption(source)
        st.plotly_chart(
            views.histogram_figure(table), key=f"histogram-{source}", config=_CHART, alt=source
        )


def health_page(place: views.Place) -> None:
    """Show how old the data is, what the jobs did and what waits in the outbox."""
    zone = place.zone
    st.subheader("Series", anchor=False)
    st.dataframe(times_written(views.freshness(place.db_path), zone), hide_index=True)
    imported = views.sources(place.db_path)
    if not imported.empty:
        st.subheader("Imported ranges", anchor=False)
        share = st.column_config.NumberColumn("share of the series", format="percent")
        st.dataframe(imported, hide_index=True, column_config={"share": share})
    st.subheader("Jobs", anchor=False)
    jobs = views.jobs(place.db_path)
    if jobs.empty:
        st.info("No job has run yet.")
    else:
        st.dataframe(times_written(jobs, zone), hide_index=True)
    st.subheader("Outbox", anchor=False)
    counts = views.outbox(place.db_path)
    text = ", ".join(f"{n} {name}" for name, n in sorted(counts.items())) or "no messages"
    st.write(plain(text))


def times_written(table: pd.DataFrame, zone: str) -> pd.DataFrame:
    """Return a table with its instants in a zone and its lengths of time in words."""
    written = table.copy()
    for name in table.columns:
        if name in ("age_ms", "took_ms"):
            written[name] = [span(ms) if name == "age_ms" else f"{ms:.0f} ms" for ms in table[name]]
        elif name.endswith("_ms"):
            written[name] = [
                None if pd.isna(ms) else clock_text(int(ms), zone) for ms in table[name]
            ]
    return written.rename(columns=lambda name: name.removesuffix("_ms").replace("_", " "))


def body(place: views.Place) -> None:
    """Show the state bar and the open page; the fragment that refreshes runs all of it."""
    state = show_state(place)
    if not state.is_readable:
        return
    tabs = st.tabs(PAGES, key="page", on_change="rerun")
    pages: tuple[Callable[[], None], ...] = (
        lambda: signals_page(place, state),
        lambda: results_page(place, state),
        lambda: health_page(place),
    )
    for tab, page in zip(tabs, pages, strict=True):
        if tab.open:
            with tab:
                guarded(page)


def main() -> None:
    """Show the dashboard of one config file."""
    st.set_page_config(page_title="Trader_AI", page_icon=str(ICON), layout="wide")
    try:
        place = views.place(config_path())
    except TraderError as error:
        st.error(plain(error))
        return
    st.fragment(lambda: body(place), run_every=REFRESH_S)()


main()
