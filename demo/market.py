"""A generated crypto market of 1m candles: driftless, or with a drift of known strength.

Prices are continuous paths with stochastic volatility. Without drift each price is a martingale
(not its logarithm), so every trade on it earns minus its costs. With drift the same shocks move
the same volatility, and hidden trend regimes push each symbol: the edge is in the prices alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.compiled import njit
from core.domain import Bools, Candles, Floats
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS

DAY_MINUTES = DAY_MS // MINUTE_MS
PLANTED_DRIFT_SIGMAS = 1.2
SUB_STEPS = 16
MARKET_VOL = ((36 * 60, 0.25), (20, 0.15))  # log-OU: half-life in minutes, standard deviation
OWN_VOL = ((12 * 60, 0.15), (15, 0.15))
CALM_DAYS, STORM_DAYS, STORM_FACTOR = 4.0, 1.0, 1.7
JUMPS_PER_DAY, JUMP_SIGMAS = 0.3, 0.2  # market-wide and once more per symbol; in daily sigmas
LONE_HOLES_PER_100_DAYS = 6.0
SHORT_OUTAGE_MINUTES = 12

Trends = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Asset:
    """One symbol. `loading` is its correlation with the common factor, in [0, 1).

    `sigma_day_pct` is the root-mean-square daily move without jumps; `volume_qty` is that of a
    typical minute. By custom the last asset of a market is the least liquid.
    """

    symbol: str
    start_price: float
    tick: float
    sigma_day_pct: float
    loading: float
    volume_qty: float

    def __post_init__(self) -> None:
        """Refuse a tick whose inverse is not whole: prices are written as n / (1 / tick)."""
        if abs(self.ticks_per_unit * self.tick - 1) > 1e-9:
            raise ValueError(f"{self.symbol}: tick {self.tick} must be 1/n with a whole n")
        if not 0 <= self.loading < 1:
            raise ValueError(f"{self.symbol}: loading {self.loading} must lie in [0, 1)")

    @property
    def ticks_per_unit(self) -> int:
        """How many ticks make one unit of quote currency."""
        return round(1 / self.tick)


ASSETS = (  # start price, tick, sigma_day_pct, loading, volume_qty
    Asset("BTC/USDT:USDT", 62_000.0, 0.1, 2.8, 0.88, 60.0),
    Asset("ETH/USDT:USDT", 3_100.0, 0.01, 3.4, 0.90, 700.0),
    Asset("SOL/USDT:USDT", 150.0, 0.001, 4.2, 0.80, 6_000.0),
    Asset("BNB/USDT:USDT", 580.0, 0.001, 3.0, 0.78, 500.0),
    Asset("XRP/USDT:USDT", 0.62, 0.000001, 3.9, 0.76, 900_000.0),
    Asset("ADA/USDT:USDT", 0.45, 0.000001, 4.1, 0.80, 600_000.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketSpec:
    """Everything that decides a generated market; equal specs give bit-identical candles.

    `drift_sigmas` is the drift inside a trend, in standard deviations per day (0: no edge).
    `trend_days` and `rest_days` are the mean lengths of the hidden regimes. Outages stay out of
    the last `quiet_days`, but for one short one.
    """

    start_ms: int
    days: int
    seed: int
    drift_sigmas: float = 0.0
    assets: tuple[Asset, ...] = ASSETS
    trend_days: float = 8.0
    rest_days: float = 2.0
    outages_per_100_days: float = 5.0
    quiet_days: int = 40

    def __post_init__(self) -> None:
        """Refuse a start off the minute grid, and an empty market."""
        if self.start_ms % MINUTE_MS:
            raise ValueError(f"start_ms {self.start_ms} must be a whole minute")
        if self.days < 1 or not self.assets:
            raise ValueError(f"want at least one day and one asset, got {self.days} days")

    @property
    def n_minutes(self) -> int:
        """How many minutes the market lasts, holes included."""
        return self.days * DAY_MINUTES

    @property
    def end_ms(self) -> int:
        """The close of the last minute."""
        return self.start_ms + self.days * DAY_MS


def planted(spec: MarketSpec, drift_sigmas: float = PLANTED_DRIFT_SIGMAS) -> MarketSpec:
    """Return the same market with drift: same seed, shocks, volatility and holes."""
    return replace(spec, drift_sigmas=drift_sigmas)


def generate(spec: MarketSpec) -> dict[str, Candles]:
    """Return the market's 1m candles by symbol, on the tick grid, with its holes left out.

    A bar's extremes are those of a continuous path: each minute is walked in `SUB_STEPS`
    Gaussian steps, and the extremes between two of them follow the law of a Brownian bridge.
    """
    chance = _streams(spec.seed)
    minutes = np.arange(spec.n_minutes, dtype=np.int64)
    ts_ms = spec.start_ms + minutes * MINUTE_MS
    sigma = _volatility(spec, ts_ms, chance["volatility"])
    drift = sigma * _trends(spec, chance["trends"]) * (spec.drift_sigmas / np.sqrt(DAY_MINUTES))
    jumps = _jumps(spec, chance["jumps"])
    loading = np.array([asset.loading for asset in spec.assets])
    paths = _walk(chance["shocks"], np.hypot(sigma, jumps), drift, loading, SUB_STEPS)
    kept = _kept(spec, chance["holes"])
    candles = {}
    for row, asset in enumerate(spec.assets):
        o, h, low, c = _prices(paths[:, row], asset)
        volume = _volume(asset, sigma[row], (h - low) / o, rng=chance["volume"])
        rows = kept[row]
        candles[asset.symbol] = Candles(
            "1m", ts_ms[rows], o[rows], h[rows], low[rows], c[rows], volume[rows]
        )
    return candles


def trend_regimes(spec: MarketSpec) -> dict[str, Trends]:
    """Return each symbol's hidden regime per minute: 1 up, -1 down, 0 none; holes included.

    For measuring only: nothing that trades or trains may see it.
    """
    rows = _trends(spec, _streams(spec.seed)["trends"])
    return {asset.symbol: row for asset, row in zip(spec.assets, rows, strict=True)}


def describe(spec: MarketSpec) -> dict[str, Any]:
    """Return the strength of the planted drift in figures a person can judge.

    `p_target_*` is the chance that +1.5 % comes before -1.0 % at the symbols' mean volatility,
    inside an unending trend along or against the trade; a coin flip has 0.4.
    """
    sigmas_pct = {asset.symbol: asset.sigma_day_pct for asset in spec.assets}
    mean_pct = sum(sigmas_pct.values()) / len(sigmas_pct)
    in_trend = [float(np.mean(row != 0)) for row in trend_regimes(spec).values()]
    return {
        "days": spec.days,
        "seed": spec.seed,
        "symbols": list(sigmas_pct),
        "drift_sigmas_per_day": spec.drift_sigmas,
        "drift_pct_per_day": {s: spec.drift_sigmas * pct for s, pct in sigmas_pct.items()},
        "sigma_pct_per_day": sigmas_pct,
        "mean_trend_days": spec.trend_days,
        "share_in_trend": sum(in_trend) / len(in_trend),
        "p_target_aligned": first_passage_p(1.5, 1.0, 2 * spec.drift_sigmas / mean_pct),
        "p_target_opposed": first_passage_p(1.5, 1.0, -2 * spec.drift_sigmas / mean_pct),
    }


def first_passage_p(target: float, stop: float, tilt: float) -> float:
    """Return the chance that a drifting Brownian path gains `target` before it loses `stop`.

    `tilt` is 2 x drift / variance, per unit of distance.

    Source: Karatzas & Shreve 1991, Brownian Motion and Stochastic Calculus, sec. 5.5.C.

    >>> first_passage_p(1.5, 1.0, 0.0), round(first_passage_p(1.0, 1.0, np.log(3.0)), 12)
    (0.4, 0.75)
    """
    if tilt == 0:
        return stop / (stop + target)
    return float(np.expm1(tilt * stop) / (np.exp(tilt * stop) - np.exp(-tilt * target)))


def _streams(seed: int) -> Mapping[str, np.random.Generator]:
    # One stream per subject, so that a setting of one leaves the draws of the others alone.
    names = ("volatility", "trends", "jumps", "shocks", "volume", "holes")
    seeds = np.random.SeedSequence(seed).spawn(len(names))
    return {
        name: np.random.Generator(np.random.SFC64(child))
        for name, child in zip(names, seeds, strict=True)
    }


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _walk(
    rng: np.random.Generator, sigma: Floats, drift: Floats, loading: Floats, n_sub: int
) -> Floats:
    """Return log open, high, low, close relative to the start: (4, symbols, minutes).

    `sigma` and `drift` (symbols, minutes) are per minute and fixed before the minute begins, so
    -sigma^2/2 makes exp(path) a martingale where the drift is 0. The two extremes of one sub-step
    are drawn apart: each has its exact law, and both rarely belong to the same sub-step.

    Source: Glasserman 2003, Monte Carlo Methods in Financial Engineering, sec. 6.4 (extremes).
    """
    n_symbols, n = sigma.shape
    out = np.empty((4, n_symbols, n))
    rest = np.sqrt(1.0 - loading * loading)
    at, top, bottom = np.zeros(n_symbols), np.empty(n_symbols), np.empty(n_symbols)
    sd, shift = np.empty(n_symbols), np.empty(n_symbols)
    for t in range(n):
        for s in range(n_symbols):
            sd[s] = sigma[s, t] / np.sqrt(n_sub)
            shift[s] = drift[s, t] / n_sub - 0.5 * sd[s] * sd[s]
            out[0, s, t] = top[s] = bottom[s] = at[s]
        for _ in range(n_sub):
            common = rng.standard_normal()
            for s in range(n_symbols):
                shock = loading[s] * common + rest[s] * rng.standard_normal()
                step = sd[s] * shock + shift[s]
                middle, spread = at[s] + 0.5 * step, 2.0 * sd[s] * sd[s]
                above = np.sqrt(step * step + spread * rng.standard_exponential())
                below = np.sqrt(step * step + spread * rng.standard_exponential())
                top[s] = max(top[s], middle + 0.5 * above)
                bottom[s] = min(bottom[s], middle - 0.5 * below)
                at[s] += step
        for s in range(n_symbols):
            out[1, s, t], out[2, s, t], out[3, s, t] = top[s], bottom[s], at[s]
    return out


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _autoregression(shocks: Floats, keep: float, sd: float) -> Floats:
    """Return a stationary AR(1) path with standard deviation `sd` from unit shocks."""
    out = np.empty_like(shocks)
    fresh = sd * np.sqrt(1.0 - keep * keep)
    level = sd * shocks[0]
    out[0] = level
    for i in range(1, len(shocks)):
        level = keep * level + fresh * shocks[i]
        out[i] = level
    return out


def _log_vol(rng: np.random.Generator, n: int, parts: tuple[tuple[int, float], ...]) -> Floats:
    # Centred so that exp(2 x) has mean 1: the variance, not the volatility, is the quoted one.
    total = np.zeros(n)
    for half_life, sd in parts:
        total += _autoregression(rng.standard_normal(n), 0.5 ** (1 / half_life), sd) - sd * sd
    return total


def _volatility(spec: MarketSpec, ts_ms: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """Return each symbol's standard deviation per minute, (symbols, minutes), before jumps."""
    n = spec.n_minutes
    market = np.exp(_log_vol(rng, n, MARKET_VOL)) * _storms(rng, n) * _intraday(ts_ms)
    out = np.empty((len(spec.assets), n))
    for row, asset in enumerate(spec.assets):
        usual = asset.sigma_day_pct / 100 / np.sqrt(DAY_MINUTES)
        out[row] = usual * market * np.exp(_log_vol(rng, n, OWN_VOL))
    return out


