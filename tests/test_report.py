"""The report needs no network, shows the views' figures, and is written whole or not at all."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from core import report, views
from core.store import open_database
from core.store.operation import set_label
from tests.seed_database import Seeded, seed
from tests.tiny_database import add, tiny


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    """A synthetic database with candidates in every state."""
    return seed(tmp_path_factory.mktemp("seeded"))


class _Page(HTMLParser):
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
    page = _Page(report.html_report(found, state=views.state(seeded.path)))
    assert page.fetched == []
    libraries = [script for script in page.scripts if len(script) > 1_000_000]
    assert len(libraries) == 1
    plots = [script for script in page.scripts if "Plotly.newPlot" in script]
    assert len([script for script in plots if script not in libraries]) == 3


def test_a_report_shows_the_figures_of_the_views(seeded: Seeded) -> None:
    """Every cell of the three books and of the breakdowns stands in the page; thin ones grey."""
    found = views.results(seeded.path)
    page = _Page(report.html_report(found, state=views.state(seeded.path)))
    wanted = views.metrics_table(found).to_numpy().ravel().tolist()
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
    """metrics.json is the figures, equity.csv ends at each book's total; twice writes the same."""
    figures = report.write_report(seeded.path, tmp_path / "out")
    assert figures == views.as_json(views.results(seeded.path))
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == figures
    curves = pd.read_csv(tmp_path / "out" / "equity.csv").groupby("book")["equity_r"].last()
    totals = {name: book["total_r"] for name, book in figures["books"].items()}
    assert curves.to_dict() == pytest.approx(totals)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"report.html", "metrics.json", "equity.csv"} | {
        f"by_{by}.csv" for by in views.BY
    }
    for by in views.BY:
        table = pd.read_csv(tmp_path / "out" / f"by_{by}.csv")
        n_counted = sum(book["metrics"]["n"] for book in figures["books"].values())
        assert int(table["n"].sum()) == n_counted
    assert report.write_report(seeded.path, tmp_path / "out") == figures
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


def test_an_empty_record_still_makes_a_report(tmp_path: Path) -> None:
    """Nothing to show is a page that says so."""
    path = tmp_path / "market.db"
    open_database(path).close()
    report.write_report(path, tmp_path / "out")
    assert "No trade of this book has ended." in (tmp_path / "out" / "report.html").read_text()
