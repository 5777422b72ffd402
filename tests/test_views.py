"""The views answer from the database alone, explain every sickness, and never write."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from core import views
from core.domain import Series
from core.errors import StoreError
from core.store import open_database
from core.store.candles import upsert_candles
from core.store.gaps import record_gaps
from core.store.models import insert_bundle, insert_tunings, update_bundle
from core.store.operation import record_run, write_clock, write_step
from core.store.signals import update_signal
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from core.views import Health
from tests.seed_database import END_MS, Seeded, seed
from tests.sick_databases import SICK, locked
from tests.tiny_database import T0, add, flat_bars, tiny

ASKABLE = (Health.MIGRATING, Health.NEWER, Health.NO_CANDLES)
STATUSES = {"PENDING", "OPEN", "TP", "SL", "TP1_TRAIL", "TIMEOUT", "EXPIRED", "CANCELLED"}


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    """A synthetic database with candidates in every state."""
    return seed(tmp_path_factory.mktemp("seeded"))


# --- sick databases ------------------------------------------------------------


@pytest.mark.parametrize("name", SICK)
def test_a_sick_database_explains_itself_in_a_sentence(tmp_path: Path, name: str) -> None:
    """`state` never raises: it names the sickness and the remedy."""
    make, health, phrase = SICK[name]
    path = tmp_path / "market.db"
    make(path)
    found = views.state(path)
    assert found.health is health
    assert phrase in found.sentence
    assert str(path) in found.sentence or health is Health.NO_CANDLES


def test_pages_say_how_far_a_new_database_is_worked_up(tmp_path: Path) -> None:
    """The step, its share and the time left, as /status says it; nothing once all is done."""
    path = tmp_path / "ohlcv.db"
    with open_database(path) as db:
        step: dict[str, Any] = {"done": 30, "total": 120, "eta_s": 5400.0, "wall_ms": 1}
        write_step(db, "1 backfill", state="running", **step)
        write_step(db, "2 retro_scan", state="waiting", wall_ms=1)
        said = views.state(path).sentence
        assert said.endswith("Working up: backfill running 25 %, about 1 h 30 min left.")
        for name in ("1 backfill", "2 retro_scan"):
            write_step(db, name, state="done", wall_ms=2)
        assert "Working up" not in views.state(path).sentence


UNASKABLE = [name for name, (_, health, _) in SICK.items() if health not in ASKABLE]


@pytest.mark.parametrize("name", UNASKABLE)
def test_other_views_raise_one_kind_of_error(tmp_path: Path, name: str) -> None:
    """Where the tables cannot be asked, every question fails as StoreError, never as SQLite's."""
    path = tmp_path / "market.db"
    SICK[name][0](path)
    for question in (views.results, views.freshness, views.latencies, views.version, views.scores):
        with pytest.raises(StoreError):
            question(path)


def test_a_locked_database_says_so(tmp_path: Path) -> None:
    """A file nobody may read is `locked`, after a short wait."""
    path = tmp_path / "market.db"
    open_database(path).close()
    with locked(path):
        found = views.state(path)
    assert found.health is Health.LOCKED
    assert "locked by another process" in found.sentence


def test_a_writer_does_not_hinder_readers(tmp_path: Path) -> None:
    """While a writer holds its transaction, views show what was committed before it."""
    path = tmp_path / "market.db"
    db, strategy = tiny(path)
    add(db, strategy, 1)
    with db.write():
        add(db, strategy, 2)
        assert views.state(path).n_signals == 1
        assert views.results(path).books["followed"].n_closed == 1
    assert views.results(path).books["followed"].n_closed == 2
    db.close()


def test_views_leave_the_database_as_it_was(seeded: Seeded) -> None:
    """Every question may be asked without a byte of the file changing."""
    before = hashlib.sha256(seeded.path.read_bytes()).hexdigest()
    found = views.results(seeded.path)
    number = int(views.latest_signals(seeded.path, views.Filters(), limit=1)["id"].iloc[0])
    signal = views.signal_detail(seeded.path, number)
    assert signal is not None
    assert len(views.candles_around(seeded.path, signal))
    assert len(views.equity(found, "followed"))
    for question in (views.scores, views.freshness, views.latencies):
        question(seeded.path)
    assert hashlib.sha256(seeded.path.read_bytes()).hexdigest() == before


# --- the state bar ----------------------------------------------------------------------------


def test_market_time_is_that_of_the_last_tick(seeded: Seeded) -> None:
    """The `clock` row rules: a replay is shown at its own time, whatever the wall says."""
    found = views.state(seeded.path)
    assert (found.market_ms, found.ticked, found.data_ms) == (END_MS, True, END_MS)
    assert "SYNTHETIC" in found.banner
    assert found.strategy == seeded.strategy


