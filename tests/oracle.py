"""A second, slow executor in plain Python, from the design's words; imports nothing of core.

It keeps a ledger of legs and a list of stop instructions and works the money out at the end, where
the engine accumulates as it goes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

EIGHT_HOURS_MS = 8 * 3600 * 1000


@dataclass
class Trade:
    """Everything that happened to one order."""

    status: str = "PENDING"
    reason: str = ""
    opened_ms: int = 0
    closed_ms: int = 0
    opened_price: float = 0.0
    taker_entry: bool = False
    tp1_ms: int = 0
    ambiguous: bool = False
    legs: list[tuple[float, float, bool, int]] = field(default_factory=list)  # qty price taker ms
    stops: list[tuple[int, float, str]] = field(default_factory=list)  # from_ms price name
    walked: list[tuple[int, float]] = field(default_factory=list)  # end and close of each bar

    @property
    def qty_left(self) -> float:
        return 1.0 - sum(leg[0] for leg in self.legs) if self.opened_ms else 0.0


def simulate(
    order: dict[str, Any],
    bars: list[tuple[int, float, float, float, float]],
    *,
    base_ms: int,
    rules: dict[str, Any],
    rates: dict[str, float],
    funding: dict[int, float],
    until_ms: int,
) -> dict[str, Any]:
    """Follow one order over (open_ms, open, high, low, close) rows; return words and money."""
    trade = Trade(stops=[(0, order["stop"], "stop")])
    for ts, o, h, low, c in bars:
        end = ts + base_ms
        if ts < order["actionable_ms"] or end > until_ms or trade.closed_ms:
            continue
        if trade.status == "PENDING":
            if ts >= order["valid_until_ms"]:
                break
            trade.walked.append((end, c))
            _minute_before_fill(trade, order, (o, h, low), end=end)
        else:
            trade.walked.append((end, c))
            _minute_of_position(trade, order, (ts, o, h, low, c), end=end, rules=rules)
    if trade.status == "PENDING" and until_ms >= order["valid_until_ms"]:
        trade.status, trade.reason, trade.closed_ms = "EXPIRED", "expired", order["valid_until_ms"]
    return _account(trade, order, rates, funding)


def _minute_before_fill(
    trade: Trade, order: dict[str, Any], prices: tuple[float, float, float], *, end: int
) -> None:
    o, h, low = prices
    long = order["side"] > 0
    entry, stop, tp1 = order["entry"], order["stop"], order["tp1"]
    opens_past_tp1 = o >= tp1 if long else o <= tp1
    opens_past_stop = o <= stop if long else o >= stop
    opens_past_entry = o < entry if long else o > entry
    through_entry = low < entry if long else h > entry
    tp1_traded = h >= tp1 if long else low <= tp1
    stop_traded = low <= stop if long else h >= stop
    first_minute = len(trade.walked) == 1
    if first_minute and (opens_past_stop or opens_past_tp1):
        trade.status, trade.reason, trade.closed_ms = "CANCELLED", "moved_before_you", end
    elif opens_past_tp1 or (tp1_traded and not through_entry and not opens_past_entry):
        trade.status, trade.reason, trade.closed_ms = "CANCELLED", "tp1_before_fill", end
    elif first_minute and opens_past_entry:
        _fill(trade, o, taker=True, end=end)
    elif through_entry:
        _fill(trade, entry, taker=False, end=end)
    if trade.status != "OPEN":
        return
    trade.ambiguous = stop_traded or tp1_traded
    if stop_traded:
        _exit_at_stop(trade, order, o, stop, "stop", end)


def _fill(trade: Trade, price: float, *, taker: bool, end: int) -> None:
    trade.status, trade.opened_ms, trade.opened_price = "OPEN", end, price
    trade.taker_entry = taker


def _stop_at(trade: Trade, order: dict[str, Any], ts: int) -> tuple[float, str]:
    """The tightest instruction that acts by an instant; the first of equals gives the name."""
    price, name = trade.stops[0][1:]
    due = sorted((s for s in trade.stops[1:] if s[0] <= ts), key=lambda s: (s[0], s[2]))
    for _, new, new_name in due:
        if new > price if order["side"] > 0 else new < price:
            price, name = new, new_name
    return price, name


def _exit(trade: Trade, status: str, reason: str, leg: tuple[float, bool, int]) -> None:
    price, taker, end = leg
    trade.legs.append((trade.qty_left, price, taker, end))
    trade.status, trade.reason, trade.closed_ms = status, reason, end


def _exit_at_stop(
    trade: Trade, order: dict[str, Any], o: float, stop: float, name: str, end: int
) -> None:
    long = order["side"] > 0
    price = min(o, stop) if long else max(o, stop)
    status = "TP1_TRAIL" if trade.tp1_ms else "SL"
    if order["liquidation"] > 0 and (
        o <= order["liquidation"] if long else o >= order["liquidation"]
    ):
        price, status, name = o, "SL", "liquidation"
    _exit(trade, status, name, (price, True, end))


def _minute_of_position(
    trade: Trade,
    order: dict[str, Any],
    bar: tuple[int, float, float, float, float],
    *,
    end: int,
    rules: dict[str, Any],
) -> None:
    ts, o, h, low, c = bar
    long = order["side"] > 0
    stop, name = _stop_at(trade, order, ts)
    deadline = trade.opened_ms + rules["max_hold_candles"] * order["tf_ms"]
    liquidated = order["liquidation"] > 0 and (
        o <= order["liquidation"] if long else o >= order["liquidation"]
    )
    if liquidated or (o <= stop if long else o >= stop):
        _exit_at_stop(trade, order, o, stop, name, end)
        return
    if ts >= deadline:
        _exit(trade, "TIMEOUT", "timeout", (o, True, end))
        return
    through_tp1 = h > order["tp1"] if long else low < order["tp1"]
    through_tp2 = h > order["tp2"] if long else low < order["tp2"]
    if low <= stop if long else h >= stop:
        trade.ambiguous |= through_tp2 if trade.tp1_ms else through_tp1
        _exit_at_stop(trade, order, o, stop, name, end)
        return
    _targets(trade, order, (through_tp1, through_tp2), end=end, rules=rules)
    if trade.closed_ms:
        return
    if end >= deadline:
        _exit(trade, "TIMEOUT", "timeout", (c, True, end))
    elif trade.tp1_ms and rules["trail_atr_mult"] > 0 and end % order["tf_ms"] == 0:
        away = rules["trail_atr_mult"] * order["atr"]
        trade.stops.append((end + rules["delay_ms"], c - away if long else c + away, "trail"))


def _targets(
    trade: Trade,
    order: dict[str, Any],
    through: tuple[bool, bool],
    *,
    end: int,
    rules: dict[str, Any],
) -> None:
    fraction = rules["tp1_fraction"]
    if through[0] and not trade.tp1_ms:
        trade.tp1_ms = end
        if rules["be_on_tp1"]:
            trade.stops.append((end + rules["delay_ms"], order["entry"], "breakeven"))
        if fraction >= 1:
            _exit(trade, "TP", "target", (order["tp1"], False, end))
            return
        if fraction > 0:
            trade.legs.append((fraction, order["tp1"], False, end))
    if through[1]:
        _exit(trade, "TP", "target", (order["tp2"], False, end))


def _account(
    trade: Trade, order: dict[str, Any], rates: dict[str, float], funding: dict[int, float]
) -> dict[str, Any]:
    """Turn the ledger into fractions of the planned notional."""
    entry, side = order["entry"], order["side"]
    legs = list(trade.legs)
    fees = slippage = gross = 0.0
    if trade.opened_ms:
        inward = (1.0, trade.opened_price, trade.taker_entry, trade.opened_ms)
        for qty, price, taker, _ in [inward, *legs]:
            fees += qty * (rates["taker"] if taker else rates["maker"]) * price / entry
            slippage += qty * rates["slippage"] * price / entry if taker else 0.0
        gross = sum(side * qty * (price - trade.opened_price) / entry for qty, price, *_ in legs)
    paid = _funding(trade, order, rates["funding"], funding)
    net = gross - fees - slippage - paid
    risk = abs(entry - order["stop"]) / entry
    return {
        "status": trade.status,
        "reason": trade.reason,
        "opened_ms": trade.opened_ms,
        "closed_ms": trade.closed_ms,
        "tp1_ms": trade.tp1_ms,
        "ambiguous": trade.ambiguous,
        "exit_price": sum(qty * price for qty, price, *_ in legs),
        "gross": gross,
        "fees": fees,
        "slippage": slippage,
        "funding": paid,
        "net": net,
        "r_multiple": net / risk,
    }


def _funding(
    trade: Trade, order: dict[str, Any], constant: float, stored: dict[int, float]
) -> float:
    """Each slice of quantity pays for the settlements in (fill, its exit]."""
    if not trade.opened_ms:
        return 0.0
    last_ms = trade.walked[-1][0]
    first_grid = trade.opened_ms // EIGHT_HOURS_MS + 1
    grid = range(first_grid * EIGHT_HOURS_MS, last_ms + 1, EIGHT_HOURS_MS)
    paid = 0.0
    for tau in sorted({*grid, *(t for t in stored if trade.opened_ms < t <= last_ms)}):
        gone = sum(qty for qty, _, _, exit_ms in trade.legs if exit_ms < tau)
        price = next(close for end, close in trade.walked if end >= tau)
        rate = order["side"] * stored[tau] if tau in stored else abs(constant)
        paid += rate * (1.0 - gone) * price / order["entry"]
    return paid
