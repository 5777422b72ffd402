"""The first screen: what to do now, the chosen signal on its candles, and all the others."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from core import views
from core.pages import cached
from core.pages.head import show_meter
from core.pages.parts import chart, let_tables_come_first, plain, still_table, times_hint
from core.timeframe import DAY_MS

_FILTERS = ("symbol", "timeframe", "setup", "direction", "gate", "delivery")
_FILTER_WIDTH = 168  # two beside each other on a phone
_PERIODS = {"all": None, "24 hours": 1, "7 days": 7, "30 days": 30, "1 year": 365}


def signals_page(place: views.Place, state: views.State) -> None:
    """Show the desk, the chosen candidate, and the table."""
    if state.health is views.Health.NO_CANDLES:
        return
    evidence = st.container()  # filled last: a year of trades is looked at when the data have moved
    desk = views.desk(place.db_path)
    _desk(desk)
    shown = st.container()
    st.subheader("Latest candidates", anchor=False)
    filters = _chosen_filters(place, state)
    found = views.latest_signals(place.db_path, filters)
    first = desk.calls[0].id if desk.calls and filters == views.Filters() else None
    number = _table_choice(found, place.zone, first=first)
    with shown:
        if number is None:
            if state.n_signals:
                st.info("No candidate passes these filters.")
            _recent(place, state)
        else:
            _signal(place, number)
    with evidence:
        show_meter(place)


def _desk(desk: views.Desk) -> None:
    st.subheader(f"Do now: {plain(desk.sentence)}", anchor=False)
    for is_live in (True, False):
        calls = [call for call in desk.calls if call.is_live is is_live]
        if calls:
            with st.container(border=True):
                for call in calls:
                    _row(call)
    hidden = desk.n_live + desk.n_paper - len(desk.calls)
    if hidden:
        more = "1 more is" if hidden == 1 else f"{hidden} more are"
        st.caption(f"{more} followed; see the table below.")


def _row(call: views.Call) -> None:
    """Show one open signal: its next act, where the price stands, and how long it has."""
    words, bar, figures = st.columns([5, 3.5, 3.5], vertical_alignment="center")
    with words:
        row = st.container(horizontal=True, wrap=False, vertical_alignment="center", gap="small")
        if call.is_live:
            row.badge("LIVE", icon=":material/bolt:", color="green")
        else:
            row.badge("PAPER", icon=":material/description:", color="gray")
        act = plain(call.act[:1].upper() + call.act[1:])
        row.markdown(f"**{plain(call.title)}**  \n:small[{act}]", width="stretch")
    bar.image(views.gauge_svg(call.gauge), width="stretch", alt=views.gauge_text(call.gauge))
    with figures:
        row = st.container(horizontal=True, wrap=False, gap="small", vertical_alignment="center")
        now = "no R yet" if call.r_now is None else f"{call.r_now:+.2f} R now"
        price = f"price {views.price_text(call.price)}"
        row.markdown(f"**{plain(now)}**  \n:small[{plain(price)}]", width="stretch")
        left = f"{views.span(call.left_ms)} left"
        row.markdown(f"{plain(call.status.lower())}  \n:small[{plain(left)}]", width="stretch")
        row.button("Show", key=f"show-{call.id}", on_click=_choose, args=(call.id,))


def _choose(number: int) -> None:
    st.query_params["signal"] = str(number)


def _chosen_filters(place: views.Place, state: views.State) -> views.Filters:
    """Show one choice for each filter and return what is chosen; the link keeps it."""
    values = cached.choices(views.version(place.db_path))
    row = st.container(horizontal=True, gap="small")
    chosen: dict[str, Any] = {
        name: tuple(
            row.multiselect(
                name,
                values[name],
                key=name,
                placeholder="all",
                bind="query-params",
                width=_FILTER_WIDTH,
            )
        )
        for name in _FILTERS
    }
    period = row.selectbox(
        "period", list(_PERIODS), key="period", bind="query-params", width=_FILTER_WIDTH
    )
    days = _PERIODS[period or "all"]
    since = None if days is None or state.market_ms is None else state.market_ms - days * DAY_MS
    return views.Filters(**chosen, since_ms=since)


def _table_choice(found: pd.DataFrame, zone: str, *, first: int | None) -> int | None:
    """Show the table and return the id chosen: in it, by the link, the desk's first, the newest."""
    wanted = st.query_params.get("signal", "")
    is_number = wanted.isascii() and wanted.isdigit() and len(wanted) < 16  # anybody writes links
    linked = int(wanted) if is_number else None
    if found.empty:
        return linked
    ids = [int(number) for number in found["id"]]
    chosen = linked or first or ids[0]
    # New rows shift positions: a key of its own for each list keeps the mark on the same id.
    key = f"candidates-{hash((chosen, *ids))}"
    rows = [ids.index(chosen)] if chosen in ids else []
    event = st.dataframe(
        _written(found, zone),
        key=key,
        on_select="rerun",
        selection_mode="single-row",
        selection_default={"selection": {"rows": rows, "columns": [], "cells": []}},
        hide_index=True,
        height=380,
        placeholder=views.NOTHING,
        column_config=_columns(zone),
    )
    marked = event["selection"]["rows"]
    if marked and ids[marked[0]] != chosen:
        chosen = ids[marked[0]]
        st.query_params["signal"] = str(chosen)
    return chosen


