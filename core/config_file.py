"""Reading `config.yaml` whole and writing the one block of it that the tuner owns."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from core import drafts
from core.config import Config, GatingOverride, config_from
from core.errors import ConfigError

_ENV = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(:-[^}]*)?\}")
_BLOCK = ("models", "meta", "gating", "per_pair_tf")


def load_config(path: Path) -> Config:
    """Return the settings of a file. Raises ConfigError: one line, the key and the remedy."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"cannot read config {path}: {error.strerror};", remedy="give its place with --config"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"config {path} is not UTF-8 text;", remedy="save it as UTF-8") from error
    return parse_config(text, name=str(path))


def parse_config(text: str, *, name: str = "config") -> Config:
    """Return the settings of YAML text.

    `${NAME}` in values is taken from the environment; `${NAME:-word}` has a default.
    """
    raw = _plain(text, name)
    if not isinstance(raw, dict):
        raise ConfigError(f"{name}: want sections such as 'symbols:' at the top level")
    try:
        return config_from(_expand(raw, name))
    except ValidationError as error:
        raise ConfigError(f"{name}: {_one_line(error)}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{name}: {_shortened(str(error))}") from error


class _Loader(yaml.SafeLoader):
    """Plain values; dates stay the words they are, to be judged where they belong."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (as PyYAML declares it)
        first: [rule for rule in rules if rule[0] != "tag:yaml.org,2002:timestamp"]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _plain(text: str, name: str) -> Any:
    """Return the plain values of YAML text; an empty one is no settings at all."""
    problem, line = "not readable as YAML", ""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        twice = None if node is None else _key_twice(node, set())
        if twice is None:
            found = None if node is None else loader.construct_document(node)
            return {} if found is None else found
        where, mark = twice
        problem, line = f"the key {_shortened(where)} stands twice", f" line {mark.line + 1}"
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = _shortened(getattr(error, "problem", None) or problem)
    # Without the cause: it quotes the lines around, and one of them may hold a token.
    raise ConfigError(f"{name}{line}: {problem};", remedy="mend the YAML there") from None


def _key_twice(node: yaml.Node, seen: set[int]) -> tuple[str, Any] | None:
    """Return a key that stands twice in one mapping, as (its dotted name, its place), or None."""
    if id(node) in seen or isinstance(node, yaml.ScalarNode):
        return None
    seen.add(id(node))
    listed = isinstance(node, yaml.SequenceNode)
    pairs: list[tuple[Any, Any]] = [("", n) for n in node.value] if listed else node.value
    names: set[str] = set()
    for key, value in pairs:
        name = key.value if isinstance(key, yaml.ScalarNode) else ""
        if name and name in names:
            return name, key.start_mark
        names.add(name)
        below = _key_twice(value, seen)
        if below is not None:
            return ".".join(filter(None, (name, below[0]))), below[1]
    return None


def _expand(value: Any, name: str) -> Any:
    if isinstance(value, str):
        return _ENV.sub(lambda match: _environment(match, name), value)
    if isinstance(value, dict):
        return {str(key): _expand(item, name) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, name) for item in value]
    return value


def _environment(match: re.Match[str], name: str) -> str:
    variable, default = match.group(1), match.group(2)
    if variable not in os.environ and default is not None:
        return default.removeprefix(":-")
    if variable not in os.environ:
        raise ConfigError(
            f"{name}: environment variable {variable} is not set;",
            remedy=f"export {variable}=… or write the value itself",
        )
    return os.environ[variable]


_SECRET = ("notify.telegram.bot_token", "notify.deadman_url", "exchange.ccxt")
_SHOWN_MAX = 80


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = _shortened(".".join(str(part) for part in first["loc"]).removesuffix(".[key]"))
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(first["loc"][-1]), _keys_at(first["loc"][:-1]), n=1)
        hint = f"did you mean {near[0]}?" if near else "remove it"
        return f"unknown key {where}; {hint}"
    message = _shortened(first["msg"].removeprefix("Value error, "), most=2 * _SHOWN_MAX)
    said = ": ".join(filter(None, (where, message)))
    found = first["input"]
    if isinstance(found, dict | list) or _may_be_secret(where):
        return said
    return f"{said} (found {_shortened(repr(found))})"


def _may_be_secret(where: str) -> bool:
    """Say whether a value found at a place may hold a secret, or be one that slipped there."""
    return any(
        place == where
        or place.startswith(f"{where}.")
        or where.startswith(f"{place}.")
        or not where
        for place in _SECRET
    )


def _shortened(text: str, *, most: int = _SHOWN_MAX) -> str:
    words = " ".join(text.split())
    return words if len(words) <= most else f"{words[: most - 1]}…"


def _keys_at(where: tuple[int | str, ...]) -> list[str]:
    """Return the keys known at a place: of a block, or of the values of a mapping."""
    kind: Any = Config
    for part in where:
        if _is_block(kind):
            field = kind.model_fields.get(str(part))
            kind = field.annotation if field else None
        else:
            kind = (get_args(kind) or (None,))[-1]
    return list(kind.model_fields) if _is_block(kind) else []


def _is_block(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def overrides_text(overrides: Mapping[str, Mapping[str, Mapping[str, Any]]], indent: int) -> str:
    """Return the tuner's block as a YAML flow mapping, one line per cell; pure.

    Flow style because its end is marked by a brace: the bytes after it are not ours.
    """
    if not overrides:
        return "{}"
    pad, lines = " " * indent, []
    for symbol, cells in sorted(overrides.items()):
        rows = [f"{_written(tf)}: {_written(cell)}" for tf, cell in sorted(cells.items())]
        inner = f",\n{pad}  ".join(rows)
        lines.append(f"{pad}{_written(symbol)}: {{{inner}}}")
    return "{\n" + ",\n".join(lines) + "}"


def _written(value: Any) -> str:
    """Return a plain value as YAML and JSON both read it; YAML takes 1e-07 for a word."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_written(k)}: {_written(v)}" for k, v in value.items()) + "}"
    text = json.dumps(value, ensure_ascii=False)
    return re.sub(r"^(-?\d+)e", r"\1.0e", text) if isinstance(value, float) else text


