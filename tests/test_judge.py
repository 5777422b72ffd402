"""Laws of who speaks for a candidate, and of what a score says it rests on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import features as feature_law
from core.app import App, open_app
from core.config import GatingOverride
from core.domain import Candidate, Evidence
from core.jobs import learning
from core.jobs.calibrating import bands_of, reliability
from core.jobs.judge import Judge, with_entries_of
from core.jobs.training import load_sample
from core.ml.calibration import Told
from core.ml.sample import Sample
from core.proof_state import Proof
from core.reasons import strongest, words
from core.store import models
from core.store.signals import insert_signals
from core.store.states import states_of
from core.timeframe import DAY_MS
from tests.candidate_world import START_MS, World, live_candidate, world


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, str, App]]:
    """A world that was learnt from and promoted once, and its engine."""
    folder = tmp_path_factory.mktemp("learnt")
    made = world(folder, n=1500, skill=0.9)
    name = learning.weekly(made.db, made.config, **made.all_places)["train"]["bundle"]
    app = open_app(made.config_path)
    yield made, name, app
    app.close()
    made.db.close()


def sample_of(made: World) -> Sample:
    """Return what the world's model learns from."""
    return load_sample(made.db, made.config, now_ms=made.now_ms)


def dated(candidate: Candidate, decided_ms: int) -> Candidate:
    """The same candidate, decided at another instant."""
    return replace(candidate, plan=replace(candidate.plan, decided_ms=decided_ms))


