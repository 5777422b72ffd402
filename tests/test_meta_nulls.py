"""Where there is nothing to find, nothing is found: walks, shuffled labels, copied luck.

T4, T5, T10 and T11 of the meta-model's acceptance tests; see docs/tests.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from core.jobs import learning
from core.tuning import DELTA
from tests.candidate_world import DRIVER
from tests.figures import Record, with_error
from tests.meta_worlds import (
    FREE,
    NO_FLOOR_PCT,
    Found,
    Spec,
    fair,
    known_world,
    learn,
    most_by_luck,
    root,
    walk_end_ms,
    walked_engine,
    world_of,
)

MEAN_GAIN, ANY_GAIN = 0.015, 0.05  # of AUC over the coin flip's
MISSED = 0.1  # intervals are 90 %: so many may miss by luck


def walks(folder: Path, n: int) -> Iterator[Found]:
    """Learn from walks without costs: there the mean of every choice of trades is 0."""
    for seed in range(n):
        app = walked_engine(folder / str(seed), seed, **FREE)
        yield learn(world_of(app), floor_pct=NO_FLOOR_PCT)
        app.close()


def copied(folder: Path, n: int) -> Iterator[Found]:
    """Learn from fair coins whose luck comes in fours, on four pairs that move together."""
    for seed in range(n):
        spec = Spec(n=1200, seed=seed, truth=fair(0.5), n_symbols=4, copies=4, together=0.4)
        known = known_world(folder / str(seed), spec)
        yield learn(known.world, floor_pct=NO_FLOOR_PCT, target_pct=50.0)
        known.world.db.close()


def check_ranking(found: Sequence[Found]) -> None:
    """The model ranks no better, and hardly worse, than the coin flip: T4 and T5."""
    gains = np.array([one.auc_gain for one in found])
    error = gains.std(ddof=1) / len(gains) ** 0.5
    told = f"mean gain {gains.mean():+.4f}, standard error {error:.4f}"
    assert abs(gains.mean()) <= max(MEAN_GAIN, 2 * error), told
    assert error < MEAN_GAIN, told
    far = {i: round(float(gain), 3) for i, gain in enumerate(gains) if gain > ANY_GAIN}
    assert len(far) <= most_by_luck(len(gains), 0.02), f"{told}; suspicious worlds {far}"


def check_certificates(found: Sequence[Found]) -> None:
    """Neither mode proves more than delta of the worlds, nor do intervals miss too often: T10."""
    n = len(found)
    for mode in ("ev", "p"):
        false = [i for i, one in enumerate(found) if root(getattr(one, mode))["certified"]]
        assert len(false) <= most_by_luck(n, DELTA), f"{mode}: certified in worlds {false}"
    missed = [i for i, one in enumerate(found) if not one.lift_covers_0]
    assert len(missed) <= most_by_luck(n, MISSED), f"the lift's interval misses 0 in {missed}"
    assert sum(one.lift["n"] for one in found) / n > 300


def gains_of(found: Sequence[Found]) -> str:
    """What is recorded of T4 and T5."""
    gains = [one.auc_gain for one in found]
    return f"{with_error(gains)}, the most {max(gains):.3f}"


def certified_of(found: Sequence[Found]) -> str:
    """What is recorded of T10 and T11."""
    n_ev, n_p = (
        sum(root(getattr(one, mode))["certified"] for one in found) for mode in ("ev", "p")
    )
    held = sum(one.lift_covers_0 for one in found) / len(found)
    return f"by EV {n_ev}, by p {n_p} of {len(found)}; the lift's interval holds 0 in {held:.3f}"


@pytest.mark.small
def test_nothing_is_found_in_walks(tmp_path: Path) -> None:
    """T4, T10: walks scanned, followed and learnt from, with no floor under the limits."""
    found = list(walks(tmp_path, 10))
    check_ranking(found)
    check_certificates(found)


def test_costs_alone_certify_nothing(tmp_path: Path) -> None:
    """T10 as it is shipped: with costs, the owner's floor and promotion, a walk proves nothing."""
    app = walked_engine(tmp_path, 1000)
    world = world_of(app)
    assert world.now_ms == walk_end_ms()
    report = learning.weekly(world.db, world.config, **world.all_places)
    assert not root(report["tune"])["certified"]
    gross, net = app.db.rows("SELECT avg(gross_r), avg(r_multiple) FROM signals")[0]
    assert net < gross - 0.05
    app.close()


@pytest.mark.small
def test_shuffled_labels_teach_nothing(tmp_path: Path) -> None:
    """T5: a strong edge, but outcomes dealt out anew within each symbol in runs of ten."""
    check_ranking(list(shuffled(tmp_path, 5)))


def shuffled(folder: Path, n: int) -> Iterator[Found]:
    """Learn from worlds whose driver was strong until outcomes were dealt out anew."""
    for seed in range(n):
        spec = Spec(n=1200, seed=seed, truth=lambda f, _: 1 / (1 + np.exp(-f[:, DRIVER])), block=10)
        known = known_world(folder / str(seed), spec)
        yield learn(known.world)
        known.world.db.close()


@pytest.mark.small
def test_copied_luck_proves_nothing(tmp_path: Path) -> None:
    """T11: four near copies of each trade count as one, in both modes."""
    check_certificates(list(copied(tmp_path, 6)))


@pytest.mark.long(minutes=6)
def test_nothing_is_found_in_two_hundred_walks(tmp_path: Path, record_property: Record) -> None:
    """T4 and T10 at full size."""
    found = list(walks(tmp_path, 200))
    record_property("AUC less the coin flip's", gains_of(found))
    record_property("certified", certified_of(found))
    check_ranking(found)
    check_certificates(found)


@pytest.mark.long
def test_shuffled_labels_teach_nothing_twenty_times(
    tmp_path: Path, record_property: Record
) -> None:
    """T5 at full size."""
    found = list(shuffled(tmp_path, 20))
    record_property("AUC less the coin flip's", gains_of(found))
    check_ranking(found)


@pytest.mark.long(minutes=2)
def test_copied_luck_proves_nothing_in_two_hundred_worlds(
    tmp_path: Path, record_property: Record
) -> None:
    """T11 at full size."""
    found = list(copied(tmp_path, 200))
    record_property("certified", certified_of(found))
    check_certificates(found)
