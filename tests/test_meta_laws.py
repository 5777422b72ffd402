"""Laws of the whole of learning: what may be used where, who is promoted, and what is repeated.

T6, T14, T15 and T17 of the meta-model's acceptance tests, and planted leaks that must be seen; see
docs/tests.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from core.app import App, open_app
from core.config import strategy_id
from core.domain import Bools, Floats, Ints
from core.errors import ModelError
from core.jobs import learning
from core.jobs.judge import Judge
from core.jobs.training import load_sample
from core.ml import calibration, calibrators, load_bundle, load_current, model
from core.ml.calibration import told_forward
from core.ml.sample import Sample
from core.splits import EMBARGO_MS, block_starts, walk_forward
from core.store import models
from core.timeframe import DAY_MS, HOUR_MS
from tests import learning_leaks
from tests.candidate_world import START_MS, World, live_candidate, world
from tests.figures import Record
from tests.meta_worlds import most_by_luck

Plant = Callable[[pytest.MonkeyPatch], None]
MONDAY_MS = 1_704_067_200_000  # 2024-01-01 00:00 UTC
NOISE_SHARE = 0.05  # of challengers that learnt noise, promoted at most

EVENTS = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 60), st.integers(0, 80)),
    min_size=2,
    max_size=60,
)


# --- T6: splits by brute force -------------------------------------------------------------------


def check_splits(events: list[tuple[int, int, int]]) -> None:
    """Compare each fold with every pair of rows: no overlap, no embargo broken, none dropped idly.

    Events are (decision, life, and how much later it matures) in six hours, of any symbol.
    """
    t0, life, lag = (
        np.array(column, np.int64) * 6 * HOUR_MS for column in zip(*events, strict=True)
    )
    t0 = np.sort(t0 + MONDAY_MS)
    t1, known = t0 + life, t0 + life + lag
    starts = block_starts(t0, np.ones(len(t0), bool), recent_ms=30 * DAY_MS, per_block=1)
    folds = walk_forward(t0, t1, known, starts=starts)
    judged = [i for fold in folds for i in fold.test.tolist()]
    assert len(judged) == len(set(judged))
    for start, fold in zip(starts.tolist(), folds, strict=True):
        learnt = set(fold.train.tolist())
        for i in fold.test.tolist():
            assert all(t1[j] < t0[i] - EMBARGO_MS for j in learnt)
            assert all(known[j] < t0[i] - EMBARGO_MS for j in learnt)
        for j in range(len(t0)):
            clear = len(fold.test) and known[j] < start - EMBARGO_MS
            assert not clear or j in learnt, f"row {j} is dropped for nothing"


@settings(deadline=None, max_examples=150)
@given(EVENTS)
def test_folds_hold_what_brute_force_allows(events: list[tuple[int, int, int]]) -> None:
    """T6: equal instants, nested, touching and long lives of several symbols."""
    check_splits(events)


@pytest.mark.long
@settings(deadline=None, max_examples=5000)
@given(EVENTS)
def test_folds_hold_what_brute_force_allows_in_5000_cases(
    events: list[tuple[int, int, int]],
) -> None:
    """T6 at full size."""
    check_splits(events)


# --- T17: each row in one role, and leaks that break it -----------------------------------------


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, str, App]]:
    """A world that was learnt from and promoted once, and its engine."""
    made = world(tmp_path_factory.mktemp("learnt"), n=800, skill=0.9)
    name = learning.weekly(made.db, made.config, **made.all_places)["train"]["bundle"]
    app = open_app(made.config_path)
    yield made, name, app
    app.close()
    made.db.close()


@dataclass(frozen=True, slots=True)
class Roles:
    """Rows that made a model or a calibrator, and the rows that it judged."""

    role: str
    used: Ints
    judged: Ints


def told_twice(rows: Sample, uses: Sequence[Roles]) -> list[str]:
    """Return where a fold judges rows that it was made of, or was made of rows still open."""
    said = []
    for use in uses:
        n_both = len(np.intersect1d(use.used, use.judged))
        if n_both:
            said.append(f"{use.role}: {n_both} rows are judged by what they made")
        end_ms = rows.t0_ms[use.judged].min() - EMBARGO_MS
        n_open = int((rows.known_ms[use.used] >= end_ms).sum())
        if n_open:
            said.append(f"{use.role}: {n_open} rows had not matured")
    return said


def roles(made: World, rows: Sample, patch: pytest.MonkeyPatch) -> list[Roles]:
    """Train and calibrate, and write down which rows every fit, map and score used."""
    place = {row.tobytes(): i for i, row in enumerate(rows.features)}
    uses, fitted, scores = list[Roles](), list[Ints](), list[Floats]()

    def places(features: Floats) -> Ints:
        return np.array([place[row.tobytes()] for row in features], np.int64)

    def on_fit(features: Floats, *_: Any, **__: Any) -> None:
        fitted.append(places(features))

    def on_predict(_: Any, features: Floats, *__: Any) -> None:
        uses.append(Roles("fit", fitted[-1], places(features)))

    def on_map(_: Any, raw: Floats, *__: Any) -> None:
        scores.append(raw)

    def on_tell(told: Any, judged: Bools, *_: Any, **__: Any) -> None:
        used = np.flatnonzero(np.isin(told.p_raw, scores[-1]))
        uses.append(Roles("calibrate", used, np.flatnonzero(judged)))

    noted(patch, model, "fits", on_fit)
    noted(patch, model, "predict", on_predict)
    noted(patch, calibrators, "fit", on_map)
    noted(patch, calibration, "_tell", on_tell)
    learning.train(made.db, made.config, **made.places)
    learning.calibrate(made.db, made.config, **made.places)
    return uses


def noted(patch: pytest.MonkeyPatch, module: Any, name: str, note: Callable[..., None]) -> None:
    """Have a function's arguments noted before it runs."""
    honest = getattr(module, name)

    def noting(*args: Any, **named: Any) -> Any:
        note(*args, **named)
        return honest(*args, **named)

    patch.setattr(module, name, noting)


