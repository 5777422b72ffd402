"""Candidates as rows for a table, one candidate in full, and the candles around it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from core.domain import (
    CLOSED,
    Candles,
    Delivery,
    Evidence,
    Gate,
    Origin,
    Series,
    Setup,
    Side,
    Status,
)
from core.store.candles import read_candles
from core.store.signals import signal_of
from core.timeframe import tf_ms
from core.views.reading import reading

COLUMNS = (
    "id",
    "decided_ms",
    "symbol",
    "timeframe",
    "direction",
    "setup",
    "status",
    "r_multiple",
    "exit_reason",
    "delivery",
    "gate",
    "evidence",
    "p_mart",
    "ml_p",
    "ev_r",
    "cost_r",
    "entry",
    "sl",
    "tp1",
    "tp2",
    "regime",
    "origin",
    "gate_reason",
    "delivery_reason",
)
_NUMBERS = ("r_multiple", "p_mart", "ml_p", "ev_r", "cost_r", "entry", "sl", "tp1", "tp2")
MOST_BARS = 1500
FILTERS = (
    "symbol",
    "timeframe",
    "setup",
    "direction",
    "status",
    "gate",
    "evidence",
    "delivery",
    "origin",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which candidates are wanted; an empty choice means all of them."""

    symbol: tuple[str, ...] = ()
    timeframe: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    direction: tuple[str, ...] = ()
    status: tuple[str, ...] = ()
    gate: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    delivery: tuple[str, ...] = ()
    origin: tuple[str, ...] = ()
    strategy: str | None = None
    since_ms: int | None = None


def latest_signals(path: Path, filters: Filters, *, limit: int = 200) -> pd.DataFrame:
    """Return the candidates decided last, newest first, one column per name in COLUMNS."""
    where, params = _where(filters)
    with reading(path) as db:
        rows = db.rows(
            f"SELECT {', '.join(COLUMNS)} FROM signals WHERE {where}"
            " ORDER BY decided_ms DESC, id DESC LIMIT ?",
            (*params, limit),
        )
    # A column of nothing but None would not be one of numbers.
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(_NUMBERS, "float64"))


def _where(filters: Filters) -> tuple[str, list[Any]]:
    """Return the condition and its values; `+` keeps SQLite on the index of the order."""
    where, params = ["1"], []
    for name in FILTERS:
        chosen = getattr(filters, name)
        if chosen:
            told = name == "delivery" and set(chosen) <= set(_TOLD)
            where.append(f"{'' if told else '+'}{name} IN ({', '.join('?' * len(chosen))})")
            where += [f"delivery IN ('{_TOLD[0]}', '{_TOLD[1]}')"] if told else []
            params.extend(chosen)
    if filters.strategy is not None:
        where.append("+strategy_id = ?")
        params.append(filters.strategy)
    if filters.since_ms is not None:
        where.append("decided_ms >= ?")
        params.append(filters.since_ms)
    return " AND ".join(where), params


_TOLD = (Delivery.LIVE.value, Delivery.PAPER.value)
_WORDS_OF = {
    "setup": tuple(Setup),
    "direction": tuple(side.direction for side in Side),
    "status": tuple(Status),
    "gate": tuple(Gate),
    "evidence": tuple(Evidence),
    "delivery": tuple(Delivery),
    "origin": tuple(Origin),
}


def choices(path: Path) -> dict[str, list[str]]:
    """Return the values each filter can take: series with a candidate, and the fixed words."""
    with reading(path) as db:
        series = db.rows(
            "SELECT symbol, timeframe FROM series s WHERE EXISTS (SELECT 1 FROM signals g WHERE"
            " g.exchange = s.exchange AND g.symbol = s.symbol AND g.timeframe = s.timeframe)"
        )
    return {
        "symbol": sorted({str(symbol) for symbol, _ in series}),
        "timeframe": sorted({str(timeframe) for _, timeframe in series}, key=tf_ms),
        **{name: [str(word) for word in kinds] for name, kinds in _WORDS_OF.items()},
    }


def signal_detail(path: Path, number: int) -> dict[str, Any] | None:
    """Return every column of one candidate, or None where there is none of that id.

    `opened_price` is added: the price of the fill, which is not `entry` when the order was filled
    at an open beyond it. None before the fill.
    """
    with reading(path) as db:
        found = signal_of(db, number)
    if found is None:
        return None
    price = json.loads(found["exec_state"]).get("opened_price") or found["entry"]
    return found | {"opened_price": price if found["opened_ts_ms"] else None}


def candles_around(
    path: Path, signal: dict[str, Any], *, n_before: int = 20, n_after: int = 12
) -> pd.DataFrame:
    """Return the bars of a candidate's timeframe, from before its P0 to some after its end.

    Columns ts_ms, open, high, low, close, volume. A candidate still followed is shown to the
    newest stored bar, and at most MOST_BARS are shown.
    """
    series = Series(signal["exchange"], signal["symbol"], signal["timeframe"])
    step = tf_ms(series.timeframe)
    if signal["status"] in CLOSED:
        end_ms = signal["closed_ts_ms"]
    else:
        end_ms = max(signal["valid_until_ms"], signal["closed_ts_ms"] or 0)
    if signal["status"] == "OPEN":
        end_ms = 1 << 52  # to the newest bar
    start_ms = max(0, signal["p0_ms"] - n_before * step)
    end_ms = min(end_ms + n_after * step, start_ms + MOST_BARS * step)
    with reading(path) as db:
        return frame_of(read_candles(db, series, start_ms=start_ms, end_ms=end_ms))


def recent_candles(path: Path, series: Series, *, n: int, until_ms: int) -> pd.DataFrame:
    """Return the bars of the last `n` steps before an instant; missing bars stay missing."""
    with reading(path) as db:
        start_ms = max(0, until_ms - n * tf_ms(series.timeframe))
        return frame_of(read_candles(db, series, start_ms=start_ms, end_ms=until_ms))


def frame_of(bars: Candles) -> pd.DataFrame:
    """Return bars as a frame, one row each."""
    names = ("ts_ms", "open", "high", "low", "close", "volume")
    return pd.DataFrame(dict(zip(names, bars.columns(), strict=True)))
