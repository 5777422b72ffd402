"""One plan, tiny inline bars, and what becomes of them: the words of the execution tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from core.costs import CostRates
from core.domain import Candles, Floats, Ints, Side, TradePlan
from core.execution import ExitRules, Outcome, follow, new_states, order_of, outcome
from core.timeframe import HOUR_MS, MINUTE_MS, tf_ms

MIDNIGHT_MS = 1_704_067_200_000
DECIDED_MS = MIDNIGHT_MS + HOUR_MS
ACTIONABLE_MS = DECIDED_MS + 2 * MINUTE_MS
FREE = CostRates(maker_frac=0.0, taker_frac=0.0, slippage_frac=0.0, funding_frac_8h=0.0)
DEAR = CostRates(maker_frac=0.001, taker_frac=0.002, slippage_frac=0.0005, funding_frac_8h=0.0004)
RULES = ExitRules(
    tp1_fraction=0.5, be_on_tp1=True, trail_atr_mult=0.0, max_hold_candles=6, delay_ms=120_000
)
PLAN = TradePlan(
    side=Side.LONG,
    entry=100.0,
    stop=95.0,
    tp1=110.0,
    tp2=120.0,
    atr=2.0,
    leverage=3.0,
    risk_pct=1.0,
    notional_usd=1000.0,
    liquidation=70.0,
    cost_r=0.05,
    p_mart=1 / 3,
    decided_ms=DECIDED_MS,
    actionable_ms=ACTIONABLE_MS,
    valid_until_ms=DECIDED_MS + 4 * tf_ms("5m"),
)


def bars(text: str, start_ms: int = ACTIONABLE_MS, timeframe: str = "1m") -> Candles:
    """Candles of "open high low close | ..."; "-" is a minute that is missing."""
    rows = []
    for i, words in enumerate(text.split("|")):
        if words.strip() != "-":
            rows.append([start_ms + i * tf_ms(timeframe), *map(float, words.split()), 1.0])
    return Candles.of_matrix(timeframe, np.array(rows))


def end_ms(minute: int) -> int:
    """The end of the n-th minute after the order exists, counted from 1."""
    return ACTIONABLE_MS + minute * MINUTE_MS


def flipped(plan: TradePlan, base: Candles) -> tuple[TradePlan, Candles]:
    """The same trade seen in a mirror: every price p becomes 200 - p, long becomes short."""
    turned = replace(
        plan,
        side=Side(-plan.side),
        entry=200 - plan.entry,
        stop=200 - plan.stop,
        tp1=200 - plan.tp1,
        tp2=200 - plan.tp2,
        liquidation=200 - plan.liquidation,
    )
    o, h, low, c = (200 - x for x in (base.open, base.high, base.low, base.close))
    return turned, Candles(base.timeframe, base.ts_ms, o, low, h, c, base.volume)


def result(
    base: Candles,
    *,
    plan: TradePlan = PLAN,
    rules: ExitRules = RULES,
    rates: CostRates = FREE,
    until_ms: int | None = None,
    funding: tuple[Ints, Floats] | None = None,
    timeframe: str = "5m",
) -> Outcome:
    """The outcome of one plan after its bars."""
    order = order_of(plan, timeframe)
    last_ms = int(base.ts_ms[-1]) + tf_ms(base.timeframe) if until_ms is None else until_ms
    stored = funding or (np.empty(0, np.int64), np.empty(0))
    state = follow(
        order, new_states(order), base, rules=rules, rates=rates, until_ms=last_ms, funding=stored
    )
    return outcome(order, state)
