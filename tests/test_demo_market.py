"""The generated markets are what they are sold as: no edge in one, a known one in the other."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from core import candle_files
from core.domain import Candles, Floats
from core.timeframe import DAY_MS, MINUTE_MS
from demo.market import (
    ASSETS,
    SHORT_OUTAGE_MINUTES,
    Asset,
    MarketSpec,
    describe,
    first_passage_p,
    generate,
    planted,
    trend_regimes,
)
from demo.stage import Stage, write_candles

START_MS = 1_735_689_600_000
WORLD = MarketSpec(start_ms=START_MS, days=100, seed=2, quiet_days=40)
WHOLE = replace(WORLD, outages_per_100_days=0.0)
LONE = replace(WHOLE, days=300, seed=5, assets=ASSETS[2:3])


@cache
def market(spec: MarketSpec) -> dict[str, Candles]:
    """Generate each market once per run."""
    return generate(spec)


def z_of_mean(values: Floats) -> float:
    """Return how many standard errors the mean lies from 0."""
    return float(np.mean(values) / (np.std(values) / np.sqrt(len(values))))


def simple_returns(close: Floats, step: int) -> Floats:
    """Return P[t+step]/P[t] - 1 over steps that do not overlap."""
    sampled = close[::step]
    return np.asarray(sampled[1:] / sampled[:-1] - 1)


def passages(
    candles: Candles, up_frac: float, down_frac: float, sides: Floats | None = None
) -> tuple[Floats, Floats, Floats]:
    """Return starts, outcomes and ambiguity of back-to-back trades: target or stop first.

    A trade starts at a minute's close, along `sides` (+1 where not given), and the next starts
    where it ended, so that outcomes are independent. Target and stop in one minute: stopped.
    """
    at, rows = 0, []
    high, low, close = candles.high, candles.low, candles.close
    while True:
        side = 1.0 if sides is None else sides[at]
        if side == 0:
            at += 60
        else:
            target, stop = close[at] * (1 + side * up_frac), close[at] * (1 - side * down_frac)
            top, bottom = max(target, stop), min(target, stop)
            after = slice(at + 1, at + 1 + 10 * 1440)
            over, under = high[after] >= top, low[after] <= bottom
            ends = np.flatnonzero(over | under)
            if len(ends) == 0:
                break
            end = ends[0]
            hit, stopped = (over, under) if side > 0 else (under, over)
            rows.append((at, hit[end] and not stopped[end], hit[end] and stopped[end]))
            at += 1 + int(end)
        if at >= len(candles) - 1:
            break
    starts, wins, both = np.array(rows, dtype=float).T
    return starts, wins, both


@pytest.mark.parametrize("step", [1, 60, 1440])
def test_no_drift_no_mean(step: int) -> None:
    """Without drift the mean simple return is 0, per symbol and for all symbols together."""
    returns = np.stack([simple_returns(c.close, step) for c in market(WHOLE).values()])
    assert returns.shape == (6, -(-100 * 1440 // step) - 1)
    assert all(abs(z_of_mean(row)) < 3 for row in returns)
    assert abs(z_of_mean(returns.mean(axis=0))) < 3


def test_price_not_its_logarithm_is_the_martingale() -> None:
    """Where volatility is huge the mean simple return is still 0 and the mean log return is not."""
    wild = tuple(Asset(f"A{i}/USDT", 1e8, 0.01, 60.0, 0.0, 1.0) for i in range(6))
    spec = replace(WHOLE, days=44, assets=wild)
    closes = [c.close for c in market(spec).values()]
    assert abs(z_of_mean(np.concatenate([simple_returns(c, 1) for c in closes]))) < 3
    assert z_of_mean(np.concatenate([np.diff(np.log(c)) for c in closes])) < -3


@pytest.mark.parametrize(("up_frac", "down_frac"), [(0.006, 0.004), (0.004, 0.012)])
def test_first_passage_without_drift_is_the_ratio_of_distances(
    up_frac: float, down_frac: float
) -> None:
    """On the bars' highs and lows, +a comes before -b with probability b / (a + b)."""
    _, wins, both = passages(market(LONE)["SOL/USDT:USDT"], up_frac, down_frac)
    wanted = down_frac / (up_frac + down_frac)
    assert len(wins) > 4000
    assert both.mean() < 0.005
    error = np.sqrt(wanted * (1 - wanted) / len(wins))
    assert abs(wins.mean() - wanted) < max(3 * error, 0.01)


