"""What the engine tells its owner about itself: failures, silence of the data, settings.

Telegram's HTML, every value escaped, visible lines of at most `WIDTH` characters; pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any

from core.messages import WIDTH
from core.messages.phone import bullet, clean, clock, escaped, span, wrapped
from core.timeframe import MINUTE_MS

__all__ = ["WIDTH", "data_back", "data_old", "failure", "recovery", "settings_changed",
           "settings_refused"]  # fmt: skip

_DETAIL_MAX = 300
_LINES = 20  # of a list; what is more is counted: at their longest, these fit one message

_JOBS = {
    "incremental_sync": "fetching candles",
    "resample": "building bars",
    "scan_signals": "scanning",
    "execute_signals": "following trades",
    "market_stats": "reading funding",
    "look": "looking for what is due",
    "notify_closed": "sending messages",
    "commands": "taking commands",
    "tidy": "reclaiming space",
    "db_checkpoint": "database upkeep",
    "daily_upkeep": "the daily backup",
    "daily_digest": "the daily digest",
    "auto_train": "weekly training",
    "auto_calibrate": "weekly calibration",
    "auto_tune": "weekly tuning",
}
_EVENTS = {
    "new_signal": "new",
    "filled": "filled",
    "tp1": "TP1",
    "stop_moved": "stop moved",
    "closed": "closed",
    "expired": "expired",
    "cancelled": "cancelled",
}


def failure(job: str, detail: str, *, n: int) -> str:
    """Return the news that a job fails, and that it is tried again."""
    times = f" ({n} times)" if n > 1 else ""
    lines = _wrapped(f"{_named(job)} fails{times}. Everything else goes on; this is tried again.")
    return _message("FAILURE", [*lines, "", *_wrapped(detail[:_DETAIL_MAX])])


def recovery(job: str, *, lasted_s: float, n: int) -> str:
    """Return the news that a job works again."""
    runs = f"{n} failed runs" if n != 1 else "1 failed run"
    return _message("RECOVERED", _wrapped(f"{_named(job)} works again, after {_lasted(lasted_s)}"
                                          f" and {runs}."))  # fmt: skip


def data_old(newest: Mapping[str, int], unfollowed: Sequence[Mapping[str, Any]], *, zone: tzinfo,
             ) -> str:  # fmt: skip
    """Return which data stopped (symbol to its last instant) and which signals that blinds."""
    last_ms = max(newest.values(), default=0)
    what = "All candles" if len(newest) > 1 else next(iter(newest), "Data")
    lines = _wrapped(f"{what}: none since {_when(last_ms, zone)}.")
    if unfollowed:
        lines += ["", *_wrapped("These cannot be followed now; look at them yourself:")]
        lines += _listed([_signal(row) for row in unfollowed])
    else:
        lines += _wrapped("No open signal was told to you.")
    return _message("DATA IS OLD", lines)


def data_back(happened: Sequence[Mapping[str, Any]], *, since_ms: int, zone: tzinfo) -> str:
    """Return what became of the told signals meanwhile, in order: rows with kind and at_ms."""
    lines = _wrapped(f"Candles are here again; they were missing from {_when(since_ms, zone)}.")
    lines.append("")
    told = [f"{clock(row['at_ms'], zone)} {_signal(row)} {_EVENTS.get(row['kind'], row['kind'])}"
            for row in happened]  # fmt: skip
    lines += _listed(told) if told else _wrapped("Nothing happened to your signals meanwhile.")
    return _message("DATA IS BACK", lines)


def settings_changed(changes: Sequence[str]) -> str:
    """Return what an edit of the settings costs, a line or more for each."""
    return _message("SETTINGS", _listed(changes))


def settings_refused(why: str) -> str:
    """Return why an edit is not taken."""
    lines = _wrapped(
        "The edit of config.yaml is refused; the settings before it stay in force, and weekly work"
        " waits until it is mended."
    )
    return _message("SETTINGS", [*lines, "", *_wrapped(why[:_DETAIL_MAX])])


def _message(head: str, lines: Sequence[str]) -> str:
    return "\n".join([f"<b>{escaped(head, WIDTH)}</b>", *lines])


def _named(job: str) -> str:
    name = _JOBS.get(job, job.replace("_", " "))
    return name[:1].upper() + name[1:]


def _signal(row: Mapping[str, Any]) -> str:
    pair = str(row["symbol"]).partition(":")[0]
    return f"#S{row['signal_id']} {pair} {row['timeframe']} {row['direction']}"


def _listed(items: Sequence[str]) -> list[str]:
    lines = [line for item in items[:_LINES] for line in bullet(clean(item, _DETAIL_MAX))]
    n_more = len(items) - _LINES
    return [*lines, f"and {n_more} more"] if n_more > 0 else lines


def _wrapped(text: str) -> list[str]:
    return wrapped(clean(text, 2 * _DETAIL_MAX))


def _when(ts_ms: int, zone: tzinfo) -> str:
    return datetime.fromtimestamp(ts_ms / 1000, zone).strftime("%d %b %H:%M")


def _lasted(seconds: float) -> str:
    return span(round(1000 * seconds)) if seconds >= MINUTE_MS / 1000 else f"{seconds:.0f} s"
