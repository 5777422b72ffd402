"""The record on paper: a self-contained HTML page, CSV files of what it rests on, and a JSON."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from plotly.offline import get_plotlyjs
from pyarrow import csv

from core import views
from core.config_file import replace_text

Cells = Mapping[tuple[str, str], pd.DataFrame]

FILES = "report.html, metrics.json, trades.csv, equity.csv, equity_at_market.csv, by_*.csv"
_CHART = {"displaylogo": False, "displayModeBar": "hover"}
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; margin: .6rem 0; font-size: .82rem;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8a8f9844; }
.wide { overflow-x: auto; }
summary { cursor: pointer; margin: .8rem 0; }
tr.thin td { color: #8a8f98; }
.banner { border: 2px solid #d18b16; padding: .6rem 1rem; font-weight: 600; }
.note { color: #8a8f98; }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was written: every figure as plain JSON values, and the books in words."""

    figures: dict[str, Any]
    table: list[dict[str, Any]]


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
        f'<p class="banner">{safe(state.banner)}</p>' if state.banner else "",
        f"<p>{safe(_subject(found, zone))}</p>",
        f"<p><b>{safe(state.evidence.evidence.value)}</b>. {safe(state.evidence.sentence)}</p>",
        "<h2>The books</h2>",
        *[
            f"<p><b>{safe(book.title)}</b>: {safe(views.verdict_text(book.metrics))}</p>"
            for book in found.books.values()
        ],
        table_html(views.metrics_table(found)),
        f'<p class="note">{safe(views.METRICS_NOTE)}</p>',
        *[book_html(found, name, cells, zone) for name in found.books],
        _sources(sources),
    ]
    return document("Trader_AI report", parts)


def document(title: str, parts: Sequence[str]) -> str:
    """Return a whole page of some parts in HTML; it needs no network."""
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{safe(title)}</title><style>{_STYLE}</style>"
    )
    return (
        f'<!doctype html><html lang="en"><head>{head}<script>{get_plotlyjs()}</script></head>'
        f"<body>{''.join(parts)}</body></html>"
    )


def _sources(table: pd.DataFrame | None) -> str:
    if table is None or table.empty:
        return ""
    written = table.assign(share=[f"{100 * share:.1f} %" for share in table["share"]])
    return f"<h2>Imported candles</h2>{table_html(written)}"


def safe(text: object) -> str:
    """Return any value as text that HTML shows literally."""
    return html.escape(str(text))


def _subject(found: views.Results, zone: str) -> str:
    def day(ms: int | None, other: str) -> str:
        return other if ms is None else f"{views.local_time(ms, zone):%Y-%m-%d %H:%M}"

    return (
        f"Strategy {found.strategy or 'none'}, candidates decided from"
        f" {day(found.start_ms, 'the first')} until {day(found.end_ms, 'the last')}; market time"
        f" {day(found.market_ms, 'unknown')} ({zone})."
    )


def table_html(table: pd.DataFrame, thin: Sequence[bool] = ()) -> str:
    """Return a table; rows marked thin are grey."""
    head = "".join(f"<th>{safe(name)}</th>" for name in table.columns)
    marks = list(thin) or [False] * len(table)
    rows = "".join(
        ('<tr class="thin">' if mark else "<tr>")
        + "".join(f"<td>{safe(value)}</td>" for value in row)
        + "</tr>"
        for row, mark in zip(table.itertuples(index=False), marks, strict=True)
    )
    inner = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="wide">{inner}</div>'


