"""Every decision, figure and word is, to the last bit, what plain Python makes of the words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.config import Config, config_from
from core.domain import Candidate, Candles, Market, Rejection
from core.resample import resample
from core.signals import ScanInput, scan
from core.timeframe import higher_timeframes
from tests.scan_oracle import oracle_scan
from tests.worlds import MONDAY_MS, market_context, picked, random_candles, scan_input

DATA = Path(__file__).parents[2] / "shared" / "data" / "ohlcv"
ALWAYS_MS = 2**62
SMALL = {"piv_window": 3, "anchors_to_consider": 12, "min_impulse_atr": 1.0}
PLAN = ("entry", "stop", "tp1", "tp2", "atr", "leverage", "risk_pct", "notional_usd", "cost_r")
SPOT = Market(symbol="AAA/USDT", kind="spot", tick=0.0, fallback=True)


def as_candidate(found: Candidate) -> dict[str, Any]:
    """What the engine says of a candidate, as the oracle says it."""
    plan = found.plan
    return {
        "setup": found.setup.value,
        "side": int(plan.side),
        **{name: getattr(found, name) for name in ("p0_ms", "p1_ms", "ts_ms", "decided_ms")},
        **{name: getattr(plan, name) for name in (*PLAN, "liquidation", "p_mart")},
        "regime": found.regime,
        "rationale": found.rationale,
        "features": [repr(x) for x in found.features.tolist()],
    }


def as_rejection(found: Rejection) -> dict[str, Any]:
    """What the engine says of a refusal, as the oracle says it."""
    names = ("p1_ms", "ts_ms", "reason", "detail")
    said = {name: getattr(found, name) for name in names}
    return {"setup": found.setup.value, "side": int(found.side), **said}


def assert_equal_to_the_oracle(data: ScanInput, config: Config, *, n_taken: int) -> set[str]:
    """Compare every finding in order; returns the reasons that were seen."""
    result = scan(data, config, first_ms=0, last_ms=ALWAYS_MS)
    taken, refused = oracle_scan(data, config)
    assert len(result.candidates) == len(taken) >= n_taken
    assert len(result.rejections) == len(refused)
    for ours, theirs in zip(result.candidates, taken, strict=True):
        theirs["features"] = [repr(x) for x in theirs["features"]]
        said = as_candidate(ours)
        assert said == {name: theirs[name] for name in said}
    for declined, expected in zip(result.rejections, refused, strict=True):
        words = as_rejection(declined)
        assert words == {name: expected[name] for name in words}
    return {str(found["reason"]) for found in refused}


def crooked(n: int, seed: int) -> Candles:
    """Bars whose prices and volumes need every bit, some of them missing, some without volume."""
    bars = random_candles(n, seed)
    for column in bars.columns()[1:]:
        np.multiply(column, np.pi / 3, out=column)
    bars.volume[:: 1 + seed % 3] = 0.0
    keep = np.ones(n, np.bool_)
    keep[n // 3 : n // 3 + 400] = False
    return picked(bars, keep)


@pytest.mark.parametrize("seed", [1, 2])
def test_exact_prices(seed: int) -> None:
    """On a tick that is a power of two, with a leader and holes."""
    missing = MONDAY_MS + 60_000 * np.array([9_000, 9_001, 21_123], dtype=np.int64)
    leader = random_candles(30_000, seed=seed + 50)
    base = random_candles(36_000, seed=seed)
    beside = market_context(base, seed)
    seams = MONDAY_MS + 60_000 * np.array([15_000, 30_007], dtype=np.int64)
    data = scan_input(base, leader_base=leader, missing_ms=missing, seams_ms=seams, context=beside)
    signals = {"lookback_candles": 80, "min_tp_net_pct": 0.5, "fibo": SMALL}
    seen = assert_equal_to_the_oracle(data, config_from({"signals": signals}), n_taken=150)
    assert seen >= {"hole", "seam", "entry_passed", "tp_net"}


@pytest.mark.parametrize(("seed", "timeframe"), [(3, "15m"), (4, "5m"), (5, "1h")])
def test_crooked_prices(seed: int, timeframe: str) -> None:
    """Prices of every bit, a made-up tick, bars that are absent or traded nothing."""
    data = scan_input(crooked(24_000, seed), timeframe, market=SPOT)
    signals = {"lookback_candles": 120, "min_tp_net_pct": 0.1, "fibo": SMALL, "atr_mult_sl": 0.05}
    config = config_from({"signals": signals, "risk": {"spot_long_only": timeframe == "1h"}})
    seen = assert_equal_to_the_oracle(data, config, n_taken=20)
    assert ("spot_long_only" in seen) == (timeframe == "1h")


def test_without_base_candles_and_without_room() -> None:
    """The window's own bars stand in for base candles; refusals by noise, order and size too."""
    data = scan_input(crooked(24_000, 7), "15m", market=SPOT)
    bare = ScanInput(
        series=data.series,
        bars=data.bars,
        higher=data.higher,
        base=Candles.empty("1m"),
        leader=data.bars[:900],
        market=Market(symbol="AAA/USDT", kind="swap", tick=50.0),
        missing_ms=data.missing_ms,
    )
    signals = {"lookback_candles": 90, "min_tp_net_pct": 0, "fibo": SMALL, "avwap": {"use": False}}
    limits: dict[str, Any] = {**signals, "setups": ["limit"]}
    near = config_from({"signals": {**limits, "fibo": {**SMALL, "entry_level": 0.9}}})
    assert assert_equal_to_the_oracle(bare, near, n_taken=0) >= {"noise", "order"}
    wild = scan_input(random_candles(6_000, seed=8, start_price=900))
    far = config_from(
        {"signals": {**limits, "atr_mult_sl": 20.0}, "risk": {"liquidation_buffer_pct": 45}}
    )
    assert "size" in assert_equal_to_the_oracle(wild, far, n_taken=0)


@pytest.mark.skipif(not DATA.is_dir(), reason="no recorded candles beside the project")
def test_a_recorded_year() -> None:
    """All events of a real pair and year, with the shipped settings."""
    parquet = pytest.importorskip("pyarrow.parquet")
    names = ["timestamp", "open", "high", "low", "close", "volume"]

    def recorded(symbol: str) -> Candles:
        table = parquet.read_table(DATA / f"{symbol}_USDT-1m-2021.parquet", columns=names)
        return Candles.of_matrix("1m", np.column_stack([table[name].to_numpy() for name in names]))

    base, step = recorded("ETH"), 60_000
    whole = np.arange(base.ts_ms[0], base.ts_ms[-1] + step, step)
    first, second = higher_timeframes("15m")
    data = scan_input(base, market=SPOT, missing_ms=np.setdiff1d(whole, base.ts_ms))
    assert data.higher[0].timeframe == first
    assert data.higher[1].timeframe == second
    with_leader = ScanInput(
        series=data.series,
        bars=data.bars,
        higher=data.higher,
        base=base,
        leader=resample(recorded("BTC"), "15m"),
        market=SPOT,
        missing_ms=data.missing_ms,
    )
    seen = assert_equal_to_the_oracle(with_leader, Config(), n_taken=2_800)
    assert seen >= {"hole", "entry_passed", "tp_net"}
