"""Printing a result: JSON, or lines and tables for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

_LINE = 120  # a group of values beyond it has lines of its own
_LEAST_COLUMNS = 4


def show(result: Any, *, as_json: bool, title: str = "") -> None:
    """Print a result on stdout: JSON, or for people lines and tables, each under its name."""
    if as_json:
        sys.stdout.write(json.dumps(result, indent=1, default=str) + "\n")
        return
    parts = list(_parts(result, title))
    if not title and all(isinstance(content, str) for _, content in parts):
        blocks = (f"{name}\n{content}\n" if name else f"{content}\n" for name, content in parts)
        sys.stdout.write("\n".join(blocks))  # rich takes 20 ms to load
        return
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    for i, (name, content) in enumerate(parts):
        if name:
            console.print("\n" * bool(i) + name, style="bold", markup=False)
        if isinstance(content, str):
            console.print(content, markup=False, soft_wrap=True)
        else:
            console.print(_table(content))


def _parts(result: Any, name: str) -> Iterator[tuple[str, str | list[dict[str, Any]]]]:
    """Yield what is shown of a result, in order: a heading ('' for none), and lines or rows.

    What is short stands in lines; tables, and groups too long for one line, have a heading each.
    """
    if _is_table(result):
        yield name, result
    elif not isinstance(result, dict):
        yield name, _text(result)
    elif rows := _rows(result):
        yield name, rows
    else:
        short = {key: value for key, value in result.items() if not _is_block(value)}
        if short or not result:
            yield name, "\n".join(_flat(short)) or "-"
        for key, value in result.items():
            if key not in short:
                yield from _parts(value, f"{name} / {key}" if name else str(key))


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, value in rows[0].items():
        justify: Any = "right" if isinstance(value, int | float) else "left"
        table.add_column(str(name), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(_text(row.get(name)) for name in rows[0]))
    return table


def _rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a mapping of like mappings as rows of a table; none for any other."""
    values = list(result.values())
    if not values or not all(isinstance(value, dict) and value for value in values):
        return []
    is_alike = all(value.keys() == values[0].keys() for value in values)
    is_flat = not any(_is_block(item) for value in values for item in value.values())
    if not is_alike or not is_flat or len(values[0]) < _LEAST_COLUMNS:
        return []
    return [{"": key, **value} for key, value in result.items()]


def _is_block(value: Any) -> bool:
    """Say whether a value is too much for one line."""
    if isinstance(value, dict):
        return any(map(_is_block, value.values())) or len(_text(value)) > _LINE
    return _is_table(value)


def _flat(result: dict[str, Any]) -> list[str]:
    width = max((len(str(name)) for name in result), default=0)
    return [f"{name!s:<{width}}  {_text(value)}" for name, value in result.items()]


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.1f}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_text(v) or '-'}" for k, v in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value) or "-"
    return "-" if value is None else str(value)
