"""Why there is, or is not, a signal: from bars to delivery, each step as a share of the one before.

Days are UTC days of the signal bars' opens; rows of strided or limited scans are left out, as
their bars were not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.app import App
from core.delivery import SENT
from core.domain import Gate
from core.jobs.causality import when
from core.jobs.explain import data_now_ms
from core.jobs.misses import nearest_misses
from core.timeframe import DAY_MS, floor_ms

DAYS = 7
GUARDS = (
    "locked",
    "same_group",
    "cooldown",
    "max_open",
    "max_open_per_side",
    "stop_streak",
    "drawdown",
)
Key = tuple[str, str, int]  # symbol, timeframe, day


@dataclass(slots=True)
class Tally:
    """The counts of some series and days; each `Counter` says by what a step was not passed."""

    bars: int = 0
    setups: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    passed: Counter[str] = field(default_factory=Counter)
    not_picked: Counter[str] = field(default_factory=Counter)
    guarded: Counter[str] = field(default_factory=Counter)
    delivered: Counter[str] = field(default_factory=Counter)

    def count_funnel(self, reason: str, n: int) -> None:
        """Add a row of the table `funnel`."""
        if reason == "bars":
            self.bars += n
        elif reason == "setups":
            self.setups += n
        else:
            self.refused[reason] += n

    def count_signals(self, row: dict[str, Any]) -> None:
        """Add some rows of `signals` that share gate, delivery and their reasons."""
        n, why = row["n"], row["delivery_reason"] or row["delivery"]
        if row["gate"] != Gate.PASS:
            self.rejected[row["gate_reason"]] += n
            return
        self.passed[row["gate_reason"]] += n
        if row["delivery"] in SENT:
            self.delivered[f"{row['delivery']} {why}"] += n
        elif why in GUARDS:
            self.guarded[why] += n
        else:
            self.not_picked[why] += n

    @property
    def levels(self) -> dict[str, int]:
        """How many reached each step."""
        passed = self.passed.total()
        return {
            "bars": self.bars,
            "setups": self.setups,
            "candidates": self.rejected.total() + passed,
            "passed": passed,
            "picked": passed - self.not_picked.total(),
            "delivered": self.delivered.total(),
        }

    def as_row(self) -> dict[str, Any]:
        """Return the levels side by side, each but the first with its share of the one before."""
        row: dict[str, Any] = {}
        before: int | None = None
        for name, n in self.levels.items():
            row[name] = n
            if before is not None:
                row[f"{name}_pct"] = share_pct(n, before)
            before = n
        return row

    def steps(self) -> list[dict[str, Any]]:
        """Return every step and refusal in order, each with its share of the level before it."""
        levels, rows = self.levels, list[dict[str, Any]]()
        losses = {
            "setups": ("refused", self.refused),
            "candidates": ("rejected", self.rejected),
            "passed": ("not picked", self.not_picked),
            "picked": ("guard", self.guarded),
            "delivered": ("delivered", self.delivered),
        }
        before = None
        for name, n in levels.items():
            rows.append({"step": name, "n": n, "of_before_pct": share_pct(n, before)})
            word, reasons = losses.get(name, ("", Counter()))
            rows += [
                {"step": f"{word}: {reason}", "n": k, "of_before_pct": share_pct(k, n)}
                for reason, k in reasons.most_common()
            ]
            before = n
        return rows


def share_pct(n: int, of: int | None) -> float | None:
    """Return n in percent of what came before; None where nothing did.

    >>> share_pct(1, 8), share_pct(0, 0), share_pct(3, None)
    (12.5, None, None)
    """
    return round(100 * n / of, 1) if of else None


def funnel(
    app: App,
    *,
    symbols: Sequence[str] = (),
    timeframes: Sequence[str] = (),
    days: int = DAYS,
) -> dict[str, Any]:
    """Return the funnel of today and the days before it: in all, by series, by day, and misses."""
    now_ms = data_now_ms(app)
    start_ms = floor_ms(now_ms - 1, DAY_MS) - (days - 1) * DAY_MS
    wanted = {
        "symbols": symbols or app.config.symbols,
        "timeframes": timeframes or app.config.timeframes,
    }
    cells = _cells(app, start_ms, **wanted)
    every = [
        (symbol, timeframe) for symbol in wanted["symbols"] for timeframe in wanted["timeframes"]
    ]
    days_ms = sorted({key[2] for key in cells}, reverse=True)
    by_series = [
        {
            "series": " ".join(name),
            **_sum(t for key, t in cells.items() if key[:2] == name).as_row(),
        }
        for name in every
    ]
    by_day = [
        {"day": when(ms)[:10], **_sum(t for key, t in cells.items() if key[2] == ms).as_row()}
        for ms in days_ms
    ]
    scanned = {key[:2] for key, tally in cells.items() if tally.bars}
    return {
        f"funnel, last {days} days": _sum(cells.values()).steps(),
        "by series": by_series,
        "by day": by_day,
        "nearest misses": nearest_misses(app, scanned, start_ms=start_ms, now_ms=now_ms),
    }


def _cells(
    app: App, start_ms: int, *, symbols: Iterable[str], timeframes: Iterable[str]
) -> dict[Key, Tally]:
    """Return the counts of each series and day."""
    where, cells = (app.config.exchange.id, app.strategy, start_ms), dict[Key, Tally]()
    names = {(symbol, timeframe) for symbol in symbols for timeframe in timeframes}

    def cell(row: dict[str, Any]) -> Tally:
        return cells.setdefault((row["symbol"], row["timeframe"], row["day_ms"]), Tally())

    for row in app.db.dicts(
        "SELECT symbol, timeframe, day_ms, reason, n FROM funnel"
        " WHERE exchange = ? AND strategy_id = ? AND day_ms >= ?",
        where,
    ):
        if (row["symbol"], row["timeframe"]) in names:
            cell(row).count_funnel(row["reason"], row["n"])
    for row in app.db.dicts(
        f"SELECT symbol, timeframe, ts_ms - ts_ms % {DAY_MS} AS day_ms, gate, gate_reason,"
        " delivery, delivery_reason, count(*) AS n FROM signals"
        " WHERE exchange = ? AND strategy_id = ? AND ts_ms >= ? AND scan_stride = 1"
        " GROUP BY 1, 2, 3, 4, 5, 6, 7",
        where,
    ):
        if (row["symbol"], row["timeframe"]) in names:
            cell(row).count_signals(row)
    return cells


def _sum(tallies: Iterable[Tally]) -> Tally:
    total = Tally()
    for tally in tallies:
        total.bars += tally.bars
        total.setups += tally.setups
        for name in ("refused", "rejected", "passed", "not_picked", "guarded", "delivered"):
            getattr(total, name).update(getattr(tally, name))
    return total
