"""Health: is the model calibrated, are the data fresh and whole, does the engine run."""

from __future__ import annotations

from typing import Any

import streamlit as st

from core import views
from core.pages import cached
from core.pages.parts import chart, plain, table

_TABS = ("Model", "Data", "System")
_FRESH = {
    "exchange": "exchange",
    "symbol": "symbol",
    "timeframe": "timeframe",
    "age_ms": "age_ms",
    "last_ms": "newest bar_ms",
    "first_ms": "first bar_ms",
    "n_rows": "bars",
    "n_missing": "missing",
    "n_unknown_gaps": "holes not settled",
    "n_revised": "revised",
}


def health_page(place: views.Place) -> None:
    """Show the model, the data and the system."""
    model, data, system = st.tabs(_TABS, key="health", on_change="rerun", bind="query-params")
    for tab, show in ((model, _model), (data, _data), (system, _system)):
        if tab.open:
            with tab:
                show(place)


def _model(place: views.Place) -> None:
    found = cached.model_health(views.version(place.db_path))
    if found["bundle"] is None:
        st.info("No model has been trained for this strategy yet: what the plan allows is ungated.")
        return
    st.markdown(f"**Bundle {plain(found['bundle'])}** {plain(found['state'])}")
    st.subheader("Calibration", anchor=False)
    st.caption(plain(views.calibration_text(found["calibration"])))
    if found["calibration"].get("n"):
        chart(views.reliability_figure(found["calibration"]), "reliability", "reliability")
    st.subheader("Certificates and thresholds in force", anchor=False)
    table(found["cells"], place.zone, empty="Nothing has been tuned yet: nothing is certified.")
    _importance(found)
    st.subheader("Walk-forward windows", anchor=False)
    table(found["windows"], place.zone, empty="No out-of-fold score is stored.")
    st.subheader("Bundles", anchor=False)
    table(found["history"], place.zone, empty="No bundle.")


def _importance(found: dict[str, Any]) -> None:
    """Show what the model learnt from, beside what it said of late."""
    learnt, said = st.columns(2)
    with learnt:
        st.subheader("Importance", anchor=False)
        if found["gain"]:
            st.caption("What the model learnt from: the gain of its trees' splits, by feature.")
            chart(views.gain_figure(found["gain"]), "gain", "importance by gain")
        else:
            st.caption(
                "This bundle was trained before gains were kept: the next training has them."
            )
    with said:
        st.subheader("What moved the scores", anchor=False)
        if found["importance"].empty:
            st.caption("No score has stored its reasons yet.")
            return
        st.caption(f"The strongest reasons stored with the newest {found['n_judged']:,} scores.")
        chart(views.importance_figure(found["importance"]), "importance", "reasons counted")


def _data(place: views.Place) -> None:
    st.subheader("Pairs and timeframes", anchor=False)
    st.caption(
        "Age: market time less the newest close. Missing: bars inside holes that are not settled"
        " as minutes without trades. Revised: bars the exchange changed later."
    )
    fresh = views.freshness(place.db_path)
    order = [name for name in _FRESH if name in fresh.columns]
    table(fresh[order].rename(columns=_FRESH), place.zone, empty="No candle is stored.")
    st.subheader("Imported ranges", anchor=False)
    imported = views.sources(place.db_path)
    if imported.empty:
        st.caption("All candles come from the exchange.")
    else:
        share = st.column_config.NumberColumn("share of the series", format="percent")
        st.dataframe(imported, hide_index=True, column_config={"share": share})
    st.subheader("Size", anchor=False)
    st.caption(plain(views.sizes_text(views.sizes(place.db_path))))


def _system(place: views.Place) -> None:
    st.caption(plain(views.parity_text(place.db_path)))
    st.subheader("Jobs", anchor=False)
    ms = st.column_config.NumberColumn(format="%.0f")
    found = views.latencies(place.db_path)
    if found.empty:
        st.info("No job has run yet.")
    else:
        numbers = dict.fromkeys(("median, ms", "p95, ms", "longest, ms"), ms)
        written = found.assign(
            done_ms=[views.clock_text(at, place.zone) for at in found["done_ms"]]
        )
        shown = written.rename(columns={"done_ms": "done for"})
        st.dataframe(shown, hide_index=True, column_config=numbers)
    st.subheader("Runs that failed", anchor=False)
    table(views.errors(place.db_path), place.zone, empty="None is stored.")
    st.subheader("Outbox", anchor=False)
    table(views.waiting(place.db_path), place.zone, empty="No message has been queued yet.")
    st.subheader("Files and versions", anchor=False)
    st.caption(plain(views.sizes_text(views.sizes(place.db_path))))
    st.caption(plain(views.versions()))
