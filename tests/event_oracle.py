"""Where setups happen, by their definitions, in plain Python: slow on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from core.config import Config
from core.domain import Candles

Line = list[float]


class Bars(NamedTuple):
    """A window as plain lists, oldest first."""

    ts_ms: list[int]
    high: Line
    low: Line
    close: Line
    volume: Line


class Event(NamedTuple):
    """A setup on a bar, by indices into the whole series."""

    i_bar: int
    setup: str
    side: int
    i_p0: int
    i_p1: int


def lists(bars: Candles, first: int = 0, end: int | None = None) -> Bars:
    """Copy some bars into lists."""
    part = slice(first, end)
    columns = (bars.ts_ms, bars.high, bars.low, bars.close, bars.volume)
    return Bars(*(column[part].tolist() for column in columns))


def sides(bars: Bars) -> Iterator[tuple[int, Line, Line]]:
    """Both sides, seen so that P1 is always a high."""
    yield 1, bars.high, bars.low
    yield -1, [-x for x in bars.low], [-x for x in bars.high]


def is_peak(line: Line, j: int, w: int) -> bool:
    """Say whether j is strictly beyond its w neighbours on either side."""
    if j < w or j + w >= len(line):
        return False
    return all(line[j] > line[j - k] and line[j] > line[j + k] for k in range(1, w + 1))


def start_of(ahead: Line, behind: Line, i_p1: int, floor: int, config: Config) -> int:
    """Find P0: the most extreme of the last opposite pivots, nothing beyond P1 or P0 between."""
    w, anchors = config.signals.fibo.piv_window, list[int]()
    down = [-x for x in behind[max(0, floor - w) : i_p1 + w + 1]]
    for j in range(i_p1 - 1, floor - 1, -1):
        if ahead[j] > ahead[i_p1] or len(anchors) == config.signals.fibo.anchors_to_consider:
            break
        if is_peak(down, j - max(0, floor - w), w):
            anchors.append(j)
    lasting = [j for j in anchors if min(behind[j + 1 : i_p1 + 1]) >= behind[j]]
    return max(lasting, key=lambda j: (-behind[j], j), default=-1)


def limits(bars: Bars, config: Config) -> Iterator[Event]:
    """The bars that confirm the end of an impulse."""
    w, lookback = config.signals.fibo.piv_window, config.signals.lookback_candles
    if "limit" not in config.signals.setups:
        return
    for side, ahead, behind in sides(bars):
        for i_p1 in (j for j in range(len(ahead)) if is_peak(ahead, j, w)):
            i_bar = i_p1 + w
            i_p0 = start_of(ahead, behind, i_p1, max(0, i_bar - lookback + 1) + w, config)
            if i_p0 >= 0:
                yield Event(i_bar, "limit", side, i_p0, i_p1)


def reclaims(bars: Bars, config: Config) -> Iterator[Event]:
    """The first closes back across the AVWAP of P0."""
    w, validity = config.signals.fibo.piv_window, config.signals.validity_candles
    reach = config.signals.lookback_candles - validity - 2 * w - 1
    if "reclaim" not in config.signals.setups:
        return
    for side, ahead, behind in sides(bars):
        for i_p1 in (j for j in range(len(ahead)) if is_peak(ahead, j, w)):
            i_p0 = start_of(ahead, behind, i_p1, max(w, i_p1 - reach), config)
            i_bar = reclaim_of(bars, side, i_p0, i_p1, w, validity) if i_p0 >= 0 else -1
            if i_bar < 0:
                continue
            depth = (ahead[i_p1] - side * bars.close[i_bar]) / (ahead[i_p1] - behind[i_p0])
            if 0.382 <= depth <= 0.95:
                yield Event(i_bar, "reclaim", side, i_p0, i_p1)


def reclaim_of(bars: Bars, side: int, i_p0: int, i_p1: int, w: int, validity: int) -> int:
    """Return the bar of the reclaim, or -1."""
    ahead, behind = (bars.high, bars.low) if side > 0 else (bars.low, bars.high)
    was_behind = False
    for i in range(i_p1 + 1, min(i_p1 + w + validity, len(bars.close) - 1) + 1):
        if side * ahead[i] > side * ahead[i_p1] or side * behind[i] < side * behind[i_p0]:
            return -1
        gap = side * (bars.close[i] - avwap(bars, i_p0, i))
        if i >= i_p1 + w and was_behind and gap > 0:
            return i
        was_behind |= i >= i_p1 + w and gap < 0
    return -1


def avwap(bars: Bars, i_anchor: int, i: int) -> float:
    """Return the AVWAP at bar i, summed forward from its anchor."""
    money = traded = plain = 0.0
    for j in range(i_anchor, i + 1):
        typical = (bars.high[j] + bars.low[j] + bars.close[j]) / 3
        money += typical * bars.volume[j]
        traded += bars.volume[j]
        plain += typical
    return money / traded if traded > 0 else plain / (i - i_anchor + 1)
