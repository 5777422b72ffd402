"""Loading a library without the optional companions it would bring along."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def absent(*names: str) -> Iterator[None]:
    """Let some modules be taken for not installed meanwhile; those loaded before stay.

    Python takes a module that is None in `sys.modules` for one that is not there.
    """
    hidden = [name for name in names if name not in sys.modules]  # else it is paid for
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
