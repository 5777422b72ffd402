"""A trade from order to exit: one function, whether it is fed one minute or one year.

This module and its labels read bars after `decided_ms`; that is what following a trade means.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core import config
from core import execution_kernel as kernel
from core.costs import CostRates
from core.domain import CLOSED, Bools, Candles, Floats, Ints, Side, Status, TradePlan
from core.execution_kernel import ORDER, STATE
from core.timeframe import MINUTE_MS, tf_ms

__all__ = [
    "ORDER",
    "STATE",
    "Event",
    "ExitRules",
    "Outcome",
    "events",
    "exit_rules",
    "follow",
    "new_states",
    "order_of",
    "outcome",
    "outcomes",
    "state_from_json",
    "state_to_json",
    "states_to_json",
    "status_of",
]

Orders = NDArray[np.void]  # structured, dtype ORDER
States = NDArray[np.void]  # structured, dtype STATE

STATUSES = (  # in the order of the kernel's codes
    Status.PENDING,
    Status.OPEN,
    Status.TP,
    Status.SL,
    Status.TP1_TRAIL,
    Status.TIMEOUT,
    Status.EXPIRED,
    Status.CANCELLED,
)
REASONS = (  # in the order of the kernel's codes
    "",
    "stop",
    "breakeven",
    "trail",
    "target",
    "timeout",
    "liquidation",
    "expired",
    "tp1_before_fill",
    "moved_before_you",
)
NO_FUNDING: tuple[Ints, Floats] = (np.empty(0, np.int64), np.empty(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRules:
    """How a position is left; moves of the stop act `delay_ms` after they are known."""

    tp1_fraction: float
    be_on_tp1: bool
    trail_atr_mult: float
    max_hold_candles: int
    delay_ms: int


def exit_rules(section: config.Execution) -> ExitRules:
    """Return the exit rules of the settings."""
    return ExitRules(
        tp1_fraction=section.tp1_fraction,
        be_on_tp1=section.be_on_tp1,
        trail_atr_mult=section.trail_atr_mult,
        max_hold_candles=section.max_hold_candles,
        delay_ms=1000 * section.delivery_delay_s,
    )


def order_of(plan: TradePlan, timeframe: str) -> Orders:
    """Return the order of a plan as one row of `ORDER`; join rows with `np.concatenate`."""
    order = np.zeros(1, ORDER)
    prices = (plan.entry, plan.stop, plan.tp1, plan.tp2, plan.atr, plan.liquidation)
    instants_ms = (plan.decided_ms, plan.actionable_ms, plan.valid_until_ms)
    order[0] = (int(plan.side), *prices, *instants_ms, tf_ms(timeframe))
    return order


def new_states(orders: Orders) -> States:
    """Return the states of orders of which no bar has been walked."""
    states = np.zeros(len(orders), STATE)
    states["walked_ms"] = orders["actionable_ms"]
    states["stop"] = orders["stop"]
    states["stop_reason"] = kernel.BY_STOP
    return states


def follow(
    orders: Orders,
    states: States,
    base: Candles,
    *,
    rules: ExitRules,
    rates: CostRates | Floats,
    until_ms: int,
    funding: tuple[Ints, Floats] = NO_FUNDING,
) -> States:
    """Return new states after walking each order over the base bars it has not seen.

    Reads the future of `decided_ms`. Walks the bars with open >= `walked_ms` and close <=
    `until_ms`; whatever lies before `until_ms` must be settled: stored in `base`, or known not to
    exist. `rates` is one record, or (n, 4) maker, taker, slippage, funding fractions. `funding` is
    settlement instants, oldest first, and what longs pay; a settlement of 00, 08 or 16 UTC without
    a stored rate takes the constant, always against us. It is charged on what was open when the
    minute that ends there began, at that minute's close.

    Fed in one call or in any number of them, the result is the same to the bit.

    Raises ValueError when `delay_ms` is longer than four signal candles.
    """
    out = states.copy()
    if not len(orders):
        return out
    if len(orders) != len(out):
        raise ValueError(f"{len(orders)} orders but {len(out)} states; pass one state per order")
    if rules.delay_ms > kernel.N_TRAIL * int(orders["tf_ms"].min()):
        raise ValueError(f"delay_ms {rules.delay_ms} is over {kernel.N_TRAIL} signal candles")
    kernel.walk(
        np.require(orders, requirements=["C", "W"]),
        out,
        _bars(base),
        _rules(rules),
        _rate_rows(rates, len(out)),
        _settlements(funding),
        until_ms,
    )
    return out


def _column(values: Any, dtype: Any) -> Any:
    """One layout for every caller, so that one compiled kernel serves them all."""
    return np.require(values, dtype=dtype, requirements=["C", "W"])


def _bars(base: Candles) -> kernel.Bars:
    ts_ms, *prices, _volume = base.columns()
    o, h, low, c = (_column(p, np.float64) for p in prices)
    return kernel.Bars(_column(ts_ms, np.int64), o, h, low, c, tf_ms(base.timeframe))


def _rules(rules: ExitRules) -> kernel.Rules:
    return kernel.Rules(
        float(rules.tp1_fraction),
        bool(rules.be_on_tp1),
        float(rules.trail_atr_mult),
        int(rules.max_hold_candles),
        int(rules.delay_ms),
    )


def _rate_rows(rates: CostRates | Floats, n: int) -> Floats:
    if isinstance(rates, CostRates):
        row = (rates.maker_frac, rates.taker_frac, rates.slippage_frac, rates.funding_frac_8h)
        return np.tile(np.array(row, np.float64), (n, 1))
    if rates.shape != (n, 4):
        raise ValueError(f"want rates of shape {(n, 4)}, one row per order, not {rates.shape}")
    rows: Floats = _column(rates, np.float64)
    return rows


def _settlements(funding: tuple[Ints, Floats]) -> kernel.Funding:
    """Exchanges stamp settlements some ms late; the minute is what counts."""
    ts_ms = np.asarray(funding[0], np.int64)
    return kernel.Funding(
        _column(ts_ms - ts_ms % MINUTE_MS, np.int64), _column(funding[1], np.float64)
    )


def status_of(state: Any) -> Status:
    """Return the status of one state row."""
    return STATUSES[int(_row(state)["status"])]


def _row(rows: Any) -> Any:
    """Take a row, or an array of one row."""
    return rows[0] if isinstance(rows, np.ndarray) and rows.ndim else rows


def state_to_json(state: Any) -> str:
    """Return one state as JSON that reads back to the same bits."""
    return states_to_json(np.atleast_1d(state))[0]


def states_to_json(states: States) -> list[str]:
    """Return `state_to_json` of each state."""
    names = STATE.names or ()
    # A list at a time: a call of the encoder for each row takes longer than its numbers.
    columns = [_texts(_spoken(name, states[name].tolist())) for name in names]
    form = "{" + ",".join(f'"{name}":%s' for name in names) + "}"
    return [form % row for row in zip(*columns, strict=True)]


def _spoken(name: str, values: list[Any]) -> list[Any]:
    """Return a column of states with words for its codes."""
    if name == "status":
        return [STATUSES[code].value for code in values]
    return [REASONS[code] for code in values] if name in ("reason", "stop_reason") else values


def _texts(values: list[Any]) -> list[str]:
    """Return each value as JSON; numbers, plain words, or all of them lists of numbers."""
    whole = json.dumps(values, separators=(",", ":"))[1:-1]
    if not values:
        return []
    if isinstance(values[0], list):
        return [f"[{text}]" for text in whole[1:-1].split("],[")]
    return whole.split(",")


def state_from_json(text: str) -> States:
    """Return the state of `state_to_json` as an array of one row.

    Raises ValueError when a word is unknown and KeyError when a name is missing.
    """
    values = json.loads(text)
    values["status"] = STATUSES.index(Status(values["status"]))
    values["reason"] = REASONS.index(values["reason"])
    values["stop_reason"] = REASONS.index(values["stop_reason"])
    state = np.zeros(1, STATE)
    for name in STATE.names or ():
        state[name][0] = values[name]
    return state


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an order, in words the database stores.

    Money fields are None until the trade is closed: percent of the planned notional (quantity x
    planned entry), or R, the planned distance from entry to stop. `gross_r - cost_r_paid` is
    `r_multiple` up to rounding. An order that never filled has no result.
    """

    status: Status
    exit_reason: str
    opened_ts_ms: int | None
    closed_ts_ms: int | None
    opened_price: float | None
    opened_as_taker: bool
    exit_price: float | None
    tp1_hit: bool
    ambiguous: bool
    stop_now: float
    pnl_pct: float | None
    gross_r: float | None
    cost_r_paid: float | None
    r_multiple: float | None
    fees_pct: float | None
    slippage_pct: float | None
    funding_pct: float | None
    funding_source: str  # '', 'stored', 'constant' or 'mixed'
    mfe_r: float | None
    mae_r: float | None


