"""Holes are accounted for minute by minute, and derived bars follow their base in any order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.jobs.sync import resample_symbol
from core.resample import resample
from core.store import Database, open_database
from core.store import candles as store
from core.store import gaps as gap_store
from core.timeframe import MINUTE_MS, tf_ms
from tests.pandas_bars import assert_same, pandas_bars
from tests.store_world import BASE, TRUTH, bars_of, minutes, same, scratch
from tests.worlds import MONDAY_MS, picked, random_candles

THREE_DAYS = random_candles(3 * 1440, seed=4)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """An empty database."""
    with open_database(tmp_path / "a.db") as database:
        yield database


spans = st.tuples(st.integers(0, 60), st.integers(1, 15)).map(lambda s: (s[0], s[0] + s[1]))
gap_ops = st.lists(
    st.one_of(
        st.tuples(st.just("hole"), spans, st.sampled_from(["unknown", "missing"])),
        st.tuples(st.just("bars"), minutes, st.just("")),
        st.tuples(st.just("settle"), spans, st.sampled_from(["missing", "no_trades"])),
    ),
    max_size=14,
)


@settings(deadline=None, max_examples=150)
@given(gap_ops)
def test_gaps_are_disjoint_and_cover_no_stored_bar(ops: list[tuple[str, list[int], str]]) -> None:
    """After any holes, bars and verdicts each minute has the state a dictionary says."""
    db = scratch()
    oracle: dict[int, str] = {}
    stored: set[int] = set()
    for kind, what, state in ops:
        if kind == "bars":
            rows = {MONDAY_MS + m * MINUTE_MS: (1.0, 1.0, 1.0, 1.0, 1.0) for m in what}
            store.upsert_candles(db, BASE, bars_of(rows))
            stored |= rows.keys()
            oracle = {ts: state for ts, state in oracle.items() if ts not in stored}
            continue
        low, high = (MONDAY_MS + m * MINUTE_MS for m in what)
        if kind == "hole":
            if stored & set(range(low, high, MINUTE_MS)):
                continue  # a hole is never where a bar is
            gap_store.record_gaps(db, BASE, [(low, high)], state=state, now_ms=0)
            for ts in range(low, high, MINUTE_MS):
                oracle.setdefault(ts, state)
            continue
        for gap in gap_store.gaps_between(db, BASE, start_ms=low, end_ms=high):
            gap_store.settle_gap(db, BASE, gap, state=state)
            oracle.update(dict.fromkeys(range(gap.start_ms, gap.end_ms, MINUTE_MS), state))
    runs = [(g.start_ms, g.end_ms, g.state) for g in gap_store.gaps(db, BASE)]
    assert all(a[1] <= b[0] for a, b in pairwise(runs))
    found = {ts: state for low, high, state in runs for ts in range(low, high, MINUTE_MS)}
    assert found == oracle
    lost = [ts for ts in sorted(oracle) if oracle[ts] != "no_trades"]
    end = MONDAY_MS + 100 * MINUTE_MS
    assert gap_store.missing_ms(db, BASE, start_ms=0, end_ms=end).tolist() == lost


def test_missing_runs_that_touch_are_one_row(db: Database) -> None:
    """An outage settled minute by minute ends as one gap."""
    for m in range(5):
        hole = (MONDAY_MS + m * MINUTE_MS, MONDAY_MS + (m + 1) * MINUTE_MS)
        gap_store.record_gaps(db, BASE, [hole], state="unknown", now_ms=m)
        (gap,) = gap_store.gaps(db, BASE, state="unknown")
        gap_store.settle_gap(db, BASE, gap, state="missing")
    assert [(g.start_ms, g.end_ms) for g in gap_store.gaps(db, BASE)] == [
        (MONDAY_MS, MONDAY_MS + 5 * MINUTE_MS)
    ]


def resampled(db: Database, until: list[int]) -> None:
    """Chain 5m and 15m from 1m, in steps that end at the given minutes."""
    for minute in until:
        instant = MONDAY_MS + minute * MINUTE_MS
        store.resample_series(db, BASE, "5m", until_ms=instant)
        store.resample_series(db, BASE._replace(timeframe="5m"), "15m", until_ms=instant)


@settings(deadline=None, max_examples=60)
@given(
    cuts=st.lists(st.integers(0, 480), max_size=8),
    holes=st.lists(st.integers(0, 479), max_size=4),
    quiet=st.lists(st.tuples(st.integers(0, 474), st.integers(1, 5)), max_size=3),
    offset=st.integers(0, 20),
)
def test_resampling_in_any_steps_equals_resampling_arrays(
    cuts: list[int], holes: list[int], quiet: list[tuple[int, int]], offset: int
) -> None:
    """Stored derived bars are those of `resample`, whatever calls made them."""
    lost = {m for low, n in quiet for m in range(low, low + n)}
    kept = np.ones(480, np.bool_)
    kept[:offset] = False
    kept[[*holes, *lost]] = False
    truth = picked(TRUTH, kept)
    db = scratch()
    store.upsert_candles(db, BASE, truth)
    covered = [MONDAY_MS + m * MINUTE_MS for m in sorted(lost)]
    runs = [(MONDAY_MS + m * MINUTE_MS, MONDAY_MS + (m + n) * MINUTE_MS) for m, n in quiet]
    gap_store.record_gaps(db, BASE, runs, state="no_trades", now_ms=0)
    resampled(db, [*sorted(cuts), 480])
    end = MONDAY_MS + 480 * MINUTE_MS
    five = store.read_candles(db, BASE._replace(timeframe="5m"), end_ms=end)
    fifteen = store.read_candles(db, BASE._replace(timeframe="15m"), end_ms=end)
    oracle = resample(truth, "5m", covered_ms=np.array(covered, np.int64))
    empty = [ts for ts in range(MONDAY_MS, end, 5 * MINUTE_MS) if is_quiet(ts, covered)]
    assert same(five, oracle)
    assert same(fifteen, resample(oracle, "15m", covered_ms=np.array(empty, np.int64)))


def is_quiet(start_ms: int, covered: list[int]) -> bool:
    """Say whether none of five minutes was traded in."""
    return {start_ms + i * MINUTE_MS for i in range(5)} <= {*covered}


@settings(deadline=None, max_examples=80)
@given(
    order=st.permutations(range(8)),
    stops=st.lists(st.booleans(), min_size=8, max_size=8),
    revised=st.lists(st.integers(0, 479), max_size=3),
)
def test_bars_that_come_late_or_change_reach_the_derived_ones(
    order: list[int], stops: list[bool], revised: list[int]
) -> None:
    """Hours stored in any order, and revisions, end in the derived bars of the final truth."""
    db = scratch()
    end = MONDAY_MS + 480 * MINUTE_MS
    for hour, stop in zip(order, stops, strict=True):
        store.upsert_candles(db, BASE, picked(TRUTH, slice(60 * hour, 60 * hour + 60)))
        if stop:
            resampled(db, [480])
    truth = picked(TRUTH, slice(None))
    for i in revised:
        truth.high[i] += 5.0
        store.upsert_candles(db, BASE, picked(truth, slice(i, i + 1)))
    resampled(db, [480])
    fifteen = store.read_candles(db, BASE._replace(timeframe="15m"), end_ms=end)
    assert same(fifteen, resample(resample(truth, "5m"), "15m"))


LADDER = ("5m", "15m", "1h", "4h", "1d")


@settings(deadline=None, max_examples=25)
@given(
    cuts=st.lists(st.integers(0, 4320), max_size=6),
    holes=st.lists(st.integers(0, 4319), max_size=3),
    offset=st.integers(0, 400),
)
def test_the_database_holds_what_pandas_makes_of_the_minutes(
    cuts: list[int], holes: list[int], offset: int
) -> None:
    """Chained 1m to 1d in any steps; once more, or all of it anew, changes nothing."""
    kept = np.ones(4320, np.bool_)
    kept[:offset] = False
    kept[holes] = False
    truth = picked(THREE_DAYS, kept)
    db = scratch()
    store.upsert_candles(db, BASE, truth)
    for minute in [*sorted(cuts), 4320]:
        resample_symbol(db, BASE, LADDER, until_ms=MONDAY_MS + minute * MINUTE_MS)
    end = MONDAY_MS + 4320 * MINUTE_MS
    for timeframe in LADDER:
        made = store.read_candles(db, BASE._replace(timeframe=timeframe), end_ms=end)
        assert_same(made, pandas_bars(truth, timeframe))
    before = [db.rows(f"SELECT * FROM {name}") for name in ("ohlcv", "series")]
    assert resample_symbol(db, BASE, LADDER, until_ms=end) == 0
    db.run("UPDATE series SET derived_to_ms = NULL")
    assert resample_symbol(db, BASE, LADDER, until_ms=end) > 0
    assert [db.rows(f"SELECT * FROM {name}") for name in ("ohlcv", "series")] == before


def test_a_minute_without_trades_is_covered_and_a_missing_one_is_not(db: Database) -> None:
    """`no_trades` lets a derived bar be made, a whole 5m of it too; `missing` does not."""
    kept = np.ones(60, np.bool_)
    kept[[7, *range(20, 25), 33, 52]] = False
    truth = picked(TRUTH[:60], kept)
    store.upsert_candles(db, BASE, truth)
    at = {m: MONDAY_MS + m * MINUTE_MS for m in range(61)}
    quiet = [(at[7], at[8]), (at[20], at[25]), (at[33], at[34])]
    gap_store.record_gaps(db, BASE, quiet, state="no_trades", now_ms=0)
    gap_store.record_gaps(db, BASE, [(at[52], at[53])], state="missing", now_ms=0)
    resampled(db, [60])
    five = store.read_candles(db, BASE._replace(timeframe="5m"), end_ms=at[60])
    fifteen = store.read_candles(db, BASE._replace(timeframe="15m"), end_ms=at[60])
    assert five.ts_ms.tolist() == [at[m] for m in range(0, 60, 5) if m not in (20, 50)]
    assert fifteen.ts_ms.tolist() == [at[m] for m in (0, 15, 30)]
    second = [15, 16, 17, 18, 19, 25, 26, 27, 28, 29]
    assert fifteen.high[1] == max(TRUTH.high[m] for m in second)
    assert fifteen.close[2] == TRUTH.close[44]


def test_an_imported_bar_wins_over_a_derived_one(db: Database) -> None:
    """Whichever came first, and after a revision below it, the imported values stand."""
    five = BASE._replace(timeframe="5m")
    mine = resample(TRUTH[:30], "5m")
    mine.close[2:4] += 0.25
    first, last = int(mine.ts_ms[2]), int(mine.ts_ms[3])
    store.upsert_candles(db, BASE, TRUTH[:30])
    store.resample_series(db, BASE, "5m", until_ms=MONDAY_MS + 30 * MINUTE_MS)
    store.record_source(db, five, kind="import", name="f", first_ms=first, last_ms=last, n_rows=2)
    store.upsert_candles(db, five, mine[2:4])
    changed = picked(TRUTH, slice(10, 20))
    changed.volume[:] += 1.0
    store.upsert_candles(db, BASE, changed)
    store.resample_series(db, BASE, "5m", until_ms=MONDAY_MS + 30 * MINUTE_MS)
    assert same(store.read_candles(db, five, end_ms=MONDAY_MS + tf_ms("1d")), mine)


@given(
    st.lists(st.integers(1, 4319), max_size=5, unique=True),
    st.permutations(range(6)),
    st.sets(st.integers(0, 4319), max_size=6),
)
@settings(max_examples=25, deadline=None)
def test_pieces_in_any_order_make_the_same_longer_bars(
    cuts: list[int], order: list[int], holes: set[int]
) -> None:
    """Newest first, oldest first or mixed, built after each: all that changed is built anew."""
    kept = np.ones(4320, np.bool_)
    kept[list(holes)] = False
    edges = [0, *sorted(cuts), 4320]
    pieces = [THREE_DAYS[low:high] for low, high in pairwise(edges)]
    db, end = scratch(), MONDAY_MS + 4320 * MINUTE_MS
    for i in (i for i in order if i < len(pieces)):
        mask = np.isin(pieces[i].ts_ms, THREE_DAYS.ts_ms[kept])
        store.upsert_candles(db, BASE, picked(pieces[i], mask))
        resample_symbol(db, BASE, LADDER, until_ms=end)
    for timeframe in LADDER:
        made = store.read_candles(db, BASE._replace(timeframe=timeframe), end_ms=end)
        assert_same(made, pandas_bars(picked(THREE_DAYS, kept), timeframe))
    assert resample_symbol(db, BASE, LADDER, until_ms=end) == 0
