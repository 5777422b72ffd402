"""What trading costs: the one place where percent becomes fraction and fees become R."""

from __future__ import annotations

from dataclasses import dataclass

from core.config import Signals
from core.domain import Market, Price


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRates:
    """Fractions of notional per leg; funding per 8 h settlement, positive when longs pay."""

    maker_frac: float
    taker_frac: float
    slippage_frac: float
    funding_frac_8h: float


def cost_rates(signals: Signals, market: Market) -> CostRates:
    """Return the rates of one market: the owner's where set, else the market's own record.

    A spot series may stand for its perpetual, so the constant funding applies to both.
    """
    fees = signals.fees
    return CostRates(
        maker_frac=market.maker_frac if fees.maker_pct is None else fees.maker_pct / 100,
        taker_frac=market.taker_frac if fees.taker_pct is None else fees.taker_pct / 100,
        slippage_frac=signals.slippage_pct / 100,
        funding_frac_8h=fees.funding_pct_8h / 100,
    )


def stop_cost_r(entry: Price, stop: Price, rates: CostRates) -> Price:
    """Return the cost, in R, of a resting entry that ends at its stop.

    Maker in, taker and slippage out; funding is left out because the holding time is unknown.
    """
    out_frac = rates.taker_frac + rates.slippage_frac
    return (rates.maker_frac * entry + out_frac * stop) / abs(entry - stop)


def target_net_pct(entry: Price, target: Price, rates: CostRates) -> Price:
    """Return what a resting target pays after both maker fees, in percent of notional."""
    gross_frac = abs(target - entry) / entry
    return 100 * (gross_frac - rates.maker_frac * (1 + target / entry))
