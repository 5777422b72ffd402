"""One candidate's plan and worth in words: what to place, how likely it wins, who says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from core.domain import Delivery, Evidence, Gate
from core.views.gauge import price_r
from core.views.words import clock_text, price_text, span, utc_text

Row = Mapping[str, Any]


def is_live(row: Row) -> bool:
    """Say whether it was a signal: certified, passed and delivered LIVE."""
    return bool(
        row["delivery"] == Delivery.LIVE
        and row["evidence"] == Evidence.CERTIFIED
        and row["gate"] == Gate.PASS
    )


def kind_text(row: Row) -> str:
    """Return what it is to the owner, in the words of its messages."""
    if is_live(row):
        return "LIVE"
    if row["delivery"] in (Delivery.PAPER, Delivery.LIVE):
        return "PAPER · no proven edge"
    return f"NOT SENT · {row['delivery_reason'] or row['gate_reason'] or str(row['delivery'])}"


def headline(row: Row) -> str:
    """Return a candidate in one line."""
    result = "" if row["r_multiple"] is None else f", net {row['r_multiple']:+.2f} R"
    return (
        f"{row['direction'].upper()} {row['symbol']} {row['timeframe']} {row['setup']}"
        f" #{row['id']}: {row['status']}{result}"
    )


def plan_table(row: Row) -> pd.DataFrame:
    """Return entry, stop and targets, each with its distance in percent and R along the side."""
    levels = [("Entry", row["entry"]), ("Stop", row["sl"])]
    moved = row["stop_now"]
    if row["status"] == "OPEN" and moved is not None and moved != row["sl"]:
        levels.append(("Stop now", moved))
    levels += [("TP1", row["tp1"]), ("TP2", row["tp2"])]
    rows = []
    for name, price in levels:
        r = price_r(row, price)
        pct = 100 * r * abs(row["entry"] - row["sl"]) / row["entry"]
        far = ("", "") if name == "Entry" else (f"{pct:+.2f} %", f"{r:+.2f}")
        rows.append({"": name, "price": price_text(price), "%": far[0], "R": far[1]})
    return pd.DataFrame(rows)


def stake_text(row: Row) -> str:
    """Return size, leverage and liquidation; of all but a signal the recommended size is 0."""
    size = f"{row['position_notional']:,.0f} USD at {row['leverage']:g}x"
    risk = f"risk {row['risk_pct']:.2f} % of equity, liquidation {price_text(row['liquidation'])}"
    if is_live(row):
        return f"Size {size}, {risk}."
    return f"Recommended size 0. It would be {size}, {risk}."


def chance_text(row: Row) -> str:
    """Return the probability of a win with its interval, never without the coin flip's."""
    coin = f"coin flip {row['p_mart']:.0%}"
    if row["ml_p"] is None:
        return f"No model has judged it; {coin}."
    bounds = "no interval stored"
    if row["p_lo"] is not None and row["p_hi"] is not None:
        bounds = f"{row['p_lo']:.0%} to {row['p_hi']:.0%}"
    return f"{row['ml_p']:.0%} [{bounds}], {coin}."


def worth_text(row: Row) -> str:
    """Return the expected value after costs with its low end, and the cost."""
    cost = f"cost {row['cost_r']:.3f} R"
    if row["ev_r"] is None:
        return f"No expected value without a model; {cost}."
    low = "unknown" if row["ev_lo_r"] is None else f"{row['ev_lo_r']:+.2f} R"
    pct = "" if row["ev_pct"] is None else f" ({row['ev_pct']:+.2f} % of the size)"
    return f"{row['ev_r']:+.2f} R{pct}, low end {low}; {cost}, taken off."


def verdict_of(row: Row) -> str:
    """Return gate, evidence and delivery with their reasons, and what mars the row."""
    ambiguous = " The order inside a minute is unknown: the worst case counts." * bool(
        row["ambiguous"]
    )
    revised = " Its candles were revised later." * bool(row["data_revised"])
    return (
        f"Gate {row['gate']} ({row['gate_reason'] or 'no reason'}), {row['evidence']}, delivery"
        f" {row['delivery']} ({row['delivery_reason'] or 'no reason'}), {row['regime']},"
        f" {row['origin']}.{ambiguous}{revised}"
    )


def model_text(row: Row, why: Row) -> str:
    """Return which model spoke and how old its data were at the decision."""
    if not row["ml_model"]:
        return "No model."
    until = why.get("data_until_ms")
    age = "" if until is None else f", its data ended {span(row['decided_ms'] - until)} before"
    return f"Model {row['ml_model']}{age}."


def timeline(row: Row, zone: str) -> list[tuple[str, str, str]]:
    """Return what happened when: (what, the owner's time, UTC)."""
    instants = (
        ("decided", row["decided_ms"]),
        ("valid until", row["valid_until_ms"] if row["status"] == "PENDING" else None),
        ("filled", row["opened_ts_ms"]),
        ("TP1", row["tp1_ts_ms"]),
        (_end(row), row["closed_ts_ms"]),
    )
    return [(what, clock_text(ms, zone), utc_text(ms)) for what, ms in instants if ms]


def _end(row: Row) -> str:
    reason = str(row["exit_reason"] or "").replace("_", " ")
    return f"ended ({reason})" if reason else "ended"
