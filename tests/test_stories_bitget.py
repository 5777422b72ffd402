"""What befalls a market itself: late and revised candles, delistings; and the trap of old pages."""

from __future__ import annotations

from pathlib import Path

import ccxt
import pytest

from core.timeframe import HOUR_MS, MINUTE_MS
from tests.bitget_server import Fault
from tests.bitget_world import NOW_MS, world
from tests.engine_world import gap_states, part, same, stored
from tests.vices import Story, come_late, revise, story
from tests.vices_world import (
    BTC,
    CALM,
    CYCLES,
    DAY_START_MS,
    END_MS,
    ETH,
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
    live,
    n_revised,
)


def test_late_candles_take_the_place_of_their_holes(tmp_path: Path) -> None:
    """Minutes, or a whole stretch, shown only after they were taken for missing: still stored."""
    told = Story(dict(RECENT), {symbol: [] for symbol in SYMBOLS})
    with live(tmp_path, told) as w:
        for minute, late in ((2, 1), (4, 8), (5, 25)):
            come_late(w.server, BTC, NOW_MS + minute * MINUTE_MS, minutes=late)
        for minute in range(6, 14):
            come_late(w.server, ETH, NOW_MS + minute * MINUTE_MS, minutes=20)
        follow(w, range(-1, 27))
        low = NOW_MS + 5 * MINUTE_MS
        assert gap_states(w.app, BTC) == [(low, low + MINUTE_MS, "no_trades")]
        assert [state for _, _, state in gap_states(w.app, ETH)] == ["missing"]
        follow(w, (*range(27, 36), 52))
        assert_true(w, told, SYNCED_MS, NOW_MS + 52 * MINUTE_MS)
        assert n_revised(w, BTC) == n_revised(w, ETH) == 0


def test_a_stretch_of_history_that_comes_late_is_filled_by_the_next_run(tmp_path: Path) -> None:
    """What one backfill found missing, the next one asks for again."""
    told = Story(dict(OLD), {symbol: [] for symbol in SYMBOLS})
    low, high = OLD_MS + 40 * HOUR_MS, OLD_MS + 47 * HOUR_MS
    with world(tmp_path, told.truth) as w:
        for ts_ms in range(low, high, MINUTE_MS):
            w.server.late_ms[SPOT, ts_ms] = NOW_MS + HOUR_MS
        fetched(w)
        assert gap_states(w.app, SPOT) == [(low, high, "missing")]
        w.at_ms += 2 * HOUR_MS
        assert fetched(w) == dict.fromkeys(SYMBOLS, "")
        assert_true(w, told, OLD_MS, OLD_END_MS)


def test_revised_candles_are_stored_anew_and_counted(tmp_path: Path) -> None:
    """Drafts are stored as final, since they are closed; their corrections are counted once."""
    told = Story(dict(RECENT), {symbol: [] for symbol in SYMBOLS})
    drafts = {BTC: (1, 2, 8), ETH: (3,), SPOT: ()}
    with live(tmp_path, told) as w:
        for symbol, minutes in drafts.items():
            for minute in minutes:
                open_ms = NOW_MS + minute * MINUTE_MS
                revise(w.server, symbol, open_ms, until_ms=open_ms + 3 * MINUTE_MS)
        follow(w, range(-1, 5))
        assert not same(
            stored(w.app, BTC), part(told.truth[BTC], SYNCED_MS, NOW_MS + 4 * MINUTE_MS)
        )
        follow(w, range(5, 16))
        assert_true(w, told, SYNCED_MS, NOW_MS + 15 * MINUTE_MS)
        assert [n_revised(w, symbol) for symbol in SYMBOLS] == [3, 1, 0]


