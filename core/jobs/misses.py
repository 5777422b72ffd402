"""The nearest misses: of each test, the setup that it kept back and that came closest to passing.

Refusals are stored as counts only. Their figures are found by deciding the stored bars of the asked
days again: that is pure reading, takes milliseconds a week and series, needs no table that grows
with every refusal, and answers for bars that were scanned long before anybody asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from core import signals
from core.app import App
from core.domain import Gate, Series
from core.gating import Facts, Limit, limit_of
from core.jobs.causality import when
from core.jobs.judge import Judge
from core.jobs.scan import scan_input
from core.plans import NOISE_SPANS, REFUSALS
from core.risk import MAINTENANCE_FRAC
from core.signals import rejections_of
from core.timeframe import floor_ms, tf_ms

_SETTINGS = {  # of the guards that a number sets
    "cooldown": "cooldown_minutes",
    "max_open": "max_open",
    "max_open_per_side": "max_open_per_side",
    "stop_streak": "max_consecutive_stops",
    "drawdown": "max_drawdown_r",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """A setup that one test kept back.

    `short` is how far it fell short, as a share of what was wanted; None where a guard or the picks
    held back what had passed: then `rank`, which is lower the better a row is, is its cost or EV.
    """

    test: str
    where: str
    says: str
    short: float | None
    rank: float

    def as_row(self) -> dict[str, Any]:
        """Return plain values."""
        short_pct = None if self.short is None else round(100 * self.short, 2)
        return {"test": self.test, "setup": self.where, "says": self.says, "short_pct": short_pct}


def nearest_misses(
    app: App, scanned: Iterable[tuple[str, str]], *, start_ms: int, now_ms: int
) -> list[dict[str, Any]]:
    """Return the nearest miss of each test since an instant, the nearest of all first.

    `scanned` are symbols and timeframes. Tests without a figure (a hole, a seam, a side that is
    forbidden) have none. Of the guards and the picks it is the row that they would have liked best.
    """
    judge, nearest = Judge.of(app), dict[str, Miss]()
    for symbol, timeframe in sorted(scanned):
        series = Series(app.config.exchange.id, symbol, timeframe)
        refused = _refused(app, series, start_ms, now_ms)
        for miss in (*refused, *_stored(app, judge, series, start_ms)):
            known = nearest.get(miss.test)
            if known is None or miss.rank < known.rank:
                nearest[miss.test] = miss
    order = sorted(nearest.values(), key=lambda miss: (miss.short is None, miss.rank))
    return [miss.as_row() for miss in order]


def _refused(app: App, series: Series, start_ms: int, now_ms: int) -> Iterator[Miss]:
    """Yield the refusals that have a figure, by deciding the bars again."""
    step = tf_ms(series.timeframe)
    end_ms = floor_ms(now_ms, step)
    n_bars = (end_ms - start_ms) // step
    if n_bars <= 0:
        return
    data = scan_input(app.db, app.config, series, n_bars=n_bars, known_ms=end_ms)
    found = signals.decided(data, app.config, first_ms=start_ms, last_ms=end_ms)
    for row, said in zip(found.refused, rejections_of(found, app.config), strict=True):
        short = _short_of(app, REFUSALS[row["refusal"]], row)
        if short is not None:
            where = _where(series, said.setup.value, said.side.direction, said.ts_ms)
            test = f"refused: {said.reason}"
            yield Miss(test=test, where=where, says=said.detail, short=short, rank=short)


def _short_of(app: App, reason: str, row: Any) -> float | None:
    """Return how far a refused row falls short, as a share of what is wanted."""
    figure, config = float(row["figure"]), app.config
    if reason == "tp_net":
        wanted_pct = config.signals.min_tp_net_pct
        return (wanted_pct - figure) / max(wanted_pct, 1.0)
    if reason == "noise":
        return 1 - figure / NOISE_SPANS
    if reason == "entry_passed":  # in units of the risk
        return float(abs(row["close"] - row["entry"]) / abs(row["entry"] - row["stop"]))
    if reason == "size":
        room_pct = 100 * (1 - MAINTENANCE_FRAC) - config.risk.liquidation_buffer_pct
        return figure / room_pct - 1
    return None


def _stored(app: App, judge: Judge, series: Series, start_ms: int) -> Iterator[Miss]:
    """Yield what gate, picks and guards kept back."""
    for row in app.db.dicts(
        "SELECT symbol, timeframe, setup, direction, ts_ms, regime, cost_r, ml_p, ev_pct,"
        " ev_lo_pct, gate, gate_reason, delivery_reason FROM signals WHERE exchange = ?"
        " AND symbol = ? AND timeframe = ? AND strategy_id = ? AND ts_ms >= ? AND scan_stride = 1"
        " AND (gate <> 'PASS' OR delivery NOT IN ('LIVE', 'PAPER'))",
        (*series, app.strategy, start_ms),
    ):
        where = _where(series, row["setup"], row["direction"], row["ts_ms"])
        if row["gate"] != Gate.PASS:
            says, short = _rejection(app, judge, row)
            test = f"rejected: {row['gate_reason']}"
            yield Miss(test=test, where=where, says=says, short=short, rank=short)
        else:
            says, rank = _held(app, row)
            test = f"held: {row['delivery_reason']}"
            yield Miss(test=test, where=where, says=says, short=None, rank=rank)


def _rejection(app: App, judge: Judge, row: dict[str, Any]) -> tuple[str, float]:
    """Say what the gate wanted of a row, under the limits now in force."""
    if row["gate_reason"] == "cost":
        wanted_r = app.config.signals.max_cost_r
        says = f"costs {row['cost_r']:.4f} R, wants at most {wanted_r:.4f} R"
        return says, (row["cost_r"] - wanted_r) / max(wanted_r, 1e-9)
    limit = _limit(app, judge, row)
    if limit.mode == "ev":
        says = f"EV low end {row['ev_lo_pct']:.2f} %, wants {limit.value:.2f} % ({limit.where})"
        return says, (limit.value - row["ev_lo_pct"]) / max(abs(limit.value), 1.0)
    says = f"p {row['ml_p']:.3f}, wants {limit.value:.3f} ({limit.where})"
    return says, (limit.value - row["ml_p"]) / max(limit.value, 1e-9)


def _limit(app: App, judge: Judge, row: dict[str, Any]) -> Limit:
    names = ("symbol", "timeframe", "regime", "cost_r")
    bundle = judge.bundle
    return limit_of(
        app.config.models.meta.gating,
        Facts(**{name: row[name] for name in names}),
        bundle=None if bundle is None else bundle.id,
        certificates={} if bundle is None else bundle.certificates,
    )


def _held(app: App, row: dict[str, Any]) -> tuple[str, float]:
    """Say what a row that passed and was not told is worth, and its rank: by EV, else by cost."""
    is_valued = row["ev_lo_pct"] is not None
    says = _value(row) if is_valued else f"costs {row['cost_r']:.4f} R"
    setting = _SETTINGS.get(row["delivery_reason"])
    if setting is not None:
        says += f"; guards.{setting} is {getattr(app.config.guards, setting)}"
    return says, -row["ev_lo_pct"] if is_valued else row["cost_r"]


def _value(row: dict[str, Any]) -> str:
    return f"EV {row['ev_pct']:.2f} %, low end {row['ev_lo_pct']:.2f} %"


def _where(series: Series, setup: str, direction: str, ts_ms: int) -> str:
    return f"{series.symbol} {series.timeframe} {setup} {direction} {when(ts_ms)}"
