"""Whatever an exchange does to its answers, the table ends as the truth with every hole known."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from core.jobs import backfill
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from tests.bitget_server import Fault
from tests.bitget_world import NOW_MS, world
from tests.engine_world import part
from tests.vices import (
    PAGES,
    TIMEOUT_MS,
    TRANSPORT,
    Story,
    Vices,
    Withheld,
    come_late,
    quiet,
    revise,
    story,
)
from tests.vices_world import (
    CALM,
    CYCLES,
    DAY_START_MS,
    END_MS,
    ETH,
    LISTED_MS,
    OLD,
    OLD_END_MS,
    OLD_MS,
    RECENT,
    SPOT,
    SYMBOLS,
    SYNCED_MS,
    assert_true,
    fetched,
    follow,
    least,
    live,
    mild,
    n_revised,
    wild,
)
from tests.worlds import random_candles


@pytest.mark.parametrize("name", [*TRANSPORT, *PAGES])
def test_a_vice_costs_the_live_cycle_nothing(tmp_path: Path, name: str) -> None:
    """By the minute and after downtime, whatever is wrong with answers is repaired in time."""
    told = story(RECENT, DAY_START_MS, END_MS, seed=1)
    with live(tmp_path, told, lanes=4 if name in TRANSPORT else 1) as w:
        w.cycle(NOW_MS - MINUTE_MS)
        w.server.vices = vices = mild(name, 1)
        assert follow(w, CYCLES) == 0
        assert vices.n_done[name] >= least(name)
        vices.is_on = False
        follow(w, CALM)
        assert_true(w, told, SYNCED_MS, NOW_MS + CALM[-1] * MINUTE_MS)


@pytest.mark.parametrize(
    "name",
    [*TRANSPORT, *PAGES],
)
def test_a_vice_costs_a_backfill_nothing(tmp_path: Path, name: str) -> None:
    """Old days come whole in one go, from the listing's first minute on, with their holes."""
    told = story(OLD, OLD_MS, OLD_END_MS, seed=2)
    lanes = 4 if name in TRANSPORT else 1
    with world(tmp_path, told.truth, timeout_ms=TIMEOUT_MS, lanes=lanes) as w:
        w.server.vices = vices = mild(name, 3)
        assert fetched(w) == dict.fromkeys(SYMBOLS, "")
        assert vices.n_done[name] >= least(name)
        assert w.server.asked("history-candles")
        assert_true(w, told, OLD_MS, OLD_END_MS)


LONG_SEEDS = range(100, 130)
SEEDS = [
    1,
    2,
    3,
    *(pytest.param(seed, marks=pytest.mark.long(minutes=0.05)) for seed in LONG_SEEDS),
]


@pytest.mark.parametrize("seed", SEEDS)
def test_all_vices_at_once_cost_the_live_cycle_nothing(tmp_path: Path, seed: int) -> None:
    """Holes, late candles and drafts among bad answers, some of them too bad to be retried."""
    told = story(RECENT, DAY_START_MS, END_MS, seed=seed)
    with live(tmp_path, told, lanes=4 if seed >= LONG_SEEDS[0] else 1) as w:
        rng = random.Random(seed)
        for symbol, bars in told.truth.items():
            near = part(bars, NOW_MS, NOW_MS + 15 * MINUTE_MS).ts_ms.tolist()
            near = rng.sample(near, len(near))
            for open_ms in near[:2]:
                come_late(w.server, symbol, open_ms, minutes=rng.randrange(1, 40))
            for open_ms in [ts for ts in near[2:] if ts < NOW_MS + 8 * MINUTE_MS][:2]:
                revise(w.server, symbol, open_ms, until_ms=open_ms + 90_000)
        w.cycle(NOW_MS - MINUTE_MS)
        w.server.vices = vices = wild(seed, most_in_a_row=9)
        n_failed = follow(w, range(15))
        n_failed += follow(w, CYCLES[9:])
        vices.is_on = False
        follow(w, CALM)
        assert len(vices.n_done) >= len(PAGES)
        assert n_failed < len(CYCLES)
        assert_true(w, told, SYNCED_MS, NOW_MS + CALM[-1] * MINUTE_MS)
        assert sum(n_revised(w, symbol) for symbol in SYMBOLS) <= len(w.server.drafts)


@pytest.mark.parametrize("seed", SEEDS)
def test_all_vices_at_once_cost_a_backfill_only_its_runs(tmp_path: Path, seed: int) -> None:
    """A run that gives up on a symbol names it; repeated until none does, it has the truth."""
    told, lanes = story(OLD, OLD_MS, OLD_END_MS, seed=seed), 4 if seed >= LONG_SEEDS[0] else 1
    with world(tmp_path, told.truth, timeout_ms=TIMEOUT_MS, lanes=lanes) as w:
        w.server.vices = vices = wild(seed, most_in_a_row=7, where="candles")
        for _ in range(12):
            errors = fetched(w, passes=1)
            if not any(errors.values()):
                break
            w.reopened()
        assert len(vices.n_done) >= len(PAGES)
        assert errors == dict.fromkeys(SYMBOLS, "")
        assert_true(w, told, OLD_MS, OLD_END_MS)


