"""Laws of training, calibration, promotion and the bundle, on candidates of a known world."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import features as feature_law
from core import market_context
from core.config import config_from, strategy_id
from core.config_file import load_config
from core.costs import cost_rates
from core.domain import Market
from core.errors import ModelError, NotEnoughData
from core.jobs import learning, promotion
from core.jobs.training import load_sample
from core.ml import Bundle, load_bundle, load_current
from core.ml.folder import digest, read_pointer
from core.store import models
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from tests.candidate_world import START_MS, STEP_MS, YAML, World, live_candidate, world


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, dict[str, Any]]]:
    """A world whose feature 5 drives wins, learnt from once."""
    made = world(tmp_path_factory.mktemp("planted"), n=1800, skill=0.9)
    yield made, learning.weekly(made.db, made.config, **made.all_places)
    made.db.close()


def test_a_planted_edge_is_learnt_certified_and_promoted(
    planted: tuple[World, dict[str, Any]],
) -> None:
    """AUC beats the martingale's, the best 30 % earn more than all, and the limit is proven."""
    made, report = planted
    found = learning.evaluate(made.db, made.config)
    assert (found["bundle"], found["state"]) == (report["train"]["bundle"], "champion")
    assert found["auc"] > found["auc_mart"] + 0.08
    assert found["brier"] < found["brier_mart"]
    assert 0.7 < found["calibration_slope"] < 1.3
    gain, low, high = found["lift_30"]["mean_r_over_all"]
    assert low < gain < high
    assert low > 0.1
    assert report["calibrate"]["source"] == "model"
    assert report["tune"]["cells"]["* *"]["certified"]
    assert report["tune"]["promotion"]["promoted"]


def test_the_gain_of_splits_is_kept_and_names_what_drives_wins(
    planted: tuple[World, dict[str, Any]],
) -> None:
    """Shares of all features, in the manifest and the table; that of the planted one is first."""
    made, report = planted
    name = report["train"]["bundle"]
    kept = load_bundle(made.places["models_dir"], name, strategy=strategy_id(made.config)).manifest
    gain = kept["metrics"]["gain"]
    assert set(gain) == set(feature_law.NAMES)
    assert sum(gain.values()) == pytest.approx(1, abs=1e-4)
    assert max(gain, key=gain.__getitem__) == feature_law.NAMES[5]
    (row,) = [row for row in models.bundles(made.db) if row["id"] == name]
    assert row["metrics"]["train"]["gain"] == gain


def test_shuffled_outcomes_teach_nothing(tmp_path: Path) -> None:
    """With outcomes dealt out anew, scores rank unseen wins no better than a coin does."""
    made = world(tmp_path, n=1200, skill=0.9, shuffle=True)
    learning.train(made.db, made.config, **made.places)
    name = learning.calibrate(made.db, made.config, **made.places)["bundle"]
    assert learning.lift_report(made.db, name)["auc_raw"] == pytest.approx(0.5, abs=0.06)
    made.db.close()


def test_a_martingale_earns_no_certificate(tmp_path: Path) -> None:
    """Wins drawn from p_mart alone lose the costs: nothing is certified, and that is said."""
    made = world(tmp_path, n=1200, skill=0.0)
    report = learning.weekly(made.db, made.config, **made.all_places)
    found = report["tune"]["cells"]["* *"]
    assert not found["certified"]
    assert found["value"] is None
    assert "best seen" in found["reason"]
    assert load_config(made.config_path).models.meta.gating.per_pair_tf == {}
    lift = learning.lift_report(made.db, report["train"]["bundle"])
    assert abs(lift["auc"] - lift["auc_mart"]) < 0.05
    made.db.close()


def test_scores_come_from_folds_that_ended_before_the_candidate(
    planted: tuple[World, dict[str, Any]],
) -> None:
    """Every cutoff lies a day or more before its candidate; unfilled ones are scored too."""
    made, report = planted
    rows = models.scores_of(made.db, report["train"]["bundle"])
    assert len({row["fold_cutoff_ms"] for row in rows}) >= 5
    assert all(row["fold_cutoff_ms"] + DAY_MS <= row["decided_ms"] for row in rows)
    assert sum(row["status"] == "EXPIRED" for row in rows) > 100
    first = min(row["fold_cutoff_ms"] for row in rows)
    blank = [row["p"] is None for row in rows if row["fold_cutoff_ms"] == first]
    assert blank
    assert all(blank)
    told = [row["p"] for row in rows if row["p"] is not None]
    assert len(told) > 1000
    assert all(0 <= p <= 1 for p in told)


