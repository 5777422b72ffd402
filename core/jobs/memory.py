"""What the long-lived process asks of malloc so that it stays small. No result depends on it.

Only glibc knows the words; elsewhere nothing happens.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

_M_ARENA_MAX = -8  # of <malloc.h>


def few_arenas() -> None:
    """Let threads share malloc's arenas; dozens of lanes with one each hold 30 MB for nothing."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def give_back() -> None:
    """Return what the work has freed to the system."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))
