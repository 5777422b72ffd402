"""Timeframes as ccxt writes them (`1m`, `15m`, `4h`, `1d`) and the UTC grid they lie on."""

from __future__ import annotations

from functools import cache

from core.errors import ConfigError

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
_UNIT_MS = {"m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS}


@cache
def tf_ms(timeframe: str) -> int:
    """Return the length of a timeframe in ms.

    Raises ConfigError unless it is a whole number of minutes, hours or days that divides a day.

    >>> tf_ms("15m"), tf_ms("1d")
    (900000, 86400000)
    """
    count, unit = timeframe[:-1], timeframe[-1:]
    if unit not in _UNIT_MS or not count.isdigit() or int(count) == 0:
        raise ConfigError(
            f"timeframe {timeframe!r} is not known;", remedy="write 1m, 15m, 4h or 1d"
        )
    length = int(count) * _UNIT_MS[unit]
    if DAY_MS % length:
        raise ConfigError(
            f"timeframe {timeframe!r} does not divide a day;", remedy="use one that does, up to 1d"
        )
    return length


def floor_ms(instant_ms: int, step_ms: int) -> int:
    """Return the last grid point at or before an instant; grids start at the UTC epoch."""
    return instant_ms - instant_ms % step_ms


def is_derivable(timeframe: str, base: str) -> bool:
    """Say whether bars of `timeframe` can be made from bars of `base`."""
    return tf_ms(timeframe) > tf_ms(base) and tf_ms(timeframe) % tf_ms(base) == 0


def higher_timeframes(timeframe: str) -> tuple[str, str]:
    """Return the two context timeframes of a signal timeframe: the shipped grid's next two steps.

    About 4x and 16x (the spans `docs/decisions` names), clipped to a day.

    >>> higher_timeframes("15m")
    ('1h', '4h')
    """
    ladder = ("1m", "5m", "15m", "1h", "4h", "1d")
    own = tf_ms(timeframe)
    above = [step for step in ladder if tf_ms(step) >= 3 * own and DAY_MS % tf_ms(step) == 0]
    first = above[0] if above else "1d"
    second = above[1] if len(above) > 1 else "1d"
    return first, second
