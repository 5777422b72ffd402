"""Causality by trial: what a decision may not read is changed, emptied or deleted; nothing moves.

It reads the future on purpose, to spoil it. All of it is arithmetic on arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from core import features, signals
from core.config import Config
from core.domain import Bools, Candidate, Candles, Floats, Ints, Rejection, Series, Side, Verdict
from core.market_context import REACH_MS, MarketContext
from core.timeframe import MINUTE_MS, tf_ms
from core.windows import NOISE_BARS, ScanInput

Judged = Callable[[Sequence[Candidate]], Sequence[Verdict]]
Facts = dict[str, dict[str, Any]]  # of each setup on a bar, every column
Spoil = Callable[[Candles, slice, np.random.Generator], Candles]

NO_SETUP: dict[str, Any] = {"decision": "no setup"}
_LOUD = 0.2  # how far a changed price may lie from the true one, as a fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One column that came out unlike: where, under which check, and both values."""

    series: Series
    at_ms: int
    check: str
    what: str
    column: str
    wanted: Any
    found: Any

    def as_row(self) -> dict[str, Any]:
        """Return plain values; the words of a line."""
        return {
            "series": f"{self.series.symbol} {self.series.timeframe}",
            "instant": when(self.at_ms),
            "check": self.check,
            "what": self.what,
            "column": self.column,
            "wanted": str(self.wanted),
            "found": str(self.found),
        }


def when(at_ms: int) -> str:
    """Return an instant as people read it, UTC.

    >>> when(1_704_067_200_000)
    '2024-01-01 00:00'
    """
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


# --- what is decided of a bar ----------------------------------------------------------------


def facts_of(data: ScanInput, config: Config, ts_ms: int, *, judged: Judged | None = None) -> Facts:
    """Return every column of what is decided on one bar: anchors, plan, regime, features, gate."""
    found = signals.scan(data, config, first_ms=ts_ms, last_ms=ts_ms)
    verdicts = judged(found.candidates) if judged else [None] * len(found.candidates)
    facts = {
        _name(one, one.plan.side): _columns(one) | _said(verdict)
        for one, verdict in zip(found.candidates, verdicts, strict=True)
    }
    return facts | {
        _name(one, one.side): {"decision": one.reason, "detail": one.detail}
        for one in found.rejections
    }


def _name(one: Candidate | Rejection, side: Side) -> str:
    return f"{one.setup} {side.direction} of P1 {when(one.p1_ms)}"


def _columns(one: Candidate) -> dict[str, Any]:
    plan = {field.name: getattr(one.plan, field.name) for field in fields(one.plan)}
    values = zip(features.NAMES, one.features.tolist(), strict=True)
    named = {name: getattr(one, name) for name in ("p0_ms", "ts_ms", "regime", "rationale")}
    return {"decision": "candidate", **named, **plan, **{f"feature {n}": x for n, x in values}}


def _said(verdict: Verdict | None) -> dict[str, Any]:
    if verdict is None:
        return {}
    named = {name: getattr(verdict, name) for name in ("gate", "reason", "evidence")}
    if verdict.score is None:
        return named
    score = verdict.score
    return named | {field.name: getattr(score, field.name) for field in fields(score)}


def unlike(wanted: Facts, found: Facts) -> Iterator[tuple[str, str, Any, Any]]:
    """Yield (setup, column, wanted, found) of what is not the same to the bit."""
    for what in sorted({*wanted, *found}):
        ours, theirs = wanted.get(what, NO_SETUP), found.get(what, NO_SETUP)
        if ours["decision"] != theirs["decision"]:
            yield what, "decision", ours["decision"], theirs["decision"]
            continue
        for column, value in ours.items():
            if not same_bits(value, theirs.get(column)):
                yield what, column, value, theirs.get(column)


def same_bits(one: Any, other: Any) -> bool:
    """Say whether two values are the same; of floats every bit, but any NaN is any other."""
    if isinstance(one, float) and isinstance(other, float):
        return one.hex() == other.hex()
    return bool(one == other)


# --- what is spoilt --------------------------------------------------------------------------


def changed(bars: Candles, rows: slice, rng: np.random.Generator) -> Candles:
    """Return bars of which some have other prices, wild but lawful, and other volumes."""
    n = len(bars.ts_ms[rows])
    ts_ms, *prices = bars.columns()
    o, h, low, c, volume = (column.copy() for column in prices)
    o[rows] *= rng.uniform(1 - _LOUD, 1 + _LOUD, n)
    c[rows] *= rng.uniform(1 - _LOUD, 1 + _LOUD, n)
    h[rows] = np.maximum(o[rows], c[rows]) * rng.uniform(1, 1 + _LOUD, n)
    low[rows] = np.minimum(o[rows], c[rows]) * rng.uniform(1 - _LOUD, 1, n)
    volume[rows] = volume[rows] * rng.uniform(0, 5, n) + 1.0
    return Candles(bars.timeframe, ts_ms, o, h, low, c, volume)