def outcome(order: Any, state: Any) -> Outcome:
    """Return the outcome of one order so far; rows or arrays of one row."""
    columns = outcomes(np.atleast_1d(order), np.atleast_1d(state))
    return Outcome(**{name: values[0] for name, values in columns.items()})


def outcomes(orders: Orders, states: States) -> dict[str, list[Any]]:
    """Return the outcome of each order so far, as a column for each field of `Outcome`."""
    opened = states["opened_ms"] > 0
    return {
        "status": [STATUSES[code] for code in states["status"].tolist()],
        "exit_reason": [REASONS[code] for code in states["reason"].tolist()],
        "opened_ts_ms": [instant or None for instant in states["opened_ms"].tolist()],
        "closed_ts_ms": [instant or None for instant in states["closed_ms"].tolist()],
        "opened_price": _known(opened, states["opened_price"]),
        "opened_as_taker": (states["opened_as_taker"] != 0).tolist(),
        "tp1_hit": (states["tp1_ms"] > 0).tolist(),
        "ambiguous": (states["ambiguous"] != 0).tolist(),
        "stop_now": states["stop"].tolist(),
        "funding_source": _funding_sources(states),
        "mfe_r": _known(opened, states["mfe_r"]),
        "mae_r": _known(opened, states["mae_r"]),
        **_money(orders, states),
    }


