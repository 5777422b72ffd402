"""What the owner reads: every message as text for a phone, in Telegram's HTML.

Visible lines hold at most `WIDTH` characters. Rows are mappings with the columns of `signals`;
every value from outside is stripped of control characters, cut, and escaped. Only a certified
LIVE row is called SIGNAL and has the green mark.
"""

from __future__ import annotations

import html
import re
import textwrap
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from core.config import Execution
from core.domain import Delivery, Evidence, Gate, Side
from core.timeframe import HOUR_MS, MINUTE_MS

Row = Mapping[str, Any]

WIDTH = 38
GREEN = "\N{LARGE GREEN CIRCLE}"
NO_EDGE = "PAPER · no proven edge"
_TAG = re.compile(r"<[^<>]*>")
_RATIONALE_MAX = 220
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


def new_signal(
    row: Row,
    *,
    zone: tzinfo,
    decimals: int,
    execution: Execution,
    banner: str = "",
    link_template: str = "",
) -> str:
    """Return the call: the full plan, and beside it what is known of its worth.

    Anything but a certified LIVE row is a paper message: size 0, the would-be size beside it.
    `link_template` may hold {symbol} {base} {quote} {exchange} {timeframe}.
    """
    live = _is_live(row)
    word = f"{GREEN} <b>SIGNAL {_pair(row)}</b>" if live else f"<b>{NO_EDGE}</b>"
    lines = [word] if live else [word, f"<b>{_pair(row)}</b>"]
    lines += [_label(row), "", *_prices(row, decimals), ""]
    lines += _after_tp1(row, decimals, execution)
    lines += [f"Valid until {_when(row['valid_until_ms'], zone)}", *_size(row, decimals, live), ""]
    lines += [*_worth(row), *_wrapped(f"Why: {_clean(row['rationale'], _RATIONALE_MAX)}")]
    if link_template:
        lines.append(f'<a href="{_link(row, link_template)}">Chart</a>')
    return _message(lines, banner)


def filled(
    row: Row, *, zone: tzinfo, decimals: int, banner: str = "", price: float | None = None
) -> str:
    """Return the news that the entry filled, at `price` where it differs from the plan's."""
    paid = row["entry"] if price is None else price
    lines = [
        f"Entry {_code(paid, decimals)}",
        f"Stop {_code(row['stop_now'] or row['sl'], decimals)}",
        f"At {_when(row['opened_ts_ms'], zone)}",
    ]
    return _event("FILLED", row, lines, banner)


def tp1(row: Row, *, zone: tzinfo, decimals: int, execution: Execution, banner: str = "") -> str:
    """Return the news that TP1 was reached, and what to do now."""
    when = row.get("tp1_ts_ms")
    lines = [f"TP1 {_code(row['tp1'], decimals)} {_distance(row, row['tp1'])}"]
    lines += [f"At {_when(when, zone)}"] if when else []
    return _event("TP1", row, [*lines, "", *_after_tp1(row, decimals, execution)], banner)


def stop_moved(
    row: Row,
    *,
    zone: tzinfo,  # noqa: ARG001  (one signature for all events)
    decimals: int,
    banner: str = "",
) -> str:
    """Return where the stop belongs now."""
    stop = row["stop_now"]
    lines = [f"Stop now {_code(stop, decimals)} {_distance(row, stop)}"]
    return _event("MOVE STOP", row, lines, banner)


def closed(row: Row, *, zone: tzinfo, decimals: int, banner: str = "") -> str:
    """Return how a trade ended: net result, exit and path."""
    lines = [
        f"<b>Net {row['r_multiple']:+.2f} R, {row['pnl_pct']:+.2f} %</b>",
        *_wrapped(f"Exit by {_exit_word(row)}"),
        f"Price {_code(row['exit_price'], decimals)}",
        "",
        f"Filled {_when(row['opened_ts_ms'], zone)}",
    ]
    if row["tp1_hit"]:
        lines.append(f"TP1 {_when(row['tp1_ts_ms'], zone)}" if row.get("tp1_ts_ms") else "TP1 hit")
    lines.append(f"Out {_when(row['closed_ts_ms'], zone)}")
    lines.append(f"Held {_span(row['closed_ts_ms'] - row['opened_ts_ms'])}")
    if row.get("ambiguous"):
        lines += _wrapped("One minute could be read two ways; the worse one counts.")
    return _event("CLOSED", row, lines, banner)


def expired(row: Row, *, zone: tzinfo, decimals: int, banner: str = "") -> str:
    """Return that the entry was never filled."""
    lines = [
        f"Entry {_code(row['entry'], decimals)} never filled",
        f"by {_when(row['valid_until_ms'], zone)}",
        *_cancel_order(row),
    ]
    return _event("EXPIRED", row, lines, banner)


