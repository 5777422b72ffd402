"""What is kept between refreshes: dropped as soon as the version of the data moves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from core import views

Version = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """The record of a strategy, ready to be shown; `found` is asked only for breakdowns."""

    found: views.Results
    metrics: pd.DataFrame
    curves: dict[tuple[str, str], pd.DataFrame]


@dataclass(frozen=True, slots=True)
class Worth:
    """What the model's scores were worth."""

    coverage: views.Coverage
    histograms: dict[str, pd.DataFrame]
    promised: dict[str, pd.DataFrame]


# The record of 300 000 candidates is 100 MB: one is kept, and not copied at every refresh.
@st.cache_resource(max_entries=1, show_spinner="reading the record")
def record(version: Version) -> Record:
    """Return the record; the first of `version` is the database's path."""
    found = views.results(Path(version[0]))
    return Record(found, views.metrics_table(found), views.book_curves(found))


@st.cache_data(max_entries=2, show_spinner="reading the gate's record")
def lift(version: Version) -> views.GateLift | None:
    """Return what the gate passed beside what it rejected."""
    return views.gate_record(record(version).found)


@st.cache_data(max_entries=32, show_spinner=False)
def breakdown(version: Version, book: str, by: str) -> pd.DataFrame:
    """Return one breakdown of the record."""
    return views.breakdown(record(version).found, book, by)


@st.cache_data(max_entries=2, show_spinner="reading the scores")
def worth(version: Version) -> Worth:
    """Return coverage, histograms and promised against realised."""
    whole = record(version).found
    found = views.scores(Path(version[0]), strategy=whole.strategy, rows=whole.rows)
    return Worth(views.coverage(found), views.ml_p_histogram(found), views.promised(found))


@st.cache_data(max_entries=2, show_spinner=False)
def meter(version: Version) -> views.Meter:
    """Return the evidence meter."""
    return views.meter(Path(version[0]))


@st.cache_data(max_entries=2, show_spinner=False)
def choices(version: Version) -> dict[str, list[str]]:
    """Return what can be filtered by."""
    return views.choices(Path(version[0]))


@st.cache_data(max_entries=2, show_spinner=False)
def model_health(version: Version) -> dict[str, Any]:
    """Return what is known of the models."""
    return views.model_health(Path(version[0]))