def _known(which: Bools, values: Floats) -> list[float | None]:
    """Return values, None where they are not known."""
    return [value if k else None for k, value in zip(which.tolist(), values.tolist(), strict=True)]


def _money(orders: Orders, states: States) -> dict[str, list[float | None]]:
    """The result's parts; all None until the trade is closed."""
    closed = np.isin(states["status"], [STATUSES.index(status) for status in CLOSED])
    gross, fees = states["gross_frac"], states["maker_frac"] + states["taker_frac"]
    slippage, funding = states["slippage_frac"], states["funding_frac"]
    cost = fees + slippage + funding
    to_r = orders["entry"] / np.abs(orders["entry"] - orders["stop"])
    columns = {
        "pnl_pct": 100 * (gross - cost),
        "gross_r": gross * to_r,
        "cost_r_paid": cost * to_r,
        "r_multiple": (gross - cost) * to_r,
        "fees_pct": 100 * fees,
        "slippage_pct": 100 * slippage,
        "funding_pct": 100 * funding,
        "exit_price": states["exit_value"],
    }
    return {name: _known(closed, column) for name, column in columns.items()}


def _funding_sources(states: States) -> list[str]:
    stored, constant = states["n_funding_stored"] > 0, states["n_funding_constant"] > 0
    words = np.array(("", "stored", "constant", "mixed"))
    return list(words[stored + 2 * constant].tolist())


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened to an order.

    `kind` is filled, tp1, stop_moved, closed, expired or cancelled. `at_ms` is the end of its
    minute; for stop_moved, the instant from which the move acts.
    """

    kind: str
    at_ms: int
    price: float | None
    reason: str = ""


def events(order: Any, before: Any, after: Any) -> list[Event]:
    """Return what happened between two states of one order, in the order of its instants.

    A moved stop is told when it is known, before it acts, and only while the trade is open; of
    several moves the last one is told.
    """
    order, before, after = _row(order), _row(before), _row(after)
    found = []
    if after["opened_ms"] > 0 and before["opened_ms"] == 0:
        found.append(
            Event(kind="filled", at_ms=int(after["opened_ms"]), price=float(after["opened_price"]))
        )
    if after["tp1_ms"] > 0 and before["tp1_ms"] == 0:
        found.append(Event(kind="tp1", at_ms=int(after["tp1_ms"]), price=float(order["tp1"])))
    if status_of(after) is Status.OPEN:
        move = _known_stop(order, after)
        if move != _known_stop(order, before):
            found.append(move)
    if after["closed_ms"] > 0 and before["closed_ms"] == 0:
        found.append(_ending(after))
    return found


def _known_stop(order: Any, state: Any) -> Event:
    """The tightest stop that is set or already announced, and from when it acts."""
    side = Side(int(order["side"]))
    moves = [(float(state["stop"]), int(state["stop_ms"]), REASONS[int(state["stop_reason"])])]
    if state["be_ms"] > 0:
        moves.append((float(state["be_stop"]), int(state["be_ms"]), "breakeven"))
    pending = zip(state["trail_stop"].tolist(), state["trail_ms"].tolist(), strict=True)
    moves += [(price, at_ms, "trail") for price, at_ms in pending if at_ms > 0]
    price, at_ms, reason = max(moves, key=lambda move: side * move[0])
    return Event(kind="stop_moved", at_ms=at_ms, price=price, reason=reason)


def _ending(state: Any) -> Event:
    """How the order came to its end."""
    status = status_of(state)
    is_closed = status in CLOSED
    return Event(
        kind="closed" if is_closed else str(status.value).lower(),
        at_ms=int(state["closed_ms"]),
        price=float(state["exit_value"]) if is_closed else None,
        reason=REASONS[int(state["reason"])],
    )