def cancelled(row: Row, *, zone: tzinfo, decimals: int, banner: str = "") -> str:
    """Return that the plan was void before it filled, and why."""
    lines = [
        f"Entry {_code(row['entry'], decimals)} is void:",
        *_wrapped(_exit_word(row)),
        f"At {_when(row['closed_ts_ms'], zone)}",
        *_cancel_order(row),
    ]
    return _event("CANCELLED", row, lines, banner)


def expired_meanwhile(row: Row, *, zone: tzinfo, banner: str = "") -> str:
    """Return what is said instead of a call that could not be delivered while it was valid."""
    lines = [
        f"Valid until {_when(row['valid_until_ms'], zone)}",
        *_wrapped("It could not be delivered in time. This is no call; there is nothing to do."),
    ]
    return _event("EXPIRED MEANWHILE", row, lines, banner)


def digest(
    rows: Sequence[Row],
    *,
    closed_rows: Sequence[Row],
    start_ms: int,
    end_ms: int,
    zone: tzinfo,
    banner: str = "",
    n_best: int = 3,
) -> str:
    """Return the day's summary: what was found, what was sent, what was best among the rest.

    `rows` were decided in [start_ms, end_ms); `closed_rows` are delivered trades closed in it.
    """
    n = Counter(str(row["delivery"]) for row in rows)
    passed = [row for row in rows if row["gate"] == Gate.PASS]
    lines = [
        "<b>DIGEST</b>",
        f"{_when(start_ms, zone)}",
        f"to {_when(end_ms, zone)}",
        "",
        f"Found {len(rows)}, passed the gate {len(passed)}",
        f"Live {n[Delivery.LIVE]}, paper {n[Delivery.PAPER]}",
        *_day_result(closed_rows),
    ]
    if not n[Delivery.LIVE] + n[Delivery.PAPER]:
        lines += ["", "Nothing qualified.", *_reasons(rows)]
    rest = sorted((row for row in passed if row["delivery"] == Delivery.DIGEST), key=_rank)
    if rest:
        lines += ["", f"Best of the {len(rest)} not sent:"]
        lines += [line for row in rest[:n_best] for line in _one_of_rest(row)]
    return _message(lines, banner)


def plain(text: str) -> str:
    """Return a message without its markup, for the console.

    >>> plain("<b>a &lt; b</b>")
    'a < b'
    """
    return html.unescape(_TAG.sub("", text))


def decimals_of(tick: float) -> int:
    """Return how many decimals a price on this tick needs.

    >>> decimals_of(0.25), decimals_of(1e-7), decimals_of(10.0)
    (2, 7, 0)
    """
    exponent = Decimal(repr(tick)).normalize().as_tuple().exponent
    return max(0, -int(exponent))


def _message(lines: Sequence[str], banner: str) -> str:
    head = [f"<b>{line}</b>" for line in _wrapped(_clean(banner, 120))]
    return "\n".join([*head, *lines]).strip()


def _event(word: str, row: Row, lines: Sequence[str], banner: str) -> str:
    title = f"<b>{word} {_pair(row)}</b>"
    if len(plain(title)) > WIDTH:
        title = f"<b>{word}</b>\n<b>{_pair(row)}</b>"
    return _message([title, _label(row), "", *lines], banner)


def _is_live(row: Row) -> bool:
    return bool(
        row["delivery"] == Delivery.LIVE
        and row["evidence"] == Evidence.CERTIFIED
        and row["gate"] == Gate.PASS
    )


def _clean(value: Any, most: int) -> str:
    """Return foreign text as one line without control characters, cut; not yet escaped."""
    text = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in str(value)[: 8 * most])
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _escaped(value: Any, most: int) -> str:
    return html.escape(_clean(value, most), quote=False)


def _wrapped(text: str) -> list[str]:
    return [html.escape(line, quote=False) for line in textwrap.wrap(text, WIDTH)]


def _side(row: Row) -> Side:
    return Side.of(str(row["direction"]))


def _pair(row: Row) -> str:
    return f"{_side(row).name} {_escaped(row['symbol'], 22)}"


def _label(row: Row) -> str:
    kind = "LIVE" if _is_live(row) else "PAPER"
    setup = f"{_escaped(row['timeframe'], 4)} {_escaped(row['setup'], 8)}"
    return f"#S{int(row['id'])} · {setup} · {kind}"


def _code(price: float, decimals: int) -> str:
    return f"<code>{price:.{decimals}f}</code>"


def _when(instant_ms: int, zone: tzinfo) -> str:
    return f"{datetime.fromtimestamp(instant_ms / 1000, tz=zone):%Y-%m-%d %H:%M %Z}"


