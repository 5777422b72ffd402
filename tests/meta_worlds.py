"""Worlds for the laws of the meta-model: their truth is known, so every claim can be checked.

Candidates drawn straight into a database, with an edge of known size or none; and continuous walks
that go through the real retro-scan, where no plan is worth anything before costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from core import features as feature_law
from core.app import App
from core.config import Config
from core.config_file import load_config
from core.domain import Bools, Floats, Ints, Series
from core.jobs import files, learning, retro
from core.store import candles as candle_store
from core.store import models, open_database
from core.store.signals import insert_signal, record_strategy
from core.timeframe import DAY_MS
from tests.candidate_world import DRIVER, START_MS, STEP_MS, YAML, World, candidate
from tests.engine_world import opened, write_config
from tests.worlds import MONDAY_MS, walk

Truth = Callable[[Floats, Floats], Floats]
"""From features (n, f) and the place in time (n,) in [0, 1] to the chance of a win (n,)."""

NO_FLOOR_PCT = -50.0  # of EV: every limit may be tried, which is where false proofs could arise
_STATE_ABOVE = 0.5244  # of a standard normal: 30 % lie above it


# --- candidates of a known truth ---------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What decides a world of candidates; a win pays 1 R, a loss costs 1 R, `cost_r` is paid.

    `copies` candidates of a symbol are decided at once, look alike and share their luck.
    `together` is the correlation of the luck of pairs that decide at the same instant. `block`
    above 0 deals each symbol's outcomes out anew, in runs of so many.
    """

    n: int
    seed: int
    truth: Truth
    cost_r: float = 0.0
    n_symbols: int = 2
    copies: int = 1
    together: float = 0.0
    block: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A world with what is true of it: each candidate's chance of a win by its row id less 1."""

    world: World
    spec: Spec
    p: Floats

    @property
    def value_r(self) -> Floats:
        """What each candidate is worth, net, in R."""
        return 2 * self.p - 1 - self.spec.cost_r


def fair(p: float) -> Truth:
    """Every candidate wins with the same chance: there is nothing to learn."""
    return lambda features, _: np.full(len(features), p)


def state(features: Floats) -> Bools:
    """Say which candidates are in the state that three in ten are in, and that can be seen."""
    return np.asarray(features[:, DRIVER] > _STATE_ABOVE)


def in_state(p: float, *, otherwise: float, ends: float = 1.0) -> Truth:
    """The state wins with chance `p`, until this share of the time is over."""
    return lambda features, at: np.where(state(features) & (at < ends), p, otherwise)


def known_world(folder: Path, spec: Spec) -> Known:
    """Draw the candidates of a world and store them; one in eight never fills."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(YAML)
    config, rng = load_config(path), np.random.default_rng(spec.seed)
    instant, symbol, event = _places(spec)
    features = rng.normal(size=(spec.n, len(feature_law.NAMES)))
    if spec.copies > 1:
        features = features[event] + 0.1 * rng.normal(size=features.shape)
    p = spec.truth(features, instant / max(1, int(instant.max())))
    won = _luck(spec, rng, instant, event) < p
    if spec.block:
        won = _dealt_anew(won, symbol, block=spec.block, rng=rng)
    filled = (rng.random(spec.n) < 7 / 8)[event]
    db = open_database(folder / "data" / "ohlcv.db")
    db.rows("PRAGMA synchronous = OFF")
    with db.write():
        strategy = record_strategy(db, config, now_ms=START_MS)
        for i in range(spec.n):
            row = candidate(
                i,
                strategy,
                p_mart=0.5,
                won=bool(won[i]),
                filled=bool(filled[i]),
                place=(f"{'ABCDEF'[symbol[i]]}/USDT", START_MS + int(instant[i])),
                cost_r=spec.cost_r,
            )
            insert_signal(db, row, features[i], version=feature_law.VERSION)
    now_ms = START_MS + int(instant.max()) + 40 * DAY_MS
    world = World(
        db=db, config=config, config_path=path, models_dir=folder / "models", now_ms=now_ms
    )
    return Known(world=world, spec=spec, p=p)


def _places(spec: Spec) -> tuple[Ints, Ints, Ints]:
    """Return instant, symbol and event of each candidate; copies are one event."""
    i = np.arange(spec.n)
    event = i // spec.copies
    symbol = event % spec.n_symbols
    instant = (event // spec.n_symbols) * spec.n_symbols * spec.copies * STEP_MS
    return instant, symbol, event


def _luck(spec: Spec, rng: np.random.Generator, instant: Ints, event: Ints) -> Floats:
    """Return a uniform draw for each candidate, shared by copies, related between pairs."""
    own = rng.normal(size=spec.n)[event]
    common = rng.normal(size=spec.n)[np.unique(instant, return_inverse=True)[1]]
    mixed = math.sqrt(spec.together) * common + math.sqrt(1 - spec.together) * own
    return np.array([NormalDist().cdf(x) for x in mixed.tolist()])


def _dealt_anew(won: Bools, symbol: Ints, *, block: int, rng: np.random.Generator) -> Bools:
    out = won.copy()
    for name in np.unique(symbol):
        mine = np.flatnonzero(symbol == name)
        runs = np.array_split(mine, max(1, len(mine) // block))
        order = rng.permutation(len(runs))
        out[mine] = won[np.concatenate([runs[k] for k in order])]
    return out


# --- walks through the whole engine ------------------------------------------------------------

_WALK_DAYS = 100
_WALK_SYMBOLS = ("A/USDT:USDT", "B/USDT:USDT")
_SHARED_BYTES = 77  # of 128 a minute: pairs correlated by .6
FREE = {"fees": {"maker_pct": 0, "taker_pct": 0, "funding_pct_8h": 0}, "slippage_pct": 0}


def walked_engine(folder: Path, seed: int, **signals: Any) -> App:
    """Scan two related continuous walks at 15m and 1h; some 1000 trades close in 100 days.

    A day moves by 1.9 %; targets of .2 % count, so that hardly a plan is refused.
    """
    rng, n = np.random.default_rng([seed, 41]), _WALK_DAYS * 1440
    beside = np.frombuffer(rng.bytes(_SHARED_BYTES * n), np.uint8).reshape(n, _SHARED_BYTES)
    settings: dict[str, Any] = {
        "symbols": list(_WALK_SYMBOLS),
        "timeframes": ["15m", "1h"],
        "signals": {"min_tp_net_pct": 0.2, **signals},
    }
    app = opened(write_config(folder, **settings))
    for symbol in _WALK_SYMBOLS:
        series = Series(app.config.exchange.id, symbol, "1m")
        bars = walk(rng, n, start_ticks=1 << 16, tick=2.0**-6, beside=beside)
        candle_store.upsert_candles(app.db, series, bars)
        row = candle_store.series_row(app.db, series)
        assert row is not None
        files.finish_import(app, row)
    retro.retro_scan(app, start_ms=MONDAY_MS, end_ms=walk_end_ms(), workers=1)
    return app


def walk_end_ms() -> int:
    """Return when the walks end."""
    return MONDAY_MS + _WALK_DAYS * DAY_MS


def world_of(app: App) -> World:
    """Return an engine's world as the laws of learning want it."""
    return World(
        db=app.db,
        config=app.config,
        config_path=app.config_path,
        models_dir=app.models_dir,
        now_ms=walk_end_ms(),
    )


