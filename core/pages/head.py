"""The head of every page: may this be believed, how old are the data, and what the evidence is."""

from __future__ import annotations

import time
from dataclasses import replace

import streamlit as st

from core import views
from core.pages import cached
from core.pages.parts import plain

_STOPPED_MS = 5 * 60_000
_OLD_MS = 3 * 60_000  # data older than this cannot be followed
_COLOURS = {"CERTIFIED": "green", "UNCERTIFIED": "gray", "DEGRADED": "red"}
_ICONS = {
    "CERTIFIED": ":material/verified:",
    "UNCERTIFIED": ":material/help:",
    "DEGRADED": ":material/warning:",
}


def show_head(place: views.Place) -> tuple[views.Place, views.State]:
    """Show the state bar; return the place, in UTC where that is chosen, and what was found.

    A sick database explains itself.
    """
    state = views.state(place.db_path)
    if state.banner:
        st.warning(plain(state.banner), icon=":material/science:")
    if not state.is_readable:
        st.error(plain(state.sentence), icon=":material/database_off:")
        return place, state
    with st.container(border=True):
        proof, ages = st.columns(2, vertical_alignment="center")
        with ages:
            place = _ages(place, state)
        with proof:
            _proof(place, state)
    if state.sentence:
        st.info(plain(state.sentence))
    return place, state


def _proof(place: views.Place, state: views.State) -> None:
    word = state.evidence.word
    since = state.evidence.since_ms
    hint = "" if since is None else f"since {views.clock_text(since, place.zone)}"
    row = st.container(horizontal=True, vertical_alignment="center", gap="small")
    row.badge(word, icon=_ICONS[word], color=_COLOURS[word], help=hint or None)  # type: ignore[arg-type]
    row.markdown(plain(state.evidence.sentence), width="content")
    if is_stopped(state):
        st.markdown(f":orange[:material/warning: {plain(engine_text(state))}]")
    else:
        st.caption(plain(engine_text(state)))


def _ages(place: views.Place, state: views.State) -> views.Place:
    """Show market time, age and next close; return the place in the zone chosen."""
    row = st.container(horizontal=True, gap="small", vertical_alignment="center")
    cells = [row.container(width="content") for _ in range(3)]
    hint = f"Every time on this page in UTC instead of {plain(place.zone)}"
    if place.zone != "UTC" and row.toggle("UTC", key="utc", bind="query-params", help=hint):
        place = replace(place, zone="UTC")
    left = (state.next_close_ms or 0) - (state.market_ms or 0)
    soon = views.NOTHING if state.next_close_ms is None else f"in {views.span(left)}"
    close = views.clock_text(state.next_close_ms, place.zone)
    facts = (
        (
            "Market time",
            views.clock_text(state.market_ms, place.zone),
            f"{place.zone}; {views.utc_text(state.market_ms)}",
        ),
        ("Data age", age_text(state), "Market time less the newest stored close"),
        ("Next close", soon, f"{close} {place.zone}; {views.utc_text(state.next_close_ms)}"),
    )
    for cell, (label, value, hint) in zip(cells, facts, strict=True):
        cell.markdown(f":small[{label}]  \n**{plain(value)}**", help=plain(hint), width="content")
    return place


def age_text(state: views.State) -> str:
    """Return the age of the newest candle; without a tick it is the only clock, and has none."""
    if not state.ticked or state.data_ms is None or state.market_ms is None:
        return "–"
    age_ms = state.market_ms - state.data_ms
    return f"{views.span(age_ms)}{' old!' if age_ms > _OLD_MS else ''}"


def is_stopped(state: views.State) -> bool:
    """Say whether the engine that ticked once has ceased to, by this machine's own time."""
    if not state.ticked or state.wall_ms is None:
        return False
    return time.time() * 1000 - state.wall_ms > _STOPPED_MS


def engine_text(state: views.State) -> str:
    """Say how the clock runs and when it last ticked by this machine's own time."""
    if not state.ticked or state.wall_ms is None:
        return "No scheduler has run; this is the newest candle."
    ago_ms = time.time() * 1000 - state.wall_ms
    pace = {1.0: "Live", 0.0: "Stepped replay"}.get(
        state.speed or 0.0, f"Replay at {state.speed:g}x"
    )
    if is_stopped(state):
        return f"{pace}; the engine does not run: its last tick was {views.span(ago_ms)} ago."
    return f"{pace}; the engine ticked {views.span(ago_ms)} ago."


def show_meter(place: views.Place) -> None:
    """Show the evidence meter: net R against 0, its sample, and the time to proof."""
    found = cached.meter(views.version(place.db_path))
    with st.container(border=True):
        figure, words = st.columns([2, 3], vertical_alignment="center")
        figure.markdown(f"**Net R a trade: {plain(views.meter_text(found))}**")
        figure.image(views.meter_svg(found), width="stretch", alt=views.meter_text(found))
        words.caption(plain(f"{found.subject}: {views.sample_text(found)}."))
        words.caption(plain(f"{found.proof} {found.basis}"))
