"""The record is what the rows say: worked by hand, split without loss, never ranked by luck."""

from __future__ import annotations

import json
from math import nan
from pathlib import Path
from typing import Any

import pytest

from core import performance, views
from core.store import open_database
from core.store.models import insert_bundle, insert_trials, replace_scores, update_bundle
from core.timeframe import DAY_MS
from tests.seed_database import BUNDLE, Seeded, seed
from tests.tiny_database import T0, add, tiny, won

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    """A synthetic database with candidates in every state."""
    return seed(tmp_path_factory.mktemp("seeded"))


def test_the_figures_of_a_tiny_book_are_those_worked_by_hand(tmp_path: Path) -> None:
    """Closed in the order +2, -1.1, -1.1, +0.6: total .4, drawdown 2.2, half of them won."""
    path = tmp_path / "market.db"
    db, strategy = tiny(path)
    add(db, strategy, 1, **won(2.0), pnl_usd=200.0)
    add(db, strategy, 8)
    add(db, strategy, 15)
    add(db, strategy, 22, **won(0.6), pnl_usd=60.0)
    add(db, strategy, 23, status="EXPIRED", r_multiple=None, gross_r=None, pnl_usd=None)
    db.close()
    book = views.results(path).books["paper"]
    m = book.metrics
    assert m is not None
    assert (book.n_candidates, book.n_closed, book.n_unfilled, book.n_young) == (5, 4, 1, 0)
    assert book.total_r == pytest.approx(0.4)
    assert book.total_usd == pytest.approx(40.0)
    assert book.max_drawdown_r == pytest.approx(2.2)
    assert (m.n, m.win_rate) == (4, 0.5)
    assert m.n_eff == pytest.approx(4)
    assert m.p_mart == pytest.approx(0.4)
    assert m.mean_r == pytest.approx(0.1)
    assert m.cost_r == pytest.approx(0.1)
    assert m.profit_factor == pytest.approx(2.6 / 2.2)
    assert m.win_rate_lo < 0.5 < m.win_rate_hi
    assert (book.fill.n, book.fill.rate) == (5, 0.8)
    assert book.fill.rate_lo < 0.8 < book.fill.rate_hi
    assert book.years == pytest.approx(59 / 365.25)
    assert book.closed.calmar == pytest.approx(0.4 / book.years / 2.2)
    curve = views.equity(views.results(path), "paper")
    assert curve["equity_r"].tolist() == pytest.approx([2.0, 0.9, -0.2, 0.4])
    assert curve["underwater_r"].tolist() == pytest.approx([0.0, -1.1, -2.2, -1.6])


def test_young_trades_count_in_totals_but_not_in_rates(tmp_path: Path) -> None:
    """Stops end sooner than targets: a rate over "closed so far" would be too low."""
    path = tmp_path / "market.db"
    db, strategy = tiny(path, n_days=30)
    # An 1h candidate matures 1 day of validity and 96 hours of holding after its decision.
    add(db, strategy, 24.9, **won(1.0))
    add(db, strategy, 25.1)
    db.close()
    book = views.results(path).books["followed"]
    assert book.metrics is not None
    assert (book.n_closed, book.n_young, book.metrics.n) == (2, 1, 1)
    assert book.total_r == pytest.approx(-0.1)
    assert book.metrics.win_rate == 1.0


def test_the_books_hold_what_their_names_say(tmp_path: Path) -> None:
    """Live, paper and shadow share out all that is followed; passed is the gate's PASS."""
    path = tmp_path / "market.db"
    db, strategy = tiny(path)
    add(db, strategy, 1, delivery="LIVE", gate="PASS")
    add(db, strategy, 2, delivery="PAPER", gate="PASS")
    add(db, strategy, 3, delivery="DIGEST", gate="PASS")
    add(db, strategy, 4, delivery="NONE", gate="REJECT")
    db.close()
    found = views.results(path)
    assert {name: book.n_candidates for name, book in found.books.items()} == {
        "live": 1,
        "paper": 1,
        "shadow": 2,
        "passed": 3,
        "followed": 4,
    }


def test_live_paper_and_shadow_add_up_to_all(seeded: Seeded) -> None:
    """Every count and every total of what is followed is the sum of the three."""
    books = views.results(seeded.path).books
    parts = [books[name] for name in ("live", "paper", "shadow")]
    names = ("n_candidates", "n_open", "n_closed", "n_young", "total_r", "total_usd", "open_r")
    assert all(part.n_closed for part in parts)
    for name in names:
        total = sum(getattr(part, name) for part in parts)
        assert total == pytest.approx(getattr(books["followed"], name)), name


