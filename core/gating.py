"""What passes: expected value from a probability, the limit in force, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from core.config import Config, Gating, GatingOverride
from core.costs import CostRates
from core.domain import Bools, Candidate, Evidence, Floats, Gate, Score, Verdict

Mode = Literal["ev", "p"]
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
    return _mixed(p, payoff.gross_win_r(prospect.reward_r), -payoff.loss_r)


def _mixed(p: Floats, of_win: Floats, of_loss: Floats | float) -> Floats:
    """Return the mean of a win with chance p and a loss otherwise."""
    return np.asarray(p * of_win + (1 - p) * of_loss)


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
    win_r = payoff.gross_win_r(prospect.reward_r)
    costs_r = (
        payoff.win_cost * prospect.cost_r + prospect.extra_win_r,
        payoff.loss_cost * prospect.cost_r + prospect.extra_loss_r,
    )
    ev_r = _shrunk_value_r(p, win_r, costs_r, payoff)
    ev_lo_r = _shrunk_value_r(p_lo, win_r, costs_r, payoff) - Z_LOW * payoff.mean_se_r
    to_pct = 100 * prospect.risk_frac
    return Values(ev_r=ev_r, ev_lo_r=ev_lo_r, ev_pct=ev_r * to_pct, ev_lo_pct=ev_lo_r * to_pct)


def _shrunk_value_r(
    p: Floats, win_r: Floats, costs_r: tuple[Floats, Floats], payoff: Payoff
) -> Floats:
    away = _mixed(p, win_r, -payoff.loss_r) - payoff.told_mean_r
    gross = payoff.gross_mean_r + payoff.slope * away
    return np.asarray(gross - _mixed(p, *costs_r))


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A limit the tuner proved, or could not prove, for one cell; `value` None: no limit found."""

    mode: Mode
    value: float | None
    certified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The limit in force for a candidate, which entry decided it, and whether that is proven."""

    value: float
    mode: Mode
    where: str
    certified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the gate needs to know of a candidate."""

    symbol: str
    timeframe: str
    regime: str
    cost_r: float

    @classmethod
    def of(cls, candidate: Candidate) -> Facts:
        """Return the facts of a candidate just found."""
        series = candidate.series
        return cls(
            symbol=series.symbol,
            timeframe=series.timeframe,
            regime=candidate.regime,
            cost_r=candidate.plan.cost_r,
        )


def cell_name(symbol: str, timeframe: str) -> str:
    """Return the name of a cell of `per_pair_tf`, as certificates and tunings are keyed."""
    return f"{symbol} {timeframe}"


def regime_cell(part: str) -> str:
    """Return the name of the cell of one trend or volatility state."""
    return f"regime {part}"


def limit_of(
    gating: Gating, facts: Facts, *, bundle: str | None, certificates: Mapping[str, Certificate]
) -> Limit:
    """Return the limit a candidate must reach.

    Of the owner's entries that apply the most specific one wins over every tuner entry; then the
    most specific tuner entry of the current bundle; then the plain keys. On top applies the
    strictest of the owner's entries for the regime's trend and volatility, and, over a proven
    limit, of the bundle's own proven ones.
    """
    mode: Mode = "ev" if gating.use_ev else "p"
    plain = gating.min_ev_pct if mode == "ev" else gating.threshold
    base = Limit(value=plain, mode=mode, where="plain keys", certified=False)
    for cell, entry in _entries(gating, facts, mode):
        if entry.source == "owner":
            base = Limit(
                value=_value(entry, mode), mode=mode, where=f"owner {cell}", certified=False
            )
            break
    else:
        base = _tuned(gating, facts, mode, bundle=bundle, certificates=certificates) or base
    return _with_regime(gating, facts, base, certificates)


def _value(entry: GatingOverride, mode: Mode) -> float:
    value = entry.min_ev_pct if mode == "ev" else entry.threshold
    return float("nan") if value is None else value


def _entries(gating: Gating, facts: Facts, mode: Mode) -> list[tuple[str, GatingOverride]]:
    """Entries that apply and speak of this mode, the most specific first."""
    places = (
        (facts.symbol, facts.timeframe),
        (facts.symbol, "*"),
        ("*", facts.timeframe),
        ("*", "*"),
    )
    found = [
        (cell_name(symbol, timeframe), gating.per_pair_tf.get(symbol, {}).get(timeframe))
        for symbol, timeframe in places
    ]
    return [(cell, e) for cell, e in found if e is not None and not np.isnan(_value(e, mode))]


def _tuned(
    gating: Gating,
    facts: Facts,
    mode: Mode,
    *,
    bundle: str | None,
    certificates: Mapping[str, Certificate],
) -> Limit | None:
    for cell, entry in _entries(gating, facts, mode):
        if bundle is None or entry.bundle != bundle:
            continue
        value, proof = _value(entry, mode), certificates.get(cell)
        proven = proof is not None and proof.certified and proof.mode == mode
        same = proof is not None and proof.value is not None and abs(proof.value - value) < 1e-9
        return Limit(value=value, mode=mode, where=f"tuner {cell}", certified=proven and same)
    return None


def _with_regime(
    gating: Gating, facts: Facts, base: Limit, certificates: Mapping[str, Certificate]
) -> Limit:
    entries = {str(name): entry for name, entry in gating.per_regime.items()}
    for part in facts.regime.split("/"):
        proof = certificates.get(regime_cell(part)) if base.certified else None
        if proof is not None and proof.certified and proof.mode == base.mode:
            base = _stricter(base, proof.value, where=f"tuner regime {part}", certified=True)
    for part in facts.regime.split("/"):
        entry = entries.get(part)
        if entry is not None:
            value = entry.min_ev_pct if base.mode == "ev" else entry.threshold
            base = _stricter(base, value, where=f"regime {part}", certified=False)
    return base


def _stricter(base: Limit, value: float | None, *, where: str, certified: bool) -> Limit:
    if value is None or value <= base.value:
        return base
    return Limit(value=value, mode=base.mode, where=where, certified=certified)


def verdict(
    facts: Facts,
    score: Score | None,
    *,
    config: Config,
    bundle: str | None,
    certificates: Mapping[str, Certificate],
) -> Verdict:
    """Return the gate's verdict: of the plan's cost, and of the model where there is one.

    A NaN value never passes. Evidence is CERTIFIED only where the deciding entry is the tuner's,
    of the current bundle, and proven; a candidate without a score is UNGATED.
    """
    meta, too_dear = config.models.meta, facts.cost_r > config.signals.max_cost_r
    if score is None or bundle is None or not meta.enabled:
        gate, reason = (Gate.REJECT, "cost") if too_dear else (Gate.PASS, "ungated")
        return Verdict(gate=gate, reason=reason, evidence=Evidence.UNGATED)
    limit = limit_of(meta.gating, facts, bundle=bundle, certificates=certificates)
    evidence = Evidence.CERTIFIED if limit.certified else Evidence.UNCERTIFIED
    reached = score.ev_lo_pct if limit.mode == "ev" else score.p
    gate, reason = Gate.REJECT, limit.mode
    if too_dear:
        reason = "cost"
    elif reached >= limit.value:
        gate, reason = Gate.PASS, "passed"
    return Verdict(gate=gate, reason=reason, evidence=evidence, score=score)
