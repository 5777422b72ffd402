"""The report needs no network, shows the views' figures, and is written whole or not at all."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core import report, views
from core.store import open_database, open_reader
from core.store.operation import set_label
from tests.seed_database import Seeded, seed
from tests.tiny_database import add, tiny


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    """A synthetic database with candidates in every state."""
    return seed(tmp_path_factory.mktemp("seeded"))


class Page(HTMLParser):
    """What a browser would fetch, what it would run, and what it would show in cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.scripts: list[str] = []
        self.cells: list[str] = []
        self.thin_rows = 0
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "data")]
        if tag == "script":
            self.scripts.append("")
        self.thin_rows += tag == "tr" and ("class", "thin") in attrs

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside == "td":
            self.cells.append(data)


def test_a_report_fetches_nothing(seeded: Seeded) -> None:
    """No element names a file or address to load; the plotting code stands inside, once."""
    found = views.results(seeded.path)
    scores = views.scores(seeded.path)
    page = Page(report.html_report(found, state=views.state(seeded.path), scores=scores))
    assert page.fetched == []
    libraries = [script for script in page.scripts if len(script) > 1_000_000]
    assert len(libraries) == 1
    plots = [script for script in page.scripts if "Plotly.newPlot" in script]
    # equity and cells of each of the five books; all books, coverage, promise, two histograms
    assert len([script for script in plots if script not in libraries]) == 15


def test_a_report_shows_the_figures_of_the_views(seeded: Seeded) -> None:
    """Every cell of the three books and of the breakdowns stands in the page; thin ones grey."""
    found = views.results(seeded.path)
    page = Page(report.html_report(found, state=views.state(seeded.path)))
    wanted = views.metrics_table(found).to_numpy().ravel().tolist()
    gate = views.gate_record(found)
    assert gate is not None
    wanted += views.gate_table(gate)["net R"].tolist()
    n_thin = 0
    for book in found.books:
        for by in views.BY:
            table = views.breakdown(found, book, by)
            n_thin += int(table["is_thin"].sum())
            wanted += views.breakdown_table(table)["net R a trade"].tolist()
    assert len(wanted) > 100
    assert set(wanted) <= set(page.cells)
    assert page.thin_rows == n_thin > 0


def test_text_from_the_database_cannot_become_markup(tmp_path: Path) -> None:
    """A label or a symbol is shown as it stands."""
    path = tmp_path / "market.db"
    db, strategy = tiny(path)
    set_label(db, "banner", "<script>alert(1)</script>")
    add(db, strategy, 1, symbol="<img src=x>")
    db.close()
    text = report.html_report(views.results(path), state=views.state(path))
    assert "<script>alert" not in text
    assert "<img" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert "&lt;img src=x&gt;" in text


def test_written_files_hold_the_returned_figures(seeded: Seeded, tmp_path: Path) -> None:
    """metrics.json is the figures, curves end at each book's total; twice writes the same."""
    out = tmp_path / "out"
    written = report.write_report(seeded.path, out)
    figures, books = written.figures, written.figures["books"]
    found = views.results(seeded.path)
    gate = views.gate_as_json(views.gate_record(found))
    assert figures | {"breakdowns": 0} == views.as_json(found) | {"gate": gate, "breakdowns": 0}
    assert gate is not None
    assert gate["sentence"] in (out / "report.html").read_text()
    assert json.loads((out / "metrics.json").read_text()) == figures
    closed = pd.read_csv(out / "equity.csv").groupby("book")["equity_r"].last()
    marked = pd.read_csv(out / "equity_at_market.csv").groupby("book")["equity_r"].last()
    assert closed.to_dict() == pytest.approx({k: book["total_r"] for k, book in books.items()})
    assert marked.to_dict() == pytest.approx(
        {k: book["total_r"] + book["open_r"] for k, book in books.items()}
    )
    names = {path.name for path in out.iterdir()}
    assert names == {
        "report.html",
        "metrics.json",
        "trades.csv",
        "equity.csv",
        "equity_at_market.csv",
        *(f"by_{by}.csv" for by in views.BY),
    }
    for by in views.BY:
        table = pd.read_csv(out / f"by_{by}.csv")
        n_counted = sum(book["metrics"]["n"] for book in books.values())
        assert int(table["n"].sum()) == n_counted
        cells = figures["breakdowns"]["followed"][by]
        assert sum(cell["n"] for cell in cells) == books["followed"]["metrics"]["n"]
    assert report.write_report(seeded.path, out) == written
    assert {path.name for path in out.iterdir()} == names


def test_the_list_of_trades_is_the_book(seeded: Seeded, tmp_path: Path) -> None:
    """One row per filled candidate; net, costs and dollars add up to the account."""
    account = report.write_report(seeded.path, tmp_path).figures["books"]["followed"]["account"]
    trades = pd.read_csv(tmp_path / "trades.csv")
    closed = trades[trades["is_closed"]]
    with open_reader(seeded.path) as db:
        assert len(trades) == db.value("SELECT count(*) FROM signals WHERE opened_ts_ms NOT NULL")
        assert len(closed) == db.value("SELECT count(*) FROM signals WHERE r_multiple NOT NULL")
    assert len(closed) > 50
    assert closed["r_multiple"].sum() == pytest.approx(account["net_r"])
    for name in ("fees", "slippage", "funding"):
        for unit in ("r", "usd"):
            total = closed[f"{name}_{unit}"].sum()
            assert total == pytest.approx(account[f"{name}_{unit}"]), name
    first = closed.iloc[0]
    assert pd.Timestamp(first["closed_utc"]).value // 10**6 == first["closed_ts_ms"]


def test_cells_are_drawn_in_their_own_order_and_thin_ones_grey(seeded: Seeded) -> None:
    """The first trace, unseen, sets the order of the axis; each cell is drawn once, by its size."""
    found = views.results(seeded.path)
    tables = {by: views.breakdown(found, "followed", by) for by in ("timeframe", "month")}
    whole, fat, thin = views.cells_figure(tables).data
    assert list(zip(*whole.y, strict=True)) == [
        ("timeframe", "15m"),
        ("timeframe", "1h"),
        ("month", "2025-01"),
        ("month", "2025-02"),
    ]
    for trace, is_thin in ((fat, False), (thin, True)):
        cells = pd.concat([table[table["is_thin"] == is_thin] for table in tables.values()])
        assert list(trace.x) == cells["mean_r"].tolist()
        assert (trace.marker.color == views.figures.NEUTRAL) == is_thin
    assert len(fat.x) + len(thin.x) == 4


def test_thinned_curves_keep_their_highs_and_lows() -> None:
    """Of 100 000 steps a few thousand are drawn: first, last and the extremes among them."""
    chance = np.random.default_rng(1)
    total = np.cumsum(chance.normal(0, 1, 100_000))
    curve = pd.DataFrame(
        {"closed_ms": np.arange(100_000) * 60_000, "equity_r": total, "underwater_r": -abs(total)}
    )
    line = views.equity_figure(curve, zone="UTC").data[0]
    assert len(line.y) < 4000
    assert (line.y[0], line.y[-1]) == (total[0], total[-1])
    assert (max(line.y), min(line.y)) == (total.max(), total.min())


def test_an_empty_record_still_makes_a_report(tmp_path: Path) -> None:
    """Nothing to show is a page that says so."""
    path = tmp_path / "market.db"
    open_database(path).close()
    report.write_report(path, tmp_path / "out")
    assert "No trade of this book has ended." in (tmp_path / "out" / "report.html").read_text()