def _storms(rng: np.random.Generator, n: int) -> Floats:
    """Return the factor of the market's volatility regimes, calm or storm; mean square 1."""
    states = _regimes(rng, n, mean_days=(CALM_DAYS, STORM_DAYS), turns=((1,), (0,)))
    share = STORM_DAYS / (CALM_DAYS + STORM_DAYS)
    mean_square = 1 - share + share * STORM_FACTOR**2
    factors: Floats = np.where(states == 1, STORM_FACTOR, 1.0) / np.sqrt(mean_square)
    return factors


def _intraday(ts_ms: NDArray[np.int64]) -> Floats:
    """Return the day's pattern of volatility, busiest about 15:00 UTC; mean square 1."""
    hour = ts_ms % DAY_MS / HOUR_MS
    turn = 2 * np.pi / 24
    daily, half_daily = 0.35, 0.12
    shape = (
        1 + daily * np.cos(turn * (hour - 15)) + half_daily * np.cos(2 * turn * (hour - 14.5))
    ) / np.sqrt(1 + (daily**2 + half_daily**2) / 2)
    return np.asarray(shape, dtype=np.float64)


def _jumps(spec: MarketSpec, rng: np.random.Generator) -> Floats:
    """Return the extra standard deviation of jump minutes, (symbols, minutes); mostly 0.

    A jump is one violent minute with a continuous path inside: an order resting in its way is
    filled at its price, as it is in a deep book, and the path stays a martingale.
    """
    n = spec.n_minutes
    common = rng.random(n) < JUMPS_PER_DAY / DAY_MINUTES
    out = np.zeros((len(spec.assets), n))
    for row, asset in enumerate(spec.assets):
        minutes = np.flatnonzero(common | (rng.random(n) < JUMPS_PER_DAY / DAY_MINUTES))
        sizes = JUMP_SIGMAS * np.exp(0.4 * rng.standard_normal(len(minutes)))
        out[row, minutes] = sizes * asset.sigma_day_pct / 100
    return out