def test_without_a_tick_market_time_is_the_newest_close(tmp_path: Path) -> None:
    """Before the scheduler has run, the newest candle's close stands for now."""
    path = tmp_path / "market.db"
    with open_database(path) as db:
        upsert_candles(db, Series("x", "A/USDT", "1h"), flat_bars(T0, 5, HOUR_MS))
        upsert_candles(db, Series("x", "B/USDT", "1h"), flat_bars(T0, 3, HOUR_MS))
    found = views.state(path)
    assert (found.market_ms, found.ticked) == (T0 + 5 * HOUR_MS, False)
    assert found.lagging_ms == T0 + 3 * HOUR_MS
    assert found.health is Health.NO_SIGNALS


def test_evidence_needs_a_certificate_of_the_present_champion(tmp_path: Path) -> None:
    """No champion, a champion without, and one with a certificate are three states."""
    path = tmp_path / "market.db"
    db, strategy = tiny(path)
    seen = [views.state(path).evidence.evidence.value]
    insert_bundle(
        db, "b1", strategy=strategy, parent=None, created_ms=1, data_until_ms=1, metrics={}
    )
    update_bundle(db, "b1", {"state": "champion"})
    tuning = {"bundle": "b1", "cell": "*/*", "mode": "ev", "threshold": 0.0, "n": 9, "n_eff": 9.0}
    insert_tunings(db, [tuning | {"certified": 1, "detail": "{}", "created_ms": 1}])
    seen.append(views.state(path).evidence.evidence.value)
    insert_tunings(db, [tuning | {"certified": 0, "detail": "{}", "created_ms": 2}])
    seen.append(views.state(path).evidence.evidence.value)
    assert seen == ["UNGATED", "CERTIFIED", "UNCERTIFIED"]
    assert "No proven edge" in views.state(path).evidence.sentence
    db.close()


def test_the_version_moves_when_a_trade_closes(tmp_path: Path) -> None:
    """Equal versions mean equal figures; an exit, a candidate or a champion changes it."""
    path = tmp_path / "market.db"
    db, strategy = tiny(path)
    number = add(db, strategy, 1, status="OPEN", closed_ts_ms=None)
    first = views.version(path)
    assert views.version(path) == first
    update_signal(db, number, {"status": "SL", "closed_ts_ms": T0 + 2 * DAY_MS})
    second = views.version(path)
    add(db, strategy, 2)
    assert len({first, second, views.version(path)}) == 3
    db.close()


def test_places_are_relative_to_the_config_file(tmp_path: Path) -> None:
    """A relative database path starts at the config's folder, not where the page was started."""
    (tmp_path / "there").mkdir()
    config = tmp_path / "there" / "config.yaml"
    config.write_text("app: {db_path: x/y.db, timezone: Asia/Tokyo}\n")
    place = views.place(config)
    assert (place.db_path, place.zone) == (tmp_path / "there" / "x" / "y.db", "Asia/Tokyo")


# --- candidates and candles -------------------------------------------------------------------


def test_the_seed_has_a_candidate_in_every_state(seeded: Seeded) -> None:
    """The helper keeps its word, so that pages are tried on all of them."""
    whole = views.latest_signals(seeded.path, views.Filters(), limit=10_000)
    assert set(whole["status"]) == STATUSES
    assert set(whole["delivery"]) == {"LIVE", "PAPER", "DIGEST", "NONE"}


def test_every_value_of_a_candidate_can_be_filtered_by(seeded: Seeded) -> None:
    """The choices cover what is stored: pairs and timeframes as they are, words from their law."""
    whole = views.latest_signals(seeded.path, views.Filters(), limit=10_000)
    choices = views.choices(seeded.path)
    for name in ("symbol", "timeframe"):
        assert set(whole[name]) == set(choices[name])
    for name in set(choices) - {"symbol", "timeframe"}:
        assert set(whole[name]) <= set(choices[name])


def test_filters_by_delivery_and_period_give_the_rows_they_name(seeded: Seeded) -> None:
    """The quick ways through the indexes are the plain condition on the whole table."""
    whole = views.latest_signals(seeded.path, views.Filters(), limit=10_000)
    since = END_MS - 9 * DAY_MS
    for chosen in (("LIVE",), ("LIVE", "PAPER"), ("PAPER", "NONE"), ("DIGEST",)):
        wanted = views.Filters(delivery=chosen, setup=("limit",), since_ms=since)
        mask = whole["delivery"].isin(chosen) & (whole["decided_ms"] >= since)
        expected = whole[mask & (whole["setup"] == "limit")]["id"].tolist()
        found = views.latest_signals(seeded.path, wanted, limit=10_000)
        assert found["id"].tolist() == expected
        assert expected


