"""The record on paper: a self-contained HTML page, CSV files of what it rests on, and a JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import csv

from core import page, views
from core.config_file import replace_text

Cells = Mapping[tuple[str, str], pd.DataFrame]

FILES = "report.html, metrics.json, trades.csv, equity.csv, equity_at_market.csv, by_*.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was written: every figure as plain JSON values, the books and the gate in words."""

    figures: dict[str, Any]
    table: list[dict[str, Any]]
    gate: str


def html_report(
    found: views.Results,
    *,
    state: views.State,
    sources: pd.DataFrame | None = None,
    scores: views.Scores | None = None,
    zone: str = "UTC",
) -> str:
    """Return one HTML page that needs no network: every figure of the results, with intervals.

    Instants are shown in `zone`; months are those of UTC. `sources` says where imported candles
    came from, `scores` what the model said.
    """
    cells = breakdowns(found)
    return _page(found, cells, state=state, sources=sources, scores=scores, zone=zone)


def breakdowns(found: views.Results) -> dict[tuple[str, str], pd.DataFrame]:
    """Return the breakdown of each book by each column of `views.BY`."""
    return {(book, by): views.breakdown(found, book, by) for book in found.books for by in views.BY}


def _page(
    found: views.Results,
    cells: Cells,
    *,
    state: views.State,
    sources: pd.DataFrame | None,
    scores: views.Scores | None,
    zone: str,
) -> str:
    parts = [
        "<h1>Trader_AI: the record</h1>",
        f'<p class="banner">{page.safe(state.banner)}</p>' if state.banner else "",
        f"<p>{page.safe(_subject(found, zone))}</p>",
        f"<p><b>{page.safe(state.evidence.word)}</b>. {page.safe(state.evidence.sentence)}</p>",
        "<h2>The books</h2>",
        *[
            f"<p><b>{page.safe(book.title)}</b>: {page.safe(views.verdict_text(book.metrics))}</p>"
            for book in found.books.values()
        ],
        page.table(views.metrics_table(found)),
        f'<p class="note">{page.safe(views.METRICS_NOTE)}</p>',
        curves_part(found, zone=zone),
        gate_part(views.gate_record(found)),
        "" if scores is None else model_part(scores),
        *[book_html(found, name, cells, zone) for name in found.books],
        _sources(sources),
    ]
    return page.html_page("Trader_AI report", parts)


def curves_part(found: views.Results, *, zone: str) -> str:
    """Return the equity of delivered, all and rejected candidates as markup."""
    curves = views.book_curves(found)
    if not curves:
        return ""
    note = "Net R of closed trades. Solid: lived. Faint: retro-scan, what would have been."
    figure = page.plot(views.books_figure(curves, zone=zone), "books")
    return f'<h2>Equity and distance from its high</h2><p class="note">{note}</p>{figure}'


def gate_part(found: views.GateLift | None) -> str:
    """Return whether the gate earns its keep as markup."""
    title = "<h2>Does the gate earn its keep?</h2>"
    if found is None:
        return f"{title}<p>No candidate that carried a score has matured yet.</p>"
    return (
        f"{title}<p>{page.safe(found.sentence)}</p>{page.table(views.gate_table(found))}"
        f'<p class="note">{page.safe(views.GATE_NOTE)}</p>'
    )


def model_part(scores: views.Scores) -> str:
    """Return what the model's scores were worth as markup: coverage, promise, histograms."""
    coverage, promised = views.coverage(scores), views.promised(scores)
    parts = ["<h2>What the scores were worth</h2>", f"<p>{page.safe(coverage.sentence)}</p>"]
    if len(coverage.table):
        parts.append(page.plot(views.coverage_figure(coverage.table), "coverage"))
        parts.append(page.table(views.coverage_table(coverage)))
    if any(len(table) for table in promised.values()):
        thin = [bool(mark) for table in promised.values() for mark in table["is_thin"]]
        parts.append("<h3>Promised against realised</h3>")
        parts.append(page.plot(views.promise_figure(promised), "promise"))
        parts.append(page.table(views.promise_table(promised), thin))
    for i, (source, table) in enumerate(views.ml_p_histogram(scores).items()):
        if table[["n_wins", "n_losses", "n_other"]].to_numpy().sum():
            parts.append(f"<h3>Calibrated probabilities {page.safe(source)}</h3>")
            parts.append(page.plot(views.histogram_figure(table), f"histogram-{i}"))
    return "".join(parts)


def _sources(table: pd.DataFrame | None) -> str:
    if table is None or table.empty:
        return ""
    written = table.assign(share=[f"{100 * share:.1f} %" for share in table["share"]])
    return f"<h2>Imported candles</h2>{page.table(written)}"


def _subject(found: views.Results, zone: str) -> str:
    def day(ms: int | None, other: str) -> str:
        return other if ms is None else f"{views.local_time(ms, zone):%Y-%m-%d %H:%M}"

    return (
        f"Strategy {found.strategy or 'none'}, candidates decided from"
        f" {day(found.start_ms, 'the first')} until {day(found.end_ms, 'the last')}; market time"
        f" {day(found.market_ms, 'unknown')} ({zone})."
    )


def book_html(found: views.Results, name: str, cells: Cells, zone: str) -> str:
    """Return a book's curves and breakdowns."""
    title = f"<h2>{page.safe(found.books[name].title)}</h2>"
    curve = views.equity(found, name)
    if curve.empty:
        return f"{title}<p>No trade of this book has ended.</p>"
    at_market = views.equity_at_market(found, name)
    parts = [title, page.plot(views.equity_figure(curve, zone=zone, at_market=at_market), name)]
    tables = {by: cells[name, by] for by in views.BY if not cells[name, by].empty}
    if tables:
        shown = {by: table for by, table in tables.items() if by != "exit_reason"}
        parts.append(page.plot(views.cells_figure(shown), f"cells-{name}"))
    written = [
        f"<h3>By {page.safe(by.replace('_', ' '))}</h3>"
        + page.table(views.breakdown_table(table), table["is_thin"].tolist())
        for by, table in tables.items()
    ]
    note = f"Grey: an effective sample under {views.THIN_N_EFF}; it proves nothing alone."
    parts += [f"<details{' open' if name == 'followed' else ''}><summary>Its parts</summary>"]
    parts += [*written, f'<p class="note">{note} {page.safe(views.CELLS_NOTE)}</p></details>']
    return "".join(parts)


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
    gate = views.gate_as_json(views.gate_record(found))
    figures = views.as_json(found) | {"gate": gate, "breakdowns": _cells_as_json(cells)}
    # Scores are those of a bundle's whole record: beside a part of it they would mislead.
    whole = start_ms is end_ms is None
    scores = views.scores(db_path, strategy=found.strategy, rows=found.rows) if whole else None
    text = _page(found, cells, state=state, sources=sources, scores=scores, zone=zone)
    out_dir.mkdir(parents=True, exist_ok=True)
    replace_text(out_dir / "report.html", text)
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
    said = gate["sentence"] if gate else "No candidate that carried a score has matured yet."
    table = [{str(name): value for name, value in row.items()} for row in rows]
    return Written(figures=figures, table=table, gate=f"The gate: {said}")


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
