"""How words fit a phone: narrow lines, prices on the tick, local times, foreign text inert."""

from __future__ import annotations

import html
import math
import re
import textwrap
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from decimal import Decimal
from typing import Any

from core.domain import Delivery, Evidence, Gate, Side
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS

Row = Mapping[str, Any]

WIDTH = 38
GREEN = "\N{LARGE GREEN CIRCLE}"
_GLUE = "\0"  # stands for a space that must not end a line; `clean` lets none through
_BEFORE_UNIT = re.compile(
    r"(?<=\d) (?=(?:%|R|ATR|h|min|d|y)(?![a-z]))|(?<=\d [hdy]) (?=\d)|(?<=\d) (?=\d{3}\b)"
)
_TAG = re.compile(r"<[^<>]*>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a message is written: the owner's zone, decimals of a price, and what heads it."""

    zone: tzinfo
    decimals: int = 2
    banner: str = ""


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


def message(lines: Sequence[str], look: Look) -> str:
    """Return lines under the banner; several empty ones in a row become one."""
    head = [f"<b>{line}</b>" for line in wrapped(clean(look.banner, 120))]
    kept: list[str] = []
    for line in [*head, *lines]:
        if line or (kept and kept[-1]):
            kept.append(line)
    return "\n".join(kept).strip()


def event(word: str, row: Row, lines: Sequence[str], look: Look) -> str:
    """Return a message about one signal: what happened, whose it is, and the lines."""
    title = f"<b>{word} {pair(row)}</b>"
    if len(plain(title)) > WIDTH:
        title = f"<b>{word}</b>\n<b>{pair(row)}</b>"
    return message([title, label(row), "", *lines], look)


def is_live(row: Row) -> bool:
    """Whether a row is a call with a certificate: only then the word SIGNAL and the green mark."""
    return bool(
        row["delivery"] == Delivery.LIVE
        and row["evidence"] == Evidence.CERTIFIED
        and row["gate"] == Gate.PASS
    )


def clean(value: Any, most: int) -> str:
    """Return foreign text as one line without control characters, cut; not yet escaped."""
    text = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in str(value)[: 8 * most])
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def escaped(value: Any, most: int) -> str:
    """Return foreign text, cut and escaped."""
    return html.escape(clean(value, most), quote=False)


def wrapped(text: str) -> list[str]:
    """Return words as escaped lines that fit; a number keeps its unit beside it."""
    return _lines(text)


def bullet(text: str) -> list[str]:
    """Return an entry of a list, its further lines indented."""
    return _lines(text, first="· ", later="  ")


def _lines(text: str, *, first: str = "", later: str = "") -> list[str]:
    glued = _BEFORE_UNIT.sub(_GLUE, text)
    lines = textwrap.wrap(glued, WIDTH, initial_indent=first, subsequent_indent=later)
    return [html.escape(line.replace(_GLUE, " "), quote=False) for line in lines]


def side_of(row: Row) -> Side:
    """Return the side of a row."""
    return Side.of(str(row["direction"]))


def pair(row: Row) -> str:
    """Return side and symbol, such as LONG BTC/USDT:USDT."""
    return f"{side_of(row).name} {escaped(row['symbol'], 22)}"


def label(row: Row) -> str:
    """Return the line that names a signal: id, timeframe, setup, LIVE or PAPER."""
    kind = "LIVE" if is_live(row) else "PAPER"
    setup = f"{escaped(row['timeframe'], 4)} {escaped(row['setup'], 8)}"
    return f"#S{int(row['id'])} · {setup} · {kind}"


def code(price: float, decimals: int) -> str:
    """Return a price that a tap copies."""
    return f"<code>{price:.{decimals}f}</code>"


def when(instant_ms: int, zone: tzinfo) -> str:
    """Return an instant in the owner's zone."""
    return f"{datetime.fromtimestamp(instant_ms / 1000, tz=zone):%Y-%m-%d %H:%M %Z}"


def clock(instant_ms: int, zone: tzinfo) -> str:
    """Return the hour and minute of an instant of today."""
    return f"{datetime.fromtimestamp(instant_ms / 1000, tz=zone):%H:%M}"


def day(instant_ms: int, zone: tzinfo) -> str:
    """Return the date of an instant."""
    return f"{datetime.fromtimestamp(instant_ms / 1000, tz=zone):%Y-%m-%d}"


def span(length_ms: int) -> str:
    """Return a length of time in its two coarsest units.

    >>> span(3 * HOUR_MS + 10 * MINUTE_MS), span(50 * HOUR_MS), span(0), span(999_030 * MINUTE_MS)
    ('3 h 10 min', '2 d 2 h', '0 min', '1 y 328 d')
    """
    if length_ms >= 365 * DAY_MS:
        return f"{length_ms // (365 * DAY_MS)} y {length_ms % (365 * DAY_MS) // DAY_MS} d"
    if length_ms >= 2 * DAY_MS:
        return f"{length_ms // DAY_MS} d {length_ms % DAY_MS // HOUR_MS} h"
    hours, rest_ms = divmod(length_ms, HOUR_MS)
    return f"{hours} h {rest_ms // MINUTE_MS} min" if hours else f"{rest_ms // MINUTE_MS} min"


def distance(row: Row, price: float) -> str:
    """Return a price as percent of the entry and in R, along the side."""
    move = side_of(row) * (price - row["entry"])
    move_r = move / abs(row["entry"] - row["sl"])
    return f"{100 * move / row['entry'] + 0.0:+.2f}% {move_r + 0.0:+.2f}R"


def percent(frac: float) -> str:
    """Return a share in whole percent, a dash where there is none."""
    return f"{100 * frac:.0f} %" if math.isfinite(frac) else "–"


def percent_range(low: float | None, high: float | None) -> str:
    """Return an interval of shares, or '' where there is none."""
    return _range(low, high, lambda share: f"{100 * share:.0f}")


def in_r(value: float) -> str:
    """Return multiples of risk with their sign, a dash where there are none."""
    return f"{round(value, 2) + 0.0:+.2f} R" if math.isfinite(value) else "–"


def r_range(low: float | None, high: float | None) -> str:
    """Return an interval of multiples of risk, or '' where there is none."""
    return _range(low, high, lambda value: f"{value:+.2f}")


def _range(low: float | None, high: float | None, written: Callable[[float], str]) -> str:
    if low is None or high is None or not math.isfinite(low + high):
        return ""
    return f" [{written(low)}, {written(high)}]"