def test_later_outcomes_cannot_change_an_earlier_score(tmp_path: Path) -> None:
    """Turning every outcome after an instant leaves all that was told before it as it was."""
    first, second = (world(tmp_path / name, n=600, skill=0.5, seed=4) for name in ("one", "two"))
    turn_ms = START_MS + 450 * STEP_MS
    second.db.run(
        "UPDATE signals SET r_multiple = -r_multiple, gross_r = -gross_r"
        " WHERE decided_ms >= ? AND r_multiple IS NOT NULL",
        (turn_ms,),
    )
    told = []
    for made in (first, second):
        name = learning.train(made.db, made.config, **made.places)["bundle"]
        learning.calibrate(made.db, made.config, **made.places)
        rows = models.scores_of(made.db, name)
        told.append(
            [
                (r["signal_id"], r["p_raw"], r["p"], r["ev_lo_r"])
                for r in rows
                if r["decided_ms"] < turn_ms
            ]
        )
        made.db.close()
    assert len(told[0]) > 100
    assert told[0] == told[1]


def test_training_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    """Two databases of the same rows give bundles of one name with the same file hashes."""
    found = []
    for name in ("one", "two"):
        made = world(tmp_path / name, n=500, skill=0.5)
        report = learning.weekly(made.db, made.config, **made.all_places)
        folder = made.models_dir / report["train"]["bundle"]
        found.append({p.name: digest(p.read_bytes()) for p in sorted(folder.iterdir())})
        again = learning.weekly(made.db, made.config, **made.all_places)
        assert not again["train"]["is_new"]
        assert not again["promotion"]["promoted"]
        made.db.close()
    folds = {name for name in found[0] if name.startswith("fold-")}
    assert len(folds) >= 4
    assert set(found[0]) - folds == {
        "model.ubj",
        "calibrator.json",
        "thresholds.json",
        "manifest.json",
    }
    assert found[0] == found[1]


def test_too_little_data_says_how_much_is_missing(tmp_path: Path) -> None:
    """Forty candidates are not fifty, and nothing is written."""
    made = world(tmp_path, n=40, skill=0.0)
    with pytest.raises(NotEnoughData, match="are missing"):
        learning.train(made.db, made.config, **made.places)
    with pytest.raises(ModelError, match="no model"):
        learning.calibrate(made.db, made.config, **made.places)
    assert models.bundles(made.db) == []
    assert not made.models_dir.exists()
    made.db.close()


def test_a_few_busy_days_are_too_few_folds(tmp_path: Path) -> None:
    """Enough candidates within days of each other: the folds are missing, and that is said."""
    made = world(tmp_path, n=120, skill=0.0)
    made.db.run(
        "UPDATE signals SET decided_ms = ?1 + (decided_ms - ?2) / 20",
        (START_MS + DAY_MS, START_MS),
    )
    with pytest.raises(NotEnoughData, match="give 0 walk-forward folds"):
        learning.train(made.db, made.config, **made.places)
    made.db.close()


def test_unmatured_candidates_teach_nothing(tmp_path: Path) -> None:
    """A training run sees only rows decided longer ago than validity and the longest hold."""
    made = world(tmp_path, n=200, skill=0.0)
    horizon_ms = 6 * HOUR_MS + made.config.execution.max_hold_candles * 15 * MINUTE_MS
    now_ms = START_MS + 100 * STEP_MS
    sample = load_sample(made.db, made.config, now_ms=now_ms)
    assert len(sample) > 80
    assert sample.t0_ms.max() < now_ms - horizon_ms
    assert sample.t0_ms.max() >= now_ms - horizon_ms - 2 * STEP_MS
    made.db.close()