def test_candidates_come_newest_first_and_filtered(seeded: Seeded) -> None:
    """Filters join by and, their values by or; the limit keeps the newest."""
    whole = views.latest_signals(seeded.path, views.Filters(), limit=10_000)
    assert whole["decided_ms"].is_monotonic_decreasing
    wanted = views.Filters(status=("TP", "SL"), timeframe=("1h",))
    some = views.latest_signals(seeded.path, wanted, limit=10_000)
    mask = whole["status"].isin(["TP", "SL"]) & (whole["timeframe"] == "1h")
    assert some["id"].tolist() == whole[mask]["id"].tolist()
    assert len(some) > 5
    few = views.latest_signals(seeded.path, wanted, limit=3)
    assert few["id"].tolist() == some["id"].tolist()[:3]


@pytest.mark.parametrize("status", sorted(STATUSES))
def test_the_candles_shown_hold_the_whole_life(seeded: Seeded, status: str) -> None:
    """From before P0 to the exit, or to now while the candidate is followed."""
    found = views.latest_signals(seeded.path, views.Filters(status=(status,)))
    signal = views.signal_detail(seeded.path, int(found["id"].iloc[-1]))
    assert signal is not None
    bars = views.candles_around(seeded.path, signal, n_before=10, n_after=5)
    times = set(bars["ts_ms"])
    assert {signal["p0_ms"], signal["p1_ms"], signal["ts_ms"]} <= times
    assert bars["ts_ms"].iloc[0] <= signal["p0_ms"] - 5 * HOUR_MS // 4
    end = END_MS if status in ("PENDING", "OPEN") else signal["closed_ts_ms"]
    assert bars["ts_ms"].iloc[-1] >= end - HOUR_MS
    assert (signal["opened_price"] is None) == (signal["opened_ts_ms"] is None)
    figure = views.signal_figure(bars, signal, zone="Europe/Berlin")
    lines = [shape.y0 for shape in figure.layout.shapes if shape.type == "line"]
    assert {signal[name] for name in ("entry", "sl", "tp1", "tp2")} <= set(lines)
    low, high = figure.layout.yaxis.range
    assert low < min(signal["sl"], signal["tp2"]) < max(signal["sl"], signal["tp2"]) < high


def test_a_taker_fill_is_marked_at_its_own_price(tmp_path: Path) -> None:
    """The price of the fill comes from the execution's state, not from the plan."""
    path = tmp_path / "market.db"
    db, strategy = tiny(path)
    at_open = add(db, strategy, 1, exec_state='{"opened_price": 98.5}')
    resting = add(db, strategy, 2)
    db.close()
    found = [views.signal_detail(path, number) for number in (at_open, resting)]
    assert [row["opened_price"] for row in found if row] == [98.5, 100.0]
    assert views.signal_detail(path, 999) is None


def test_times_are_shown_in_the_owners_zone() -> None:
    """2025-07-01 00:00 UTC is 02:00 in Berlin and 09:00 in Tokyo."""
    july = 1_751_328_000_000
    assert f"{views.local_time(july, 'Europe/Berlin'):%d %H:%M}" == "01 02:00"
    assert f"{views.local_time(july, 'Asia/Tokyo'):%d %H:%M}" == "01 09:00"


# --- health -----------------------------------------------------------------------------------


def test_freshness_counts_age_and_holes(tmp_path: Path) -> None:
    """Age runs from the newest close to market time; minutes without trades are no holes."""
    path = tmp_path / "market.db"
    series = Series("x", "A/USDT", "1m")
    with open_database(path) as db:
        write_clock(db, market_ms=T0 + 10 * MINUTE_MS, wall_ms=T0, speed=1.0)
        upsert_candles(db, series, flat_bars(T0, 3, MINUTE_MS, "1m"))
        hole = (T0 + 3 * MINUTE_MS, T0 + 5 * MINUTE_MS)
        record_gaps(db, series, [hole], state="unknown", now_ms=T0)
        quiet = (T0 + 6 * MINUTE_MS, T0 + 7 * MINUTE_MS)
        record_gaps(db, series, [quiet], state="no_trades", now_ms=T0)
    row = views.freshness(path).iloc[0]
    assert (row["n_rows"], row["age_ms"], row["n_missing"]) == (3, 7 * MINUTE_MS, 2)
    assert row["n_unknown_gaps"] == 1


def test_jobs_show_the_last_run_its_latency_and_all_failures(tmp_path: Path) -> None:
    """One row a job: its newest outcome, the quantiles of its times, how often it failed."""
    path = tmp_path / "market.db"
    with open_database(path) as db:
        for took, outcome in ((1, "error"), (2, "ok"), (9, "error"), (4, "ok")):
            record_run(db, "scan", due_ms=T0, started_wall_ms=T0, took_ms=took, outcome=outcome)
    table = views.latencies(path)
    names = ["job", "last", "runs", "median, ms", "longest, ms", "failed"]
    assert table[names].to_numpy().tolist() == [["scan", "ok", 4, 3.0, 9.0, 2]]
    assert views.errors(path)["outcome"].tolist() == ["error", "error"]
