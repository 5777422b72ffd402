"""The head and the results say what the data say: states, the meter, curves, promise and lift."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core import views
from core.performance import metrics
from core.store import Database, open_database, open_reader
from core.store.models import insert_bundle, update_bundle
from core.store.operation import set_label
from core.views.bundle import calibration_text, importance_figure, reliability_figure
from core.views.columns import numbers
from core.views.evidence import basis_text
from core.views.results import trades_of
from core.views.words import band_text, reasons, span, why_of
from tests.seed_database import Seeded, seed
from tests.tiny_database import T0, add, tiny, won


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    """A synthetic database with candidates in every state."""
    return seed(tmp_path_factory.mktemp("seeded"))


def say(db: Database, strategy: str, word: str, reason: str) -> None:
    """Write down a state as the engine does."""
    db.run(
        "INSERT INTO states (at_ms, strategy_id, bundle, state, reason) VALUES (?, ?, 'b', ?, ?)",
        (T0, strategy, word, reason),
    )


def test_the_newest_written_state_rules(tmp_path: Path) -> None:
    """Its word, its reason as a sentence; only CERTIFIED may stand without `no proven edge`."""
    path = tmp_path / "market.db"
    db, strategy = tiny(path)
    words = []
    for word in ("UNCERTIFIED", "CERTIFIED", "DEGRADED"):
        say(db, strategy, word, f"because of {word}.")
        found = views.state(path).evidence
        words.append(found.word)
        assert f"ecause of {word}." in found.sentence
        assert ("No proven edge" in found.sentence) == (word != "CERTIFIED")
        assert found.since_ms == T0
    assert words == ["UNCERTIFIED", "CERTIFIED", "DEGRADED"]
    db.close()


def test_the_next_close_is_that_of_the_finest_scanned_timeframe(seeded: Seeded) -> None:
    """The seed ends on a full hour and scans 15m and 1h."""
    found = views.state(seeded.path)
    assert found.next_close_ms is not None
    assert found.market_ms is not None
    assert found.next_close_ms - found.market_ms == 15 * 60_000


def test_the_meter_is_the_record_of_what_passed(seeded: Seeded) -> None:
    """The scored PASS of the record, judged by the same function over the same rows."""
    rows = views.results(seeded.path).rows
    mine = rows[rows["is_counted"] & (rows["gate"] == "PASS") & rows["ml_p"].notna()]
    expected = metrics(trades_of(mine), np.random.default_rng(20_250_101))
    found = views.meter(seeded.path)
    assert found.scored
    assert found.metrics is not None
    assert found.metrics.n == len(mine) > 10
    for name in ("n_eff", "mean_r", "mean_r_lo", "mean_r_hi"):
        assert getattr(found.metrics, name) == pytest.approx(getattr(expected, name)), name


def test_a_meter_without_trades_says_so(tmp_path: Path) -> None:
    """No figure, no interval, an empty axis."""
    path = tmp_path / "market.db"
    open_database(path).close()
    found = views.meter(path)
    assert views.meter_text(found) == "no closed trade yet"
    assert "Too early" in found.proof
    assert views.meter_svg(found).count("<rect") == 2


def test_a_meter_names_what_the_certificate_rests_on() -> None:
    """Certified: the mean and its low end, with their sample; else the reason it was refused."""
    detail = {"mode": "ev", "estimate": 0.46, "lower": 0.137, "delta": 0.1, "reason": "certified"}
    assert basis_text("* *", 1, 265, 100.6, json.dumps(detail)) == (
        "Certificate for all pairs and timeframes: net +0.46 R a trade out of fold, at least +0.14"
        " (90%, one-sided), n 265, n_eff 100."
    )
    refused = json.dumps({"reason": "not certified: 21 trades, 50 are needed"})
    assert basis_text("* 4h", 0, 21, 10.9, refused) == (
        "Last tuning, 4h: not certified: 21 trades, 50 are needed."
    )


def test_once_a_model_speaks_ungated_trades_are_no_evidence_for_it(tmp_path: Path) -> None:
    """With a champion that has judged nothing yet the meter is empty."""
    path = tmp_path / "market.db"
    db, strategy = tiny(path)
    add(db, strategy, 1)
    before = views.meter(path)
    insert_bundle(
        db, "b1", strategy=strategy, parent=None, created_ms=T0, data_until_ms=T0, metrics={}
    )
    update_bundle(db, "b1", {"state": "champion"})
    db.close()
    after = views.meter(path)
    assert before.metrics is not None
    assert (before.scored, after.scored, after.metrics) == (False, True, None)


def test_a_meter_is_grey_while_its_interval_holds_zero(tmp_path: Path) -> None:
    """Twenty weeks of coin flips prove nothing; twenty weeks of wins do."""
    colours = []
    for k, results in enumerate(([2.0, -1.9], [2.0, 1.0])):
        path = tmp_path / str(k) / "market.db"
        db, strategy = tiny(path, n_days=200)
        for week in range(20):
            r = results[week % 2]
            row = won(r) if r > 0 else {"r_multiple": r, "gross_r": r + 0.1}
            add(db, strategy, 7 * week + 1, **row)
        db.close()
        picture = views.meter_svg(views.meter(path))
        colours.append(("#8a8f98" in picture, "#1f9d83" in picture))
    assert colours == [(True, False), (True, True)]


def test_without_a_daily_look_the_time_to_proof_is_the_same_estimate(tmp_path: Path) -> None:
    """The sentence is that of `proof_time` over the same trades; too few weeks say so."""
    db, strategy = tiny(tmp_path / "market.db", n_days=200)
    for week in range(20):
        row = won(0.6) if week % 2 else {"r_multiple": -0.4, "gross_r": -0.3}
        add(db, strategy, 7 * week + 1, **row)
    db.close()
    assert "net +0.1" in views.meter(tmp_path / "market.db").proof
    assert "28 weeks" in views.meter(tmp_path / "market.db").proof
    tiny(tmp_path / "empty.db", n_days=200)[0].close()
    assert "Too early" in views.meter(tmp_path / "empty.db").proof


def test_curves_of_live_and_retro_are_apart_and_whole(seeded: Seeded) -> None:
    """Each ends at the sum of its own trades; together they are the books' totals."""
    found = views.results(seeded.path)
    curves = views.book_curves(found)
    rows = found.rows[found.rows["is_closed"]]
    for origin in ("live", "retro"):
        expected = rows[rows["origin"] == origin]["r_multiple"].sum()
        assert curves["followed", origin]["equity_r"].iloc[-1] == pytest.approx(expected)
        assert (curves["followed", origin]["underwater_r"] <= 0).all()
    total = sum(float(curves["delivered", o]["equity_r"].iloc[-1]) for o in ("live", "retro"))
    books = found.books
    assert total == pytest.approx(books["live"].total_r + books["paper"].total_r)
    figure = views.books_figure(curves, zone="UTC")
    faint = {trace.name: trace.opacity for trace in figure.data}
    assert faint["all, live"] == 1.0
    assert faint["all, retro"] <= 0.7


