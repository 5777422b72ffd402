"""A planted leak is reported by the law that guards against it; the engine as it is passes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import maintenance
from core.app import App
from core.config import Config
from core.domain import Market, Series
from core.execution import outcome
from core.jobs.causality import causality_differences, facts_of
from core.jobs.parity import Compared, Stretch, compared
from core.jobs.verify import verify
from core.signals import ScanInput, decided
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS, tf_ms
from tests import leaks
from tests.engine_world import opened
from tests.replay_world import ReplayWorld, market, prepared
from tests.test_delivery import TIGHT, run
from tests.test_delivery_laws import world as random_decisions
from tests.test_execution_laws import random_world, told_by_oracle, walked
from tests.test_random_walk import mean_and_error, trades
from tests.test_signals import ALWAYS_MS, both_setups, windows_of
from tests.worlds import MONDAY_MS, market_context, random_candles, scan_input

Law = Callable[[], list[str]]
Plant = Callable[[pytest.MonkeyPatch], None]
N_DAYS, N_POINTS = 24, 10
SYMBOLS = ("BTC/USDT:USDT", "ETH/USDT:USDT")


# --- decisions: what a decision may not read is spoilt ---------------------------------------


@cache
def settings() -> Config:
    """Settings under which each test of a plan refuses some, the noise too."""
    return both_setups(atr_mult_sl=0.05, min_tp_net_pct=0.1)


@cache
def minutes() -> ScanInput:
    """Minutes with a leader, holes and all that lies beside candles; the tick is not told."""
    base, leader = (random_candles(N_DAYS * 1440, seed=seed, steps=16) for seed in (21, 22))
    missing = MONDAY_MS + MINUTE_MS * np.array([20_000, 20_001, 31_123], dtype=np.int64)
    beside = market_context(base, seed=23)
    data = scan_input(base, leader_base=leader, missing_ms=missing, context=beside)
    return replace(data, market=Market(symbol="AAA/USDT:USDT", kind="swap", tick=0, fallback=True))


@cache
def points() -> tuple[int, ...]:
    """Bars with a setup, each with the bar before it; late ones, so that windows have a past."""
    data, step = minutes(), tf_ms("15m")
    found = decided(data, settings(), first_ms=0, last_ms=ALWAYS_MS)
    late = int(data.bars.ts_ms[-1]) - 8 * DAY_MS, int(data.bars.ts_ms[-1]) - DAY_MS
    rng, chosen = np.random.default_rng(1), list[int]()
    for rows, n in ((found.taken, N_POINTS), (found.refused, N_POINTS // 2)):
        opens = [t for t in rows["ts_ms"].tolist() if late[0] < t < late[1]]
        assert len(opens) >= n
        chosen += rng.choice(opens, n, replace=False).tolist()
    return tuple(ts_ms - before for ts_ms in chosen for before in (step, 0))


def decision_law() -> list[str]:
    """What of a decision changes with bars that it may not read."""
    rng, said = np.random.default_rng(2), list[str]()
    for ts_ms in points():
        wanted = facts_of(windows_of(minutes(), ts_ms), settings(), ts_ms)
        for one in causality_differences(minutes(), settings(), ts_ms, rng, wanted=wanted):
            said.append(f"{one.check}: {one.column}")
    return said


# --- parity: lived through bar by bar, and scanned as history --------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ReplayWorld:
    """Two symbols and two weeks."""
    folder = tmp_path_factory.mktemp("leaks") / "w"
    signals = {"min_tp_net_pct": 0.3}
    return prepared(folder, market(2, 14, 5), replay_days=1 / 24, signals=signals)


@pytest.fixture
def app(world: ReplayWorld) -> Iterator[App]:
    """An engine on that world; nothing here writes to it."""
    engine = opened(world.folder / "config.yaml")
    yield engine
    engine.close()


def both_ways(app: App, folder: Path) -> Compared:
    """Four days of the symbol that has a leader, live and as history."""
    step, series = tf_ms("15m"), Series("replay", SYMBOLS[1], "15m")
    first_ms = MONDAY_MS + 8 * DAY_MS
    last_ms = first_ms + 4 * DAY_MS - step
    stretch = Stretch(
        series=series, first_ms=first_ms, last_ms=last_ms, end_ms=last_ms + 122 * step
    )
    return compared(app, stretch, folder / "parity")


# --- following: the executor written from the words, and the driftless walk ------------------


def execution_law() -> list[str]:
    """Where the engine tells another fate than the slow executor."""
    said = []
    for seed in range(12):
        random = random_world(seed)
        for k, state in enumerate(walked(random)):
            want, got = told_by_oracle(random, k), outcome(random.orders[k], state)
            fate = (got.status.value, got.exit_reason, got.opened_ts_ms or 0, got.closed_ts_ms or 0)
            names = ("status", "reason", "opened_ms", "closed_ms")
            if fate != tuple(want[name] for name in names):
                said.append(f"seed {seed} order {k}: {fate}")
    return said


def walk_law() -> list[str]:
    """Policies that earn or lose on a driftless walk without costs."""
    said = []
    for policy in ("split", "breakeven and trail"):
        got = trades(policy, n_segments=800)
        mean, error = mean_and_error(got.fair_r, got.segment)
        if abs(mean) > 3 * error:
            said.append(f"{policy} earns {mean:.3f} R, {mean / error:.1f} standard errors")
    return said


# --- delivery: one causal pass ---------------------------------------------------------------


def delivery_law() -> list[str]:
    """Decisions whose delivery changes with what comes after them."""
    said = []
    for seed, send in product(range(4), ("paper", "all")):
        rows = sorted(random_decisions(seed, step_ms=6 * HOUR_MS), key=lambda row: row.order)
        whole = run(rows, TIGHT, send)
        for now_ms in sorted({row.decided_ms for row in rows[20:]}):
            known = [
                replace(row, closed_ts_ms=None, r_multiple=None, stopped=False)
                if row.closed_ts_ms is not None and row.closed_ts_ms >= now_ms
                else row
                for row in rows
                if row.decided_ms <= now_ms
            ]
            if run(known, TIGHT, send) != whole[: len(known)]:
                said.append(f"seed {seed}, {send}, at {now_ms}")
    return said


# --- each law, with and without each leak ----------------------------------------------------

LAWS: tuple[tuple[Law, tuple[Plant, ...]], ...] = (
    (decision_law, leaks.DECISIONS),
    (execution_law, leaks.EXECUTION),
    (walk_law, leaks.WALK),
    (delivery_law, leaks.DELIVERY),
)


@pytest.mark.parametrize("law", [law for law, _ in LAWS], ids=lambda law: law.__name__)
def test_the_engine_as_it_is_keeps_the_law(law: Law) -> None:
    """Nothing is reported where nothing is planted."""
    assert law() == []


@pytest.mark.parametrize(
    ("law", "plant"),
    [(law, plant) for law, plants in LAWS for plant in plants],
    ids=lambda one: one.__name__,
)
def test_a_planted_leak_is_reported(
    law: Law, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same law on the same inputs speaks up."""
    points()  # chosen by the engine as it is
    plant(monkeypatch)
    assert law() != []


