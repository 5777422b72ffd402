"""The evidence meter as a picture: an interval of mean net R against zero."""

from __future__ import annotations

import math

from core.bootstrap import LEVEL
from core.views.evidence import Meter

_WIDTH, _HEIGHT, _MARGIN = 360, 34, 10
_RED, _GREEN, _GREY = "#e05252", "#1f9d83", "#8a8f98"
_LEAST_R = 0.2  # the axis reaches at least this far on both sides of 0


def meter_text(found: Meter) -> str:
    """Return the figure with its interval and sample size."""
    m = found.metrics
    if m is None:
        return "no closed trade yet"
    bounds = f"[{m.mean_r_lo:+.2f}, {m.mean_r_hi:+.2f}]" if math.isfinite(m.mean_r_lo) else "[?]"
    return f"{m.mean_r:+.2f} R {bounds}"


def sample_text(found: Meter) -> str:
    """Return what the figure rests on."""
    m = found.metrics
    if m is None:
        return "n 0"
    return f"n {m.n:,}, n_eff {int(m.n_eff):,}, {m.n_weeks} weeks, {LEVEL:.0%} interval"


def meter_svg(found: Meter) -> str:
    """Return the interval as a bar against 0: grey while it holds 0, else green or red."""
    m = found.metrics
    known = m is not None and math.isfinite(m.mean_r_lo) and math.isfinite(m.mean_r_hi)
    values = [m.mean_r_lo, m.mean_r, m.mean_r_hi] if m is not None and known else []
    reach = max([_LEAST_R, *map(abs, values)]) * 1.1

    def x(r: float) -> float:
        return round(_MARGIN + (r + reach) / (2 * reach) * (_WIDTH - 2 * _MARGIN), 1)

    parts = [
        f'<rect x="{_MARGIN}" y="11" width="{_WIDTH - 2 * _MARGIN}" height="1" fill="{_GREY}"'
        ' opacity="0.5"/>',
        f'<rect x="{x(0) - 1}" y="2" width="2" height="19" fill="{_GREY}"/>',
        _word(x(0), "0"),
    ]
    if values:
        low, mean, high = values
        colour = _GREEN if low > 0 else _RED if high < 0 else _GREY
        width = max(1.0, round(x(high) - x(low), 1))
        parts += [
            f'<rect x="{x(low)}" y="8" width="{width}" height="7" fill="{colour}" opacity="0.55"/>',
            f'<rect x="{x(mean) - 1.5}" y="4" width="3" height="15" fill="{colour}"/>',
        ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
        f' width="{_WIDTH}" height="{_HEIGHT}">{"".join(parts)}</svg>'
    )


def _word(x: float, text: str) -> str:
    return (
        f'<text x="{x}" y="32" font-family="sans-serif" font-size="10" fill="{_GREY}"'
        f' text-anchor="middle">{text}</text>'
    )
