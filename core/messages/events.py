"""What became of a signal: filled, TP1, stop moved, closed, expired, cancelled."""

from __future__ import annotations

import json
from typing import Any

from core.config import Execution
from core.messages.call import after_tp1
from core.messages.phone import (
    Look,
    Row,
    clean,
    code,
    distance,
    event,
    in_r,
    is_live,
    percent,
    span,
    when,
    wrapped,
)
from core.messages.record import Record, promise_lines, record_lines, streak_lines

_EXITS = {
    "stop": "stop",
    "breakeven": "stop at entry",
    "trail": "trailed stop",
    "target": "TP2",
    "timeout": "held too long",
    "liquidation": "liquidation",
    "expired": "never filled",
    "tp1_before_fill": "TP1 traded before the fill",
    "moved_before_you": "price left before you could act",
}


def filled(row: Row, look: Look, *, price: float | None = None) -> str:
    """Return the news that the entry filled, at `price` where it differs from the plan's."""
    paid = row["entry"] if price is None else price
    lines = [f"Entry {code(paid, look.decimals)}"]
    if abs(paid - row["entry"]) > 0.5 * 10.0**-look.decimals:
        lines.append(f"planned {code(row['entry'], look.decimals)}")
    stop = row["stop_now"] or row["sl"]
    lines += [
        f"Stop {code(stop, look.decimals)} {distance(row, stop)}",
        f"TP1 {code(row['tp1'], look.decimals)} {distance(row, row['tp1'])}",
        f"At {when(row['opened_ts_ms'], look.zone)}",
    ]
    return event("FILLED", row, lines, look)


def tp1(row: Row, look: Look, *, execution: Execution) -> str:
    """Return the news that TP1 was reached, and what to do now."""
    at_ms = row.get("tp1_ts_ms")
    lines = [f"TP1 {code(row['tp1'], look.decimals)} {distance(row, row['tp1'])}"]
    lines += [f"At {when(at_ms, look.zone)}"] if at_ms else []
    lines += ["", f"<b>Now close {100 * execution.tp1_fraction:.0f} %</b>"]
    if execution.be_on_tp1:
        lines.append(f"<b>Stop to entry</b> {code(row['entry'], look.decimals)}")
    lines += after_tp1(row, look, execution)[1:]
    lines.append(f"Rest to TP2 {code(row['tp2'], look.decimals)}")
    return event("TP1", row, lines, look)


def stop_moved(row: Row, look: Look) -> str:
    """Return where the stop belongs now; the row's `stop_now` is the new one."""
    stop = row["stop_now"]
    lines = [f"Stop now {code(stop, look.decimals)} {distance(row, stop)}"]
    return event("MOVE STOP", row, lines, look)


def closed(row: Row, look: Look, *, record: Record | None = None) -> str:
    """Return how a trade ended: net result, exit, path, the promise, and the record so far."""
    lines = [
        f"<b>Net {in_r(row['r_multiple'])}, {row['pnl_pct']:+.2f} %</b>",
        f"Exit {code(row['exit_price'], look.decimals)}",
        *wrapped(f"by {_exit_word(row)}"),
        f"At {when(row['closed_ts_ms'], look.zone)}",
        "",
        *_path(row),
        *_promised(row),
    ]
    if row.get("ambiguous"):
        lines += wrapped("One minute could be read two ways; the worse one counts.")
    if record is not None:
        lines += ["", *record_lines(record), *promise_lines(record), *streak_lines(record)]
    return event("CLOSED", row, lines, look)


def expired(row: Row, look: Look) -> str:
    """Return that the entry was never filled."""
    lines = [
        f"Entry {code(row['entry'], look.decimals)} never filled",
        f"by {when(row['valid_until_ms'], look.zone)}",
        *_cancel_order(row),
    ]
    return event("EXPIRED", row, lines, look)


def cancelled(row: Row, look: Look) -> str:
    """Return that the plan was void before it filled, and why."""
    lines = [
        f"Entry {code(row['entry'], look.decimals)} is void:",
        *wrapped(_exit_word(row)),
        f"At {when(row['closed_ts_ms'], look.zone)}",
        *_cancel_order(row),
    ]
    return event("CANCELLED", row, lines, look)


def _cancel_order(row: Row) -> list[str]:
    """Only who was told to place an order is told to take it back."""
    return ["<b>Cancel the order.</b>"] if is_live(row) else []


def _exit_word(row: Row) -> str:
    reason = str(row["exit_reason"] or row["status"])
    return _EXITS.get(reason) or clean(reason.replace("_", " "), 60)


def _path(row: Row) -> list[str]:
    """The way in words: how long it took, whether TP1 was met, how far it ran either way."""
    held = span(row["closed_ts_ms"] - row["opened_ts_ms"])
    steps = []
    if row["tp1_hit"]:
        after = row.get("tp1_ts_ms")
        wait = f" after {span(after - row['opened_ts_ms'])}" if after else ""
        steps.append(f"TP1{wait}")
    steps.append(f"out after {held}")
    words = f"Filled, {', '.join(steps)}."
    state: dict[str, Any] = json.loads(row.get("exec_state") or "{}")
    best, worst = state.get("mfe_r"), state.get("mae_r")
    if best is not None and worst is not None:
        words += f" On the way {best + 0.0:+.2f} R at best, {-worst:+.2f} R at worst."
    return wrapped(words)


def _promised(row: Row) -> list[str]:
    """What was said of this one at the decision; one trade keeps or breaks no promise."""
    if row.get("ev_r") is None or row["ml_p"] is None:
        return []
    return [
        f"Promised {in_r(row['ev_r'])} at {percent(row['ml_p'])} to win,",
        f"coin flip {percent(row['p_mart'])}",
    ]