def test_every_model_tried_here_deflates_the_sharpe(tmp_path: Path) -> None:
    """Trials of any bundle count; with them the same trades are believed less."""
    path = tmp_path / "market.db"
    db, strategy = tiny(path)
    for day in range(1, 30):
        add(db, strategy, day, **won(1.0 if day % 2 else -0.6))
    alone = views.results(path).books["followed"]
    assert (alone.n_trials, alone.metrics is not None) == (0, True)
    insert_trials(db, "b1", [({"depth": k}, {"log_loss": 0.6}) for k in range(7)], now_ms=1)
    insert_trials(db, "b2", [({"depth": k}, {"log_loss": 0.6}) for k in range(5)], now_ms=2)
    db.close()
    tried = views.results(path).books["followed"]
    assert tried.n_trials == 12
    assert 0 < tried.deflated_sharpe < alone.deflated_sharpe < 1
    column = views.metrics_table(views.results(path)).set_index("figure")["All followed"]
    assert "12 models tried" in column["deflated Sharpe"]


def test_no_figure_mixes_strategies(tmp_path: Path) -> None:
    """Rows of another strategy_id appear only when that one is asked for."""
    path = tmp_path / "market.db"
    db, strategy = tiny(path)
    add(db, strategy, 1)
    add(db, "another", 1)
    add(db, "another", 2)
    db.close()
    assert views.results(path).books["followed"].n_closed == 1
    assert views.results(path, strategy="another").books["followed"].n_closed == 2


def test_a_window_takes_candidates_decided_inside_it(tmp_path: Path) -> None:
    """[start, end) by decision time: the first instant is in, the last is out."""
    path = tmp_path / "market.db"
    db, strategy = tiny(path)
    for day in (1, 2, 3):
        add(db, strategy, day)
    db.close()
    found = views.results(path, start_ms=T0 + DAY_MS, end_ms=T0 + 3 * DAY_MS)
    assert found.rows["decided_ms"].tolist() == [T0 + DAY_MS, T0 + 2 * DAY_MS]


@pytest.mark.parametrize("by", views.BY)
def test_a_breakdown_splits_the_book_without_loss(seeded: Seeded, by: str) -> None:
    """The cells' trades add up to the book's; small cells are marked; none is ranked by result."""
    found = views.results(seeded.path)
    whole, table = found.books["followed"].metrics, views.breakdown(found, "followed", by)
    assert whole is not None
    assert int(table["n"].sum()) == whole.n
    assert (table["n"] * table["mean_r"]).sum() == pytest.approx(whole.n * whole.mean_r)
    assert table["is_thin"].tolist() == (table["n_eff"] < 30).tolist()
    if by == "timeframe":
        assert table[by].tolist() == ["15m", "1h"]
    elif by == "weekday":
        assert table[by].tolist() == [day for day in DAYS if day in set(table[by])]
    else:
        assert table[by].tolist() == sorted(table[by])


def test_cells_of_time_and_score_are_worked_by_hand(tmp_path: Path) -> None:
    """T0 is a Wednesday, 00:00 UTC; bands hold their lower end, the last one both."""
    db, strategy = tiny(tmp_path / "market.db")
    for day, p in ((0, None), (1.5, 0.63), (3.99, 0.7), (4, 1.0)):
        add(db, strategy, day, ml_p=p)
    db.close()
    found = views.results(tmp_path / "market.db")
    cells = {
        by: views.breakdown(found, "followed", by)[by].tolist()
        for by in ("weekday", "hour", "p_band")
    }
    assert cells["weekday"] == ["Wednesday", "Thursday", "Saturday", "Sunday"]
    assert cells["hour"] == ["00", "12", "23"]
    assert cells["p_band"] == ["60 to 70 %", "70 to 80 %", "90 to 100 %", "no score"]


def test_results_as_json_are_strict_and_repeatable(seeded: Seeded) -> None:
    """No NaN reaches a file, and the same data give the same bytes: intervals are seeded."""
    first, second = (views.as_json(views.results(seeded.path)) for _ in range(2))
    text = json.dumps(first, allow_nan=False)
    assert text == json.dumps(second, allow_nan=False)
    book = json.loads(text)["books"]["followed"]
    assert {"n", "n_eff", "win_rate_lo", "p_mart", "mean_r_hi"} <= book["metrics"].keys()
    assert {"fees_r", "funding_usd", "stake_usd_lo"} <= book["account"].keys()


def test_an_empty_record_has_no_figures(tmp_path: Path) -> None:
    """Without a trade there is nothing to judge, and the tables still have their shape."""
    path = tmp_path / "market.db"
    open_database(path).close()
    found = views.results(path)
    assert [book.metrics for book in found.books.values()] == [None] * 5
    assert views.equity(found, "followed").empty
    assert views.equity_at_market(found, "followed").empty
    assert views.breakdown(found, "followed", "symbol").empty
    words = views.metrics_table(found).to_numpy()[:, 1:].ravel().tolist()
    assert not any("nan" in text.lower() for text in words)
    assert json.dumps(views.as_json(found), allow_nan=False)
    assert "No model" in views.coverage(views.scores(path)).sentence


