"""The pipeline's own functions over the real ccxt client and a server with Bitget's habits."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.app import App
from core.clock import LiveClock
from core.domain import Candles, Series
from core.errors import ExchangeError
from core.exchange import ccxt_adapter
from core.exchange.ccxt_adapter import CcxtExchange
from core.exchange.lanes import TRIES
from core.jobs import backfill, sync
from core.resample import resample
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from tests.bitget_server import (
    DOWN,
    EMPTY,
    HTML,
    NULL,
    RESET,
    TOO_MANY,
    TOO_MANY_HTML,
    BitgetServer,
    serving,
)
from tests.engine_world import gap_states, opened, part, same, stored, write_config
from tests.worlds import picked, random_candles

SWAP, SPOT = "BTC/USDT:USDT", "ETH/USDT"
NOW_MS = 1_717_243_200_000  # 2024-06-01 12:00 UTC
FIRST_MS = NOW_MS - 34 * DAY_MS  # older than what the recent endpoint holds
TRUTH = {
    SWAP: random_candles(36 * 1440, seed=1, start_ms=FIRST_MS, start_price=60_000.0),
    SPOT: random_candles(36 * 1440, seed=2, start_ms=FIRST_MS),
}
BURST = (TOO_MANY, DOWN, TOO_MANY_HTML, RESET)  # one fewer than the adapter's tries
DERIVED = {"data": {"derived_timeframes": ["5m", "15m"]}, "timeframes": ["15m"]}


class Dead(BaseException):
    """The process is gone."""


@dataclass
class World:
    """An engine on the real client, and the server whose time is set by hand."""

    app: App
    server: BitgetServer
    at_ms: int

    def cycle(self, at_ms: int) -> None:
        """Sync and resample at an instant of the server's time, give or take a second."""
        self.at_ms = at_ms + 500
        _, clock = self.app.market()
        sync.sync_all(self.app, now_ms=clock.now_ms())
        sync.resample_all(self.app, now_ms=clock.now_ms())

    def reopened(self) -> None:
        """A new process: another client, another connection."""
        path = self.app.config_path
        self.app.close()
        self.app = opened(path)
        self.connect()

    def connect(self) -> None:
        """Read the server's time as at every start."""
        exchange = CcxtExchange.open(self.app.config, sleep=lambda _: None, rng=random.Random(7))
        clock = LiveClock(exchange.server_time_ms, monotonic=lambda: self.at_ms / 1000)
        self.app._market = exchange, clock


@contextmanager
def world(
    folder: Path, truth: dict[str, Candles] | None = None, *, skew_ms: int = 0
) -> Iterator[World]:
    """An engine that has not synced yet, at NOW_MS, on a machine whose own clock is off."""
    made: World | None = None
    server = BitgetServer(dict(truth or TRUTH), now_ms=lambda: made.at_ms if made else NOW_MS)
    with serving(server), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ccxt_adapter, "_wall_ms", lambda: server.now_ms() + skew_ms)
        settings: dict[str, Any] = {
            "exchange": {"id": "bitget", "rate_limit_ms": 1, "ccxt": server.ccxt()},
            "symbols": [SWAP, SPOT],
            "backfill": {"start_date": "2024-04-28"},
            **DERIVED,
        }
        made = World(opened(write_config(folder, **settings)), server, NOW_MS)
        made.connect()
        yield made
        made.app.close()


@pytest.mark.parametrize("skew_minutes", [-5, 0, 5])
def test_the_machines_own_clock_does_not_matter(tmp_path: Path, skew_minutes: int) -> None:
    """Five minutes early or late, the final candles of the exchange's time are stored, no more."""
    with world(tmp_path, skew_ms=skew_minutes * MINUTE_MS) as w:
        for seconds in (1, 30, 61, 119, 121, 185):
            w.cycle(NOW_MS + seconds * 1000)
            until = (NOW_MS + seconds * 1000) // MINUTE_MS * MINUTE_MS
            for symbol in (SWAP, SPOT):
                bars = stored(w.app, symbol)
                assert same(bars, part(TRUTH[symbol], int(bars.ts_ms[0]), until))
                assert len(bars) >= 2 * 1440
                assert gap_states(w.app, symbol) == []


