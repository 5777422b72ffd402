"""The compiled walk of orders over base candles; all it remembers stands in the state's row.

It reads bars after the decision: that is its work. Each rule stands once, for both sides: prices
are multiplied by the side (+1 or -1), so that "higher is better" holds for longs and shorts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from core.compiled import njit
from core.domain import Floats, Ints
from core.timeframe import HOUR_MS

FUNDING_MS = 8 * HOUR_MS  # the constant rate settles at 00, 08 and 16 UTC
N_TRAIL = 4  # trailing moves known but not yet acting: a delay of at most four signal candles

PENDING, OPEN, TP, SL, TP1_TRAIL, TIMEOUT, EXPIRED, CANCELLED = range(8)
NOT_OVER, BY_STOP, BY_BREAKEVEN, BY_TRAIL, BY_TARGET = range(5)
BY_TIMEOUT, BY_LIQUIDATION, BY_EXPIRY, BY_TP1_BEFORE_FILL, BY_MOVED_BEFORE_YOU = range(5, 10)

# A liquidation price of 0 or NaN means there is none.
ORDER = np.dtype(
    [("side", "i8")]
    + [(name, "f8") for name in ("entry", "stop", "tp1", "tp2", "atr", "liquidation")]
    + [(name, "i8") for name in ("decided_ms", "actionable_ms", "valid_until_ms", "tf_ms")]
)

# Fractions are of the planned notional, quantity x planned entry. An instant of 0 means "not yet".
STATE = np.dtype(
    [
        ("status", "i8"),
        ("walked_ms", "i8"),  # end of the last walked bar; the actionable instant before any
        ("opened_ms", "i8"),
        ("opened_price", "f8"),
        ("opened_as_taker", "i8"),
        ("stop", "f8"),
        ("stop_reason", "i8"),  # what put the stop where it is, hence how an exit there is called
        ("stop_ms", "i8"),  # from when the moved stop acts
        ("be_stop", "f8"),
        ("be_ms", "i8"),  # from when breakeven will act; 0 when nothing is pending
        ("trail_stop", "f8", (N_TRAIL,)),
        ("trail_ms", "i8", (N_TRAIL,)),  # from when each trailing move will act, oldest first
        ("qty_left", "f8"),
        ("tp1_ms", "i8"),
        ("gross_frac", "f8"),
        ("maker_frac", "f8"),
        ("taker_frac", "f8"),
        ("slippage_frac", "f8"),
        ("funding_frac", "f8"),  # positive when paid
        ("n_funding_stored", "i8"),
        ("n_funding_constant", "i8"),
        ("exit_value", "f8"),  # sum of quantity fraction x price over what has left
        ("closed_ms", "i8"),
        ("reason", "i8"),
        ("ambiguous", "i8"),
        ("mfe_r", "f8"),  # best and worst price since the fill, in R from the fill price, both >= 0
        ("mae_r", "f8"),
    ]
)


class Bars(NamedTuple):
    """Base candles as contiguous columns."""

    ts_ms: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    base_ms: int


class Rules(NamedTuple):
    """The exit rules as plain numbers."""

    tp1_fraction: float
    be_on_tp1: bool
    trail_atr_mult: float
    max_hold_candles: int
    delay_ms: int


class Rate(NamedTuple):
    """The cost rates of one order, fractions of notional."""

    maker: float
    taker: float
    slippage: float
    funding: float


class Funding(NamedTuple):
    """Stored settlements, oldest first; a positive rate is paid by longs."""

    ts_ms: Ints
    rate: Floats


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def walk(
    orders: Any,
    states: Any,
    bars: Bars,
    rules: Rules,
    rates: Floats,
    funding: Funding,
    until_ms: int,
) -> None:
    """Advance every state in place over the bars that closed by `until_ms`.

    `rates` is (n, 4): maker, taker, slippage, funding. Final states are left alone.
    """
    n = np.searchsorted(bars.ts_ms, until_ms - bars.base_ms, side="right")
    for k in range(len(orders)):
        order = orders[k]
        state = states[k]
        if state.status > OPEN:
            continue
        rate = Rate(rates[k, 0], rates[k, 1], rates[k, 2], rates[k, 3])
        i = np.searchsorted(bars.ts_ms, max(state.walked_ms, order.actionable_ms))
        if state.status == PENDING:
            i = _await_fill(order, state, bars, rate, i, n)
        if state.status == OPEN:
            _hold(order, state, bars, rules, rate, funding, i, n)
        elif state.status == PENDING and until_ms >= order.valid_until_ms:
            state.status = EXPIRED
            state.reason = BY_EXPIRY
            state.closed_ms = order.valid_until_ms


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _await_fill(order: Any, state: Any, bars: Bars, rate: Rate, first: int, n: int) -> int:
    """Walk a resting entry until it fills, is void or the bars end; return the next bar."""
    s = order.side
    entry, stop, tp1 = s * order.entry, s * order.stop, s * order.tp1
    for i in range(first, n):
        if bars.ts_ms[i] >= order.valid_until_ms:
            return i
        end = bars.ts_ms[i] + bars.base_ms
        opened = s * bars.open[i]
        worst = s * bars.low[i] if s > 0 else s * bars.high[i]
        best = s * bars.high[i] if s > 0 else s * bars.low[i]
        is_first = state.walked_ms <= order.actionable_ms
        state.walked_ms = end
        if is_first and (opened <= stop or opened >= tp1):
            _cancel(state, BY_MOVED_BEFORE_YOU, end)
            return i + 1
        if opened >= tp1:  # certain: it traded before anything else in this minute
            _cancel(state, BY_TP1_BEFORE_FILL, end)
            return i + 1
        if is_first and opened < entry:
            _open(order, state, rate, bars.open[i], True, end)
        elif worst < entry:
            _open(order, state, rate, order.entry, False, end)
        elif best >= tp1:
            _cancel(state, BY_TP1_BEFORE_FILL, end)
            return i + 1
        if state.status == OPEN:
            if worst <= stop:
                state.ambiguous = 1
                _stop_out(order, state, rate, bars.open[i], end)
            else:
                if best >= tp1:
                    state.ambiguous = 1
                # What came before the fill is unknown: the close is the best that is certain.
                _excursion(order, state, bars.close[i], s * worst)
            return i + 1
    return n


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _hold(
    order: Any,
    state: Any,
    bars: Bars,
    rules: Rules,
    rate: Rate,
    funding: Funding,
    first: int,
    n: int,
) -> None:
    """Walk an open position until it is closed or the bars end."""
    s = order.side
    deadline_ms = state.opened_ms + rules.max_hold_candles * order.tf_ms
    final_target = s * (order.tp1 if rules.tp1_fraction >= 1 else order.tp2)
    next_funding_ms = _next_settlement(funding.ts_ms, state.walked_ms)
    for i in range(first, n):
        start = bars.ts_ms[i]
        end = start + bars.base_ms
        opened = s * bars.open[i]
        worst = s * bars.low[i] if s > 0 else s * bars.high[i]
        best = s * bars.high[i] if s > 0 else s * bars.low[i]
        if state.be_ms > 0 or state.trail_ms[0] > 0:
            _move_stop(order, state, start)
        while next_funding_ms <= end:
            _settle(order, state, rate, funding, next_funding_ms, bars.close[i])
            next_funding_ms = _next_settlement(funding.ts_ms, next_funding_ms)
        state.walked_ms = end
        stop = s * state.stop
        if opened <= stop or _is_liquidated(order, opened):
            _stop_out(order, state, rate, bars.open[i], end)
            return
        if start >= deadline_ms:  # the last allowed minute is missing
            _leave_at_market(order, state, rate, bars.open[i], TIMEOUT, BY_TIMEOUT, end)
            return
        if worst <= stop:
            if best > s * (order.tp1 if state.tp1_ms == 0 else order.tp2):
                state.ambiguous = 1
            _stop_out(order, state, rate, bars.open[i], end)
            return
        _excursion(order, state, s * min(best, final_target), s * worst)
        _take_targets(order, state, rules, rate, best, end)
        if state.status != OPEN:
            return
        if end >= deadline_ms:
            _leave_at_market(order, state, rate, bars.close[i], TIMEOUT, BY_TIMEOUT, end)
            return
        if state.tp1_ms > 0 and rules.trail_atr_mult > 0 and end % order.tf_ms == 0:
            _trail(order, state, rules, bars.close[i], end)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _cancel(state: Any, reason: int, end: int) -> None:
    state.status = CANCELLED
    state.reason = reason
    state.closed_ms = end


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _open(order: Any, state: Any, rate: Rate, price: float, as_taker: bool, end: int) -> None:
    """Book the entry: the whole quantity, at one price."""
    state.status = OPEN
    state.opened_ms = end
    state.opened_price = price
    state.opened_as_taker = 1 if as_taker else 0
    state.qty_left = 1.0
    if as_taker:
        state.taker_frac += rate.taker * price / order.entry
        state.slippage_frac += rate.slippage * price / order.entry
    else:
        state.maker_frac += rate.maker * price / order.entry


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _leave(order: Any, state: Any, qty: float, price: float) -> None:
    """Book what a leg earned before costs; the caller books its fee."""
    state.gross_frac += qty * (order.side * (price - state.opened_price) / order.entry)
    state.exit_value += qty * price
    state.qty_left -= qty


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _leave_at_market(
    order: Any, state: Any, rate: Rate, price: float, status: int, reason: int, end: int
) -> None:
    """Sell what is left as taker, and close."""
    qty = state.qty_left
    state.taker_frac += qty * rate.taker * price / order.entry
    state.slippage_frac += qty * rate.slippage * price / order.entry
    _leave(order, state, qty, price)
    _excursion(order, state, price, price)
    state.status = status
    state.reason = reason
    state.closed_ms = end


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _is_liquidated(order: Any, opened: float) -> bool:
    """Say whether a signed open lies beyond the liquidation price, where there is one."""
    return bool(order.liquidation > 0 and opened <= order.side * order.liquidation)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _stop_out(order: Any, state: Any, rate: Rate, opened_at: float, end: int) -> None:
    """Leave at the stop, or at the open where the minute opened beyond it."""
    s = order.side
    price = opened_at if s * opened_at <= s * state.stop else state.stop
    status = SL if state.tp1_ms == 0 else TP1_TRAIL
    reason = state.stop_reason
    if _is_liquidated(order, s * opened_at):
        price, status, reason = opened_at, SL, BY_LIQUIDATION
    _leave_at_market(order, state, rate, price, status, reason, end)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _take_targets(order: Any, state: Any, rules: Rules, rate: Rate, best: float, end: int) -> None:
    """Fill the resting targets that a minute traded through, at their prices."""
    s = order.side
    if state.tp1_ms == 0 and best > s * order.tp1:
        state.tp1_ms = end
        if rules.tp1_fraction > 0:
            state.maker_frac += rules.tp1_fraction * rate.maker * order.tp1 / order.entry
            _leave(order, state, rules.tp1_fraction, order.tp1)
        if rules.be_on_tp1:
            state.be_stop = order.entry
            state.be_ms = end + rules.delay_ms
    if state.tp1_ms > 0 and (state.qty_left <= 0 or best > s * order.tp2):
        qty = state.qty_left
        if qty > 0:
            state.maker_frac += qty * rate.maker * order.tp2 / order.entry
            _leave(order, state, qty, order.tp2)
        state.status = TP
        state.reason = BY_TARGET
        state.closed_ms = end


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _trail(order: Any, state: Any, rules: Rules, close: float, end: int) -> None:
    """Queue the trailing stop that a close of the signal timeframe asks for."""
    # No bar opens before this one ended, so what acts from here on can act now: a place is free.
    _move_stop(order, state, end)
    last = 0
    while last < N_TRAIL - 1 and state.trail_ms[last] > 0:
        last += 1
    state.trail_stop[last] = close - order.side * rules.trail_atr_mult * order.atr
    state.trail_ms[last] = end + rules.delay_ms


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _move_stop(order: Any, state: Any, now_ms: int) -> None:
    """Let the moves act whose time has come, in the order of their instants; none loosens."""
    while True:
        be_due = 0 < state.be_ms <= now_ms
        trail_due = 0 < state.trail_ms[0] <= now_ms
        if be_due and (not trail_due or state.be_ms <= state.trail_ms[0]):
            _tighten(order, state, state.be_stop, state.be_ms, BY_BREAKEVEN)
            state.be_stop = 0.0
            state.be_ms = 0
        elif trail_due:
            _tighten(order, state, state.trail_stop[0], state.trail_ms[0], BY_TRAIL)
            for j in range(N_TRAIL - 1):
                state.trail_stop[j] = state.trail_stop[j + 1]
                state.trail_ms[j] = state.trail_ms[j + 1]
            state.trail_stop[N_TRAIL - 1] = 0.0
            state.trail_ms[N_TRAIL - 1] = 0
        else:
            return


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _tighten(order: Any, state: Any, price: float, from_ms: int, reason: int) -> None:
    if order.side * price > order.side * state.stop:
        state.stop = price
        state.stop_ms = from_ms
        state.stop_reason = reason


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _next_settlement(stored_ms: Ints, after_ms: int) -> int:
    """Return the first settlement strictly after an instant: a stored one or the 8 h grid's."""
    grid_ms = (after_ms // FUNDING_MS + 1) * FUNDING_MS
    i = np.searchsorted(stored_ms, after_ms, side="right")
    return min(grid_ms, stored_ms[i]) if i < len(stored_ms) else grid_ms


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _settle(
    order: Any, state: Any, rate: Rate, funding: Funding, instant_ms: int, price: float
) -> None:
    """Charge one settlement on the quantity that entered the minute.

    A stored rate has its sign; the constant is always against us.
    """
    value_frac = state.qty_left * price / order.entry
    i = np.searchsorted(funding.ts_ms, instant_ms)
    if i < len(funding.ts_ms) and funding.ts_ms[i] == instant_ms:
        state.funding_frac += order.side * funding.rate[i] * value_frac
        state.n_funding_stored += 1
    else:
        state.funding_frac += abs(rate.funding) * value_frac
        state.n_funding_constant += 1


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _excursion(order: Any, state: Any, best: float, worst: float) -> None:
    """Widen the extremes by a best and a worst price, given unsigned."""
    risk = abs(order.entry - order.stop)
    state.mfe_r = max(state.mfe_r, order.side * (best - state.opened_price) / risk)
    state.mae_r = max(state.mae_r, -order.side * (worst - state.opened_price) / risk)
