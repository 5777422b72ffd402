"""The model on the health page: is it calibrated, what moved it, what may it pass."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from core.bootstrap import LEVEL
from core.store import Database
from core.store.models import bundles
from core.views.evidence import cell_text
from core.views.figures import DOWN, ENTRY, NEUTRAL, UP, styled
from core.views.reading import reading
from core.views.state import newest_strategy
from core.views.words import NOTHING

_RELIABILITY = ("mean_p", "win_rate", "win_rate_lo", "win_rate_hi", "n", "n_eff")
_SHOWN_REASONS = 4000  # of the newest scored candidates
_TOP = 15
_FRAMES = {"own": "own TF", "higher1": "higher TF", "higher2": "top TF"}


def model_health(path: Path, *, strategy: str | None = None) -> dict[str, Any]:
    """Return what is known of a strategy's models.

    `history`, `windows`, `cells` and `importance` (of `n_judged` candidates) are frames,
    `calibration` a mapping, empty before it, as is `gain`, each feature's share of what the trees'
    splits gained, of a bundle made before that was kept; `bundle` is the one that speaks, else the
    newest, None without one; `state` is its state.
    """
    with reading(path) as db:
        name = strategy or newest_strategy(db)
        known = bundles(db, strategy=name) if name else []
        speaking = next((row for row in known if row["state"] == "champion"), None)
        speaking = speaking or (known[0] if known else None)
        bundle = str(speaking["id"]) if speaking else None
        said = (speaking or {}).get("metrics", {})
        return {
            "bundle": bundle,
            "state": speaking["state"] if speaking else None,
            "calibration": said.get("calibration", {}),
            "gain": said.get("train", {}).get("gain", {}),
            "history": _history(known),
            "windows": _windows(db, bundle),
            "cells": _cells(db, bundle),
            **_importance(db, name),
        }


def _history(known: list[dict[str, Any]]) -> pd.DataFrame:
    """Every bundle, newest first, with its out-of-fold log-loss beside the coin flip's."""
    return pd.DataFrame(
        [
            {
                "bundle": row["id"],
                "state": row["state"],
                "reason": row["reason"] or NOTHING,
                "created_ms": row["created_ms"],
                "promoted_ms": row["promoted_ms"],
                "data_until_ms": row["data_until_ms"],
                "log-loss | coin flip, n (n_eff)": _loss_text(row["metrics"].get("train", {})),
            }
            for row in known[:50]
        ]
    )


def _loss_text(train: dict[str, Any]) -> str:
    own, coin = train.get("log_loss"), train.get("log_loss_mart")
    if own is None or coin is None:
        return NOTHING
    return f"{own:.4f} | {coin:.4f}, n {train['n']} ({int(train['n_eff'] or 0)})"


def _windows(db: Database, bundle: str | None) -> pd.DataFrame:
    """The walk-forward blocks: a block's model knew nothing after its cutoff."""
    found = db.rows(
        "SELECT c.fold_cutoff_ms, min(s.decided_ms), max(s.decided_ms), count(*) FROM scores c"
        " JOIN signals s ON s.id = c.signal_id WHERE c.bundle = ? GROUP BY 1 ORDER BY 1 DESC"
        " LIMIT 60",
        (bundle,),
    )
    names = ["model's data before_ms", "first scored_ms", "last scored_ms", "scored"]
    return pd.DataFrame(found, columns=names)


def _cells(db: Database, bundle: str | None) -> pd.DataFrame:
    """The newest tuning: every cell with its threshold and whether it holds a certificate."""
    found = db.dicts(
        "SELECT cell, mode, threshold, n, n_eff, certified, detail, created_ms FROM tunings"
        " WHERE bundle = ?1 AND created_ms ="
        " (SELECT max(created_ms) FROM tunings WHERE bundle = ?1) ORDER BY id",
        (bundle,),
    )
    rows = [
        {
            "cell": cell_text(row["cell"]),
            "certificate": "certified" if row["certified"] else "none",
            "mode": row["mode"],
            "threshold": row["threshold"],
            "n (n_eff)": f"{row['n']} ({int(row['n_eff'])})",
            "why": str(json.loads(row["detail"] or "{}").get("reason") or NOTHING),
            "tuned_ms": row["created_ms"],
        }
        for row in found
    ]
    return pd.DataFrame(rows)


