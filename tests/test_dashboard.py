"""The dashboard runs on every database, says what is wrong in a sentence, and invents nothing."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from core import views
from core.store import open_database
from core.store.models import add_metrics
from core.store.operation import set_label
from tests.seed_database import SYMBOLS, Seeded, seed
from tests.sick_databases import SICK, locked
from tests.tiny_database import add, tiny

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "dashboard.py"
PAGES = ROOT / "core" / "pages"


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    """A synthetic database with candidates in every state."""
    return seed(tmp_path_factory.mktemp("seeded"))


def opened(
    monkeypatch: pytest.MonkeyPatch,
    config: Path,
    *,
    page: str = "",
    health: str = "",
    results: str = "",
    by: str = "",
    signal: int | None = None,
) -> AppTest:
    """The page as one visit shows it; `health` and `results` are tabs of those pages."""
    monkeypatch.setenv("TRADER_CONFIG", str(config))
    app = AppTest.from_file(str(SCRIPT), default_timeout=30)
    chosen = {"page": page, "health": health, "results": results, "by": by}
    for name, choice in chosen.items():
        if choice:
            app.session_state[name] = choice
    if signal is not None:
        app.query_params["signal"] = str(signal)
    app.run()
    assert not app.exception
    return app


def config_for(folder: Path) -> Path:
    """A config file that names market.db beside it."""
    path = folder / "config.yaml"
    path.write_text("app: {db_path: market.db}\n")
    return path


def shown(app: AppTest) -> str:
    """All the prose of a page, without the escapes of Markdown."""
    blocks = (app.error, app.warning, app.info, app.caption, app.subheader, app.markdown)
    text = "\n".join(str(element.value) for block in blocks for element in block)
    return text.replace("\\", "")


def cells(table: Any) -> list[list[str]]:
    """The cells of a shown table, without the escapes of Markdown."""
    return [[str(cell).replace("\\", "") for cell in row] for row in table.value.to_numpy()]


def cells_of(frame: pd.DataFrame) -> list[list[str]]:
    """The cells that a frame has when it is shown."""
    return [[str(cell) for cell in row] for row in frame.to_numpy()]


@pytest.mark.parametrize("page", ["Signals & Candles", "Results", "Health"])
@pytest.mark.parametrize("name", SICK)
def test_a_sick_database_is_explained_and_nothing_else_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, page: str
) -> None:
    """No exception, no empty chart: the sentence of `views.state` with its remedy."""
    make, _, phrase = SICK[name]
    make(tmp_path / "market.db")
    app = opened(monkeypatch, config_for(tmp_path), page=page)
    assert phrase in shown(app)
    assert len(app.get("plotly_chart")) == 0


@pytest.mark.parametrize("page", ["Signals & Candles", "Results", "Health"])
def test_a_locked_database_is_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, page: str
) -> None:
    """A file that nobody may read now says so; the next refresh tries again."""
    open_database(tmp_path / "market.db").close()
    config = config_for(tmp_path)
    with locked(tmp_path / "market.db"):
        assert "locked by another process" in shown(opened(monkeypatch, config, page=page))
    assert "locked" not in shown(opened(monkeypatch, config, page=page))


def test_a_page_is_whole_while_a_writer_holds_its_transaction(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """BEGIN IMMEDIATE of the scheduler does not reach readers of a WAL database."""
    db, strategy = tiny(tmp_path / "market.db")
    add(db, strategy, 1)
    with db.write():
        app = opened(monkeypatch, config_for(tmp_path), page="Results")
        assert not app.error
        assert len(app.table) > 0
    db.close()


def test_damage_found_later_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, seeded: Seeded, tmp_path: Path
) -> None:
    """Where the head of the file is sound and its rows are not, the page says damaged."""
    config = config_for(tmp_path)
    with open_database(seeded.path) as db:
        db.checkpoint(truncate=True)
        root = int(db.value("SELECT rootpage FROM sqlite_schema WHERE name = 'signals_decided'"))
    whole = bytearray(seeded.path.read_bytes())
    whole[4096 * (root - 1) : 4096 * root] = b"\xa5" * 4096
    (tmp_path / "market.db").write_bytes(whole)
    app = opened(monkeypatch, config, page="Results")
    assert "damaged" in shown(app)


def test_a_bad_config_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A missing file and an unknown key are each one line with the remedy."""
    assert "--config" in shown(opened(monkeypatch, tmp_path / "nowhere.yaml"))
    path = tmp_path / "config.yaml"
    path.write_text("ap: {}\n")
    assert "did you mean app?" in shown(opened(monkeypatch, path))