@pytest.mark.parametrize("seed", [1, 2])
def test_no_row_has_two_roles_in_a_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """T17: what a fold judges made neither its model nor its calibrator, and those had matured."""
    made = world(tmp_path, n=500, skill=0.5, seed=seed)
    rows = load_sample(made.db, made.config, now_ms=made.now_ms)
    uses = roles(made, rows, monkeypatch)
    counts = Counter(use.role for use in uses)
    assert counts["fit"] >= 4 * 4
    assert counts["calibrate"] >= 3
    assert told_twice(rows, uses) == []
    made.db.close()


@pytest.mark.parametrize("plant", learning_leaks.LEARNING, ids=lambda plant: plant.__name__)
def test_the_ledger_reports_a_leak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: Plant
) -> None:
    """Rows that had not matured, or that a calibrator is to tell of, are seen."""
    made = world(tmp_path, n=500, skill=0.5)
    rows = load_sample(made.db, made.config, now_ms=made.now_ms)
    plant(monkeypatch)
    assert told_twice(rows, roles(made, rows, monkeypatch)) != []
    made.db.close()


def test_scores_from_a_model_that_knew_are_refused(learnt: tuple[World, str, App]) -> None:
    """A score whose fold ended less than a day before its candidate stops the calibration."""
    made, name, _ = learnt
    sample = load_sample(made.db, made.config, now_ms=made.now_ms)
    p_raw = np.full(len(sample), 0.5)
    cutoff = sample.t0_ms - EMBARGO_MS
    rules: dict[str, Any] = {
        "method": "identity", "win_frac": 0.5, "n_min": 50, "prospect": sample.prospect()
    }  # fmt: skip
    assert told_forward(sample, p_raw, cutoff, **rules).final is not None
    cutoff[200] += 1
    with pytest.raises(ModelError, match="had not ended a day before"):
        told_forward(sample, p_raw, cutoff, **rules)
    assert models.scores_of(made.db, name)


