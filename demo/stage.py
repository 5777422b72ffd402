"""Setting the demo's stage: folders, configurations, candles, and the history made ready."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core import candle_files
from core.app import App, open_app
from core.config_file import replace_text
from core.domain import Candles
from core.errors import NotEnoughData, UsageError
from core.jobs import files, learning, retro
from core.jobs.lift import lift_report
from core.store import operation
from core.timeframe import DAY_MS
from demo.market import ASSETS, MarketSpec, generate

PLANTED_BANNER = "GENERATED MARKET, EDGE PLANTED"
NULL_BANNER = "GENERATED MARKET, NO EDGE"
REPLAY_BANNER = "REPLAY OF RECORDED CANDLES"
START_MS = 1_735_862_400_000  # 2025-01-03: the replay begins on a Monday, far from training
HISTORY_DAYS, REPLAY_DAYS = 241, 30  # 34 weeks: half a year of it is scored by older models
RECENT_DAYS = 365  # of recorded candles, how much history is scanned and trained on


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One market made ready: its folder, symbols, and where history ends and the replay begins."""

    folder: Path
    symbols: tuple[str, ...]
    start_ms: int
    split_ms: int
    end_ms: int
    banner: str
    seed: int = 0
    drift_sigmas: float | None = None  # None: recorded candles, nothing to generate

    def as_json(self) -> dict[str, Any]:
        """Return plain values, for another process."""
        return {**asdict(self), "folder": str(self.folder)}

    @classmethod
    def of_json(cls, raw: Mapping[str, Any]) -> Stage:
        """Return the stage of `as_json`."""
        return cls(**{**raw, "folder": Path(raw["folder"]), "symbols": tuple(raw["symbols"])})

    @property
    def config_path(self) -> Path:
        """The configuration of this market."""
        return self.folder / "config.yaml"

    @property
    def replay_dir(self) -> Path:
        """The candles that the replay serves."""
        return self.folder / "replay"


_CONFIG = """# Written by the demo: {banner}. A normal configuration; config.yaml explains all keys.
app: {{data_dir: ., db_path: ohlcv.db, timezone: UTC}}
exchange:
  id: replay
  replay: {{path: replay, speed: {speed}}}
symbols: {symbols}
timeframes: {timeframes}
models:
  meta:
    model_path: models/meta_xgb.pkl
    calibration: {{path: models/meta_cal.pkl}}
    gating:
      per_pair_tf: {{}}
backup: {{enabled: false}}
notify: {{console: true, paper_per_day: {paper}}}
"""


def write_config(stage: Stage, *, speed: float, timeframes: Sequence[str], paper: int) -> None:
    """Write the configuration of a market."""
    stage.folder.mkdir(parents=True, exist_ok=True)
    text = _CONFIG.format(
        banner=stage.banner,
        speed=speed,
        symbols=json.dumps(list(stage.symbols)),
        timeframes=json.dumps(list(timeframes)),
        paper=paper,
    )
    replace_text(stage.config_path, text)


def generated_stages(folder: Path, *, seed: int, drift_sigmas: float) -> list[Stage]:
    """Return both generated markets: without an edge, and with one of the given strength."""
    return [
        Stage(
            folder=folder / name,
            symbols=tuple(asset.symbol for asset in ASSETS),
            start_ms=START_MS,
            split_ms=START_MS + HISTORY_DAYS * DAY_MS,
            end_ms=START_MS + (HISTORY_DAYS + REPLAY_DAYS) * DAY_MS,
            banner=banner,
            seed=seed,
            drift_sigmas=strength,
        )
        for name, banner, strength in (
            ("null", NULL_BANNER, 0.0),
            ("planted", PLANTED_BANNER, drift_sigmas),
        )
    ]


def spec_of(stage: Stage) -> MarketSpec:
    """Return what decides a generated market."""
    return MarketSpec(
        start_ms=stage.start_ms,
        days=(stage.end_ms - stage.start_ms) // DAY_MS,
        seed=stage.seed,
        drift_sigmas=stage.drift_sigmas or 0.0,
    )


def write_candles(stage: Stage, market: Mapping[str, Candles]) -> None:
    """Write a market's candles as Parquet: history and replay."""
    for symbol, bars in market.items():
        cut = int(bars.ts_ms.searchsorted(stage.split_ms))
        for name, part in (("history", bars[:cut]), ("replay", bars[cut:])):
            (stage.folder / name).mkdir(parents=True, exist_ok=True)
            candle_files.write(
                stage.folder / name / candle_files.name_of(symbol, bars.timeframe), part
            )


