"""What there is to do now: the open signals that were told, each with its next act."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.domain import Series, Side
from core.store import Database
from core.store.candles import base_series, last_candles
from core.store.signals import strategy_settings_of
from core.timeframe import tf_ms
from core.views.gauge import Gauge, gauge, price_r
from core.views.plan import is_live
from core.views.reading import reading
from core.views.state import market_now
from core.views.words import price_text

MOST = 4
_COLUMNS = (
    "id, exchange, symbol, timeframe, setup, direction, strategy_id, decided_ms, actionable_ms,"
    " valid_until_ms, entry, sl, tp1, tp2, position_notional, delivery, gate, evidence, status,"
    " opened_ts_ms, tp1_hit, stop_now, exec_state"
)
_PAID = ("maker_frac", "taker_frac", "slippage_frac", "funding_frac")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """An open signal that was told. `left_ms` is until the order expires or the hold ends.

    `is_live` only where it was a signal (certified, passed, delivered LIVE); all else is followed
    on paper. `r_now` is what leaving now would bring, costs so far taken off; None before the fill
    or without a price.
    """

    id: int
    title: str
    is_live: bool
    status: str
    act: str
    gauge: Gauge
    price: float | None
    r_now: float | None
    left_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The calls, live ones and newest first; at most MOST of each, out of `n_live`, `n_paper`."""

    calls: tuple[Call, ...]
    n_live: int
    n_paper: int

    @property
    def sentence(self) -> str:
        """Whether there is anything to do."""
        if self.n_live:
            are = "signal is" if self.n_live == 1 else "signals are"
            return f"{self.n_live} live {are} open."
        papers = "trade is" if self.n_paper == 1 else "trades are"
        followed = f" {self.n_paper} paper {papers} followed." if self.n_paper else ""
        return f"Nothing to do.{followed}"


def desk(path: Path) -> Desk:
    """Return the open signals that were delivered LIVE or PAPER, with their next acts."""
    with reading(path) as db:
        now_ms = market_now(db)
        rows = db.dicts(
            f"SELECT {_COLUMNS} FROM signals WHERE status IN ('PENDING', 'OPEN')"
            " AND delivery IN ('LIVE', 'PAPER') ORDER BY decided_ms DESC, id DESC"
        )
        live = [row for row in rows if is_live(row)]
        paper = [row for row in rows if not is_live(row)]
        chosen = live[:MOST] + paper[:MOST]
        prices = _prices(db, chosen, now_ms)
        rules = _rules(db, chosen)
    calls = tuple(
        call(
            row,
            price=prices.get((row["exchange"], row["symbol"])),
            now_ms=now_ms or row["decided_ms"],
            rules=rules[row["strategy_id"]],
        )
        for row in chosen
    )
    return Desk(calls=calls, n_live=len(live), n_paper=len(paper))


def _prices(
    db: Database, rows: Sequence[Mapping[str, Any]], now_ms: int | None
) -> dict[tuple[str, str], float]:
    """The last stored close of each pair, of its finest series."""
    out = {}
    for exchange, symbol in {(row["exchange"], row["symbol"]) for row in rows}:
        series: Series = base_series(db, exchange, symbol)
        bars = last_candles(db, series, 1, known_at_ms=now_ms or 1 << 52)
        if len(bars):
            out[exchange, symbol] = float(bars.close[-1])
    return out


def _rules(db: Database, rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The execution's settings of each strategy: an open trade ends under its own."""
    names = {row["strategy_id"] for row in rows}
    return {name: (strategy_settings_of(db, name) or {}).get("execution", {}) for name in names}


def call(
    row: Mapping[str, Any], *, price: float | None, now_ms: int, rules: Mapping[str, Any]
) -> Call:
    """Return one open signal as the desk shows it; `rules` are its strategy's `execution`."""
    live = is_live(row)
    fraction = float(rules.get("tp1_fraction", 0.5))
    return Call(
        id=int(row["id"]),
        title=(
            f"{row['direction'].upper()} {row['symbol']} {row['timeframe']} {row['setup']}"
            f" #{row['id']}"
        ),
        is_live=live,
        status=row["status"],
        act=act_text(row, price=price, rules=rules, live=live),
        gauge=gauge(row, price),
        price=price,
        r_now=None
        if price is None or row["status"] != "OPEN"
        else r_now(row, price, tp1_fraction=fraction),
        left_ms=_left_ms(row, now_ms=now_ms, rules=rules),
    )


def act_text(
    row: Mapping[str, Any], *, price: float | None, rules: Mapping[str, Any], live: bool
) -> str:
    """Return the next act in a sentence; of a paper trade, what the plan would do."""
    would = "" if live else "On paper: "
    text = _pending_text(row, price) if row["status"] == "PENDING" else _open_text(row, rules)
    return f"{would}{text}"


def _pending_text(row: Mapping[str, Any], price: float | None) -> str:
    entry = price_text(row["entry"])
    if price is not None and price_r(row, price) <= -1:
        return f"place nothing new: the price is beyond the stop of the order at {entry}."
    if price is not None and price_r(row, price) >= price_r(row, row["tp1"]):
        return f"cancel the order at {entry}: the price is at TP1 without it."
    word = "buy" if Side.of(row["direction"]) is Side.LONG else "sell"
    return f"keep a {word} limit at {entry}, stop {price_text(row['sl'])}; not filled yet."


def _open_text(row: Mapping[str, Any], rules: Mapping[str, Any]) -> str:
    stop = price_text(row["stop_now"] if row["stop_now"] is not None else row["sl"])
    tp2 = price_text(row["tp2"])
    if row["tp1_hit"]:
        return f"TP1 is taken; keep the stop at {stop}, the rest leaves at TP2 {tp2}."
    part = float(rules.get("tp1_fraction", 0.5))
    then = ", then stop to entry" if rules.get("be_on_tp1", True) else ""
    return (
        f"hold with the stop at {stop}; at TP1 {price_text(row['tp1'])} close {part:.0%}{then};"
        f" TP2 {tp2}."
    )


def r_now(row: Mapping[str, Any], price: float, *, tp1_fraction: float) -> float:
    """Return what an open trade stands at, net of the costs charged so far, in R."""
    state = json.loads(row["exec_state"])
    opened = state.get("opened_price") or row["entry"]
    start = price_r(row, opened)
    banked = tp1_fraction if row["tp1_hit"] else 0.0
    gross = banked * (price_r(row, row["tp1"]) - start)
    gross += (1 - banked) * (price_r(row, price) - start)
    paid_frac = sum(float(state.get(name) or 0.0) for name in _PAID)
    return float(gross - paid_frac * row["entry"] / abs(row["entry"] - row["sl"]))


def _left_ms(row: Mapping[str, Any], *, now_ms: int, rules: Mapping[str, Any]) -> int | None:
    if row["status"] == "PENDING":
        return int(max(0, row["valid_until_ms"] - now_ms))
    hold = rules.get("max_hold_candles")
    if not hold or not row["opened_ts_ms"]:
        return None
    return int(max(0, row["opened_ts_ms"] + int(hold) * tf_ms(row["timeframe"]) - now_ms))
