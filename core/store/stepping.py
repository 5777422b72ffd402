"""Rows of numbers from and to arrays: SQLite stepped by compiled code, no object made per value.

apsw hides the symbols of its SQLite, but like every SQLite it hands a table of its functions to
each extension it loads (`sqlite3ext.h`; the table only ever grows at its end). `noop`, the smallest
extension in apsw's own wheel, keeps that table in a variable, and it is read from there: still one
SQLite in the process. Where apsw came without extensions the caller takes the slow way.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from typing import Any, NamedTuple

import apsw
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from core.compiled import njit
from core.domain import Floats, Ints

_N_FUNCTIONS = 117  # of the table, as far as it is used
_BIND_DOUBLE, _BIND_INT64, _COLUMN_DOUBLE, _COLUMN_INT64, _FINALIZE = 3, 5, 27, 29, 57
_COLUMN_BYTES, _COLUMN_TEXT = 20, 36
_VERSION_NUMBER, _RESET, _STEP, _PREPARE_V2 = 67, 77, 94, 116
_OK, _ROW, _DONE = 0, 100, 101


Stepped = tuple[Ints, Floats, Ints]


class _Functions(NamedTuple):
    """SQLite's own functions: two called once a query, and the addresses of those called a lot."""

    prepare: Callable[..., int]
    finalize: Callable[..., int]
    step: int
    reset: int
    bind_int64: int
    bind_double: int
    column_int64: int
    column_double: int
    column_text: int
    column_bytes: int


def _table() -> Sequence[int] | None:
    """Return the addresses in apsw's function table, or None where it cannot be had."""
    try:
        from apsw import sqlite_extra
    except ImportError:
        return None
    try:
        with closing(apsw.Connection(":memory:")) as host:
            sqlite_extra.load(host, "noop")
            library = ctypes.CDLL(sqlite_extra.path("noop"))
            address = ctypes.c_void_p.in_dll(library, "sqlite3_api").value
    except (OSError, ValueError, LookupError, apsw.Error, sqlite_extra.NotAvailable):
        return None
    return (ctypes.c_size_t * _N_FUNCTIONS).from_address(address)[:] if address else None


@cache
def _functions() -> _Functions | None:
    """Return the functions of the very SQLite that apsw runs, or None where they are not had."""
    table = _table()
    if table is None:
        return None
    if ctypes.CFUNCTYPE(ctypes.c_int)(table[_VERSION_NUMBER])() != apsw.SQLITE_VERSION_NUMBER:
        return None
    pointer, whole = ctypes.c_void_p, ctypes.c_int
    prepare = ctypes.CFUNCTYPE(whole, pointer, ctypes.c_char_p, whole, pointer, pointer)
    return _Functions(
        prepare=prepare(table[_PREPARE_V2]),
        finalize=ctypes.CFUNCTYPE(whole, pointer)(table[_FINALIZE]),
        step=table[_STEP],
        reset=table[_RESET],
        bind_int64=table[_BIND_INT64],
        bind_double=table[_BIND_DOUBLE],
        column_int64=table[_COLUMN_INT64],
        column_double=table[_COLUMN_DOUBLE],
        column_text=table[_COLUMN_TEXT],
        column_bytes=table[_COLUMN_BYTES],
    )


@contextmanager
def _prepared(functions: _Functions, connection: apsw.Connection, sql: str) -> Iterator[int]:
    """Yield a statement's address, 0 where the SQL is not to SQLite's liking."""
    statement = ctypes.c_void_p()
    out = ctypes.byref(statement)
    functions.prepare(connection.sqlite3_pointer(), sql.encode(), -1, out, None)
    try:
        yield statement.value or 0
    finally:
        functions.finalize(statement)


def stepped(
    connection: apsw.Connection,
    sql: str,
    params: tuple[int, ...],
    *,
    n_floats: int,
    n_words: int = 0,
    room: int,
) -> Stepped | None:
    """Return a query's columns: one of whole numbers, then `n_floats` REAL, then `n_words` TEXT.

    Of a text comes its mark (see `_mark`). `room` is how many rows to expect; more are read too.
    None where it cannot be done this way, an error of SQLite included: the same query through apsw
    then works, or says what is wrong.
    """
    functions = _functions()
    if functions is None:
        return None
    with _prepared(functions, connection, sql) as statement:
        if not statement:
            return None
        for i, value in enumerate(params, 1):
            if _bind_whole(functions.bind_int64, statement, i, value) != _OK:
                return None
        shape = n_floats, n_words
        return _fetched(functions, statement, shape=shape, room=max(room, 64))


