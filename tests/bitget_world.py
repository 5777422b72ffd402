"""An engine on the real ccxt client, and a loopback Bitget whose time is set by hand."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from core.app import App
from core.clock import LiveClock
from core.domain import Candles
from core.exchange import ccxt_adapter
from core.exchange.ccxt_adapter import CcxtExchange
from core.jobs import sync
from tests.bitget_server import BitgetServer, serving
from tests.engine_world import opened, write_config

NOW_MS = 1_717_243_200_000  # 2024-06-01 12:00 UTC
DERIVED: dict[str, Any] = {
    "data": {"derived_timeframes": ["5m", "15m"]},
    "timeframes": ["15m"],
}


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
    folder: Path,
    truth: Mapping[str, Candles],
    *,
    skew_ms: int = 0,
    timeout_ms: int = 10_000,
    lanes: int = 4,
    **settings: Any,
) -> Iterator[World]:
    """An engine that has not synced yet, at NOW_MS, on a machine whose own clock is off.

    With one lane, one request at a time, a run can be repeated exactly.
    """
    made: World | None = None
    server = BitgetServer(dict(truth), now_ms=lambda: made.at_ms if made else NOW_MS)
    with serving(server), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ccxt_adapter, "_wall_ms", lambda: server.now_ms() + skew_ms)
        client = {**server.ccxt(), "timeout": timeout_ms}
        every: dict[str, Any] = {
            "exchange": {"id": "bitget", "rate_limit_ms": 800 // lanes, "ccxt": client},
            "symbols": list(truth),
            "backfill": {"start_date": "2024-04-28"},
            **DERIVED,
            **settings,
        }
        made = World(opened(write_config(folder, **every)), server, NOW_MS)
        made.connect()
        yield made
        made.app.close()