def test_a_win_rate_is_never_written_without_the_coin_flips(seeded: Seeded) -> None:
    """Each cell of each table that shows a win-rate names what a coin flip would win."""
    found = views.results(seeded.path)
    books = views.metrics_table(found)
    texts = books[books["figure"] == "win-rate"].iloc[0, 1:].tolist()
    texts += views.breakdown_table(views.breakdown(found, "followed", "symbol")).iloc[:, 3].tolist()
    texts += views.coverage_table(views.coverage(views.scores(seeded.path))).iloc[:, 3].tolist()
    assert len(texts) == 5 + 3 + 5
    assert all("coin flip" in text and "[" in text for text in texts)


def _with_interval(low: float, high: float) -> performance.Metrics:
    """Metrics of which the mean's interval alone is known."""
    values: dict[str, Any] = dict.fromkeys(performance.Metrics.__dataclass_fields__, 0.0)
    return performance.Metrics(**values | {"mean_r_lo": low, "mean_r_hi": high})


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.2, "It earned"),
        (-0.2, -0.01, "It lost"),
        (-0.1, 0.1, "Neither"),
        (nan, nan, "Too few weeks"),
    ],
)
def test_a_verdict_says_what_the_interval_allows(low: float, high: float, words: str) -> None:
    """Gain or loss only where the whole interval lies on one side of 0."""
    assert views.verdict_text(_with_interval(low, high)).startswith(words)
    assert "nothing to judge" in views.verdict_text(None)


def scored(path: Path, rows: list[tuple[float, float]]) -> None:
    """A champion whose out-of-fold p and realised r are the given pairs, a week apart."""
    db, strategy = tiny(path, n_days=400)
    insert_bundle(
        db, "b1", strategy=strategy, parent=None, created_ms=1, data_until_ms=1, metrics={}
    )
    scores = []
    for i, (p, r) in enumerate(rows):
        number = add(db, strategy, 7 * i, r_multiple=r, gross_r=r + 0.1)
        scores.append({"signal_id": number, "fold_cutoff_ms": T0, "p_raw": p, "p": p})
    none = dict.fromkeys(("ev_pct", "ev_lo_pct", "ev_r", "ev_lo_r"))
    replace_scores(db, "b1", [row | none for row in scores])
    db.close()


def test_coverage_takes_the_best_scores_first(tmp_path: Path) -> None:
    """Of ten trades where the three best-scored won, the top 30 % win all, the whole 30 %."""
    path = tmp_path / "market.db"
    scored(path, [(0.9 - 0.05 * i, 1.0 if i < 3 else -1.0) for i in range(10)])
    found = views.coverage(views.scores(path))
    table = found.table.set_index("coverage")
    assert table["win_rate"].to_dict() == pytest.approx(
        {1.0: 0.3, 0.5: 0.6, 0.3: 1.0, 0.2: 1.0, 0.1: 1.0}
    )
    assert table["lowest_score"].to_dict()[0.3] == pytest.approx(0.8)
    assert table["mean_r"].to_dict()[1.0] == pytest.approx(-0.4)
    assert table["p_mart"].to_dict()[0.5] == pytest.approx(0.4)
    assert "Out-of-fold" in found.sentence
    assert found.state == "draft"


def test_a_champion_is_shown_before_a_newer_draft(seeded: Seeded, tmp_path: Path) -> None:
    """The scores shown are those of the model in use."""
    assert views.coverage(views.scores(seeded.path)).bundle == BUNDLE
    path = tmp_path / "market.db"
    db, strategy = tiny(path)
    for number, name in enumerate(("old", "new")):
        insert_bundle(
            db,
            name,
            strategy=strategy,
            parent=None,
            created_ms=number,
            data_until_ms=1,
            metrics={},
        )
    assert views.coverage(views.scores(path)).bundle == "new"
    update_bundle(db, "old", {"state": "champion"})
    assert views.coverage(views.scores(path)).bundle == "old"
    db.close()


def test_the_histogram_holds_every_score_once(tmp_path: Path) -> None:
    """Bins are [low, high) but for the last, which holds 1; the ends are counted."""
    path = tmp_path / "market.db"
    scored(path, [(0.0, 1.0), (0.05, -1.0), (0.051, -1.0), (1.0, 1.0)])
    stored, folds = views.ml_p_histogram(views.scores(path)).values()
    assert folds["n_wins"].tolist() == [1] + [0] * 18 + [1]
    assert folds["n_losses"].tolist() == [0, 2] + [0] * 18
    assert int(stored[["n_wins", "n_losses", "n_other"]].to_numpy().sum()) == 0
