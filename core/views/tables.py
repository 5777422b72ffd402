"""Tables in words, as pages and reports show them: a win-rate never without the coin flip's."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from core import performance
from core.views.model import Coverage
from core.views.results import Book, Results

METRICS_NOTE = (
    f"In brackets the {performance.LEVEL:.0%} interval; n_eff is what the overlapping trades are"
    " worth as independent ones. A stop comes sooner than a target, so rates count only trades"
    " whose candidates have matured; totals and drawdown count every closed trade. All net of"
    " fees, slippage and funding."
)
_RATES = (
    "counted trades n (n_eff)",
    "win-rate",
    "net R a trade",
    "gross R − costs",
    "mean win / mean loss R",
    "profit factor",
    "Sharpe / Sortino a trade",
    "ambiguous minutes",
)


def percent(value: float, digits: int = 1) -> str:
    """Return a fraction as percent in words, a dash where there is none."""
    return "–" if not math.isfinite(value) else f"{100 * value:.{digits}f} %"


def number(value: float, digits: int = 2) -> str:
    """Return a number in words, a dash where there is none."""
    return "–" if not math.isfinite(value) else f"{round(value, digits) + 0.0:.{digits}f}"


def _ranged(write: Any, value: float, low: float, high: float) -> str:
    return f"{write(value)} [{write(low)}, {write(high)}]"


def win_rate_text(m: Any) -> str:
    """Return a win-rate with its interval and, always, the coin flip's beside it."""
    rate = _ranged(percent, m.win_rate, m.win_rate_lo, m.win_rate_hi)
    return f"{rate}; coin flip {percent(m.p_mart)}"


def mean_r_text(m: Any) -> str:
    """Return the mean net R with its interval."""
    return _ranged(number, m.mean_r, m.mean_r_lo, m.mean_r_hi)


def metrics_table(found: Results) -> pd.DataFrame:
    """Return the three books side by side in words, one figure a row."""
    columns = {book.title: _column(book) for book in found.books.values()}
    names = list(next(iter(columns.values())))
    table = {"figure": names}
    table |= {title: [column[name] for name in names] for title, column in columns.items()}
    return pd.DataFrame(table)


def _column(book: Book) -> dict[str, str]:
    account = {
        "candidates": f"{book.n_candidates}",
        "pending / open": f"{book.n_pending} / {book.n_open}",
        "never filled": f"{book.n_unfilled}",
        "closed trades (too young to count)": f"{book.n_closed} ({book.n_young})",
        "net total": f"{book.total_r:+.2f} R ({book.total_usd:+.2f} USD)",
        "deepest drawdown": f"{number(book.max_drawdown_r)} R",
    }
    m = book.metrics
    if m is None:
        return account | dict.fromkeys(_RATES, "–")
    rates = (
        f"{m.n} ({int(m.n_eff)})",
        win_rate_text(m),
        mean_r_text(m),
        f"{number(m.mean_gross_r)} − {number(m.cost_r)}",
        f"{number(m.mean_win_r)} / {number(m.mean_loss_r)}",
        number(m.profit_factor),
        f"{number(m.sharpe)} / {number(m.sortino)}",
        percent(m.ambiguous_share),
    )
    return account | dict(zip(_RATES, rates, strict=True))


def breakdown_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return a breakdown in words, under the name of its first column; thin cells say so."""
    by = str(table.columns[0])
    return pd.DataFrame(
        {
            by: table[by],
            "n": table["n"],
            "n_eff": table["n_eff"].astype("int64"),
            "win-rate beside the coin flip's": [win_rate_text(m) for m in table.itertuples()],
            "net R a trade": [mean_r_text(m) for m in table.itertuples()],
            "sample": ["too small" if thin else "" for thin in table["is_thin"]],
        }
    )


def coverage_table(found: Coverage) -> pd.DataFrame:
    """Return a coverage table in words."""
    rows: list[Any] = list(found.table.itertuples())
    return pd.DataFrame(
        {
            "taken, best first": [percent(row.coverage, 0) for row in rows],
            "from score": [number(row.lowest_score, 3) for row in rows],
            "n (n_eff)": [f"{row.n} ({int(row.n_eff)})" for row in rows],
            "win-rate beside the coin flip's": [win_rate_text(row) for row in rows],
            "net R a trade": [mean_r_text(row) for row in rows],
        }
    )
