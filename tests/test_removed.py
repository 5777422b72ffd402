"""What is taken out of the settings: nothing new of it is found, what is open is followed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.app import App
from core.domain import FundingRate
from core.jobs import maintain, run, silence
from core.jobs.edits import Edits
from core.messages import plain
from core.store import operation
from core.store import signals as signal_store
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from tests.engine_world import FakeExchange, HandClock, opened, stored
from tests.replay_world import ReplayWorld, market, prepared, signals

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
HOURS, PERIOD_MS = 10, 8 * HOUR_MS
EASY: dict[str, Any] = {
    "signals": {"min_tp_net_pct": 0.1, "fibo": {"piv_window": 3, "min_impulse_atr": 2.0}},
    "execution": {"max_hold_candles": 20},
}
_RUNNING = ("exec_state",)  # written once an hour where nothing happens


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> ReplayWorld:
    """Two pairs with a scanned past, some of whose candidates are still open."""
    truth = {s: market(3, 42, 5)[s][-10 * 1440 :] for s in (BTC, ETH)}
    folder = tmp_path_factory.mktemp("removed") / "w"
    return prepared(folder, truth, replay_days=2, exchange={"id": "bitget"}, **EASY)


class Paying(FakeExchange):
    """An exchange whose perpetuals pay funding each eight hours."""

    def funding(self, symbol: str, *, start_ms: int, end_ms: int) -> list[FundingRate]:  # type: ignore[override]
        del symbol
        first, until = -(-start_ms // PERIOD_MS), min(end_ms, self.clock.at_ms)
        return [
            FundingRate(ts_ms=at_ms, rate_frac=1e-4)
            for at_ms in range(first * PERIOD_MS, until, PERIOD_MS)
        ]


def engine(past: ReplayWorld, name: str, **edit: Any) -> tuple[App, FakeExchange, HandClock]:
    """A copy of the world on a live exchange, its settings edited."""
    path = past.copy(name)
    if edit:
        path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    clock = HandClock(past.split_ms + 5_000)
    exchange = Paying(dict(past.truth), clock)
    return opened(path, (exchange, clock)), exchange, clock


def lived(app: App, clock: HandClock, *, hours: int = HOURS) -> None:
    """Some hours of looks, once in twenty minutes."""
    for _ in range(3 * hours):
        clock.at_ms += 20 * MINUTE_MS
        run.run_due(app)


def ended(app: App, numbers: list[int]) -> list[dict[str, Any]]:
    """Some rows, whatever became of them."""
    return [row for row in signals(app, *_RUNNING) if row["id"] in numbers]


@pytest.mark.parametrize(
    ("name", "edit", "gone"),
    [
        ("pair", {"symbols": [ETH]}, "symbol = 'BTC/USDT:USDT'"),
        ("timeframe", {"timeframes": ["1h"]}, "timeframe = '15m'"),
    ],
)
def test_what_is_open_ends_as_if_nothing_had_been_removed(
    past: ReplayWorld, name: str, edit: dict[str, Any], gone: str
) -> None:
    """Every column; and no candidate of it is found any more."""
    kept, _, clock = engine(past, f"{name}-kept")
    open_ids = [n for (n,) in kept.db.rows(
        f"SELECT id FROM signals WHERE status IN ('PENDING', 'OPEN') AND {gone}")]  # fmt: skip
    last = kept.db.value("SELECT max(id) FROM signals")
    assert len(open_ids) >= 2
    lived(kept, clock)
    there = ended(kept, open_ids)
    assert sum(row["status"] not in ("PENDING", "OPEN") for row in there) >= 2
    assert kept.db.value(f"SELECT count(*) FROM signals WHERE id > {last} AND {gone}") > 0
    edited, _, clock = engine(past, f"{name}-removed", **edit)
    lived(edited, clock)
    assert ended(edited, open_ids) == there
    assert edited.db.value(f"SELECT count(*) FROM signals WHERE id > {last} AND {gone}") == 0
    assert edited.db.value(f"SELECT count(*) FROM signals WHERE id > {last}") > 0
    for app in (kept, edited):
        app.close()


def test_it_is_asked_for_no_longer_than_something_is_open(past: ReplayWorld) -> None:
    """Then its candles stay where they are, and nobody is told that they are old."""
    app, _, clock = engine(past, "over", symbols=[ETH])
    lived(app, clock, hours=22)
    assert signal_store.followed_symbols(app.db, exchange="bitget", base_timeframe="1m") == [ETH]
    last_ms = int(stored(app, BTC).ts_ms[-1])
    assert past.split_ms < last_ms < clock.at_ms - 10 * MINUTE_MS
    lived(app, clock, hours=1)
    assert int(stored(app, BTC).ts_ms[-1]) == last_ms
    silence.watch(app, now_ms=clock.at_ms, is_complete=True)
    assert operation.open_episodes(app.db) == []
    app.close()


def test_one_pass_follows_it_as_well(past: ReplayWorld) -> None:
    """`--once` after two hours: as far as the pairs that are left."""
    app, _, clock = engine(past, "once", symbols=[ETH])
    clock.at_ms += 2 * HOUR_MS
    run.run_once(app)
    assert int(stored(app, BTC).ts_ms[-1]) == int(stored(app, ETH).ts_ms[-1])
    walked = app.db.value(
        "SELECT max(json_extract(exec_state, '$.walked_ms')) FROM signals"
        " WHERE symbol = ? AND status IN ('PENDING', 'OPEN')", (BTC,))  # fmt: skip
    assert walked == past.split_ms + 2 * HOUR_MS
    app.close()


def test_a_long_time_away_does_not_hold_up_the_others(past: ReplayWorld) -> None:
    """Of a pair that is only followed a week is fetched at once, and less where that is enough."""
    app, exchange, clock = engine(past, "late", symbols=[ETH])
    app.db.run("UPDATE sync_checkpoint SET next_ms = next_ms - ? WHERE symbol = ?",
               (9 * DAY_MS, BTC))  # fmt: skip
    asked: list[tuple[str, int]] = []
    exchange.before = lambda symbol, _, end_ms: asked.append((symbol, end_ms))
    clock.at_ms += MINUTE_MS
    run.run_due(app)
    assert max(end for symbol, end in asked if symbol == BTC) == past.split_ms - 2 * DAY_MS
    assert max(end for symbol, end in asked if symbol == ETH) == past.split_ms + MINUTE_MS
    clock.at_ms += MINUTE_MS
    run.run_due(app)
    assert max(end for symbol, end in asked if symbol == BTC) == past.split_ms + 2 * MINUTE_MS
    app.close()


def test_the_edit_is_answered_with_what_is_still_followed(past: ReplayWorld) -> None:
    """How many, and how many of them the owner knows of."""
    app, _, _ = engine(past, "told")
    n = len(signal_store.followed(app.db, exchange="bitget", symbol=BTC))
    app.db.run("UPDATE signals SET delivery = 'PAPER', origin = 'live' WHERE id ="
               " (SELECT max(id) FROM signals WHERE symbol = ? AND status IN ('PENDING', 'OPEN'))",
               (BTC,))  # fmt: skip
    edits = Edits(app)
    raw = json.loads(app.config_path.read_text())
    app.config_path.write_text(json.dumps(raw | {"symbols": [ETH]}))
    edits.look()
    (text,) = [text for (text,) in app.db.rows("SELECT text FROM outbox WHERE kind = 'config'")]
    said = " ".join(plain(text).split())
    assert f"{n} open signals are still followed, 1 of them told to you" in said
    well = [what for state, what, _ in maintain.doctor(app) if state == "ok"]
    assert f"{BTC}: not scanned any more, {n} open signals are followed" in well
    app.close()