def _trends(spec: MarketSpec, rng: np.random.Generator) -> Trends:
    """Return the hidden trend of each symbol and minute, (symbols, minutes): 1, -1 or 0."""
    means = (spec.rest_days, spec.trend_days, spec.trend_days)
    turns = ((1, 2), (0, 2), (0, 1))
    signs = np.array([0, 1, -1], dtype=np.int8)
    rows = [_regimes(rng, spec.n_minutes, mean_days=means, turns=turns) for _ in spec.assets]
    return signs[np.stack(rows)]


def _regimes(
    rng: np.random.Generator,
    n: int,
    *,
    mean_days: tuple[float, ...],
    turns: tuple[tuple[int, ...], ...],
) -> NDArray[np.int8]:
    """Return a Markov chain's state per minute: exponential stays, then an even choice of turns."""
    out = np.empty(n, dtype=np.int8)
    at, state = 0, int(rng.integers(len(mean_days)))
    while at < n:
        end = at + 1 + int(rng.exponential(mean_days[state] * DAY_MINUTES))
        out[at:end] = state
        at, state = end, int(rng.choice(turns[state]))
    return out


def _prices(logs: Floats, asset: Asset) -> Floats:
    """Return a (4, n) log path as prices on the tick grid; rounding keeps highs above lows."""
    per_unit = asset.ticks_per_unit
    return np.rint(np.exp(logs) * (asset.start_price * per_unit)) / per_unit


