"""What the meta-model costs: features, training, one candidate's score, and retraining beside work.

The score of one candidate (probability, low end, expected value; not the reasons) stands beside
XGBoost's own `inplace_predict` of the same model in the same run.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import yard
from core import features, signals
from core.config import Config, config_from
from core.domain import Market
from core.jobs.training import folds_of
from core.ml import Bundle, model
from core.ml.calibration import Calibration, told_forward
from core.ml.sample import Sample
from core.resample import resample
from core.timeframe import DAY_MS, HOUR_MS, higher_timeframes

N_FEATURE_ROWS = 50_000
N_ROWS, N_CALLS, N_BATCHES = 10_000, 200, 15
N_DAYS = 400


def tables() -> list[yard.Table]:
    """Measure, and return the table."""
    sample = _sample(np.random.default_rng(1))
    quiet_s = yard.median_s(lambda: _trained(sample))
    busy_s = _beside_a_busy_core(lambda: _trained(sample))
    bundle = _bundle(sample)
    rows = [
        _features(),
        {
            "figure": "walk-forward training of 10 000 candidates",
            "ours": f"{quiet_s:.2f} s ({len(_folds(sample))} folds, 4 parameter sets)",
            "yardstick": "",
            "ratio": "",
            "beside": "",
        },
        _scoring(bundle, sample),
        {
            "figure": "the same training beside a busy core",
            "ours": f"{busy_s:.2f} s",
            "yardstick": f"{quiet_s:.2f} s",
            "ratio": f"{busy_s / quiet_s:.2f}x the time",
            "beside": "the same, quiet",
        },
    ]
    return [yard.Table("the meta-model", rows)]


def _features() -> dict[str, str]:
    """Features of 50 000 decisions on generated minutes, repeated where there are fewer."""
    config, base = config_from({"signals": {"min_tp_net_pct": 0.2}}), yard.candles(N_DAYS)
    first, second = higher_timeframes("15m")
    data = signals.ScanInput(
        series=yard.SERIES._replace(timeframe="15m"),
        bars=resample(base, "15m"),
        higher=(resample(base, first), resample(base, second)),
        base=base,
        leader=resample(base, "15m"),
        market=Market(symbol=yard.SERIES.symbol, kind="swap", tick=0.1),
        missing_ms=base.ts_ms[:0],
    )
    taken = signals.decided(data, config, first_ms=0, last_ms=1 << 60).taken
    rows = np.resize(taken, N_FEATURE_ROWS)
    took_s = yard.median_s(lambda: features.compute(rows, data, config))
    return {
        "figure": "features of 50 000 candidates",
        "ours": f"{N_FEATURE_ROWS / took_s:,.0f} candidates/s ({took_s:.2f} s)",
        "yardstick": "",
        "ratio": "",
        "beside": "",
    }


def _sample(rng: np.random.Generator) -> Sample:
    """Ten thousand candidates of five pairs, one an hour and pair, some worth more than others."""
    n = N_ROWS
    known = rng.normal(size=(n, len(features.NAMES)))
    p_mart = rng.uniform(0.3, 0.6, n)
    won = rng.random(n) < p_mart + 0.05 * known[:, 5]
    t0 = yard.START_MS + np.arange(n, dtype=np.int64) // 5 * 5 * HOUR_MS
    gross = np.where(won, 1 / p_mart - 1, -1.0)
    return Sample(
        ids=np.arange(n, dtype=np.int64),
        symbol=tuple("ABCDE"[i % 5] for i in range(n)),
        timeframe=("1h",) * n,
        regime=("trend/vol_low",) * n,
        t0_ms=t0,
        t1_ms=t0 + rng.integers(2, 40, n) * HOUR_MS,
        known_ms=t0 + 120 * HOUR_MS,
        closed=np.ones(n, bool),
        r=gross - 0.05,
        gross_r=gross,
        p_mart=p_mart,
        cost_r=np.full(n, 0.05),
        entry=np.full(n, 100.0),
        stop=np.full(n, 98.0),
        tp1=98.0 + 2 / p_mart,
        features=known,
    )


def _folds(sample: Sample) -> list[Any]:
    found = folds_of(sample, recent_ms=365 * DAY_MS, per_block=50)
    return [fold for fold in found if len(fold.train) >= 50 and len(fold.test)]


def _trained(sample: Sample) -> tuple[Any, np.ndarray, np.ndarray]:
    """Fit every fold with every parameter set, score its block; returns the last model and both."""
    p_raw, cutoff = np.full(len(sample), np.nan), np.zeros(len(sample), np.int64)
    booster = None
    for fold in _folds(sample):
        boosters = model.fits(
            sample.features[fold.train],
            sample.won[fold.train],
            weight=sample.weight(fold.train),
            p_mart=sample.p_mart[fold.train],
            sets=model.PARAMETER_SETS,
            seed=1,
        )
        for booster in boosters:
            told = model.predict(booster, sample.features[fold.test], sample.p_mart[fold.test])
        p_raw[fold.test], cutoff[fold.test] = told, fold.cutoff_ms
    return booster, p_raw, cutoff


def _bundle(sample: Sample) -> Bundle:
    booster, p_raw, cutoff = _trained(sample)
    calibration: Calibration | None = told_forward(
        sample,
        p_raw,
        cutoff,
        method="auto",
        win_frac=Config().execution.tp1_fraction,
        n_min=50,
        prospect=sample.prospect(),
    ).final
    return Bundle(
        id="bench",
        strategy_id="bench",
        manifest={},
        data_until_ms=0,
        booster=booster,
        calibration=calibration,
        thresholds={},
    )


def _scoring(bundle: Bundle, sample: Sample) -> dict[str, str]:
    """One calibrated candidate beside the bare prediction: the best of batches taken in turn.

    The best, since both take a tenth of a millisecond and whatever else runs only adds to it.
    """
    one = sample.of(np.array([N_ROWS // 2]))
    prospect, row = one.prospect(), one.features
    ours, bare = [], []
    for _ in range(N_BATCHES):
        ours.append(_per_call(lambda: bundle.told(row, one.p_mart, prospect=prospect)))
        bare.append(_per_call(lambda: bundle.booster.inplace_predict(row)))
    ours_s, bare_s = min(ours), min(bare)
    return {
        "figure": "one candidate: probability and expected value",
        "ours": f"{ours_s * 1e6:.0f} us",
        "yardstick": f"{bare_s * 1e6:.0f} us",
        "ratio": f"{ours_s / bare_s:.2f}x the time",
        "beside": "Booster.inplace_predict",
    }


def _per_call(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    for _ in range(N_CALLS):
        run()
    return (time.perf_counter() - begun) / N_CALLS


def _beside_a_busy_core(run: Callable[[], object]) -> float:
    """Return the median seconds of a call while one other process computes."""
    other = multiprocessing.get_context("spawn").Process(target=_compute, daemon=True)
    other.start()
    try:
        return yard.median_s(run)
    finally:
        other.terminate()
        other.join()


def _compute() -> None:
    value = 1
    while True:
        value = value * 48271 % 0x7FFFFFFF
