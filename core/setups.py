"""Where setups happen: the bars that confirm an impulse or close back across its AVWAP.

Every event is defined by the window of its own bar, so it is the same in one window and in years.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from core.avwap import avwap, first_reclaim
from core.config import Config
from core.domain import Bools, Candles, Floats, Setup, Side
from core.fibo import impulse_start, pivot_highs

_RECLAIM_DEPTH = (0.382, 0.95)


class SetupEvent(NamedTuple):
    """A bar on which a setup happens; indices into the bars it was sought in."""

    i_bar: int
    setup: Setup
    side: Side
    i_p0: int
    i_p1: int


class _View(NamedTuple):
    """The market seen along one side, so that P1 is always a high."""

    side: Side
    ahead: Floats
    behind: Floats
    tops: Bools
    bottoms: Bools


def setup_events(bars: Candles, config: Config, *, i_first: int, i_end: int) -> list[SetupEvent]:
    """Return the setups that happen on bars `i_first` to `i_end - 1`, in order.

    `limit`: the bar that confirms P1. `reclaim`: the first close back across the AVWAP of P0 after
    a close behind it, both since P1 was confirmed and within `signals.validity_candles`, at a depth
    of .382 to .95; an impulse whose P1 or P0 was passed meanwhile has none. Size is not judged.
    """
    w = config.signals.fibo.piv_window
    highs, lows = pivot_highs(bars.high, piv_window=w), pivot_highs(-bars.low, piv_window=w)
    views = (
        _View(Side.LONG, bars.high, bars.low, highs, lows),
        _View(Side.SHORT, -bars.low, -bars.high, lows, highs),
    )
    found: list[SetupEvent] = []
    for view in views:
        if "limit" in config.signals.setups:
            found += _limit_events(view, config, i_first=i_first, i_end=i_end)
        if "reclaim" in config.signals.setups:
            found += _reclaim_events(view, bars, config, i_first=i_first, i_end=i_end)
    return sorted(found)


def _limit_events(view: _View, config: Config, *, i_first: int, i_end: int) -> Iterator[SetupEvent]:
    fibo = config.signals.fibo
    w, lookback = fibo.piv_window, config.signals.lookback_candles
    for i_p1 in np.flatnonzero(view.tops).tolist():
        i_bar = i_p1 + w
        if not i_first <= i_bar < i_end:
            continue
        i_floor = max(0, i_bar - lookback + 1) + w
        i_p0 = impulse_start(
            view.ahead,
            view.behind,
            view.bottoms,
            i_p1=i_p1,
            i_floor=i_floor,
            n_anchors=fibo.anchors_to_consider,
        )
        if i_p0 >= 0:
            yield SetupEvent(i_bar, Setup.LIMIT, view.side, i_p0, i_p1)


def _reclaim_events(
    view: _View, bars: Candles, config: Config, *, i_first: int, i_end: int
) -> Iterator[SetupEvent]:
    signals, w = config.signals, config.signals.fibo.piv_window
    reach = signals.reclaim_reach_bars  # so that each of these bars sees the same P0
    for i_p1 in np.flatnonzero(view.tops).tolist():
        i_confirmed = i_p1 + w
        i_last = min(i_confirmed + signals.validity_candles, i_end - 1)
        if i_last < i_first or i_confirmed >= i_end:
            continue
        i_p0 = impulse_start(
            view.ahead,
            view.behind,
            view.bottoms,
            i_p1=i_p1,
            i_floor=max(w, i_p1 - reach),
            n_anchors=signals.fibo.anchors_to_consider,
        )
        if i_p0 < 0:
            continue
        i_bar = _reclaim_bar(
            view, bars, i_p0=i_p0, i_p1=i_p1, i_confirmed=i_confirmed, i_last=i_last
        )
        if i_bar < i_first:
            continue
        depth = (view.ahead[i_p1] - view.side * bars.close[i_bar]) / (
            view.ahead[i_p1] - view.behind[i_p0]
        )
        if _RECLAIM_DEPTH[0] <= depth <= _RECLAIM_DEPTH[1]:
            yield SetupEvent(i_bar, Setup.RECLAIM, view.side, i_p0, i_p1)


def _reclaim_bar(
    view: _View, bars: Candles, *, i_p0: int, i_p1: int, i_confirmed: int, i_last: int
) -> int:
    """The bar of the reclaim, or -1; looks at the bars from P0 on only."""
    part = slice(i_p0, i_last + 1)
    line = avwap(bars.high[part], bars.low[part], bars.close[part], bars.volume[part], i_anchor=0)
    i_bar = first_reclaim(
        view.ahead[part],
        view.behind[part],
        view.side * (bars.close[part] - line),
        i_p0=0,
        i_p1=i_p1 - i_p0,
        i_confirmed=i_confirmed - i_p0,
        i_last=i_last - i_p0,
    )
    return int(i_bar) + i_p0 if i_bar >= 0 else -1
