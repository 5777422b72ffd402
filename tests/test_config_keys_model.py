"""Every key of the settings has an effect: the meta-model and what it lets pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from core.app import open_app
from core.config import Config
from core.config_file import load_config
from core.domain import Evidence, Gate, Score, Verdict
from core.errors import NotEnoughData
from core.gating import Facts, verdict
from core.jobs import learning
from core.jobs.training import load_sample, prospect_of
from tests.candidate_world import World, world
from tests.config_keys import nested, shows, turned
from tests.engine_world import write_config

GATING = "models.meta.gating"
FACTS = Facts(symbol="A/USDT", timeframe="15m", regime="trend/vol_high", cost_r=0.05)
SCORE = Score(
    p_raw=0.6,
    p=0.6,
    p_lo=0.5,
    p_hi=0.7,
    ev_pct=0.2,
    ev_lo_pct=0.1,
    ev_r=0.2,
    ev_lo_r=0.1,
    model="b1",
)


@dataclass(frozen=True)
class Learnt:
    """A world with a calibrated draft in it."""

    world: World
    bundle: str

    def config(self, key: str, value: Any) -> Config:
        """The world's settings with one key of the model turned."""
        tree = nested({key: value})["models"]["meta"]
        meta = self.world.config.models.meta
        raw = meta.model_dump() | {"gating": meta.gating.model_dump() | tree.pop("gating", {})}
        models = {"meta": raw | {k: _merged(raw[k], v) for k, v in tree.items()}}
        changed = type(self.world.config.models).model_validate(models, strict=False)
        return self.world.config.model_copy(update={"models": changed})


def _merged(old: Any, new: Any) -> Any:
    return {**old, **new} if isinstance(old, dict) else new


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Learnt]:
    """Candidates whose wins one feature drives, trained and calibrated once."""
    made = world(tmp_path_factory.mktemp("learnt"), n=700, skill=0.9)
    bundle = learning.train(made.db, made.config, **made.places)["bundle"]
    learning.calibrate(made.db, made.config, **made.places)
    yield Learnt(made, bundle)
    made.db.close()


def said(key: str, value: Any, **others: Any) -> Verdict:
    """The verdict on a candidate with p .6 and a low EV of .1 %, under one key turned."""
    config = turned(f"models.meta.{key}", value)
    for name, other in others.items():
        gating = config.models.meta.gating.model_copy(update={name: other})
        meta = config.models.meta.model_copy(update={"gating": gating})
        config = config.model_copy(
            update={"models": config.models.model_copy(update={"meta": meta})}
        )
    return verdict(FACTS, SCORE, config=config, bundle="b1", certificates={})


def passes(key: str, value: Any, **others: Any) -> bool:
    """Whether it passes."""
    return said(key, value, **others).gate is Gate.PASS


@shows("models.meta.enabled")
def test_without_the_model_every_plan_passes_ungated() -> None:
    """The limit of 1 % that rejects it otherwise says nothing."""
    found = [said("enabled", on, min_ev_pct=1.0) for on in (True, False)]
    assert [v.gate for v in found] == [Gate.REJECT, Gate.PASS]
    assert found[1].evidence is Evidence.UNGATED


@shows("models.meta.gating.use_ev")
def test_the_expected_value_or_the_probability_decides() -> None:
    """With an EV above its limit and a probability below."""
    assert [passes("gating.use_ev", on, threshold=0.9) for on in (True, False)] == [True, False]


@shows("models.meta.gating.min_ev_pct", "models.meta.gating.threshold")
def test_the_limits_are_where_they_are_set() -> None:
    """.1 % of EV and p .6 reach limits up to there."""
    assert [passes("gating.min_ev_pct", x) for x in (0.1, 0.11)] == [True, False]
    assert [passes("gating.threshold", x, use_ev=False) for x in (0.6, 0.61)] == [True, False]


@shows("models.meta.gating.per_pair_tf")
def test_a_pair_has_a_limit_of_its_own() -> None:
    """That of the pair and timeframe; another pair's says nothing."""
    for symbol, passed in (("A/USDT", False), ("B/USDT", True)):
        cells = {symbol: {"15m": {"min_ev_pct": 1.0}}}
        assert passes("gating.per_pair_tf", cells) == passed


