"""Lengths of time, prices, reasons and records as people read them; no figure is made here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from core.bootstrap import LEVEL
from core.reasons import words
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS

NOTHING = "–"


def local_times(ts_ms: Any, zone: str) -> pd.DatetimeIndex:
    """Return UTC ms as wall times of a zone, without the zone: Plotly's axes know none."""
    utc = pd.to_datetime(pd.Series(ts_ms, dtype="int64"), unit="ms", utc=True)
    return pd.DatetimeIndex(utc.dt.tz_convert(zone).dt.tz_localize(None))


def local_time(ts_ms: int, zone: str) -> pd.Timestamp:
    """Return one instant as the wall time of a zone."""
    return pd.Timestamp(local_times([ts_ms], zone)[0])


def clock_text(ms: float | None, zone: str) -> str:
    """Return an instant in a zone, to the minute."""
    return "unknown" if _absent(ms) else f"{local_time(int(ms or 0), zone):%Y-%m-%d %H:%M}"


def utc_text(ms: float | None) -> str:
    """Return an instant as UTC, for a hover beside the owner's time."""
    return "unknown" if _absent(ms) else f"{clock_text(ms, 'UTC')} UTC"


def span(ms: float | None) -> str:
    """Return a length of time in one or two units.

    >>> span(95 * 60_000), span(-30_000)
    ('1 h 35 min', '30 s')
    """
    if _absent(ms):
        return "unknown"
    whole = int(abs(ms or 0))
    units = (("d", DAY_MS, "h", HOUR_MS), ("h", HOUR_MS, "min", MINUTE_MS))
    for unit, length, smaller, part in units:
        if whole >= length:
            return f"{whole // length} {unit} {whole % length // part} {smaller}"
    return f"{whole // MINUTE_MS} min" if whole >= MINUTE_MS else f"{whole // 1000} s"


def _absent(ms: float | None) -> bool:
    return ms is None or bool(pd.isna(ms))


def price_text(price: float | None) -> str:
    """Return a price to the digits that matter."""
    if price is None or not math.isfinite(price):
        return NOTHING
    return f"{price:,.6g}" if abs(price) < 1e6 else f"{price:,.0f}"


def size_text(n_bytes: float) -> str:
    """Return a size in bytes with its unit.

    >>> size_text(1_500_000)
    '1.5 MB'
    """
    for unit in ("B", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.2f} GB"


def why_of(text: str) -> Mapping[str, Any]:
    """Return what a score rests on, from its column; empty without one."""
    return dict(json.loads(text)) if text else {}


def reasons(why: Mapping[str, Any], side: str) -> list[str]:
    """Return the reasons `for` or `against` in words, strongest first."""
    return [words(str(name), value) for name, value, _ in why.get(side, ())]


def band_text(why: Mapping[str, Any]) -> str:
    """Return the out-of-sample record of scores like this one, with n and intervals."""
    band = why.get("band")
    if not band:
        return "No record yet of scores like this one."
    return (
        f"Scores like this one, out of sample: win-rate {_share(band, 'win_rate')},"
        f" {_coin(band)}net {_mean(band, 'mean_r')} R a trade, n {band['n']}"
        f" (n_eff {_whole(band['n_eff'])}), {LEVEL:.0%} intervals."
    )


def _coin(band: Mapping[str, Any]) -> str:
    coin = band.get("p_mart")
    return f"coin flip {'unknown' if coin is None else f'{coin:.0%}'}, "


def _share(band: Mapping[str, Any], name: str) -> str:
    return _ranged(band, name, lambda value: f"{value:.0%}")


def _mean(band: Mapping[str, Any], name: str) -> str:
    return _ranged(band, name, lambda value: f"{value:+.2f}")


def _ranged(band: Mapping[str, Any], name: str, write: Any) -> str:
    value, low, high = (band.get(key) for key in (name, f"{name}_lo", f"{name}_hi"))
    if value is None:
        return NOTHING
    bounds = "no interval" if low is None or high is None else f"{write(low)}, {write(high)}"
    return f"{write(value)} [{bounds}]"


def _whole(value: float) -> int:
    return int(value) if math.isfinite(value) else 0