def emptied(bars: Candles, rows: slice, _: np.random.Generator) -> Candles:
    """Return bars of which some are NaN."""
    ts_ms, *prices = bars.columns()
    columns = [column.copy() for column in prices]
    for column in columns:
        column[rows] = np.nan
    return Candles(bars.timeframe, ts_ms, *columns)


def deleted(bars: Candles, rows: slice, _: np.random.Generator) -> Candles:
    """Return bars without some."""
    keep = np.ones(len(bars), np.bool_)
    keep[rows] = False
    ts_ms, *columns = bars.columns()
    return Candles(bars.timeframe, ts_ms[keep], *(column[keep] for column in columns))


SPOILS: dict[str, Spoil] = {"changed": changed, "emptied": emptied, "deleted": deleted}


def future_spoilt(data: ScanInput, known_ms: int, how: str, rng: np.random.Generator) -> ScanInput:
    """Return the input with all that is not known at an instant spoilt, and a hole and a seam."""

    def spoil(bars: Candles) -> Candles:
        return SPOILS[how](bars, slice(bars.closed_by(known_ms), None), rng)

    return replace(
        _each(data, spoil, spoil, spoil),
        missing_ms=np.append(data.missing_ms[data.missing_ms < known_ms], known_ms),
        seams_ms=np.append(data.seams_ms[data.seams_ms < known_ms], known_ms),
        context=_context_spoilt(data.context, lambda ts_ms: ts_ms > known_ms, how, rng),
    )


def past_spoilt(
    data: ScanInput, known_ms: int, how: str, rng: np.random.Generator, *, lookback: int
) -> ScanInput:
    """Return the input with all that lies before the windows of one decision spoilt."""

    def before(n_bars: int) -> Callable[[Candles], Candles]:
        def spoil(bars: Candles) -> Candles:
            return SPOILS[how](bars, slice(0, max(0, bars.closed_by(known_ms) - n_bars)), rng)

        return spoil

    i_first = max(0, data.bars.closed_by(known_ms) - lookback)
    first_ms = int(data.bars.ts_ms[i_first])
    reach_ms = known_ms - tf_ms(data.series.timeframe) - REACH_MS
    return replace(
        _each(data, before(lookback), before(NOISE_BARS), before(lookback)),
        missing_ms=_only_before(data.missing_ms, first_ms),
        seams_ms=_only_before(data.seams_ms, first_ms),
        context=_context_spoilt(data.context, lambda ts_ms: ts_ms < reach_ms, how, rng),
    )


def _each(
    data: ScanInput,
    bars: Callable[[Candles], Candles],
    base: Callable[[Candles], Candles],
    leader: Callable[[Candles], Candles],
) -> ScanInput:
    return replace(
        data,
        bars=bars(data.bars),
        higher=(bars(data.higher[0]), bars(data.higher[1])),
        base=base(data.base),
        leader=None if data.leader is None else leader(data.leader),
    )


def _only_before(instants_ms: Ints, first_ms: int) -> Ints:
    """Put one instant in place of all those before the window."""
    kept = instants_ms[instants_ms >= first_ms]
    return np.concatenate((np.array([first_ms - MINUTE_MS], np.int64), kept))


def _context_spoilt(
    context: MarketContext,
    which: Callable[[Ints], Bools],
    how: str,
    rng: np.random.Generator,
) -> MarketContext:
    def spoil(ts_ms: Ints, values: Floats) -> tuple[Ints, Floats]:
        rows = which(ts_ms)
        if how == "deleted":
            return ts_ms[~rows], values[~rows]
        factor = np.nan if how == "emptied" else rng.uniform(0.5, 2.0)
        return ts_ms, np.where(rows, values * factor, values)

    return context.each(spoil)


def causality_differences(
    data: ScanInput,
    config: Config,
    ts_ms: int,
    rng: np.random.Generator,
    *,
    wanted: Facts | None = None,
    judged: Judged | None = None,
) -> list[Difference]:
    """Return what of one bar's decision depends on bars it may not read; empty if nothing does.

    `data` reaches well past the bar and well before its windows. `wanted` is what the live scan
    decides of that bar; where it is not given, the decision on `data` as it is.
    """
    known_ms = ts_ms + tf_ms(data.series.timeframe)
    lookback = config.signals.lookback_candles
    tried = {"in a long scan": data}
    for how in SPOILS:
        tried[f"future {how}"] = future_spoilt(data, known_ms, how, rng)
        tried[f"past {how}"] = past_spoilt(data, known_ms, how, rng, lookback=lookback)
    if wanted is None:
        wanted = facts_of(tried.pop("in a long scan"), config, ts_ms, judged=judged)
    return [
        Difference(
            series=data.series,
            at_ms=ts_ms,
            check=check,
            what=what,
            column=column,
            wanted=ours,
            found=theirs,
        )
        for check, spoilt in tried.items()
        for what, column, ours, theirs in unlike(
            wanted, facts_of(spoilt, config, ts_ms, judged=judged)
        )
    ]