def test_the_first_page_shows_the_newest_candidate(
    monkeypatch: pytest.MonkeyPatch, seeded: Seeded
) -> None:
    """State bar, banner, chart, and a table of the candidates the views give."""
    app = opened(monkeypatch, seeded.config)
    newest = views.latest_signals(seeded.path, views.Filters())
    text = shown(app)
    assert "SYNTHETIC TEST DATA" in text
    assert "No proven edge" in text
    called = views.desk(seeded.path).calls
    assert all(call.act[1:] in text for call in called)
    assert f"#{called[0].id}: " in text
    assert len(app.get("plotly_chart")) == 1
    assert app.dataframe[0].value["id"].tolist() == newest["id"].tolist()
    assert "2025-02-15 01:00" in text
    assert "UNCERTIFIED" in text
    assert views.meter_text(views.meter(seeded.path)) in text


@pytest.mark.parametrize("status", ["TP", "EXPIRED", "OPEN"])
def test_a_link_opens_its_candidate(
    monkeypatch: pytest.MonkeyPatch, seeded: Seeded, status: str
) -> None:
    """`?signal=ID` shows that one, whatever came since; its result is the row's."""
    rows = views.latest_signals(seeded.path, views.Filters(status=(status,)))
    number, r = int(rows["id"].iloc[-1]), rows["r_multiple"].iloc[-1]
    text = shown(opened(monkeypatch, seeded.config, signal=number))
    assert f"#{number}: " in text
    assert (f"net {r:+.2f} R" in text) == (status == "TP")


def test_filters_narrow_the_table(monkeypatch: pytest.MonkeyPatch, seeded: Seeded) -> None:
    """Choosing a symbol leaves its rows only, and the chart follows."""
    app = opened(monkeypatch, seeded.config)
    app.multiselect(key="symbol").set_value([SYMBOLS[2]])
    app.run()
    assert not app.exception
    table = app.dataframe[0].value
    assert set(table["symbol"]) == {SYMBOLS[2]}
    assert f"#{table['id'].iloc[0]}: " in shown(app)


def test_the_figures_shown_are_those_of_the_views(
    monkeypatch: pytest.MonkeyPatch, seeded: Seeded
) -> None:
    """What analyze_results prints from the same views is what the page shows."""
    found = views.results(seeded.path)
    scores = views.scores(seeded.path)
    gate = views.gate_record(found)
    assert gate is not None
    expected = {
        "Record": [views.metrics_table(found)],
        "Gate and scores": [
            views.gate_table(gate),
            views.coverage_table(views.coverage(scores)),
            views.promise_table(views.promised(scores)),
        ],
        "In its parts": [views.breakdown_table(views.breakdown(found, "followed", "symbol"))],
    }
    charts = {"Record": 1, "Gate and scores": 4, "In its parts": 1}
    for tab, tables in expected.items():
        app = opened(monkeypatch, seeded.config, page="Results", results=tab)
        assert [cells(table) for table in app.table] == [cells_of(table) for table in tables]
        assert (gate.sentence in shown(app)) == (tab == "Gate and scores")
        assert len(app.get("plotly_chart")) == charts[tab]
    tab, by = "In its parts", "exit_reason"
    app = opened(monkeypatch, seeded.config, page="Results", results=tab, by=by)
    by_exit = views.breakdown_table(views.breakdown(found, "followed", "exit_reason"))
    assert cells(app.table[0]) == cells_of(by_exit)


