"""The funnel counts each bar once, adds up, and names what came closest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core import signals
from core.app import App
from core.domain import Series
from core.jobs import funnel, retro, scan
from core.jobs.causality import when
from core.store.signals import update_signal
from core.timeframe import DAY_MS, HOUR_MS
from tests.engine_world import opened, stored
from tests.replay_world import ReplayWorld, market, prepared
from tests.worlds import MONDAY_MS

LEVELS = ("bars", "setups", "candidates", "passed", "picked", "delivered")
SYMBOLS = ("BTC/USDT:USDT", "ETH/USDT:USDT")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ReplayWorld:
    """Two symbols, their history scanned up to the newest candle, in the middle of a day."""
    folder = tmp_path_factory.mktemp("explain") / "w"
    signals = {"min_tp_net_pct": 1.5, "max_cost_r": 0.08}
    return prepared(folder, market(2, 14, 5), replay_days=10 / 24, signals=signals)


@pytest.fixture
def app(world: ReplayWorld, tmp_path: Path) -> Iterator[App]:
    """An engine on a copy of that world."""
    engine = opened(world.copy(tmp_path.name))
    yield engine
    engine.close()


def bars_counted(app: App) -> dict[tuple[str, str, int], int]:
    """How many bars of each series are counted on each day."""
    rows = app.db.rows("SELECT symbol, timeframe, day_ms, n FROM funnel WHERE reason = 'bars'")
    return {(symbol, timeframe, day_ms): n for symbol, timeframe, day_ms, n in rows}


def bars_stored(app: App) -> dict[tuple[str, str, int], int]:
    """How many bars of each series are stored of each day."""
    counts: dict[tuple[str, str, int], int] = {}
    for symbol in app.config.symbols:
        for timeframe in app.config.timeframes:
            for ts_ms in stored(app, symbol, timeframe).ts_ms.tolist():
                key = (symbol, timeframe, ts_ms - ts_ms % DAY_MS)
                counts[key] = counts.get(key, 0) + 1
    return counts


def test_the_first_live_bar_is_not_counted_again(app: App, world: ReplayWorld) -> None:
    """A retro-scan up to the newest candle counted it; the live scan that begins there does not."""
    assert bars_counted(app) == bars_stored(app)
    before = app.db.rows("SELECT * FROM funnel ORDER BY symbol, timeframe, day_ms, reason")
    assert scan.scan_all(app, now_ms=world.split_ms).n_bars == 4
    assert app.db.rows("SELECT * FROM funnel ORDER BY symbol, timeframe, day_ms, reason") == before


def test_a_first_live_bar_that_nobody_counted_is_counted(app: App, world: ReplayWorld) -> None:
    """History scanned up to six hours before: only the new bar is added to its day."""
    app.db.run("DELETE FROM funnel")
    app.db.run("DELETE FROM signals WHERE id NOT IN (SELECT signal_id FROM features)")
    retro.retro_scan(app, start_ms=0, end_ms=world.split_ms - 6 * HOUR_MS, workers=1)
    before = bars_counted(app)
    scan.scan_all(app, now_ms=world.split_ms)
    day_ms = world.split_ms - world.split_ms % DAY_MS
    for (symbol, timeframe, at_ms), n in bars_counted(app).items():
        assert n == before[symbol, timeframe, at_ms] + (at_ms == day_ms)


def test_bars_between_two_strategies_are_counted_once(app: App, world: ReplayWorld) -> None:
    """A new strategy goes on from the older one's position, over bars a retro-scan has counted."""
    scan.scan_all(app, now_ms=world.split_ms - 5 * HOUR_MS)
    changed = app.config.signals.model_copy(update={"min_tp_net_pct": 1.4})
    app.config = app.config.model_copy(update={"signals": changed})
    retro.retro_scan(app, start_ms=0, end_ms=world.split_ms - HOUR_MS, workers=1)
    scan.scan_all(app, now_ms=world.split_ms)
    counted = dict.fromkeys(bars_stored(app), 0)
    for symbol, timeframe, day_ms, n in app.db.rows(
        "SELECT symbol, timeframe, day_ms, n FROM funnel WHERE reason = 'bars' AND strategy_id = ?",
        (app.strategy,),
    ):
        counted[symbol, timeframe, day_ms] = n
    assert counted == bars_stored(app)


def report(app: App, **chosen: Any) -> dict[str, Any]:
    """The funnel, its first table as step -> n."""
    found = funnel.funnel(app, **chosen)
    (name,) = (key for key in found if key.startswith("funnel"))
    return {**found, "steps": {row["step"]: row["n"] for row in found[name]}}


def test_each_step_is_what_the_one_before_left(app: App, world: ReplayWorld) -> None:
    """Losses and level add up to the level before; series and days add up to the whole."""
    found = report(app, days=9)
    steps = found["steps"]
    lost = {
        word: sum(n for step, n in steps.items() if step.startswith(f"{word}: "))
        for word in ("refused", "rejected", "not picked", "guard", "delivered")
    }
    assert steps["setups"] == steps["candidates"] + lost["refused"]
    assert steps["candidates"] == steps["passed"] + lost["rejected"]
    assert steps["passed"] == steps["picked"] + lost["not picked"]
    assert steps["picked"] == steps["delivered"] + lost["guard"]
    assert steps["delivered"] == lost["delivered"]
    assert all(n > 0 for n in lost.values())
    for table in ("by series", "by day"):
        for name in LEVELS:
            assert sum(row[name] for row in found[table]) == steps[name]
    assert len(found["by series"]) == 4
    assert len(found["by day"]) == 9