def test_the_past_is_scored_by_who_could_have_spoken_then(learnt: tuple[World, str, App]) -> None:
    """A retro verdict is the fold's own score, bit for bit, and never certified."""
    made, name, app = learnt
    rows = [row for row in models.scores_of(made.db, name) if row["p"] is not None]
    sample = sample_of(made)
    place = {number: i for i, number in enumerate(sample.ids.tolist())}
    chosen = rows[:: len(rows) // 40]
    found = [live_candidate(sample, place[row["signal_id"]]) for row in chosen]
    said = Judge.of(app).verdicts(found)
    assert len(said) >= 40
    for row, verdict in zip(chosen, said, strict=True):
        assert verdict.score is not None
        assert (verdict.score.p_raw, verdict.score.p) == (row["p_raw"], row["p"])
        assert verdict.score.ev_lo_pct == row["ev_lo_pct"]
        assert verdict.score.why["data_until_ms"] == row["fold_cutoff_ms"] < row["decided_ms"]
        assert "band" not in verdict.score.why
        assert verdict.evidence is Evidence.UNCERTIFIED
    assert Judge.of(app).verdicts([dated(found[0], START_MS)])[0].evidence is Evidence.UNGATED


def test_after_a_promotion_the_promoted_speaks(learnt: tuple[World, str, App]) -> None:
    """What is decided after it is certified and has its band's record; what at it is, is not."""
    made, name, app = learnt
    ((at_ms, promoted),) = models.promotions(made.db, app.strategy)
    assert (at_ms, promoted) == (made.now_ms, name)
    sample, judge = sample_of(made), Judge.of(app)
    best = max(range(200), key=lambda i: float(sample.features[i, 5]))
    candidate = live_candidate(sample, best)
    before, after = judge.verdicts([dated(candidate, at_ms), dated(candidate, at_ms + 1)])
    assert before.score is not None
    assert after.score is not None
    assert before.score.model.startswith(f"{name}@")
    assert before.evidence is Evidence.UNCERTIFIED
    assert after.score.model == name
    assert after.evidence is Evidence.CERTIFIED
    assert after.score.p_lo <= after.score.p <= after.score.p_hi
    why = after.score.why
    assert why["for"][0].name == feature_law.NAMES[5]
    assert why["band"]["win_rate_lo"] <= why["band"]["win_rate"] <= why["band"]["win_rate_hi"]
    assert why["band"]["n_eff"] > 30


def test_a_withdrawn_certificate_certifies_nothing_after_it(
    learnt: tuple[World, str, App],
) -> None:
    """CERTIFIED since the promotion; what is decided after DEGRADED is not, what came before is."""
    made, name, app = learnt
    (state,) = states_of(made.db, app.strategy)
    assert (state.state, state.bundle, state.at_ms) == (Proof.CERTIFIED, name, made.now_ms)
    assert "n_eff" in state.reason
    sample, judge, day = sample_of(made), Judge.of(app), made.now_ms + DAY_MS
    fallen = replace(state, at_ms=day, state=Proof.DEGRADED)
    judge = replace(judge, states=[state, fallen])
    best = max(range(200), key=lambda i: float(sample.features[i, 5]))
    candidate = live_candidate(sample, best)
    said = judge.verdicts([dated(candidate, day), dated(candidate, day + 1)])
    assert [one.evidence for one in said] == [Evidence.CERTIFIED, Evidence.UNCERTIFIED]
    assert said[0].gate is said[1].gate


def test_each_promotion_speaks_from_its_instant_on(learnt: tuple[World, str, App]) -> None:
    """With two promotions the earlier one keeps its time; a bundle that is gone leaves none."""
    made, name, app = learnt
    judge = Judge.of(app)
    later = replace(
        judge,
        since_ms=[made.now_ms, made.now_ms + 10 * DAY_MS],
        names=["20200101-gone", name],
        loaded={name: judge.bundle},
    )
    assert later.speaker(made.now_ms + 5 * DAY_MS) is None
    spoken = later.speaker(made.now_ms + 11 * DAY_MS)
    assert spoken is not None
    assert spoken.id == name


def test_limits_of_the_past_stand_in_for_the_present_ones(learnt: tuple[World, str, App]) -> None:
    """A bundle's own entries replace other bundles' entries; the owner's stay on top."""
    _, _, app = learnt
    bundle = Judge.of(app).bundle
    assert bundle is not None
    gating = app.config.models.meta.gating.model_copy(
        update={
            "per_pair_tf": {
                "*": {"*": GatingOverride(min_ev_pct=7.0, source="owner")},
                "A/USDT": {"1h": GatingOverride(min_ev_pct=3.0, source="tuner", bundle="other")},
            }
        }
    )
    cells = with_entries_of(bundle, gating).per_pair_tf
    assert cells["*"]["*"].min_ev_pct == 7.0
    assert "1h" not in cells["A/USDT"]
    assert all(c.bundle == bundle.id for e in cells.values() for c in e.values() if c.bundle)


def test_reasons_are_the_strongest_and_have_words() -> None:
    """By absolute log-odds, three a side; the halves of a circle are one; every feature is said."""
    names = feature_law.NAMES
    log_odds, values = np.zeros(len(names)), np.zeros(len(names))
    for name, share in (("cost_r", -0.3), ("p_mart", 0.2), ("atr_pct", 0.001), ("basis_pct", 0.1)):
        log_odds[names.index(name)] = share
    values[names.index("hour_sin")], log_odds[names.index("hour_sin")] = 1.0, 0.15
    log_odds[names.index("hour_cos")] = 0.1
    values[names.index("basis_pct")] = np.nan
    for_it, against = strongest(names, values, log_odds)
    assert [tuple(reason) for reason in for_it] == [
        ("hour", 6.0, 0.25),
        ("p_mart", 0.0, 0.2),
        ("basis_pct", None, 0.1),
    ]
    assert [tuple(reason) for reason in against] == [("cost_r", 0.0, -0.3)]
    said = [words(name, value) for name in (*names, "hour", "weekday") for value in (0.5, -0.5)]
    assert all(0 < len(text) <= 38 for text in said)
    assert words("weekday", 6.0) == "Sunday"
    assert words("leader_return_12", -0.012) == "BTC against it, 1.20% in 12 bars"
    assert words("basis_pct", None) == "basis pct unknown"


def told(sample: Sample, ev_r: np.ndarray) -> Told:
    """Return a told in which only the EV is given."""
    blank = np.full(len(sample), np.nan)
    columns: dict[str, Any] = dict.fromkeys(Told.__slots__, blank)
    return Told(**{**columns, "ev_r": ev_r, "cutoff_ms": sample.t0_ms})


def test_bands_are_records_by_rising_value(learnt: tuple[World, str, App]) -> None:
    """Bands hold every closed trade once, in order of EV, and rise in result as EV does."""
    made, _, _ = learnt
    sample = sample_of(made)
    bands = bands_of(sample, told(sample, sample.features[:, 5]), since_ms=0)
    assert len(bands) >= 3
    assert sum(band["n"] for band in bands) == int(sample.closed.sum())
    floors = [band["ev_r_from"] for band in bands]
    assert floors == sorted(floors)
    assert bands[-1]["mean_r_lo"] > bands[0]["mean_r_hi"]
    assert bands_of(sample, told(sample, np.full(len(sample), np.nan)), since_ms=0) == []


def test_the_reliability_table_is_calibrated_where_p_is() -> None:
    """Ten bins of equal weight; each interval of an honest p covers it in most bins."""
    rng = np.random.default_rng(3)
    p = rng.uniform(0.2, 0.8, 4000)
    rows = reliability(p, rng.random(4000) < p, np.ones(4000))
    assert [row["n"] for row in rows] == [400] * 10
    inside = [row["win_rate_lo"] <= row["mean_p"] <= row["win_rate_hi"] for row in rows]
    assert sum(inside) >= 7
    off = reliability(p**2, rng.random(4000) < p, np.ones(4000))
    assert sum(row["win_rate_lo"] > row["mean_p"] for row in off) >= 8


def test_a_scan_renews_features_of_an_older_version(tmp_path: Path) -> None:
    """A row met again keeps its decision and gets the vector of the present version; once."""
    made = world(tmp_path, n=3, skill=0.0)
    row = made.db.dicts("SELECT * FROM signals WHERE id = 2")[0]
    columns = {name: value for name, value in row.items() if name != "id"}
    made.db.run("UPDATE features SET version = 1 WHERE signal_id = 2")
    vector = np.arange(len(feature_law.NAMES), dtype=np.float64)
    again = insert_signals(made.db, [columns], [vector], version=feature_law.VERSION)
    assert again == [0]
    assert made.db.dicts("SELECT * FROM signals WHERE id = 2") == [row]
    found = made.db.rows("SELECT version, vector FROM features WHERE signal_id = 2")
    assert found == [(feature_law.VERSION, vector.astype("<f8").tobytes())]
    insert_signals(made.db, [columns], [vector + 1], version=feature_law.VERSION)
    assert made.db.rows("SELECT version, vector FROM features WHERE signal_id = 2") == found
    made.db.close()
