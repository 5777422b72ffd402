"""Every key of the settings has an effect: the whole list, and the keys around the market."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from apscheduler.schedulers.background import BackgroundScheduler
from pydantic import BaseModel

from core import candle_files
from core.app import App
from core.cadence import WEEKLY, next_due
from core.config import Config
from core.domain import Candles
from core.exchange import connect, open_exchange
from core.exchange.ccxt_adapter import CcxtExchange
from core.jobs import backfill, maintain, scan, scheduler, sync
from core.store import candles as store
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from tests.bitget_server import BitgetServer, serving
from tests.config_keys import nested, shows, turned
from tests.engine_world import FakeExchange, HandClock, opened, write_config
from tests.worlds import MONDAY_MS, random_candles

SHIPPED = Path(__file__).resolve().parents[1] / "config.yaml"
SEED = """
app.data_dir app.db_path app.timezone exchange.id exchange.rate_limit_ms symbols timeframes
data.base_timeframe data.derived_timeframes data.resample.lookback_minutes backfill.start_date
backfill.batch_limit incremental.overlap_candles incremental.run_seconds incremental.batch_limit
signals.lookback_candles signals.atr_period signals.atr_mult_sl signals.fibo.piv_window
signals.fibo.anchors_to_consider signals.avwap.use signals.min_tp_net_pct signals.fees.maker_pct
signals.fees.taker_pct signals.slippage_pct signals.validity_candles
signals.evaluation.usd_per_trade risk.mode risk.risk_per_trade_pct risk.max_leverage
risk.liquidation_buffer_pct execution.tp1_fraction execution.be_on_tp1 execution.trail_atr_mult
models.meta.enabled models.meta.model_path models.meta.calibration.enabled
models.meta.calibration.path models.meta.gating.use_ev models.meta.gating.min_ev_pct
models.meta.gating.threshold models.meta.gating.costs_mode models.meta.gating.target_winrate_pct
models.meta.gating.window_days models.meta.gating.min_closed_samples
models.meta.gating.per_pair_tf models.meta.gating.per_regime auto.train.enabled
auto.calibrate.enabled auto.tune.enabled notify.telegram.enabled notify.telegram.bot_token
notify.telegram.chat_id
"""
FURTHER = """
exchange.ccxt exchange.replay.path exchange.replay.start exchange.replay.speed signals.setups
signals.fibo.min_impulse_atr signals.fibo.entry_level signals.fibo.tp1_level
signals.fibo.tp2_level signals.max_cost_r signals.fees.funding_pct_8h risk.equity_usd
risk.spot_long_only execution.delivery_delay_s execution.max_hold_candles
models.meta.calibration.method auto.train.weekday auto.train.hour auto.train.minute
auto.calibrate.weekday auto.calibrate.hour auto.calibrate.minute auto.tune.weekday auto.tune.hour
auto.tune.minute auto.summary.enabled auto.summary.weekday auto.summary.hour
auto.summary.minute guards.cooldown_minutes guards.max_open guards.max_open_per_side
guards.max_consecutive_stops guards.stop_pause_hours guards.max_drawdown_r guards.locked_symbols
backup.enabled backup.dir backup.keep notify.console notify.paper_per_day notify.digest_hour
notify.deadman_url notify.telegram.api_base notify.telegram.send notify.telegram.link_template
notify.telegram.commands notify.events.filled notify.events.tp1 notify.events.stop_moved
notify.events.expired notify.events.cancelled notify.events.closed
"""
SYMBOL, OTHER = "AAA/USDT:USDT", "BBB/USDT:USDT"
SOME = random_candles(3 * 1440, 5, start_price=4_000)
NOW_MS = MONDAY_MS + 3 * DAY_MS


class Asked(FakeExchange):
    """An exchange that notes what it is asked for."""

    def __init__(self, truth: dict[str, Candles], clock: HandClock) -> None:
        super().__init__(truth, clock, page=1000)
        self.asked: list[tuple[str, str, int, int]] = []

    def candles(self, symbol: str, timeframe: str, *, start_ms: int, end_ms: int) -> Candles:
        self.asked.append((symbol, timeframe, start_ms, end_ms))
        return super().candles(symbol, timeframe, start_ms=start_ms, end_ms=end_ms)


def engine(
    folder: Path, key: str, value: Any, *, candles: Candles = SOME, **others: Any
) -> tuple[App, Asked, HandClock]:
    """An engine with one key turned, on an exchange that notes what it is asked for."""
    tree = {"symbols": [SYMBOL], "timeframes": ["15m"]} | nested({key: value}) | others
    clock = HandClock(NOW_MS)
    exchange = Asked({SYMBOL: candles, OTHER: candles}, clock)
    return opened(write_config(folder, **tree), (exchange, clock)), exchange, clock


def leaves(tree: Any, name: str = "") -> Iterator[str]:
    """The dotted names of the values in a tree of plain values; an empty mapping is a value."""
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from leaves(value, f"{name}.{key}".removeprefix("."))
    else:
        yield name


def model_leaves(model: type[BaseModel], name: str = "") -> Iterator[str]:
    """The dotted names of the settings the program knows."""
    for key, field in model.model_fields.items():
        inner = field.annotation
        whole = f"{name}.{key}".removeprefix(".")
        if isinstance(inner, type) and not get_args(inner) and issubclass(inner, BaseModel):
            yield from model_leaves(inner, whole)
        else:
            yield whole


def test_every_key_has_a_test_that_shows_its_effect() -> None:
    """The keys of the shipped file, of the program, and those shown in these tests are the same.

    So are the seed's documented keys with those the design added.
    """
    modules = [
        importlib.import_module(f"tests.test_config_keys{part}")
        for part in ("", "_plan", "_model", "_delivery")
    ]
    tests = [test for module in modules for test in vars(module).values()]
    shown = {key for test in tests for key in getattr(test, "shown_keys", ())}
    shipped = set(leaves(yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))))
    assert shipped == set(model_leaves(Config))
    listed = [*SEED.split(), *FURTHER.split()]
    assert len(listed) == len(set(listed))
    assert shipped == set(listed)
    assert shown == set(listed)


@shows("app.data_dir", "app.db_path", "backup.dir")
@pytest.mark.parametrize(
    ("app", "backup", "places"),
    [
        ({"data_dir": "here"}, {}, ("here/ohlcv.db", "here/backups")),
        ({"data_dir": "here", "db_path": "there/x.db"}, {}, ("there/x.db", "here/backups")),
        ({}, {"dir": "safe"}, ("data/ohlcv.db", "safe")),
    ],
)
def test_files_lie_where_the_settings_say(
    tmp_path: Path, app: dict[str, str], backup: dict[str, str], places: tuple[str, str]
) -> None:
    """The database and its backups, relative to the settings."""
    made = opened(write_config(tmp_path, app=app, backup=backup))
    kept = Path(maintain.backup(made, now_wall_ms=NOW_MS)["file"])
    made.close()
    assert (tmp_path / places[0]).is_file()
    assert kept.parent == tmp_path / places[1]


@shows("backup.enabled", "backup.keep")
@pytest.mark.parametrize(("backup", "n"), [({"enabled": False}, 0), ({"keep": 1}, 1), ({}, 3)])
def test_backups_are_made_where_wanted_and_the_oldest_dropped(
    tmp_path: Path, backup: dict[str, Any], n: int
) -> None:
    """After three days there are none, the newest one, or all three."""
    app = opened(write_config(tmp_path, backup=backup))
    for day in range(3):
        maintain.daily_backup(app, now_wall_ms=NOW_MS + day * DAY_MS)
    app.close()
    assert len(list(tmp_path.glob("data/backups/*.db"))) == n


@shows("exchange.id")
def test_the_exchange_is_the_one_that_is_named() -> None:
    """Any id of ccxt; nothing is asked by opening it."""
    for name in ("kraken", "bitget"):
        assert open_exchange(turned("exchange.id", name)).id == name


@shows("exchange.ccxt", "exchange.rate_limit_ms")
def test_requests_go_where_ccxt_is_told_and_keep_their_distance() -> None:
    """The constructor's `urls` lead to our server; between two requests lies the time set."""
    with serving(BitgetServer({SYMBOL: SOME}, now_ms=lambda: NOW_MS)) as server:
        for apart_ms in (1, 60_000):
            waits: list[float] = []
            config = turned("exchange.rate_limit_ms", apart_ms, exchange={"ccxt": server.ccxt()})
            before = len(server.requests)
            CcxtExchange.open(config, sleep=waits.append).markets((SYMBOL,))
            n = len(server.requests) - before
            assert n > 1
            # Nobody really slept, so the n-th request is told to wait for n - 1 slots.
            assert max(waits, default=0.0) <= apart_ms / 1000 * (n - 1)
            assert (sum(waits) > 60) == (apart_ms == 60_000)


