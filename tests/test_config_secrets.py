"""Laws of secrets in the settings: neither the settings nor what is said of them shows one."""

from __future__ import annotations

import json
import traceback

import pytest
from pydantic import ValidationError

from core.config import config_from
from core.config_file import parse_config
from core.errors import ConfigError

SECRETS = ("123456789:AAsecretSECRETsecretSECRETsecret", "apikey-of-mine", "hc.test/1b2c-3d4e")
SECRET_TEXT = f"""
exchange: {{ccxt: {{apiKey: {SECRETS[1]}, timeout: 20000, options: {{pass: {SECRETS[1]}}}}}}}
notify:
  deadman_url: https://{SECRETS[2]}
  telegram: {{enabled: true, bot_token: "{SECRETS[0]}", chat_id: "42"}}
"""


def complaint(text: str) -> str:
    """What is said of a text that cannot be used."""
    with pytest.raises(ConfigError) as caught:
        parse_config(text, name="my.yaml")
    assert caught.value.exit_code == 2
    said = str(caught.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize("token", ["", "YOUR_BOT_TOKEN", "<token>", "${broken-name}"])
def test_a_placeholder_token_is_refused_with_the_remedy(token: str) -> None:
    """Only where Telegram is switched on; otherwise it may stand there."""
    rest = f"bot_token: '{token}', chat_id: '42'"
    said = complaint(f"notify: {{telegram: {{enabled: true, {rest}}}}}")
    for word in ("notify.telegram", "bot_token", "placeholder", "@BotFather", "enabled: false"):
        assert word in said
    assert not parse_config(f"notify: {{telegram: {{{rest}}}}}").notify.telegram.enabled


@pytest.mark.parametrize("chat", ["", "YOUR_CHAT_ID"])
def test_a_placeholder_chat_is_refused_without_showing_the_token(chat: str) -> None:
    """The token beside it is real."""
    rest = f"bot_token: '{SECRETS[0]}', chat_id: '{chat}'"
    said = complaint(f"notify: {{telegram: {{enabled: true, {rest}}}}}")
    assert "chat_id" in said
    assert SECRETS[0] not in said


def test_settings_show_no_secret() -> None:
    """Not as text, not in a format, not as JSON; the values themselves are there to be used."""
    config = parse_config(SECRET_TEXT)
    shown = (
        repr(config),
        str(config),
        f"{config}",
        repr(config.notify),
        repr(config.notify.telegram),
        repr(config.exchange),
        config.model_dump_json(),
        json.dumps(config.model_dump(mode="json")),
        repr(config.notify.telegram.bot_token),
    )
    for text in shown:
        assert not any(secret in text for secret in SECRETS)
    assert config.notify.telegram.bot_token.get_secret_value() == SECRETS[0]
    assert config.exchange.ccxt["apiKey"] == SECRETS[1]
    assert config.notify.deadman_url.endswith(SECRETS[2])
    assert config.model_dump(mode="json")["exchange"]["ccxt"]["timeout"] == 20000


@pytest.mark.parametrize(
    "text",
    [
        SECRET_TEXT + "  nonsense: 1\n",
        SECRET_TEXT + "risk: {mode: bold}\n",
        SECRET_TEXT.replace('"42"', '""'),
        SECRET_TEXT.replace(f'"{SECRETS[0]}"', f'["{SECRETS[0]}"]'),
        SECRET_TEXT.replace(f'"{SECRETS[0]}"', f'"{SECRETS[0]}'),
        f"notify: {{telegram: '{SECRETS[0]}'}}",
        f"notify: '{SECRETS[0]}'",
        f"notify: {{telegram: {{bot_token: {{x: '{SECRETS[0]}'}}}}}}",
        f"exchange: {{ccxt: '{SECRETS[1]}'}}",
        f"exchange: '{SECRETS[1]}'",
        f"notify: {{deadman_url: ['https://{SECRETS[2]}']}}",
        f"notify:\n  telegram:\n    bot_token: '{SECRETS[0]}\n  console: true\n",
        f"notify:\n\ttelegram: {{bot_token: '{SECRETS[0]}'}}\n",
        SECRET_TEXT.replace("timeout: 20000", "deep: " + "[" * 300 + "]" * 300),
        SECRET_TEXT + "symbols: ['${NO_SUCH_VARIABLE}']\n",
        SECRET_TEXT + "notify: {console: true}\n",
    ],
)
def test_a_refusal_shows_no_secret(text: str) -> None:
    """Neither the line nor the whole traceback that `--log-level debug` prints."""
    assert any(secret in text for secret in SECRETS)
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    shown = str(caught.value) + "".join(traceback.format_exception(caught.value))
    for secret in SECRETS:
        assert secret not in shown


def test_a_wrong_value_of_a_word_shows_no_secret_either() -> None:
    """The error of the typed settings themselves, as other callers see it."""
    raw = {"enabled": True, "bot_token": SECRETS[0], "chat_id": ""}
    with pytest.raises(ValidationError) as caught:
        config_from({"notify": {"telegram": raw}})
    assert SECRETS[0] not in str(caught.value)
    assert SECRETS[0] not in repr(caught.value)
