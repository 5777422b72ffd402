"""Rows, records and standings written by hand, and every message about one row."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

from core import messages
from core.config import Execution
from core.messages import GREEN, Day, Look, PriceNow, Record, Standing, answers, plain
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS

DECIDED = 1_700_000_100_000 // MINUTE_MS * MINUTE_MS  # 2023-11-14 22:15 UTC
BERLIN = ZoneInfo("Europe/Berlin")
LOOK = Look(zone=BERLIN, decimals=1)
NOW = PriceNow(64210.0, DECIDED)


WHY = {
    "for": [
        ["higher1_ema_distance_atr", 1.31, 0.42],
        ["pullback_volume_ratio", 2.2, 0.2],
        ["avwap_close_atr", -0.4, 0.1],
    ],
    "against": [["cost_r", 0.081, -0.21], ["hour", 3.0, -0.1]],
    "band": {
        "n": 412,
        "n_eff": 120.3,
        "win_rate": 0.58,
        "win_rate_lo": 0.5,
        "win_rate_hi": 0.65,
        "mean_r": 0.12,
        "mean_r_lo": -0.02,
        "mean_r_hi": 0.25,
    },
    "data_until_ms": DECIDED - 9 * DAY_MS,
}


def row(**changes: Any) -> dict[str, Any]:
    """A certified long on BTC: 600 at risk, targets 1.5 and 2.5 R away."""
    values: dict[str, Any] = {
        "id": 123,
        "exchange": "bitget",
        "symbol": "BTC/USDT:USDT",
        "timeframe": "15m",
        "setup": "limit",
        "direction": "long",
        "ts_ms": DECIDED - 15 * MINUTE_MS,
        "decided_ms": DECIDED,
        "entry": 64000.0,
        "sl": 63400.0,
        "tp1": 64900.0,
        "tp2": 65500.0,
        "atr": 410.25,
        "leverage": 2.0,
        "risk_pct": 1.0,
        "position_notional": 10666.67,
        "liquidation": 32320.0,
        "cost_r": 0.081,
        "actionable_ms": DECIDED + 2 * 60_000,
        "valid_until_ms": DECIDED + 6 * HOUR_MS,
        "rationale": "Impulse of 5.2 ATR, entry at the 0.618 retracement above the AVWAP",
        "ml_p": 0.61,
        "p_lo": 0.55,
        "p_hi": 0.67,
        "p_mart": 0.4,
        "ev_pct": 0.42,
        "ev_lo_pct": 0.1,
        "ev_r": 0.45,
        "ml_model": "20231105-0300-3f9a2c",
        "why": json.dumps(WHY),
        "gate": "PASS",
        "gate_reason": "ev",
        "evidence": "CERTIFIED",
        "delivery": "LIVE",
        "delivery_reason": "certified",
        "status": "PENDING",
        "opened_ts_ms": DECIDED + 3 * MINUTE_MS,
        "closed_ts_ms": DECIDED + 193 * MINUTE_MS,
        "exit_price": 63400.0,
        "exit_reason": "stop",
        "tp1_hit": 0,
        "tp1_ts_ms": DECIDED + 33 * MINUTE_MS,
        "pnl_pct": -1.02,
        "r_multiple": -1.09,
        "ambiguous": 0,
        "stop_now": 63400.0,
    }
    return values | changes


def record(**changes: Any) -> Record:
    """31 told trades, 28 of them old enough to count."""
    values: dict[str, Any] = {
        "title": "LIVE",
        "n_closed": 31,
        "total_r": -1.2,
        "n": 28,
        "n_eff": 20.4,
        "win_rate": 0.45,
        "win_rate_lo": 0.29,
        "win_rate_hi": 0.62,
        "p_mart": 0.41,
        "mean_r": -0.04,
        "mean_r_lo": -0.31,
        "mean_r_hi": 0.24,
        "promised_r": 0.18,
        "run": 0,
    }
    return Record(**values | changes)


def standing(**changes: Any) -> Standing:
    """A market in order and nothing proven."""
    values: dict[str, Any] = {
        "state": "UNCERTIFIED",
        "reason": "No proven edge: no limit of the present model could be certified.",
        "data_age_ms": 61_000,
        "n_pending": 2,
        "n_open": 1,
    }
    return Standing(**values | changes)


def digest_of(one: dict[str, Any], look: Look = LOOK) -> str:
    """A digest of one found row and one closed trade."""
    day = Day(
        start_ms=DECIDED - HOUR_MS,
        end_ms=DECIDED + DAY_MS,
        found=[one],
        ended=[one],
        records=[record()],
    )
    return messages.digest(day, look, standing=standing(reason=str(one["gate_reason"])))


def call(one: dict[str, Any], look: Look = LOOK, **more: Any) -> str:
    """The new signal of a row."""
    return messages.new_signal(one, look, execution=Execution(), **more)


def of_all(one: dict[str, Any], *, banner: str = "", decimals: int = 1) -> dict[str, str]:
    """Every message about one row."""
    look = Look(zone=BERLIN, decimals=decimals, banner=banner)
    simple: tuple[Callable[[dict[str, Any], Look], str], ...] = (
        messages.filled,
        messages.stop_moved,
        messages.expired,
        messages.cancelled,
        messages.too_late,
        answers.signal,
    )
    texts = {make.__name__: make(one, look) for make in simple}
    texts["new_signal"] = call(one, look, now=NOW, latest=64_500.0)
    texts["tp1"] = messages.tp1(one, look, execution=Execution())
    texts["closed"] = messages.closed(one, look, record=record(run=9))
    texts["signals"] = answers.signals([(one, look, NOW)] * 2, look)
    return texts | {"digest": digest_of(one, look)}


def lines_of(text: str) -> list[str]:
    """What is visible, line by line."""
    return plain(text).split("\n")


def width(line: str) -> int:
    """Columns on a phone: the green mark takes two."""
    return len(line) + line.count(GREEN)
