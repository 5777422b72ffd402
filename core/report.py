"""The record on paper: a self-contained HTML page, an equity CSV, breakdowns and a JSON."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from plotly.offline import get_plotlyjs

from core import views
from core.config_file import replace_text

Cells = Mapping[tuple[str, str], pd.DataFrame]

_CHART = {"displaylogo": False, "displayModeBar": "hover"}
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; margin: .6rem 0;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8a8f9844; }
tr.thin td { color: #8a8f98; }
.banner { border: 2px solid #d18b16; padding: .6rem 1rem; font-weight: 600; }
.note { color: #8a8f98; }
"""


def html_report(
    found: views.Results,
    *,
    state: views.State,
    sources: pd.DataFrame | None = None,
    zone: str = "UTC",
) -> str:
    """Return one HTML page that needs no network: every figure of the results, with intervals.

    Instants are shown in `zone`; months are those of UTC. `sources` says where imported candles
    came from.
    """
    return _page(found, breakdowns(found), state=state, sources=sources, zone=zone)


def breakdowns(found: views.Results) -> dict[tuple[str, str], pd.DataFrame]:
    """Return the breakdown of each book by each column of `views.BY`."""
    return {(book, by): views.breakdown(found, book, by) for book in found.books for by in views.BY}


def _page(
    found: views.Results,
    cells: Cells,
    *,
    state: views.State,
    sources: pd.DataFrame | None,
    zone: str,
) -> str:
    parts = [
        "<h1>Trader_AI: the record</h1>",
        f'<p class="banner">{_safe(state.banner)}</p>' if state.banner else "",
        f"<p>{_safe(_subject(found, zone))}</p>",
        f"<p><b>{_safe(state.evidence.evidence.value)}</b>. {_safe(state.evidence.sentence)}</p>",
        "<h2>Three books</h2>",
        _table(views.metrics_table(found)),
        f'<p class="note">{_safe(views.METRICS_NOTE)}</p>',
        *[_book(found, name, cells, zone) for name in found.books],
        _sources(sources),
    ]
    head = f'<meta charset="utf-8"><title>Trader_AI report</title><style>{_STYLE}</style>'
    return (
        f'<!doctype html><html lang="en"><head>{head}<script>{get_plotlyjs()}</script></head>'
        f"<body>{''.join(parts)}</body></html>"
    )


def _sources(table: pd.DataFrame | None) -> str:
    if table is None or table.empty:
        return ""
    written = table.assign(share=[f"{100 * share:.1f} %" for share in table["share"]])
    return f"<h2>Imported candles</h2>{_table(written)}"


def _safe(text: object) -> str:
    return html.escape(str(text))


def _subject(found: views.Results, zone: str) -> str:
    def day(ms: int | None, other: str) -> str:
        return other if ms is None else f"{views.local_time(ms, zone):%Y-%m-%d %H:%M}"

    return (
        f"Strategy {found.strategy or 'none'}, candidates decided from"
        f" {day(found.start_ms, 'the first')} until {day(found.end_ms, 'the last')}; market time"
        f" {day(found.market_ms, 'unknown')} ({zone})."
    )


def _table(table: pd.DataFrame, thin: Sequence[bool] = ()) -> str:
    head = "".join(f"<th>{_safe(name)}</th>" for name in table.columns)
    marks = list(thin) or [False] * len(table)
    rows = "".join(
        ('<tr class="thin">' if mark else "<tr>")
        + "".join(f"<td>{_safe(value)}</td>" for value in row)
        + "</tr>"
        for row, mark in zip(table.itertuples(index=False), marks, strict=True)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _book(found: views.Results, name: str, cells: Cells, zone: str) -> str:
    title = f"<h2>{_safe(found.books[name].title)}</h2>"
    curve = views.equity(found, name)
    if curve.empty:
        return f"{title}<p>No trade of this book has ended.</p>"
    figure = views.equity_figure(curve, zone=zone)
    plot = figure.to_html(
        full_html=False, include_plotlyjs=False, div_id=f"equity-{name}", config=_CHART
    )
    parts = [title, plot]
    for by in views.BY:
        table = cells[name, by]
        if not table.empty:
            parts.append(f"<h3>By {_safe(by.replace('_', ' '))}</h3>")
            parts.append(_table(views.breakdown_table(table), table["is_thin"].tolist()))
    note = f"Grey: an effective sample under {views.THIN_N_EFF}; it proves nothing alone."
    return "".join([*parts, f'<p class="note">{note}</p>'])


def write_report(
    db_path: Path,
    out_dir: Path,
    *,
    strategy: str | None = None,
    start_ms: int | None = None,
    end_ms: int | None = None,
    zone: str = "UTC",
) -> dict[str, Any]:
    """Write report.html, equity.csv, metrics.json and the breakdowns; return the figures.

    Of candidates decided in [start_ms, end_ms) under a strategy, the one seen last unless given.
    Each file is replaced whole. Raises StoreError when the database cannot be read.
    """
    found = views.results(db_path, strategy=strategy, start_ms=start_ms, end_ms=end_ms)
    state, sources = views.state(db_path), views.sources(db_path)
    cells, figures = breakdowns(found), views.as_json(found)
    page = _page(found, cells, state=state, sources=sources, zone=zone)
    out_dir.mkdir(parents=True, exist_ok=True)
    replace_text(out_dir / "report.html", page)
    replace_text(out_dir / "metrics.json", json.dumps(figures, indent=2) + "\n")
    curves = [views.equity(found, name).assign(book=name) for name in found.books]
    replace_text(out_dir / "equity.csv", pd.concat(curves).to_csv(index=False))
    for by in views.BY:
        tables = [cells[name, by].assign(book=name) for name in found.books]
        text = pd.concat([part for part in tables if len(part)] or tables).to_csv(index=False)
        replace_text(out_dir / f"by_{by}.csv", text)
    return figures


def headline(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the figures of all books as rows for a terminal: a figure a row, a book a column."""
    books: Mapping[str, Mapping[str, Any]] = figures["books"]
    flat = {name: _flat(book) for name, book in books.items()}
    names = list(dict.fromkeys(key for book in flat.values() for key in book))
    return [{"": key, **{name: book.get(key) for name, book in flat.items()}} for key in names]


def _flat(book: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in book.items():
        out |= _flat(value) if isinstance(value, dict) else {key: value}
    return out
