"""Finding the owner's chat: who wrote to the bot last."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import requests

from core.errors import TraderError, UsageError
from core.notify.redaction import hide

_TIMEOUTS_S = (5.0, 20.0)
_POLL_S = 10  # of the Bot API's own waiting, below the read time-out


class Chat(NamedTuple):
    """A chat that wrote to the bot: its id and how it calls itself."""

    chat_id: str
    name: str


def seen_chat(
    api_base: str,
    token: str,
    *,
    for_s: float,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Chat | None:
    """Return the chat of the newest message to the bot; None where none comes in time.

    Raises UsageError for a token the server does not know, TraderError where it cannot be reached.
    """
    until_s = monotonic() + for_s
    while True:
        left_s = until_s - monotonic()
        updates = _updates(api_base, token, wait_s=max(0, min(_POLL_S, int(left_s))))
        for update in reversed(updates):
            message = update.get("message") or update.get("channel_post") or {}
            chat = message.get("chat") or {}
            if "id" in chat:
                name = chat.get("title") or chat.get("username") or chat.get("first_name") or ""
                return Chat(str(chat["id"]), str(name))
        if monotonic() >= until_s:
            return None
        sleep(1.0)


def _updates(api_base: str, token: str, *, wait_s: int) -> list[dict[str, Any]]:
    try:
        answer = requests.post(
            f"{api_base.rstrip('/')}/bot{token}/getUpdates",
            json={"timeout": wait_s},
            timeout=_TIMEOUTS_S,
            allow_redirects=False,
        )
        found = answer.json()
    except (requests.RequestException, ValueError) as error:
        said = hide(f"{type(error).__name__}: {error}", [token])[:200]
        # `from None`: the cause holds the address, and the address holds the token.
        raise TraderError(f"Telegram cannot be reached: {said};", remedy="try again") from None
    if answer.status_code in (401, 404):
        raise UsageError("Telegram does not know this token;", remedy="copy it from @BotFather")
    result = found.get("result") if isinstance(found, dict) else None
    return [row for row in result if isinstance(row, dict)] if isinstance(result, list) else []
