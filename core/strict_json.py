"""Values as strict JSON takes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """Return a value as JSON takes it: tuples as lists, and None for numbers that do not exist.

    >>> plain({"a": (1.5, float("nan")), "n": np.int64(3)})
    {'a': [1.5, None], 'n': 3}
    """
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