@pytest.mark.parametrize("skew_minutes", [-5, 5])
def test_a_wrong_clock_among_bad_pages_changes_nothing(tmp_path: Path, skew_minutes: int) -> None:
    """The machine is five minutes early or late while every vice of a page is met."""
    told = story(RECENT, DAY_START_MS, END_MS, seed=4)
    with live(tmp_path, told, skew_ms=skew_minutes * MINUTE_MS, lanes=1) as w:
        w.cycle(NOW_MS - MINUTE_MS)
        w.server.vices = vices = Vices(skew_minutes, pages=list(PAGES), p_page=0.6)
        assert follow(w, CYCLES) == 0
        assert len(vices.n_done) == len(PAGES)
        vices.is_on = False
        follow(w, CALM)
        assert_true(w, told, SYNCED_MS, NOW_MS + CALM[-1] * MINUTE_MS)


@pytest.mark.parametrize("skew_minutes", [-5, 5])
def test_a_wrong_clock_at_the_month_of_the_recent_endpoint(
    tmp_path: Path, skew_minutes: int
) -> None:
    """Days on both sides of what the recent endpoint keeps join without a seam."""
    start_ms = NOW_MS - 31 * DAY_MS - 12 * HOUR_MS
    end_ms = start_ms + 3 * DAY_MS
    bars = {s: random_candles(4 * 1440, seed=i, start_ms=start_ms) for i, s in enumerate(SYMBOLS)}
    told = story(bars, start_ms, end_ms, seed=5)
    with world(tmp_path, told.truth, skew_ms=skew_minutes * MINUTE_MS, lanes=1) as w:
        w.server.vices = Vices(skew_minutes, pages=list(PAGES))
        rows = backfill.backfill(w.app, symbols=SYMBOLS, start_ms=start_ms, end_ms=end_ms)
        assert [row["error"] for row in rows] == ["", "", ""]
        assert w.server.asked("market/candles")
        assert w.server.asked("history-candles")
        assert_true(w, told, start_ms, end_ms)


def test_an_answer_that_trickles_is_given_up_and_asked_for_again(tmp_path: Path) -> None:
    """No time-out between two bytes ever passes, yet the request ends."""
    told = Story(dict(RECENT), {symbol: [] for symbol in SYMBOLS})
    with live(tmp_path, told) as w:
        w.cycle(NOW_MS - MINUTE_MS)
        w.server.disturb(Fault(manner="trickle", for_s=20.0), where="market/candles")
        n_before = len(w.server.asked("market/candles"))
        w.cycle(NOW_MS)
        assert len(w.server.asked("market/candles")) - n_before == len(SYMBOLS) + 1
        assert_true(w, told, SYNCED_MS, NOW_MS)


@pytest.mark.parametrize("n_times", [1, 2])
def test_the_first_minutes_of_a_listing_are_not_lost(tmp_path: Path, n_times: int) -> None:
    """They are no hole between candles, yet they are believed absent only at the third reading."""
    told = Story(dict(OLD), {symbol: [] for symbol in SYMBOLS})
    with world(tmp_path, told.truth) as w:
        run = (LISTED_MS, LISTED_MS + 20 * MINUTE_MS)
        w.server.vices = Withheld(ETH, run=run, n_times=n_times)
        assert fetched(w) == dict.fromkeys(SYMBOLS, "")
        assert_true(w, told, OLD_MS, OLD_END_MS)


@pytest.mark.parametrize("name", ["empty-page", "no-head", "no-tail", "off-grid"])
def test_a_first_sync_among_bad_pages(tmp_path: Path, name: str) -> None:
    """Nothing is stored yet that could say what is missing; a download completes the rest."""
    told = story(RECENT, DAY_START_MS, END_MS, seed=8)
    with live(tmp_path, told, lanes=1) as w:
        w.server.vices = vices = mild(name, 8)
        follow(w, range(9))
        vices.is_on = False
        follow(w, CALM)
        errors = fetched(w, start_ms=DAY_START_MS - DAY_MS, end_ms=None)
        assert errors == dict.fromkeys(SYMBOLS, "")
        assert_true(w, told, DAY_START_MS - DAY_MS, NOW_MS + CALM[-1] * MINUTE_MS)


SILENT_MS = NOW_MS + 30 * MINUTE_MS


def test_what_others_lack_for_a_moment_does_not_make_a_quiet_minute_missing(tmp_path: Path) -> None:
    """After downtime a minute without trades is told by the others, once they are all there."""
    hole = (SILENT_MS, SILENT_MS + 2 * MINUTE_MS)
    told = quiet(RECENT, hole)
    with live(tmp_path, told) as w:
        w.cycle(NOW_MS)
        w.server.vices = Withheld(ETH, SPOT, run=hole, n_times=2)
        follow(w, (100, 101, 120, 140, 160))
        assert_true(w, told, SYNCED_MS, NOW_MS + 160 * MINUTE_MS)


def test_what_others_lack_for_a_moment_does_not_spoil_a_backfill(tmp_path: Path) -> None:
    """In one run: the others' holes are filled before one of them is judged."""
    hole = (LISTED_MS + DAY_MS, LISTED_MS + DAY_MS + 2 * MINUTE_MS)
    told = quiet(OLD, hole)
    with world(tmp_path, told.truth) as w:
        w.server.vices = Withheld(ETH, SPOT, run=hole, n_times=2)
        assert fetched(w) == dict.fromkeys(SYMBOLS, "")
        assert_true(w, told, OLD_MS, OLD_END_MS)
