"""The state of the market, from the decision's window alone: trend or range, and how volatile."""

from __future__ import annotations

import numpy as np

from core.domain import Floats

EFFICIENCY_BARS = 48
# A driftless walk has a mean efficiency of about 1/sqrt(48) = 0.14; one in four exceeds 0.2.
TREND_FROM = 0.2


def regimes(travel: Floats, volatility_rank: Floats) -> list[str]:
    """Return `{trend|range}/{vol_low|vol_normal|vol_high}` of each window's last bar.

    Trend: `travel`, the net move over the path of the last 48 changes, of either sign.
    Volatility: terciles of the ATR in percent of price, by its rank within the window. With too
    little history, NaN, it is range, or vol_normal. Shapes (n,).
    """
    trend = np.where(np.abs(travel) >= TREND_FROM, "trend", "range")
    is_low, is_high = volatility_rank < 1 / 3, volatility_rank > 2 / 3
    volatility = np.where(is_low, "vol_low", np.where(is_high, "vol_high", "vol_normal"))
    return [f"{a}/{b}" for a, b in zip(trend.tolist(), volatility.tolist(), strict=True)]