@shows("exchange.replay.path", "exchange.replay.start", "exchange.replay.speed")
def test_a_replay_starts_where_and_when_it_is_told(tmp_path: Path) -> None:
    """Another folder has another first minute; a later day skips; the speed is the clock's."""
    for i, name in enumerate(("one", "two")):
        later = random_candles(3 * 1440, 5, start_ms=MONDAY_MS + i * HOUR_MS, start_price=4_000)
        candle_files.write(tmp_path / name / candle_files.name_of(SYMBOL, "1m"), later)

    def clock(name: str, **replay: Any) -> Any:
        exchange = {"id": "replay", "replay": {"path": str(tmp_path / name), **replay}}
        return connect(turned("exchange", exchange, symbols=[SYMBOL]), resume_ms=None)[1]

    assert clock("one").now_ms() == MONDAY_MS
    assert clock("two").now_ms() == MONDAY_MS + HOUR_MS
    assert clock("one", start="2024-01-02").now_ms() == MONDAY_MS + DAY_MS
    assert [clock("one", speed=speed).speed for speed in (0, 60)] == [0, 60]


@shows("symbols")
def test_the_symbols_are_those_that_are_asked_for(tmp_path: Path) -> None:
    """One, or both."""
    for names in ([SYMBOL], [SYMBOL, OTHER]):
        app, exchange, clock = engine(tmp_path, "symbols", names)
        sync.sync_all(app, now_ms=clock.now_ms())
        assert {symbol for symbol, *_ in exchange.asked} == set(names)
        app.close()


