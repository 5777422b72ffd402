"""The week as a page that opens without a network: the message's figures, and the curves."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from core import messages, page, views
from core.messages import Look, Record, Week
from core.report import book_html, breakdowns

_BOOKS = ("live", "paper", "followed")


def weekly_html(week: Week, found: views.Results, *, look: Look, zone: str) -> str:
    """Return the page of a week; `found` is the record of the twelve months before its end."""
    start, end = (messages.when(ms, look.zone) for ms in (week.start_ms, week.end_ms))
    standing = week.standing
    parts = [
        "<h1>Trader_AI: the week</h1>",
        f'<p class="banner">{page.safe(look.banner)}</p>' if look.banner else "",
        f"<p>{page.safe(start)} to {page.safe(end)}</p>",
        f"<p><b>{page.safe(standing.state)}</b>. {page.safe(standing.reason)}</p>",
        "<h2>This week</h2>",
        page.table(record_table(week.week)),
        "<h2>Twelve months</h2>",
        page.table(record_table(week.year)),
        f'<p class="note">{page.safe(_NOTE)}</p>',
        "<h2>Was the promise kept?</h2>",
        *[_said(record.title, messages.promise_lines(record)) for record in week.year],
        "<h2>Does the filter earn its keep?</h2>",
        _said("", messages.lift_lines(week.lift)),
        "<h2>Model and data</h2>",
        _said("", messages.health_lines(week.health, look)),
        *_curves(found, zone),
    ]
    return page.html_page("Trader_AI: the week", parts)


_NOTE = (
    "By the instant of closing. LIVE and PAPER: what really was told. In brackets the 90 %"
    " interval. Win-rates and means are of trades whose candidates have matured, n of them, worth"
    " n_eff independent ones; totals are of every closed trade. All net of fees, slippage and"
    " funding."
)


def record_table(records: Sequence[Record]) -> pd.DataFrame:
    """Return records side by side, one a row, each win-rate beside the coin flip's."""
    return pd.DataFrame(
        {
            "book": [record.title for record in records],
            "closed": [record.n_closed for record in records],
            "net R": [views.number(record.total_r) for record in records],
            "n (n_eff)": [f"{record.n} ({record.n_eff:.0f})" for record in records],
            "win-rate beside the coin flip's": [views.win_rate_text(record) for record in records],
            "net R a trade": [views.mean_r_text(record) for record in records],
            "promised R a trade": [views.number(record.promised_r) for record in records],
            "losses at the end": [record.run for record in records],
        }
    )


def _said(title: str, lines: Sequence[str]) -> str:
    """The lines of the message, which are escaped already, as one paragraph."""
    if not lines:
        return ""
    head = f"<b>{page.safe(title)}</b><br>" if title else ""
    return f"<p>{head}{'<br>'.join(lines)}</p>"


def _curves(found: views.Results, zone: str) -> list[str]:
    """The books of the twelve months as the report shows them: by decision, retro rows included."""
    cells = breakdowns(found)
    note = (
        "The books below are of candidates decided in the twelve months; rows of a retro-scan stand"
        " in the book they would have been delivered to."
    )
    return [
        f'<p class="note">{page.safe(note)}</p>',
        page.table(views.metrics_table(found)),
        f'<p class="note">{page.safe(views.METRICS_NOTE)}</p>',
        *[book_html(found, name, cells, zone) for name in _BOOKS],
    ]
