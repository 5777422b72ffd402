"""The judgement: which setups a closed bar holds, and what we would do about each.

`decided` is the one function behind the live scan, the retro-scan and training. It decides every
bar from that bar's own window, so one bar's window and ten years of bars give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from core import features
from core.config import Config
from core.costs import cost_rates
from core.domain import Candidate, Floats, Ints, Rejection, Series, Setup, Side, TradePlan
from core.plans import DECISION, NOISE_SPANS, REFUSALS, Decisions, planned
from core.regime import regimes
from core.setups import SETUPS, setup_events
from core.timeframe import tf_ms
from core.windows import NOISE_BARS, ScanInput

__all__ = [
    "DECISION",
    "NOISE_BARS",
    "Decided",
    "ScanInput",
    "ScanResult",
    "candidates_of",
    "decided",
    "rejections_of",
    "scan",
]

_TRAVEL, _RANK = (features.NAMES.index(name) for name in ("own_efficiency", "volatility_rank"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What was decided of the bars of a series, as rows of numbers in time order.

    `taken` and `refused` are of dtype `plans.DECISION`; `features` has a row for each one taken.
    `opens_ms` names every bar that was looked at.
    """

    series: Series
    opens_ms: Ints
    taken: Decisions
    refused: Decisions
    features: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanResult:
    """What a scan found, in time order; `n_setups` counts candidates and rejections."""

    candidates: list[Candidate]
    rejections: list[Rejection]
    opens_ms: Ints

    @property
    def n_bars(self) -> int:
        """How many bars were looked at."""
        return len(self.opens_ms)

    @property
    def n_setups(self) -> int:
        """How many setups there were, declined ones too."""
        return len(self.candidates) + len(self.rejections)


def scan(data: ScanInput, config: Config, *, first_ms: int, last_ms: int) -> ScanResult:
    """Decide every bar of `data.bars` that opens between two instants, both included.

    Bar i is decided at its close from the last `signals.lookback_candles` bars ending at it and
    as many of each higher timeframe and of the leader closed by then; fewer only where the arrays
    begin later. Nothing after the decision is read. Impulses below `fibo.min_impulse_atr` are not
    setups and are not counted; `max_cost_r` is the gate's business.
    """
    found = decided(data, config, first_ms=first_ms, last_ms=last_ms)
    return ScanResult(
        candidates=list(candidates_of(found, config)),
        rejections=list(rejections_of(found, config)),
        opens_ms=found.opens_ms,
    )


def decided(data: ScanInput, config: Config, *, first_ms: int, last_ms: int) -> Decided:
    """Return what `scan` does, as rows of numbers."""
    i_first = int(np.searchsorted(data.bars.ts_ms, first_ms, side="left"))
    i_end = max(i_first, int(np.searchsorted(data.bars.ts_ms, last_ms, side="right")))
    events = setup_events(data.bars, config, i_first=i_first, i_end=i_end)
    rows = np.zeros(0, DECISION)
    if len(events.i_bar):  # most bars hold none
        rows = planned(events, data, config, cost_rates(config.signals, data.market))
    taken, values = rows[rows["refusal"] == 0], np.zeros((0, len(features.NAMES)))
    return Decided(
        series=data.series,
        opens_ms=data.bars.ts_ms[i_first:i_end],
        taken=taken,
        refused=rows[rows["refusal"] > 0],
        features=features.compute(taken, data, config) if len(taken) else values,
    )


def candidates_of(found: Decided, config: Config) -> Iterator[Candidate]:
    """Yield the setups that were taken, in order."""
    if not len(found.taken):
        return
    states = regimes(found.features[:, _TRAVEL], found.features[:, _RANK])
    for row, values, state in zip(_named(found.taken), found.features, states, strict=True):
        yield Candidate(
            series=found.series,
            setup=SETUPS[row["setup"]],
            p0_ms=row["p0_ms"],
            p1_ms=row["p1_ms"],
            ts_ms=row["ts_ms"],
            plan=_plan(row, found.series, config),
            regime=state,
            rationale=_rationale(row, state, config),
            features=values,
        )


def rejections_of(found: Decided, config: Config) -> Iterator[Rejection]:
    """Yield the setups that were declined, in order."""
    for row in _named(found.refused):
        yield Rejection(
            series=found.series,
            setup=SETUPS[row["setup"]],
            side=Side(row["side"]),
            p1_ms=row["p1_ms"],
            ts_ms=row["ts_ms"],
            reason=REFUSALS[row["refusal"]],
            detail=_detail(row, config),
        )


def _named(rows: Decisions) -> Iterator[dict[str, Any]]:
    """Yield rows as mappings of plain numbers."""
    names = DECISION.names or ()
    return (dict(zip(names, values, strict=True)) for values in rows.tolist())


def _plan(row: dict[str, Any], series: Series, config: Config) -> TradePlan:
    decided_ms, length_ms = row["decided_ms"], tf_ms(series.timeframe)
    return TradePlan(
        side=Side(row["side"]),
        entry=row["entry"],
        stop=row["stop"],
        tp1=row["tp1"],
        tp2=row["tp2"],
        atr=row["atr"],
        leverage=row["leverage"],
        risk_pct=row["risk_pct"],
        notional_usd=row["notional_usd"],
        liquidation=row["liquidation"],
        cost_r=row["cost_r"],
        p_mart=row["p_mart"],
        decided_ms=decided_ms,
        actionable_ms=decided_ms + config.execution.delivery_delay_s * 1000,
        valid_until_ms=decided_ms + config.signals.validity_candles * length_ms,
    )


def _detail(row: dict[str, Any], config: Config) -> str:
    """Say what a refusal is about, with its figures."""
    figure, entry = row["figure"], row["entry"]
    wanted_pct = config.signals.min_tp_net_pct
    words = {
        "hole": f"{figure:.0f} base bars missing since the first pivot",
        "seam": "the prices of two markets since the first pivot",
        "spot_long_only": "no shorts on a spot market",
        "order": f"stop {row['stop']:.10g}, entry {entry:.10g},"
        f" targets {row['tp1']:.10g} {row['tp2']:.10g}",
        "entry_passed": f"closed at {row['close']:.10g}, entry {entry:.10g}",
        "noise": f"stop {figure:.1f} base bars away, wants {NOISE_SPANS:.0f}",
        "tp_net": f"TP1 pays {figure:.2f} % net, wants {wanted_pct:.2f} %",
        "size": f"a stop {figure:.1f} % away leaves no room before liquidation",
    }
    return words[REFUSALS[row["refusal"]]]


def _rationale(row: dict[str, Any], state: str, config: Config) -> str:
    n_decimals = _decimals_of(row["tick"])
    p0, p1 = (f"{row[name]:,.{n_decimals}f}".replace(",", " ") for name in ("p0", "p1"))
    size = abs(row["p1"] - row["p0"]) / row["atr"]
    where = (
        f"limit at the {config.signals.fibo.entry_level:g} retracement"
        if SETUPS[row["setup"]] is Setup.LIMIT
        else "limit at the first close back across the AVWAP of its start"
    )
    word = "Up" if row["side"] > 0 else "Down"
    trend, volatility = state.split("/vol_")
    return f"{word}-impulse {p0} → {p1} ({size:.1f} ATR), {where}, {trend}, {volatility} volatility"


@cache
def _decimals_of(tick: float) -> int:
    # Of few ticks: a market's own, or a power of ten.
    return len(f"{tick:.10f}".rstrip("0").partition(".")[2])
