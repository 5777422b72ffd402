"""One bot of a Bot API server: a call, its answer, and what each failure means."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from core.errors import TraderError
from core.notify.redaction import hide

if TYPE_CHECKING:  # 35 ms to load, and most commands send nothing
    import requests

_DAY_S = 86_400.0
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


class BotApi:
    """A bot by its token; each call has a connection of its own."""

    def __init__(
        self,
        session: requests.Session,
        *,
        api_base: str,
        token: str,
        timeouts_s: tuple[float, float] = (5.0, 20.0),
    ) -> None:
        self._session, self._token, self._timeouts_s = session, token, timeouts_s
        self._base = f"{api_base.rstrip('/')}/bot{token}"

    def call(self, method: str, payload: Mapping[str, Any], *, longer_s: float = 0.0) -> Any:
        """Return the result of one call; raises a ChannelError for anything else.

        `longer_s`: how much longer than usual the answer may take.
        """
        from requests import RequestException

        body = _Body(json.dumps(payload).encode())
        try:
            response = self._session.post(
                f"{self._base}/{method}",
                data=body,
                headers={"Content-Type": "application/json"},
                timeout=(self._timeouts_s[0], self._timeouts_s[1] + longer_s),
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


def _wait_s(parameters: Any) -> float | None:
    """Return how long the server wants to be left alone, a day at most; None where it is unsaid."""
    wait = parameters.get("retry_after") if isinstance(parameters, dict) else None
    return float(min(wait, _DAY_S)) if isinstance(wait, int | float) and wait >= 0 else None


def _answer(response: requests.Response) -> Any:
    """Return the result of an answer, or raise what it means."""
    status = response.status_code
    try:
        answer = response.json()
    except (ValueError, RecursionError):
        answer = None
    answer = answer if isinstance(answer, dict) else {}
    if status == 200 and answer.get("ok"):
        return answer.get("result")
    why = str(answer.get("description") or response.reason or "no Bot API answer")
    said = " ".join(f"{status} {why}".split())[:300]
    if status == 429:
        raise LaterError(said, after_s=_wait_s(answer.get("parameters")))
    if status in (401, 403, 404) or any(phrase in said.lower() for phrase in _WRONG_CHAT):
        raise ClosedError(said)
    if 400 <= status < 500 and status != 408:
        raise RefusedError(said)
    raise LaterError(said)
