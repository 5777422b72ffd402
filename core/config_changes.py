"""What an edit of the settings costs, in words; pure, and never with a secret in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from core.config import Config, strategy_id, strategy_settings

# what a running engine holds on to: its files, its exchange, its series, its triggers
_AT_START = (
    "app.data_dir",
    "app.db_path",
    "exchange",
    "data.base_timeframe",
    "incremental.run_seconds",
)
_UNSAID = (  # told as changed, without their values
    "exchange.ccxt",
    "notify.deadman_url",
    "notify.telegram.bot_token",
    "notify.telegram.chat_id",
    "notify.telegram.api_base",
)
_CELLS = "models.meta.gating.per_pair_tf"
_LISTS = ("symbols", "timeframes", _CELLS)
_NEW_STRATEGY = "new strategy_id, certificate restarts, old record kept"
_VALUE_MAX = 40


class Followed(NamedTuple):
    """A signal that is pending or open; `told`: the owner knows of it."""

    symbol: str
    timeframe: str
    told: bool


def needs_restart(old: Config, new: Config) -> list[str]:
    """Return the settings that differ and that a running engine cannot change."""
    return [name for name in _differing(old, new) if _lies_in(name, _AT_START)]


def only_thresholds(old: Config, new: Config) -> bool:
    """Say whether nothing but the tuner's own entries differs: it tells of them itself."""
    return _differing(old, new) == [_CELLS] and _owned(old) == _owned(new)


def changes(old: Config, new: Config, *, followed: Sequence[Followed] = ()) -> list[str]:
    """Return what differs between two settings and what follows from it, a line for each.

    `followed` are the signals that have not ended: those of what is removed are still followed.

    >>> changes(Config(), Config(timeframes=("15m", "1h", "4h", "1d")))
    ['1d added: 2 series']
    """
    lines = [*_symbols(old, new, followed), *_timeframes(old, new, followed)]
    names = [name for name in _differing(old, new) if name not in _LISTS]
    new_strategy = [name for name in names if _in_strategy(name)]
    if strategy_id(old) != strategy_id(new):
        told = ", ".join(_change(old, new, name) for name in new_strategy)
        lines.append(f"{told}: {_NEW_STRATEGY}")
        names = [name for name in names if name not in new_strategy]
    lines += [_change(old, new, name) for name in names]
    if _cells(old) != _cells(new):
        n_owner = len(_owned(new))
        lines.append(f"thresholds: {n_owner} by you, {len(_cells(new)) - n_owner} by the tuner")
    return lines


def _symbols(old: Config, new: Config, followed: Sequence[Followed]) -> Iterator[str]:
    n_series = len(new.timeframes)
    for symbol in new.symbols:
        if symbol not in old.symbols:
            yield f"{symbol} added: {n_series} series, its history is fetched"
    for symbol in old.symbols:
        if symbol not in new.symbols:
            yield _removed(symbol, [one for one in followed if one.symbol == symbol])


def _timeframes(old: Config, new: Config, followed: Sequence[Followed]) -> Iterator[str]:
    for timeframe in new.timeframes:
        if timeframe not in old.timeframes:
            yield f"{timeframe} added: {len(new.symbols)} series"
    for timeframe in old.timeframes:
        if timeframe not in new.timeframes:
            yield _removed(timeframe, [one for one in followed if one.timeframe == timeframe])


def _removed(name: str, followed: Sequence[Followed]) -> str:
    """Return what becomes of what is removed.

    >>> _removed("4h", [Followed("A/USDT", "4h", True), Followed("B/USDT", "4h", False)])
    '4h removed: no new signals; 2 open signals are still followed, 1 of them told to you'
    """
    n, n_told = len(followed), sum(one.told for one in followed)
    if not n:
        return f"{name} removed: no new signals; none of it is open"
    count = "1 open signal is" if n == 1 else f"{n} open signals are"
    told = "" if n == n_told else f", {n_told or 'none'} of them told to you"
    return f"{name} removed: no new signals; {count} still followed{told}"


def _differing(old: Config, new: Config) -> list[str]:
    """Return the names of the settings that differ, the tuner's block as one."""
    before, after = dict(_flat(old)), dict(_flat(new))
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]


def _flat(config: Config) -> Iterator[tuple[str, Any]]:
    """Yield every setting by its name in the file; secrets as they are, for comparing only."""
    stack: list[tuple[str, Any]] = [("", config)]
    while stack:
        name, value = stack.pop()
        if isinstance(value, Mapping) or not hasattr(type(value), "model_fields"):
            yield name, value
            continue
        keys = reversed(list(type(value).model_fields))
        stack += [(f"{name}.{key}".lstrip("."), getattr(value, key)) for key in keys]


def _change(old: Config, new: Config, name: str) -> str:
    shown = name.removeprefix("signals.")
    if _lies_in(name, _UNSAID):
        return f"{shown} changed"
    before, after = dict(_flat(old)).get(name), dict(_flat(new)).get(name)
    return f"{shown} {_value(before)}→{_value(after)}"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return "[" + ", ".join(str(item) for item in value)[:_VALUE_MAX] + "]"
    words = {None: "null", True: "true", False: "false"}
    is_word = value is None or isinstance(value, bool)
    return words[value] if is_word else str(value)[:_VALUE_MAX]


def _lies_in(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def _in_strategy(name: str) -> bool:
    section, _, key = name.partition(".")
    if name == "data.base_timeframe":
        return True
    held = strategy_settings(Config()).get(section)
    return isinstance(held, dict) and key.partition(".")[0] in held


def _cells(config: Config) -> dict[tuple[str, str], Any]:
    table = config.models.meta.gating.per_pair_tf
    return {(pair, tf): cell for pair, row in table.items() for tf, cell in row.items()}


def _owned(config: Config) -> dict[tuple[str, str], Any]:
    return {place: cell for place, cell in _cells(config).items() if cell.source == "owner"}