def test_promised_bins_hold_every_closed_score_once(seeded: Seeded) -> None:
    """Bins of rising promise; their sizes sum to the closed scored trades."""
    scores = views.scores(seeded.path)
    for name, table in views.promised(scores).items():
        frame = scores.stored if name.startswith("told") else scores.folds
        assert table["n"].sum() == int((frame["is_closed"] & frame["ev_r"].notna()).sum())
        assert table["promised_r"].is_monotonic_increasing
        assert len(table) == 6


def test_scores_without_a_bundle_are_empty(tmp_path: Path) -> None:
    """Neither fold scores nor stored ones, and every figure copes."""
    path = tmp_path / "market.db"
    db, strategy = tiny(path)
    add(db, strategy, 1)
    db.close()
    scores = views.scores(path)
    assert (len(scores.folds), len(scores.stored)) == (0, 0)
    tables = views.promised(scores)
    assert all(table.empty for table in tables.values())
    assert len(views.promise_figure(tables).data) == 1


def test_reasons_and_bands_are_words_with_their_figures() -> None:
    """An empty column has neither; a band names n, n_eff, the coin flip and both intervals."""
    assert reasons(why_of(""), "for") == []
    assert "No record yet" in band_text({})
    band: dict[str, float | None] = {
        "n": 240,
        "n_eff": 91.4,
        "win_rate": 0.4,
        "win_rate_lo": 0.3,
        "win_rate_hi": 0.5,
    }
    band |= {"mean_r": 0.02, "mean_r_lo": None, "mean_r_hi": None, "p_mart": 0.38}
    why = why_of(json.dumps({"band": band, "for": [["cost_r", 0.08, 0.1]]}))
    assert reasons(why, "for") == ["costs 0.080 R"]
    assert band_text(why) == (
        "Scores like this one, out of sample: win-rate 40% [30%, 50%], coin flip 38%, net +0.02"
        " [no interval] R a trade, n 240 (n_eff 91), 90% intervals."
    )