def _volume(asset: Asset, sigma: Floats, range_frac: Floats, *, rng: np.random.Generator) -> Floats:
    """Return volumes in base units: larger in volatile hours and in wide minutes, never 0."""
    usual = asset.sigma_day_pct / 100 / np.sqrt(DAY_MINUTES)
    mean_range = sigma * np.sqrt(8 / np.pi)  # of a Brownian path (Feller 1951)
    noise = np.exp(0.45 * rng.standard_normal(len(sigma)))
    qty = asset.volume_qty * (sigma / usual) * (range_frac / mean_range) ** 0.7 * noise
    return np.asarray(np.maximum(np.round(qty, 3), 0.001))


def _kept(spec: MarketSpec, rng: np.random.Generator) -> Bools:
    """Return which minutes exist, (symbols, minutes): outages hit all, lone holes the last."""
    kept = np.ones((len(spec.assets), spec.n_minutes), dtype=np.bool_)
    if spec.outages_per_100_days == 0:
        return kept
    first, last = DAY_MINUTES, spec.n_minutes - spec.quiet_days * DAY_MINUTES
    if last > first:
        share = (last - first) / DAY_MINUTES / 100
        for at in rng.integers(first, last - 90, round(spec.outages_per_100_days * share)):
            kept[:, at : at + rng.integers(20, 91)] = False
        kept[-1, rng.integers(first, last, round(LONE_HOLES_PER_100_DAYS * share))] = False
    quiet_minutes = min(spec.quiet_days, spec.days) * DAY_MINUTES
    at = spec.n_minutes - quiet_minutes + int(quiet_minutes * rng.uniform(0.3, 0.7))
    kept[:, at : at + SHORT_OUTAGE_MINUTES] = False
    return kept
