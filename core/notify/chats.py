"""Finding the owner's chat: who wrote to the bot last."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from core.errors import TraderError, UsageError
from core.notify.bot_api import BotApi, ChannelError, ClosedError

_POLL_S = 10  # of the Bot API's own waiting


class Chat(NamedTuple):
    """A chat that wrote to the bot: its id and how it calls itself."""

    chat_id: str
    name: str


def seen_chat(
    api: BotApi,
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
        updates = _updates(api, wait_s=max(0, min(_POLL_S, int(left_s))))
        for update in reversed(updates):
            message = update.get("message") or update.get("channel_post")
            chat = message.get("chat") if isinstance(message, dict) else None
            if isinstance(chat, dict) and type(chat.get("id")) is int:
                name = chat.get("title") or chat.get("username") or chat.get("first_name") or ""
                return Chat(str(chat["id"]), str(name))
        if monotonic() >= until_s:
            return None
        sleep(1.0)


def _updates(api: BotApi, *, wait_s: int) -> list[dict[str, Any]]:
    try:
        found = api.call("getUpdates", {"timeout": wait_s}, longer_s=wait_s)
    except ClosedError as error:
        raise UsageError(
            "Telegram does not know this token;", remedy="copy it from @BotFather"
        ) from error
    except ChannelError as error:
        raise TraderError(
            f"Telegram cannot be reached: {error.message};", remedy="try again"
        ) from error
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
