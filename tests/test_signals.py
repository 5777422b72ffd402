"""A decision depends on its own window and on nothing else, and declines in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from core import features
from core.config import Config
from core.domain import Candidate, Candles, Floats, Ints, Market, Rejection, Setup, Side
from core.market_context import REACH_MS, MarketContext
from core.signals import NOISE_BARS, ScanInput, ScanResult, scan
from core.timeframe import tf_ms
from tests.worlds import (
    MONDAY_MS,
    mapped,
    market_context,
    picked,
    random_candles,
    scan_input,
    strategy,
)

DATA = Path(__file__).parents[2] / "shared" / "data" / "ohlcv"
LOOKBACK, VALIDITY = 80, 24
ALWAYS_MS = 2**62
SMALL = {"piv_window": 3, "anchors_to_consider": 12, "min_impulse_atr": 2.0}


def both_setups(**signals: object) -> Config:
    """Return settings that find plenty in a short world."""
    settings = {"lookback_candles": LOOKBACK, "validity_candles": VALIDITY, "min_tp_net_pct": 0.5}
    return strategy(fibo=SMALL, **{"setups": ["limit", "reclaim"], **settings, **signals})


@cache
def world() -> ScanInput:
    """60 days of minutes with a leader and a few holes that no bar shows."""
    base, leader = random_candles(86_400, seed=11), random_candles(86_400, seed=12)
    missing = MONDAY_MS + 60_000 * np.array([20_000, 20_001, 55_123], dtype=np.int64)
    beside = market_context(base, seed=13)
    return scan_input(base, leader_base=leader, missing_ms=missing, context=beside)


@cache
def whole() -> ScanResult:
    """Return the scan of the whole world at once."""
    return scan(world(), both_setups(), first_ms=0, last_ms=ALWAYS_MS)


def facts(found: Candidate | Rejection) -> tuple[Any, ...]:
    """All of a finding, comparable bit by bit."""
    values = [getattr(found, field.name) for field in fields(found)]
    return tuple(v.tobytes() if isinstance(v, np.ndarray) else v for v in values)


def findings(result: ScanResult) -> list[Candidate | Rejection]:
    """Return what was taken, then what was declined."""
    return [*result.candidates, *result.rejections]


def facts_by_bar(result: ScanResult) -> dict[int, list[tuple[Any, ...]]]:
    """Return the facts of every finding under the open of its bar."""
    by_bar: dict[int, list[tuple[Any, ...]]] = {}
    for found in findings(result):
        by_bar.setdefault(found.ts_ms, []).append(facts(found))
    return by_bar


def last_known(bars: Candles, instant_ms: int, n_bars: int) -> Candles:
    """Return copies of the last bars closed by an instant."""
    n_known = bars.closed_by(instant_ms)
    return picked(bars, slice(max(0, n_known - n_bars), n_known))


def context_within(context: MarketContext, start_ms: int, end_ms: int) -> MarketContext:
    """Copies of the values known in [start, end], as a live scan reads them."""

    def inside(ts_ms: Ints, values: Floats) -> tuple[Ints, Floats]:
        rows = (ts_ms >= start_ms) & (ts_ms <= end_ms)
        return ts_ms[rows].copy(), values[rows].copy()

    return context.each(inside)


def scaled_after(context: MarketContext, instant_ms: int) -> MarketContext:
    """The same values, those later than an instant half as large again."""
    return context.each(
        lambda ts_ms, values: (ts_ms, np.where(ts_ms > instant_ms, values * 1.5, values))
    )


def windows_of(data: ScanInput, ts_ms: int) -> ScanInput:
    """Copies of exactly what the decision of one bar may read."""
    decided_ms = ts_ms + tf_ms(data.series.timeframe)
    first, second = data.higher
    bars = last_known(data.bars, decided_ms, LOOKBACK)
    missing = data.missing_ms
    return replace(
        data,
        bars=bars,
        higher=(last_known(first, decided_ms, LOOKBACK), last_known(second, decided_ms, LOOKBACK)),
        base=last_known(data.base, decided_ms, NOISE_BARS),
        leader=None if data.leader is None else last_known(data.leader, decided_ms, LOOKBACK),
        missing_ms=missing[(missing >= bars.ts_ms[0]) & (missing < decided_ms)].copy(),
        context=context_within(data.context, ts_ms - REACH_MS, decided_ms),
    )


def sample_bars(data: ScanInput, n_quiet: int = 150) -> list[int]:
    """The opens of all bars with findings, and of some without."""
    busy = sorted(facts_by_bar(whole()))
    quiet = np.setdiff1d(data.bars.ts_ms, busy)
    chosen = np.random.default_rng(3).choice(quiet, n_quiet, replace=False)
    return [*busy, *(int(ts_ms) for ts_ms in chosen)]


def test_the_world_is_rich_enough() -> None:
    """The laws below are only as good as the findings they are tried on."""
    result = whole()
    assert result.n_bars == 5760
    assert result.n_setups == len(result.candidates) + len(result.rejections)
    for setup in Setup:
        for side in Side:
            n = sum(c.setup is setup and c.plan.side is side for c in result.candidates)
            assert n >= 25, (setup, side)
    assert {r.reason for r in result.rejections} >= {"hole", "entry_passed", "tp_net"}


def test_one_window_gives_the_same_bits_as_all_history() -> None:
    """Scanning a bar on copies of its own windows finds exactly what the long scan found there."""
    data, expected = world(), facts_by_bar(whole())
    for ts_ms in sample_bars(data):
        alone = scan(windows_of(data, ts_ms), both_setups(), first_ms=ts_ms, last_ms=ts_ms)
        assert alone.n_bars == 1
        assert facts_by_bar(alone).get(ts_ms, []) == expected.get(ts_ms, [])


def test_ranges_add_up() -> None:
    """Scanning two halves finds what one scan finds, in the same order."""
    data, config = world(), both_setups()
    middle = int(data.bars.ts_ms[2500])
    first = scan(data, config, first_ms=0, last_ms=middle)
    second = scan(data, config, first_ms=middle + 1, last_ms=ALWAYS_MS)
    assert first.n_bars == 2501
    for name in ("candidates", "rejections"):
        parts = [facts(f) for half in (first, second) for f in getattr(half, name)]
        assert parts == [facts(f) for f in getattr(whole(), name)]


def scaled(bars: Candles, rows: slice) -> Candles:
    """Return the bars with some multiplied, volume too."""
    return rewritten(bars, rows, lambda column: column * 1.5)


def emptied(bars: Candles, rows: slice) -> Candles:
    """Return the bars with some NaN."""
    return rewritten(bars, rows, lambda column: np.full_like(column, np.nan))


def deleted(bars: Candles, rows: slice) -> Candles:
    """Return the bars without some."""
    keep = np.ones(len(bars), dtype=bool)
    keep[rows] = False
    return picked(bars, keep)


def rewritten(bars: Candles, rows: slice, change: Callable[[Floats], Floats]) -> Candles:
    """Return the bars with the values, not the opens, of some changed."""
    changed = picked(bars, slice(None))
    for line in changed.columns()[1:]:
        line[rows] = change(line[rows])
    return changed


@pytest.mark.parametrize("damage", [scaled, emptied, deleted])
def test_the_future_changes_nothing(damage: Callable[[Candles, slice], Candles]) -> None:
    """Every candle not closed by the decision may be scaled, emptied or deleted."""
    data, expected = world(), facts_by_bar(whole())
    moments = np.random.default_rng(5).choice(sample_bars(data), 40, replace=False).tolist()
    for ts_ms in moments:
        decided_ms = ts_ms + tf_ms(data.series.timeframe)

        def after(bars: Candles, instant_ms: int = decided_ms) -> Candles:
            return damage(bars, slice(bars.closed_by(instant_ms), None))

        assert data.leader is not None
        future = replace(
            data,
            bars=after(data.bars),
            higher=(after(data.higher[0]), after(data.higher[1])),
            base=after(data.base),
            leader=after(data.leader),
            missing_ms=np.append(data.missing_ms[data.missing_ms < decided_ms], decided_ms),
            context=scaled_after(data.context, decided_ms),
        )
        again = scan(future, both_setups(), first_ms=ts_ms, last_ms=ts_ms)
        assert facts_by_bar(again).get(ts_ms, []) == expected.get(ts_ms, [])


@pytest.mark.parametrize("damage", [scaled, emptied])
def test_what_was_before_the_window_changes_nothing(
    damage: Callable[[Candles, slice], Candles],
) -> None:
    """Candles older than a decision's window may be scaled or emptied."""
    data, expected = world(), facts_by_bar(whole())
    late = [ts_ms for ts_ms in sample_bars(data) if ts_ms > data.bars.ts_ms[LOOKBACK + 100]]
    for ts_ms in np.random.default_rng(6).choice(late, 40, replace=False).tolist():
        decided_ms = ts_ms + tf_ms(data.series.timeframe)

        def before(bars: Candles, n_bars: int = LOOKBACK, instant_ms: int = decided_ms) -> Candles:
            return damage(bars, slice(0, max(0, bars.closed_by(instant_ms) - n_bars)))

        assert data.leader is not None
        past = replace(
            data,
            bars=before(data.bars),
            higher=(before(data.higher[0]), before(data.higher[1])),
            base=before(data.base, NOISE_BARS),
            leader=before(data.leader),
        )
        again = scan(past, both_setups(), first_ms=ts_ms, last_ms=ts_ms)
        assert facts_by_bar(again).get(ts_ms, []) == expected.get(ts_ms, [])


