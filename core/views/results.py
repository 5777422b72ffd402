"""The record of a strategy on its books, with intervals; the one source of every figure shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core import equity as curves
from core import performance
from core.bootstrap import LEVEL, SEED
from core.domain import UNFILLED
from core.store import Database
from core.strict_json import plain
from core.timeframe import tf_ms
from core.views.account import PARTS, Account, Closes, account, marked_equity, read_closes
from core.views.reading import reading
from core.views.rows import WEEKDAYS, read_rows
from core.views.state import market_now, newest_strategy

BOOKS = {
    "live": "Delivered LIVE",
    "paper": "Delivered PAPER",
    "shadow": "Shadow: not delivered",
    "passed": "Gate PASS",
    "followed": "All followed",
}
BY = (
    "symbol",
    "timeframe",
    "direction",
    "setup",
    "setup_timeframe",
    "regime",
    "p_band",
    "exit_reason",
    "month",
    "weekday",
    "hour",
    "origin",
)
THIN_N_EFF = 30  # cells under this are shown in grey and never ranked
_SETTLED = ("n_funding_stored", "n_funding_constant")
_JUDGED = (
    "symbol",
    "r_multiple",
    "gross_r",
    "p_mart",
    "decided_ms",
    "closed_ts_ms",
    "ambiguous",
    *(f"{name}_r" for name in PARTS),
)

_ENDED = (*_JUDGED, "pnl_usd", "usd_per_r", "stake_usd", *_SETTLED, "is_counted")


@dataclass(frozen=True, slots=True, kw_only=True)
class FillRate:
    """How many of the candidates whose order came to an end were filled; see `Metrics.n_eff`."""

    n: int
    n_eff: float
    rate: float
    rate_lo: float
    rate_hi: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """One way of counting. `account`, totals and falls are of every closed trade.

    `metrics` and `deflated_sharpe` are of closed trades whose candidates have matured: a stop
    comes sooner than a target, so the youngest trades look worse than they are. `n_young` were
    left out of them. None where no trade is left. `closed` falls are of closed trades only,
    `marked` ones count open trades at the stored closes; `open_r` is what those open now stand at.
    """

    title: str
    n_candidates: int
    n_pending: int
    n_open: int
    n_unfilled: int
    n_closed: int
    n_young: int
    n_partial_scan: int
    n_data_revised: int
    total_r: float
    total_usd: float
    open_r: float
    years: float
    fill: FillRate
    account: Account
    closed: curves.Falls
    marked: curves.Falls
    metrics: performance.Metrics | None
    n_trials: int
    deflated_sharpe: float

    @property
    def max_drawdown_r(self) -> float:
        """The deepest fall of closed equity."""
        return self.closed.drawdown_r


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The record of one strategy_id over candidates decided in [start_ms, end_ms).

    `rows` holds one row per candidate, in decision order (see `rows.read_rows`); `n_trials` is how
    many models were tried on this database; `closes` mark open trades.
    """

    strategy: str | None
    start_ms: int | None
    end_ms: int | None
    market_ms: int | None
    n_trials: int
    books: dict[str, Book]
    rows: pd.DataFrame
    closes: Closes


def results(
    path: Path,
    *,
    strategy: str | None = None,
    start_ms: int | None = None,
    end_ms: int | None = None,
) -> Results:
    """Return the record of a strategy, the one seen last unless given.

    Raises StoreError when the database cannot be read.
    """
    with reading(path) as db:
        name = strategy or newest_strategy(db)
        now_ms = market_now(db)
        rows = read_rows(db, strategy=name, start_ms=start_ms, end_ms=end_ms, now_ms=now_ms)
        closes = read_closes(db, rows, now_ms=now_ms)
        n_trials = _n_trials(db)
    books = {
        book: _book(in_book(rows, book), title, now_ms=now_ms, closes=closes, n_trials=n_trials)
        for book, title in BOOKS.items()
    }
    return Results(
        strategy=name,
        start_ms=start_ms,
        end_ms=end_ms,
        market_ms=now_ms,
        n_trials=n_trials,
        books=books,
        rows=rows,
        closes=closes,
    )


def _n_trials(db: Database) -> int:
    """Every model ever tried here: whichever strategy it was for, a look at the data is a look."""
    return int(db.value("SELECT count(*) FROM trials"))


def in_book(rows: pd.DataFrame, book: str) -> pd.DataFrame:
    """Return the rows of one book; `live`, `paper` and `shadow` share them out."""
    if book in ("live", "paper"):
        return rows[rows["delivery"] == book.upper()]
    if book == "shadow":
        return rows[~rows["delivery"].isin(("LIVE", "PAPER"))]
    return rows[rows["gate"] == "PASS"] if book == "passed" else rows


def trades_of(rows: pd.DataFrame) -> performance.Trades:
    """Return closed rows as the arrays that `performance` judges."""
    return performance.Trades(
        r=rows["r_multiple"].to_numpy(np.float64),
        gross_r=rows["gross_r"].to_numpy(np.float64),
        p_mart=rows["p_mart"].to_numpy(np.float64),
        decided_ms=rows["decided_ms"].to_numpy(np.int64),
        closed_ms=rows["closed_ts_ms"].to_numpy(np.int64),
        symbol=pd.factorize(rows["symbol"])[0],
        ambiguous=rows["ambiguous"].to_numpy(bool),
    )


def _rng() -> np.random.Generator:
    # A fresh generator each time: a figure must not depend on what was computed before it.
    return np.random.default_rng(SEED)