@shows("models.meta.gating.per_regime")
def test_a_regime_has_a_limit_on_top() -> None:
    """That of the trend and that of the volatility; another regime's says nothing."""
    for regime, passed in (("trend", False), ("vol_high", False), ("range", True)):
        assert passes("gating.per_regime", {regime: {"min_ev_pct": 1.0}}) == passed


@shows("models.meta.gating.costs_mode")
def test_the_expected_value_is_taken_after_the_costs_assumed(learnt: Learnt) -> None:
    """A taker's entry costs more, a maker's stop less, and `auto` is what was planned."""
    made = learnt.world
    extra = {}
    for mode in ("auto", "maker", "taker"):
        config = learnt.config(f"{GATING}.costs_mode", mode)
        sample = load_sample(made.db, config, now_ms=made.now_ms)
        extra[mode] = prospect_of(made.db, config, sample).extra_loss_r
    assert (extra["auto"] == 0).all()
    assert (extra["maker"] < 0).all()
    assert (extra["taker"] > 0).all()


@shows("models.meta.gating.min_closed_samples")
def test_too_few_closed_trades_are_not_trained_on(learnt: Learnt) -> None:
    """The 613 of the world are fewer than 5000."""
    config = learnt.config(f"{GATING}.min_closed_samples", 5000)
    with pytest.raises(NotEnoughData, match="of 5000 closed"):
        learning.train(learnt.world.db, config, **learnt.world.places)


@shows("models.meta.calibration.enabled", "models.meta.calibration.method")
def test_raw_scores_become_probabilities_as_set(learnt: Learnt) -> None:
    """By Platt's curve, by the isotonic one, or, whatever the method, not at all."""
    made, found = learnt.world, []
    for enabled, method in ((True, "platt"), (True, "isotonic"), (False, "platt")):
        keys = {"enabled": enabled, "method": method}
        config = learnt.config("models.meta.calibration", keys)
        found.append(learning.calibrate(made.db, config, **made.places)["method"])
    assert found == ["platt", "isotonic", "identity"]
    learning.calibrate(made.db, made.config, **made.places)


@shows("models.meta.gating.target_winrate_pct")
def test_the_tuner_certifies_the_win_rate_that_is_wanted(learnt: Learnt) -> None:
    """More than 35 % of trades can be proved to win, not 95 %."""
    assert [tuned(learnt, "target_winrate_pct", x)["n_certified"] > 0 for x in (35.0, 95.0)] == [
        True,
        False,
    ]


@shows("models.meta.gating.window_days")
def test_the_tuner_looks_back_so_far(learnt: Learnt) -> None:
    """Two months hold fewer trades than three years."""
    few, many = (tuned(learnt, "window_days", days)["n"] for days in (60, 1000))
    assert 0 < few < many / 2


def tuned(learnt: Learnt, key: str, value: Any) -> dict[str, Any]:
    """What a dry run of the tuner, for probabilities, reports with one key turned."""
    made = learnt.world
    config = learnt.config(f"{GATING}.{key}", value)
    return learning.tune(made.db, config, **made.all_places, mode="p", dry_run=True)


@shows("models.meta.model_path", "models.meta.calibration.path")
def test_the_exports_are_written_where_the_settings_say(learnt: Learnt) -> None:
    """At promotion, relative to the settings."""
    made = learnt.world
    for key, name in (("model_path", "out/m.pkl"), ("calibration.path", "out/c.pkl")):
        config = learnt.config(f"models.meta.{key}", name)
        learning.promote(made.db, config, **made.all_places, bundle=learnt.bundle)
        assert (made.config_path.parent / name).is_file()
    assert load_config(made.config_path) == made.config


@shows("models.meta.model_path")
def test_bundles_lie_beside_the_export(tmp_path: Path) -> None:
    """The folder of the exported model is the engine's own."""
    app = open_app(write_config(tmp_path, models={"meta": {"model_path": "brain/x.pkl"}}))
    app.close()
    assert app.models_dir == tmp_path / "brain"
