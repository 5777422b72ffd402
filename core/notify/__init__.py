"""The way out to the owner: sinks, the round that empties the outbox, and redaction."""

from core.notify.outbox import REPEAT, Accepted, SendReport, channels, send_waiting, sinks_of
from core.notify.redaction import RedactSecrets, redact
from core.notify.sinks import (
    ChannelError,
    ClosedError,
    ConsoleSink,
    DoubtError,
    LaterError,
    RefusedError,
    Sent,
    Sink,
    Sinks,
    TelegramSink,
)

__all__ = [
    "REPEAT",
    "Accepted",
    "ChannelError",
    "ClosedError",
    "ConsoleSink",
    "DoubtError",
    "LaterError",
    "RedactSecrets",
    "RefusedError",
    "SendReport",
    "Sent",
    "Sink",
    "Sinks",
    "TelegramSink",
    "channels",
    "redact",
    "send_waiting",
    "sinks_of",
]
