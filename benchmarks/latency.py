"""From the close of a candle to the message: the real ccxt client, 20 requests/s, 200 ms replies.

Timed is what lies between a close and the commit that holds its messages. The loopback exchange
shares this process, which makes the figure worse, not better. A close is waited for by looks a
quarter of a second apart and its messages by rounds half a second apart: both at their longest are
in "p99 with waits". Every pair is a perpetual with funding and open interest to be read as well.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np

from benchmarks import yard
from core.app import App, open_app
from core.clock import LiveClock
from core.domain import FundingRate, Series
from core.exchange import ccxt_adapter
from core.exchange.ccxt_adapter import CcxtExchange
from core.jobs import run, sync
from core.store import candles as store
from core.store import signals as signal_store
from core.timeframe import HOUR_MS, MINUTE_MS
from tests.bitget_server import BitgetServer, serving, walks
from tests.engine_world import write_config

DELAY_S = 0.2
RATE_LIMIT_MS = 50
SIZES = ((10, 40, 3.0), (100, 20, 10.0))  # pairs, closes, the seconds it must not exceed
TIMEFRAME, STEP_MS = "1m", MINUTE_MS
WAITS_S = 0.25 + 0.5  # for the look that finds the close, and for the round that sends
_NOW_MS = yard.START_MS
_DAYS = 5


class World:
    """An engine that has followed some pairs for three days, at the instant of a close."""

    def __init__(self, folder: Path, n_pairs: int) -> None:
        self.at_ms = _NOW_MS
        truth = walks(n_pairs, days=_DAYS, seed=1, now_ms=_NOW_MS)
        hours = range(0, _DAYS * 24, 8)
        self.server = BitgetServer(
            truth,
            now_ms=lambda: self.at_ms,
            funding={s: [FundingRate(_NOW_MS - h * HOUR_MS, 1e-4) for h in hours] for s in truth},
            interest=dict.fromkeys(truth, 1000.0),
        )
        self._folder = folder
        self._truth = truth

    @contextmanager
    def engine(self) -> Iterator[App]:
        """Open the engine on the server, with its history."""
        with serving(self.server), mock.patch.object(ccxt_adapter, "_wall_ms", self._at):
            path = write_config(
                self._folder,
                exchange={
                    "id": "bitget",
                    "rate_limit_ms": RATE_LIMIT_MS,
                    "ccxt": self.server.ccxt(),
                },
                symbols=list(self._truth),
                timeframes=[TIMEFRAME],
                signals={
                    "min_tp_net_pct": 0.0,
                    "lookback_candles": 100,
                    "max_cost_r": 5.0,
                    "fibo": {"piv_window": 2, "min_impulse_atr": 0.5},
                },
                notify={"telegram": {"send": "all"}},
                guards=dict.fromkeys(("max_open", "max_open_per_side", "max_drawdown_r"), 0),
            )
            app = open_app(path)
            exchange = CcxtExchange.open(app.config)
            begun_s = time.monotonic()
            app.use_market(
                exchange,
                LiveClock(
                    exchange.server_time_ms,
                    monotonic=lambda: begun_s + (self.at_ms - _NOW_MS) / 1000,
                    reread_s=1e12,
                ),
            )
            sync.refresh_markets(app, now_ms=self.at_ms)
            self._remember(app)
            self.server.delay_s = DELAY_S
            yield app
            app.close()

    def _at(self) -> int:
        return self.at_ms

    def _remember(self, app: App) -> None:
        with app.db.write():
            for symbol, bars in self._truth.items():
                series = Series("bitget", symbol, "1m")
                store.upsert_candles(app.db, series, bars[: bars.closed_by(self.at_ms)])
                store.set_rooted(app.db, series)
                store.move_checkpoint(app.db, series, next_ms=self.at_ms, now_ms=self.at_ms)
        sync.resample_all(app, now_ms=self.at_ms)
        with app.db.write():
            for symbol in self._truth:
                series = Series("bitget", symbol, TIMEFRAME)
                signal_store.move_position(
                    app.db, series, app.strategy, position_ms=self.at_ms - STEP_MS
                )

    def close(self, app: App) -> float:
        """Let a candle close; returns the seconds until its messages are stored."""
        self.at_ms += STEP_MS
        begun_ms = time.time_ns() / 1e6
        run.run_due(app)
        ended_ms = app.db.value(
            "SELECT max(started_wall_ms + took_ms) FROM job_runs"
            " WHERE job = 'scan_signals' AND due_ms = ?",
            (self.at_ms,),
        )
        return float(ended_ms - begun_ms) / 1000


def tables() -> list[yard.Table]:
    """Measure a few closes of 10 and of 100 pairs."""
    rows = []
    for n_pairs, n_closes, must_s in SIZES:
        with tempfile.TemporaryDirectory() as name:
            world = World(Path(name), n_pairs)
            with world.engine() as app:
                world.close(app)  # the first one loads what the process needs
                took_s = np.array([world.close(app) for _ in range(n_closes)])
                n_messages = app.db.value("SELECT count(*) FROM outbox WHERE kind = 'new_signal'")
                n_failed = app.db.value("SELECT count(*) FROM job_runs WHERE outcome <> 'ok'")
        p50, p99 = np.quantile(took_s, (0.5, 0.99))
        rows.append(
            {
                "pairs": str(n_pairs),
                "closes": str(n_closes),
                "messages": str(n_messages),
                "failed runs": str(n_failed),
                "p50": f"{p50:.2f} s",
                "p99": f"{p99:.2f} s",
                "p99 with waits": f"{p99 + WAITS_S:.2f} s",
                "must": f"{must_s:.0f} s",
            }
        )
    return [yard.Table("from the close of a candle to the message", rows)]
