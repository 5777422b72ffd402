"""What is queued of a signal, from the database: the price now, the last price worth entering."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.app import App, wall_ms
from core.domain import Candles, Market, Series
from core.execution import Event
from core.jobs import run, tell
from core.messages import plain
from core.notify.sinks import ConsoleSink
from core.store import operation
from core.store.candles import upsert_candles
from core.store.markets import upsert_markets
from core.store.signals import signal_of
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from tests.engine_world import opened, write_config
from tests.tiny_database import T0, add, won

DECIDED = T0 + DAY_MS


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """An engine with a market on a tick of 0.05, and a candle that closes at 101.3."""
    made = opened(write_config(tmp_path, exchange={"id": "x"}, symbols=["A/USDT"]))
    market = Market(symbol="A/USDT", kind="spot", tick=0.05, maker_frac=0.001, taker_frac=0.002)
    upsert_markets(made.db, "x", [market], now_ms=T0)
    prices = np.full(2, 101.3)
    ts_ms = np.array([DECIDED - MINUTE_MS, DECIDED])  # the second one is not known yet
    bars = Candles("1m", ts_ms, prices, prices, prices, np.array([101.3, 999.0]), prices)
    with made.db.write():
        upsert_candles(made.db, Series("x", "A/USDT", "1m"), bars)
    yield made
    made.close()


def told(app: App, **changes: Any) -> dict[str, Any]:
    """A stored long at 100 with its stop at 90 and TP1 at 115, decided a day after T0."""
    found = signal_of(app.db, add(app.db, app.strategy, 1, **changes))
    assert found is not None
    return found


def texts(app: App) -> list[list[str]]:
    """The lines of what was queued, in order."""
    return [plain(t).split("\n") for (t,) in app.db.rows("SELECT text FROM outbox ORDER BY id")]


def test_a_call_shows_the_newest_close_and_nothing_later(app: App) -> None:
    """101.3 is known at the decision, the minute after it is not."""
    tell.queue_new_signals(app, [told(app, delivery="LIVE")], now_ms=DECIDED)
    (lines,) = texts(app)
    assert "Now 101.30 at 00:00, +1.30%" in lines
    assert not any("999" in line for line in lines)


def test_the_last_price_worth_entering_is_on_the_tick_and_beyond_no_limit(app: App) -> None:
    """By hand: 115 x 0.999 / (1 + 0.01 + 0.0022) = 113.50...; a score draws it nearer."""
    bare = told(app, ml_p=None)
    exact = 115 * (1 - 0.001) / (1 + 0.01 + 0.002 + 0.0002)
    assert tell.latest_of(app, bare) == pytest.approx(np.floor(exact / 0.05) * 0.05)
    scored = tell.latest_of(app, bare | {"ml_p": 0.6})
    fair = (0.6 * 115 * 0.999 + 0.4 * 90 * (1 - 0.0022)) / 1.0022
    assert scored == pytest.approx(np.floor(fair / 0.05) * 0.05)
    tell.queue_new_signals(app, [bare | {"ml_p": 0.6, "ev_pct": None}], now_ms=DECIDED)
    assert f"No entry above {scored:.2f}" in texts(app)[0]


@pytest.mark.parametrize(("after_ms", "delivery"), [(0, ("LIVE", "")), (1, ("DIGEST", "late"))])
def test_what_its_channel_takes_after_the_order_counts_was_never_a_call(
    app: App, after_ms: int, delivery: tuple[str, str]
) -> None:
    """At `actionable_ms` it is a call with all that follows; a millisecond later it is history."""
    row = told(app, delivery="LIVE", delivery_reason="")
    tell.queue_new_signals(app, [row], now_ms=DECIDED)
    tell.queue_events(app, row, [Event(kind="filled", at_ms=DECIDED + HOUR_MS, price=100.0)])
    with app.db.write():
        at_ms = row["actionable_ms"] + after_ms
        operation.write_clock(app.db, market_ms=at_ms, wall_ms=wall_ms(), speed=60.0)
    said = io.StringIO()
    run.deliver_waiting(app, {"console": ConsoleSink(said)})
    assert ("No entry above" in said.getvalue(), "TOO LATE" in said.getvalue()) == (
        (after_ms == 0, after_ms > 0)
    )
    run.deliver_waiting(app, {"console": ConsoleSink(said)})
    assert ("FILLED" in said.getvalue()) == (after_ms == 0)
    found = signal_of(app.db, row["id"])
    assert found is not None
    assert (found["delivery"], found["delivery_reason"]) == delivery


def test_a_closed_message_carries_the_record_up_to_it(app: App) -> None:
    """Two closed before and the trade itself, not the one that closes later."""
    for day, end in ((0.2, won(2.0)), (0.4, {}), (2.0, won(5.0))):
        add(app.db, app.strategy, day, **end)
    row = told(app, **won(1.4))
    event = Event(kind="closed", at_ms=DECIDED + HOUR_MS, price=115.0)
    with app.db.write():
        tell.queue_events(app, row, [event])
        tell.queue_events(app, row, [event])
    (lines,) = texts(app)
    assert "PAPER: 3 closed, +2.30 R" in lines


def test_what_nobody_was_told_of_is_followed_in_silence(app: App) -> None:
    """Neither digest material nor a row of a retro-scan has messages."""
    event = Event(kind="filled", at_ms=DECIDED, price=100.0)
    row = told(app)
    with app.db.write():
        tell.queue_events(app, row | {"delivery": "DIGEST"}, [event])
        tell.queue_events(app, row | {"origin": "retro"}, [event])
    assert texts(app) == []