def test_promotion_changes_nothing_else_in_the_configuration(
    planted: tuple[World, dict[str, Any]],
) -> None:
    """Only the tuner's block differs; the entry names the bundle and loads as a setting."""
    made, report = planted
    text = made.config_path.read_text()
    head, tail = YAML.split("{}   # the tuner's")
    assert text.startswith(head)
    assert text.endswith("   # the tuner's" + tail)
    entry = load_config(made.config_path).models.meta.gating.per_pair_tf["*"]["*"]
    assert (entry.source, entry.bundle) == ("tuner", report["train"]["bundle"])


def test_owner_entries_stay_and_win(planted: tuple[World, dict[str, Any]], tmp_path: Path) -> None:
    """Writing the tuner's entries keeps the owner's, in the same cell too, and drops stale ones."""
    path = tmp_path / "config.yaml"
    mine = '{"*": {"*": {min_ev_pct: 9.0}, 1h: {min_ev_pct: 1.0, source: tuner, bundle: old}}}'
    path.write_text(YAML.replace("{}   # the tuner's", mine))
    made, report = planted
    bundle = load_current(made.models_dir, strategy_id(made.config))
    assert bundle is not None
    assert promotion.write_entries(path, promotion.tuner_entries(bundle)) == ""
    cells = load_config(path).models.meta.gating.per_pair_tf["*"]
    assert cells["*"].min_ev_pct == 9.0
    assert cells["*"].source == "owner"
    assert "1h" not in cells
    assert report["train"]["bundle"] == bundle.id


def test_a_loaded_bundle_scores_alone_as_in_company(
    planted: tuple[World, dict[str, Any]],
) -> None:
    """One candidate at a time gives the bits that all at once give."""
    made, _ = planted
    bundle = load_current(made.models_dir, strategy_id(made.config))
    assert bundle is not None
    sample = load_sample(made.db, made.config, now_ms=made.now_ms).of(np.arange(40))
    whole = bundle.score(sample.features, sample.p_mart, prospect=sample.prospect())
    for i in range(40):
        one = sample.of(np.array([i]))
        alone = bundle.score(one.features, one.p_mart, prospect=one.prospect())
        assert alone == [whole[i]]
    assert all(0 <= score.p <= 1 and score.ev_lo_r <= score.ev_r for score in whole)


def test_a_plan_scores_as_its_stored_row(planted: tuple[World, dict[str, Any]]) -> None:
    """Live candidates and rows read back give the same bits, and a taker entry costs value."""
    made, _ = planted
    bundle = load_current(made.models_dir, strategy_id(made.config))
    assert bundle is not None
    sample = load_sample(made.db, made.config, now_ms=made.now_ms).of(np.arange(5))
    rates = cost_rates(made.config.signals, Market(symbol="x", kind="swap", tick=0.01))
    found = [live_candidate(sample, i) for i in range(5)]
    by_symbol = {"A/USDT": rates, "B/USDT": rates}
    live = bundle.score_candidates(found, rates=by_symbol, costs_mode="auto")
    assert live == bundle.score(sample.features, sample.p_mart, prospect=sample.prospect())
    taker = bundle.score_candidates(found, rates=by_symbol, costs_mode="taker")
    assert all(dear.ev_r < cheap.ev_r for dear, cheap in zip(taker, live, strict=True))
    assert [score.p for score in taker] == [score.p for score in live]


@pytest.mark.parametrize("file", ["model.ubj", "calibrator.json", "thresholds.json"])
def test_a_corrupt_bundle_is_refused(
    planted: tuple[World, dict[str, Any]], tmp_path: Path, file: str
) -> None:
    """One changed byte in any file, or a missing one, is a ModelError of one line."""
    import shutil

    made, report = planted
    name, strategy = report["train"]["bundle"], strategy_id(made.config)
    shutil.copytree(made.models_dir, tmp_path / "models")
    path = tmp_path / "models" / name / file
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))
    with pytest.raises(ModelError, match="SHA-256"):
        load_current(tmp_path / "models", strategy)
    path.unlink()
    with pytest.raises(ModelError) as caught:
        load_bundle(tmp_path / "models", name, strategy=strategy)
    assert "\n" not in str(caught.value)