def test_lengths_of_time_are_read_in_two_units() -> None:
    """And what is not known is said to be so."""
    assert [span(ms) for ms in (None, 59_999, 60_000, 3_660_000, 90_000_000)] == [
        "unknown",
        "59 s",
        "1 min",
        "1 h 1 min",
        "1 d 1 h",
    ]


def test_a_reliability_diagram_has_both_tables(seeded: Seeded) -> None:
    """Before and after calibration beside the perfect line; without them a sentence."""
    found = views.model_health(seeded.path)["calibration"]
    figure = reliability_figure(found)
    assert [trace.name.split(",")[0] for trace in figure.data] == ["perfect", "raw", "calibrated"]
    assert len(reliability_figure({}).data) == 1
    assert "No out-of-fold score" in calibration_text({})


def test_importance_counts_the_stored_reasons(seeded: Seeded) -> None:
    """The seed stores one reason for and two against each scored candidate."""
    table = views.model_health(seeded.path)["importance"].set_index("feature")
    n_scored = len(views.scores(seeded.path).stored)
    assert table.loc["cost_r", "n_against"] == n_scored > 0
    assert table.loc["higher1_ema_distance_atr", "n_for"] == n_scored
    assert len(importance_figure(table.reset_index()).data) == 2


def test_live_equals_retro_is_told_only_once_measured(tmp_path: Path) -> None:
    """Until `maintenance.py verify` has run there is a remedy, not a figure."""
    path = tmp_path / "market.db"
    db, _ = tiny(path)
    assert "maintenance.py verify" in views.parity_text(path)
    set_label(db, "verified", json.dumps({"said": "decisions 60/60", "at_ms": T0}))
    assert "decisions 60/60" in views.parity_text(path)
    db.close()


def test_a_wal_is_called_long_where_it_is(tmp_path: Path) -> None:
    """Sizes are those of the files; a long WAL is explained."""
    path = tmp_path / "market.db"
    path.write_bytes(b"x" * 1500)
    found = views.sizes(path)
    assert (found["file"], found["wal"], found["wal_is_high"]) == (1500, 0, False)
    assert views.sizes_text(found) == "database 1.5 kB, WAL 0 B"
    assert "a reader holds it" in views.sizes_text(found | {"wal_is_high": True})


def test_numbers_are_those_of_the_rows(seeded: Seeded) -> None:
    """Stepped into arrays or asked for as objects: the same values, NaN where a row has None."""
    names = ("id", "decided_ms", "r_multiple", "exec_state ->> '$.opened_price'", "ml_p")
    rest = "FROM signals WHERE id > ? ORDER BY id"
    with open_reader(seeded.path) as db:
        ids, columns = numbers(db, names, rest, (20,))
        rows = db.rows(f"SELECT {', '.join(names)} {rest}", (20,))
    assert len(rows) > 100
    assert ids.tolist() == [row[0] for row in rows]
    for i, name in enumerate(names[1:], 1):
        expected = np.array([row[i] for row in rows], np.float64)
        assert np.array_equal(columns[name], expected, equal_nan=True), name


def test_frames_read_without_objects_keep_what_is_absent(seeded: Seeded) -> None:
    """NULL is NaN, not 0: open trades have no result, unscored candidates no probability."""
    rows = views.results(seeded.path).rows
    open_rows = rows[rows["status"] == "OPEN"]
    assert len(open_rows) > 0
    assert open_rows["r_multiple"].isna().all()
    assert pd.isna(rows["ml_p"]).sum() > 0
    assert (rows["decided_ms"].diff().dropna() >= 0).all()
