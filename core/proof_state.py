"""How far a champion is proven: its state at promotion and at a decision, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from core.gating import cell_name


class Proof(StrEnum):
    """The states of a strategy's champion."""

    CERTIFIED = "CERTIFIED"
    UNCERTIFIED = "UNCERTIFIED"
    DEGRADED = "DEGRADED"


@dataclass(frozen=True, slots=True, kw_only=True)
class StateRow:
    """A state, whose it is, why, and since when: it holds for decisions after `at_ms`."""

    at_ms: int
    bundle: str
    state: Proof
    reason: str


def is_degraded_at(states: Sequence[StateRow], decided_ms: int) -> bool:
    """Say whether the last state set before a decision was DEGRADED; `states` oldest first."""
    before = [row for row in states if row.at_ms < decided_ms]
    return bool(before) and before[-1].state is Proof.DEGRADED


def state_after_promotion(
    thresholds: Mapping[str, Any],
    *,
    window_days: int,
    bundle: str = "",
    history: Sequence[StateRow] = (),
) -> tuple[Proof, str]:
    """Return the state a bundle is promoted with, and the reason in one sentence.

    CERTIFIED where the whole or any cell of `thresholds["cells"]` is. A bundle that was DEGRADED
    before, by `history`, comes back as it went: a certificate once refuted proves nothing.
    """
    refuted = [row for row in history if row.bundle == bundle and row.state is Proof.DEGRADED]
    if refuted:
        return Proof.DEGRADED, refuted[-1].reason
    cells = thresholds.get("cells", {})
    root = cell_name("*", "*")
    proven = sorted((c for c in cells if cells[c]["certified"]), key=lambda c: (c != root, c))
    if proven:
        return Proof.CERTIFIED, _proven(cells, proven, root=root, window_days=window_days)
    if root not in cells:
        return Proof.UNCERTIFIED, "no limit was tested"
    return Proof.UNCERTIFIED, str(cells[root]["reason"])


def _proven(cells: Mapping[str, Any], proven: Sequence[str], *, root: str, window_days: int) -> str:
    found = cells[proven[0]]
    if found["mode"] == "ev":
        mean = f"net {found['estimate']:+.2f} R"
        low = "" if found["lower"] is None else f", at least {found['lower']:+.2f}"
    else:
        mean = f"win-rate {100 * found['estimate']:.1f} %"
        low = "" if found["lower"] is None else f", at least {100 * found['lower']:.1f} %"
    where = "" if proven[0] == root else f"{proven[0].replace('* ', '')}: "
    more = f", and {len(proven) - 1} more" if where and len(proven) > 1 else ""
    return f"{where}{mean}{low}, n_eff {found['n_eff']:.0f}, last {window_days} days{more}"


def degraded_reason(*, e_peak: float, alpha: float, n: int, r: float, promise_r: float) -> str:
    """Return why a certificate is withdrawn, in one sentence with its figures.

    `r` and `promise_r` are means over the `n` closed trades that passed.
    """
    return (
        f"net {r:+.2f} R, promised at least {promise_r:+.2f}, n {n}; evidence {e_peak:.0f} to 1"
        f" against the promise, {1 / alpha:.0f} is enough"
    )
