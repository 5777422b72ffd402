"""What is done to the whole product, and when: a programme drawn from a seed."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from core.store import open_reader
from core.store.db import Database
from core.timeframe import HOUR_MS, MINUTE_MS
from tests.shared_time import Pace
from tests.vices import come_late, revise
from tests.whole_world import BOT_FAULTS, CALM_MS, LATE_MAX_MS, Whole

WEEK = {  # how often each kind of deed is done
    "bad weather": 28, "exchange down": 4, "disk full": 3, "clock ahead": 2, "clock behind": 2,
    "reader holds": 3, "kill": 7, "kill twice": 2, "exchange's clock off": 28,
    "phone troubled": 14, "edit": 3, "bad edit": 3, "guards edited": 1,
    "late candles": 60, "revised candle": 60,
}  # fmt: skip
QUARTER = {
    "bad weather": 1, "disk full": 1, "clock behind": 1, "reader holds": 1, "kill": 1,
    "exchange's clock off": 1, "phone troubled": 1, "bad edit": 1, "guards edited": 1,
    "late candles": 4, "revised candle": 4,
}  # fmt: skip
OFF_MS = 10 * MINUTE_MS  # as far as the machine's clock is set
BAD_EDITS = ('{"guards": {"cooldown_minutes": -5}}', '{"symbols": ["BTC/USDT:USDT"', "\x00")
N_REFUSED = "SELECT count(*) FROM outbox WHERE kind = 'config' AND text LIKE '%is refused%'"
N_WAITING = "SELECT count(*) FROM outbox WHERE state NOT IN ('sent', 'dead')"

Deed = Callable[[], None]


class Event(NamedTuple):
    """Something that happens at an instant of market time; numbers keep those of one in order."""

    at_ms: int
    number: int
    deed: Deed


class Chaos:
    """The programme of a world; `run` lives through it."""

    def __init__(self, world: Whole, pace: Pace, *, counts: Mapping[str, int], seed: int) -> None:
        self.world, self.pace = world, pace
        self._rng = random.Random(seed)
        self._first_ms = world.split_ms + HOUR_MS // 2
        self._last_ms = world.end_ms - CALM_MS
        self._reader: Database | None = None
        self._events: list[Event] = []
        states, deeds = self._states(), self._deeds()
        for kind, n in counts.items():
            if kind in states:
                self._plan_states(kind, n, *states[kind])
            elif kind in deeds:
                self._plan(kind, n, deeds[kind])
        at_ms = self._last_ms - (self._last_ms - self._first_ms) // 6
        self._at(at_ms, "guards edited", self._edit_guards)

    def _states(self) -> dict[str, tuple[float, Deed, Deed]]:
        """Return what lasts: hours at most, its begin and its end."""
        return {
            "bad weather": (1.5, partial(self._weather, True), partial(self._weather, False)),
            "exchange down": (0.7, partial(self._down, True), partial(self._down, False)),
            "disk full": (1.0, partial(self._set, "disk_full", 1), self._room),
            "clock ahead": (4.0, partial(self._set, "wall_offset_ms", OFF_MS), self._on_time),
            "clock behind": (4.0, partial(self._set, "wall_offset_ms", -OFF_MS), self._on_time),
            "reader holds": (5.0, self._hold, self._release),
        }

    def _deeds(self) -> dict[str, Deed]:
        """Return what is done at an instant."""
        return {
            "kill": self._kill,
            "kill twice": self._kill_twice,
            "exchange's clock off": self._skew,
            "phone troubled": self._trouble,
            "edit": self._edit,
            "bad edit": self._edit_badly,
            "late candles": self._late,
            "revised candle": self._revise,
        }

    def _at(self, at_ms: int, kind: str, deed: Deed) -> None:
        def counted() -> None:
            deed()
            self.world.injected.update([kind] * bool(kind))

        self._events.append(Event(at_ms, len(self._events), counted))

    def _plan(self, kind: str, n: int, deed: Deed) -> None:
        """Do it at random instants; what is done to candles, before they are shown."""
        for _ in range(n):
            at_ms = self._rng.randrange(self._first_ms, self._last_ms)
            is_candle = kind in ("late candles", "revised candle")
            self._at(0 if is_candle else at_ms, kind, deed)

    def _plan_states(self, kind: str, n: int, hours: float, begin: Deed, end: Deed) -> None:
        """Let it last for a while, now and then, never twice at once."""
        slot_ms = (self._last_ms - self._first_ms) // n
        for i in range(n):
            length_ms = min(int(hours * HOUR_MS), slot_ms // 3)
            at_ms = self._first_ms + i * slot_ms + self._rng.randrange(slot_ms - length_ms)
            self._at(at_ms, kind, begin)
            self._at(at_ms + length_ms, "", end)

    def run(self) -> None:
        """Live through it, and let all come to rest."""
        world, pace = self.world, self.pace
        for event in sorted(self._events):
            world.until(partial(self._has_come, event.at_ms), "the market moves")
            event.deed()
        self._calm()
        world.until(lambda: pace.now_ms() > world.end_ms, "the market ends")
        self._settle()
        self._set("wall_offset_ms", OFF_MS)  # longer than anything waits to be tried again
        world.until(lambda: not world.asked(N_WAITING), "the outbox empties")
        assert world.engine.end(signal.SIGTERM) == 0, world.engine.said()

    def _has_come(self, at_ms: int) -> bool:
        return self.pace.now_ms() >= at_ms

    def _settle(self) -> None:
        shared = self.world.shared
        shared["settled_ms"] = 1
        self.world.until(lambda: shared["settled_ms"] > self.world.end_ms, "all is done")

    def _calm(self) -> None:
        self._weather(False)
        self._down(False)
        self._room()
        self._on_time()
        self._release()
        self.world.bot.script.clear()
        self.world.skew_ms = 0

    # --- the machine ---

    def _set(self, name: str, value: int) -> None:
        self.world.shared[name] = value

    def _room(self) -> None:
        self._set("disk_full", 0)

    def _on_time(self) -> None:
        self._set("wall_offset_ms", 0)

    def _hold(self) -> None:
        self._release()
        self._reader = open_reader(self.world.database)
        self._reader.rows("BEGIN")
        self._reader.value("SELECT count(*) FROM signals")

    def _release(self) -> None:
        if self._reader is not None:
            self._reader.rows("COMMIT")
            self._reader.close()
            self._reader = None

    def _kill(self) -> None:
        time.sleep(self._rng.uniform(0.0, 0.3))
        self.world.engine.tended()
        self.world.engine.end(signal.SIGKILL)
        with open_reader(self.world.database) as db:
            assert db.value("PRAGMA quick_check") == "ok"
        self.world.engine.start()

    def _kill_twice(self) -> None:
        """Again while it starts."""
        self._kill()
        time.sleep(self._rng.uniform(0.3, 2.0))
        self._kill()

    # --- the owner ---

    def _edit(self) -> None:
        loud = self._rng.choice(["on", "silent", "off"])

        def change(settings: dict[str, Any]) -> None:
            settings["notify"].setdefault("events", {})["stop_moved"] = loud

        self.world.edit(change)

    def _edit_guards(self) -> None:
        def change(settings: dict[str, Any]) -> None:
            settings["guards"]["cooldown_minutes"] = 20

        self.world.guards_edited_ms = self.pace.now_ms()
        self.world.edit(change)

    def _edit_badly(self) -> None:
        """Leave a bad file there until the owner is told; an engine that is up goes on."""
        world = self.world
        self._room()  # or nobody could be told
        good, n_told = world.config.read_text(), world.asked(N_REFUSED)
        settled_ms = world.shared["settled_ms"]
        world.until(lambda: world.shared["settled_ms"] > settled_ms, "the engine is up")
        world.write(self._rng.choice(BAD_EDITS))
        world.until(lambda: world.asked(N_REFUSED) > n_told, "the edit is refused")
        world.write(good)

    def _trouble(self) -> None:
        self.world.bot.script.extend(self._rng.choices(BOT_FAULTS, k=self._rng.randrange(1, 4)))

    # --- the exchange ---

    def _weather(self, is_bad: bool) -> None:
        self.world.weather.vices.is_on = is_bad

    def _down(self, is_down: bool) -> None:
        self.world.weather.is_down = is_down

    def _skew(self) -> None:
        self.world.skew_ms = self._rng.randrange(-4000, 4001)

    def _some_candle(self) -> tuple[str, int]:
        symbol, bars = self._rng.choice(list(self.world.story.truth.items()))
        inside = (bars.ts_ms >= self._first_ms) & (bars.ts_ms < self._last_ms)
        return symbol, self._rng.choice(bars.ts_ms[inside].tolist())

    def _late(self) -> None:
        symbol, open_ms = self._some_candle()
        minutes = self._rng.choice((1, 2, 4, 8, 15, LATE_MAX_MS // MINUTE_MS))
        for i in range(self._rng.choice((1, 1, 3))):
            come_late(self.world.server, symbol, open_ms + i * MINUTE_MS, minutes=minutes)

    def _revise(self) -> None:
        symbol, open_ms = self._some_candle()
        until_ms = open_ms + self._rng.randrange(2, 20) * MINUTE_MS
        revise(self.world.server, symbol, open_ms, until_ms=until_ms)


def done_to(world: Whole) -> dict[str, Any]:
    """Return what was done to a world, by kind."""
    told = Counter(step.partition(":")[0] for step, _ in world.bot.seen if step != "ok")
    return {
        "deeds": dict(world.injected),
        "answers spoilt": dict(sorted(world.weather.vices.n_done.items())),
        "answers refused": world.weather.n_down,
        "messages troubled": dict(sorted(told.items())),
        "holes": sum(map(len, world.story.holes.values())),
    }