def _importance(db: Database, strategy: str | None) -> dict[str, Any]:
    """How often a feature was among the strongest reasons lately, and how hard it pulled.

    `importance` has feature, n_for, n_against, log_odds (mean size), over `n_judged` of the newest
    scored candidates.
    """
    texts = db.rows(
        "SELECT why FROM signals WHERE strategy_id = ? AND why <> '' ORDER BY decided_ms DESC"
        " LIMIT ?",
        (strategy, _SHOWN_REASONS),
    )
    pulls: list[tuple[str, str, float]] = []
    for (text,) in texts:
        said = json.loads(text)
        for side in ("for", "against"):
            pulls += [(str(name), side, abs(float(odds))) for name, _, odds in said.get(side, ())]
    frame = pd.DataFrame(pulls, columns=["feature", "side", "log_odds"])
    grouped = frame.groupby("feature")
    table = pd.DataFrame(
        {
            "n_for": frame[frame["side"] == "for"].groupby("feature").size(),
            "n_against": frame[frame["side"] == "against"].groupby("feature").size(),
            "log_odds": grouped["log_odds"].mean(),
        }
    ).fillna(0)
    table["n"] = table["n_for"] + table["n_against"]
    top = table.sort_values("n", ascending=False).head(_TOP).reset_index(names="feature")
    return {"importance": top, "n_judged": len(texts)}


def gain_figure(gain: Mapping[str, float]) -> go.Figure:
    """Return the features whose splits gained most, as shares of all gain."""
    shown = sorted(gain.items(), key=lambda item: item[1])[-_TOP:]
    figure = go.Figure(
        go.Bar(
            y=[_title(name) for name, _ in shown],
            x=[100 * share for _, share in shown],
            orientation="h",
            marker={"color": ENTRY},
            hovertemplate="%{x:.1f} % of all gain<extra></extra>",
        )
    )
    figure.update_xaxes(title_text="share of the gain of all splits (%)")
    return styled(figure, height=90 + 24 * len(shown)).update_layout(hovermode="closest")


def _title(name: str) -> str:
    """A feature's name as words."""
    frame, _, measure = name.partition("_")
    return (
        f"{_FRAMES[frame]} {measure}".replace("_", " ")
        if frame in _FRAMES
        else (name.replace("_", " "))
    )


def importance_figure(table: pd.DataFrame) -> go.Figure:
    """Return how often each feature spoke for and against a candidate."""
    figure = go.Figure()
    shown = table.iloc[::-1]
    names = [_title(name) for name in shown["feature"]]
    for column, label, sign, colour in (
        ("n_for", "for", 1, UP),
        ("n_against", "against", -1, DOWN),
    ):
        figure.add_bar(
            y=names,
            x=sign * shown[column],
            orientation="h",
            name=label,
            marker={"color": colour},
            customdata=shown[column],
            hovertemplate=f"%{{customdata:.0f}} times {label}<extra></extra>",
        )
    figure.update_layout(barmode="relative")
    figure.update_xaxes(title_text="times among the strongest reasons: against | for")
    return styled(figure, height=90 + 24 * len(shown)).update_layout(hovermode="closest")


def reliability_figure(calibration: dict[str, Any]) -> go.Figure:
    """Return the win-rate of bins of p, before and after calibration; the dashes are perfect."""
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", name="perfect", line={"color": NEUTRAL, "dash": "dash"}
    )
    kinds = (("reliability_before", "raw", NEUTRAL), ("reliability", "calibrated", ENTRY))
    reach: list[float] = []
    for key, label, colour in kinds:
        table = pd.DataFrame(calibration.get(key, []), columns=list(_RELIABILITY))
        if table.empty:
            continue
        reach += [*table["mean_p"], *table["win_rate_lo"], *table["win_rate_hi"]]
        figure.add_scatter(
            x=table["mean_p"],
            y=table["win_rate"],
            mode="lines+markers",
            name=f"{label}, {LEVEL:.0%} interval",
            line={"color": colour, "width": 1.6},
            error_y={
                "array": table["win_rate_hi"] - table["win_rate"],
                "arrayminus": table["win_rate"] - table["win_rate_lo"],
                "thickness": 1.2,
            },
            customdata=table["n_eff"].round(),
            hovertemplate="said %{x:.1%}, won %{y:.1%}, n_eff %{customdata}",
        )
    bounds = [max(0.0, min(reach) - 0.03), min(1.0, max(reach) + 0.03)] if reach else [0, 1]
    figure.update_xaxes(title_text="probability said", range=bounds, tickformat=".0%")
    figure.update_yaxes(title_text="win-rate", range=bounds, tickformat=".0%")
    return styled(figure, height=380).update_layout(hovermode="closest")


def calibration_text(calibration: dict[str, Any]) -> str:
    """Return calibration in a sentence: method, Brier beside the coin flip's, slope, n."""
    if not calibration.get("n"):
        return "No out-of-fold score of a closed trade to judge calibration by yet."
    before = calibration.get("before", {})

    def said(value: float | None) -> str:
        return NOTHING if value is None else f"{value:.4f}"

    slope = calibration.get("calibration_slope")
    note = f" {calibration['note']}." if calibration.get("note") else ""
    return (
        f"Method {calibration['method']}: Brier {said(calibration.get('brier'))} (raw"
        f" {said(before.get('brier'))}, coin flip {said(calibration.get('brier_mart'))}), slope"
        f" {NOTHING if slope is None else f'{slope:.2f}'} (1 is right), out of fold, n"
        f" {calibration['n']} (n_eff {int(calibration['n_eff'] or 0)}).{note}"
    )