# --- what was found in a world -----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What learning from a world came to: a draft, its out-of-fold figures, its root findings.

    `ev` and `p` are what the tuner found by expected value and by probability; `ev` without the
    owner's floor where `Spec` was tuned so.
    """

    bundle: str
    lift: dict[str, Any]
    ev: dict[str, Any]
    p: dict[str, Any]

    @property
    def auc_gain(self) -> float:
        """The AUC of the raw out-of-fold scores less that of the coin flip."""
        return float(self.lift["auc_raw"] - self.lift["auc_mart"])

    @property
    def lift_covers_0(self) -> bool:
        """Whether the interval of the best 30 % over the rest holds what is true of nothing."""
        _, low, high = self.lift["lift_30"]["mean_r_over_rest"]
        return bool(low <= 0 <= high)


def learn(world: World, *, floor_pct: float = 0.0, target_pct: float = 50.0) -> Found:
    """Train and calibrate, then ask the tuner in both modes what can be proven."""
    learning.train(world.db, world.config, **world.places)
    bundle = str(learning.calibrate(world.db, world.config, **world.places)["bundle"])
    config = _gated(world.config, min_ev_pct=floor_pct, target_winrate_pct=target_pct)
    ev, p = (
        learning.tune(world.db, config, **world.all_places, mode=mode, dry_run=True)
        for mode in ("ev", "p")
    )
    return Found(bundle=bundle, lift=learning.lift_report(world.db, bundle), ev=ev, p=p)


def _gated(config: Config, **gating: float) -> Config:
    meta = config.models.meta
    changed = meta.model_copy(update={"gating": meta.gating.model_copy(update=gating)})
    models_section = config.models.model_copy(update={"meta": changed})
    return config.model_copy(update={"models": models_section})


def root(report: dict[str, Any]) -> dict[str, Any]:
    """Return the tuner's finding for the whole."""
    return dict(report["cells"]["* *"])


def passed(world: World, bundle: str, report: dict[str, Any]) -> tuple[Ints, Ints]:
    """Return the row numbers of all scored candidates, and of those above the certified limit."""
    column = "ev_lo_pct" if report["mode"] == "ev" else "p"
    rows = [row for row in models.scores_of(world.db, bundle) if row[column] is not None]
    ids = np.array([row["signal_id"] - 1 for row in rows], np.int64)
    score = np.array([row[column] for row in rows])
    return ids, ids[score >= root(report)["value"]]


def most_by_luck(n: int, share: float) -> int:
    """Return the most of n that a true share exceeds in under 1 % of all cases (binomial)."""
    tail, k = 1.0, -1
    while tail >= 0.01:
        k += 1
        tail -= math.comb(n, k) * share**k * (1 - share) ** (n - k)
    return k
