"""The scan by its definitions, in plain Python, one decision at a time: slow on purpose.

Written from the words of the design and of the docstrings; it shares no code with what it checks.
Every sum runs in time order, so what the engine finds must be equal to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from statistics import median
from typing import Any

from core.config import Config
from core.domain import Candles
from core.timeframe import tf_ms
from tests.event_oracle import Bars, Event, Line, avwap, limits, lists, reclaims

NAN = math.nan


def oracle_scan(data: Any, config: Config) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the candidates and the rejections of every bar, as mappings."""
    taken, refused = list[dict[str, Any]](), list[dict[str, Any]]()
    whole = lists(data.bars)
    for event in sorted({*limits(whole, config), *reclaims(whole, config)}):
        found = decision(event, data, config)
        if found is not None:
            (refused if "reason" in found else taken).append(found)
    return taken, refused


def latest(bars: Candles, instant_ms: int, n: int) -> Bars:
    """Copy the last bars that are closed at an instant."""
    step = tf_ms(bars.timeframe)
    end = int((bars.ts_ms + step <= instant_ms).sum())
    return lists(bars, max(0, end - n), end)


# --- measures of one window ------------------------------------------------------------------


def ranges_of(bars: Bars) -> Line:
    """True ranges; the first bar's is its own span."""
    before = [bars.close[0], *bars.close[:-1]]
    spans = [max(h, c) - min(low, c) for h, low, c in zip(bars.high, bars.low, before, strict=True)]
    return [bars.high[0] - bars.low[0], *spans[1:]]


def atr_of(bars: Bars, period: int) -> Line:
    """Wilder's mean of the true ranges, from the window's first bar."""
    if len(bars.close) < period:
        return [NAN] * len(bars.close)
    ranges = ranges_of(bars)
    line = [NAN] * (period - 1) + [total(ranges[:period]) / period]
    for span in ranges[period:]:
        line.append((line[-1] * (period - 1) + span) / period)
    return line


def total(values: Sequence[float]) -> float:
    """Sum in order; Python's own `sum` compensates."""
    result = 0.0
    for value in values:
        result += value
    return result


def mean(values: Sequence[float]) -> float:
    """The mean, summed in order."""
    return total(values) / len(values) if values else NAN


def path_of(close: Line) -> float:
    """The sum of absolute changes."""
    return total([abs(b - a) for a, b in pairwise(close)])


def travel_of(close: Line) -> float:
    """Net move over path of the last 48 changes."""
    if len(close) <= 48:
        return NAN
    path = path_of(close[-49:])
    return (close[-1] - close[-49]) / path if path > 0 else 0.0


def rank_of(values: Line) -> float:
    """Where the last one stands among the finite ones; ties count half."""
    known = [x for x in values if not math.isnan(x)]
    if math.isnan(values[-1]) or len(known) < 2:
        return NAN
    below = sum(1.0 if x < values[-1] else 0.5 if x == values[-1] else 0.0 for x in known)
    return below / len(known)


def trend_of(bars: Bars, side: int, period: int) -> Line:
    """Distance from the EMA of 50 bars, its slope over 12, and the efficiency."""
    n, travel = len(bars.close), side * travel_of(bars.close)
    size = atr_of(bars, period)[-1] if n else NAN
    if n < 50 or not size > 0:
        return [NAN, NAN, travel]
    line = [bars.close[0]]
    for close in bars.close[1:]:
        line.append(line[-1] + 2.0 / 51 * (close - line[-1]))
    slope = side * (line[-1] - line[-13]) / size if n >= 62 else NAN
    return [side * (bars.close[-1] - line[-1]) / size, slope, travel]


# --- one decision ----------------------------------------------------------------------------


