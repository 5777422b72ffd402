"""Where setups happen: the bars that confirm an impulse or close back across its AVWAP.

Every event is defined by the window of its own bar, so it is the same in one window and in years.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from core.avwap import reclaim_bars
from core.config import Config
from core.domain import Bools, Candles, Floats, Ints, Setup, Side
from core.fibo import impulse_starts, pivot_highs

SETUPS = (Setup.LIMIT, Setup.RECLAIM)  # a setup's number is its place here
_RECLAIM_DEPTH = (0.382, 0.95)


class SetupEvents(NamedTuple):
    """Bars on which setups happen, as columns: indices into the bars they were sought in."""

    i_bar: Ints
    setup: Ints
    side: Ints
    i_p0: Ints
    i_p1: Ints


class _View(NamedTuple):
    """The market seen along one side, so that P1 is always a high."""

    side: Side
    ahead: Floats
    behind: Floats
    i_tops: Ints
    bottoms: Bools


def setup_events(bars: Candles, config: Config, *, i_first: int, i_end: int) -> SetupEvents:
    """Return the setups that happen on bars `i_first` to `i_end - 1`, in order of their columns.

    `limit`: the bar that confirms P1. `reclaim`: the first close back across the AVWAP of P0 after
    a close behind it, both since P1 was confirmed and within `signals.validity_candles`, at a depth
    of .382 to .95; an impulse whose P1 or P0 was passed meanwhile has none. Size is not judged.
    """
    w = config.signals.fibo.piv_window
    highs, lows = pivot_highs(bars.high, piv_window=w), pivot_highs(-bars.low, piv_window=w)
    views = (
        _View(Side.LONG, bars.high, bars.low, np.flatnonzero(highs), lows),
        _View(Side.SHORT, -bars.low, -bars.high, np.flatnonzero(lows), highs),
    )
    found = [
        events
        for view in views
        for name, search in (("limit", _limits), ("reclaim", _reclaims))
        if name in config.signals.setups
        and (events := search(view, bars, config, i_first, i_end)) is not None
    ]
    if not found:
        return SetupEvents(*(np.empty(0, np.int64),) * 5)
    columns = [np.concatenate(parts) for parts in zip(*found, strict=True)]
    order = np.lexsort(columns[::-1])
    return SetupEvents(*(column[order] for column in columns))


def _events(setup: Setup, side: Side, i_bar: Ints, i_p0: Ints, i_p1: Ints) -> SetupEvents:
    number, sign = np.full_like(i_bar, SETUPS.index(setup)), np.full_like(i_bar, int(side))
    return SetupEvents(i_bar, number, sign, i_p0, i_p1)


def _starts(view: _View, config: Config, i_p1: Ints, i_floor: Ints) -> Ints:
    starts: Ints = impulse_starts(
        view.ahead,
        view.behind,
        view.bottoms,
        i_p1,
        i_floor,
        n_anchors=config.signals.fibo.anchors_to_consider,
    )
    return starts


def _limits(
    view: _View, bars: Candles, config: Config, i_first: int, i_end: int
) -> SetupEvents | None:
    w, lookback = config.signals.fibo.piv_window, config.signals.lookback_candles
    i_bar = view.i_tops + w
    i_bar = i_bar[(i_bar >= i_first) & (i_bar < min(i_end, len(bars)))]
    if not len(i_bar):
        return None
    i_p0 = _starts(view, config, i_bar - w, np.maximum(0, i_bar - lookback + 1) + w)
    is_found = i_p0 >= 0
    i_bar, i_p0 = i_bar[is_found], i_p0[is_found]
    return _events(Setup.LIMIT, view.side, i_bar, i_p0, i_bar - w)


def _reclaims(
    view: _View, bars: Candles, config: Config, i_first: int, i_end: int
) -> SetupEvents | None:
    signals, w = config.signals, config.signals.fibo.piv_window
    reach = signals.reclaim_reach_bars  # so that each of these bars sees the same P0
    i_p1 = view.i_tops[view.i_tops + w < i_end]
    i_last = np.minimum(i_p1 + w + signals.validity_candles, i_end - 1)
    i_p1, i_last = i_p1[i_last >= i_first], i_last[i_last >= i_first]
    if not len(i_p1):
        return None
    i_p0 = _starts(view, config, i_p1, np.maximum(w, i_p1 - reach))
    i_p0, i_p1, i_last = (column[i_p0 >= 0] for column in (i_p0, i_p1, i_last))
    i_bar = reclaim_bars(
        bars.high,
        bars.low,
        bars.close,
        bars.volume,
        i_p0,
        i_p1,
        i_last,
        side=int(view.side),
        n_confirming=w,
    )
    i_p0, i_p1, i_bar = (column[i_bar >= i_first] for column in (i_p0, i_p1, i_bar))
    if not len(i_bar):
        return None
    amplitude = view.ahead[i_p1] - view.behind[i_p0]
    depth = (view.ahead[i_p1] - int(view.side) * bars.close[i_bar]) / amplitude
    is_deep = (depth >= _RECLAIM_DEPTH[0]) & (depth <= _RECLAIM_DEPTH[1])
    return _events(Setup.RECLAIM, view.side, i_bar[is_deep], i_p0[is_deep], i_p1[is_deep])
