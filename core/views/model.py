"""What the model's scores were worth: coverage against win-rate, and how its p are spread."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core import performance
from core.bootstrap import SEED
from core.domain import CLOSED
from core.store import Database
from core.store.models import bundles, scores_of
from core.views.reading import reading
from core.views.results import trades_of
from core.views.state import newest_strategy

N_BINS = 20
LIVE_SOURCE = "as stored at the decision"
FOLD_SOURCE = "out of fold, of the present bundle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How out-of-fold scores rank trades; `sentence` says whose they are, or why there are none.

    `table` has coverage, lowest_score, n, n_eff, win_rate with its interval, p_mart, mean_r with
    its interval: the best share by score, from the whole down.
    """

    bundle: str | None
    state: str | None
    sentence: str
    table: pd.DataFrame


_NAMES = (
    "coverage",
    "lowest_score",
    "n",
    "n_eff",
    "win_rate",
    "win_rate_lo",
    "win_rate_hi",
    "p_mart",
    "mean_r",
    "mean_r_lo",
    "mean_r_hi",
)


def coverage(path: Path, *, strategy: str | None = None) -> Coverage:
    """Return the coverage of the champion's out-of-fold scores, else of the newest draft's."""
    with reading(path) as db:
        bundle = _bundle(db, strategy or newest_strategy(db))
        rows = scores_of(db, bundle["id"]) if bundle else []
    empty = pd.DataFrame(columns=list(_NAMES))
    if bundle is None:
        sentence = "No model has been trained for this strategy yet."
        return Coverage(bundle=None, state=None, sentence=sentence, table=empty)
    name, state = str(bundle["id"]), str(bundle["state"])
    closed = [row for row in rows if row["status"] in CLOSED]
    if not closed:
        sentence = f"Bundle {name} ({state}) has no out-of-fold score of a closed trade yet."
        return Coverage(bundle=name, state=state, sentence=sentence, table=empty)
    sentence = (
        f"Out-of-fold scores of bundle {name} ({state}), over {len(closed)} closed trades: each"
        " score comes from a model whose data ended before the candidate."
    )
    return Coverage(bundle=name, state=state, sentence=sentence, table=_table(closed))


def _bundle(db: Database, strategy: str | None) -> dict[str, Any] | None:
    if strategy is None:
        return None
    known = bundles(db, strategy=strategy)
    for state in ("champion", "draft"):
        for row in known:
            if row["state"] == state:
                return row
    return None


def _table(closed: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(closed).assign(ambiguous=False)
    # Before calibration there is only the raw score; both rank trades alike.
    score = np.where(frame["p"].notna(), frame["p"], frame["p_raw"]).astype(np.float64)
    rng = np.random.default_rng(SEED)
    rows = performance.coverage_table(trades_of(frame), score, rng)
    bounds = [performance.wilson_interval(row.win_rate, row.n_eff) for row in rows]
    table = pd.DataFrame([asdict(row) for row in rows])
    table["win_rate_lo"], table["win_rate_hi"] = zip(*bounds, strict=True)
    return table[list(_NAMES)].sort_values("coverage", ascending=False, ignore_index=True)


def ml_p_histogram(path: Path, *, strategy: str | None = None) -> dict[str, pd.DataFrame]:
    """Return how calibrated probabilities are spread: as stored at the decision, and out of fold.

    Per source one row per bin [low, high) of [0, 1]: n_wins, n_losses, n_other (not filled or not
    ended).
    """
    with reading(path) as db:
        name = strategy or newest_strategy(db)
        bundle = _bundle(db, name)
        stored = db.rows(
            "SELECT ml_p, status, r_multiple FROM signals WHERE strategy_id = ? AND ml_p NOT NULL",
            (name,),
        )
        folds = scores_of(db, bundle["id"]) if bundle else []
    scored = [(row["p"], row["status"], row["r_multiple"]) for row in folds if row["p"] is not None]
    return {LIVE_SOURCE: _histogram(stored), FOLD_SOURCE: _histogram(scored)}


def _histogram(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["p", "status", "r"]).astype(
        {"p": "float64", "r": "float64"}
    )
    edges = np.linspace(0, 1, N_BINS + 1)
    won = frame["status"].isin(CLOSED) & (frame["r"] > 0)
    lost = frame["status"].isin(CLOSED) & ~won
    kinds = {"n_wins": won, "n_losses": lost, "n_other": ~won & ~lost}
    counts = {
        name: np.histogram(frame.loc[chosen, "p"], edges)[0] for name, chosen in kinds.items()
    }
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], **counts})
