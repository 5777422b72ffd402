"""What the owner reads: every message as text for a phone, in Telegram's HTML.

Visible lines hold at most `WIDTH` characters. Rows are mappings with the columns of `signals`;
every value from outside is stripped of control characters, cut, and escaped. Only a certified
LIVE row is called SIGNAL and has the green mark.
"""

from core.messages import answers
from core.messages.call import NO_EDGE, PriceNow, new_signal, too_late
from core.messages.changes import state_changed, weekly_work
from core.messages.digest import Day, Standing, digest
from core.messages.events import cancelled, closed, expired, filled, stop_moved, tp1
from core.messages.phone import GREEN, WIDTH, Look, day, decimals_of, plain, when
from core.messages.record import (
    Record,
    promise_lines,
    record_lines,
    streak_lines,
)
from core.messages.weekly import Health, Week, health_lines, lift_lines, weekly_summary

__all__ = [
    "GREEN",
    "NO_EDGE",
    "WIDTH",
    "Day",
    "Health",
    "Look",
    "PriceNow",
    "Record",
    "Standing",
    "Week",
    "answers",
    "cancelled",
    "closed",
    "day",
    "decimals_of",
    "digest",
    "expired",
    "filled",
    "health_lines",
    "lift_lines",
    "new_signal",
    "plain",
    "promise_lines",
    "record_lines",
    "state_changed",
    "stop_moved",
    "streak_lines",
    "too_late",
    "tp1",
    "weekly_summary",
    "weekly_work",
    "when",
]
