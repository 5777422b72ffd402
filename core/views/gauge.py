"""Where a price stands between stop, entry and targets, in R: the geometry of one small bar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.domain import Side

_WIDTH, _HEIGHT, _MARGIN = 300, 26, 8
_RED, _GREEN, _BLUE, _GREY = "#e05252", "#1f9d83", "#3b82f6", "#8a8f98"
_ROOM_R = 0.25  # beyond stop and TP2, so that a price outside them still shows


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """A plan on one axis in R: the entry is 0, the stop -1. `now_r` is None without a price."""

    tp1_r: float
    tp2_r: float
    stop_now_r: float
    now_r: float | None

    @property
    def low_r(self) -> float:
        """The left end of the bar."""
        return -1 - _ROOM_R

    @property
    def high_r(self) -> float:
        """The right end of the bar."""
        return self.tp2_r + _ROOM_R

    def place(self, r: float) -> float:
        """Return where a value lies on the bar, in [0, 1]; what lies outside sticks to the end."""
        return min(1.0, max(0.0, (r - self.low_r) / (self.high_r - self.low_r)))


def price_r(row: Mapping[str, Any], price: float) -> float:
    """Return a price as multiples of the planned risk from the entry, along the side."""
    side = Side.of(str(row["direction"]))
    entry, stop = float(row["entry"]), float(row["sl"])
    return side * (price - entry) / abs(entry - stop) + 0.0  # no -0


def gauge(row: Mapping[str, Any], price: float | None) -> Gauge:
    """Return the bar of a candidate at a price; mirrored plans give the same bar."""
    stop = row["stop_now"] if row["stop_now"] is not None else row["sl"]
    return Gauge(
        tp1_r=price_r(row, row["tp1"]),
        tp2_r=price_r(row, row["tp2"]),
        stop_now_r=price_r(row, stop),
        now_r=None if price is None else price_r(row, price),
    )


def gauge_svg(found: Gauge) -> str:
    """Return the bar as a picture: red to the entry, green to TP1, paler to TP2, a mark for now.

    Only numbers go into it. Colours read on dark and light.
    """

    def x(r: float) -> float:
        return round(_MARGIN + found.place(r) * (_WIDTH - 2 * _MARGIN), 1)

    def bar(start: float, end: float, colour: str, opacity: float) -> str:
        return (
            f'<rect x="{x(start)}" y="10" width="{max(0.0, round(x(end) - x(start), 1))}"'
            f' height="6" fill="{colour}" opacity="{opacity}"/>'
        )

    def tick(r: float, colour: str) -> str:
        return f'<rect x="{round(x(r) - 1, 1)}" y="6" width="2" height="14" fill="{colour}"/>'

    parts = [
        bar(-1, 0, _RED, 0.75),
        bar(0, found.tp1_r, _GREEN, 0.85),
        bar(found.tp1_r, found.tp2_r, _GREEN, 0.4),
        tick(found.stop_now_r, _RED),
        tick(0, _BLUE),
        tick(found.tp1_r, _GREEN),
        tick(found.tp2_r, _GREEN),
    ]
    if found.now_r is not None:
        at = x(found.now_r)
        parts.append(  # two wedges and a line
            f'<path d="M{at - 5} 0 L{at + 5} 0 L{at} 8 Z M{at - 5} 26 L{at + 5} 26 L{at} 18 Z"'
            f' fill="{_GREY}"/><rect x="{at - 1}" y="6" width="2" height="14" fill="{_GREY}"/>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
        f' width="{_WIDTH}" height="{_HEIGHT}">{"".join(parts)}</svg>'
    )


def gauge_text(found: Gauge) -> str:
    """Return the bar in words, for those who cannot see it."""
    now = "price unknown" if found.now_r is None else f"price at {found.now_r:+.2f} R"
    stop = found.stop_now_r + 0.0
    return f"{now}; stop {stop:+.2f} R, entry 0, TP1 {found.tp1_r:+.2f} R, TP2 {found.tp2_r:+.2f} R"
