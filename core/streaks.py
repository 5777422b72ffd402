"""Runs of losses: how long a record of this length and win-rate holds by chance alone."""

from __future__ import annotations

from collections.abc import Iterable

from core.bootstrap import LEVEL


def losses_in_a_row(results_r: Iterable[float]) -> int:
    """Return how many trades at the end, oldest first, did not end above 0.

    >>> losses_in_a_row([-1.0, 2.0, -1.0, 0.0])
    2
    """
    run = 0
    for r in results_r:
        run = 0 if r > 0 else run + 1
    return run


def p_run(n: int, length: int, *, win_rate: float) -> float:
    """Return the chance that `n` independent trades hold a run of at least `length` losses.

    Exact: a first run of that length ends at trade k where the trade before it was won and none
    was complete until then. Source: Feller 1968, An Introduction to Probability Theory, XIII.7.

    >>> p_run(3, 2, win_rate=0.5)
    0.375
    """
    if length <= 0:
        return 1.0
    loss = (1 - win_rate) ** length
    free = [1.0] * min(length, n + 1)  # the chance that the first k trades hold none
    for k in range(length, n + 1):
        begun = 1.0 if k == length else win_rate * free[k - length - 1]
        free.append(free[k - 1] - begun * loss)
    return min(1.0, max(0.0, 1 - free[n]))


def longest_usual(n: int, *, win_rate: float, level: float = LEVEL) -> int:
    """Return the run of losses that a share `level` of such records do not exceed."""
    length = 0
    while length < n and p_run(n, length + 1, win_rate=win_rate) > 1 - level:
        length += 1
    return length
