"""The laws of losing streaks: exact against every sequence, monotone, and against a simulation."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.streaks import longest_usual, losses_in_a_row, p_run


@pytest.mark.parametrize("win_rate", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_the_chance_is_that_of_all_sequences(n: int, win_rate: float) -> None:
    """Every sequence of wins and losses counted with its weight."""
    weights: dict[int, float] = dict.fromkeys(range(n + 1), 0.0)
    for wins in product((False, True), repeat=n):
        losses = "".join("W" if won else "L" for won in wins).split("W")
        n_won = sum(wins)
        weights[max(map(len, losses))] += win_rate**n_won * (1 - win_rate) ** (n - n_won)
    for length in range(n + 2):
        wanted = sum(weight for longest, weight in weights.items() if longest >= length)
        assert p_run(n, length, win_rate=win_rate) == pytest.approx(wanted)


@given(n=st.integers(0, 300), length=st.integers(1, 40), win_rate=st.floats(0, 1))
def test_the_chance_grows_with_trades_and_falls_with_length(
    n: int, length: int, win_rate: float
) -> None:
    """And stays a chance."""
    here = p_run(n, length, win_rate=win_rate)
    assert 0 <= here <= 1
    assert p_run(n + 1, length, win_rate=win_rate) >= here - 1e-12
    assert p_run(n, length + 1, win_rate=win_rate) <= here + 1e-12


@given(n=st.integers(1, 200), win_rate=st.floats(0.05, 0.95))
def test_the_band_is_the_shortest_that_nine_of_ten_keep(n: int, win_rate: float) -> None:
    """A longer run has at most 10 %, the band's own length more, unless it is none."""
    usual = longest_usual(n, win_rate=win_rate)
    assert usual == n or p_run(n, usual + 1, win_rate=win_rate) <= 0.1 + 1e-12
    assert usual == 0 or p_run(n, usual, win_rate=win_rate) > 0.1 - 1e-12


def test_coins_agree() -> None:
    """100 trades at 45 %, 20 000 times: the share with a run of 8 losses, within 1 point."""
    rng = np.random.default_rng(5)
    lost = rng.random((20_000, 100)) >= 0.45
    run = longest = np.zeros(20_000, np.int64)
    for k in range(100):
        run = np.where(lost[:, k], run + 1, 0)
        longest = np.maximum(longest, run)
    assert (longest >= 8).mean() == pytest.approx(p_run(100, 8, win_rate=0.45), abs=0.01)


def test_only_the_end_counts_as_a_streak() -> None:
    """A trade that ended at 0 is no win."""
    assert losses_in_a_row([]) == 0
    assert losses_in_a_row([-1, -1, 0.1]) == 0
    assert losses_in_a_row([0.1, 0.0, -1]) == 2