def _written(found: pd.DataFrame, zone: str) -> pd.DataFrame:
    shown = found.drop(columns=["gate_reason", "delivery_reason", "decided_ms"])
    shown.insert(1, "decided", views.local_times(found["decided_ms"], zone))
    return shown


def _columns(zone: str) -> dict[str, Any]:
    """Return how the table of candidates is written."""
    number = st.column_config.NumberColumn
    instant = st.column_config.DatetimeColumn
    names = {"entry": "entry", "sl": "stop", "tp1": "TP1", "tp2": "TP2"}
    prices = {name: number(label, format="%.6g") for name, label in names.items()}
    shares = {"p_mart": "coin flip p", "ml_p": "model p"}
    in_r = {"ev_r": "EV (R)", "cost_r": "cost (R)", "r_multiple": "net (R)"}
    return {
        "id": number("#", format="%d", pinned=True),
        "decided": instant("decided", format="YYYY-MM-DD HH:mm", help=times_hint(zone)),
        **prices,
        **{name: number(label, format="percent") for name, label in shares.items()},
        **{name: number(label, format="%.2f") for name, label in in_r.items()},
        "exit_reason": st.column_config.TextColumn("exit", width=120),
    }


def _signal(place: views.Place, number: int) -> None:
    """Show one candidate: its head line, its chart, and beside it plan, worth and reasons."""
    signal = views.signal_detail(place.db_path, number)
    if signal is None:
        st.info(f"There is no candidate #{number}.")
        return
    row = st.container(horizontal=True, vertical_alignment="center", gap="small")
    row.badge(plain(views.kind_text(signal)), color="green" if views.is_live(signal) else "gray")
    row.subheader(plain(views.headline(signal)), anchor=False, width="content")
    picture, beside = st.columns([3, 1.15])
    with beside:
        _beside(signal, place.zone)
    with picture:
        bars = views.candles_around(place.db_path, signal)
        if bars.empty:
            st.info("Its candles are not stored.")
        else:
            figure = views.signal_figure(bars, signal, zone=place.zone)
            let_tables_come_first()
            chart(figure, f"chart-{number}", views.headline(signal))


def _beside(signal: dict[str, Any], zone: str) -> None:
    why = views.why_of(signal["why"])
    still_table(views.plan_table(signal))
    st.markdown(plain(views.stake_text(signal)))
    st.markdown(f"**Chance to win** {plain(views.chance_text(signal))}")
    st.markdown(f"**Expected** {plain(views.worth_text(signal))}")
    for side, title in (("for", "For"), ("against", "Against")):
        said = views.reasons(why, side)
        if said:
            st.markdown(f"**{title}** {plain('; '.join(said))}")
    st.markdown(f"**Record** {plain(views.band_text(why))}")
    steps = [f"{what} {when}" for what, when, _ in views.timeline(signal, zone)]
    in_utc = "; ".join(f"{what} {utc}" for what, _, utc in views.timeline(signal, zone))
    st.caption(plain("; ".join(steps)), help=plain(in_utc))
    st.caption(plain(f"{views.verdict_of(signal)} {views.model_text(signal, why)}"))
    st.caption(plain(signal["rationale"]))


def _recent(place: views.Place, state: views.State) -> None:
    """Show the newest candles of a series, where there is no candidate to show."""
    fresh = views.freshness(place.db_path)
    if fresh.empty or state.market_ms is None:
        return
    names = [tuple(row) for row in fresh[["exchange", "symbol", "timeframe"]].to_numpy()]
    label = st.selectbox("Series", [" ".join(name) for name in names], key="series")
    series = views.Series(*names[[" ".join(name) for name in names].index(label)])
    bars = views.recent_candles(place.db_path, series, n=200, until_ms=state.market_ms)
    chart(views.candle_figure(bars, zone=place.zone), "recent", f"candles of {label}")
