"""A folder with an engine in it, and an exchange whose past is laid out in files."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.app import App
from core.domain import Candles, FundingRate
from core.jobs import (
    edits,
)
from core.notify import Update
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from tests import candidate_world
from tests.engine_world import FakeExchange, HandClock, opened, part
from tests.replay_world import market
from tests.worlds import MONDAY_MS

OFF = (
    "cooldown_minutes",
    "max_open",
    "max_open_per_side",
    "max_consecutive_stops",
    "max_drawdown_r",
)
SETTINGS: dict[str, Any] = {
    "symbols": ["BTC/USDT:USDT", "ETH/USDT:USDT"],
    "timeframes": ["5m", "15m"],
    "signals": {
        "lookback_candles": 60,
        "min_tp_net_pct": 0.1,
        "fibo": {"piv_window": 3, "min_impulse_atr": 2.0},
    },
    "notify": {"telegram": {"send": "all"}},
    "guards": dict.fromkeys(OFF, 0),
    "backfill": {"start_date": "2024-01-01"},
    "backup": {"enabled": True},
    "models": {"meta": {"gating": {"per_pair_tf": {}, "min_closed_samples": 50}}},
}
BTC, ETH = SETTINGS["symbols"]
MARKET = (2, 4, 2)  # symbols, days, seed: what is told on the last day soon comes to an end
AHEAD_MS = 150 * MINUTE_MS
N_CANDIDATES = 400
LEARN_MS = candidate_world.START_MS + N_CANDIDATES * candidate_world.STEP_MS + 40 * DAY_MS
WALL_MS = 1_800_000_000_000


class Failed(Exception):  # noqa: N818  (what a job has said, not what it raised)
    """A job that says in its own way that it could not be done."""


class Letters:
    """An inbox with what an owner writes, and a stranger; what is not confirmed comes again."""

    def __init__(self) -> None:
        words = ["status", "pause", "signals", "signal 1", "why BTC", "performance", "resume"]
        self.waiting = [Update(i, f"/{word}", is_foreign=False) for i, word in enumerate(words, 1)]
        self.waiting.append(Update(99, "/pause", is_foreign=True))

    def updates(self, **_: object) -> list[Update]:
        return list(self.waiting)

    def confirm(self, update: Update) -> None:
        self.waiting.remove(update)


@dataclass
class Stage:
    """A folder in which a job is done, and what of it lives on between two tries."""

    folder: Path
    clock: HandClock = field(default_factory=HandClock)
    told: io.StringIO = field(default_factory=io.StringIO)
    held: App | None = None
    looker: edits.Edits | None = None
    letters: Letters | None = None
    written: list[str] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def app(self) -> App:
        """The engine, open until the stage is left."""
        if self.held is None:
            self.held = opened(self.config)
            self.held.use_market(Live(truth_of(), self.clock), self.clock)
        return self.held

    def leave(self) -> None:
        """Let go of the engine as the end of a process does."""
        if self.held is not None:
            self.held.db.close()
            self.held.lock_file.release()
            self.held = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is done on a stage, from which prepared folder; `run` may be called until it is done.

    `opens`: it opens the database itself, where another does not get it opened beforehand. `own`:
    begins the files whose sites are this job's; it takes long, and others are quicker to the rest.
    """

    name: str
    start: str
    run: Callable[[Stage], object]
    opens: bool = False
    own: tuple[str, ...] = ("core/",)


# --- the market ---


def truth_of() -> dict[str, Candles]:
    """What the exchange has."""
    return {name: part(bars, 0, END_MS) for name, bars in market(*MARKET).items()}


SPLIT_MS = MONDAY_MS + (MARKET[1] - 1) * DAY_MS - 10 * MINUTE_MS
END_MS = SPLIT_MS + AHEAD_MS


class Live(FakeExchange):
    """The exchange of arrays; of BTC it shows three minutes an hour late, and it has funding."""

    def candles(self, symbol: str, timeframe: str, *, start_ms: int, end_ms: int) -> Candles:
        late = range(SPLIT_MS + 20 * MINUTE_MS, SPLIT_MS + 23 * MINUTE_MS, MINUTE_MS)
        is_hidden = self.clock.at_ms < SPLIT_MS + HOUR_MS
        self.hidden = {(BTC, ts_ms) for ts_ms in late} if is_hidden else set()
        return super().candles(symbol, timeframe, start_ms=start_ms, end_ms=end_ms)

    def funding(self, *_: object, **window: Any) -> list[FundingRate]:
        every, end_ms = 8 * HOUR_MS, min(window["end_ms"], self.clock.at_ms)
        first_ms = -(-window["start_ms"] // every) * every
        return [FundingRate(t, 1e-4) for t in range(first_ms, end_ms, every)]

    def open_interest(self, *_: object) -> float | None:
        return 5.0