def past_law(made: World, name: str, app: App) -> list[str]:
    """Return the candidates of the past that the judge scores other than their fold did."""
    sample = load_sample(made.db, made.config, now_ms=made.now_ms)
    place = {number: i for i, number in enumerate(sample.ids.tolist())}
    rows = [row for row in models.scores_of(made.db, name) if row["p"] is not None][::10]
    found = [live_candidate(sample, place[row["signal_id"]]) for row in rows]
    said = []
    for row, verdict in zip(rows, Judge.of(app).verdicts(found), strict=True):
        score = verdict.score
        if score is None or score.why["data_until_ms"] + DAY_MS > row["decided_ms"]:
            said.append(f"{row['signal_id']}: scored by a model that knew its end, or by none")
        elif (score.p, score.ev_lo_pct) != (row["p"], row["ev_lo_pct"]):
            said.append(f"{row['signal_id']}: not what its fold said")
    assert len(rows) > 40
    return said


def test_the_past_is_not_scored_in_sample(learnt: tuple[World, str, App]) -> None:
    """Each verdict on the past is its fold's own."""
    assert past_law(*learnt) == []


@pytest.mark.parametrize("plant", learning_leaks.JUDGING, ids=lambda plant: plant.__name__)
def test_a_judge_who_knew_is_reported(
    learnt: tuple[World, str, App], monkeypatch: pytest.MonkeyPatch, plant: Plant
) -> None:
    """The present bundle, or a fold too new, in place of who could have spoken, is seen."""
    plant(monkeypatch)
    assert past_law(*learnt) != []


# --- T14: the same again ------------------------------------------------------------------------


def test_one_thread_and_two_give_the_same_bytes(
    learnt: tuple[World, str, App], monkeypatch: pytest.MonkeyPatch
) -> None:
    """T14: the booster's bytes, and what it says, do not depend on the number of threads."""
    made, _, _ = learnt
    sample = load_sample(made.db, made.config, now_ms=made.now_ms)
    rows = sample.of(sample.closed)
    told = []
    honest = xgboost.train
    for n_threads in (1, 2):
        monkeypatch.setattr(
            xgboost,
            "train",
            lambda params, *args, n=n_threads, **more: honest(
                {**params, "nthread": n}, *args, **more
            ),
        )
        (booster,) = model.fits(
            rows.features,
            rows.won,
            weight=rows.weight(np.arange(len(rows))),
            p_mart=rows.p_mart,
            sets=model.PARAMETER_SETS[:1],
            seed=3,
        )
        said = model.predict(booster, sample.features, sample.p_mart)
        told.append((model.as_bytes(booster), said.tobytes()))
    assert told[0] == told[1]


def test_parameter_sets_do_not_touch_each_other(learnt: tuple[World, str, App]) -> None:
    """Fitted together they give the bytes that each gives alone."""
    made, _, _ = learnt
    rows = load_sample(made.db, made.config, now_ms=made.now_ms)
    rows = rows.of(rows.closed)
    given: dict[str, Any] = {"weight": np.ones(len(rows)), "p_mart": rows.p_mart, "seed": 3}
    together = model.fits(rows.features, rows.won, sets=model.PARAMETER_SETS, **given)
    assert len(together) == len(model.PARAMETER_SETS)
    for params, booster in zip(model.PARAMETER_SETS, together, strict=True):
        (alone,) = model.fits(rows.features, rows.won, sets=[params], **given)
        assert model.as_bytes(alone) == model.as_bytes(booster)


# --- T15: promotion ------------------------------------------------------------------------------


