"""What the model's scores were worth: coverage against win-rate, and how its p are spread."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core import performance
from core.bootstrap import SEED
from core.store import Database
from core.store.models import bundles
from core.views.columns import numbers
from core.views.reading import reading
from core.views.results import trades_of
from core.views.rows import read_rows
from core.views.state import market_now, newest_strategy

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Every score of a strategy: out of fold of its champion (else its newest draft), and stored.

    `folds` has p_raw, p, ev_r, p_mart, r_multiple, gross_r (NaN where there is none), decided_ms,
    closed_ts_ms, symbol (a code), is_closed; `stored` the p, ev_r and end of what was told. Both in
    decision order.
    """

    bundle: str | None
    state: str | None
    folds: pd.DataFrame
    stored: pd.DataFrame


def scores(path: Path, *, strategy: str | None = None, rows: pd.DataFrame | None = None) -> Scores:
    """Return the scores that coverage and histograms are made of. Raises StoreError.

    `rows` are those of the strategy's whole record (see `rows.read_rows`), where they are at hand.
    """
    with reading(path) as db:
        name = strategy or newest_strategy(db)
        bundle = _bundle(db, name)
        if rows is None:
            now_ms = market_now(db)
            rows = read_rows(db, strategy=name, start_ms=None, end_ms=None, now_ms=now_ms)
        place = _place(db, str(bundle["id"])) if bundle else -1
        ids, told = numbers(db, ("signal_id", "p_raw", "p", "ev_r"), _FOLDS, (place,))
    ends = rows.loc[:, list(_ENDS)].assign(symbol=pd.factorize(rows["symbol"])[0])
    stored = ends.assign(p=rows["ml_p"], ev_r=rows["ev_r"])[rows["ml_p"].notna()]
    # in the rows' order, which is that of the decisions
    at = pd.Index(ids).get_indexer(pd.Index(rows["id"]))
    folds = ends[at >= 0].assign(**{name: column[at[at >= 0]] for name, column in told.items()})
    found = (None, None) if bundle is None else (str(bundle["id"]), str(bundle["state"]))
    return Scores(
        bundle=found[0],
        state=found[1],
        folds=folds.reset_index(drop=True),
        stored=stored.reset_index(drop=True),
    )


_ENDS = (
    "id",
    "symbol",
    "p_mart",
    "r_multiple",
    "gross_r",
    "decided_ms",
    "closed_ts_ms",
    "is_closed",
)
# Only whole numbers can be bound where no object is made per value: a bundle is named by its place.
_FOLDS = (
    "FROM scores WHERE bundle = (SELECT id FROM bundles ORDER BY id LIMIT 1 OFFSET ?1)"
    " AND ?1 >= 0 ORDER BY signal_id"
)


def _place(db: Database, bundle: str) -> int:
    return int(db.value("SELECT count(*) FROM bundles WHERE id < ?", (bundle,)))


def coverage(found: Scores) -> Coverage:
    """Return the coverage of the out-of-fold scores of a bundle."""
    empty = pd.DataFrame(columns=list(_NAMES))
    name, state = found.bundle, found.state
    if name is None:
        sentence = "No model has been trained for this strategy yet."
        return Coverage(bundle=None, state=None, sentence=sentence, table=empty)
    closed = found.folds[found.folds["is_closed"]]
    if closed.empty:
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


def _table(closed: pd.DataFrame) -> pd.DataFrame:
    frame = closed.assign(ambiguous=False)
    # Before calibration there is only the raw score; both rank trades alike.
    score = frame["p"].fillna(frame["p_raw"]).to_numpy(np.float64)
    rng = np.random.default_rng(SEED)
    rows = performance.coverage_table(trades_of(frame), score, rng)
    bounds = [performance.wilson_interval(row.win_rate, row.n_eff) for row in rows]
    table = pd.DataFrame([asdict(row) for row in rows])
    table["win_rate_lo"], table["win_rate_hi"] = zip(*bounds, strict=True)
    return table[list(_NAMES)].sort_values("coverage", ascending=False, ignore_index=True)


def ml_p_histogram(found: Scores) -> dict[str, pd.DataFrame]:
    """Return how calibrated probabilities are spread: as stored at the decision, and out of fold.

    Per source one row per bin [low, high) of [0, 1]: n_wins, n_losses, n_other (not filled or not
    ended).
    """
    told = found.folds[found.folds["p"].notna()]
    return {LIVE_SOURCE: _histogram(found.stored), FOLD_SOURCE: _histogram(told)}


def _histogram(frame: pd.DataFrame) -> pd.DataFrame:
    edges = np.linspace(0, 1, N_BINS + 1)
    won = frame["is_closed"] & (frame["r_multiple"] > 0)
    lost = frame["is_closed"] & ~won
    kinds = {"n_wins": won, "n_losses": lost, "n_other": ~won & ~lost}
    counts = {
        name: np.histogram(frame.loc[chosen, "p"], edges)[0] for name, chosen in kinds.items()
    }
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], **counts})
