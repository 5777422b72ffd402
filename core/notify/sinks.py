"""Where messages go: the console, a Telegram chat, and what can go wrong on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TextIO

from core import messages
from core.notify.bot_api import BotApi, DoubtError, LaterError, RefusedError

_TEXT_MAX_BYTES = 2 * 4096  # Telegram counts UTF-16 units


class Sent(NamedTuple):
    """An accepted message, and its id where the channel has ids."""

    message_id: str | None


class Sink(Protocol):
    """A channel; both methods raise ChannelError."""

    def check(self) -> None:
        """Raise LaterError or ClosedError when the channel cannot be reached; shows nothing."""

    def send(self, text: str, *, silent: bool, reply_to: str | None = None) -> Sent:
        """Deliver one message in Telegram's HTML."""


Sinks = Mapping[str, Sink]


class ConsoleSink:
    """Messages as framed plain text on a stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def check(self) -> None:
        """A stream shows its faults only when written to."""

    def send(self, text: str, *, silent: bool, reply_to: str | None = None) -> Sent:
        """Write one message; characters the stream does not have become '?'."""
        del silent, reply_to
        rule = "-" * messages.WIDTH
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        framed = f"{rule}\n{messages.plain(text)}\n{rule}\n"
        try:
            self._stream.write(framed.encode(encoding, "replace").decode(encoding))
            self._stream.flush()
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            raise LaterError(f"the console does not take text: {error}") from error
        return Sent(None)


class TelegramSink:
    """One chat of the Bot API, at most one message every `pace_s`."""

    def __init__(
        self,
        api: BotApi,
        *,
        chat_id: str,
        pace_s: float = 1.0,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._api, self._chat_id, self._pace_s = api, chat_id, pace_s
        self._monotonic, self._sleep = monotonic, sleep
        self._free_s = monotonic()

    def check(self) -> None:
        """Ask the server who we are; no message is involved, so no doubt can come of it."""
        try:
            self._api.call("getMe", {})
        except DoubtError as error:
            raise LaterError(error.message) from error

    def send(self, text: str, *, silent: bool, reply_to: str | None = None) -> Sent:
        """Post one message; as plain text where the server refuses its markup or length."""
        self._sleep(max(0.0, self._free_s - self._monotonic()))
        self._free_s = self._monotonic() + self._pace_s
        payload: dict[str, Any] = {
            "chat_id": self._chat_id,
            "disable_notification": silent,
            "link_preview_options": {"is_disabled": True},
        }
        if reply_to is not None:
            original = {"message_id": int(reply_to), "allow_sending_without_reply": True}
            payload["reply_parameters"] = original
        try:
            result = self._api.call("sendMessage", {**payload, "text": text, "parse_mode": "HTML"})
        except RefusedError:
            cut = messages.plain(text).encode("utf-16-le")[:_TEXT_MAX_BYTES]
            bare = cut.decode("utf-16-le", "ignore")
            result = self._api.call("sendMessage", {**payload, "text": bare})
        known = result.get("message_id") if isinstance(result, dict) else None
        return Sent(None if known is None else str(known))