def decision(event: Event, data: Any, config: Config) -> dict[str, Any] | None:
    """Decide one event from copies of its own windows; None if it is too small to be a setup."""
    signals, side = config.signals, event.side
    start = max(0, event.i_bar - signals.lookback_candles + 1)
    window = lists(data.bars, start, event.i_bar + 1)
    i_p0, i_p1, atr = event.i_p0 - start, event.i_p1 - start, atr_of(window, signals.atr_period)
    starts, ends = (window.low, window.high) if side > 0 else (window.high, window.low)
    p0, p1 = starts[i_p0], ends[i_p1]
    if not (atr[-1] > 0 and abs(p1 - p0) >= signals.fibo.min_impulse_atr * atr[-1]):
        return None
    decided_ms = window.ts_ms[-1] + tf_ms(data.series.timeframe)
    base = latest(data.base, decided_ms, 240)
    base = base if base.close else window
    found: dict[str, Any] = {
        "setup": event.setup,
        "side": side,
        "p0_ms": window.ts_ms[i_p0],
        "p1_ms": window.ts_ms[i_p1],
        "ts_ms": window.ts_ms[-1],
        "decided_ms": decided_ms,
        "atr": atr[-1],
        **prices(event, p0, p1, atr[-1], window.close[-1], base, data, config),
    }
    found["reason"], found["detail"] = refusal(found, window, i_p0, base, data, config)
    if not found["reason"]:
        found.update(size(found["entry"], found["stop"], data, config))
    if found["reason"]:
        return found
    del found["reason"], found["detail"]
    reward, risk = abs(found["tp1"] - found["entry"]), abs(found["entry"] - found["stop"])
    maker, taker = fees(data, config)
    out = taker + signals.slippage_pct / 100
    found["cost_r"] = (maker * found["entry"] + out * found["stop"]) / risk
    found["p_mart"] = risk / (risk + reward)
    found["features"] = features(found, p0, p1, window, i_p0, i_p1, atr, data, config)
    rank = rank_of([a / c for a, c in zip(atr, window.close, strict=True)])
    volatility = "low" if rank < 1 / 3 else "high" if rank > 2 / 3 else "normal"
    found["regime"] = (
        f"{'trend' if abs(travel_of(window.close)) >= 0.2 else 'range'}/vol_{volatility}"
    )
    found["rationale"] = rationale(found, p0, p1, config)
    return found


def rationale(found: dict[str, Any], p0: float, p1: float, config: Config) -> str:
    """The sentence that goes with a plan."""
    exponent = Decimal(repr(found["tick"])).normalize().as_tuple().exponent
    decimals = max(0, -int(exponent))
    start, end = (f"{price:,.{decimals}f}".replace(",", " ") for price in (p0, p1))
    where = {
        "limit": f"limit at the {config.signals.fibo.entry_level:g} retracement",
        "reclaim": "limit at the first close back across the AVWAP of its start",
    }[found["setup"]]
    trend, _, volatility = found["regime"].partition("/vol_")
    return (
        f"{'Up' if found['side'] > 0 else 'Down'}-impulse {start} → {end}"
        f" ({abs(p1 - p0) / found['atr']:.1f} ATR), {where}, {trend}, {volatility} volatility"
    )


def fees(data: Any, config: Config) -> tuple[float, float]:
    """Maker and taker fee, the owner's or the market's."""
    own, market = config.signals.fees, data.market
    maker = market.maker_frac if own.maker_pct is None else own.maker_pct / 100
    taker = market.taker_frac if own.taker_pct is None else own.taker_pct / 100
    return maker, taker


def prices(
    event: Event,
    p0: float,
    p1: float,
    atr: float,
    close: float,
    base: Bars,
    data: Any,
    config: Config,
) -> dict[str, float]:
    """The plan's prices on the tick, rounded against us."""
    fibo, side = config.signals.fibo, event.side
    tick: float = data.market.tick
    if data.market.fallback or not tick > 0:
        tick = step_of([*base.high, *base.low, *base.close])
    entry = p1 - fibo.entry_level * (p1 - p0) if event.setup == "limit" else close
    stop = p0 - side * config.signals.atr_mult_sl * atr
    up = side > 0
    return {
        "tick": tick,
        "entry": grid(entry, tick, up),
        "stop": grid(stop, tick, not up),
        "tp1": grid(p0 + fibo.tp1_level * (p1 - p0), tick, not up),
        "tp2": grid(p0 + fibo.tp2_level * (p1 - p0), tick, not up),
    }


