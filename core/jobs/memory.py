"""What the long-lived process asks of the system so that it stays small. No result depends on it.

Only Linux and glibc know the words; elsewhere nothing happens.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

_M_ARENA_MAX = -8  # of <malloc.h>
_MADV_DONTNEED = 4  # of <sys/mman.h>
_COMPILER = "libllvmlite"


def few_arenas() -> None:
    """Let threads share malloc's arenas; dozens of lanes with one each hold 30 MB for nothing."""
    with suppress(AttributeError, OSError):
        _libc("mallopt", ctypes.c_int, ctypes.c_int)(_M_ARENA_MAX, 2)


def give_back() -> None:
    """Return what the work has left behind: freed memory, and the compiler's code.

    LLVM runs while a kernel is loaded, the first time it is called, and never again; its code is
    read from its file should it be wanted. 50 MB.
    """
    with suppress(AttributeError, OSError):
        _libc("malloc_trim", ctypes.c_size_t)(0)
        madvise = _libc("madvise", ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, rights, *_, name = line.split(maxsplit=5)
            if rights == "r-xp" and _COMPILER in name:  # code alone: what was written would be lost
                first, end = (int(address, 16) for address in span.split("-"))
                madvise(first, end - first, _MADV_DONTNEED)


def _libc(name: str, *takes: Any) -> Callable[..., int]:
    """Return a function of the C library. Raises AttributeError where it has none of that name."""
    function = getattr(ctypes.CDLL(None), name)
    function.argtypes = takes
    return function  # type: ignore[no-any-return]