def _book(
    rows: pd.DataFrame, title: str, *, now_ms: int | None, closes: Closes, n_trials: int
) -> Book:
    closed = rows.loc[rows["is_closed"], list(_ENDED)]
    counted = closed[closed["is_counted"]]
    status, paid = rows["status"], account(closed)
    metrics = performance.metrics(trades_of(counted), _rng()) if len(counted) else None
    years = _years(rows, now_ms)
    at_market = marked_equity(rows, closes)
    return Book(
        title=title,
        n_candidates=len(rows),
        n_pending=int((status == "PENDING").sum()),
        n_open=int((status == "OPEN").sum()),
        n_unfilled=int(status.isin(UNFILLED).sum()),
        n_closed=len(closed),
        n_young=len(closed) - len(counted),
        n_partial_scan=int((rows["scan_stride"] != 1).sum()),
        n_data_revised=int(rows["data_revised"].astype(bool).sum()),
        total_r=paid.net_r,
        total_usd=float(closed["pnl_usd"].sum()),
        open_r=float(at_market["open_r"].iloc[-1]) if len(at_market) else 0.0,
        years=years,
        fill=_fill_rate(rows),
        account=paid,
        closed=_falls(_closed_equity(closed), closed, years),
        marked=_falls(at_market, closed, years),
        metrics=metrics,
        n_trials=n_trials,
        deflated_sharpe=performance.deflated_sharpe(
            counted["r_multiple"].to_numpy(), metrics.n_eff if metrics else 0.0, n_trials
        ),
    )


def _years(rows: pd.DataFrame, now_ms: int | None) -> float:
    """From the first decision to the market's time, else to the last exit."""
    if rows.empty:
        return 0.0
    last = int(rows["closed_ts_ms"].max()) if now_ms is None else now_ms
    return max(0.0, (last - int(rows["decided_ms"].min())) / curves.YEAR_MS)


def _falls(curve: pd.DataFrame, closed: pd.DataFrame, years: float) -> curves.Falls:
    longest = int((closed["closed_ts_ms"] - closed["decided_ms"]).max()) if len(closed) else 0
    ts_ms = curve["ts_ms"].to_numpy(np.int64)
    total = curve["equity_r"].to_numpy(np.float64)
    return curves.falls(ts_ms, total, _rng(), years=years, longest_ms=longest)


def _fill_rate(rows: pd.DataFrame) -> FillRate:
    """Of matured candidates only: an order that fills is known sooner than one that does not."""
    is_ended = rows["is_mature"] & (rows["is_closed"] | rows["status"].isin(UNFILLED))
    ended = rows.loc[is_ended, ["symbol", "decided_ms", "closed_ts_ms", "is_closed"]]
    n_eff = performance.effective_n(
        ended["decided_ms"].to_numpy(np.int64),
        ended["closed_ts_ms"].to_numpy(np.int64),
        pd.factorize(ended["symbol"])[0],
    )
    rate = float(ended["is_closed"].mean()) if len(ended) else math.nan
    low, high = performance.wilson_interval(rate, n_eff)
    return FillRate(n=len(ended), n_eff=n_eff, rate=rate, rate_lo=low, rate_hi=high)


def _closed_equity(closed: pd.DataFrame) -> pd.DataFrame:
    steps = curves.equity_curve(
        closed["closed_ts_ms"].to_numpy(np.int64), closed["r_multiple"].to_numpy(np.float64)
    )
    return pd.DataFrame(dict(zip(("ts_ms", "equity_r", "underwater_r"), steps, strict=True)))


def equity(found: Results, book: str) -> pd.DataFrame:
    """Return every closed trade of a book as steps: closed_ms, equity_r, underwater_r (<= 0)."""
    rows = in_book(found.rows, book)
    return _closed_equity(rows[rows["is_closed"]]).rename(columns={"ts_ms": "closed_ms"})


def equity_at_market(found: Results, book: str) -> pd.DataFrame:
    """Return a book's equity with open trades at the stored closes; see `marked_equity`."""
    return marked_equity(in_book(found.rows, book), found.closes)


def breakdown(found: Results, book: str, by: str) -> pd.DataFrame:
    """Return the metrics of each value of one column, in the column's own order, never ranked.

    One row per value: `by`, every field of Metrics, what was paid a trade (`fees_r`, `slippage_r`,
    `funding_r`, NaN where no trade says), and `is_thin` where n_eff is under THIN_N_EFF. Only
    counted trades (see Book).
    """
    wanted = list(dict.fromkeys((by, *_JUDGED, "delivery", "gate")))
    rows = in_book(found.rows.loc[found.rows["is_counted"], wanted], book)
    table = judged(rows, [by])
    order = table[by]
    if by == "timeframe":
        order = order.map(tf_ms)
    elif by == "weekday":
        order = order.map(WEEKDAYS.index)
    return table.loc[order.sort_values().index]


def judged(counted: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return one row per value of some columns of counted trades; see `breakdown`."""
    paid = [f"{name}_r" for name in PARTS]
    groups = counted.groupby(list(by), sort=False)
    parts = [
        {
            **dict(zip(by, values, strict=True)),
            **asdict(performance.metrics(trades_of(group), _rng())),
            **group[paid].mean().to_dict(),
        }
        for values, group in groups
    ]
    names = [*by, *performance.Metrics.__dataclass_fields__, *paid]
    table = pd.DataFrame(parts, columns=names)
    return table.assign(is_thin=table["n_eff"] < THIN_N_EFF)


def as_json(found: Results) -> dict[str, Any]:
    """Return the figures of the books as plain JSON values; what does not exist is null."""
    return {
        "strategy_id": found.strategy,
        "start_ms": found.start_ms,
        "end_ms": found.end_ms,
        "market_ms": found.market_ms,
        "interval_level": LEVEL,
        "books": {name: plain(asdict(book)) for name, book in found.books.items()},
    }