def book_html(found: views.Results, name: str, cells: Cells, zone: str) -> str:
    """Return a book's curves and breakdowns."""
    title = f"<h2>{safe(found.books[name].title)}</h2>"
    curve = views.equity(found, name)
    if curve.empty:
        return f"{title}<p>No trade of this book has ended.</p>"
    at_market = views.equity_at_market(found, name)
    parts = [title, _plot(views.equity_figure(curve, zone=zone, at_market=at_market), name)]
    tables = {by: cells[name, by] for by in views.BY if not cells[name, by].empty}
    if tables:
        shown = {by: table for by, table in tables.items() if by != "exit_reason"}
        parts.append(_plot(views.cells_figure(shown), f"cells-{name}"))
    written = [
        f"<h3>By {safe(by.replace('_', ' '))}</h3>"
        + table_html(views.breakdown_table(table), table["is_thin"].tolist())
        for by, table in tables.items()
    ]
    note = f"Grey: an effective sample under {views.THIN_N_EFF}; it proves nothing alone."
    parts += [f"<details{' open' if name == 'followed' else ''}><summary>Its parts</summary>"]
    parts += [*written, f'<p class="note">{note} {safe(views.CELLS_NOTE)}</p></details>']
    return "".join(parts)


def _plot(figure: Any, name: str) -> str:
    return str(
        figure.to_html(
            full_html=False, include_plotlyjs=False, div_id=f"plot-{name}", config=_CHART
        )
    )


def write_report(
    db_path: Path,
    out_dir: Path,
    *,
    strategy: str | None = None,
    start_ms: int | None = None,
    end_ms: int | None = None,
    zone: str = "UTC",
) -> Written:
    """Write the page, metrics.json and the CSV files of FILES; return what they say.

    Of candidates decided in [start_ms, end_ms) under a strategy, the one seen last unless given.
    Each file is replaced whole. Raises StoreError when the database cannot be read.
    """
    found = views.results(db_path, strategy=strategy, start_ms=start_ms, end_ms=end_ms)
    state, sources = views.state(db_path), views.sources(db_path)
    cells = breakdowns(found)
    figures = views.as_json(found) | {"breakdowns": _cells_as_json(cells)}
    page = _page(found, cells, state=state, sources=sources, zone=zone)
    out_dir.mkdir(parents=True, exist_ok=True)
    replace_text(out_dir / "report.html", page)
    replace_text(out_dir / "metrics.json", json.dumps(figures, indent=2) + "\n")
    names = tuple(found.books)
    _write_csv(out_dir / "trades.csv", [trades(found)])
    _write_csv(
        out_dir / "equity.csv", [views.equity(found, book).assign(book=book) for book in names]
    )
    _write_csv(
        out_dir / "equity_at_market.csv",
        [views.equity_at_market(found, book).assign(book=book) for book in names],
    )
    for by in views.BY:
        _write_csv(out_dir / f"by_{by}.csv", [cells[book, by].assign(book=book) for book in names])
    rows = views.metrics_table(found).to_dict("records")
    return Written(figures=figures, table=[{str(k): v for k, v in row.items()} for row in rows])


def trades(found: views.Results) -> pd.DataFrame:
    """Return every filled candidate as a row: its plan, its fill, its exit, and what was paid.

    `decided_utc` and `closed_utc` repeat the instants for a spreadsheet; R and dollars that do not
    exist yet are NaN.
    """
    rows = found.rows[found.rows["opened_ts_ms"] > 0]
    usd = rows["usd_per_r"]
    dollars = {f"{name}_usd": rows[f"{name}_r"] * usd for name in ("fees", "slippage", "funding")}
    closed_ms = rows["closed_ts_ms"].where(rows["closed_ts_ms"] > 0)
    words = dict.fromkeys(rows.columns[rows.dtypes == "category"], "str")
    return rows.astype(words).assign(
        **dollars,
        decided_utc=pd.to_datetime(rows["decided_ms"], unit="ms"),
        closed_utc=pd.to_datetime(closed_ms, unit="ms"),
    )


def _cells_as_json(cells: Cells) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for (book, by), table in cells.items():
        out.setdefault(book, {})[by] = views.plain(table.to_dict("records"))
    return out


def _write_csv(path: Path, tables: Iterable[pd.DataFrame]) -> None:
    """Write tables of the same columns under one another; what does not exist stays empty."""
    parts = list(tables)
    whole = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    buffer = io.BytesIO()
    csv.write_csv(
        pa.Table.from_pandas(whole, preserve_index=False),
        buffer,
        csv.WriteOptions(quoting_style="needed"),
    )
    replace_text(path, buffer.getvalue().decode())
