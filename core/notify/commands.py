"""What the owner writes to the bot: messages of the allowed chat, by long polling."""

from __future__ import annotations

from typing import Any, NamedTuple

from core.config import Config
from core.notify.bot_api import BotApi, LaterError

_TEXT_MAX = 200
_AT_ONCE = 50
_NUMBERS_END = 1 << 53


class Update(NamedTuple):
    """A message somebody wrote to the bot; `is_foreign`: from a chat that is not the owner's."""

    number: int
    text: str
    is_foreign: bool


class Inbox:
    """The bot's inbox; only `chat_id` may command.

    What was not confirmed comes again, also after a crash. An offset is sent only to confirm: after
    a quiet week Telegram starts its numbers anew, and an old offset would hide what is new.
    """

    def __init__(self, api: BotApi, *, chat_id: str) -> None:
        self._api, self._chat_id = api, chat_id
        self._confirmed = 0

    def updates(self, *, wait_s: float) -> list[Update]:
        """Return what is new, oldest first, after at most `wait_s`. Raises ChannelError."""
        payload: dict[str, Any] = {
            "timeout": int(wait_s),
            "limit": _AT_ONCE,
            "allowed_updates": ["message"],
        }
        if self._confirmed:
            payload["offset"] = self._confirmed
        found = self._api.call("getUpdates", payload, longer_s=wait_s)
        known = [one for one in found if _is_numbered(one)] if isinstance(found, list) else []
        self._confirmed = 0
        if not known and found != []:  # it could not be confirmed, and would come again at once
            raise LaterError(f"getUpdates gave no update that has a number: {str(found)[:80]!r}")
        return [self._update(one) for one in known]

    def confirm(self, update: Update) -> None:
        """Say with the next call that an update, and those before it, need not come again."""
        self._confirmed = update.number + 1

    def _update(self, one: dict[str, Any]) -> Update:
        message = _inside(one, "message")
        chat_id = str(_inside(message, "chat").get("id", ""))
        text = message.get("text")
        text = text[:_TEXT_MAX].encode(errors="replace").decode() if isinstance(text, str) else ""
        return Update(one["update_id"], text, is_foreign=chat_id != self._chat_id)


def _is_numbered(one: Any) -> bool:
    number = one.get("update_id") if isinstance(one, dict) else None
    return isinstance(number, int) and 0 <= number < _NUMBERS_END


def _inside(one: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a part that has parts itself; one that has none is empty."""
    found = one.get(name)
    return found if isinstance(found, dict) else {}


def inbox_of(config: Config) -> Inbox | None:
    """Return the inbox where commands are wanted, else None."""
    import requests

    telegram = config.notify.telegram
    if not (telegram.enabled and telegram.commands):
        return None
    api = BotApi(
        requests.Session(),
        api_base=telegram.api_base,
        token=telegram.bot_token.get_secret_value(),
    )
    return Inbox(api, chat_id=telegram.chat_id)