def fed(connection: apsw.Connection, sql: str, firsts: Ints, others: Floats) -> bool:
    """Run a statement for each row of a whole number, of (n,), and floats, of (n_floats, n).

    False where it cannot be done this way, or not to the end: then apsw's own `executemany` of
    all rows does it, or says what is wrong. So: in a transaction, and only what may be repeated.
    """
    functions = _functions()
    if functions is None:
        return False
    with _prepared(functions, connection, sql) as statement:
        addresses = functions.bind_int64, functions.bind_double, functions.step, functions.reset
        return bool(statement) and bool(_feed(*addresses, statement, firsts, others))


def _fetched(
    functions: _Functions, statement: int, *, shape: tuple[int, int], room: int
) -> Stepped | None:
    numbers = functions.step, functions.column_int64, functions.column_double
    texts = functions.column_text, functions.column_bytes
    n_floats, n_words = shape
    pieces: list[Stepped] = []
    code = _ROW
    while code == _ROW:
        firsts, others = np.empty(room, np.int64), np.empty((n_floats, room))
        marks = np.empty((n_words, room), np.int64)
        n, code = _fill(*numbers, *texts, statement, firsts, others, marks)
        pieces.append((firsts[:n], others[:, :n], marks[:, :n]))
    if code != _DONE:
        return None
    if len(pieces) == 1:
        return pieces[0]
    firsts, others, marks = (np.concatenate(parts, axis=-1) for parts in zip(*pieces, strict=True))
    return firsts, others, marks


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
    if len(arguments) == 2:
        return intrinsic(lambda _, _address, _a, _b: (signature, emit))
    return intrinsic(lambda _, _address, _a, _b, _c: (signature, emit))


@intrinsic  # type: ignore[untyped-decorator]
def _byte(_: Any, _address: Any) -> Any:
    """The byte at an address."""

    def emit(_: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.load(builder.inttoptr(values[0], ir.IntType(8).as_pointer()))

    return types.uint8(types.intp), emit


_LLVM = {
    types.int32: ir.IntType(32),
    types.int64: ir.IntType(64),
    types.intp: ir.IntType(types.intp.bitwidth),
    types.float64: ir.DoubleType(),
}
_step = _reset = _foreign(types.int32, types.intp)
_column_int64 = _foreign(types.int64, types.intp, types.int32)
_column_double = _foreign(types.float64, types.intp, types.int32)
_column_text = _foreign(types.intp, types.intp, types.int32)
_column_bytes = _foreign(types.int32, types.intp, types.int32)
_bind_int64 = _foreign(types.int32, types.intp, types.int32, types.int64)
_bind_double = _foreign(types.int32, types.intp, types.int32, types.float64)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _bind_whole(bind_int64: int, statement: int, i: int, value: int) -> int:
    code: int = _bind_int64(bind_int64, statement, types.int32(i), value)
    return code


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _fill(
    step: int,
    column_int64: int,
    column_double: int,
    column_text: int,
    column_bytes: int,
    statement: int,
    firsts: Ints,
    others: Floats,
    marks: Ints,
) -> tuple[int, int]:
    n_floats, room = others.shape
    for n in range(room):
        code = _step(step, statement)
        if code != _ROW:
            return n, code
        firsts[n] = _column_int64(column_int64, statement, types.int32(0))
        for i in range(n_floats):
            others[i, n] = _column_double(column_double, statement, types.int32(i + 1))
        for i in range(len(marks)):
            place = types.int32(1 + n_floats + i)
            start = _column_text(column_text, statement, place)
            marks[i, n] = _mark(start, _column_bytes(column_bytes, statement, place))
    return room, _ROW


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _mark(start: int, length: int) -> np.int64:
    """Return a number for the text at an address, the same for equal ones; NULL is as ''.

    Two of a thousand different texts share one once in 10^13 cases.

    Source: Fowler, Noll & Vo, FNV-1a of 64 bits (RFC 9923).
    """
    mark = np.uint64(0xCBF29CE484222325)
    for i in range(length):
        mark = (mark ^ np.uint64(_byte(start + i))) * np.uint64(0x100000001B3)
    return np.int64(mark)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _feed(
    bind_int64: int,
    bind_double: int,
    step: int,
    reset: int,
    statement: int,
    firsts: Ints,
    others: Floats,
) -> bool:
    n_floats, n_rows = others.shape
    for n in range(n_rows):
        _bind_int64(bind_int64, statement, types.int32(1), firsts[n])
        for i in range(n_floats):
            _bind_double(bind_double, statement, types.int32(i + 2), others[i, n])
        code = _step(step, statement)
        _reset(reset, statement)
        if code != _DONE:
            return False
    return True
