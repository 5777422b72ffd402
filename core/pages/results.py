"""The record: what was earned, against chance, against the promise, and in its parts."""

from __future__ import annotations

import streamlit as st

from core import views
from core.pages import cached
from core.pages.parts import chart, plain, still_table

_ALL = "side by side"
_TABS = ("Record", "Gate and scores", "In its parts")


def results_page(place: views.Place, state: views.State) -> None:
    """Show the books with their intervals; behind tabs what gate and model were worth, and cells.

    A tab that is not open computes nothing: the record stands before the rest is asked for.
    """
    if not state.n_signals:
        return
    version = views.version(place.db_path)
    record, gate, parts = st.tabs(_TABS, key="results", on_change="rerun", bind="query-params")
    if record.open:
        with record:
            _record(cached.record(version), place.zone)
    if gate.open:
        with gate:
            _lift(cached.lift(version))
            _worth(cached.worth(version))
    if parts.open:
        with parts:
            _parts(version)


def _record(record: cached.Record, zone: str) -> None:
    for book in record.found.books.values():
        if book.n_candidates:
            st.markdown(f"**{plain(book.title)}:** {plain(views.verdict_text(book.metrics))}")
    if record.curves:
        st.subheader("Equity and distance from its high", anchor=False)
        st.caption("Net R of closed trades. Solid: lived. Faint: retro-scan, what would have been.")
        chart(views.books_figure(record.curves, zone=zone), "equity", "equity in R")
    else:
        st.info("No trade has ended yet.")
    st.subheader("Figures", anchor=False)
    still_table(record.metrics[["figure", *_chosen_books(record)]])
    st.caption(plain(views.METRICS_NOTE))


def _chosen_books(record: cached.Record) -> list[str]:
    """Let the reader choose one book or all; on a phone, which has no room for five, one."""
    titles = [book.title for book in record.found.books.values()]
    on_phone = "Mobi" in st.context.headers.get("User-Agent", "")
    chosen = st.pills(
        "Books",
        (_ALL, *titles),
        default=titles[-1] if on_phone else _ALL,
        key="books",
        required=True,
        bind="query-params",
        label_visibility="collapsed",
    )
    return titles if chosen in (None, _ALL) else [str(chosen)]


def _lift(lift: views.GateLift | None) -> None:
    st.subheader("Does the gate earn its keep?", anchor=False)
    if lift is None:
        st.info("No scored trade has ended and matured yet.")
        return
    st.markdown(plain(lift.sentence))
    still_table(views.gate_table(lift))
    st.caption(plain(views.GATE_NOTE))


def _worth(found: cached.Worth) -> None:
    st.subheader("Coverage against win-rate and net R", anchor=False)
    st.caption(plain(found.coverage.sentence))
    if not found.coverage.table.empty:
        chart(views.coverage_figure(found.coverage.table), "coverage", "coverage")
        still_table(views.coverage_table(found.coverage))
    st.subheader("Promised against realised", anchor=False)
    if any(len(table) for table in found.promised.values()):
        chart(views.promise_figure(found.promised), "promise", "promised against realised R")
        still_table(
            views.promise_table(found.promised),
            [bool(thin) for table in found.promised.values() for thin in table["is_thin"]],
        )
    else:
        st.info("No scored trade has ended yet.")
    st.subheader("Calibrated probabilities", anchor=False)
    for column, (source, table) in zip(st.columns(2), found.histograms.items(), strict=True):
        with column:
            if int(table[["n_wins", "n_losses", "n_other"]].to_numpy().sum()) == 0:
                st.info(f"No scores {source} yet.")
                continue
            st.caption(source)
            chart(views.histogram_figure(table), f"histogram-{source}", source)


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _parts(version: cached.Version) -> None:
    record = cached.record(version)
    if not record.curves:
        st.info("No trade has ended yet.")
        return
    titles = {name: book.title for name, book in record.found.books.items()}
    book = st.segmented_control(
        "Book",
        list(titles),
        default="followed",
        format_func=lambda name: titles[name],
        key="book",
        required=True,
        bind="query-params",
    )
    by = st.pills(
        "Break down by",
        views.BY,
        default=views.BY[0],
        format_func=_spaced,
        key="by",
        required=True,
        bind="query-params",
    )
    book, by = book or "followed", by or views.BY[0]
    cells = cached.breakdown(version, book, by)
    if cells.empty:
        st.info("No trade of this book has ended and matured yet.")
        return
    chart(views.cells_figure({by: cells}), f"cells-{by}", f"net R by {_spaced(by)}")
    still_table(views.breakdown_table(cells), [bool(thin) for thin in cells["is_thin"]])
    st.caption(
        f"Grey: an effective sample under {views.THIN_N_EFF}; it proves nothing alone."
        f" Nothing is ranked. {plain(views.CELLS_NOTE)}"
    )
