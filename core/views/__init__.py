"""Questions asked of the database, read-only: each opens a short connection and closes it."""

from core.domain import Series
from core.views.figures import (
    candle_figure,
    coverage_figure,
    equity_figure,
    histogram_figure,
    local_time,
    local_times,
    signal_figure,
)
from core.views.health import freshness, jobs, outbox, sources
from core.views.model import Coverage, coverage, ml_p_histogram
from core.views.reading import Place, place, reading
from core.views.results import (
    BOOKS,
    BY,
    THIN_N_EFF,
    Book,
    Results,
    as_json,
    breakdown,
    equity,
    results,
)
from core.views.signals import (
    Filters,
    candles_around,
    choices,
    latest_signals,
    recent_candles,
    signal_detail,
)
from core.views.state import EvidenceState, Health, State, state, version
from core.views.tables import METRICS_NOTE, breakdown_table, coverage_table, metrics_table

__all__ = [
    "BOOKS",
    "BY",
    "METRICS_NOTE",
    "THIN_N_EFF",
    "Book",
    "Coverage",
    "EvidenceState",
    "Filters",
    "Health",
    "Place",
    "Results",
    "Series",
    "State",
    "as_json",
    "breakdown",
    "breakdown_table",
    "candle_figure",
    "candles_around",
    "choices",
    "coverage",
    "coverage_figure",
    "coverage_table",
    "equity",
    "equity_figure",
    "freshness",
    "histogram_figure",
    "jobs",
    "latest_signals",
    "local_time",
    "local_times",
    "metrics_table",
    "ml_p_histogram",
    "outbox",
    "place",
    "reading",
    "recent_candles",
    "results",
    "signal_detail",
    "signal_figure",
    "sources",
    "state",
    "version",
]
