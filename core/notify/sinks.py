"""Where messages go: the console, a Telegram chat, and what can go wrong on the way."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TextIO

from core import messages
from core.errors import TraderError
from core.notify.redaction import hide

if TYPE_CHECKING:  # 35 ms to load, and most commands send nothing
    import requests

_TEXT_MAX_BYTES = 2 * 4096  # Telegram counts UTF-16 units
_WRONG_CHAT = ("chat not found", "chat_id is empty", "upgraded to a supergroup", "peer_id_invalid")


class ChannelError(TraderError):
    """A message that did not go through."""


class LaterError(ChannelError):
    """Nothing was accepted; the same may succeed later, not before `after_s` where given."""

    def __init__(self, message: str, *, after_s: float | None = None) -> None:
        super().__init__(message)
        self.after_s = after_s


class DoubtError(ChannelError):
    """The message went out and nothing came back; `silent` when the wait for an answer ended."""

    def __init__(self, message: str, *, silent: bool) -> None:
        super().__init__(message)
        self.silent = silent


class RefusedError(ChannelError):
    """This message will never be accepted."""


class ClosedError(ChannelError):
    """The channel takes nothing until the owner mends it."""


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


class _Body:
    """A request body that remembers whether it was fetched.

    It is fetched after connecting and the TLS handshake: if it was not, nothing was accepted.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.fetched = False

    def __len__(self) -> int:
        return len(self._content)

    def __iter__(self) -> Iterator[bytes]:
        self.fetched = True
        yield self._content


class TelegramSink:
    """One chat of the Bot API, at most one message every `pace_s`."""

    def __init__(
        self,
        session: requests.Session,
        *,
        api_base: str,
        token: str,
        chat_id: str,
        timeouts_s: tuple[float, float] = (5.0, 20.0),
        pace_s: float = 1.0,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._session, self._token, self._chat_id = session, token, chat_id
        self._base = f"{api_base.rstrip('/')}/bot{token}"
        self._timeouts_s, self._pace_s = timeouts_s, pace_s
        self._monotonic, self._sleep = monotonic, sleep
        self._free_s = monotonic()

    def check(self) -> None:
        """Ask the server who we are; no message is involved, so no doubt can come of it."""
        try:
            self._post("getMe", {})
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
            result = self._post("sendMessage", {**payload, "text": text, "parse_mode": "HTML"})
        except RefusedError:
            cut = messages.plain(text).encode("utf-16-le")[:_TEXT_MAX_BYTES]
            bare = cut.decode("utf-16-le", "ignore")
            result = self._post("sendMessage", {**payload, "text": bare})
        return Sent(str(result.get("message_id", "")) or None)

    def _post(self, method: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        from requests import RequestException

        body = _Body(json.dumps(payload).encode())
        try:
            response = self._session.post(
                f"{self._base}/{method}",
                data=body,
                headers={"Content-Type": "application/json"},
                timeout=self._timeouts_s,
                allow_redirects=False,
            )
        except RequestException as error:
            # `from None`: the cause holds the address, and the address holds the token.
            raise self._silence(error, fetched=body.fetched) from None
        finally:
            # A kept connection may have died without our knowing, which would look like doubt.
            self._session.close()
        return _answer(response)

    def _silence(self, error: Exception, *, fetched: bool) -> ChannelError:
        from requests import exceptions as http

        said = hide(f"{type(error).__name__}: {error}", [self._token])[:300]
        if isinstance(error, http.MissingSchema | http.InvalidSchema | http.InvalidURL):
            return ClosedError(f"notify.telegram.api_base cannot be used: {said}")
        if fetched:
            return DoubtError(said, silent=isinstance(error, http.Timeout))
        return LaterError(said)


def _answer(response: requests.Response) -> dict[str, Any]:
    """Return the result of an answer, or raise what it means."""
    status = response.status_code
    try:
        answer = response.json()
    except ValueError:
        answer = None
    answer = answer if isinstance(answer, dict) else {}
    if status == 200 and answer.get("ok"):
        result = answer.get("result")
        return result if isinstance(result, dict) else {}
    said = f"{status} {answer.get('description') or response.reason or 'no Bot API answer'}"[:300]
    if status == 429:
        wait = (answer.get("parameters") or {}).get("retry_after")
        raise LaterError(said, after_s=float(wait) if isinstance(wait, int | float) else None)
    if status in (401, 403, 404) or any(phrase in said.lower() for phrase in _WRONG_CHAT):
        raise ClosedError(said)
    if 400 <= status < 500 and status != 408:
        raise RefusedError(said)
    raise LaterError(said)