def test_a_candle_inside_the_window_does_change_something() -> None:
    """The two laws before are not kept by deafness: a change inside the window is heard."""
    data, ts_ms = world(), whole().candidates[-1].ts_ms
    i_bar = data.bars.closed_by(ts_ms + tf_ms("15m")) - 1
    louder = replace(data, bars=scaled(data.bars, slice(i_bar - 1, i_bar)))
    again = scan(louder, both_setups(), first_ms=ts_ms, last_ms=ts_ms)
    assert facts_by_bar(again).get(ts_ms, []) != facts_by_bar(whole())[ts_ms]


def test_a_value_beside_the_candles_that_is_known_does_change_something() -> None:
    """Funding, open interest and basis of the past are heard, each in its own features."""
    data, last = world(), whole().candidates[-1]
    names = ("funding_8h_pct", "funding_3d_pct", "basis_pct", "open_interest_change_24h")
    assert not np.isnan(last.features[-4:]).any()
    assert features.NAMES[-4:] == names
    for column, heard in (
        ("funding_frac", {0, 1}),
        ("basis_pct", {2}),
        ("interest_qty", {3}),
    ):
        values = getattr(data.context, column).copy()
        values *= np.linspace(1.0, 2.0, len(values))
        louder = replace(data, context=replace(data.context, **{column: values}))
        again = scan(louder, both_setups(), first_ms=last.ts_ms, last_ms=last.ts_ms)
        found = next(c for c in again.candidates if c.setup is last.setup)
        differs = np.flatnonzero(found.features != last.features)
        assert set(differs - len(features.NAMES) + 4) == heard, column


