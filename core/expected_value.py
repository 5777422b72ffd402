"""What a probability is worth: payoffs as realised and shrunken, costs in full, and a low side."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from core.costs import CostRates
from core.domain import Bools, Floats

Z_LOW = 0.8416  # the posterior's 20 % quantile, as a normal deviate
_Z_90 = 1.6449  # half a 90 % interval
_PRIOR_TRADES = 20.0  # a payoff is believed half at this many effective trades
_PRIOR_EV_TRADES = 100.0  # and the slope of realised on expected at this many
_PRIOR_SLOPE = 0.5  # sealed evaluations of this kind of model gave .3 to .6


@dataclass(frozen=True, slots=True, kw_only=True)
class Payoff:
    """What wins and losses really paid, in R, shrunk towards a prior; see `fit_payoff`.

    Gross win: `win_frac * reward + win_shift + win_slope * (reward - reward_mean)`; costs are
    the plan's cost in R times `win_cost` or `loss_cost`. `slope`, `told_mean_r`, `gross_mean_r`
    and `mean_se_r` shrink the expected gross result towards what was realised; see `shrunk`.
    """

    win_frac: float
    win_shift: float
    win_slope: float
    reward_mean: float
    reward_sd: float
    loss_r: float
    win_cost: float
    loss_cost: float
    slope: float = _PRIOR_SLOPE
    told_mean_r: float = 0.0
    gross_mean_r: float = 0.0
    mean_se_r: float = 0.0

    def gross_win_r(self, reward_r: Floats) -> Floats:
        """Return the mean gross win for a reward in R; no line is followed beyond 2 sd."""
        reach = 2 * self.reward_sd
        away = np.minimum(np.maximum(reward_r - self.reward_mean, -reach), reach)
        shift = self.win_shift + self.win_slope * away
        return np.maximum(self.win_frac * reward_r + shift, 0.05)


def fit_payoff(
    r: Floats, gross_r: Floats, *, reward_r: Floats, cost_r: Floats, weight: Floats, win_frac: float
) -> Payoff:
    """Return the payoffs of closed trades, shapes (n,), `weight` summing to n_eff.

    Priors: a win pays the share closed at TP1 and nothing more, a loss pays 1 R, and costs are
    the plan's. Each is worth 20 trades. Feed rows the deciding model had not seen.
    """
    won = r > 0
    mean, sd = _moments(reward_r[won], weight[won])
    residual = gross_r[won] - win_frac * reward_r[won]
    shift = float((weight[won] * residual).sum() / (weight[won].sum() + _PRIOR_TRADES))
    slope = _ridge_slope(reward_r[won], residual, weight[won], prior=0.0, n_prior=_PRIOR_TRADES)
    excess = -gross_r[~won] - 1
    loss = 1 + float((weight[~won] * excess).sum() / (weight[~won].sum() + _PRIOR_TRADES))
    paid = gross_r - r
    return Payoff(
        win_frac=win_frac,
        win_shift=shift,
        win_slope=slope,
        reward_mean=mean,
        reward_sd=sd,
        loss_r=loss,
        win_cost=_cost_share(paid[won], cost_r[won], weight[won]),
        loss_cost=_cost_share(paid[~won], cost_r[~won], weight[~won]),
    )


def _moments(x: Floats, weight: Floats) -> tuple[float, float]:
    if not len(x) or weight.sum() <= 0:
        return 0.0, 0.0
    mean = np.average(x, weights=weight)
    return float(mean), float(np.sqrt(np.average((x - mean) ** 2, weights=weight)))


def _ridge_slope(x: Floats, y: Floats, weight: Floats, *, prior: float, n_prior: float) -> float:
    mean_x, sd_x = _moments(x, weight)
    if sd_x <= 0:
        return prior
    mean_y, _ = _moments(y, weight)
    cross = float((weight * (x - mean_x) * (y - mean_y)).sum())
    prior_square = n_prior * sd_x**2
    return (cross + prior * prior_square) / (float(weight.sum()) * sd_x**2 + prior_square)


def _cost_share(paid: Floats, cost_r: Floats, weight: Floats) -> float:
    mean, _ = _moments(cost_r, weight)
    if mean <= 0:
        return 1.0
    prior = _PRIOR_TRADES * mean
    return float(((weight * paid).sum() + prior) / ((weight * cost_r).sum() + prior))


def shrunk(
    payoff: Payoff,
    *,
    value_r: Floats,
    gross_r: Floats,
    weight: Floats,
    told: Floats,
    told_gross_r: Floats,
    told_weight: Floats,
) -> Payoff:
    """Return the payoff with the out-of-fold slope of realised on expected gross results in it.

    `value_r` is this payoff's gross value of closed trades that realised `gross_r`: it sets the
    centre. `told` are gross values said before their trades were known: they set the slope,
    clipped to [0, 1] and worth 100 trades at one half before any are seen.
    """
    slope = _ridge_slope(
        told, told_gross_r, told_weight, prior=_PRIOR_SLOPE, n_prior=_PRIOR_EV_TRADES
    )
    mean, sd = _moments(gross_r, weight)
    return replace(
        payoff,
        slope=float(np.clip(slope, 0.0, 1.0)),
        told_mean_r=_moments(value_r, weight)[0],
        gross_mean_r=mean,
        mean_se_r=sd / float(np.sqrt(max(weight.sum(), 1.0))),
    )


def p_low(p: Floats, *, n_eff: float) -> Floats:
    """Return the probability less 0.84 standard errors: about its posterior's 20 % quantile.

    A score's neighbourhood is taken to hold a tenth of the evidence `n_eff`.
    """
    return _within_1(p - Z_LOW * _error(p, n_eff))


def p_interval(p: Floats, *, n_eff: float) -> tuple[Floats, Floats]:
    """Return the 90 % interval of a probability, on the evidence that `p_low` takes."""
    away = _Z_90 * _error(p, n_eff)
    return _within_1(p - away), _within_1(p + away)


def _within_1(p: Floats) -> Floats:
    """Clip to [0, 1]; for one value this takes a third of the time of np.clip."""
    return np.minimum(np.maximum(p, 0.0), 1.0)


def _error(p: Floats, n_eff: float) -> Floats:
    return np.sqrt(p * (1 - p) / (n_eff / 10 + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """The plans to be valued, as arrays (n,): prices, the plan's cost in R, and extra costs.

    `extra_win_r` and `extra_loss_r` are what `costs_mode` adds; see `extra_costs_r`.
    """

    entry: Floats
    stop: Floats
    tp1: Floats
    cost_r: Floats
    extra_win_r: Floats
    extra_loss_r: Floats

    def of(self, rows: Bools) -> Prospect:
        """Return some of the plans."""
        return Prospect(
            entry=self.entry[rows],
            stop=self.stop[rows],
            tp1=self.tp1[rows],
            cost_r=self.cost_r[rows],
            extra_win_r=self.extra_win_r[rows],
            extra_loss_r=self.extra_loss_r[rows],
        )

    @property
    def reward_r(self) -> Floats:
        """The distance to TP1 in R."""
        return np.abs(self.tp1 - self.entry) / np.abs(self.entry - self.stop)

    @property
    def risk_frac(self) -> Floats:
        """The distance to the stop as a fraction of the entry."""
        return np.abs(self.entry - self.stop) / self.entry


def extra_costs_r(entry: float, stop: float, rates: CostRates, *, mode: str) -> tuple[float, float]:
    """Return what a costs mode adds to a win's and to a loss's cost, in R.

    `auto`: the legs as executed, nothing. `maker`: the stop is paid as maker too. `taker`: the
    entry is paid as taker.
    """
    dearer_frac = rates.taker_frac + rates.slippage_frac - rates.maker_frac
    risk = abs(entry - stop)
    if mode == "taker":
        return dearer_frac * entry / risk, dearer_frac * entry / risk
    return (0.0, -dearer_frac * stop / risk) if mode == "maker" else (0.0, 0.0)


def gross_value_r(p: Floats, prospect: Prospect, payoff: Payoff) -> Floats:
    """Return p * win - (1 - p) * loss in R, before costs and before any shrinkage."""
    return np.asarray(p * payoff.gross_win_r(prospect.reward_r) - (1 - p) * payoff.loss_r)


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """Expected values, shapes (n,): in R and in percent of notional, and their low sides."""

    ev_r: Floats
    ev_lo_r: Floats
    ev_pct: Floats
    ev_lo_pct: Floats


def expected_value(p: Floats, p_lo: Floats, *, prospect: Prospect, payoff: Payoff) -> Values:
    """Return what calibrated probabilities are worth, net of costs and shrunk.

    Gross deviations from the mean count by the out-of-fold slope, and the mean is the realised
    one. Costs are known and not shrunk. The low side takes `p_lo` and the realised mean less 0.84
    standard errors.
    """
    slope = payoff.slope
    win_r = slope * payoff.gross_win_r(prospect.reward_r)
    win_r -= payoff.win_cost * prospect.cost_r + prospect.extra_win_r
    loss_r = slope * payoff.loss_r + payoff.loss_cost * prospect.cost_r + prospect.extra_loss_r
    centre_r = payoff.gross_mean_r - slope * payoff.told_mean_r
    ev_r = centre_r - loss_r + p * (win_r + loss_r)
    ev_lo_r = centre_r - Z_LOW * payoff.mean_se_r - loss_r + p_lo * (win_r + loss_r)
    to_pct = 100 * prospect.risk_frac
    return Values(ev_r=ev_r, ev_lo_r=ev_lo_r, ev_pct=ev_r * to_pct, ev_lo_pct=ev_lo_r * to_pct)
