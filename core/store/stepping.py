"""Rows of numbers straight into arrays: SQLite stepped by compiled code, no object made per value.

apsw hides the symbols of its SQLite, but like every SQLite it hands a table of its functions to
each extension it loads (`sqlite3ext.h`; the table only ever grows at its end). `noop`, the smallest
extension in apsw's own wheel, keeps that table in a variable, and it is read from there: still one
SQLite in the process. Where apsw came without extensions the caller takes the slow way.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import apsw
import numpy as np
from apsw import sqlite_extra
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

from core.domain import Floats, Ints

_N_FUNCTIONS = 117  # of the table, as far as it is used
_BIND_INT64, _COLUMN_DOUBLE, _COLUMN_INT64, _FINALIZE = 5, 27, 29, 57
_VERSION_NUMBER, _STEP, _PREPARE_V2 = 67, 94, 116
_OK, _ROW, _DONE = 0, 100, 101


class _Functions(NamedTuple):
    """SQLite's own functions: three called once a query, three addresses called once a value."""

    prepare: Callable[..., int]
    bind_int64: Callable[..., int]
    finalize: Callable[..., int]
    step: int
    column_int64: int
    column_double: int


@cache
def _functions() -> _Functions | None:
    """Return the functions of apsw's SQLite, or None where they cannot be had."""
    try:
        with_table = apsw.Connection(":memory:")
        sqlite_extra.load(with_table, "noop")
        library = ctypes.CDLL(sqlite_extra.path("noop"))
        address = ctypes.c_void_p.in_dll(library, "sqlite3_api").value
    except (OSError, ValueError, LookupError, apsw.Error, sqlite_extra.NotAvailable):
        return None
    table = (ctypes.c_size_t * _N_FUNCTIONS).from_address(address or 0)
    number = ctypes.CFUNCTYPE(ctypes.c_int)(table[_VERSION_NUMBER])()
    if number != apsw.SQLITE_VERSION_NUMBER:
        return None
    pointer, whole = ctypes.c_void_p, ctypes.c_int
    prepare = ctypes.CFUNCTYPE(whole, pointer, ctypes.c_char_p, whole, pointer, pointer)
    bind = ctypes.CFUNCTYPE(whole, pointer, whole, ctypes.c_int64)
    return _Functions(
        prepare=prepare(table[_PREPARE_V2]),
        bind_int64=bind(table[_BIND_INT64]),
        finalize=ctypes.CFUNCTYPE(whole, pointer)(table[_FINALIZE]),
        step=table[_STEP],
        column_int64=table[_COLUMN_INT64],
        column_double=table[_COLUMN_DOUBLE],
    )


def stepped(
    connection: apsw.Connection, sql: str, params: tuple[int, ...], *, n_floats: int, room: int
) -> tuple[Ints, Floats] | None:
    """Return a query's first column, whole numbers (n,), and its others, REAL, (n_floats, n).

    `room` is how many rows to expect; more are read too. None where it cannot be done this way,
    an error of SQLite included: the same query through apsw then works, or says what is wrong.
    """
    functions = _functions()
    if functions is None:
        return None
    statement = ctypes.c_void_p()
    text, out = sql.encode(), ctypes.byref(statement)
    code = functions.prepare(connection.sqlite3_pointer(), text, -1, out, None)
    try:
        for i, value in enumerate(params, 1):
            code = code or functions.bind_int64(statement, i, value)
        if code != _OK:
            return None
        return _fetched(functions, statement.value or 0, n_floats=n_floats, room=max(room, 64))
    finally:
        functions.finalize(statement)


def _fetched(
    functions: _Functions, statement: int, *, n_floats: int, room: int
) -> tuple[Ints, Floats] | None:
    addresses = functions.step, functions.column_int64, functions.column_double
    pieces: list[tuple[Ints, Floats]] = []
    code = _ROW
    while code == _ROW:
        firsts, others = np.empty(room, np.int64), np.empty((n_floats, room))
        n, code = _fill(*addresses, statement, firsts, others)
        pieces.append((firsts[:n], others[:, :n]))
    if code != _DONE:
        return None
    if len(pieces) == 1:
        return pieces[0]
    return np.concatenate([p[0] for p in pieces]), np.concatenate([p[1] for p in pieces], axis=1)


def _foreign(result: Any, *arguments: Any) -> Any:
    """Return an intrinsic that calls a C function of one signature at an address."""

    def emit(_: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(
            _LLVM[signature.return_type], [_LLVM[kind] for kind in signature.args[1:]]
        )
        return builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])

    signature = result(types.intp, *arguments)
    if len(arguments) == 1:
        return intrinsic(lambda _, _address, _a: (signature, emit))
    return intrinsic(lambda _, _address, _a, _b: (signature, emit))


_LLVM = {types.int32: ir.IntType(32), types.int64: ir.IntType(64), types.float64: ir.DoubleType()}
_step = _foreign(types.int32, types.intp)
_column_int64 = _foreign(types.int64, types.intp, types.int32)
_column_double = _foreign(types.float64, types.intp, types.int32)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _fill(
    step: int, column_int64: int, column_double: int, statement: int, firsts: Ints, others: Floats
) -> tuple[int, int]:
    n_floats, room = others.shape
    for n in range(room):
        code = _step(step, statement)
        if code != _ROW:
            return n, code
        firsts[n] = _column_int64(column_int64, statement, types.int32(0))
        for i in range(n_floats):
            others[i, n] = _column_double(column_double, statement, types.int32(i + 1))
    return room, _ROW
