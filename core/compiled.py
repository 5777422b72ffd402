"""Numba without what no compiled loop here needs: import `njit` from this module.

The first compiled call makes Numba look whether BLAS (`scipy.linalg`) and `cffi` are there: 0.12 s
and 20 MB of every command, for matrix products and C pointers that no loop of ours holds. Python
takes a module that is None in `sys.modules` for one not installed, and Numba does without it.
"""

from __future__ import annotations

import sys
from importlib import import_module

from numba import njit

__all__ = ["njit"]

_ASKED_BY = {"scipy.linalg": "numba.np.arraymath", "cffi": "numba.core.typing.cffi_utils"}

for _wanted, _asking in _ASKED_BY.items():
    if _wanted not in sys.modules:  # else it is paid for
        sys.modules[_wanted] = None  # type: ignore[assignment]
        try:
            import_module(_asking)
        finally:
            del sys.modules[_wanted]