def _span(length_ms: int) -> str:
    hours, rest_ms = divmod(length_ms, HOUR_MS)
    return f"{hours} h {rest_ms // MINUTE_MS} min" if hours else f"{rest_ms // MINUTE_MS} min"


def _distance(row: Row, price: float) -> str:
    """A price as percent of the entry and in R, along the side."""
    move = _side(row) * (price - row["entry"])
    move_r = move / abs(row["entry"] - row["sl"])
    return f"{100 * move / row['entry'] + 0.0:+.2f}% {move_r + 0.0:+.2f}R"


def _cancel_order(row: Row) -> list[str]:
    """Only who was told to place an order is told to take it back."""
    return ["Cancel the order."] if _is_live(row) else []


def _prices(row: Row, decimals: int) -> list[str]:
    levels = (("Stop", row["sl"]), ("TP1", row["tp1"]), ("TP2", row["tp2"]))
    return [
        f"Entry {_code(row['entry'], decimals)} (limit order)",
        *(f"{name} {_code(price, decimals)} {_distance(row, price)}" for name, price in levels),
    ]


def _after_tp1(row: Row, decimals: int, execution: Execution) -> list[str]:
    steps = [f"close {100 * execution.tp1_fraction:.0f} %"]
    steps += ["stop to entry"] if execution.be_on_tp1 else []
    lines = _wrapped(f"At TP1: {', '.join(steps)}.")
    if execution.trail_atr_mult:
        lines.append(
            f"Then trail the stop by {_code(execution.trail_atr_mult * row['atr'], decimals)}"
        )
    return lines


def _size(row: Row, decimals: int, live: bool) -> list[str]:
    usd = f"{row['position_notional']:,.0f} USD"
    size = f"Size {usd}" if live else f"Size 0 (would be {usd})"
    liquidation = _code(row["liquidation"], decimals) if row["liquidation"] else "none"
    return [
        f"Risk {row['risk_pct']:.2f} % of equity",
        size,
        f"Leverage {row['leverage']:g}x",
        f"Liquidation {liquidation}",
    ]


def _worth(row: Row) -> list[str]:
    flip = f"coin flip {100 * row['p_mart']:.0f} %"
    if row["ml_p"] is None:
        lines = ["Not scored: no model", f"Chance to win: {flip}"]
    else:
        lines = [f"Chance to win {100 * row['ml_p']:.0f} %, {flip}"]
    if row["ev_pct"] is not None:
        lines.append(f"EV {row['ev_pct']:+.2f} %, low end {row['ev_lo_pct']:+.2f} %")
    return [*lines, f"Cost {row['cost_r']:.3f} R"]


def _link(row: Row, template: str) -> str:
    base, _, rest = str(row["symbol"]).partition("/")
    values = {
        "symbol": row["symbol"],
        "base": base,
        "quote": rest.partition(":")[0],
        "exchange": row["exchange"],
        "timeframe": row["timeframe"],
    }
    for name, value in values.items():
        template = template.replace(f"{{{name}}}", quote(str(value), safe=""))
    return html.escape(template)


def _exit_word(row: Row) -> str:
    reason = str(row["exit_reason"] or row["status"])
    return _EXITS.get(reason, _clean(reason.replace("_", " "), 60))


def _day_result(rows: Sequence[Row]) -> list[str]:
    lines = []
    for kind in (Delivery.LIVE, Delivery.PAPER):
        results = [r["r_multiple"] for r in rows if r["delivery"] == kind]
        results = [r for r in results if r is not None]
        if results:
            lines.append(f"Closed {kind.lower()}: net {sum(results):+.2f} R (n={len(results)})")
    return lines


def _reasons(rows: Sequence[Row]) -> list[str]:
    counts = Counter(
        str(row["delivery_reason"] if row["gate"] == Gate.PASS else row["gate_reason"])
        for row in rows
    )
    return [f"{_escaped(reason.replace('_', ' '), 28)}: {n}" for reason, n in counts.most_common(5)]


def _rank(row: Row) -> tuple[bool, float]:
    low = row["ev_lo_pct"]
    return (low is None, row["cost_r"] if low is None else -low)


def _one_of_rest(row: Row) -> list[str]:
    low = row["ev_lo_pct"]
    worth = f"cost {row['cost_r']:.3f} R" if low is None else f"EV low end {low:+.2f} %"
    reason = _escaped(str(row["delivery_reason"]).replace("_", " "), 16)
    name = f"#S{int(row['id'])} {_escaped(row['symbol'], 18)}"
    return [
        f"{name} {row['timeframe']} {_side(row).direction}",
        f"  {worth}, {reason}",
    ]
