"""The demo over many seeds: its lines say what was found, and what is found is what is there."""

from __future__ import annotations

import math
from typing import Any

import pytest

from demo.__main__ import TIMEFRAMES
from demo.market import PLANTED_DRIFT_SIGMAS
from demo.seeds import HEADER, figures_of, line_of, over_seeds, summary
from tests.figures import Record
from tests.meta_worlds import most_by_luck


def prepared_market(*, certified: bool, mean_r: float | None) -> dict[str, Any]:
    """What the preparation of a market reports, as far as it is read."""
    return {
        "model": {"tune": {"cells": {"* *": {"certified": certified, "reason": "so"}}}},
        "lift": {"auc": 0.6, "auc_mart": 0.5, "coverage": [{"coverage": 0.3, "mean_r": mean_r}]},
        "scan": {"stored": 1234},
    }


def test_a_line_says_what_was_found() -> None:
    """Figures stand under their heads; what is missing is said, and not counted as found."""
    found = figures_of(prepared_market(certified=True, mean_r=0.25))
    row = {"seed": 3, "market": "PLANTED", **found}
    assert line_of(row).split() == ["3", "PLANTED", "yes", "+0.250", "0.600", "0.500", "1,234"]
    assert len(line_of(row)) == len(HEADER)
    missing = {"model": {"missing": "40 are missing"}, "lift": None, "scan": {"stored": 9}}
    none = figures_of(missing)
    assert not none["certified"]
    assert none["reason"] == "40 are missing"
    assert math.isnan(none["auc"])
    rows = [row, {**row, "market": "NULL", "certified": False}, {**row, **none}]
    assert summary(rows) == "PLANTED certified 1 of 2, NULL 0 of 1"


@pytest.mark.long(minutes=2)
def test_six_seeds_of_the_demo(record_property: Record) -> None:
    """The edge is certified in all markets that have one but what luck costs, and in no other."""
    rows = list(
        over_seeds(range(101, 107), drift_sigmas=PLANTED_DRIFT_SIGMAS, timeframes=TIMEFRAMES)
    )
    assert len(rows) == 12
    record_property("of six seeds:", summary(rows))
    by_market = {name: [r for r in rows if r["market"] == name] for name in ("PLANTED", "NULL")}
    missed = [r["seed"] for r in by_market["PLANTED"] if not r["certified"]]
    assert len(missed) <= most_by_luck(6, 0.1), f"not certified: {missed}"
    false = [r["seed"] for r in by_market["NULL"] if r["certified"]]
    assert len(false) <= most_by_luck(6, 0.1), f"certified of nothing: {false}"
    assert all(r["auc"] > r["auc_mart"] + 0.05 for r in by_market["PLANTED"])
