"""Keeping secrets out of words: log records, tracebacks and stored error texts."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from urllib.parse import quote, urlsplit

from core.config import Config

HIDDEN = "***"
_TOKEN = re.compile(r"(?:bot)?\d{5,}:[\w-]{20,}")  # what @BotFather gives, also inside an address
CREDENTIALS = ("apiKey", "secret", "password", "uid", "token", "privateKey", "walletAddress")
_SHORTEST = 6  # replacing shorter values would garble ordinary words


def redact(text: str, config: Config) -> str:
    """Return a text without any secret of the settings, nor anything like a bot token."""
    return hide(text, secrets_of(config))


def secrets_of(config: Config) -> list[str]:
    """Return every value of the settings that must not be seen."""
    url = config.notify.deadman_url
    credentials = (config.exchange.ccxt.get(name) for name in CREDENTIALS)
    token = config.notify.telegram.bot_token.get_secret_value()
    return [token, url, urlsplit(url).path, *(str(c) for c in credentials if c)]


def hide(text: str, secrets: Iterable[str]) -> str:
    """Return a text without some secrets, plain or percent-encoded, nor any bot token."""
    known = [secret for secret in secrets if len(secret) >= _SHORTEST]
    forms = {form for secret in known for form in (secret, quote(secret, safe=""))}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    return _TOKEN.sub(HIDDEN, text)


class RedactSecrets(logging.Filter):
    """Takes secrets out of log records, tracebacks included; put it on handlers.

    Without known secrets it hides what looks like a bot token.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._secrets = tuple(secrets)

    @classmethod
    def of(cls, config: Config) -> RedactSecrets:
        """Return a filter that knows the secrets of the settings."""
        return cls(secrets_of(config))

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record; none is dropped."""
        record.msg, record.args = hide(record.getMessage(), self._secrets), None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        record.exc_info = None
        if record.exc_text:
            record.exc_text = hide(record.exc_text, self._secrets)
        if record.stack_info:
            record.stack_info = hide(record.stack_info, self._secrets)
        return True
