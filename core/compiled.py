"""Numba without what no compiled loop here needs: import `njit` from this module.

The first compiled call makes Numba look whether BLAS (`scipy.linalg`) and `cffi` are there: 0.12 s
and 20 MB of every command, for matrix products and C pointers that no loop of ours holds. Numba
does without them.
"""

from __future__ import annotations

from importlib import import_module

from numba import njit

from core.absent import absent

__all__ = ["njit"]

_ASKED_BY = {"scipy.linalg": "numba.np.arraymath", "cffi": "numba.core.typing.cffi_utils"}

for _wanted, _asking in _ASKED_BY.items():
    with absent(_wanted):
        import_module(_asking)
