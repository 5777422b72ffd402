"""Candidates as a frame: one row each, with what was paid and whether it counts in the rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from core.domain import CLOSED, Floats, Ints
from core.splits import matures_ms
from core.store import Database
from core.store.signals import strategy_settings_of
from core.timeframe import DAY_MS, HOUR_MS, tf_ms
from core.views.columns import numbers_and_marks

_WORDS = (
    "exchange",
    "symbol",
    "timeframe",
    "setup",
    "direction",
    "regime",
    "origin",
    "status",
    "gate",
    "gate_reason",
    "evidence",
    "delivery",
    "exit_reason",
)
_INTS = ("scan_stride", "decided_ms", "valid_until_ms", "ambiguous", "data_revised")
_INSTANTS = ("opened_ts_ms", "tp1_ts_ms", "closed_ts_ms")  # 0 while they have not come
_NUMBERS = (
    "entry",
    "sl",
    "tp1",
    "tp2",
    "exit_price",
    "p_mart",
    "cost_r",
    "ml_p",
    "ev_r",
    "r_multiple",
    "gross_r",
    "pnl_pct",
    "pnl_usd",
)
_STATE = (  # of the execution, fractions of the planned notional
    "opened_price",
    "maker_frac",
    "taker_frac",
    "slippage_frac",
    "funding_frac",
    "n_funding_stored",
    "n_funding_constant",
)
_STORED = (*_INTS, *_INSTANTS, *_NUMBERS)
_NEVER_MS = 1 << 62
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_EPOCHS_DAY = 3  # a Thursday


def read_rows(
    db: Database,
    *,
    strategy: str | None,
    start_ms: int | None,
    end_ms: int | None,
    now_ms: int | None,
) -> pd.DataFrame:
    """Return the candidates of a strategy decided in [start_ms, end_ms), in decision order.

    Beside the stored columns: `setup_timeframe` (both in one word), `opened_price`, `fees_r`,
    `slippage_r`, `funding_r` (what was paid so far; NaN where the execution's state does not say),
    `usd_per_r`, `stake_usd`, `tp1_fraction`, `month`, `weekday` and `hour` of the decision (UTC),
    `p_band` of the probability said, `is_closed`, and `is_counted`: closed and matured.
    """
    found = _rows_of(db, strategy, start_ms=start_ms, end_ms=end_ms)
    frame = found.iloc[np.lexsort((found["id"], found["decided_ms"]))].reset_index(drop=True)
    settings = (strategy_settings_of(db, strategy) if strategy else None) or {}
    execution = settings.get("execution", {})
    hold_bars = int(execution.get("max_hold_candles", 0))
    fraction = float(execution.get("tp1_fraction", 0.5))
    return _counted(_paid(frame.assign(tp1_fraction=fraction)), now_ms=now_ms, hold_bars=hold_bars)


def _rows_of(
    db: Database, strategy: str | None, *, start_ms: int | None, end_ms: int | None
) -> pd.DataFrame:
    """The stored columns, typed, by rising id: by decision SQLite would seek row by row."""
    whole = start_ms is None and end_ms is None
    where = (
        # of the whole record the index gives nothing but a detour and a sort
        f"FROM signals {'NOT INDEXED' if whole else ''}"
        " WHERE strategy_id = (SELECT strategy_id FROM signals WHERE id = ?1)"
        " AND decided_ms >= ?2 AND decided_ms < ?3 ORDER BY id"
    )
    any_id = db.value("SELECT id FROM signals WHERE strategy_id = ? LIMIT 1", (strategy,))
    params = (any_id or 0, start_ms or 0, _NEVER_MS if end_ms is None else end_ms)
    state = {f"exec_state ->> '$.{name}'": name for name in _STATE}
    ids, values, marks = numbers_and_marks(db, ("id", *_STORED, *state), _WORDS, where, params)
    out: dict[str, Any] = {"id": ids, **_words(db, ids, marks)}
    out |= {state.get(name, name): column for name, column in values.items()}
    out |= {name: np.nan_to_num(out[name]).astype(np.int64) for name in (*_INTS, *_INSTANTS)}
    return pd.DataFrame(out)


def _words(db: Database, ids: Ints, marks: dict[str, Ints]) -> dict[str, pd.Categorical]:
    """Spell the words of rows: of each mark one row is asked, in the order they were met."""
    out = {}
    for name, column in marks.items():
        firsts, codes = first_met(column)
        words = [
            db.value(f"SELECT coalesce({name}, '') FROM signals WHERE id = ?", (number,))
            for number in ids[firsts].tolist()
        ]
        out[name] = _categories(words, codes)
    setup, frame = out["setup"], out["timeframe"]
    n = len(frame.categories)
    firsts, codes = first_met(setup.codes.astype(np.int64) * n + frame.codes)
    pairs = [f"{setup[i]} {frame[i]}" for i in firsts.tolist()]
    return out | {"setup_timeframe": _categories(pairs, codes)}


def first_met(values: Ints) -> tuple[Ints, Ints]:
    """Return where each distinct value is met first, rising, and each row's place among them."""
    if not len(values):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    order = np.argsort(values, kind="stable")
    starts = np.concatenate(([True], np.diff(values[order]) != 0))
    firsts = order[starts]
    place = np.empty(len(values), np.int64)
    place[order] = np.argsort(np.argsort(firsts))[np.cumsum(starts) - 1]
    return np.sort(firsts), place


def _categories(words: list[str], codes: Ints) -> pd.Categorical:
    """Words met and each row's place among them as categories; '' is none."""
    kinds = [word for word in words if word]
    number = np.array([kinds.index(word) if word else -1 for word in words], np.int64)
    return _named(number[codes], kinds)


def _paid(rows: pd.DataFrame) -> pd.DataFrame:
    """Turn fractions of the notional into R, and find what an R and a trade were in dollars."""
    risk_frac = (rows["entry"] - rows["sl"]).abs() / rows["entry"]
    fees = rows["maker_frac"] + rows["taker_frac"]
    usd_per_r = rows["pnl_usd"] / rows["r_multiple"].where(rows["r_multiple"] != 0)
    return rows.drop(columns=["maker_frac", "taker_frac", "slippage_frac", "funding_frac"]).assign(
        opened_price=rows["opened_price"].where(rows["opened_price"] > 0, rows["entry"]),
        fees_r=fees / risk_frac,
        slippage_r=rows["slippage_frac"] / risk_frac,
        funding_r=rows["funding_frac"] / risk_frac,
        usd_per_r=usd_per_r,
        stake_usd=usd_per_r / risk_frac,
    )


def _counted(rows: pd.DataFrame, *, now_ms: int | None, hold_bars: int) -> pd.DataFrame:
    decided = pd.to_datetime(rows["decided_ms"], unit="ms", utc=True)
    hold_ms = hold_bars * np.asarray(rows["timeframe"].map(tf_ms), np.int64)
    matures = matures_ms(rows["valid_until_ms"].to_numpy(np.int64), hold_ms)
    days, hours = (rows["decided_ms"].to_numpy() // step for step in (DAY_MS, HOUR_MS))
    is_closed = rows["status"].isin(CLOSED)
    is_mature = matures <= (np.iinfo(np.int64).max if now_ms is None else now_ms)
    return rows.assign(
        month=_months(decided),
        weekday=_named((days + _EPOCHS_DAY) % 7, WEEKDAYS),
        hour=_named(hours % 24, [f"{hour:02d}" for hour in range(24)]),
        p_band=_bands(rows["ml_p"].to_numpy(np.float64)),
        is_closed=is_closed,
        is_mature=is_mature,
        is_counted=is_closed & is_mature,
    )


def _bands(p: Floats) -> pd.Categorical:
    """Tenths of the probability said; 1 stands in the last one."""
    place = np.where(np.isnan(p), 10, np.minimum(np.floor(np.nan_to_num(p) * 10), 9))
    names = [f"{10 * k} to {10 * k + 10} %" for k in range(10)]
    return _named(place.astype(np.int64), [*names, "no score"])


def _named(codes: Ints, names: Sequence[str]) -> pd.Categorical:
    return pd.Categorical.from_codes(codes, pd.Index(list(names), dtype="str"))


def _months(decided: pd.Series) -> pd.Series:
    """Year and month in words."""
    number = (12 * decided.dt.year + decided.dt.month - 1).to_numpy()
    names = {k: f"{k // 12:04d}-{k % 12 + 1:02d}" for k in np.unique(number).tolist()}
    return pd.Series(number, index=decided.index).map(names).astype("category")
