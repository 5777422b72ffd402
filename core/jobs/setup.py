"""The first settings, asked for one by one: pairs, equity, risk, Telegram; and what they cost."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from core.app import App
from core.config import RISK_MODES, Config
from core.config_edit import with_values
from core.config_file import parse_config, replace_text
from core.errors import ConfigError, ExchangeError, TraderError, UsageError
from core.exchange import Exchange
from core.jobs.backfill import planned
from core.jobs.backfill_plan import Plan
from core.jobs.sync import history_start_ms
from core.notify import BotApi, TelegramSink
from core.notify.chats import seen_chat

TOKEN_ENV = "TELEGRAM_BOT_TOKEN"
_CHAT_WAIT_S = 120.0
_TRIES = 5  # for one question, then it is given up


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What was said on the command line; None: ask for it, or keep it where nobody is asked."""

    pairs: Sequence[str] | None = None
    equity_usd: float | None = None
    risk: str | None = None
    token: str | None = None
    chat_id: str | None = None
    telegram: bool | None = None


class Setup:
    """One round of questions. `ask` is None where there is nobody to ask."""

    def __init__(
        self,
        app: App,
        wanted: Wanted,
        *,
        ask: Callable[[str], str] | None,
        say: Callable[[str], None],
        chat_wait_s: float = _CHAT_WAIT_S,
    ) -> None:
        self._app, self._wanted = app, wanted
        self._ask, self._say = ask, say
        self._chat_wait_s = chat_wait_s

    def run(self) -> dict[str, Any]:
        """Ask, check, write the answers into config.yaml and say what the download will cost.

        A bad answer is refused with its reason and asked for again; raises UsageError where there
        is nobody to ask. Nothing is written before all is answered.
        """
        config, wanted = self._app.config, self._wanted
        exchange = self._exchange()
        now = ", ".join(config.symbols)
        pairs = self._answer(
            f"Pairs, with commas [{now}]",
            None if wanted.pairs is None else ",".join(wanted.pairs),
            lambda text: pairs_of(text, config, exchange),
            config.symbols,
        )
        equity = self._answer(
            f"Your capital in USD [{config.risk.equity_usd:g}]",
            None if wanted.equity_usd is None else str(wanted.equity_usd),
            equity_of,
            config.risk.equity_usd,
        )
        modes = ", ".join(f"{m} ({r:g} % a trade)" for m, (r, _) in RISK_MODES.items())
        risk = self._answer(
            f"Risk: {modes} [{config.risk.mode}]", wanted.risk, risk_of, config.risk.mode
        )
        values: dict[str, Any] = {
            "symbols": pairs,
            "risk.equity_usd": equity,
            "risk.mode": risk,
            **self._telegram(),
        }
        self._write(values)
        plan = self._cost(pairs)
        return {
            "pairs": list(pairs),
            "equity_usd": equity,
            "risk": risk,
            "telegram": self._app.config.notify.telegram.enabled,
            "requests": plan.n_requests if plan else None,
            "minutes": round(plan.seconds / 60, 1) if plan else None,
            "MB": round(plan.n_bytes / 1e6) if plan else None,
            "next": "make run",
        }

    def _exchange(self) -> Exchange | None:
        """Return the exchange if it can be reached: without it pairs cannot be checked."""
        try:
            return self._app.market()[0]
        except TraderError as error:
            self._say(f"The exchange cannot be reached, pairs are not checked: {error}")
            return None

    def _answer(
        self, question: str, given: str | None, read: Callable[[str], Any], kept: Any
    ) -> Any:
        """Return what a question comes to; an empty answer keeps what is."""
        if given is not None:
            return read(given)
        for _ in range(_TRIES if self._ask else 0):
            text = self._ask(f"{question}: ").strip() if self._ask else ""
            if not text:
                return kept
            try:
                return read(text)
            except TraderError as error:
                self._say(str(error))
        if self._ask:
            raise UsageError(f"no usable answer in {_TRIES} tries;", remedy="run setup again")
        return kept

    def _telegram(self) -> dict[str, Any]:
        wanted, now = self._wanted, self._app.config.notify.telegram
        is_on = wanted.telegram
        if is_on is None:
            is_on = bool(wanted.token) or self._answer(
                f"Messages on Telegram? yes or no [{'yes' if now.enabled else 'no'}]",
                None,
                yes_or_no,
                now.enabled,
            )
        if not is_on:
            return {"notify.telegram.enabled": False}
        known = os.environ.get(TOKEN_ENV, "") or now.bot_token.get_secret_value()
        token = self._answer(
            f"Token of your bot, from @BotFather [{'the known one' if known else 'none'}]",
            wanted.token,
            token_of,
            known,
        )
        token = token_of(token)
        api = BotApi(_session(), api_base=now.api_base, token=token)
        chat_id = wanted.chat_id or self._chat(api)
        sink = TelegramSink(api, chat_id=chat_id)
        sink.send("Trader_AI is set up: messages will come here.", silent=False)
        self._say("A test message was sent.")
        is_in_environment = token == os.environ.get(TOKEN_ENV)
        return {
            "notify.telegram.enabled": True,
            "notify.telegram.bot_token": f"${{{TOKEN_ENV}}}" if is_in_environment else token,
            "notify.telegram.chat_id": chat_id,
        }

    def _chat(self, api: BotApi) -> str:
        """Wait for the owner to write to the bot; returns the chat's id."""
        self._say(f"Write any message to your bot now (waiting {self._chat_wait_s:.0f} s) …")
        found = seen_chat(api, for_s=self._chat_wait_s)
        if found is None:
            raise UsageError(
                "nobody wrote to the bot;", remedy="open its chat, press Start, run setup again"
            )
        self._say(f"Chat {found.chat_id} ({found.name}) wrote to it; that is where messages go.")
        return found.chat_id

    def _write(self, values: dict[str, Any]) -> None:
        app = self._app
        text = with_values(app.config_text, values)
        config = parse_config(text, name=app.config_path.name)
        if not app.is_file_in_force:
            raise ConfigError(f"{app.config_path} was edited meanwhile;", remedy="run setup again")
        if text != app.config_text:
            replace_text(app.config_path, text)
            if "notify.telegram.bot_token" in values:
                app.config_path.chmod(0o600)
        app.config, app.config_text = config, text

    def _cost(self, pairs: Sequence[str]) -> Plan | None:
        try:
            plan = planned(self._app, symbols=pairs, start_ms=history_start_ms(self._app))
        except ExchangeError as error:
            self._say(f"What the history costs cannot be told: {error}")
            return None
        self._say(
            f"History: about {plan.n_requests:,} requests, {plan.seconds / 60:,.0f} min,"
            f" {plan.n_bytes / 1e6:,.0f} MB; the scheduler fetches it beside the live market."
        )
        return plan


