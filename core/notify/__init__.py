"""The way to the owner and back: sinks, the round that empties the outbox, commands, redaction."""

from core.notify.bot_api import (
    BotApi,
    ChannelError,
    ClosedError,
    DoubtError,
    LaterError,
    RefusedError,
)
from core.notify.commands import Inbox, Update, inbox_of
from core.notify.outbox import REPEAT, Accepted, SendReport, channels, send_waiting, sinks_of
from core.notify.redaction import RedactSecrets, redact
from core.notify.sinks import (
    ConsoleSink,
    Sent,
    Sink,
    Sinks,
    TelegramSink,
)

__all__ = [
    "REPEAT",
    "Accepted",
    "BotApi",
    "ChannelError",
    "ClosedError",
    "ConsoleSink",
    "DoubtError",
    "Inbox",
    "LaterError",
    "RedactSecrets",
    "RefusedError",
    "SendReport",
    "Sent",
    "Sink",
    "Sinks",
    "TelegramSink",
    "Update",
    "channels",
    "inbox_of",
    "redact",
    "send_waiting",
    "sinks_of",
]
