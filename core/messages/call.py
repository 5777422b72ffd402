"""The call: a new signal with its plan, and beside it what is known of its worth."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from core import reasons
from core.config import Execution
from core.messages.phone import (
    GREEN,
    WIDTH,
    Look,
    Row,
    bullet,
    clean,
    clock,
    code,
    distance,
    event,
    in_r,
    is_live,
    label,
    message,
    pair,
    percent,
    percent_range,
    plain,
    r_range,
    side_of,
    when,
    wrapped,
)
from core.timeframe import DAY_MS

NO_EDGE = "PAPER · no proven edge"
_RATIONALE_MAX = 220
_REASON_MAX = 72


class PriceNow(NamedTuple):
    """The newest close known when a message is written, and the instant it is known since."""

    price: float
    at_ms: int


def new_signal(
    row: Row,
    look: Look,
    *,
    execution: Execution,
    now: PriceNow | None = None,
    latest: float | None = None,
    link_template: str = "",
) -> str:
    """Return the call: the full plan, and beside it what is known of its worth.

    Anything but a certified LIVE row is a paper message: size 0, the would-be size beside it.
    `latest` is the last price still worth entering at, on the tick. `link_template` may hold
    {symbol} {base} {quote} {exchange} {timeframe}.
    """
    live = is_live(row)
    lines = [*_title(row, live), label(row), "", *_entry(row, look, now, latest)]
    lines += [*_levels(row, look), ""]
    lines += [*after_tp1(row, look, execution), ""]
    lines += [f"Valid until {when(row['valid_until_ms'], look.zone)}", *_size(row, look, live), ""]
    lines += [*_worth(row), "", *_why(row), ""]
    lines += wrapped(f"Setup: {clean(row['rationale'], _RATIONALE_MAX)}")
    if link_template:
        lines.append(f'<a href="{_link(row, link_template)}">Chart</a>')
    return message(lines, look)


def _title(row: Row, live: bool) -> list[str]:
    if not live:
        return [f"<b>{NO_EDGE}</b>", f"<b>{pair(row)}</b>"]
    title = f"{GREEN} <b>SIGNAL {pair(row)}</b>"
    if len(plain(title)) < WIDTH:  # the mark takes two columns
        return [title]
    return [f"{GREEN} <b>SIGNAL</b>", f"<b>{pair(row)}</b>"]


def too_late(row: Row, look: Look) -> str:
    """Return what is said instead of a call that could not be delivered in time to act on."""
    lines = [
        f"Was to be told by {when(row['actionable_ms'], look.zone)}",
        *wrapped(
            "It could not be delivered in time. This is no call; there is nothing to do."
            " It is followed in the books, as late."
        ),
    ]
    return event("TOO LATE", row, lines, look)


def after_tp1(row: Row, look: Look, execution: Execution) -> list[str]:
    """Return what is to be done at TP1 and after it."""
    steps = [f"close {100 * execution.tp1_fraction:.0f} %"]
    steps += ["stop to entry"] if execution.be_on_tp1 else []
    lines = wrapped(f"At TP1: {', '.join(steps)}.")
    if execution.trail_atr_mult:
        trail = code(execution.trail_atr_mult * row["atr"], look.decimals)
        lines.append(f"Then trail the stop by {trail}")
    return lines


def _entry(row: Row, look: Look, now: PriceNow | None, latest: float | None) -> list[str]:
    """The order, the price now, and how far it may run away before it is too late."""
    lines = [f"Entry {code(row['entry'], look.decimals)} (limit order)"]
    if now is not None:
        away = 100 * (now.price / row["entry"] - 1)
        lines.append(
            f"Now {code(now.price, look.decimals)} at {clock(now.at_ms, look.zone)}, {away:+.2f}%"
        )
    side = side_of(row)
    if latest is not None and side * latest > side * row["entry"]:
        word = "above" if side > 0 else "below"
        lines.append(f"No entry {word} {code(latest, look.decimals)}")
    elif latest is not None:
        lines.append("Enter at this price or better only")
    return lines


def _levels(row: Row, look: Look) -> list[str]:
    levels = (("Stop", row["sl"]), ("TP1", row["tp1"]), ("TP2", row["tp2"]))
    return [f"{name} {code(price, look.decimals)} {distance(row, price)}" for name, price in levels]


def _size(row: Row, look: Look, live: bool) -> list[str]:
    stop_frac = abs(row["entry"] - row["sl"]) / row["entry"]
    risk = f"{row['risk_pct']:.2f} % = {row['position_notional'] * stop_frac:,.0f} USD"
    usd = f"{row['position_notional']:,.0f} USD"
    liquidation = code(row["liquidation"], look.decimals) if row["liquidation"] else "none"
    return [
        f"Risk {risk}" if live else f"Risk 0 (would be {risk})",
        f"Size {usd}" if live else f"Size 0 (would be {usd})",
        f"Leverage {row['leverage']:g}x",
        f"Liquidation {liquidation}",
    ]


def _worth(row: Row) -> list[str]:
    flip = f"Coin flip {percent(row['p_mart'])}"
    if row["ml_p"] is None:
        lines = ["Not scored: no model", flip]
    else:
        low, high = row.get("p_lo"), row.get("p_hi")
        known = "" if low is None or high is None else percent_range(low, high)
        lines = [f"Chance to win {percent(row['ml_p'])}{known}", flip]
    if row["ev_pct"] is not None:
        lines.append(f"EV {row['ev_pct']:+.2f} %, low end {row['ev_lo_pct']:+.2f} %")
    return [*lines, f"Cost {row['cost_r']:.3f} R"]


def why_of(row: Row) -> dict[str, Any]:
    """Return what a row's score rests on, as `schema` describes it; {} without a score."""
    return dict(json.loads(row.get("why") or "{}"))


def _why(row: Row) -> list[str]:
    """The out-of-sample record of such scores, the reasons, and how old the model is."""
    why = why_of(row)
    if not why:
        return []
    return [*band_lines(why), *reason_lines(why), *_model(row, why)]


def band_lines(why: Mapping[str, Any]) -> list[str]:
    """Return the out-of-sample record of scores like this one."""
    band = why.get("band")
    if not band:
        return wrapped("Such scores have no out-of-sample record yet.")
    rate = percent(band["win_rate"]) + percent_range(band["win_rate_lo"], band["win_rate_hi"])
    return [
        "Scores like this, out of sample:",
        f"{band['n']} trades (n_eff {band['n_eff']:.0f})",
        f"won {rate}",
        f"net {in_r(band['mean_r'])}{r_range(band['mean_r_lo'], band['mean_r_hi'])}",
    ]


def reason_lines(why: Mapping[str, Any]) -> list[str]:
    """Return what speaks for and against a candidate, strongest first."""
    lines: list[str] = []
    for title, name in (("<b>For</b>", "for"), ("<b>Against</b>", "against")):
        found = [
            clean(reasons.words(str(feature), value), _REASON_MAX)
            for feature, value, *_ in why.get(name, ())
        ]
        if found:
            lines += [title, *(line for text in found for line in bullet(text))]
    return lines


def _model(row: Row, why: Mapping[str, Any]) -> list[str]:
    if not row.get("ml_model"):
        return []
    age_ms = max(0, int(row["decided_ms"]) - int(why["data_until_ms"]))
    return wrapped(f"Model {clean(row['ml_model'], 24)}, {age_ms // DAY_MS} days old")


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