@pytest.mark.parametrize("gone", [ETH, SPOT])
def test_a_symbol_delisted_while_it_is_followed_stops_nobody(tmp_path: Path, gone: str) -> None:
    """The others stay complete, its candles stay as they were, and a download says why."""
    told = story(RECENT, DAY_START_MS, END_MS, seed=6)
    with live(tmp_path, told) as w:
        follow(w, range(-1, 5))
        w.server.delisted_ms[gone] = NOW_MS + 5 * MINUTE_MS
        assert follow(w, CYCLES[5:]) == 0
        w.reopened()  # a market list that no longer has it
        assert follow(w, CALM) == 0
        told.truth[gone] = part(told.truth[gone], 0, NOW_MS + 4 * MINUTE_MS)
        told.holes[gone] = [hole for hole in told.holes[gone] if hole[1] < NOW_MS]
        assert_true(w, told, SYNCED_MS, NOW_MS + CALM[-1] * MINUTE_MS)
        errors = fetched(w, start_ms=DAY_START_MS, end_ms=None)
        assert [symbol for symbol in SYMBOLS if errors[symbol]] == [gone]
        assert gone in errors[gone]
        assert_true(w, told, SYNCED_MS, NOW_MS + CALM[-1] * MINUTE_MS)


@pytest.mark.parametrize("gone", [ETH, SPOT])
def test_a_symbol_delisted_during_a_backfill_stops_nobody(tmp_path: Path, gone: str) -> None:
    """The others come whole; what it had given is kept, and is true."""
    told = Story(dict(OLD), {symbol: [] for symbol in SYMBOLS})
    with world(tmp_path, told.truth) as w:

        def delist(what: str, done: int, total: int) -> None:
            if what == gone and 1000 <= done < total:
                w.server.delisted_ms[gone] = NOW_MS

        errors = fetched(w, progress=delist)
        assert [symbol for symbol in SYMBOLS if errors[symbol]] == [gone]
        assert gone in errors[gone]
        kept = stored(w.app, gone)
        assert len(kept) >= 900
        bars = told.truth.pop(gone)
        assert same(kept, part(bars, int(kept.ts_ms[0]), OLD_END_MS))
        assert_true(w, told, OLD_MS, OLD_END_MS)


def test_paging_history_by_the_thousand_loses_most_of_it_and_ours_nothing(tmp_path: Path) -> None:
    """The plain client skips 800 of every 1000 old minutes and says nothing."""
    told = Story(dict(OLD), {symbol: [] for symbol in SYMBOLS})
    with world(tmp_path, told.truth, backfill={"batch_limit": 1000}) as w:
        client = ccxt.bitget(w.server.ccxt())
        client.milliseconds = lambda: NOW_MS
        got_ms, since_ms = set[int](), OLD_MS
        while since_ms < OLD_END_MS:
            page = client.fetch_ohlcv(BTC, "1m", since_ms, 1000)
            got_ms |= {row[0] for row in page}
            since_ms = page[-1][0] + MINUTE_MS
        assert len(got_ms) == 5 * 200  # of 4320 that it believes to have
        assert fetched(w) == dict.fromkeys(SYMBOLS, "")
        assert_true(w, told, OLD_MS, OLD_END_MS)


NO_MARKETS = Fault(body='{"code":"00000","msg":"success","requestTime":1,"data":[]}')


def test_an_empty_market_list_at_the_start_is_not_the_last_word(tmp_path: Path) -> None:
    """One void answer to the first question costs minutes, not the rest of the run."""
    told = Story(dict(RECENT), {symbol: [] for symbol in SYMBOLS})
    with live(tmp_path, told) as w:
        w.server.disturb(*[NO_MARKETS] * 6, where="contracts")  # one for each product type
        follow(w, range(-1, 30))
        assert_true(w, told, SYNCED_MS, NOW_MS + 29 * MINUTE_MS)


def test_a_symbol_listed_while_the_engine_runs_is_followed(tmp_path: Path) -> None:
    """It is configured before it is listed; from then on its candles come in."""
    told = Story(dict(RECENT), {symbol: [] for symbol in SYMBOLS})
    told.truth[ETH] = part(RECENT[ETH], NOW_MS + 5 * MINUTE_MS, END_MS)
    with live(tmp_path, told) as w:
        w.server.truth = {symbol: told.truth[symbol] for symbol in (BTC, SPOT)}
        follow(w, range(-1, 5))
        w.server.truth = told.truth
        follow(w, range(5, 30))
        assert_true(w, told, SYNCED_MS, NOW_MS + 29 * MINUTE_MS)
