"""A model's reasons in words: which features spoke for a candidate, and which against it.

A reason is (name, value, log-odds): what the feature was, and what that added to the log-odds of a
win. Values are signed along the trade, so one wording serves longs and shorts. The two halves of a
point on a circle (hour, weekday) count as one reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from core.domain import Floats

MOST = 3
_LEAST = 0.005  # log-odds; less moves a probability by at most an eighth of a percent
_CIRCLES = {"hour": ("hour_sin", "hour_cos", 24), "weekday": ("weekday_sin", "weekday_cos", 7)}
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class Reason(NamedTuple):
    """One reason; `value` is None where the feature was unknown."""

    name: str
    value: float | None
    log_odds: float


def strongest(
    names: Sequence[str], values: Floats, log_odds: Floats, *, most: int = MOST
) -> tuple[list[Reason], list[Reason]]:
    """Return the strongest reasons for and against, each strongest first. Shapes (n_features,)."""
    place = {name: i for i, name in enumerate(names)}
    shares = dict(zip(names, log_odds.tolist(), strict=True))
    for circle, (sin, cos, _) in _CIRCLES.items():
        if sin in shares and cos in shares:
            shares[circle] = shares.pop(sin) + shares.pop(cos)
    said = [name for name, share in shares.items() if abs(share) >= _LEAST]
    said.sort(key=lambda name: (-abs(shares[name]), name))
    for_it = [name for name in said if shares[name] > 0][:most]
    against = [name for name in said if shares[name] < 0][:most]

    def reasons(chosen: Sequence[str]) -> list[Reason]:
        return [
            Reason(name, _value(name, values, place), round(shares[name], 4)) for name in chosen
        ]

    return reasons(for_it), reasons(against)


def _value(name: str, values: Floats, place: Mapping[str, int]) -> float | None:
    """Return a feature's value to four digits; of a circle, its place on it."""
    if name in _CIRCLES:
        sin, cos, n = _CIRCLES[name]
        turn = math.atan2(values[place[sin]], values[place[cos]]) / (2 * math.pi) % 1
        return round(n * turn, 2) % n
    value = float(values[place[name]])
    return float(f"{value:.4g}") if math.isfinite(value) else None


# Each: what is said, with the value's place; where it reads otherwise below 0, both.
_WORDS: dict[str, str | tuple[str, str]] = {
    "is_reclaim": "setup",
    "risk_atr": "stop {:.1f} ATR away",
    "reward1_r": "TP1 pays {:.2f} R",
    "entry_depth": "entry at {:.2f} of the impulse",
    "impulse_atr": "impulse of {:.1f} ATR",
    "impulse_bars": "impulse took {:.0f} bars",
    "impulse_efficiency": "impulse straightness {:.2f}",
    "close_depth": "price at {:.2f} of the impulse",
    "deepest_depth": "pullback reached {:.2f}",
    "p1_age_bars": "extreme is {:.0f} bars old",
    "cost_r": "costs {:.3f} R",
    "p_mart": "coin flip at {:.2f}",
    "atr_pct": "ATR {:.2f} % of price",
    "volatility_ratio": "range now {:.2f}x usual",
    "volatility_rank": "volatility rank {:.2f}",
    "impulse_volume_ratio": "impulse volume {:.2f}x",
    "pullback_volume_ratio": "pullback volume {:.2f}x",
    "avwap_close_atr": ("{:.1f} ATR beyond AVWAP", "{:.1f} ATR short of AVWAP"),
    "avwap_entry_atr": ("entry {:.1f} ATR beyond AVWAP", "entry {:.1f} ATR short of AVWAP"),
    "leader_return_12": ("BTC with it, {:.2%} in 12 bars", "BTC against it, {:.2%} in 12 bars"),
    "leader_return_48": ("BTC with it, {:.2%} in 48 bars", "BTC against it, {:.2%} in 48 bars"),
    "funding_8h_pct": ("funding costs {:.3f} % per 8 h", "funding pays {:.3f} % per 8 h"),
    "funding_3d_pct": ("3-day funding costs {:.3f} %", "3-day funding pays {:.3f} %"),
    "basis_pct": ("basis {:.2f} % with it", "basis {:.2f} % against it"),
    "open_interest_change_24h": ("open interest up {:.1%}", "open interest down {:.1%}"),
}
_TREND = {
    "ema_distance_atr": ("{} trend with it, {:.1f} ATR", "{} trend against it, {:.1f} ATR"),
    "ema_slope_atr": ("{} slope with it, {:.2f}", "{} slope against it, {:.2f}"),
    "efficiency": ("{} moves straight with it", "{} moves straight against it"),
}
_FRAMES = {"own": "own-TF", "higher1": "higher-TF", "higher2": "top-TF"}


def words(name: str, value: float | None) -> str:
    """Return a reason as a few words for a person; a name without words is said as it is.

    >>> words("higher1_ema_distance_atr", -1.26)
    'higher-TF trend against it, 1.3 ATR'
    """
    if value is None:
        return f"{name.replace('_', ' ')} unknown"
    if name == "hour":
        return f"hour {value:.0f} UTC"
    if name == "weekday":
        return _DAYS[round(value) % 7]
    if name == "is_reclaim":
        return "setup is a reclaim" if value else "setup is a limit"
    frame, _, measure = name.partition("_")
    if frame in _FRAMES and measure in _TREND:
        return _TREND[measure][value < 0].format(_FRAMES[frame], abs(value))
    said = _WORDS.get(name, name.replace("_", " ") + " {:.3g}")
    return said.format(value) if isinstance(said, str) else said[value < 0].format(abs(value))