def step_of(values: Line) -> float:
    """The power of ten that all prices are whole multiples of."""
    n = 0
    for price in values:
        while n < 10 and abs(round(price * 10**n) / 10**n - price) > 1e-14 * abs(price):
            n += 1
    return 1.0 / float(10**n)


def grid(price: float, tick: float, up: bool) -> float:
    """The grid price at or above, or at or below."""
    ticks = price / tick
    whole: int = round(ticks)
    if abs(ticks - whole) > 1e-6 + 4e-16 * abs(ticks):
        whole = math.ceil(ticks) if up else math.floor(ticks)
    per_unit = round(1 / tick)
    is_fraction = per_unit >= 1 and abs(per_unit * tick - 1) < 1e-9
    return whole / per_unit if is_fraction else whole * tick


def refusal(  # noqa: PLR0911
    found: dict[str, Any], window: Bars, i_p0: int, base: Bars, data: Any, config: Config
) -> tuple[str, str]:
    """The first thing that speaks against a plan, and its figures; ('', '') if nothing does."""
    side, close = found["side"], window.close[-1]
    entry, stop, tp1, tp2 = (found[name] for name in ("entry", "stop", "tp1", "tp2"))
    hood_ms = window.ts_ms[i_p0 - config.signals.fibo.piv_window]
    n_missing = sum(hood_ms <= ms < found["decided_ms"] for ms in data.missing_ms.tolist())
    if n_missing:
        return "hole", f"{n_missing} base bars missing since the first pivot"
    if any(hood_ms < ms < found["decided_ms"] for ms in data.seams_ms.tolist()):
        return "seam", "the prices of two markets since the first pivot"
    if side < 0 and config.risk.spot_long_only and data.market.kind == "spot":
        return "spot_long_only", "no shorts on a spot market"
    if not (side * stop < side * entry < side * tp1 < side * tp2 and min(stop, tp2) > 0):
        return "order", f"stop {stop:.10g}, entry {entry:.10g}, targets {tp1:.10g} {tp2:.10g}"
    if found["setup"] == "limit" and side * close <= side * entry:
        return "entry_passed", f"closed at {close:.10g}, entry {entry:.10g}"
    noise = median([h - low for h, low in zip(base.high, base.low, strict=True)])
    if abs(entry - stop) < 3.0 * noise:
        return "noise", f"stop {abs(entry - stop) / noise:.1f} base bars away, wants 3"
    net_pct = 100 * (abs(tp1 - entry) / entry - fees(data, config)[0] * (1 + tp1 / entry))
    wanted_pct = config.signals.min_tp_net_pct
    if net_pct < wanted_pct:
        return "tp_net", f"TP1 pays {net_pct:.2f} % net, wants {wanted_pct:.2f} %"
    return "", ""


def size(entry: float, stop: float, data: Any, config: Config) -> dict[str, Any]:
    """The position that loses the owner's share at the stop, or why there is none."""
    risk, frac = config.risk, abs(entry - stop) / entry
    outright = risk.spot_long_only and data.market.kind == "spot"
    room = frac + risk.liquidation_buffer_pct / 100 + 0.005
    highest = 1 if outright else math.floor(min(risk.leverage_cap, 1 / room))
    if highest < 1:
        detail = f"a stop {100 * frac:.1f} % away leaves no room before liquidation"
        return {"reason": "size", "detail": detail}
    exposure = min(risk.trade_pct / 100 / frac, highest)
    leverage = max(1, math.ceil(exposure))
    away = entry * (1 - (1 if stop < entry else -1) * (1 / leverage - 0.005))
    return {
        "leverage": leverage,
        "notional_usd": risk.equity_usd * exposure,
        "risk_pct": 100 * exposure * frac,
        "liquidation": 0.0 if outright else max(away, 0.0),
    }


