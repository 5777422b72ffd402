"""Carrying out what the owner writes to the bot, each command once, and answering it.

Effect, answer and the mark that it was taken are one commit; the answer goes out by the outbox like
any other message. See docs/decisions/commands.md.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from math import inf
from types import MappingProxyType
from typing import Any

from core import messages
from core.app import App, wall_ms
from core.config_notify import Telegram
from core.domain import Gate, Message, Series
from core.errors import TraderError
from core.jobs import record, tell
from core.jobs.explain import market_now_ms
from core.jobs.recorded import recorded
from core.jobs.scan import lacks_history
from core.jobs.standing import price_now, standing
from core.messages import answers
from core.notify import ChannelError, Inbox, Update, inbox_of, redact
from core.store import operation
from core.store import signals as signal_store
from core.timeframe import DAY_MS, floor_ms, tf_ms

log = logging.getLogger("trader.commands")

_POLL_S = 25.0
_TROUBLE_S = 30.0
_IDLE_S = 1.0  # between looks at the settings
_MOST_SIGNALS = 8
_LAST_SHOWN = 3


def listen(main: App, own: App, *, stop: threading.Event) -> threading.Thread | None:
    """Start a thread that takes commands until `stop`, whenever the settings want them.

    `own` is `main` on a connection nobody else uses; `main` has the settings in force. None for a
    copied database: another engine listens. The thread is a daemon: a poll under way holds up no
    end.
    """
    if main.muted:
        own.db.close()
        return None
    ears = _Ears(main, own, stop)
    work = threading.Thread(target=ears.listen, name="commands", daemon=True)
    work.start()
    return work


class _Ears:
    """Listens to the bot of the settings in force, which may change at any moment."""

    def __init__(self, main: App, own: App, stop: threading.Event) -> None:
        self._main, self._own, self._stop = main, own, stop
        self._heard_of: Telegram | None = None  # the settings the inbox was made for
        self._inbox: Inbox | None = None
        self._said = ""

    def listen(self) -> None:
        """Take commands until the stop."""
        try:
            while not self._stop.is_set():
                with recorded(
                    self._own, "commands", due_ms=wall_ms(), limit_s=inf, is_rare=True
                ) as run:
                    self._hear()
                if run.outcome == "error":
                    self._rest()
        finally:
            self._own.db.close()

    def _hear(self) -> None:
        """Poll once, where commands are wanted; an outage is said once and passes by itself."""
        if not self._is_current():
            self._heard_of = self._own.config.notify.telegram
            self._said, self._inbox = "", inbox_of(self._own.config)
        if self._inbox is None:
            self._stop.wait(_IDLE_S)
            return
        try:
            poll_once(self._own, self._inbox, wait_s=_POLL_S, is_current=self._is_current)
            self._said = ""
        except ChannelError as error:
            if error.message != self._said:
                log.warning("commands cannot be read: %s", error.message)
            self._said = error.message
            self._rest()

    def _is_current(self) -> bool:
        """Take the settings in force; False where they name another bot, chat or wish."""
        self._own.config, self._own.config_text = self._main.config, self._main.config_text
        return self._own.config.notify.telegram == self._heard_of

    def _rest(self) -> None:
        until_s = time.monotonic() + _TROUBLE_S
        while time.monotonic() < until_s and self._is_current():
            if self._stop.wait(_IDLE_S):
                return


def poll_once(
    app: App, inbox: Inbox, *, wait_s: float, is_current: Callable[[], bool] = lambda: True
) -> int:
    """Take what is new and answer it; returns how many commands were carried out.

    Messages of other chats are counted and not answered; what is no command is left alone. What
    came while the settings changed is left, and comes again where it is still wanted. Raises
    ChannelError.
    """
    n_taken = 0
    for update in inbox.updates(wait_s=wait_s):
        if not is_current():
            break
        if update.is_foreign:
            operation.count_foreign(app.db)
        elif update.text.startswith("/") and not operation.is_taken(app.db, update.number):
            _take(app, update)
            n_taken += 1
        inbox.confirm(update)
    return n_taken


def _take(app: App, update: Update) -> None:
    """Carry out one command: what it changes, its answer and its mark in one commit."""
    word, _, rest = redact(update.text, app.config).strip().partition(" ")
    name = word.partition("@")[0].lower()  # in groups: /status@name_of_the_bot
    now_ms, tick = market_now_ms(app), operation.clock_row(app.db)
    change = {"/pause": True, "/resume": False}.get(name)
    mark = name if change is not None or name in _ANSWERS else "?"
    text = "" if change is not None else _answer(app, name, rest.strip(), now_ms=now_ms)
    with app.db.write():
        if not operation.take_command(app.db, update.number, mark, wall_ms=wall_ms()):
            return
        if change is not None:
            # From the engine's own present on: what it has not decided yet is not told.
            changed = operation.set_paused(app.db, change, now_ms=tick[0] if tick else now_ms)
            text = answers.paused(tell.look_of(app), is_paused=change, changed=changed)
        answer = Message(dedupe_key=f"command:{update.number}", kind="answer", text=text)
        operation.queue_messages(app.db, [answer], channels=["telegram"], created_ms=now_ms)


def _answer(app: App, name: str, rest: str, *, now_ms: int) -> str:
    """Return the answer to a question; one that fails says so and is not asked again."""
    look = tell.look_of(app)
    if name not in _ANSWERS:
        return answers.helped(look, unknown=name)
    try:
        return _ANSWERS[name](app, rest, now_ms=now_ms)
    except TraderError as error:
        return answers.sentence(look, str(error))
    except Exception:
        log.exception("%s failed", name)
        return answers.sentence(look, "That could not be answered; the log says why.")


def _status(app: App, rest: str, *, now_ms: int) -> str:  # noqa: ARG001
    step = min(tf_ms(timeframe) for timeframe in app.config.timeframes)
    look, closes_ms = tell.look_of(app), floor_ms(now_ms, step) + step
    counts = operation.outbox_counts(app.db)
    n_waiting = sum(counts.get(state, 0) for state in ("pending", "sending", "ambiguous"))
    extra = [f"Next close {messages.when(closes_ms, look.zone)}"]
    extra += [f"{n_waiting} messages wait to be sent."] if n_waiting else []
    extra += answers.working_up(operation.bootstrap_steps(app.db))
    failed = app.db.rows(
        "SELECT job, detail FROM job_runs WHERE outcome <> 'ok' AND started_wall_ms > ?"
        " ORDER BY id DESC LIMIT 1",
        (wall_ms() - DAY_MS,),
    )
    extra += [f"{job} failed: {redact(detail, app.config)}" for job, detail in failed]
    return answers.status(standing(app, now_ms=now_ms), look, extra=extra)


def _signals(app: App, rest: str, *, now_ms: int) -> str:  # noqa: ARG001
    rows = app.db.dicts(
        "SELECT * FROM signals WHERE status IN ('PENDING', 'OPEN') AND origin = 'live'"
        " AND delivery IN ('LIVE', 'PAPER') ORDER BY status, decided_ms DESC, id"
    )
    shown = [
        (row, tell.look_of(app, row), price_now(app.db, row, now_ms=now_ms))
        for row in rows[:_MOST_SIGNALS]
    ]
    return answers.signals(shown, tell.look_of(app), n_more=len(rows) - len(shown))


def _signal(app: App, rest: str, *, now_ms: int) -> str:
    digits = rest.upper().removeprefix("#").removeprefix("S")
    number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 16 else None
    row = None if number is None else signal_store.signal_of(app.db, number)
    if row is None:
        look = tell.look_of(app)
        head = f"There is no signal {rest[:40]}." if rest else "Which one?"
        return answers.sentence(look, f"{head} Ask like /signal 123.")
    return answers.signal(row, tell.look_of(app, row), now=price_now(app.db, row, now_ms=now_ms))


def _why(app: App, rest: str, *, now_ms: int) -> str:
    look = tell.look_of(app)
    wanted = rest.upper()
    named = [
        symbol for symbol in app.config.symbols if wanted in (symbol, symbol.partition("/")[0])
    ]
    if not named:
        return answers.sentence(look, f"Ask like /why {app.config.symbols[0].partition('/')[0]}.")
    symbol, start_ms = named[0], floor_ms(now_ms, DAY_MS) - DAY_MS
    key = (app.config.exchange.id, symbol, app.strategy, start_ms)
    rows = app.db.dicts(
        "SELECT * FROM signals WHERE exchange = ? AND symbol = ? AND strategy_id = ?"
        " AND decided_ms >= ? ORDER BY decided_ms DESC, id DESC",
        key,
    )
    exchange = app.config.exchange.id
    lacks = {
        tf: lacks_history(app.db, app.config, Series(exchange, symbol, tf))
        for tf in app.config.timeframes
    }
    return answers.why(
        symbol,
        _funnel(app, key, rows),
        rows[:_LAST_SHOWN],
        look,
        start_ms=start_ms,
        waiting={timeframe: lack for timeframe, lack in lacks.items() if lack},
    )


def _funnel(app: App, key: tuple[Any, ...], rows: list[dict[str, Any]]) -> dict[str, int]:
    """Return bars, setups, refusals, then what stopped candidates: the gate, or delivery."""
    counted = app.db.rows(
        "SELECT reason, sum(n) FROM funnel WHERE exchange = ? AND symbol = ? AND strategy_id = ?"
        " AND day_ms >= ? GROUP BY reason ORDER BY sum(n) DESC, reason",
        key,
    )
    found = {str(reason): int(n) for reason, n in counted}
    ends = Counter(_end(row) for row in rows)
    return found | {"candidates": len(rows)} | dict(ends.most_common())


def _end(row: Mapping[str, Any]) -> str:
    """Where a candidate came to: told, or what kept it back."""
    if row["delivery"] in tell.TOLD:
        return f"told {row['delivery']}"
    return str(row["delivery_reason"] if row["gate"] == Gate.PASS else row["gate_reason"])


def _performance(app: App, rest: str, *, now_ms: int) -> str:  # noqa: ARG001
    records = [record.record(app, book, end_ms=now_ms) for book in tell.TOLD]
    return answers.performance(records, tell.look_of(app))


def _help(app: App, rest: str, *, now_ms: int) -> str:  # noqa: ARG001
    return answers.helped(tell.look_of(app))


_ANSWERS: Mapping[str, Callable[..., str]] = MappingProxyType(
    {
        "/status": _status,
        "/signals": _signals,
        "/signal": _signal,
        "/why": _why,
        "/performance": _performance,
        "/help": _help,
        "/start": _help,  # what Telegram writes at the first meeting
    }
)