def test_extremes_are_those_of_a_continuous_path() -> None:
    """Bars of a driftless path have E[(ln H/L)^2] = 4 ln 2 E[r^2], as Parkinson's law says."""
    candles = market(LONE)["SOL/USDT:USDT"]
    spans, moves = np.log(candles.high / candles.low), np.log(candles.close / candles.open)
    ratio = np.mean(spans**2) / np.mean(moves**2)
    assert abs(ratio / (4 * np.log(2)) - 1) < 0.02


def test_the_past_says_nothing_without_drift() -> None:
    """The sign of the last two days does not move the next two days' mean without drift."""
    next_days = []
    for candles in market(WHOLE).values():
        returns = simple_returns(candles.close, 2 * 1440)
        next_days.append(np.sign(returns[:-1]) * returns[1:])
    assert abs(z_of_mean(np.mean(next_days, axis=0))) < 3


def test_trades_along_the_hidden_trend_win_more() -> None:
    """With drift the rate of +1.5 % before -1 % is far above 0.4 along the trend, below against."""
    spec = planted(replace(WHOLE, days=200))
    rates = {}
    for side in (1, -1):
        wins = []
        for symbol, trends in trend_regimes(spec).items():
            sides = side * trends.astype(float)
            wins.append(passages(market(spec)[symbol], 0.015, 0.01, sides)[1])
        rates[side] = np.mean(np.concatenate(wins))
    assert 0.48 < rates[1] < 0.60
    assert 0.22 < rates[-1] < 0.34


def test_trends_can_be_seen_in_past_prices_only_with_drift() -> None:
    """The sign of the last day's move says something of the next hours only with drift."""

    def lift(spec: MarketSpec) -> float:
        rows = []
        for candles in market(spec).values():
            hourly = np.log(candles.close[::60])
            past, ahead = hourly[24:-8] - hourly[:-32], hourly[32:] - hourly[24:-8]
            rows.append(np.sign(past) * ahead / np.std(ahead))
        return float(np.mean(rows))

    spec = replace(WHOLE, days=200)
    assert abs(lift(spec)) < 0.05
    assert lift(planted(spec)) > 0.08


@pytest.mark.parametrize("spec", [WORLD, planted(WORLD)])
def test_bars_are_lawful(spec: MarketSpec) -> None:
    """Bars are ordered in time and price, positive, continuous and on the tick grid."""
    assert len(market(spec)) == 6
    for asset, candles in zip(spec.assets, market(spec).values(), strict=True):
        ts_ms, o, h, low, c, volume = candles.columns()
        assert len(candles) > 99 * 1440
        steps = np.diff(ts_ms)
        assert steps.min() == MINUTE_MS
        assert not np.any(ts_ms % MINUTE_MS)
        assert np.all(h >= np.maximum(o, c))
        assert np.all(low <= np.minimum(o, c))
        assert low.min() > 0
        assert volume.min() > 0
        assert np.array_equal(o[1:][steps == MINUTE_MS], c[:-1][steps == MINUTE_MS])
        for prices in (o, h, low, c):
            ticks = np.rint(prices / asset.tick)
            assert np.array_equal(prices, ticks / round(1 / asset.tick))
        assert np.median(h - low) > 50 * asset.tick


def test_equal_specs_are_bit_identical_and_seeds_differ() -> None:
    """A spec decides every bit; another seed gives another market."""
    spec = replace(WORLD, days=3, seed=9, assets=ASSETS[:2])
    first, again, other = generate(spec), generate(spec), generate(replace(spec, seed=10))
    for symbol, candles in first.items():
        pairs = zip(candles.columns(), again[symbol].columns(), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)
        assert not np.array_equal(candles.close[:1000], other[symbol].close[:1000])


def test_drift_changes_neither_volatility_nor_holes() -> None:
    """Both worlds have the same minutes and, within 2 %, the same volatility."""
    for symbol, plain in market(WORLD).items():
        drifting = market(planted(WORLD))[symbol]
        assert np.array_equal(plain.ts_ms, drifting.ts_ms)
        one, two = (np.std(np.diff(np.log(c.close))) for c in (plain, drifting))
        assert abs(two / one - 1) < 0.02
        assert not np.array_equal(plain.close, drifting.close)


def test_volatility_is_as_quoted() -> None:
    """A symbol's daily volatility is the one quoted, within what one world's weather allows."""
    for asset in WHOLE.assets:
        moves = np.diff(np.log(market(WHOLE)[asset.symbol].close))
        day_pct = 100 * np.std(moves) * np.sqrt(1440)
        assert 0.75 < day_pct / asset.sigma_day_pct < 1.35


