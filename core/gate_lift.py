"""Does the gate earn its keep? What it passed beside what it rejected, and beside simpler ways."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.domain import Bools
from core.selection import (
    Candidates,
    Lifts,
    RandomPick,
    Worth,
    as_many,
    lifts,
    random_pick,
    worth,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLift:
    """The gate's record: `lift` is passed less rejected, paired by week.

    `affordable` is the same among candidates that the cost limit alone does not reject: what the
    model adds to it. `cheapest` and `random` are what as many of each block would have given,
    taken by cost in R or by chance: the cheapest's lift over what it leaves, the draws' own mean.
    """

    n_candidates: int
    coverage: float
    passed: Worth
    rejected: Worth
    lift: Lifts
    affordable: Lifts
    cheapest: Worth
    cheapest_lift: Lifts
    random: RandomPick

    @property
    def sentence(self) -> str:
        """The answer in one sentence."""
        found = self.lift.net_r
        if not self.passed.metrics.n:
            return f"The gate passed no trade of {self.n_candidates:,} candidates."
        if not np.isfinite(found.low):
            return "Too few trades to say whether the gate earns its keep."
        what = (
            "it earns its keep"
            if found.low > 0
            else "it does harm"
            if found.high < 0
            else "not proven either way"
        )
        return (
            f"Passed less rejected: {found.text()} R a trade: {what}. Of what the cost limit lets"
            f" through: {self.affordable.net_r.text()} R. As many by cost alone:"
            f" {self.cheapest_lift.net_r.text()} R."
        )


def gate_lift(candidates: Candidates, passed: Bools, affordable: Bools) -> GateLift:
    """Return the gate's record over matured candidates that carried a score.

    `passed` is the gate's verdict, `affordable` whether the cost limit let a candidate through.
    """
    rejected = ~passed
    cheap = as_many(-candidates.cost_r, candidates.block, passed)
    return GateLift(
        n_candidates=len(candidates),
        coverage=float(passed.mean()) if len(passed) else float("nan"),
        passed=worth(candidates, passed, n_trials=1),
        rejected=worth(candidates, rejected, n_trials=1),
        lift=lifts(candidates, passed, rejected),
        affordable=lifts(candidates, passed & affordable, rejected & affordable),
        cheapest=worth(candidates, cheap, n_trials=1),
        cheapest_lift=lifts(candidates, cheap, ~cheap),
        random=random_pick(candidates, passed),
    )
