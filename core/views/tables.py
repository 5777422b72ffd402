"""Tables in words, as pages and reports show them: a win-rate never without the coin flip's."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from core.bootstrap import LEVEL
from core.equity import Falls
from core.performance import Metrics
from core.views.account import Account
from core.views.model import Coverage
from core.views.results import Book, Results

METRICS_NOTE = (
    f"In brackets the {LEVEL:.0%} interval; n_eff is what the overlapping trades are worth as"
    " independent ones, and it is what rates are judged by; all else is redrawn in runs of weeks."
    " A stop comes sooner than a target, so rates count only trades whose candidates have matured;"
    " totals and falls count every closed trade. All net of fees, slippage and funding. A coin flip"
    " wins as often as a price without drift meets TP1 before the stop. Marked: open trades at the"
    " stored closes, their costs charged at the fill. The intervals of falls and of Calmar are"
    " those of the same weeks in another order. The deflated Sharpe is the chance that the true one"
    " is above 0 after so many models were tried on this database. Rows of a retro-scan stand in"
    " the book they would have been delivered to."
)
CELLS_NOTE = (
    "Month, weekday and hour are those of the decision, UTC. How a trade ended is no choice one has"
    " at its start."
)
_NOTHING = "–"


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
    """Return the books side by side in words, one figure a row."""
    columns = {book.title: _column(book) for book in found.books.values()}
    names = list(next(iter(columns.values())))
    table = {"figure": names}
    table |= {title: [column[name] for name in names] for title, column in columns.items()}
    return pd.DataFrame(table)


def _column(book: Book) -> dict[str, str]:
    fill = book.fill
    counts = {
        "candidates": f"{book.n_candidates}",
        "pending / open, marked now": f"{book.n_pending} / {book.n_open}, {book.open_r:+.2f} R",
        "filled, of ended orders (n_eff)": _NOTHING
        if not fill.n
        else f"{_ranged(percent, fill.rate, fill.rate_lo, fill.rate_hi)} of {fill.n}"
        f" ({int(fill.n_eff)})",
        "closed trades (too young to count)": f"{book.n_closed} ({book.n_young})",
    }
    falls = {
        "deepest fall, closed trades": _fall_text(book.closed),
        "deepest fall, open ones marked": _fall_text(book.marked),
        "Calmar, marked": f"{_ranged(number, book.marked.calmar, *_calmar(book.marked))}"
        f" over {book.years:.2f} years",
    }
    paid = _account(book.account)
    if not book.n_closed:
        falls, paid = dict.fromkeys(falls, _NOTHING), dict.fromkeys(paid, _NOTHING)
    return counts | paid | falls | _rates(book)


def _fall_text(falls: Falls) -> str:
    return f"{_ranged(number, falls.drawdown_r, falls.drawdown_r_lo, falls.drawdown_r_hi)} R"


def _calmar(falls: Falls) -> tuple[float, float]:
    return falls.calmar_lo, falls.calmar_hi


def _account(paid: Account) -> dict[str, str]:
    """Gross less its costs is net, each in R and in dollars at the stake named."""

    def both(in_r: float, in_usd: float) -> str:
        return f"{in_r + 0.0:+.2f} R ({in_usd + 0.0:+.2f} USD)"

    share = paid.constant_funding_share
    constant = "" if not math.isfinite(share) else f", {percent(share, 0)} at the constant rate"
    n_unsplit = f", {paid.n_unsplit} trades" if paid.n_unsplit else ""
    return {
        "stake of a trade": stake_text(paid),
        "gross total": both(paid.gross_r, paid.gross_usd),
        "fees": both(-paid.fees_r, -paid.fees_usd),
        "slippage": both(-paid.slippage_r, -paid.slippage_usd),
        "funding": f"{both(-paid.funding_r, -paid.funding_usd)}{constant}",
        "costs not told apart": f"{both(-paid.unsplit_r, -paid.unsplit_usd)}{n_unsplit}",
        "net total": both(paid.net_r, paid.net_usd),
    }


def stake_text(paid: Account) -> str:
    """Return what dollars stand on: the stake of a trade, or the range of stakes."""
    low, high = paid.stake_usd_lo, paid.stake_usd_hi
    if not math.isfinite(low):
        return _NOTHING
    same = high - low < 0.005 * high
    return f"{high:.0f} USD" if same else f"{low:.0f} to {high:.0f} USD"


def _rates(book: Book) -> dict[str, str]:
    m = book.metrics
    if m is None:
        return dict.fromkeys(_RATES, _NOTHING)
    texts = (
        f"{m.n} ({int(m.n_eff)}), {m.n_weeks} weeks",
        win_rate_text(m),
        over_mart_text(m),
        mean_r_text(m),
        *(_figure(m, name) for name in _PLAIN_FIGURES),
        f"{percent(book.deflated_sharpe)}, {book.n_trials} models tried",
        _ranged(percent, m.ambiguous_share, m.ambiguous_share_lo, m.ambiguous_share_hi),
    )
    return dict(zip(_RATES, texts, strict=True))


_PLAIN_FIGURES = {
    "mean_gross_r": "gross R a trade",
    "cost_r": "costs R a trade",
    "mean_win_r": "mean R of wins",
    "mean_loss_r": "mean R of losses",
    "profit_factor": "profit factor",
    "sharpe": "Sharpe a trade",
    "sortino": "Sortino a trade",
}
_RATES = (
    "counted trades n (n_eff)",
    "win-rate",
    "win-rate over the coin flip's",
    "expectancy, net R a trade",
    *_PLAIN_FIGURES.values(),
    "deflated Sharpe",
    "ambiguous exits",
)


def _figure(m: Any, name: str) -> str:
    low, high = getattr(m, f"{name}_lo"), getattr(m, f"{name}_hi")
    return _ranged(number, getattr(m, name), low, high)


def over_mart_text(m: Any) -> str:
    """Return the win-rate less the coin flip's, in points, with its interval."""

    def points(value: float) -> str:
        return _NOTHING if not math.isfinite(value) else f"{100 * value:+.1f}"

    low, high = m.win_rate_over_mart_lo, m.win_rate_over_mart_hi
    return f"{_ranged(points, m.win_rate_over_mart, low, high)} points"


def verdict_text(m: Metrics | None) -> str:
    """Return what the interval of the mean allows to say, and no more."""
    if m is None:
        return "No trade has ended and matured: there is nothing to judge."
    basis = f"{mean_r_text(m)} R a trade over {m.n} trades (n_eff {int(m.n_eff)})"
    if not math.isfinite(m.mean_r_lo):
        return f"Too few weeks to judge: {basis}."
    if m.mean_r_lo > 0:
        return (
            f"It earned after costs: {basis}. The deflated Sharpe says how much of it luck may be."
        )
    if m.mean_r_hi < 0:
        return f"It lost after costs: {basis}."
    return f"Neither gain nor loss is shown: {basis}."


def breakdown_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return a breakdown in words, under the name of its first column; thin cells say so."""
    by, cells = str(table.columns[0]), list(table.itertuples())
    return pd.DataFrame(
        {
            by: table[by],
            "n": table["n"],
            "n_eff": table["n_eff"].astype("int64"),
            "win-rate beside the coin flip's": [win_rate_text(m) for m in cells],
            "net R a trade": [mean_r_text(m) for m in cells],
            "gross R a trade": [_figure(m, "mean_gross_r") for m in cells],
            "costs R a trade": [_figure(m, "cost_r") for m in cells],
            "profit factor": [_figure(m, "profit_factor") for m in cells],
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
