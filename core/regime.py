"""The state of the market, from the decision's window alone: trend or range, and how volatile."""

from __future__ import annotations

from core.domain import Floats
from core.indicators import efficiency, rank_of_last

EFFICIENCY_BARS = 48
# A driftless walk has a mean efficiency of about 1/sqrt(48) = 0.14; one in four exceeds 0.2.
TREND_FROM = 0.2


def volatility_rank(close: Floats, atr: Floats) -> float:
    """Return where the last ATR, as a fraction of price, stands within its own window, in (0, 1).

    NaN when fewer than two bars have an ATR.
    """
    return float(rank_of_last(atr / close))


def regime(close: Floats, atr: Floats) -> str:
    """Return `{trend|range}/{vol_low|vol_normal|vol_high}` of the window's last bar.

    Trend: net move over path of the last 48 changes. Volatility: terciles of the window's own
    ATR in percent of price. With too little history it is range, or vol_normal.
    """
    is_trend = abs(efficiency(close, span=EFFICIENCY_BARS)) >= TREND_FROM
    rank = volatility_rank(close, atr)
    volatility = "vol_low" if rank < 1 / 3 else "vol_high" if rank > 2 / 3 else "vol_normal"
    return f"{'trend' if is_trend else 'range'}/{volatility}"
