"""The whole product at once: the real scheduler on a market, a machine and a phone that misbehave.

A faulty exchange, a faulty Bot API, kills, a full disk, clocks that are off, a reader that holds
the database, edits; afterwards everything is what a clean scan of the true candles gives, or the
database says why not. TRADER_CHAOS_REPORT names a file for what was done and what differed
(FILE.md, and FILE.json beside it).
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from core.timeframe import HOUR_MS, MINUTE_MS
from tests.shared_time import Pace
from tests.whole_chaos import QUARTER, WEEK, Chaos, done_to
from tests.whole_phone import Result, report
from tests.whole_result import result_of
from tests.whole_world import whole_world


def steps(seed: int) -> Callable[[int], int]:
    """Return how far the market goes at once: mostly a quarter of an hour, at times a minute."""

    def step_ms(at_ms: int) -> int:
        chance = random.Random(f"{seed} {at_ms // HOUR_MS}").random()
        return MINUTE_MS * (1 if chance < 0.02 else 5 if chance < 0.12 else 15)

    return step_ms


def lived(
    folder: Path, *, days: float, counts: Mapping[str, int], seed: int, budget_s: float
) -> tuple[dict[str, Any], Result, str]:
    """Live through a programme; returns what was done, what differed, and both in words."""
    with whole_world(folder, days=days, seed=seed) as world:
        began_s = time.monotonic()
        world.engine.start()
        pace = Pace(
            world.shared,
            start_ms=world.split_ms + 1000,
            end_ms=world.end_ms,
            patience_s=1.0,
            budget_s=budget_s,
            step_ms=steps(seed),
        )
        with pace:
            Chaos(world, pace, counts=counts, seed=seed).run()
        took_s = time.monotonic() - began_s
        result, done = result_of(world), done_to(world)
        said = report(
            done,
            result,
            market=f"{(world.end_ms - world.split_ms) / (24 * HOUR_MS):.2f} days, 3 symbols",
            time=f"{took_s:.0f} s, {pace.n_stops} stops, {pace.n_impatient} not waited out",
            starts=f"{world.engine.n_starts}, of them after an end of its own: "
            f"{sum(world.engine.died.values())}",
        )
    written(said, {**done, **result.as_dict()}, folder)
    assert all(done["deeds"].get(kind) == n for kind, n in counts.items())
    return done, result, said


def written(said: str, values: Mapping[str, Any], folder: Path) -> None:
    """Write the report where it is wanted, else beside the database."""
    place = Path(os.environ.get("TRADER_CHAOS_REPORT") or folder / "report.md")
    place.write_text(said)
    place.with_suffix(".json").write_text(json.dumps(values, indent=1))


def test_a_bad_quarter_of_a_day_leaves_the_truth(tmp_path: Path) -> None:
    """Six hours with one of nearly everything."""
    _, result, said = lived(tmp_path, days=0.25, counts=QUARTER, seed=5, budget_s=15)
    assert result.unexplained == [], said
    assert result.compared["signals"] >= 1


@pytest.mark.long(minutes=4)
def test_a_bad_week_leaves_the_truth(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Seven days with all of it."""
    done, result, said = lived(tmp_path, days=7, counts=WEEK, seed=6, budget_s=240)
    print(said)  # noqa: T201
    record_property("compared", json.dumps(dict(result.compared)))
    record_property("differed", json.dumps(dict(result.differed)))
    assert result.unexplained == [], said
    assert len(done["answers spoilt"]) >= 20
    assert result.compared["signals"] >= 100
    assert result.compared["messages"] >= 200
