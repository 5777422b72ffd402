"""What a bundle's out-of-fold scores were worth: the figures behind every claim about the model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core import performance
from core.domain import CLOSED, Bools, Floats
from core.ml.calibrators import brier, fit
from core.performance import COVERAGES, Trades
from core.selection import auc, best_share, difference
from core.store import models as store
from core.store.db import Database
from core.strict_json import plain

__all__ = ["auc", "best_share", "difference", "lift_report", "probability_figures"]

_SEED = 7
_CLOSED = frozenset(status.value for status in CLOSED)
_HEADLINE = 0.3


def lift_report(db: Database, bundle: str) -> dict[str, Any]:
    """Return the figures of a bundle's out-of-fold scores, each with n, n_eff or an interval.

    Every figure rests on candidates older models scored; shares are cut inside each fold over
    all candidates, filled or not, and only then the closed ones are looked at. Intervals are
    90 %, from whole weeks. NaN and infinity come back as None.
    """
    rows = [row for row in store.scores_of(db, bundle) if row["p"] is not None]
    closed = np.array([_is_closed(row) for row in rows], bool)
    if not closed.any():
        return {"bundle": bundle, "n": 0, "n_scored": len(rows), "n_eff": 0.0}
    trades = _trades([row for row, is_closed in zip(rows, closed, strict=True) if is_closed])
    p, p_raw = _column(rows, "p")[closed], _column(rows, "p_raw")[closed]
    rank, fold = _column(rows, "ev_r"), np.array([row["fold_cutoff_ms"] for row in rows])
    weight = performance.uniqueness(trades.decided_ms, trades.closed_ms, trades.symbol)
    chosen = {share: best_share(rank, fold, share)[closed] for share in COVERAGES}
    return {
        str(name): plain(value)
        for name, value in {
            "bundle": bundle,
            "n": len(trades),
            "n_scored": len(rows),
            "n_eff": float(weight.sum()),
            "auc": auc(p, trades.win),
            "auc_raw": auc(p_raw, trades.win),
            "auc_mart": auc(trades.p_mart, trades.win),
            **probability_figures(p, trades.p_mart, trades.win, weight),
            "ev_slope": _ev_slope(rank[closed], trades.r, weight),
            "coverage": [_coverage(trades, chosen[share], share) for share in COVERAGES],
            "lift_30": _lift(trades, chosen[_HEADLINE]),
        }.items()
    }


def _is_closed(row: Mapping[str, Any]) -> bool:
    return row["status"] in _CLOSED and row["r_multiple"] is not None


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> Floats:
    return np.array([math.nan if row[name] is None else row[name] for row in rows], np.float64)


def _trades(rows: Sequence[Mapping[str, Any]]) -> Trades:
    return Trades(
        r=_column(rows, "r_multiple"),
        gross_r=_column(rows, "gross_r"),
        p_mart=_column(rows, "p_mart"),
        decided_ms=np.array([row["decided_ms"] for row in rows], np.int64),
        closed_ms=np.array([row["closed_ts_ms"] for row in rows], np.int64),
        symbol=np.array([row["symbol"] for row in rows]),
        ambiguous=np.zeros(len(rows), bool),
    )


def probability_figures(p: Floats, p_mart: Floats, won: Bools, weight: Floats) -> dict[str, float]:
    """Return Brier scores, skills, the calibration slope and the mean against the win-rate."""
    base = float(np.average(won, weights=weight))
    own, mart = brier(p, won, weight), brier(p_mart, won, weight)
    flat = brier(np.full(len(p), base), won, weight)
    return {
        "win_rate": base,
        "mean_p": float(np.average(p, weights=weight)),
        "brier": own,
        "brier_mart": mart,
        "brier_base": flat,
        "brier_skill_mart": 1 - own / mart if mart > 0 else math.nan,
        "brier_skill_base": 1 - own / flat if flat > 0 else math.nan,
        "calibration_slope": fit("platt", p, won, weight).slope,
    }


def _ev_slope(ev_r: Floats, r: Floats, weight: Floats) -> float:
    known = np.isfinite(ev_r)
    x, y, w = ev_r[known], r[known], weight[known]
    if len(x) < 2 or np.ptp(x) <= 0:
        return math.nan
    away = x - np.average(x, weights=w)
    return float((w * away * y).sum() / (w * away**2).sum())


def _coverage(trades: Trades, chosen: Bools, share: float) -> dict[str, Any]:
    part, rng = trades[chosen], np.random.default_rng(_SEED)
    figures = performance.metrics(part, rng)
    return {
        "coverage": share,
        "n": figures.n,
        "n_eff": figures.n_eff,
        "win_rate": figures.win_rate,
        "win_rate_interval": [figures.win_rate_lo, figures.win_rate_hi],
        "p_mart": figures.p_mart,
        "mean_r": figures.mean_r,
        "mean_r_interval": [figures.mean_r_lo, figures.mean_r_hi],
        "gross_r": figures.mean_gross_r,
    }


def _lift(trades: Trades, chosen: Bools) -> dict[str, Any]:
    over_rest = performance.lift(trades, chosen, np.random.default_rng(_SEED))
    everything, won = np.ones(len(trades), bool), trades.win.astype(np.float64)
    pairs = {
        "mean_r": trades.r,
        "win_rate": won,
        "win_rate_over_mart": won - trades.p_mart,
    }
    over_all = {
        name: difference(values, chosen, everything, decided_ms=trades.decided_ms)
        for name, values in pairs.items()
    }
    return {
        "n_passed": over_rest.n_passed,
        "mean_r_over_rest": [over_rest.lift_r, over_rest.lift_r_lo, over_rest.lift_r_hi],
        **{f"{name}_over_all": list(figures) for name, figures in over_all.items()},
    }