def features(
    found: dict[str, Any],
    p0: float,
    p1: float,
    window: Bars,
    i_p0: int,
    i_p1: int,
    atr: Line,
    data: Any,
    config: Config,
) -> Line:
    """All features in their order."""
    side, entry, close, now = found["side"], found["entry"], window.close, atr[-1]
    lookback, period = config.signals.lookback_candles, config.signals.atr_period
    amplitude, risk = abs(p1 - p0), abs(entry - found["stop"])
    deepest = min(window.low[i_p1 + 1 :]) if side > 0 else max(window.high[i_p1 + 1 :])
    path = path_of(close[i_p0 : i_p1 + 1])
    usual, ranges = mean(window.volume), ranges_of(window)
    rising, falling = (
        mean(window.volume[a:b]) for a, b in ((i_p0 + 1, i_p1 + 1), (i_p1 + 1, None))
    )
    line = avwap(window, i_p0, len(close) - 1) if config.signals.avwap.use else NAN
    decided_ms = found["decided_ms"]
    values = [
        float(found["setup"] == "reclaim"),
        risk / now,
        abs(found["tp1"] - entry) / risk,
        side * (p1 - entry) / amplitude,
        amplitude / now,
        float(i_p1 - i_p0),
        abs(close[i_p1] - close[i_p0]) / path if path > 0 else 0.0,
        side * (p1 - close[-1]) / amplitude,
        side * (p1 - deepest) / amplitude,
        float(len(close) - 1 - i_p1),
        found["cost_r"],
        found["p_mart"],
        100 * now / close[-1],
        mean(ranges[-10:]) / mean(ranges[-100:]),
        rank_of([a / c for a, c in zip(atr, close, strict=True)]),
        rising / usual if usual > 0 else 1.0,
        falling / rising if rising > 0 else 1.0,
        side * (close[-1] - line) / now,
        side * (entry - line) / now,
        *trend_of(window, side, period),
    ]
    for bars in data.higher:
        values += trend_of(latest(bars, decided_ms, lookback), side, period)
    values += leader_returns(data, found, lookback)
    hour = decided_ms % 86_400_000 / 3_600_000 / 24
    weekday = (decided_ms // 86_400_000 + 3) % 7 / 7
    for turn in (hour, weekday):
        values += [math.sin(2 * math.pi * turn), math.cos(2 * math.pi * turn)]
    return values + context_of(data.context, side, decided_ms)


def context_of(context: Any, side: int, decided_ms: int) -> Line:
    """Funding known ten minutes after it settled, basis of the bar, and a day's open interest."""
    hour, known_ms = 3_600_000, decided_ms - 600_000
    funding = list(zip(context.funding_ms.tolist(), context.funding_frac.tolist(), strict=True))
    paid = [(ms, frac) for ms, frac in funding if known_ms - 72 * hour < ms <= known_ms]
    is_fresh = bool(paid) and paid[-1][0] > known_ms - 8 * hour
    last = 100 * side * paid[-1][1] if is_fresh else NAN
    enough = is_fresh and len(paid) >= 9
    days = 100 * side * math.fsum(frac for _, frac in paid) if enough else NAN
    basis = dict(zip(context.basis_ms.tolist(), context.basis_pct.tolist(), strict=True))
    reads = list(zip(context.interest_ms.tolist(), context.interest_qty.tolist(), strict=True))
    now, before = (
        next((qty for ms, qty in reversed(reads) if at_ms - hour < ms <= at_ms), NAN)
        for at_ms in (decided_ms, decided_ms - 24 * hour)
    )
    change = now / before - 1 if before > 0 else NAN
    return [last, days, side * basis.get(decided_ms, NAN), change]


def leader_returns(data: Any, found: dict[str, Any], lookback: int) -> Line:
    """The leader's signed returns over 12 and 48 bars."""
    if data.leader is None:
        return [NAN, NAN]
    bars = latest(data.leader, found["decided_ms"], lookback)
    if not bars.close or bars.ts_ms[-1] != found["ts_ms"]:
        return [NAN, NAN]
    close, side = bars.close, found["side"]
    return [
        side * (close[-1] / close[-1 - span] - 1) if len(close) > span else NAN for span in (12, 48)
    ]