def test_a_new_exit_moves_the_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is kept between refreshes is dropped when the record changes."""
    db, strategy = tiny(tmp_path / "market.db")
    config = config_for(tmp_path)
    seen = []
    for day in (1, 2):
        add(db, strategy, day)
        table = opened(monkeypatch, config, page="Results").table[0].value
        seen.append(table[table["figure"] == "candidates"].iloc[0, 2])
    db.close()
    assert seen == ["1", "2"]


def test_the_health_page_lists_series_jobs_and_messages(
    monkeypatch: pytest.MonkeyPatch, seeded: Seeded
) -> None:
    """Ages, last runs with their failures, and what waits to be sent."""
    data = opened(monkeypatch, seeded.config, page="Health", health="Data")
    assert len(data.dataframe[0].value) == 9
    system = opened(monkeypatch, seeded.config, page="Health", health="System")
    jobs, failed, messages = (table.value for table in system.dataframe)
    assert jobs.set_index("job").loc["auto_tune", "last"] == "error"
    assert failed["job"].tolist() == ["auto_tune"]
    assert messages[["state", "n"]].to_numpy().tolist() == [["pending", 1]]


def test_the_health_page_shows_the_model(monkeypatch: pytest.MonkeyPatch, seeded: Seeded) -> None:
    """Calibration in a sentence and a diagram, certificates, windows, bundles."""
    app = opened(monkeypatch, seeded.config, page="Health")
    assert "Method platt: Brier 0.2310 (raw 0.2440, coin flip 0.2290)" in shown(app)
    assert "before gains were kept" in shown(app)  # as of bundles older than this figure
    assert len(app.get("plotly_chart")) == 2
    certificates, windows, history = (table.value for table in app.dataframe)
    assert certificates["certificate"].tolist() == ["none"]
    assert int(windows["scored"].sum()) == len(views.scores(seeded.path).folds)
    assert history["bundle"].tolist() == ["seed-bundle-1"]


def test_the_health_page_shows_what_the_model_learnt_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where a bundle kept the gain of its splits it is shown, the greatest on top."""
    made = seed(tmp_path)
    with open_database(made.path) as db, db.write():
        add_metrics(
            db, "seed-bundle-1", {"train": {"gain": {"hour_sin": 0.2, "own_efficiency": 0.8}}}
        )
    app = opened(monkeypatch, made.config, page="Health")
    assert "before gains were kept" not in shown(app)
    assert len(app.get("plotly_chart")) == 3
    (bars,) = views.gain_figure({"own_efficiency": 0.8, "hour_sin": 0.2}).data
    assert list(zip(bars.y, bars.x, strict=True)) == [("hour sin", 20), ("own TF efficiency", 80)]


def test_text_of_the_database_is_not_markup(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A label of links and tags is shown as it stands."""
    db, strategy = tiny(tmp_path / "market.db")
    set_label(db, "banner", "[click](http://x) <b>bold</b> :red[alarm] $x$")
    add(db, strategy, 1)
    db.close()
    (banner,) = opened(monkeypatch, config_for(tmp_path)).warning
    assert banner.value.startswith(r"\[click\]\(http\://x\) \<b\>")


def test_no_page_can_inject_html() -> None:
    """No source of a page names a way to write raw HTML."""
    banned = {"unsafe_allow_html", "html", "iframe", "components"}
    for path in (SCRIPT, *(ROOT / "core" / "views").glob("*.py"), *PAGES.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names |= {node.arg or "" for node in ast.walk(tree) if isinstance(node, ast.keyword)}
        assert not names & banned, path.name


def test_the_page_is_served_to_this_machine_only() -> None:
    """The shipped settings bind to loopback, send no statistics and show no traceback."""
    settings = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())
    assert settings["server"].items() >= {"address": "127.0.0.1", "headless": True}.items()
    assert settings["browser"]["gatherUsageStats"] is False
    assert settings["client"]["showErrorDetails"] == "none"