def splice_overrides(
    path: Path, overrides: Mapping[str, Mapping[str, Mapping[str, Any]]], *, seen: str
) -> str:
    """Replace the block `models.meta.gating.per_pair_tf` in a file; no other byte changes.

    `seen` is the text the caller decided on. Returns the new text. Raises ConfigError, and leaves
    the file as it is, when it has changed since, has no such block or cannot be replaced, or when
    the new text would not be read back as the same settings with these overrides.
    """
    try:
        text = path.read_bytes().decode()
        if _with_plain_ends(text) != _with_plain_ends(seen):
            raise ConfigError(f"{path} was edited meanwhile;", remedy="run the step again")
        new = _checked(text, overrides, name=str(path))
        if new != text:
            replace_text(path, new)
    except OSError as error:
        raise ConfigError(
            f"cannot write the tuner's limits into {path}: {error.strerror};",
            remedy="make it a file that can be replaced",
        ) from error
    return new


def _with_plain_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _checked(
    text: str, overrides: Mapping[str, Mapping[str, Mapping[str, Any]]], *, name: str
) -> str:
    """Return the spliced text after reading it back. Raises ConfigError."""
    before = parse_config(text, name=name)
    new = spliced(text, overrides)
    after = parse_config(new, name=name)
    gating = before.models.meta.gating
    held = after.models.meta.gating.per_pair_tf
    wanted = {
        symbol: {tf: GatingOverride.model_validate(cell) for tf, cell in cells.items()}
        for symbol, cells in overrides.items()
    }
    meta = before.models.meta.model_copy(
        update={"gating": gating.model_copy(update={"per_pair_tf": held})}
    )
    models = before.models.model_copy(update={"meta": meta})
    if held != wanted or after != before.model_copy(update={"models": models}):
        raise ConfigError(
            f"{name}: per_pair_tf cannot be replaced without changing something else;",
            remedy="write it out as 'per_pair_tf: {}', without an alias",
        )
    return new


def spliced(text: str, overrides: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Return YAML text with the tuner's block replaced; pure."""
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    key: Any = None
    for name in _BLOCK:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        found = [(k, v) for k, v in pairs if k.value == name]
        if not found:
            raise ConfigError(
                f"config has no {'.'.join(_BLOCK)};", remedy="add 'per_pair_tf: {}' under gating"
            )
        key, node = found[0]
    end = _content_end(key, node)
    indent = key.start_mark.column + 2
    if isinstance(node, yaml.MappingNode) and node.flow_style:
        start, gap = node.start_mark.index, ""
    else:
        start, gap = text.index(":", key.end_mark.index) + 1, " "
    block = overrides_text(overrides, indent).replace("\n", "\r\n" if "\r\n" in text else "\n")
    return text[:start] + gap + block + text[end:]


def _content_end(key: Any, node: Any) -> int:
    """Return where the last character of a key's node stands; block nodes' own marks run on.

    Raises ConfigError where the node stands elsewhere, as that of an alias does.
    """
    end: int = node.end_mark.index
    if end < key.end_mark.index:
        raise ConfigError(
            f"{key.value} is an alias of what stands elsewhere;",
            remedy="write it out, the whole block as 'per_pair_tf: {}'",
        )
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        return _content_end(*node.value[-1])
    return end


def replace_text(path: Path, text: str) -> None:
    """Replace a file's content so that a reader sees the old or the new, never a mixture."""
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    drafts.replace_file(path, text.encode(), mode=mode)