def test_weekly_work_mends_a_damaged_champion(tmp_path: Path) -> None:
    """The same data give the same name: the folder is written anew and speaks again."""
    made = world(tmp_path, n=900, skill=0.9)
    name = learning.weekly(made.db, made.config, **made.all_places)["train"]["bundle"]
    kept = (made.models_dir / name / "calibrator.json").read_bytes()
    (made.models_dir / name / "calibrator.json").write_bytes(b"{}")
    with pytest.raises(ModelError):
        load_current(made.models_dir, strategy_id(made.config))
    report = learning.weekly(made.db, made.config, **made.all_places)
    assert report["train"]["is_new"]
    assert report["tune"]["promotion"]["promoted"]
    bundle = load_current(made.models_dir, strategy_id(made.config))
    assert bundle is not None
    assert (made.models_dir / name / "calibrator.json").read_bytes() == kept
    assert [row["state"] for row in models.bundles(made.db)] == ["champion"]
    made.db.close()


def test_a_foreign_bundle_is_refused(
    planted: tuple[World, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another strategy has no current bundle, and other features refuse this one."""
    made, report = planted
    strategy = strategy_id(made.config)
    other = strategy_id(config_from({"signals": {"atr_period": 20}}))
    assert load_current(made.models_dir, other) is None
    with pytest.raises(ModelError, match="serves strategy"):
        load_bundle(made.models_dir, report["train"]["bundle"], strategy=other)
    with pytest.raises(ModelError, match="no name of a bundle"):
        load_bundle(made.models_dir, "../x", strategy=strategy)
    monkeypatch.setattr(feature_law, "VERSION", feature_law.VERSION + 1)
    with pytest.raises(ModelError, match="other features"):
        load_current(made.models_dir, strategy)


def test_features_that_are_stored_of_nobody_do_not_stand_in_the_way(tmp_path: Path) -> None:
    """Candles without funding, open interest and spot: all NaN in those, and the edge is learnt.

    A bundle made so scores a candidate that has them, too.
    """
    made = world(tmp_path, n=900, skill=0.9)
    n_absent = len(market_context.NAMES)
    for number, vector in made.db.rows("SELECT signal_id, vector FROM features"):
        values = np.frombuffer(vector, "<f8").copy()
        values[-n_absent:] = np.nan
        stored = (values.tobytes(), number)
        made.db.run("UPDATE features SET vector = ? WHERE signal_id = ?", stored)
    report = learning.weekly(made.db, made.config, **made.all_places)
    found = learning.evaluate(made.db, made.config)
    assert found["auc"] > found["auc_mart"] + 0.05
    bundle = load_bundle(
        made.models_dir, report["train"]["bundle"], strategy=strategy_id(made.config)
    )
    sample = load_sample(made.db, made.config, now_ms=made.now_ms)
    assert np.isnan(sample.features[:, -n_absent:]).all()
    bare = live_candidate(sample, 7)
    full = replace(bare, features=np.nan_to_num(bare.features, nan=0.3))
    rates = {bare.series.symbol: cost_rates(made.config.signals, Market(
        symbol=bare.series.symbol, kind="spot", tick=0.1
    ))}  # fmt: skip
    scores = bundle.score_candidates([bare, full], rates=rates, costs_mode="auto")
    assert [np.isfinite(score.p) for score in scores if score] == [True, True]
    made.db.close()


def test_the_exports_predict(planted: tuple[World, dict[str, Any]]) -> None:
    """The documented pickles hold {model, features} and an object with predict."""
    made, _ = planted
    meta = made.config.models.meta
    root = made.config_path.parent
    model = pickle.loads((root / meta.model_path).read_bytes())  # noqa: S301  (our own, just made)
    calibrator = pickle.loads((root / meta.calibration.path).read_bytes())  # noqa: S301
    assert set(model) == {"model", "features"}
    assert model["features"] == list(feature_law.NAMES)
    told = calibrator.predict([0.1, 0.5, 0.9])
    assert 0 <= told[0] <= told[1] <= told[2] <= 1


def test_a_challenger_needs_candidates_unseen_by_both(tmp_path: Path) -> None:
    """A week later there is too little to tell them apart: the champion stays; then rollback."""
    made = world(tmp_path, n=900, skill=0.9)
    until = START_MS + 700 * STEP_MS
    places: dict[str, Any] = {"models_dir": made.models_dir, "config_path": made.config_path}
    first = learning.weekly(made.db, made.config, **places, now_ms=until)
    assert first["tune"]["promotion"]["promoted"]
    champion = first["train"]["bundle"]
    soon = learning.weekly(made.db, made.config, **places, now_ms=until + 7 * DAY_MS)
    assert not soon["tune"]["promotion"]["promoted"]
    assert "unseen by both" in soon["tune"]["promotion"]["reason"]
    assert read_pointer(made.models_dir) == {
        "bundle": champion,
        "strategy_id": strategy_id(made.config),
    }
    late = learning.weekly(made.db, made.config, **places, now_ms=made.now_ms)
    duel = late["tune"]["promotion"]
    assert duel["n_eff"] >= 100
    assert len(duel["log_loss_gain"]) == 3
    states = {row["id"]: row["state"] for row in models.bundles(made.db)}
    assert list(states.values()).count("champion") == 1
    if duel["promoted"]:
        assert states[champion] == "retired"
        learning.rollback(made.db, made.config, **places, now_ms=made.now_ms)
        current = read_pointer(made.models_dir)
        assert current is not None
        assert current["bundle"] == champion
    made.db.close()


def test_only_the_newest_bundles_keep_their_scores_and_folders(tmp_path: Path) -> None:
    """Of many kept out, five keep both; whoever once spoke keeps its folder, and all their row."""
    made = world(tmp_path, n=700, skill=0.9)
    first = learning.weekly(made.db, made.config, **made.all_places)["train"]["bundle"]
    for week in range(1, 9):
        places = {**made.all_places, "now_ms": made.now_ms + 7 * week * DAY_MS}
        learning.calibrate(
            made.db, made.config, models_dir=made.models_dir, now_ms=places["now_ms"]
        )
        learning.tune(made.db, made.config, **places)
    every = models.bundles(made.db)
    assert len(every) == 9
    assert [row["id"] for row in every if row["state"] == "champion"] == [first]
    scored = {name for (name,) in made.db.rows("SELECT DISTINCT bundle FROM scores")}
    kept = {row["id"] for row in every if row["state"] == "kept_out"}
    newest = {row["id"] for row in every[:5]}
    assert len(kept) == 8
    assert scored == {first, *newest}
    folders = {path.name for path in made.models_dir.iterdir() if path.is_dir()}
    assert folders == {first, *newest}
    made.db.close()


def test_a_dry_run_writes_nothing(planted: tuple[World, dict[str, Any]]) -> None:
    """Tuning dry leaves pointer, tables and configuration as they were."""
    made, _ = planted
    before = (made.config_path.read_bytes(), models.bundles(made.db), read_pointer(made.models_dir))
    n_before = made.db.value("SELECT count(*) FROM tunings")
    found = learning.tune(
        made.db, made.config, **made.all_places, mode="p", window_days=400, dry_run=True
    )
    assert found["mode"] == "p"
    assert found["cells"]["* *"]["n"] > 0
    after = (made.config_path.read_bytes(), models.bundles(made.db), read_pointer(made.models_dir))
    assert after == before
    assert made.db.value("SELECT count(*) FROM tunings") == n_before


def test_calibrating_without_a_draft_copies_the_champion(tmp_path: Path) -> None:
    """The copy has the champion's model and name as parent; newer candidates are scored by it."""
    made = world(tmp_path, n=700, skill=0.9)
    until = START_MS + 500 * STEP_MS
    places: dict[str, Any] = {"models_dir": made.models_dir, "config_path": made.config_path}
    first = learning.weekly(made.db, made.config, **places, now_ms=until)["train"]["bundle"]
    copied = learning.calibrate(made.db, made.config, **made.places)
    name, strategy = copied["bundle"], strategy_id(made.config)
    assert name != first
    parent = load_bundle(made.models_dir, first, strategy=strategy)
    copy: Bundle = load_bundle(made.models_dir, name, strategy=strategy)
    assert copy.manifest["parent"] == first
    assert copy.manifest["files"]["model.ubj"] == parent.manifest["files"]["model.ubj"]
    newest = max(row["decided_ms"] for row in models.scores_of(made.db, name))
    assert newest > max(row["decided_ms"] for row in models.scores_of(made.db, first))
    made.db.close()
