"""What a long test records of itself: docs/proof.md shows it as the figure of a claim."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Record = Callable[[str, object], None]
"""The fixture `record_property`: a name and its value."""


def with_error(values: Sequence[float], *, digits: int = 3) -> str:
    """Return the mean and its standard error."""
    of = np.asarray(values)
    error = of.std(ddof=1) / len(of) ** 0.5
    return f"{of.mean():+.{digits}f} ± {error:.{digits}f} ({len(of)} worlds)"
