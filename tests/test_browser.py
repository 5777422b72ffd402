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
from urllib.parse import parse_qsl, urlsplit

import pytest

from core import views
from core.store import open_database
from core.store.operation import write_clock
from core.timeframe import MINUTE_MS
from demo.browser import NARROW, WIDE, Visit, browser, lacking, serving, visit
from tests.history_world import RECORDED
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
        ("results-dark", {"page": "Results"}, WIDE, True),
        ("results-phone", {"page": "Results"}, NARROW, True),
        ("results-gate", {"page": "Results", "results": "Gate and scores"}, WIDE, False),
        ("results-gate-phone", {"page": "Results", "results": "Gate and scores"}, NARROW, True),
        ("results-parts", {"page": "Results", "results": "In its parts"}, WIDE, True),
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
    with visit(shown.made, shown.address) as seen:
        assert_told(seen, shown.seeded.config, tmp_path)


def run(config: Path, *command: str) -> str:
    """What a command of the project prints."""
    line = [sys.executable, *command, "--config", str(config)]
    return subprocess.run(line, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def assert_told(seen: Visit, config: Path, folder: Path) -> None:
    """The last column of the figures shown is the command's book of all followed."""
    told = run(config, "analyze_results.py", "--json", "--out", str(folder))
    book = json.loads(told)["books"]["followed"]
    m = book["metrics"]
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


def test_book_and_breakdown_are_in_the_link(shown: Shown) -> None:
    """What is chosen there stands in the address, and the address chooses it again."""
    query = {"page": "Results", "results": "In its parts"}
    with visit(shown.made, shown.address) as seen:
        seen.open(query)
        for name in ("Gate PASS", "weekday"):
            seen.page.get_by_role("radio", name=name, exact=True).click()
            seen.page.wait_for_timeout(100)
            seen.settle()
        asked = dict(parse_qsl(urlsplit(seen.page.url).query))
        assert asked == query | {"book": "Gate PASS", "by": "weekday"}
        words = seen.page.locator("[data-testid=stTable]").inner_text()
        assert "Monday" in words
    with visit(shown.made, shown.address) as again:
        again.open(asked)
        assert again.page.locator("[data-testid=stTable]").inner_text() == words


def test_one_switch_shows_every_time_in_utc(shown: Shown) -> None:
    """01:00 in Berlin is 00:00 UTC, in the head and wherever else an instant is written."""
    with visit(shown.made, shown.address) as seen:
        seen.open({"page": "Health", "health": "Data"})
        assert seen.page.get_by_text("2025-02-15 01:0").count() == 1
        seen.page.get_by_test_id("stCheckbox").locator("label").first.click()
        seen.page.get_by_text("2025-02-15 00:0").first.wait_for(timeout=10_000)
        assert "utc=true" in seen.page.url
        assert seen.page.get_by_text("2025-02-15 01:0").count() == 0


def test_a_phone_reads_one_book_at_a_time(shown: Shown) -> None:
    """Five columns do not fit: the book of all is shown, and the choice of another."""
    with visit(shown.made, shown.address, width=NARROW) as seen:
        seen.open({"page": "Results"})
        head = seen.page.locator("[data-testid=stTable]").first.locator("thead").inner_text()
        assert head.split() == ["figure", "All", "followed"]
        seen.page.get_by_role("radio", name="Delivered PAPER", exact=True).click()
        seen.page.locator("thead", has_text="Delivered PAPER").wait_for(timeout=10_000)


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


RECORDED_FILE = RECORDED / "BTC_USDT-1m-2024.parquet"


@pytest.mark.long
@pytest.mark.skipif(not RECORDED_FILE.is_file(), reason=f"no recorded candles in {RECORDED}")
def test_every_page_is_whole_on_recorded_candles(tmp_path: Path) -> None:
    """A year of Bitcoin scanned and trained on: each page sound, figures those of the command."""
    config = tmp_path / "config.yaml"
    config.write_text("app: {db_path: market.db}\nsymbols: [BTC/USDT]\ntimeframes: [15m, 1h]\n")
    run(config, "init_db.py")
    run(config, "download_data.py", "--import", str(RECORDED_FILE))
    run(config, "retro_scan.py", "--start", "2024-01-20", "--end", "2024-12-31")
    run(config, "maintenance.py", "weekly")
    pages = {
        "signals": {},
        "results": {"page": "Results"},
        "results-gate": {"page": "Results", "results": "Gate and scores"},
        "results-parts": {"page": "Results", "results": "In its parts", "by": "regime"},
        "health-model": {"page": "Health"},
        "health-data": {"page": "Health", "health": "Data"},
        "health-system": {"page": "Health", "health": "System"},
    }
    with serving(config) as (address, _), browser() as made:
        for width, names in ((WIDE, list(pages)), (NARROW, ["signals", "results"])):
            for name in names:
                with visit(made, address, width=width) as seen:
                    seen.open(pages[name])
                    assert_sound(seen, width=width)
                    seen.picture(PICTURES / f"recorded-{name}-{width}.png")
        with visit(made, address) as seen:
            assert_told(seen, config, tmp_path / "report")