def _session() -> Any:
    import requests

    return requests.Session()


def pairs_of(text: str, config: Config, exchange: Exchange | None) -> tuple[str, ...]:
    """Return the pairs of an answer; raises UsageError naming the one that does not exist."""
    pairs = tuple(dict.fromkeys(word.upper() for word in text.replace(",", " ").split()))
    if not pairs:
        raise UsageError("no pair was named;", remedy="write e.g. BTC/USDT:USDT, ETH/USDT:USDT")
    listed = exchange.markets(pairs) if exchange else dict.fromkeys(pairs)
    for pair in pairs:
        if pair not in listed:
            near = difflib.get_close_matches(pair, config.symbols, n=1)
            hint = f"did you mean {near[0]}?" if near else "BTC/USDT:USDT is a perpetual"
            raise UsageError(f"{config.exchange.id} does not list {pair};", remedy=hint)
    return pairs


def equity_of(text: str) -> float:
    """Return a capital. Raises UsageError."""
    try:
        value = float(text.replace(",", "").replace("_", ""))
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise UsageError(f"{text!r} is no capital;", remedy="write a number above 0, e.g. 10000")
    return value


def risk_of(text: str) -> str:
    """Return a risk mode; its first letters will do. Raises UsageError."""
    found = [mode for mode in RISK_MODES if text and mode.startswith(text.lower())]
    if len(found) != 1:
        raise UsageError(f"{text!r} is no risk mode;", remedy=f"one of {', '.join(RISK_MODES)}")
    return found[0]


def yes_or_no(text: str) -> bool:
    """Return whether an answer means yes. Raises UsageError."""
    if text.lower() not in ("y", "yes", "n", "no"):
        raise UsageError(f"{text!r} is neither;", remedy="write yes or no")
    return text.lower().startswith("y")


def token_of(text: str) -> str:
    """Return a bot's token. Raises UsageError, which does not show it."""
    number, _, secret = text.partition(":")
    lawful = len(secret) >= 20 and all(c.isascii() and (c.isalnum() or c in "_-") for c in secret)
    if not (number.isdecimal() and lawful):
        raise UsageError(
            "that is no token of a bot;", remedy="it looks like 123456789:AAE…, from @BotFather"
        )
    return text
