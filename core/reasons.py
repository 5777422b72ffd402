"""What a feature says of a candidate, in words a trader reads."""

from __future__ import annotations


def words(feature: str, value: float) -> str:
    """Return one feature and its value in words.

    >>> words("cost_r", 0.081)
    'cost r 0.081'
    """
    return f"{feature.replace('_', ' ')} {value:.3g}"
