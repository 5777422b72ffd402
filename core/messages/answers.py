"""Answers to what the owner asks by message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from core.domain import Delivery, Status
from core.messages.call import PriceNow, band_lines, reason_lines, why_of
from core.messages.digest import Standing, standing_lines
from core.messages.phone import (
    Look,
    Row,
    clean,
    code,
    distance,
    escaped,
    in_r,
    label,
    message,
    pair,
    percent,
    side_of,
    span,
    when,
    wrapped,
)
from core.messages.record import Record, promise_lines, record_lines, streak_lines
from core.timeframe import MINUTE_MS

_COMMANDS = (
    ("/status", "how things stand"),
    ("/signals", "what is open and waiting"),
    ("/signal ID", "one signal in full"),
    ("/why SYMBOL", "why there is no signal"),
    ("/performance", "the record so far"),
    ("/pause", "no new signals; open ones go on"),
    ("/resume", "signals again"),
)


def helped(look: Look, *, unknown: str = "") -> str:
    """Return the commands; `unknown` is what was not understood."""
    head = wrapped(f"I do not know {clean(unknown, 40)}.") if unknown else []
    lines = [line for name, what in _COMMANDS for line in (f"<b>{name}</b>", f"  {what}")]
    return message([*head, *lines], look)


def sentence(look: Look, text: str) -> str:
    """Return one sentence as an answer."""
    return message(wrapped(clean(text, 300)), look)


def status(standing: Standing, look: Look, *, extra: Sequence[str] = ()) -> str:
    """Return how things stand; `extra` are further sentences."""
    more = [line for sentence in extra for line in wrapped(clean(sentence, 200))]
    return message(["<b>STATUS</b>", *standing_lines(standing, look), "", *more], look)


def working_up(steps: Sequence[Row]) -> list[str]:
    """Return how far a new database is worked up: a sentence for each step that is begun or stuck.

    >>> working_up([{"step": "1 backfill", "state": "running", "done": 3, "total": 8,
    ...              "eta_s": 700, "detail": ""}])
    ['Working up: backfill running 37 %, about 12 min left']
    >>> working_up([{"step": "3 train", "state": "waiting", "done": 0, "total": 0, "eta_s": None,
    ...              "detail": "12 of 50"}, {"step": "4 calibrate", "state": "done", "detail": ""}])
    ['Working up: train waiting: 12 of 50']
    """
    return [
        f"Working up: {step['step'][2:]} {step['state']}{_share(step)}{_time_left(step)}"
        + (f": {step['detail']}" if step["detail"] else "")
        for step in steps
        if step["state"] in ("running", "failed") or (step["state"] == "waiting" and step["detail"])
    ]


def _share(step: Row) -> str:
    return f" {100 * step['done'] // step['total']} %" if step["total"] else ""


def _time_left(step: Row) -> str:
    seconds = step["eta_s"]
    return (
        "" if seconds is None else f", about {span(MINUTE_MS * max(1, round(seconds / 60)))} left"
    )


def signals(
    rows: Sequence[tuple[Row, Look, PriceNow | None]], look: Look, *, n_more: int = 0
) -> str:
    """Return the signals that were told and have not ended, each with where it stands."""
    if not rows:
        return message(["Nothing is open, nothing waits."], look)
    lines: list[str] = []
    for row, own, now in rows:
        lines += ["", f"<b>{pair(row)}</b>", label(row), *_where(row, own, now)]
    lines += ["", f"and {n_more} more"] if n_more else []
    return message(lines, look)


def _where(row: Row, look: Look, now: PriceNow | None) -> list[str]:
    stop = row["stop_now"] or row["sl"]
    lines = [
        f"Entry {code(row['entry'], look.decimals)}",
        f"Stop {code(stop, look.decimals)} {distance(row, stop)}",
    ]
    if row["status"] == Status.OPEN and now is not None:
        lines.append(f"Now {code(now.price, look.decimals)} {distance(row, now.price)}")
    elif row["status"] == Status.PENDING:
        lines.append("waits for its entry until")
        lines.append(when(row["valid_until_ms"], look.zone))
    if row["tp1_hit"]:
        lines.append("TP1 is behind it")
    return lines


def signal(row: Row, look: Look, *, now: PriceNow | None = None) -> str:
    """Return one candidate in full, told or not."""
    levels = (
        ("Entry", row["entry"]),
        ("Stop", row["sl"]),
        ("TP1", row["tp1"]),
        ("TP2", row["tp2"]),
    )
    lines = [f"<b>{pair(row)}</b>", label(row), f"Decided {when(row['decided_ms'], look.zone)}", ""]
    lines += [
        f"{name} {code(price, look.decimals)}"
        + ("" if name == "Entry" else f" {distance(row, price)}")
        for name, price in levels
    ]
    if now is not None and row["status"] in (Status.PENDING, Status.OPEN):
        lines.append(f"Now {code(now.price, look.decimals)} {distance(row, now.price)}")
    lines += ["", f"<b>{escaped(row['status'], 14)}</b>{_result(row)}", *_verdict(row), ""]
    why = why_of(row)
    return message([*lines, *(band_lines(why) + reason_lines(why) if why else [])], look)


def _result(row: Row) -> str:
    return "" if row["r_multiple"] is None else f", net {in_r(row['r_multiple'])}"


def _verdict(row: Row) -> list[str]:
    """Gate, proof and delivery with their reasons, and the chance beside the coin flip."""
    chance = "" if row["ml_p"] is None else f"chance {percent(row['ml_p'])}, "
    gate = f"gate {row['gate']}: {row['gate_reason']}"
    told = f"{row['evidence']}, {row['delivery']}: {row['delivery_reason']}"
    return [
        f"{chance}coin flip {percent(row['p_mart'])}",
        *(line for text in (gate, told) for line in wrapped(clean(text.replace("_", " "), 120))),
    ]


def why(
    symbol: str,
    funnel: Mapping[str, int],
    last: Sequence[Row],
    look: Look,
    *,
    start_ms: int,
    waiting: Mapping[str, str],
) -> str:
    """Return where a symbol's setups since an instant stopped, and its newest candidates.

    `funnel` counts bars, setups and each reason that stopped one; `waiting` says of timeframes why
    they are not scanned.
    """
    lines = [f"<b>{escaped(symbol, 24)}</b>", f"since {when(start_ms, look.zone)}"]
    lines += [f"{escaped(name.replace('_', ' '), 26)}: {n}" for name, n in funnel.items()]
    if not funnel:
        lines.append("no bar was scanned")
    for name, reason in waiting.items():
        lines += wrapped(f"{clean(name, 6)} waits: {clean(reason, 80)}")
    for row in last:
        told = row["delivery"] in (Delivery.LIVE, Delivery.PAPER)
        reason = row["delivery_reason"] if row["gate"] == "PASS" else row["gate_reason"]
        title = f"#S{int(row['id'])} {escaped(row['timeframe'], 4)} {side_of(row).direction}"
        word = str(row["delivery"]) if told else clean(str(reason).replace("_", " "), 30)
        lines += ["", title, when(row["decided_ms"], look.zone), *wrapped(word)]
    return message(lines, look)


def performance(records: Sequence[Record], look: Look) -> str:
    """Return the record of what was told, and of every candidate followed."""
    lines = ["<b>PERFORMANCE</b>"]
    for record in records:
        lines += ["", *record_lines(record), *promise_lines(record), *streak_lines(record)]
    return message(lines, look)


def paused(look: Look, *, is_paused: bool, changed: bool) -> str:
    """Return that signals are held back, or told again; open ones are followed either way."""
    if is_paused:
        head = "<b>PAUSED</b>" if changed else "Paused already."
        text = "No new signal is told; open ones are followed and told. /resume ends it."
    else:
        head = "<b>RESUMED</b>" if changed else "It was not paused."
        text = "New signals are told again. What was found meanwhile is not sent later."
    return message([head, *wrapped(text)], look)
