"""The evidence meter: what the gate let through earned lately, and when it is proved."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from core import performance
from core.bootstrap import SEED
from core.domain import CLOSED
from core.performance import Metrics
from core.proof_time import proof_time, sentence
from core.splits import matures_ms
from core.store import Database
from core.store.models import bundles
from core.store.signals import strategy_settings_of
from core.timeframe import DAY_MS, tf_ms
from core.views.columns import numbers
from core.views.reading import reading
from core.views.results import trades_of
from core.views.state import market_now, newest_strategy

WINDOW_DAYS = 365


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """The record of the gate's PASS over the last WINDOW_DAYS, and how long until it proves.

    `metrics` is of matured closed trades, None without one; once a model speaks (`scored`) only of
    those that one had judged. `proof` is a sentence; so is `basis`, what the newest tuning found
    out of fold, '' without one.
    """

    metrics: Metrics | None
    scored: bool
    proof: str
    basis: str = ""

    @property
    def subject(self) -> str:
        """Whose record it is."""
        what = "passed by the gate" if self.scored else "followed without a model"
        return f"Trades {what}, decided in the last {WINDOW_DAYS} days, live and retro"


def meter(path: Path, *, strategy: str | None = None) -> Meter:
    """Return the evidence meter of a strategy, the one seen last unless given."""
    with reading(path) as db:
        name = strategy or newest_strategy(db)
        now_ms = market_now(db)
        if name is None or now_ms is None:
            return Meter(metrics=None, scored=False, proof=sentence(None))
        rows = _passed(db, name, now_ms=now_ms)
        said = _monitored(db, name)
        scored, basis = _basis(db, name)
    if scored:
        rows = rows[rows["is_scored"]]
    rng = np.random.default_rng(SEED)
    found = performance.metrics(trades_of(rows), rng) if len(rows) else None
    proof = said or _time_to_proof(rows, now_ms=now_ms)
    return Meter(metrics=found, scored=scored, proof=proof, basis=basis)


def _time_to_proof(rows: pd.DataFrame, *, now_ms: int) -> str:
    """The same sentence as the daily look's, where there was none yet."""
    trades = trades_of(rows)
    arrays = trades.r, trades.decided_ms, trades.closed_ms, trades.symbol
    return sentence(proof_time(*arrays, until_ms=now_ms))


def _basis(db: Database, strategy: str) -> tuple[bool, str]:
    """Whether a model speaks, and what its newest tuning found: a certified cell first."""
    champions = bundles(db, strategy=strategy, state="champion")
    if not champions:
        return False, ""
    found = db.rows(
        "SELECT cell, certified, n, n_eff, detail FROM tunings WHERE bundle = ?1 AND created_ms ="
        " (SELECT max(created_ms) FROM tunings WHERE bundle = ?1) ORDER BY certified DESC, id"
        " LIMIT 1",
        (champions[0]["id"],),
    )
    return True, basis_text(*found[0]) if found else ""


def basis_text(cell: str, certified: int, n: int, n_eff: float, detail: str) -> str:
    """Return what a tuning found in its best cell, in a sentence with its sample."""
    said = json.loads(detail or "{}")
    estimate, low = said.get("estimate"), said.get("lower")
    name = cell_text(cell)
    if not certified:
        return f"Last tuning, {name}: {said.get('reason') or 'not certified'}."
    sample = f"n {n}, n_eff {int(n_eff)}"
    if said.get("mode") != "ev" or estimate is None or low is None:
        return f"Certificate for {name}, out of fold, {sample}."
    level = 1 - float(said.get("delta", 0.1))
    return (
        f"Certificate for {name}: net {estimate:+.2f} R a trade out of fold, at least {low:+.2f}"
        f" ({level:.0%}, one-sided), {sample}."
    )


def cell_text(cell: str) -> str:
    """Return a cell of the tuning in words.

    >>> cell_text("* *"), cell_text("* 15m"), cell_text("BTC/USDT 1h")
    ('all pairs and timeframes', '15m', 'BTC/USDT 1h')
    """
    return "all pairs and timeframes" if set(cell) <= set("*/ ") else cell.replace("* ", "")


def _passed(db: Database, strategy: str, *, now_ms: int) -> pd.DataFrame:
    """The matured closed trades that the gate let through, decided in the window."""
    any_id = db.value("SELECT id FROM signals WHERE strategy_id = ? LIMIT 1", (strategy,))
    closed = ", ".join(f"'{status}'" for status in CLOSED)
    rest = (
        "FROM signals WHERE strategy_id = (SELECT strategy_id FROM signals WHERE id = ?1)"
        f" AND decided_ms >= ?2 AND gate = 'PASS' AND scan_stride = 1 AND status IN ({closed})"
        " ORDER BY decided_ms, id"
    )
    params = (any_id or 0, now_ms - WINDOW_DAYS * DAY_MS)
    names = ("r_multiple", "gross_r", "p_mart", "ml_p", "decided_ms", "closed_ts_ms")
    ids, columns = numbers(db, ("id", *names, "valid_until_ms"), rest, params)
    texts = db.rows(f"SELECT symbol, timeframe {rest}", params)
    words = pd.DataFrame(texts, columns=["symbol", "timeframe"], index=range(len(ids)))
    rows = pd.DataFrame(columns).assign(symbol=pd.factorize(words["symbol"])[0])
    execution = (strategy_settings_of(db, strategy) or {}).get("execution", {})
    hold_ms = int(execution.get("max_hold_candles", 0)) * words["timeframe"].map(tf_ms)
    known = matures_ms(rows["valid_until_ms"].to_numpy(np.int64), np.asarray(hold_ms, np.int64))
    return rows.assign(is_scored=rows["ml_p"].notna(), ambiguous=False)[known <= now_ms]


def _monitored(db: Database, strategy: str) -> str:
    """The sentence of the daily look at the champion, where this database has one."""
    if not db.value("SELECT 1 FROM sqlite_schema WHERE name = 'monitor_figures'"):
        return ""
    text = db.value("SELECT figures FROM monitor_figures WHERE strategy_id = ?", (strategy,))
    return str(json.loads(text).get("time_to_proof_sentence") or "") if text else ""
