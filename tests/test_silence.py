"""Data that stop are told of once, and once when they are back, with what happened meanwhile."""

from __future__ import annotations

import re
from pathlib import Path

from core.app import App
from core.domain import Candles
from core.jobs import run, silence
from core.messages import plain
from core.notices import WIDTH
from core.store import operation
from core.timeframe import MINUTE_MS, floor_ms
from tests.engine_world import (
    FakeExchange,
    HandClock,
    opened,
)
from tests.replay_world import market, prepared

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"


def silent_world(folder: Path) -> tuple[App, FakeExchange, HandClock, int]:
    """Two symbols followed live, a told signal open on each."""
    truth: dict[str, Candles] = {s: market(3, 42, 5)[s][-12 * 1440 :] for s in (BTC, ETH)}
    made = prepared(folder / "w", truth, replay_days=0.5, exchange={"id": "bitget"})
    clock = HandClock(made.split_ms + 5_000)
    exchange = FakeExchange(truth, clock)
    app = opened(made.copy("a"), (exchange, clock))
    run.run_due(app)
    for symbol in (BTC, ETH):
        number = app.db.value("SELECT max(id) FROM signals WHERE symbol = ?", (symbol,))
        app.db.run(
            "UPDATE signals SET status = 'PENDING', closed_ts_ms = NULL, delivery = 'PAPER',"
            " origin = 'live' WHERE id = ?",
            (number,),
        )
    return app, exchange, clock, made.split_ms


def seen(app: App, clock: HandClock, at_ms: int) -> None:
    """One look, as the scheduler does it."""
    clock.at_ms = at_ms + 5_000
    ran = run.run_due(app)
    silence.watch(app, now_ms=clock.at_ms, is_complete=not ran.failed)


def notes(app: App) -> list[tuple[str, str]]:
    """What was told of the data."""
    rows = app.db.rows("SELECT kind, text FROM outbox WHERE kind LIKE 'data_%' ORDER BY id")
    return [(kind, plain(text)) for kind, text in rows]


def test_silence_of_the_exchange_is_told_once_and_its_end_with_what_happened(
    tmp_path: Path,
) -> None:
    """After three minutes, naming what cannot be followed; on return the events in order."""
    app, exchange, clock, start_ms = silent_world(tmp_path)
    numbers = [n for (n,) in app.db.rows("SELECT id FROM signals WHERE delivery = 'PAPER'"
                                         " AND origin = 'live' ORDER BY id")]  # fmt: skip
    for minute in (1, 2):
        seen(app, clock, start_ms + minute * MINUTE_MS)
    exchange.failing = {BTC, ETH}
    for minute in range(3, 30):
        seen(app, clock, start_ms + minute * MINUTE_MS)
    ((kind, text),) = notes(app)
    assert kind == "data_old"
    for number in numbers:
        assert f"#S{number} " in text
    exchange.failing = set()
    for i, number in enumerate((numbers[1], numbers[0])):
        with app.db.write():
            plant(app, number, "filled", start_ms + (10 + i) * MINUTE_MS)
    for minute in range(30, 33):
        seen(app, clock, start_ms + minute * MINUTE_MS)
    (_, (kind, text)) = notes(app)
    assert kind == "data_back"
    told = re.findall(r"#S(\d+) .*?(filled)", " ".join(text.split()))
    assert [int(number) for number, _ in told][:2] == [numbers[1], numbers[0]]
    assert all(len(line) <= WIDTH for _, note in notes(app) for line in note.splitlines())
    app.close()


def plant(app: App, number: int, kind: str, at_ms: int) -> None:
    """A message of something that happened to a signal, for two channels."""
    for channel in ("console", "telegram"):
        app.db.run(
            "INSERT INTO outbox (dedupe_key, channel, kind, signal_id, text, silent, created_ms)"
            " VALUES (?, ?, ?, ?, '', 0, ?)",
            (f"{kind}:{number}", channel, kind, number, at_ms),
        )


def test_one_silent_symbol_is_told_only_where_a_signal_is_open(tmp_path: Path) -> None:
    """And not before the ten minutes in which silence may be the market's own."""
    app, exchange, clock, start_ms = silent_world(tmp_path)
    app.db.run("UPDATE signals SET delivery = 'DIGEST' WHERE symbol = ?", (ETH,))
    seen(app, clock, start_ms + MINUTE_MS)
    for symbol, n_told in ((ETH, 0), (BTC, 1)):
        exchange.failing = {symbol}
        at_ms = clock.at_ms
        for minute in range(1, 13):
            seen(app, clock, floor_ms(at_ms, MINUTE_MS) + minute * MINUTE_MS)
            assert notes(app) == []
        for minute in range(13, 18):
            seen(app, clock, floor_ms(at_ms, MINUTE_MS) + minute * MINUTE_MS)
        assert len(notes(app)) == n_told
        exchange.failing = set()
        seen(app, clock, floor_ms(at_ms, MINUTE_MS) + 20 * MINUTE_MS)
    assert [kind for kind, _ in notes(app)] == ["data_old", "data_back"]
    app.close()


def test_an_engine_that_was_away_tells_what_happened_meanwhile(tmp_path: Path) -> None:
    """Nothing at the start; the story once all is caught up."""
    app, _, clock, start_ms = silent_world(tmp_path)
    silence.came_back(app, now_ms=start_ms + 2 * MINUTE_MS)
    assert operation.open_episodes(app.db) == []
    silence.came_back(app, now_ms=start_ms + 60 * MINUTE_MS)
    seen(app, clock, start_ms + 60 * MINUTE_MS)
    seen(app, clock, start_ms + 61 * MINUTE_MS)
    assert [kind for kind, _ in notes(app)] == ["data_back"]
    app.close()