def test_mirror() -> None:
    """In the mirrored market every plan is the same with sides flipped, to the rounding."""
    base, tick, top = world().base, 0.5, 20_000.0
    config = both_setups(min_tp_net_pct=0)
    plain = scan(scan_input(base), config, first_ms=0, last_ms=ALWAYS_MS).candidates
    flipped_world = scan_input(mapped(base, mirror_at=top))
    flipped = scan(flipped_world, config, first_ms=0, last_ms=ALWAYS_MS).candidates
    assert len(plain) > 300
    pairs = {(c.ts_ms, c.setup, c.plan.side, c.p0_ms, c.p1_ms): c for c in flipped}
    assert len(pairs) == len(plain)
    for candidate in plain:
        plan = candidate.plan
        key = (candidate.ts_ms, candidate.setup, Side(-plan.side), candidate.p0_ms, candidate.p1_ms)
        other = pairs[key].plan
        assert other.atr == plan.atr
        for name in ("entry", "stop", "tp1", "tp2"):
            assert abs(top - getattr(other, name) - getattr(plan, name)) <= tick
        assert pairs[key].p1_ms == candidate.p1_ms


def test_reclaim_needs_the_avwap_and_room() -> None:
    """Asked for where it cannot be had, reclaim is a config error and not silence."""
    for signals in ({"avwap": {"use": False}}, {"lookback_candles": 50, "validity_candles": 48}):
        with pytest.raises(ValidationError, match="reclaim"):
            strategy(setups=["reclaim"], **signals)


def test_reclaim_enters_at_the_close() -> None:
    """A reclaim's entry is the signal close itself, its stop beyond P0."""
    reclaims = [c for c in whole().candidates if c.setup is Setup.RECLAIM]
    assert reclaims
    closes = dict(zip(world().bars.ts_ms.tolist(), world().bars.close.tolist(), strict=True))
    for candidate in reclaims:
        assert candidate.plan.entry == closes[candidate.ts_ms]
        assert "AVWAP" in candidate.rationale


@pytest.mark.skipif(not DATA.is_dir(), reason="no recorded candles beside the project")
def test_recorded_candles() -> None:
    """Real quarters hold plans of both sides in order, and a live window finds the same."""
    parquet = pytest.importorskip("pyarrow.parquet")
    names = ["timestamp", "open", "high", "low", "close", "volume"]
    table = parquet.read_table(DATA / "BTC_USDT-1m-2024.parquet", columns=names)
    rows = np.column_stack([table[name].to_numpy()[:130_000] for name in names])
    market = Market(symbol="BTC/USDT", kind="spot", tick=0.01, fallback=True)
    data = scan_input(Candles.of_matrix("1m", rows), market=market)
    config = strategy(setups=["limit", "reclaim"], lookback_candles=LOOKBACK)
    result = scan(data, config, first_ms=0, last_ms=ALWAYS_MS)
    assert {c.plan.side for c in result.candidates} == set(Side)
    assert len(result.candidates) > 200
    for candidate in result.candidates[::20]:
        ts_ms = candidate.ts_ms
        alone = scan(windows_of(data, ts_ms), config, first_ms=ts_ms, last_ms=ts_ms)
        assert facts(candidate) in [facts(c) for c in alone.candidates]
