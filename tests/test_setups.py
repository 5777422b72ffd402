"""Setup events agree with brute force from their definitions, one window at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from core.config import Config
from core.domain import Candles, Setup, Side
from core.resample import resample
from core.setups import SETUPS, setup_events
from tests.worlds import random_candles, strategy

LOOKBACK, VALIDITY = 50, 16


class SetupEvent(NamedTuple):
    """One event as the definitions name it."""

    i_bar: int
    setup: Setup
    side: Side
    i_p0: int
    i_p1: int


def events_of(bars: Candles, config: Config, *, i_first: int, i_end: int) -> list[SetupEvent]:
    """Return what the search finds, one by one."""
    columns = setup_events(bars, config, i_first=i_first, i_end=i_end)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [SetupEvent(i, SETUPS[n], Side(side), i_p0, i_p1) for i, n, side, i_p0, i_p1 in rows]


def settings(setups: list[str]) -> Config:
    """Return settings with a short window, so that its edge matters."""
    return strategy(
        setups=setups,
        lookback_candles=LOOKBACK,
        validity_candles=VALIDITY,
        fibo={"piv_window": 3, "anchors_to_consider": 12},
    )


def brute_events(bars: Candles, config: Config) -> set[SetupEvent]:
    """Every event by the words of the definition, each from its own window; slow on purpose."""
    found: set[SetupEvent] = set()
    for side in Side:
        ahead = bars.high if side > 0 else -bars.low
        behind = bars.low if side > 0 else -bars.high
        for i in range(len(bars)):
            found |= brute_limit(ahead, behind, side, i, config)
            found |= brute_reclaim(bars, ahead, behind, side, i, config)
    return found


def is_top(line: Any, j: int, w: int, first: int, last: int) -> bool:
    """Say whether j is a pivot whose neighbourhood lies inside first to last."""
    near = [k for k in range(j - w, j + w + 1) if k != j]
    return near[0] >= first and near[-1] <= last and all(line[j] > line[k] for k in near)


def brute_p0(ahead: Any, behind: Any, i_p1: int, first: int, config: Config) -> int:
    """Find P0 by its definition, from bar `first` on."""
    w = config.signals.fibo.piv_window
    anchors = [
        j
        for j in range(first, i_p1)
        if is_top(-behind, j, w, first, i_p1 + w) and ahead[j:i_p1].max() <= ahead[i_p1]
    ][-config.signals.fibo.anchors_to_consider :]
    lasting = [j for j in anchors if behind[j + 1 : i_p1 + 1].min() >= behind[j]]
    return max(lasting, key=lambda j: (-behind[j], j), default=-1)


def brute_limit(ahead: Any, behind: Any, side: Side, i: int, config: Config) -> set[SetupEvent]:
    """Find the limit event of bar i by its definition."""
    w = config.signals.fibo.piv_window
    first, i_p1 = max(0, i - LOOKBACK + 1), i - w
    if i_p1 < first or not is_top(ahead, i_p1, w, first, i):
        return set()
    i_p0 = brute_p0(ahead, behind, i_p1, first, config)
    return {SetupEvent(i, Setup.LIMIT, side, i_p0, i_p1)} if i_p0 >= 0 else set()


def brute_reclaim(
    bars: Candles, ahead: Any, behind: Any, side: Side, i: int, config: Config
) -> set[SetupEvent]:
    """Find the reclaim events of bar i by their definition."""
    w, found = config.signals.fibo.piv_window, set()
    for i_p1 in range(max(w, i - w - VALIDITY), i - w):
        first = max(0, i_p1 - (LOOKBACK - VALIDITY - 2 * w - 1) - w)
        if not is_top(ahead, i_p1, w, 0, i):
            continue
        i_p0 = brute_p0(ahead, behind, i_p1, first, config)
        if i_p0 < 0 or ahead[i_p1 + 1 : i + 1].max() > ahead[i_p1]:
            continue
        if behind[i_p1 + 1 : i + 1].min() < behind[i_p0]:
            continue
        part = slice(i_p0, i + 1)
        typical = (bars.high[part] + bars.low[part] + bars.close[part]) / 3
        line = np.cumsum(typical * bars.volume[part]) / np.cumsum(bars.volume[part])
        gap = (side * (bars.close[part] - line))[i_p1 + w - i_p0 :]
        crossed = [k for k in range(1, len(gap)) if gap[k] > 0 and gap[:k].min() < 0]
        depth = (ahead[i_p1] - side * bars.close[i]) / (ahead[i_p1] - behind[i_p0])
        if crossed[:1] == [len(gap) - 1] and 0.382 <= depth <= 0.95:
            found.add(SetupEvent(i, Setup.RECLAIM, side, i_p0, i_p1))
    return found


def test_events_agree_with_brute_force() -> None:
    """The compiled search finds the events of the definition, all of them and no other."""
    bars, config = resample(random_candles(30_000, seed=11), "15m"), settings(["limit", "reclaim"])
    found = events_of(bars, config, i_first=0, i_end=len(bars))
    assert len(found) > 200
    assert found == sorted(found)
    assert set(found) == brute_events(bars, config)


def test_windows_agree_and_reclaim_once() -> None:
    """Each bar's own window holds the event of the long search, and no impulse has two reclaims."""
    bars = random_candles(6_000, seed=21, timeframe="15m", start_price=50_000)
    config = settings(["limit", "reclaim"])
    whole = events_of(bars, config, i_first=0, i_end=len(bars))
    alone: list[SetupEvent] = []
    for i in range(len(bars)):
        start = max(0, i - LOOKBACK + 1)
        n_bars = i + 1 - start
        found = events_of(bars[start : i + 1], config, i_first=n_bars - 1, i_end=n_bars)
        alone += [
            event._replace(i_bar=i, i_p0=event.i_p0 + start, i_p1=event.i_p1 + start)
            for event in found
        ]
    assert alone == whole
    reclaimed = [(event.side, event.i_p1) for event in alone if event.setup is Setup.RECLAIM]
    assert len(reclaimed) > 50
    assert len(set(reclaimed)) == len(reclaimed)
