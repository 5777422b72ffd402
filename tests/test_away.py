"""Three days without the engine: the rows of one who stayed, but for how late they were told."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.jobs import follow, maintain, run
from core.store import operation
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from tests.engine_world import FakeExchange, HandClock, gap_states, opened, same, stored
from tests.replay_world import market, prepared, signals

TIMEFRAMES = ("1m", "15m", "1h", "4h", "1d")


@pytest.mark.long(minutes=1)
def test_three_days_away_change_only_what_is_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Candles, candidates, trades and their exits are those of one who stayed."""
    truth = dict(market(3, 42, 5))
    past = prepared(tmp_path / "start", truth, replay_days=4, exchange={"id": "bitget"})
    asleep = range(past.split_ms + 6 * HOUR_MS, past.split_ms + 6 * HOUR_MS + 3 * DAY_MS)
    apps = []
    for name in ("always", "away"):
        clock = HandClock(past.split_ms)
        exchange = FakeExchange(truth, clock)
        app = opened(past.copy(name), (exchange, clock))
        for at_ms in range(past.split_ms + MINUTE_MS, past.end_ms + MINUTE_MS, MINUTE_MS):
            if name == "always" or at_ms not in asleep:
                clock.at_ms = at_ms + 20_000
                assert not run.run_due(app).failed
        monkeypatch.setattr(follow, "_SAVE_EVERY_MS", 0)
        follow.follow_all(app, now_ms=1 << 52)
        monkeypatch.undo()
        apps.append(app)
    always, away = apps
    for symbol in truth:
        for timeframe in TIMEFRAMES:
            assert same(stored(always, symbol, timeframe), stored(away, symbol, timeframe))
        assert gap_states(always, symbol) == gap_states(away, symbol)
    ours, theirs = (signals(app, "id", "delivery", "delivery_reason") for app in apps)
    assert ours == theirs
    late = [r for r in signals(away) if asleep[0] < r["decided_ms"] <= asleep[-1] - 2 * MINUTE_MS]
    assert len(late) >= 30
    assert {row["delivery"] for row in late} == {"DIGEST"}
    assert sum(row["closed_ts_ms"] is not None for row in late) >= 10
    ((n_missed, detail),) = away.db.rows(
        "SELECT n, detail FROM job_runs WHERE outcome = 'missed' AND job = 'incremental_sync'"
    )
    assert (n_missed, detail) == (3 * 1440, f"{3 * 1440} minutes, done late")
    assert operation.marks(away.db) == operation.marks(always.db)
    for app in apps:
        assert maintain.invariants(app)["broken"] == {}
        app.close()