@shows("timeframes")
def test_the_timeframes_are_those_that_are_scanned(tmp_path: Path) -> None:
    """Without candles each of them says that it waits."""
    for names in (["1h"], ["15m", "4h"]):
        app, _, clock = engine(tmp_path, "timeframes", names)
        found = scan.scan_all(app, now_ms=clock.now_ms(), dry_run=True)
        assert set(found.waiting) == {f"{SYMBOL} {name}" for name in names}
        app.close()


@shows("data.base_timeframe")
def test_the_base_timeframe_is_what_is_downloaded(tmp_path: Path) -> None:
    """Minutes, or five of them; nothing finer is asked for."""
    for name, minutes in (("1m", 1), ("5m", 5)):
        bars = random_candles(600, 5, name, start_ms=NOW_MS - 600 * minutes * MINUTE_MS)
        data = {"base_timeframe": name, "derived_timeframes": ["1h"]}
        app, exchange, clock = engine(tmp_path / name, "data", data, candles=bars)
        sync.sync_all(app, now_ms=clock.now_ms())
        assert {timeframe for _, timeframe, *_ in exchange.asked} == {name}
        app.close()


@shows("data.derived_timeframes")
def test_the_derived_timeframes_are_made(tmp_path: Path) -> None:
    """2h where it is listed; what scanning needs is there in both cases."""
    for i, names in enumerate((["5m"], ["5m", "2h"])):
        app, _, clock = engine(tmp_path / str(i), "data.derived_timeframes", names)
        sync.sync_all(app, now_ms=clock.now_ms())
        sync.resample_all(app, now_ms=clock.now_ms())
        made = {row.series.timeframe for row in store.series_rows(app.db)}
        app.close()
        assert made >= {"1m", "5m", "15m", "1h", "4h"}
        assert ("2h" in made) == ("2h" in names)


@shows("data.resample.lookback_minutes")
def test_minutes_that_come_late_are_taken_as_far_back_as_set(tmp_path: Path) -> None:
    """One that appears half an hour late is taken with a look-back of 60 minutes, not of 10."""
    for minutes in (10, 60):
        app, exchange, clock = engine(
            tmp_path / str(minutes), "data.resample.lookback_minutes", minutes
        )
        late_ms = NOW_MS - 40 * MINUTE_MS
        exchange.hidden = {(SYMBOL, late_ms)}
        for now_ms in (NOW_MS - 30 * MINUTE_MS, NOW_MS - 11 * MINUTE_MS):
            clock.at_ms = now_ms
            sync.sync_all(app, now_ms=now_ms)
        exchange.hidden, clock.at_ms = set(), NOW_MS
        sync.sync_all(app, now_ms=NOW_MS)
        n = app.db.value("SELECT count(*) FROM candles WHERE ts_ms = ?", (late_ms,))
        app.close()
        assert n == (minutes == 60)


@shows("backfill.start_date")
def test_a_first_sync_goes_back_no_further_than_the_start_date(tmp_path: Path) -> None:
    """Set to yesterday, it is yesterday; set to years ago, the first sync takes two days."""
    for day, start_ms in (("2024-01-03", NOW_MS - DAY_MS), ("2020-01-01", NOW_MS - 2 * DAY_MS)):
        app, exchange, clock = engine(tmp_path / day, "backfill.start_date", day)
        sync.sync_all(app, now_ms=clock.now_ms())
        app.close()
        overlap_ms = app.config.incremental.overlap_candles * MINUTE_MS
        assert exchange.asked[0][2] == start_ms - overlap_ms


