"""The settings of what the owner is told, where and how loudly."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from core.section import SecretText, Section


class Telegram(Section):
    """Where messages go."""

    enabled: bool = False
    bot_token: SecretStr = SecretStr("")
    chat_id: str = ""
    api_base: str = "https://api.telegram.org"
    send: Literal["certified", "paper", "all"] = "paper"
    link_template: str = ""
    commands: bool = False

    @field_validator("chat_id", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _complete(self) -> Telegram:
        token, placeholders = self.bot_token.get_secret_value(), ("YOUR_", "${", "<")
        if self.enabled and (not token or token.startswith(placeholders)):
            raise ValueError(
                "bot_token is still a placeholder; put the token of @BotFather there, "
                "or ${TELEGRAM_BOT_TOKEN}, or set enabled: false"
            )
        if self.enabled and (not self.chat_id or self.chat_id.startswith(placeholders)):
            raise ValueError("chat_id is still a placeholder; put the id of your chat there")
        return self


def _loudness(value: Any) -> Any:
    """YAML reads the bare words on and off as truth values."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


Loudness = Annotated[Literal["on", "silent", "off"], BeforeValidator(_loudness)]


class Events(Section):
    """How each later message of a signal comes: aloud, silently, or not at all."""

    filled: Loudness = "on"
    tp1: Loudness = "on"
    stop_moved: Loudness = "silent"
    expired: Loudness = "silent"
    cancelled: Loudness = "silent"
    closed: Loudness = "on"


class Notify(Section):
    """Messages to the owner."""

    console: bool = True
    paper_per_day: Annotated[int, Field(ge=0, le=100)] = 3
    digest_hour: Annotated[int, Field(ge=0, le=23)] = 8
    deadman_url: SecretText = ""
    events: Events = Events()
    telegram: Telegram = Telegram()