def test_the_days_are_whole_days_up_to_today(app: App, world: ReplayWorld) -> None:
    """Three days: the two before the last one in full, and the part of it that there is."""
    today_ms = world.split_ms - world.split_ms % DAY_MS
    stored_bars = bars_stored(app)
    found = report(app, days=3)
    for row, back in zip(found["by day"], range(3), strict=True):
        wanted = sum(n for key, n in stored_bars.items() if key[2] == today_ms - back * DAY_MS)
        assert row["bars"] == wanted
    one = report(app, days=3, symbols=[SYMBOLS[0]], timeframes=["1h"])
    assert [row["series"] for row in one["by series"]] == [f"{SYMBOLS[0]} 1h"]
    assert one["steps"]["bars"] == 2 * 24 + 14


def test_shares_are_of_the_step_before(app: App) -> None:
    """Worked again from the counts; nothing of nothing has no share."""
    found = report(app, days=9)
    for row in found["by series"]:
        for name, before in (
            ("setups", "bars"),
            ("candidates", "setups"),
            ("passed", "candidates"),
        ):
            want = round(100 * row[name] / row[before], 1) if row[before] else None
            assert row[f"{name}_pct"] == want
    rows = next(rows for name, rows in found.items() if name.startswith("funnel"))
    refusal = next(row for row in rows if row["step"] == "refused: tp_net")
    assert refusal["of_before_pct"] == round(100 * refusal["n"] / found["steps"]["setups"], 1)


def scanned_again(app: App, world: ReplayWorld, start_ms: int) -> list[tuple[str, Any]]:
    """All refusals since an instant, by a scan of everything; with the name of the series."""
    found = []
    for symbol in SYMBOLS:
        for timeframe in ("15m", "1h"):
            series = Series("replay", symbol, timeframe)
            data = scan.scan_input(app.db, app.config, series, n_bars=2000, known_ms=world.split_ms)
            result = signals.scan(data, app.config, first_ms=start_ms, last_ms=world.split_ms)
            found += [(f"{symbol} {timeframe}", one) for one in result.rejections]
    return found


def test_the_nearest_refusal_is_the_nearest_of_all(app: App, world: ReplayWorld) -> None:
    """Of every setup refused for its target the one that pays most, said with both figures."""
    start_ms = world.split_ms - world.split_ms % DAY_MS - 8 * DAY_MS
    paid = {}
    for name, one in scanned_again(app, world, start_ms):
        if one.reason == "tp_net":
            paid[f"{name} {one.setup} {one.side.direction} {when(one.ts_ms)}"] = one.detail
    assert len(paid) >= 5
    misses = {row["test"]: row for row in report(app, days=9)["nearest misses"]}
    miss = misses["refused: tp_net"]
    assert miss["says"] == paid[miss["setup"]]
    assert miss["says"].endswith("net, wants 1.50 %")
    most = max(float(detail.split()[2]) for detail in paid.values())
    assert float(miss["says"].split()[2]) == most
    assert miss["short_pct"] == pytest.approx(100 * (1.5 - most) / 1.5, abs=0.6)


def test_the_nearest_reject_and_the_best_row_held_back(app: App) -> None:
    """Of the too costly ones the cheapest; of each guard's rows the cheapest, with its setting."""
    misses = {row["test"]: row for row in report(app, days=9)["nearest misses"]}
    rows = app.db.dicts("SELECT * FROM signals WHERE ts_ms >= ?", (MONDAY_MS + 5 * DAY_MS,))
    cheapest = min(row["cost_r"] for row in rows if row["gate"] == "REJECT")
    says = f"costs {cheapest:.4f} R, wants at most 0.0800 R"
    assert misses["rejected: cost"]["says"] == says
    guards = [name for name in misses if name.removeprefix("held: ") in funnel.GUARDS]
    assert guards
    for name in guards:
        held = [row for row in rows if row["delivery_reason"] == name.removeprefix("held: ")]
        assert misses[name]["says"].startswith(f"costs {min(r['cost_r'] for r in held):.4f} R")
        assert misses[name]["short_pct"] is None
    ranked = [row["short_pct"] for row in misses.values() if row["short_pct"] is not None]
    assert ranked == sorted(ranked)


def test_a_model_that_said_no_is_quoted_with_its_limit(app: App) -> None:
    """The low end of the EV against the limit in force, and which entry sets it."""
    number = app.db.value("SELECT id FROM signals WHERE gate = 'PASS' ORDER BY ts_ms DESC")
    said = {"gate": "REJECT", "gate_reason": "ev", "ev_pct": 0.2, "ev_lo_pct": -0.03}
    update_signal(app.db, number, said)
    misses = {row["test"]: row for row in report(app, days=9)["nearest misses"]}
    assert misses["rejected: ev"]["says"] == "EV low end -0.03 %, wants 0.00 % (plain keys)"
    assert misses["rejected: ev"]["short_pct"] == 3.0