def recorded_stage(folder: Path, data: Path) -> tuple[Stage, list[Path], list[str]]:
    """Return the stage of recorded 1m candles, the files to import, and what is left out and why.

    The last 30 days that the files share are replayed; the rest is imported. Pairs without 1m
    candles in those days are left out.
    """
    files = [file for file in candle_files.find([data]) if file.timeframe == "1m"]
    if not files:
        raise UsageError(f"{data} holds no 1m candles;", remedy="see README, Demo on your own data")
    reach: dict[str, tuple[int, int]] = {}
    for file in files:
        spans = candle_files.spans(file)
        first, last = min(s.first_ms for s in spans), max(s.last_ms for s in spans)
        old = reach.get(file.symbol, (first, last))
        reach[file.symbol] = (min(old[0], first), max(old[1], last))
    end = max(last for _, last in reach.values()) + 60_000
    split = (end - REPLAY_DAYS * DAY_MS) // DAY_MS * DAY_MS
    chosen = tuple(sorted(symbol for symbol, (_, last) in reach.items() if last >= end - DAY_MS))
    left_out = [
        f"{symbol}: its candles end before the last {REPLAY_DAYS} days"
        for symbol in sorted(reach)
        if symbol not in chosen
    ]
    stage = Stage(
        folder=folder,
        symbols=chosen,
        start_ms=min(reach[symbol][0] for symbol in chosen),
        split_ms=split,
        end_ms=end,
        banner=REPLAY_BANNER,
    )
    mine = [file for file in files if file.symbol in chosen]
    stage.replay_dir.mkdir(parents=True, exist_ok=True)
    for symbol in chosen:
        parts = [
            bars
            for file in mine
            if file.symbol == symbol
            for bars in candle_files.read(file, start_ms=split)
        ]
        candle_files.write(stage.replay_dir / candle_files.name_of(symbol, "1m"), joined(parts))
    return stage, [file.path for file in mine], left_out


def joined(parts: Sequence[Candles]) -> Candles:
    """Return the parts of one series as one, in the order given."""
    columns = zip(*(part.columns() for part in parts), strict=True)
    ts_ms, *prices = (np.concatenate(column) for column in columns)
    return Candles(parts[0].timeframe, ts_ms, *prices)


def prepare(stage: Stage, paths: Sequence[Path]) -> dict[str, Any]:
    """Generate, import the history, scan it, follow its trades and train; returns the figures."""
    if stage.drift_sigmas is not None:
        write_candles(stage, generate(spec_of(stage)))
    app = open_app(stage.config_path)
    try:
        with app.db.write():
            operation.set_label(app.db, "banner", stage.banner)
        own = app.config.exchange.id  # the replay goes on with the same market's candles
        rows = files.import_files(app, paths, until_ms=stage.split_ms, origin=own)
        start = max(stage.start_ms, stage.split_ms - RECENT_DAYS * DAY_MS)
        scanned = retro.retro_scan(app, start_ms=start, end_ms=stage.split_ms, workers=1)
        figures = {
            "candles": sum(row["rows"] for row in rows),
            "scan": scanned.as_dict(),
            "books": _books(app),
        }
        return figures | _trained(app, stage.split_ms)
    finally:
        app.close()


def _trained(app: App, now_ms: int) -> dict[str, Any]:
    """Train, calibrate and tune; too little data is a figure too."""
    try:
        model = learning.weekly(
            app.db,
            app.config,
            models_dir=app.models_dir,
            config_path=app.config_path,
            now_ms=now_ms,
        )
    except NotEnoughData as error:
        return {"model": {"missing": str(error)}, "lift": None}
    return {"model": model, "lift": lift_report(app.db, model["train"]["bundle"])}


def _books(app: App) -> dict[str, Any]:
    """Return gross, costs and net of every closed trade, in R."""
    rows = app.db.rows("SELECT gross_r, r_multiple FROM signals WHERE r_multiple IS NOT NULL")
    return {
        "n": len(rows),
        "gross": [gross for gross, _ in rows],
        "net": [net for _, net in rows],
        "cost": [gross - net for gross, net in rows],
    }


def fresh_folder(folder: Path) -> None:
    """Empty the demo's own folder; refuses one that is not its own."""
    marker = folder / ".trader-demo"
    if folder.exists() and any(folder.iterdir()) and not marker.exists():
        raise UsageError(
            f"{folder} is not empty and not the demo's;", remedy="name another --folder"
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    marker.touch()
