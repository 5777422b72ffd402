"""Reading `config.yaml` whole and writing the one block of it that the tuner owns."""

from __future__ import annotations

import difflib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from core.config import Config, config_from
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
    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or "not readable as YAML"
        raise ConfigError(f"{name}{line}: {problem};", remedy="mend the YAML there") from error
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        raise ConfigError(f"{name}: want sections such as 'symbols:' at the top level")
    try:
        return config_from(_expand(raw, name))
    except ValidationError as error:
        raise ConfigError(f"{name}: {_one_line(error)}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{name}: {error}") from error


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


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(first["loc"][-1]), _keys_at(first["loc"][:-1]), n=1)
        hint = f"did you mean {near[0]}?" if near else "remove it"
        return f"unknown key {where}; {hint}"
    message = first["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(first["input"], dict | list) or "token" in where else first["input"]
    return f"{where}: {message}" + (f" (found {shown!r})" if shown != "" else "")


def _keys_at(where: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Config
    for part in where:
        field = model.model_fields.get(str(part))
        kind = field.annotation if field else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return []
        model = kind
    return list(model.model_fields)


def overrides_text(overrides: Mapping[str, Mapping[str, Mapping[str, Any]]], indent: int) -> str:
    """Return the tuner's block as a YAML flow mapping, one line per cell; pure.

    Flow style because its end is marked by a brace: the bytes after it are not ours.
    """
    if not overrides:
        return "{}"
    pad, lines = " " * indent, []
    for symbol, cells in sorted(overrides.items()):
        rows = [f"{json.dumps(tf)}: {json.dumps(cell)}" for tf, cell in sorted(cells.items())]
        inner = f",\n{pad}  ".join(rows)
        lines.append(f"{pad}{json.dumps(symbol, ensure_ascii=False)}: {{{inner}}}")
    return "{\n" + ",\n".join(lines) + "}"


def splice_overrides(
    path: Path, overrides: Mapping[str, Mapping[str, Mapping[str, Any]]], *, seen: str
) -> str:
    """Replace the block `models.meta.gating.per_pair_tf` in a file; no other byte changes.

    `seen` is the text the caller decided on. Returns the new text. Raises ConfigError when the
    file has changed since, or has no such block.
    """
    if path.read_text(encoding="utf-8") != seen:
        raise ConfigError(f"{path} was edited meanwhile;", remedy="run the step again")
    new = spliced(seen, overrides)
    if parse_config(new, name=str(path)) and new != seen:
        replace_text(path, new)
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
    indent = key.start_mark.column + 2
    if isinstance(node, yaml.MappingNode) and node.flow_style:
        start, gap = node.start_mark.index, ""
    else:
        start, gap = text.index(":", key.end_mark.index) + 1, " "
    return text[:start] + gap + overrides_text(overrides, indent) + text[_content_end(node) :]


def _content_end(node: Any) -> int:
    """Return where a node's last character stands; block nodes' own marks run into comments."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        return _content_end(node.value[-1][1])
    end: int = node.end_mark.index
    return end


def replace_text(path: Path, text: str) -> None:
    """Replace a file's content so that a reader sees the old or the new, never a mixture."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.tmp-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
