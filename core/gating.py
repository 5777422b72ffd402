"""What passes: the limit in force, which entry set it, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from core.config import Config, Gating, GatingOverride
from core.domain import Candidate, Evidence, Gate, Score, Verdict

Mode = Literal["ev", "p"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A limit the tuner proved, or could not prove, for one cell; `value` None: no limit found."""

    mode: Mode
    value: float | None
    certified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The limit in force for a candidate, which entry decided it, and whether that is proven."""

    value: float
    mode: Mode
    where: str
    certified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the gate needs to know of a candidate."""

    symbol: str
    timeframe: str
    regime: str
    cost_r: float

    @classmethod
    def of(cls, candidate: Candidate) -> Facts:
        """Return the facts of a candidate just found."""
        series = candidate.series
        return cls(
            symbol=series.symbol,
            timeframe=series.timeframe,
            regime=candidate.regime,
            cost_r=candidate.plan.cost_r,
        )


def cell_name(symbol: str, timeframe: str) -> str:
    """Return the name of a cell of `per_pair_tf`, as certificates and tunings are keyed."""
    return f"{symbol} {timeframe}"


def regime_cell(part: str) -> str:
    """Return the name of the cell of one trend or volatility state."""
    return f"regime {part}"


def limit_of(
    gating: Gating, facts: Facts, *, bundle: str | None, certificates: Mapping[str, Certificate]
) -> Limit:
    """Return the limit a candidate must reach.

    Of the owner's entries that apply the most specific one wins over every tuner entry; then the
    most specific tuner entry of the current bundle; then the plain keys. On top applies the
    strictest of the owner's entries for the regime's trend and volatility, and, over a proven
    limit, of the bundle's own proven ones.
    """
    mode: Mode = "ev" if gating.use_ev else "p"
    plain = gating.min_ev_pct if mode == "ev" else gating.threshold
    base = Limit(value=plain, mode=mode, where="plain keys", certified=False)
    for cell, entry in _entries(gating, facts, mode):
        if entry.source == "owner":
            base = Limit(
                value=_value(entry, mode), mode=mode, where=f"owner {cell}", certified=False
            )
            break
    else:
        base = _tuned(gating, facts, mode, bundle=bundle, certificates=certificates) or base
    return _with_regime(gating, facts, base, certificates)


def _value(entry: GatingOverride, mode: Mode) -> float:
    value = entry.min_ev_pct if mode == "ev" else entry.threshold
    return float("nan") if value is None else value


def _entries(gating: Gating, facts: Facts, mode: Mode) -> list[tuple[str, GatingOverride]]:
    """Entries that apply and speak of this mode, the most specific first."""
    places = (
        (facts.symbol, facts.timeframe),
        (facts.symbol, "*"),
        ("*", facts.timeframe),
        ("*", "*"),
    )
    found = [
        (cell_name(symbol, timeframe), gating.per_pair_tf.get(symbol, {}).get(timeframe))
        for symbol, timeframe in places
    ]
    return [(cell, e) for cell, e in found if e is not None and not np.isnan(_value(e, mode))]


def _tuned(
    gating: Gating,
    facts: Facts,
    mode: Mode,
    *,
    bundle: str | None,
    certificates: Mapping[str, Certificate],
) -> Limit | None:
    for cell, entry in _entries(gating, facts, mode):
        if bundle is None or entry.bundle != bundle:
            continue
        value, proof = _value(entry, mode), certificates.get(cell)
        proven = proof is not None and proof.certified and proof.mode == mode
        same = proof is not None and proof.value is not None and abs(proof.value - value) < 1e-9
        return Limit(value=value, mode=mode, where=f"tuner {cell}", certified=proven and same)
    return None


def _with_regime(
    gating: Gating, facts: Facts, base: Limit, certificates: Mapping[str, Certificate]
) -> Limit:
    entries = {str(name): entry for name, entry in gating.per_regime.items()}
    for part in facts.regime.split("/"):
        proof = certificates.get(regime_cell(part)) if base.certified else None
        if proof is not None and proof.certified and proof.mode == base.mode:
            base = _stricter(base, proof.value, where=f"tuner regime {part}", certified=True)
    for part in facts.regime.split("/"):
        entry = entries.get(part)
        if entry is not None:
            value = entry.min_ev_pct if base.mode == "ev" else entry.threshold
            base = _stricter(base, value, where=f"regime {part}", certified=False)
    return base


def _stricter(base: Limit, value: float | None, *, where: str, certified: bool) -> Limit:
    if value is None or value <= base.value:
        return base
    return Limit(value=value, mode=base.mode, where=where, certified=certified)


def verdict(
    facts: Facts,
    score: Score | None,
    *,
    config: Config,
    bundle: str | None,
    certificates: Mapping[str, Certificate],
) -> Verdict:
    """Return the gate's verdict: of the plan's cost, and of the model where there is one.

    A NaN value never passes. Evidence is CERTIFIED only where the deciding entry is the tuner's,
    of the current bundle, and proven; a candidate without a score is UNGATED.
    """
    meta, too_dear = config.models.meta, facts.cost_r > config.signals.max_cost_r
    if score is None or bundle is None or not meta.enabled:
        gate, reason = (Gate.REJECT, "cost") if too_dear else (Gate.PASS, "ungated")
        return Verdict(gate=gate, reason=reason, evidence=Evidence.UNGATED)
    limit = limit_of(meta.gating, facts, bundle=bundle, certificates=certificates)
    evidence = Evidence.CERTIFIED if limit.certified else Evidence.UNCERTIFIED
    reached = score.ev_lo_pct if limit.mode == "ev" else score.p
    gate, reason = Gate.REJECT, limit.mode
    if too_dear:
        reason = "cost"
    elif reached >= limit.value:
        gate, reason = Gate.PASS, "passed"
    return Verdict(gate=gate, reason=reason, evidence=evidence, score=score)