def test_bursts_of_errors_lose_nothing(tmp_path: Path) -> None:
    """429, 503, resets and bodies that are no answer: retried within the cycle, or the next."""
    with world(tmp_path) as w:
        w.cycle(NOW_MS)
        for n, faults in enumerate((BURST, (HTML, EMPTY, NULL, RESET)), start=1):
            w.server.disturb(*faults, where="market/candles")
            w.cycle(NOW_MS + n * MINUTE_MS)
            assert not w.server.faults
        w.server.disturb(*[DOWN] * 2 * TRIES, where="market/candles")
        with pytest.raises(ExchangeError, match="failed 5 times"):
            w.cycle(NOW_MS + 3 * MINUTE_MS)
        w.cycle(NOW_MS + 4 * MINUTE_MS)
        for symbol in (SWAP, SPOT):
            bars = stored(w.app, symbol)
            assert same(bars, part(TRUTH[symbol], int(bars.ts_ms[0]), NOW_MS + 4 * MINUTE_MS))
            assert gap_states(w.app, symbol) == []


def test_holes_and_revisions_come_through_the_real_client(tmp_path: Path) -> None:
    """A minute that nobody traded, one that comes late, one that changes."""
    quiet, late, changed = (NOW_MS + n * MINUTE_MS for n in (2, 4, 6))
    bars = picked(TRUTH[SWAP], (TRUTH[SWAP].ts_ms != quiet) & (TRUTH[SWAP].ts_ms != late))
    with world(tmp_path, {SWAP: bars, SPOT: TRUTH[SPOT]}) as w:
        for n in range(8):
            w.cycle(NOW_MS + n * MINUTE_MS)
        states = [(start, state) for start, _, state in gap_states(w.app, SWAP)]
        assert states == [(quiet, "no_trades"), (late, "no_trades")]
        final = picked(TRUTH[SWAP], TRUTH[SWAP].ts_ms != quiet)
        final.close[np.searchsorted(final.ts_ms, changed)] = final.low.min()
        final.low[np.searchsorted(final.ts_ms, changed)] = final.low.min()
        w.server.truth = {SWAP: final, SPOT: TRUTH[SPOT]}
        w.cycle(NOW_MS + 8 * MINUTE_MS)
        mine = stored(w.app, SWAP)
        assert same(mine, part(final, int(mine.ts_ms[0]), NOW_MS + 8 * MINUTE_MS))
        assert [start for start, _, _ in gap_states(w.app, SWAP)] == [quiet]
        five = part(stored(w.app, SWAP, "5m"), NOW_MS, NOW_MS + DAY_MS)
        first_five = part(final, NOW_MS, NOW_MS + 5 * MINUTE_MS)
        assert same(five, resample(first_five, "5m", covered_ms=np.array([quiet])))


def test_a_backfill_that_dies_anywhere_ends_as_one_that_did_not(tmp_path: Path) -> None:
    """Over both endpoints, with an outage and a late listing, in pieces and bursts: the truth."""
    outage = (NOW_MS - 5 * DAY_MS, NOW_MS - 5 * DAY_MS + 400 * MINUTE_MS)
    ts_ms = TRUTH[SWAP].ts_ms
    truth = {
        SWAP: picked(TRUTH[SWAP], (ts_ms < outage[0]) | (ts_ms >= outage[1])),
        SPOT: part(TRUTH[SPOT], NOW_MS - 3 * DAY_MS - 5 * HOUR_MS, NOW_MS + DAY_MS),
    }
    rng = random.Random(5)
    with world(tmp_path, truth) as w:
        w.cycle(NOW_MS)  # the scheduler came first: two days are there
        n_deaths = 0
        while True:
            left = [rng.randrange(1, 120)]

            def die(what: str, done: int, total: int, left: list[int] = left) -> None:
                del what, done, total
                left[0] -= 1
                if not left[0]:
                    raise Dead

            w.server.disturb(*BURST, where="history-candles")
            try:
                rows = backfill.backfill(
                    w.app,
                    symbols=[SWAP, SPOT],
                    start_ms=FIRST_MS + HOUR_MS,
                    end_ms=None,
                    progress=die,
                )
                break
            except Dead:
                n_deaths += 1
                w.reopened()
        assert n_deaths >= 3
        assert [row["error"] for row in rows] == ["", ""]
        for symbol in (SWAP, SPOT):
            whole = part(truth[symbol], stored_from(symbol, truth), NOW_MS)
            assert same(stored(w.app, symbol), whole)
            five = resample(whole, "5m")
            assert same(stored(w.app, symbol, "5m"), five)
            assert same(stored(w.app, symbol, "15m"), resample(five, "15m"))
        assert gap_states(w.app, SWAP) == [(*outage, "missing")]
        assert gap_states(w.app, SPOT) == []
        assert sync.frontier_ms(w.app.db, Series("bitget", SWAP, "1m")) == NOW_MS


def stored_from(symbol: str, truth: dict[str, Candles]) -> int:
    """Where a backfill from an hour into the first day begins: that day's first bar."""
    day_ms = FIRST_MS // DAY_MS * DAY_MS
    return max(day_ms, int(truth[symbol].ts_ms[0]))
