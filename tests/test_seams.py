"""Where a series goes over to another market's prices it is seen, measured and written down."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.app import App
from core.domain import Candles, Series
from core.jobs import backfill, files, sync
from core.jobs.seams import ELSEWHERE
from core.store.seams import Change, Range, changes, seams_of
from core.timeframe import DAY_MS, MINUTE_MS
from tests.engine_world import FakeExchange, HandClock, fake_engine, part, same, stored
from tests.history_world import DERIVED, SWAP, bits, written
from tests.worlds import MONDAY_MS, picked

BASE = Series("bitget", SWAP, "1m")
SPLIT_MS = MONDAY_MS + DAY_MS
NOW_MS = MONDAY_MS + 2 * DAY_MS
TRUTH = bits(2 * 1440, 31)
ranges = st.lists(
    st.tuples(st.integers(0, 20), st.integers(1, 9), st.sampled_from("ab")).map(
        lambda row: Range(row[0], row[0] + row[1], row[2])
    ),
    max_size=6,
)


def dearer(bars: Candles, by_frac: float) -> Candles:
    """The same market seen elsewhere: prices a little higher, other volumes."""
    there = picked(bars, slice(None))
    for prices in there.columns()[1:5]:
        np.multiply(prices, 1 + by_frac, out=prices)
    there.volume[:] *= 7
    return there


def world(folder: Path, imported: Candles, origin: str = "") -> tuple[App, FakeExchange, HandClock]:
    """An engine that imported a day, on an exchange that has the true two."""
    app, exchange, clock = fake_engine(folder, {SWAP: TRUTH}, **DERIVED)
    files.import_files(app, [written(folder / "in", (SWAP, imported))], origin=origin)
    clock.at_ms = NOW_MS
    return app, exchange, clock


@given(ranges)
def test_changes_are_those_of_the_last_painter(found: list[Range]) -> None:
    """Painting instant by instant, later ranges over earlier ones, changes at the same places."""
    colours = ["h"] * 40
    for one in found:
        colours[one.first_ms : one.end_ms] = [one.origin] * (one.end_ms - one.first_ms)
    want = [
        Change(at, before, after)
        for at, (before, after) in enumerate(zip(["h", *colours], colours, strict=False))
        if before != after
    ]
    assert changes(found, "h") == want


@pytest.mark.parametrize("by", ["sync", "backfill"])
def test_files_of_this_exchange_join_without_a_seam(tmp_path: Path, by: str) -> None:
    """The bars both have are alike, volume too: the files are this exchange's own."""
    app, _, clock = world(tmp_path, part(TRUTH, 0, SPLIT_MS))
    fetch(app, clock, by)
    assert seams_of(app.db, BASE) == []
    assert app.db.value("SELECT origin FROM sources WHERE kind = 'import'") == "bitget"
    assert same(stored(app, SWAP), TRUTH)


@pytest.mark.parametrize("by", ["sync", "backfill"])
@pytest.mark.parametrize("origin", ["", "binance"])
def test_files_of_another_exchange_meet_at_a_seam(tmp_path: Path, by: str, origin: str) -> None:
    """It stands where the first bar of the exchange follows, with the step between the two."""
    app, _, clock = world(tmp_path, dearer(part(TRUTH, 0, SPLIT_MS), 0.004), origin=origin)
    fetch(app, clock, by)
    (seam,) = seams_of(app.db, BASE)
    assert (seam.before, seam.after) == (origin or ELSEWHERE, "bitget")
    assert 0 <= SPLIT_MS - seam.at_ms <= 5 * MINUTE_MS  # bars that both had are the exchange's now
    assert seam.n_compared >= 3
    assert seam.basis_pct == pytest.approx(100 * (1 / 1.004 - 1), rel=1e-9)
    for minute in (1, 2, 3, 10):  # looking again changes nothing
        clock.at_ms = NOW_MS + minute * MINUTE_MS
        sync.sync_all(app, now_ms=clock.at_ms)
        assert seams_of(app.db, BASE) == [seam]


def fetch(app: App, clock: HandClock, by: str) -> None:
    """Bring in what the import lacks."""
    if by == "sync":
        sync.sync_all(app, now_ms=clock.at_ms)
    else:
        backfill.backfill(app, symbols=[SWAP], start_ms=MONDAY_MS, end_ms=None)


def test_what_a_download_fills_inside_foreign_files_has_two_seams(tmp_path: Path) -> None:
    """A hole of an import filled by the exchange: prices change before it and after it."""
    hole = (MONDAY_MS + 500 * MINUTE_MS, MONDAY_MS + 700 * MINUTE_MS)
    kept = (TRUTH.ts_ms < hole[0]) | (TRUTH.ts_ms >= hole[1])
    app, _, clock = world(tmp_path, dearer(picked(TRUTH, kept), 0.004), origin="binance")
    fetch(app, clock, "backfill")
    into, out_of = seams_of(app.db, BASE)
    assert (into.before, into.after) == (out_of.after, out_of.before) == ("binance", "bitget")
    assert into.at_ms == pytest.approx(hole[0], abs=5 * MINUTE_MS)
    assert out_of.at_ms == pytest.approx(hole[1], abs=5 * MINUTE_MS)


def test_two_files_of_different_exchanges_meet_at_a_seam(tmp_path: Path) -> None:
    """Also without any download; the finest price step on either side is told."""
    app, _, _ = world(tmp_path, part(TRUTH, 0, SPLIT_MS), origin="binance")
    coarse = picked(part(TRUTH, SPLIT_MS, NOW_MS), slice(None))
    for column in coarse.columns()[1:5]:
        np.round(column, 1, out=column)
    low, high = (np.minimum(coarse.open, coarse.close), np.maximum(coarse.open, coarse.close))
    np.minimum(coarse.low, low, out=coarse.low)
    np.maximum(coarse.high, high, out=coarse.high)
    files.import_files(app, [written(tmp_path / "more", (SWAP, coarse), year=2025)], origin="okx")
    (seam,) = seams_of(app.db, BASE)
    assert (seam.at_ms, seam.before, seam.after) == (SPLIT_MS, "binance", "okx")
    assert seam.tick_before < seam.tick_after == pytest.approx(0.1)
    assert seam.n_compared == 0