def test_volatility_clusters_and_tails_are_fat() -> None:
    """Squared hourly returns are correlated and minutes have fat tails, unlike a plain walk."""
    for candles in market(WHOLE).values():
        minutes = np.diff(np.log(candles.close))
        assert np.mean(minutes**4) / np.mean(minutes**2) ** 2 > 6
        sizes = np.abs(np.diff(np.log(candles.close[::60])))
        assert np.corrcoef(sizes[1:], sizes[:-1])[0, 1] > 0.1


def test_pairs_are_correlated() -> None:
    """Every two symbols' minute returns correlate between 0.4 and 0.9."""
    moves = np.stack([np.diff(np.log(c.close)) for c in market(WHOLE).values()])
    between = np.corrcoef(moves)[np.triu_indices(6, 1)]
    assert len(between) == 15
    assert between.min() > 0.4
    assert between.max() < 0.9


def test_outages_hit_every_symbol_and_leave_the_end_alone() -> None:
    """All symbols lack the same minutes but the least liquid one; the end has one short outage."""
    whole = set(range(START_MS, WORLD.end_ms, MINUTE_MS))
    missing = [whole - set(c.ts_ms.tolist()) for c in market(WORLD).values()]
    common, quiet_from = missing[0], WORLD.end_ms - 40 * DAY_MS
    assert all(other == common for other in missing[:-1])
    early = {t for t in common if t < quiet_from}
    starts = [t for t in early if t - MINUTE_MS not in early]
    assert 1 <= len(starts) <= 6
    assert 20 * len(starts) <= len(early) <= 90 * len(starts)
    assert len(common - early) == SHORT_OUTAGE_MINUTES
    lone = missing[-1] - common
    assert common < missing[-1]
    assert 1 <= len(lone) <= 10
    assert max(lone) < quiet_from


def test_description_states_the_strength() -> None:
    """The figures follow from the spec: 0.8 sigmas of 2.8 % are 2.24 % a day; no drift, a coin."""
    told, plain = describe(planted(WORLD, 0.8)), describe(WORLD)
    assert told["drift_pct_per_day"]["BTC/USDT:USDT"] == pytest.approx(2.24)
    assert told["p_target_opposed"] < 0.35
    assert told["p_target_aligned"] > 0.45
    assert plain["p_target_aligned"] == plain["p_target_opposed"] == pytest.approx(0.4)
    assert 0.5 < told["share_in_trend"] < 0.95


def test_first_passage_follows_the_odds_of_a_biased_coin() -> None:
    """A tilt of ln 3 a unit is a coin with odds 3 to 1: two up before one down is 9/13."""
    assert first_passage_p(2.0, 1.0, np.log(3.0)) == pytest.approx(9 / 13)
    assert first_passage_p(1.0, 2.0, -np.log(3.0)) == pytest.approx(1 - 9 / 13)


@pytest.mark.parametrize(
    ("days", "start_ms", "remedy"), [(0, START_MS, "one day"), (1, 1, "whole minute")]
)
def test_impossible_markets_are_refused(days: int, start_ms: int, remedy: str) -> None:
    """A market without days or off the minute grid is refused with the remedy."""
    with pytest.raises(ValueError, match=remedy):
        MarketSpec(start_ms=start_ms, days=days, seed=1)


def test_history_and_replay_files_are_the_whole_without_overlap(tmp_path: Path) -> None:
    """Written and read again every column is bit-equal, cut at the split and nowhere else."""
    spec = replace(WHOLE, days=2, assets=ASSETS[:2])
    made = generate(spec)
    stage = Stage(
        folder=tmp_path,
        symbols=tuple(made),
        start_ms=START_MS,
        split_ms=START_MS + DAY_MS,
        end_ms=spec.end_ms,
        banner="",
    )
    write_candles(stage, made)
    for symbol, candles in made.items():
        name = candle_files.name_of(symbol, "1m")
        read = [
            bars
            for part in ("history", "replay")
            for file in candle_files.find([tmp_path / part / name])
            for bars in candle_files.read(file)
        ]
        assert [file.timeframe for file in read] == ["1m", "1m"]
        assert len(read[0]) == 1440
        assert int(read[1].ts_ms[0]) == stage.split_ms
        for i, column in enumerate(candles.columns()):
            stored = np.concatenate([bars.columns()[i] for bars in read])
            assert np.array_equal(stored, column)
