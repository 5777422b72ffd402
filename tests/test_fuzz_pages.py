"""The address bar of the dashboard: anybody's link shows a page, or says what there is not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from core.domain import Series
from core.store import open_reader
from core.store.candles import upsert_candles
from core.timeframe import HOUR_MS
from tests.mutations import TEXTS, contents
from tests.tiny_database import T0, add, flat_bars, tiny

SCRIPT = Path(__file__).parent.parent / "dashboard.py"
NAMES = ("signal", "page", "health", "period", "symbol", "timeframe", "gate", "delivery", "x", "")
VALUES = (
    *(text for text in TEXTS if text.isprintable() or "\n" in text),
    *("1", "999", "-3", "1.5", "1e99", "01", "+1", " 1", "1;", "１", "9" * 15, "9" * 16),
    *("Results", "Health", "Signals & Candles", "System", "7 days", "A/USDT", "PASS", "PAPER"),
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with two candidates and the candles around one of them."""
    folder = tmp_path_factory.mktemp("pages")
    db, strategy = tiny(folder / "market.db")
    add(db, strategy, 1)
    add(db, strategy, 2, status="OPEN", closed_ts_ms=None, exit_price=None, r_multiple=None)
    upsert_candles(db, Series("x", "A/USDT", "1h"), flat_bars(T0, 60, HOUR_MS))
    db.close()
    path = folder / "config.yaml"
    path.write_text("app: {db_path: market.db}\n")
    return path


def visited(config: Path, monkeypatch: pytest.MonkeyPatch, query: dict[str, str]) -> AppTest:
    """One visit by a link."""
    monkeypatch.setenv("TRADER_CONFIG", str(config))
    app = AppTest.from_file(str(SCRIPT), default_timeout=30)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception, query
    return app


def links(config: Path, monkeypatch: pytest.MonkeyPatch, cases: range) -> None:
    """Follow links with one to four odd parameters; the database is as it was."""
    with open_reader(config.parent / "market.db") as db:
        before = contents(db)
    for number in cases:
        chance = random.Random(number)
        names = chance.sample(NAMES, chance.randint(1, 4))
        app = visited(config, monkeypatch, {name: chance.choice(VALUES) for name in names})
        assert app.tabs
    with open_reader(config.parent / "market.db") as db:
        assert contents(db) == before


def test_any_link_shows_a_page(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Odd names and values of parameters, alone and together."""
    links(config, monkeypatch, range(12))


@pytest.mark.long
def test_any_of_many_links_shows_a_page(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with more of them: three times, for a visit takes half a second."""
    links(config, monkeypatch, range(12, 42))


@pytest.mark.parametrize("number", ["²", "9" * 19, "9" * 5000, "-1", "1e99", "\x00"])
def test_a_link_to_no_candidate_shows_a_page(
    config: Path, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    """Digits of other scripts, more than the database can count to, no number at all."""
    app = visited(config, monkeypatch, {"signal": number})
    assert [element.value for element in app.subheader]
