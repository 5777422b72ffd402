"""The pages in headless Chromium: no exception, no console error, the figures of the command.

Pictures of every page are left in build/screenshots. Skipped where there is no browser.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from core import views
from core.store import open_database
from core.store.operation import write_clock
from core.timeframe import MINUTE_MS
from demo.browser import NARROW, WIDE, Visit, browser, lacking, serving, visit
from tests.seed_database import END_MS, SYMBOLS, Seeded, seed

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "build" / "screenshots"
pytestmark = pytest.mark.skipif(bool(lacking()), reason=lacking() or "there is a browser")


class Shown(NamedTuple):
    """The seeded database, the address of its dashboard, and a browser."""

    seeded: Seeded
    address: str
    made: Any


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """One server and one browser for all of these tests."""
    seeded = seed(tmp_path_factory.mktemp("seeded"))
    with serving(seeded.config) as (address, _), browser() as made:
        yield Shown(seeded, address, made)


def assert_sound(seen: Visit, *, width: int) -> None:
    """Nothing broke, nothing came from elsewhere, nothing sticks out of the window."""
    assert seen.page.locator("[data-testid=stException]").count() == 0
    assert seen.problems == []
    assert seen.hosts == {"127.0.0.1"}
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    assert seen.page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth") <= width


@pytest.mark.parametrize(
    ("name", "query", "width", "dark"),
    [
        ("signals", {}, WIDE, False),
        ("signals-dark", {}, WIDE, True),
        ("signals-phone", {}, NARROW, False),
        ("results", {"page": "Results"}, WIDE, False),
        ("results-phone", {"page": "Results"}, NARROW, True),
        ("health-model", {"page": "Health"}, WIDE, True),
        ("health-data", {"page": "Health", "health": "Data"}, WIDE, False),
        ("health-system", {"page": "Health", "health": "System"}, WIDE, False),
    ],
)
def test_a_page_is_whole(
    shown: Shown, name: str, query: dict[str, str], width: int, dark: bool
) -> None:
    """At each width and in both themes, reached by its link."""
    with visit(shown.made, shown.address, width=width, dark=dark) as seen:
        seen.open(query)
        assert_sound(seen, width=width)
        seen.picture(PICTURES / f"{name}.png")
        wanted = query.get("page", "Signals & Candles")
        chosen = seen.page.get_by_role("tab", name=wanted)
        assert chosen.get_attribute("aria-selected") == "true"


def test_the_figures_shown_are_those_of_the_command(shown: Shown, tmp_path: Path) -> None:
    """What `analyze_results.py --json` says of a book stands in its column on the page."""
    command = [sys.executable, "analyze_results.py", "--json", "--out", str(tmp_path)]
    command += ["--config", str(shown.seeded.config)]
    told = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    book = json.loads(told)["books"]["followed"]
    m = book["metrics"]
    with visit(shown.made, shown.address) as seen:
        seen.open({"page": "Results"})
        rows = seen.page.locator("[data-testid=stTable]").first.locator("tbody tr")
        cells = [[cell.strip() for cell in row.split("\t")] for row in rows.all_inner_texts()]
    column = {row[0]: row[-1] for row in cells if len(row) > 1}
    assert column["candidates"] == str(book["n_candidates"])
    assert column["expectancy, net R a trade"] == (
        f"{m['mean_r']:.2f} [{m['mean_r_lo']:.2f}, {m['mean_r_hi']:.2f}]"
    )
    assert column["win-rate"] == (
        f"{100 * m['win_rate']:.1f} % [{100 * m['win_rate_lo']:.1f} %,"
        f" {100 * m['win_rate_hi']:.1f} %]; coin flip {100 * m['p_mart']:.1f} %"
    )
    assert column["profit factor"].startswith(f"{m['profit_factor']:.2f} [")
    assert column["counted trades n (n_eff)"].startswith(f"{m['n']} ({int(m['n_eff'])})")


def test_a_choice_is_a_link_and_a_link_is_a_choice(shown: Shown) -> None:
    """`Show` puts the candidate into the address; that address opens it, with its filters."""
    called = views.desk(shown.seeded.path).calls[1]
    with visit(shown.made, shown.address) as seen:
        seen.open()
        seen.page.get_by_role("button", name="Show", exact=True).nth(1).click()
        heading = seen.page.get_by_role("heading", name=f"#{called.id}:")
        heading.wait_for(timeout=10_000)
        assert f"signal={called.id}" in seen.page.url
    with visit(shown.made, shown.address) as again:
        again.open({"signal": called.id, "symbol": [SYMBOLS[0]]})
        assert again.page.get_by_role("heading", name=f"#{called.id}:").count() == 1
        assert again.page.get_by_test_id("stMultiSelect").first.inner_text().count(SYMBOLS[0]) == 1


def test_a_refresh_follows_the_market_and_keeps_the_readers_place(shown: Shown) -> None:
    """A new tick is shown without a reload; the tab and the place on the page stay."""
    with visit(shown.made, shown.address) as seen:
        seen.open({"page": "Results"})
        main = "document.querySelector('[data-testid=stMain]')"
        seen.page.evaluate(f"{main}.scrollTop = 700")
        with open_database(shown.seeded.path) as db:
            write_clock(db, market_ms=END_MS + 7 * MINUTE_MS, wall_ms=END_MS, speed=1.0)
        # 01:07 in Berlin, where this reader lives
        seen.page.get_by_text("2025-02-15 01:07").first.wait_for(timeout=25_000, state="attached")
        seen.settle()
        assert seen.page.evaluate(f"{main}.scrollTop") == 700
        tab = seen.page.get_by_role("tab", name="Results")
        assert tab.get_attribute("aria-selected") == "true"
        assert_sound(seen, width=WIDE)
