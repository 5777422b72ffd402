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
from core.store.models import bundles
from core.views.columns import numbers
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Every score of a strategy: out of fold of its champion (else its newest draft), and stored.

    `folds` has p_raw, p, ev_r, p_mart, r_multiple, gross_r (NaN where there is none), decided_ms,
    closed_ts_ms, symbol (a code), is_closed; `stored` the p, ev_r and end of what was told.
    """

    bundle: str | None
    state: str | None
    folds: pd.DataFrame
    stored: pd.DataFrame


def scores(path: Path, *, strategy: str | None = None) -> Scores:
    """Return the scores that coverage and histograms are made of. Raises StoreError."""
    with reading(path) as db:
        name = strategy or newest_strategy(db)
        bundle = _bundle(db, name)
        folds = _frame(db, _FOLDS, (_place(db, str(bundle["id"])) if bundle else -1,))
        any_id = db.value("SELECT id FROM signals WHERE strategy_id = ? LIMIT 1", (name,))
        stored = _frame(db, _STORED, (any_id or 0,), p="s.ml_p", p_raw="s.ml_p_raw", ev="s.ev_r")
    found = (None, None) if bundle is None else (str(bundle["id"]), str(bundle["state"]))
    return Scores(bundle=found[0], state=found[1], folds=folds, stored=stored)


# Only whole numbers can be bound where no object is made per value: a bundle is named by its place.
_FOLDS = (
    "FROM scores c JOIN signals s ON s.id = c.signal_id WHERE c.bundle ="
    " (SELECT id FROM bundles ORDER BY id LIMIT 1 OFFSET ?1) AND ?1 >= 0"
    " ORDER BY c.signal_id"
)
_STORED = (
    "FROM signals s WHERE s.strategy_id = (SELECT strategy_id FROM signals WHERE id = ?1)"
    " AND s.ml_p NOT NULL ORDER BY s.id"
)


def _place(db: Database, bundle: str) -> int:
    return int(db.value("SELECT count(*) FROM bundles WHERE id < ?", (bundle,)))


def _frame(
    db: Database,
    rest: str,
    params: tuple[int, ...],
    *,
    p: str = "c.p",
    p_raw: str = "c.p_raw",
    ev: str = "c.ev_r",
) -> pd.DataFrame:
    closed = ", ".join(f"'{status}'" for status in CLOSED)
    asked = {
        p: "p",
        p_raw: "p_raw",
        ev: "ev_r",
        "s.p_mart": "p_mart",
        "s.r_multiple": "r_multiple",
        "s.gross_r": "gross_r",
        "s.decided_ms": "decided_ms",
        "s.closed_ts_ms": "closed_ts_ms",
        f"s.status IN ({closed})": "is_closed",
    }
    ids, columns = numbers(db, ("s.id", *asked), rest, params)
    symbols = [symbol for (symbol,) in db.rows(f"SELECT s.symbol {rest}", params)]
    frame = pd.DataFrame({"id": ids} | {asked[name]: column for name, column in columns.items()})
    order = np.lexsort((frame["id"], frame["decided_ms"]))
    instants = {name: frame[name].fillna(0).astype("int64") for name in _INSTANTS}
    codes = pd.factorize(np.array(symbols, dtype=object))[0]
    frame = frame.assign(**instants, is_closed=frame["is_closed"] > 0, symbol=codes)
    return frame.iloc[order].reset_index(drop=True)


_INSTANTS = ("decided_ms", "closed_ts_ms")


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
