"""What holds for every test: none is judged by how long it took, and the dearest start first."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

_UNSAID_MINUTES = 0.5


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, bool | None, bool | None]:
    """Undo what commands run in this process, by a test or for its fixtures, did to logging."""
    root, ours = logging.getLogger(), logging.getLogger("trader")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    done = yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    return done


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal the tests out so that no worker waits for another's dear test at the end."""
    items[:] = dealt(items, n_workers=int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def dealt(items: list[pytest.Item], *, n_workers: int) -> list[pytest.Item]:
    """Return the tests in an order whose equal parts each begin with long ones, dearest first.

    `--dist worksteal` hands each worker one such part, and the rest of a part to who is idle.
    """
    piles: list[list[pytest.Item]] = [[] for _ in range(n_workers)]
    minutes = [0.0] * n_workers
    for item in sorted((one for one in items if _minutes(one)), key=_minutes, reverse=True):
        least = minutes.index(min(minutes))
        piles[least].append(item)
        minutes[least] += _minutes(item)
    quick, left = iter([one for one in items if not _minutes(one)]), len(items)
    for i, pile in enumerate(piles):
        room = left // (n_workers - i)  # as worksteal cuts
        pile.extend(one for _, one in zip(range(room - len(pile)), quick, strict=False))
        left -= len(pile)
    return [item for pile in piles for item in pile] + list(quick)


def _minutes(item: pytest.Item) -> float:
    """Return about how long a long test takes, as its mark says; 0 for a quick one."""
    mark = item.get_closest_marker("long")
    return float(mark.kwargs.get("minutes", _UNSAID_MINUTES)) if mark else 0.0
