"""Turning one key of the settings, and marking the test that shows what it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from core.config import Config, config_from

Test = TypeVar("Test", bound=Callable[..., None])


def shows(*keys: str) -> Callable[[Test], Test]:
    """Mark a test as the one that shows the effect of some keys."""

    def mark(test: Test) -> Test:
        test.__dict__["shown_keys"] = keys
        return test

    return mark


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by their dotted names as the tree that YAML would give."""
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        *parts, last = key.split(".")
        place = tree
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = value
    return tree


def turned(key: str, value: Any, **others: Any) -> Config:
    """Return the defaults with one key turned; `others` are whole sections beside it."""
    tree = nested({key: value})
    for section, keys in others.items():
        tree[section] = {**keys, **tree.get(section, {})} if isinstance(keys, dict) else keys
    return config_from(tree)
