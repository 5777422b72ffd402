"""Leaks, each one small change to a real function, planted to see that the laws report them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from core import delivery, execution, execution_kernel, features, market_context, plans, setups
from core.config import Config
from core.domain import Candidate, Candles, Floats, Ints
from core.indicators import atr
from core.jobs import retro, retro_series, scan
from core.jobs.sync import frontier_ms
from core.setups import SetupEvents
from core.store import candles as store
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from core.windows import ScanInput, Windows

Patch = pytest.MonkeyPatch
QUARTER_MS = 15 * MINUTE_MS


def later(end: Ints, n_bars: int, line: Floats) -> Ints:
    """Window ends some bars on, as far as there are bars."""
    return np.minimum(np.asarray(end) + n_bars, len(line))


def wrapped(patch: Patch, module: Any, name: str, leak: Callable[..., Any]) -> None:
    """Put `leak(honest, *args)` in place of a function."""
    honest = getattr(module, name)
    patch.setattr(module, name, lambda *args, **named: leak(honest, *args, **named))


# --- decisions -------------------------------------------------------------------------------


def unconfirmed_pivot(patch: Patch) -> None:
    """P1 is acted on one bar before the bar that confirms it."""

    def early(
        honest: Any, view: Any, bars: Candles, config: Config, i_first: int, i_end: int
    ) -> SetupEvents | None:
        found: SetupEvents | None = honest(view, bars, config, i_first + 1, i_end + 1)
        return None if found is None else found._replace(i_bar=found.i_bar - 1)

    wrapped(patch, setups, "_limits", early)


def forming_higher_bar(patch: Patch) -> None:
    """The bar of a higher timeframe that is not closed yet is read."""

    def latest(honest: Any, bars: Candles, instant_ms: Ints, n_bars: int) -> Windows:
        known: Windows = honest(bars, instant_ms, n_bars)
        return known._replace(end=np.minimum(known.end + 1, len(bars)))

    wrapped(patch, features, "latest", latest)


def features_of_the_next_bar(patch: Patch) -> None:
    """Features are shifted by one bar against their decisions."""

    def shifted(honest: Any, rows: Any, data: ScanInput, config: Config) -> Any:
        moved = rows.copy()
        moved["i_bar"] = np.minimum(moved["i_bar"] + 1, len(data.bars) - 1)
        return honest(moved, data, config)

    wrapped(patch, features, "compute", shifted)


def feature_of_the_last_bar(patch: Patch) -> None:
    """A feature is read off the end of the array."""

    def peeking(honest: Any, rows: Any, data: ScanInput, config: Config) -> Any:
        values = honest(rows, data, config)
        values[:, -1] = data.bars.close[-1]
        return values

    wrapped(patch, features, "compute", peeking)


def full_sample_quantile(patch: Patch) -> None:
    """The volatility rank is taken among all bars there are, not those of the window."""

    def ranked(honest: Any, high: Floats, low: Floats, close: Floats, *args: Any, **n: Any) -> Any:
        found = honest(high, low, close, *args, **n)
        line = atr(high, low, close, n["period"]) / close
        known = np.sort(line[np.isfinite(line)])
        found[:, 0] = np.searchsorted(known, line[args[1] - 1]) / max(len(known), 1)
        return found

    wrapped(patch, features, "activities", ranked)


def centred_atr(patch: Patch) -> None:
    """The ATR's window is centred on the bar."""

    def centred(
        honest: Any, high: Floats, low: Floats, close: Floats, *ends: Ints, **n: Any
    ) -> Any:
        return honest(high, low, close, ends[0], later(ends[1], n["period"] // 2, close), **n)

    wrapped(patch, plans, "last_atrs", centred)


def centred_ema(patch: Patch) -> None:
    """The EMA and its slope come from a window centred on the bar."""

    def centred(honest: Any, close: Floats, first: Ints, end: Ints, *size: Floats, **n: Any) -> Any:
        return honest(close, first, later(end, n["ema_bars"] // 2, close), *size, **n)

    wrapped(patch, features, "trends", centred)


def atr_from_the_first_bar(patch: Patch) -> None:
    """The ATR's recursion starts at the first bar of the series, not of the window."""

    def running(
        honest: Any, high: Floats, low: Floats, close: Floats, *ends: Ints, **n: Any
    ) -> Any:
        return honest(high, low, close, np.zeros_like(ends[0]), ends[1], **n)

    wrapped(patch, plans, "last_atrs", running)


def ema_from_the_first_bar(patch: Patch) -> None:
    """So does the EMA's."""

    def running(honest: Any, close: Floats, first: Ints, *more: Any, **n: Any) -> Any:
        return honest(close, np.zeros_like(first), *more, **n)

    wrapped(patch, features, "trends", running)


def avwap_anchored_by_later_bars(patch: Patch) -> None:
    """The AVWAP's anchor is the bar of most volume up to thirty bars after the decision."""

    def anchored(honest: Any, high: Floats, low: Floats, close: Floats, *more: Any) -> Any:
        volume, first, end = more
        anchors = [
            min(a + int(np.argmax(np.nan_to_num(volume[a : b + 30]))), b - 1)
            for a, b in zip(first.tolist(), end.tolist(), strict=True)
        ]
        return honest(high, low, close, volume, np.array(anchors, np.int64), end)

    wrapped(patch, features, "last_avwaps", anchored)


def reclaim_confirmed_by_the_next_close(patch: Patch) -> None:
    """A reclaim counts only where the close after it goes on in its direction."""

    def confirmed(honest: Any, *args: Any, **named: Any) -> Any:
        close, i_bar = args[2], honest(*args, **named)
        goes_on = named["side"] * (close[later(i_bar, 1, close[1:])] - close[i_bar]) >= 0
        return np.where(goes_on, i_bar, -1)

    wrapped(patch, setups, "reclaim_bars", confirmed)


def leaders_next_bar(patch: Patch) -> None:
    """The leader's bar that opens when the signal bar closes is read, before it is closed."""

    def early(honest: Any, rows: Any, leader: Candles | None, lookback: int) -> Any:
        moved = rows.copy()
        moved["decided_ms"] += QUARTER_MS
        moved["ts_ms"] += QUARTER_MS
        return honest(moved, leader, lookback)

    wrapped(patch, features, "_leader_returns", early)


def funding_before_it_is_settled(patch: Patch) -> None:
    """The rate of the next settlement is known eight hours before it."""

    def early(honest: Any, context: Any, *, side: int, known_ms: int) -> Any:
        return honest(context, side=side, known_ms=known_ms + 8 * HOUR_MS)

    wrapped(patch, market_context, "_funding", early)


def basis_of_the_next_bar(patch: Patch) -> None:
    """The basis is that of the next close."""

    def early(honest: Any, context: Any, *, side: int, decided_ms: int) -> Any:
        return honest(context, side=side, decided_ms=decided_ms + QUARTER_MS)

    wrapped(patch, market_context, "_basis", early)


def interest_before_it_is_read(patch: Patch) -> None:
    """The open interest is that of an hour later."""

    def early(honest: Any, context: Any, at_ms: int) -> Any:
        return honest(context, at_ms + HOUR_MS)

    wrapped(patch, market_context, "_interest", early)


def tick_of_the_whole_series(patch: Patch) -> None:
    """The tick is the finest step of all prices there are."""

    def whole(honest: Any, high: Floats, low: Floats, close: Floats, first: Ints, end: Ints) -> Any:
        return honest(high, low, close, np.zeros_like(first), np.full_like(end, len(close)))

    wrapped(patch, plans, "finest_steps", whole)


def noise_of_later_bars(patch: Patch) -> None:
    """The noise is that of the base bars around the decision, half of them after it."""

    def around(honest: Any, high: Floats, low: Floats, *more: Any, **n: Any) -> Any:
        first, end, least = more
        return honest(high, low, later(first, 160, low), later(end, 160, low), least, **n)

    wrapped(patch, plans, "spans_above", around)


def hole_that_comes_later(patch: Patch) -> None:
    """A minute that goes missing after the decision refuses the setup."""

    def wide(honest: Any, rows: Any, from_ms: Ints, data: ScanInput) -> Any:
        moved = rows.copy()
        moved["decided_ms"] += MINUTE_MS
        return honest(moved, from_ms, data)

    wrapped(patch, plans, "_holes", wide)


# --- live against retro ----------------------------------------------------------------------


def entries_chosen_by_their_fill(patch: Patch) -> None:
    """Of several orders of one side the retro-scan keeps those that filled."""

    def chosen(honest: Any, *args: Any) -> Iterator[tuple[Candidate, dict[str, Any]]]:
        pairs = list(honest(*args))
        filled = {c.plan.side for c, columns in pairs if columns["opened_ts_ms"]}
        for candidate, columns in pairs:
            if columns["opened_ts_ms"] or candidate.plan.side not in filled:
                yield candidate, columns

    wrapped(patch, retro, "with_fates", chosen)


def labels_of_the_bar_before(patch: Patch) -> None:
    """The retro-scan follows its orders from one bar earlier on."""

    def shifted(honest: Any, found: Any, config: Config) -> Any:
        orders = honest(found, config)
        orders["actionable_ms"] -= orders["tf_ms"]
        return orders

    wrapped(patch, retro_series, "orders_of", shifted)


def leader_not_waited_for(patch: Patch) -> None:
    """The live scan runs before its leader's bar is there."""

    def alone(_: Any, db: Any, config: Config, symbols: Sequence[str], *, now_ms: int) -> Any:
        bases = {s: store.base_series(db, config.exchange.id, s) for s in symbols}
        return {s: min(now_ms, frontier_ms(db, base)) for s, base in bases.items()}

    wrapped(patch, scan, "settled_ms", alone)


# --- following -------------------------------------------------------------------------------


def same_bar_fill(patch: Patch) -> None:
    """An order fills on the bar whose close made it."""

    def early(honest: Any, orders: Any, states: Any, *more: Any) -> None:
        moved = orders.copy()
        moved["actionable_ms"] = orders["decided_ms"] - orders["tf_ms"]
        fresh = states["walked_ms"] == orders["actionable_ms"]
        states["walked_ms"][fresh] = moved["actionable_ms"][fresh]
        honest(moved, states, *more)

    wrapped(patch, execution_kernel, "walk", early)


def prices_of_the_next_bar(patch: Patch) -> None:
    """Each minute is walked with the prices of the one after it."""

    def shifted(honest: Any, base: Candles) -> Any:
        bars = honest(base)
        names = ("open", "high", "low", "close")
        lines = {name: np.roll(getattr(bars, name), -1) for name in names}
        return bars._replace(**lines)

    wrapped(patch, execution, "_bars", shifted)


def stops_that_move_at_once(patch: Patch) -> None:
    """Breakeven and trail act in the minute in which they are known."""

    def instant(honest: Any, rules: Any) -> Any:
        return honest(rules)._replace(delay_ms=0)

    wrapped(patch, execution, "_rules", instant)


def entry_at_the_best_of_its_minute(patch: Patch) -> None:
    """A resting entry is booked at the furthest price of the minute that filled it."""

    def lucky(honest: Any, orders: Any, states: Any, bars: Any, *more: Any) -> None:
        honest(orders, states, bars, *more)
        rows = np.flatnonzero((states["opened_ms"] > 0) & (states["opened_as_taker"] == 0))
        i = np.searchsorted(bars.ts_ms, states["opened_ms"][rows] - bars.base_ms)
        rows, i = rows[i < len(bars.ts_ms)], i[i < len(bars.ts_ms)]
        side, entry = orders["side"][rows], orders["entry"][rows]
        best = np.where(side > 0, bars.low[i], bars.high[i])
        states["gross_frac"][rows] += side * (entry - best) / entry

    wrapped(patch, execution_kernel, "walk", lucky)


# --- delivery --------------------------------------------------------------------------------


def guards_that_see_exits_of_the_instant(patch: Patch) -> None:
    """An exit at the very instant of a decision counts."""
    honest = delivery.Pass._close_before
    patch.setattr(delivery.Pass, "_close_before", lambda self, now: honest(self, now + 1))


def guards_that_see_exits_to_come(patch: Patch) -> None:
    """Exits of the day after a decision count."""
    honest = delivery.Pass._close_before
    patch.setattr(delivery.Pass, "_close_before", lambda self, now: honest(self, now + DAY_MS))


def paper_quantile_of_all(patch: Patch) -> None:
    """PAPER picks are the best of all candidates there will be."""
    honest, everything = delivery.Pass.go_on, list[float]()

    def go_on(self: Any, decisions: Sequence[delivery.Decision]) -> Any:
        everything[:] = [delivery._merit(d) for d in decisions if d.is_paper_candidate]
        return honest(self, decisions)

    def is_among_best(_: Any, now_ms: int, merit: float, *, per_day: int) -> bool:
        return sum(other > merit for other in everything) < 0.25 * len(everything)

    patch.setattr(delivery.Pass, "go_on", go_on)
    patch.setattr(delivery._Ranks, "is_among_best", is_among_best)


DECISIONS = (
    unconfirmed_pivot,
    forming_higher_bar,
    features_of_the_next_bar,
    feature_of_the_last_bar,
    full_sample_quantile,
    centred_atr,
    centred_ema,
    atr_from_the_first_bar,
    ema_from_the_first_bar,
    avwap_anchored_by_later_bars,
    reclaim_confirmed_by_the_next_close,
    leaders_next_bar,
    funding_before_it_is_settled,
    basis_of_the_next_bar,
    interest_before_it_is_read,
    tick_of_the_whole_series,
    noise_of_later_bars,
    hole_that_comes_later,
)
PARITY = (
    entries_chosen_by_their_fill,
    labels_of_the_bar_before,
    leader_not_waited_for,
    ema_from_the_first_bar,
    atr_from_the_first_bar,
)
EXECUTION = (same_bar_fill, prices_of_the_next_bar, stops_that_move_at_once)
WALK = (entry_at_the_best_of_its_minute,)
DELIVERY = (
    guards_that_see_exits_of_the_instant,
    guards_that_see_exits_to_come,
    paper_quantile_of_all,
)
