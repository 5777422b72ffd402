"""Setting a few values in YAML text: every byte that is not theirs stays, comments included."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from core.errors import ConfigError

# what YAML does not read inside quotes, or reads as the end of a line
_ODD = re.compile(f"{yaml.reader.Reader.NON_PRINTABLE.pattern}|[\x85\u2028\u2029\ufeff]")
_PLAIN = re.compile(r"[A-Za-z][\w/.-]*(:[\w/.-]+)*")  # a word that needs no quotes


def with_values(text: str, values: Mapping[str, Any]) -> str:
    """Return YAML text with some settings, named as a.b.c, replaced or added; pure.

    Raises ConfigError where the text would not be read back as meant, as with aliases.
    """
    wanted = _read(text)
    for name, value in values.items():
        text = _with_value(text, name.split("."), value)
        place = wanted
        *parents, last = name.split(".")
        for parent in parents:
            place[parent] = place.get(parent) or {}
            place = place[parent]
        place[last] = list(value) if isinstance(value, tuple) else value
    if _read(text) != wanted:
        raise ConfigError(
            f"{', '.join(values)} cannot be replaced without changing something else;",
            remedy="write them into the file yourself",
        )
    return text


def _read(text: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            "the settings are no YAML;", remedy="mend the file, then try again"
        ) from error
    return _unshared(found) if isinstance(found, dict) else {}


def _unshared(value: Any) -> Any:
    """Return plain values in which an alias is a copy: a change of one is none of the other."""
    if isinstance(value, dict):
        return {key: _unshared(item) for key, item in value.items()}
    return [_unshared(item) for item in value] if isinstance(value, list) else value


def _with_value(text: str, path: Sequence[str], value: Any) -> str:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode) or not root.value:
        return f"{text.rstrip()}\n{_nested(path, value)}\n".lstrip()
    node: Any = root
    for depth, name in enumerate(path):
        pairs = [(k, v) for k, v in node.value if k.value == name]
        if not pairs:
            return _inserted(text, node, _nested(path[depth:], value))
        key, child = pairs[0]
        is_last = depth == len(path) - 1
        if is_last or not isinstance(child, yaml.MappingNode):
            flow = _flow(value) if is_last else "{" + _nested(path[depth + 1 :], value) + "}"
            return _replaced(text, key, child, flow)
        node = child
    raise AssertionError("unreachable")


def _replaced(text: str, key: Any, node: Any, flow: str) -> str:
    start = text.index(":", key.end_mark.index) + 1
    end = max(_content_end(node), start)
    return f"{text[:start]} {flow}{text[end:]}"


def _inserted(text: str, parent: Any, line: str) -> str:
    """Put a further key at the end of a mapping, after whatever stands on its last line."""
    if parent.flow_style:
        end = parent.end_mark.index - 1
        comma = ", " if parent.value else ""
        return f"{text[:end]}{comma}{line}{text[end:]}"
    end = text.find("\n", _content_end(parent.value[-1][1]))
    indent = " " * parent.value[0][0].start_mark.column
    if end < 0:
        return f"{text}\n{indent}{line}\n"
    return f"{text[:end]}\n{indent}{line}{text[end:]}"


def _content_end(node: Any) -> int:
    """Return where the last character of a node stands; marks of block nodes run on."""
    is_block = not isinstance(node, yaml.ScalarNode) and not node.flow_style
    if is_block and node.value:
        last = node.value[-1]
        return _content_end(last[1] if isinstance(last, tuple) else last)
    end: int = node.end_mark.index
    return end


def _nested(path: Sequence[str], value: Any) -> str:
    text = _flow(value)
    for name in reversed(path[1:]):
        text = "{" + f"{name}: {text}" + "}"
    return f"{path[0]}: {text}"


def _flow(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    plain = isinstance(value, str) and _PLAIN.fullmatch(value) and yaml.safe_load(value) == value
    if plain:
        return str(value)
    return _ODD.sub(lambda odd: f"\\u{ord(odd[0]):04x}", json.dumps(value, ensure_ascii=False))