@shows("backfill.batch_limit")
def test_history_is_asked_for_in_batches(tmp_path: Path) -> None:
    """No request is wider than the limit, and with room to spare the widest is as wide."""
    for limit in (100, 400):
        app, exchange, _ = engine(tmp_path / str(limit), "backfill.batch_limit", limit)
        start_ms = NOW_MS - DAY_MS
        backfill.backfill(app, symbols=[SYMBOL], start_ms=start_ms, end_ms=NOW_MS)
        app.close()
        minutes = [end - start for _, name, start, end in exchange.asked if name == "1m"]
        assert max(minutes) == limit * MINUTE_MS


@shows("incremental.batch_limit")
def test_catching_up_is_done_in_batches(tmp_path: Path) -> None:
    """Two days of minutes in requests of at most so many."""
    for limit in (50, 400):
        app, exchange, clock = engine(tmp_path / str(limit), "incremental.batch_limit", limit)
        sync.sync_all(app, now_ms=clock.now_ms())
        app.close()
        minutes = [end - start for _, name, start, end in exchange.asked if name == "1m"]
        assert max(minutes) == limit * MINUTE_MS


@shows("incremental.overlap_candles")
def test_a_cycle_reads_the_last_candles_again(tmp_path: Path) -> None:
    """The next request starts so many minutes before what is known."""
    for n in (1, 9):
        app, exchange, clock = engine(tmp_path / str(n), "incremental.overlap_candles", n)
        sync.sync_all(app, now_ms=clock.now_ms() - MINUTE_MS)
        exchange.asked.clear()
        sync.sync_all(app, now_ms=clock.now_ms())
        app.close()
        assert exchange.asked[0][2] == NOW_MS - MINUTE_MS - n * MINUTE_MS


@shows("incremental.run_seconds")
def test_the_scheduler_looks_as_often_as_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipeline's triggers have this interval."""
    every: dict[str, float] = {}
    plain = BackgroundScheduler.add_job

    def noted(self: Any, work: Any, trigger: str, *, seconds: float, id: str) -> Any:  # noqa: A002
        every[id] = seconds
        return plain(self, work, trigger, seconds=seconds, id=id)

    monkeypatch.setattr(BackgroundScheduler, "add_job", noted)
    stop = threading.Event()
    stop.set()
    for seconds in (7, 50):
        app, _, _ = engine(tmp_path, "incremental.run_seconds", seconds)
        scheduler.run_forever(app, stop=stop)
        app.close()
        assert every["incremental_sync"] == every["scan_signals"] == seconds


@shows(
    *(
        f"auto.{j}.{k}"
        for j in ("train", "calibrate", "tune", "summary")
        for k in ("enabled", "weekday")
    )
)
@pytest.mark.parametrize("job", WEEKLY)
def test_weekly_work_is_due_on_its_day_if_at_all(job: str) -> None:
    """Monday at 05:00 instead of Sunday; never where it is off."""
    section = f"auto.{job.removeprefix('auto_')}"
    assert due_at(job, turned(section, {"weekday": "mon", "hour": 5, "minute": 0})) == 5 * HOUR_MS
    off = {"weekday": "mon", "hour": 5, "enabled": False}
    assert due_at(job, turned(section, off)) is None


@shows(
    *(
        f"auto.{j}.{k}"
        for j in ("train", "calibrate", "tune", "summary")
        for k in ("hour", "minute")
    )
)
@pytest.mark.parametrize("job", WEEKLY)
def test_weekly_work_is_due_at_its_hour_and_minute(job: str) -> None:
    """UTC."""
    section = f"auto.{job.removeprefix('auto_')}"
    config = turned(section, {"weekday": "tue", "hour": 7, "minute": 41})
    assert due_at(job, config) == DAY_MS + 7 * HOUR_MS + 41 * MINUTE_MS


def due_at(job: str, config: Config) -> int | None:
    """When a weekly job is first due in the first six days after a Monday's midnight."""
    idle = dict.fromkeys(
        ("incremental_sync", "resample", "scan_signals", "execute_signals"), 1 << 60
    )
    marks = idle | dict.fromkeys((*WEEKLY, "daily_digest"), 1 << 60) | {job: MONDAY_MS}
    due = next_due(MONDAY_MS + 6 * DAY_MS, marks, config)
    assert due is None or due.job == job
    return None if due is None else due.due_ms - MONDAY_MS
