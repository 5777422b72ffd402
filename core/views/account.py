"""What a book earned and paid: gross less fees, slippage and funding is net, in R and dollars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from core.domain import Floats, Ints, Series
from core.equity import Positions, closed_r, open_r, underwater
from core.store import Database
from core.store.candles import read_candles
from core.timeframe import HOUR_MS, tf_ms

PARTS = ("fees", "slippage", "funding")
Closes = dict[tuple[str, str], tuple[Ints, Floats]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Totals of every closed trade of a book, `gross - fees - slippage - funding = net`.

    The parts are those of trades whose execution says them; `n_unsplit` were paid for without a
    record of what for, and stand in `unsplit_r`. `constant_funding_share` is the share of funding
    settlements charged at the constant rate. Dollars are at the stakes given.
    """

    gross_r: float
    fees_r: float
    slippage_r: float
    funding_r: float
    unsplit_r: float
    net_r: float
    gross_usd: float
    fees_usd: float
    slippage_usd: float
    funding_usd: float
    unsplit_usd: float
    net_usd: float
    n_unsplit: int
    constant_funding_share: float
    stake_usd_lo: float
    stake_usd_hi: float


def account(closed: pd.DataFrame) -> Account:
    """Return the account of closed trades."""
    usd = closed["usd_per_r"].fillna(0.0).to_numpy()  # a net of exactly 0 does not tell
    net, gross = closed["r_multiple"].to_numpy(), closed["gross_r"].to_numpy()
    split = closed["fees_r"].notna().to_numpy()
    paid = {name: closed[f"{name}_r"].fillna(0.0).to_numpy() for name in PARTS}
    parts = {"gross": gross, **paid, "unsplit": np.where(split, 0.0, gross - net), "net": net}
    stored, constant = (float(closed[f"n_funding_{k}"].sum()) for k in ("stored", "constant"))
    stakes = closed["stake_usd"].dropna()
    return Account(
        **{f"{name}_r": float(values.sum()) for name, values in parts.items()},
        **{f"{name}_usd": float((values * usd).sum()) for name, values in parts.items()},
        n_unsplit=int((~split).sum()),
        constant_funding_share=constant / (stored + constant) if stored + constant else np.nan,
        stake_usd_lo=float(stakes.min()) if len(stakes) else np.nan,
        stake_usd_hi=float(stakes.max()) if len(stakes) else np.nan,
    )


def read_closes(db: Database, rows: pd.DataFrame, *, now_ms: int | None) -> Closes:
    """Return the closes by which open trades are marked, with the instants they are known at.

    Of the coarsest stored timeframe up to 1h. A pair without candles is absent.
    """
    filled = rows[rows["opened_ts_ms"] > 0]
    if filled.empty:
        return {}
    end_ms = int(filled["closed_ts_ms"].max()) if now_ms is None else now_ms
    out = {}
    firsts = filled.groupby(["exchange", "symbol"], as_index=False)["opened_ts_ms"].min()
    for exchange, symbol, start_ms in firsts.itertuples(index=False, name=None):
        timeframe = _timeframe(db, exchange, symbol)
        if timeframe is None:
            continue
        step = tf_ms(timeframe)
        series = Series(exchange, symbol, timeframe)
        bars = read_candles(db, series, start_ms=start_ms - 2 * step, end_ms=end_ms - step + 1)
        if len(bars):
            out[exchange, symbol] = (bars.ts_ms + step, bars.close)
    return out


def _timeframe(db: Database, exchange: str, symbol: str) -> str | None:
    stored = db.rows(
        "SELECT timeframe FROM series WHERE exchange = ? AND symbol = ? AND n_rows > 0",
        (exchange, symbol),
    )
    fine = [name for (name,) in stored if tf_ms(name) <= HOUR_MS]
    return max(fine, key=tf_ms) if fine else None


def marked_equity(rows: pd.DataFrame, closes: Closes) -> pd.DataFrame:
    """Return a book at market: ts_ms, equity_r, underwater_r (<= 0), open_r.

    At each close of any of its pairs an open trade is worth what leaving it there would bring,
    without the costs of leaving; its own costs are charged at the fill. A pair without candles
    counts at its exits only; over a hole the last close stands.
    """
    filled = rows.loc[rows["opened_ts_ms"] > 0, list(_MARKED)]
    if filled.empty:
        return pd.DataFrame({name: [] for name in ("ts_ms", "equity_r", "underwater_r", "open_r")})
    whole = positions(filled)
    pairs = filled.groupby(["exchange", "symbol"], observed=True, sort=False).indices
    known = {key: (closes[key], place) for key, place in pairs.items() if key in closes}
    ts_ms = _instants(whole, [known_ms for (known_ms, _), _ in known.values()])
    open_now = np.zeros(len(ts_ms))
    for (known_ms, close), mine in known.values():
        place = np.searchsorted(known_ms, ts_ms, side="right") - 1
        price = np.where(place >= 0, close[np.maximum(place, 0)], np.nan)
        open_now += np.nan_to_num(open_r(whole[np.asarray(mine)], ts_ms, price))
    total = closed_r(whole, ts_ms) + open_now
    columns = (ts_ms, total, underwater(total), open_now)
    names = ("ts_ms", "equity_r", "underwater_r", "open_r")
    return pd.DataFrame(dict(zip(names, columns, strict=True)))


def _instants(held: Positions, known_ms: list[Ints]) -> Ints:
    """The closes from the first fill on, and the last exit."""
    exits = held.closed_ms if not known_ms else np.array([held.closed_ms.max()])
    ordered = np.sort(np.concatenate([*known_ms, exits]))
    distinct = ordered[np.concatenate(([True], ordered[1:] != ordered[:-1]))]
    return np.asarray(distinct[distinct >= held.opened_ms.min()])


_MARKED = (
    "exchange",
    "symbol",
    "direction",
    "entry",
    "sl",
    "opened_price",
    "opened_ts_ms",
    "tp1",
    "tp1_ts_ms",
    "tp1_fraction",
    "closed_ts_ms",
    "is_closed",
    "r_multiple",
    "gross_r",
    "fees_r",
    "slippage_r",
    "funding_r",
)


def positions(filled: pd.DataFrame) -> Positions:
    """Return filled rows as the arrays that `equity` marks."""
    is_closed = filled["is_closed"].to_numpy(bool)
    so_far = filled[["fees_r", "slippage_r", "funding_r"]].sum(axis=1).to_numpy()
    cost = (filled["gross_r"] - filled["r_multiple"]).to_numpy()
    return Positions(
        side=np.where(filled["direction"] == "long", 1, -1),
        risk=(filled["entry"] - filled["sl"]).abs().to_numpy(),
        opened_price=filled["opened_price"].to_numpy(),
        opened_ms=filled["opened_ts_ms"].to_numpy(np.int64),
        tp1=filled["tp1"].to_numpy(),
        tp1_ms=filled["tp1_ts_ms"].to_numpy(np.int64),
        tp1_fraction=filled["tp1_fraction"].to_numpy(),
        closed_ms=np.where(is_closed, filled["closed_ts_ms"], 0),
        net_r=filled["r_multiple"].fillna(0.0).to_numpy(),
        cost_r=np.where(is_closed, cost, so_far),
    )