def test_live_and_history_agree(app: App, tmp_path: Path) -> None:
    """Every column of every row, its trades to the end."""
    found = both_ways(app, tmp_path)
    assert found.differences == []
    assert found.n_same_rows == found.n_rows >= 10
    assert found.n_same_trades == found.n_trades >= 4


@pytest.mark.parametrize("plant", leaks.PARITY, ids=lambda plant: plant.__name__)
def test_parity_reports_a_leak(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: Plant
) -> None:
    """What history knows too much of, or live too little, differs in some row."""
    plant(monkeypatch)
    found = both_ways(app, tmp_path)
    assert found.differences
    assert found.n_same_rows < found.n_rows


@pytest.mark.parametrize(
    "plant",
    [leaks.forming_higher_bar, leaks.feature_of_the_last_bar, leaks.labels_of_the_bar_before],
)
def test_the_owners_verify_reports_a_leak(
    app: App, monkeypatch: pytest.MonkeyPatch, plant: Plant
) -> None:
    """The command's own function says so, and names series, instant and column."""
    plant(monkeypatch)
    found = verify(app, n_points=20, seed=1)
    assert not found["ok"]
    assert found["failed"]
    for row in found["failed"]:
        assert row["series"].partition(" ")[0] in SYMBOLS
        assert row["instant"].startswith("2024-01-")
        assert row["column"]


def test_the_command_fails_with_a_line_for_each_difference(
    app: App, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, the figure, and lines that name series, instant and column; well, it is 0."""
    command = ["verify", "--points", "20", "--seed", "3", "--config", str(app.config_path)]
    assert maintenance.main(command) == 0
    well = capsys.readouterr().out
    leaks.forming_higher_bar(monkeypatch)
    assert maintenance.main(command) == 1
    sick = capsys.readouterr().out
    assert maintenance.main([*command, "--json"]) == 1
    figure = r"verified +decisions (\d+)/20, live = retro \d+/(\d+) rows, trades \d+/(\d+)"
    for text, n in ((well, 20), (sick, None)):
        found = re.search(figure, text)
        assert found
        assert (int(found[1]) == 20) == (n == 20)
    assert re.search(r"(BTC|ETH)/USDT:USDT +1.+ 2024-01-\d\d \d\d:\d\d .+feature higher1_", sick)
    whole = json.loads(capsys.readouterr().out)
    assert len(whole["failed"]) > 40
    assert "more differences" in sick