def noise_is_promoted(folder: Path, seed: int) -> bool:
    """Let a champion meet a challenger that learnt from outcomes dealt out anew."""
    made = world(folder, n=1000, skill=0.6, seed=seed)
    until = START_MS + 620 * 3 * HOUR_MS
    places: dict[str, Any] = {"models_dir": made.models_dir, "config_path": made.config_path}
    first = learning.weekly(made.db, made.config, **places, now_ms=until)["train"]["bundle"]
    learning.promote(made.db, made.config, **places, bundle=first, now_ms=until)
    columns = ("status", "gross_r", "r_multiple", "pnl_pct", "closed_ts_ms")
    sets = ", ".join(f"{column} = ?" for column in columns)
    truth = made.db.rows(f"SELECT {', '.join(columns)}, id FROM signals WHERE r_multiple NOTNULL")
    order = np.random.default_rng(seed).permutation(len(truth)).tolist()
    dealt = [(*truth[k][:4], *truth[i][4:]) for i, k in enumerate(order)]
    made.db.run_many(f"UPDATE signals SET {sets} WHERE id = ?", dealt)
    learning.train(made.db, made.config, **made.places)
    learning.calibrate(made.db, made.config, **made.places)
    made.db.run_many(f"UPDATE signals SET {sets} WHERE id = ?", truth)
    duel = learning.tune(made.db, made.config, **made.all_places)["promotion"]
    made.db.close()
    assert duel["promoted"] or duel["reason"]
    return bool(duel["promoted"])


def check_noise(folder: Path, n: int) -> str:
    """Count the challengers of noise that were promoted; the champion knows something."""
    promoted = [seed for seed in range(n) if noise_is_promoted(folder / str(seed), seed)]
    assert len(promoted) <= most_by_luck(n, NOISE_SHARE), f"promoted with seeds {promoted}"
    return f"{len(promoted)} of {n}"


@pytest.mark.small
def test_a_challenger_of_noise_is_kept_out(tmp_path: Path) -> None:
    """T15: of four challengers that learnt shuffled outcomes hardly one is promoted."""
    check_noise(tmp_path, 4)


@pytest.mark.long
def test_challengers_of_noise_are_kept_out(tmp_path: Path, record_property: Record) -> None:
    """T15 at full size: no more than one in twenty, within luck."""
    record_property("noise promoted", check_noise(tmp_path, 40))


def test_an_equal_one_is_promoted_and_rolled_back_bit_for_bit(tmp_path: Path) -> None:
    """T15: a copy of the champion may replace it; after rollback scores are those of before."""
    made = world(tmp_path, n=1000, skill=0.9)
    until = START_MS + 620 * 3 * HOUR_MS
    places: dict[str, Any] = {"models_dir": made.models_dir, "config_path": made.config_path}
    strategy = strategy_id(made.config)
    champion = learning.weekly(made.db, made.config, **places, now_ms=until)["train"]["bundle"]
    sample = load_sample(made.db, made.config, now_ms=made.now_ms).of(np.arange(60))
    said = told_by_current(made, strategy, sample)
    files = {p.name: p.read_bytes() for p in (made.models_dir / champion).iterdir()}
    settings_before = made.config_path.read_bytes()
    learning.calibrate(made.db, made.config, **made.places)
    duel = learning.tune(made.db, made.config, **made.all_places)["promotion"]
    assert duel["promoted"], duel
    assert duel["bundle"] != champion
    assert told_by_current(made, strategy, sample) != said
    learning.rollback(made.db, made.config, **made.all_places)
    assert told_by_current(made, strategy, sample) == said
    assert {p.name: p.read_bytes() for p in (made.models_dir / champion).iterdir()} == files
    assert made.config_path.read_bytes() == settings_before
    assert load_bundle(made.models_dir, champion, strategy=strategy).id == champion
    made.db.close()


def told_by_current(made: World, strategy: str, sample: Sample) -> list[Any]:
    """Return what the current bundle says of some rows."""
    bundle = load_current(made.models_dir, strategy)
    assert bundle is not None
    return list(bundle.score(sample.features, sample.p_mart, prospect=sample.prospect()))
