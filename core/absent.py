"""Loading a library without what it would bring along: companions, or parts nobody asks for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from types import ModuleType


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


@contextmanager
def unopened(package: str) -> Iterator[ModuleType]:
    """Let parts of a package be loaded without its `__init__`; what was loaded before stays.

    Afterwards it counts as not loaded: who imports it gets it whole, with the parts already there.
    Raises ModuleNotFoundError where it is not installed.
    """
    if package in sys.modules:
        yield sys.modules[package]
        return
    spec = find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    closed = sys.modules[package] = module_from_spec(spec)
    try:
        yield closed
    finally:
        if sys.modules.get(package) is closed:
            del sys.modules[package]
