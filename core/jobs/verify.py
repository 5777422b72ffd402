"""The proof an owner can ask for: no decision sees the future, and live equals retro.

On his own candles and with his settings; his database is opened read-only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from core import signals
from core.app import App
from core.candle_law import ALL_TIME_MS
from core.domain import Progress, Series, no_progress
from core.jobs.causality import Difference, Judged, causality_differences, facts_of, when
from core.jobs.judge import Judge
from core.jobs.parity import Compared, Stretch, compared
from core.jobs.scan import lacks_history, scan_input, settled_ms
from core.store import candles as store
from core.store.db import open_reader
from core.timeframe import tf_ms

_AROUND_BARS = 100  # before the window and after the decision, to be spoilt
_SEEK_BARS = 50  # a bar that holds a setup is looked for among so many
_SETUP_SHARE = 0.75  # of the points; the others are any bars
_STRETCH_BARS = 192  # two days of 15m
_POINTS_A_STRETCH = 20
_FIRST_BARS = 50  # of a series that no point and no stretch begins in


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spot:
    """A series that can be scanned, and the opens between which points may lie."""

    series: Series
    first_ms: int
    last_ms: int


def verify(
    app: App, *, n_points: int = 60, seed: int = 7, progress: Progress = no_progress
) -> dict[str, Any]:
    """Check causality at random points and parity on random stretches; writes nothing.

    At each point whatever the decision may not read is changed, emptied and deleted. Each stretch
    is lived through bar by bar in a scratch database, its trades followed to their end, and
    compared with its retro-scan; there is one for every 20 points.
    """
    rng = np.random.default_rng(seed)
    n_stretches = -(-n_points // _POINTS_A_STRETCH)
    with open_reader(app.db.path) as db:
        reading = replace(app, db=db)
        (spots, waiting), judge = _spots(reading), Judge.of(reading)
        points, stretches = [], []
        for i in range(n_points if spots else 0):
            points.append(_point(reading, _one_of(spots, rng), judge, rng))
            progress("decisions", i + 1, n_points)
        for i in range(n_stretches if spots else 0):
            progress("live = retro", i, n_stretches)
            stretches.append(_lived(reading, _one_of(spots, rng), judge, rng))
            progress("live = retro", i + 1, n_stretches)
        integrity = str(db.value("PRAGMA quick_check"))
    return _answer(points, stretches, integrity) | {"not checked": waiting}


def _answer(
    points: Sequence[tuple[int, list[Difference]]],
    stretches: Sequence[tuple[Stretch, Compared]],
    integrity: str,
) -> dict[str, Any]:
    n_same = sum(not differences for _, differences in points)
    names = ("n_rows", "n_same_rows", "n_trades", "n_same_trades")
    rows, same_rows, trades, same_trades = (
        sum(getattr(found, name) for _, found in stretches) for name in names
    )
    differences = [one for _, found in points for one in found]
    differences += [one for _, found in stretches for one in found.differences]
    return {
        "verified": f"decisions {n_same}/{len(points)}, live = retro {same_rows}/{rows} rows,"
        f" trades {same_trades}/{trades}",
        "checked": len(points),
        "same": n_same,
        "candidates_compared": sum(n for n, _ in points),
        "integrity": integrity,
        "ok": bool(points) and not differences and integrity == "ok",
        "stretches": [_stretch_row(*one) for one in stretches],
        "failed": [one.as_row() for one in differences],
    }


def _stretch_row(stretch: Stretch, found: Compared) -> dict[str, Any]:
    return {
        "stretch": f"{stretch.series.symbol} {stretch.series.timeframe}",
        "from": when(stretch.first_ms),
        "to": when(stretch.last_ms + tf_ms(stretch.series.timeframe)),
        "rows": f"{found.n_same_rows}/{found.n_rows}",
        "trades": f"{found.n_same_trades}/{found.n_trades}",
    }


def _spots(app: App) -> tuple[list[_Spot], dict[str, str]]:
    """Return the series that can be scanned, all of their bars settled; and why others cannot."""
    found, waiting = list[_Spot](), dict[str, str]()
    settled = settled_ms(app.db, app.config, app.config.symbols, now_ms=ALL_TIME_MS[1])
    for symbol in app.config.symbols:
        for timeframe in app.config.timeframes:
            series = Series(app.config.exchange.id, symbol, timeframe)
            spot = _spot(app, series, settled[symbol])
            if isinstance(spot, _Spot):
                found.append(spot)
            else:
                waiting[f"{symbol} {timeframe}"] = spot
    return found, waiting


def _spot(app: App, series: Series, settled_until_ms: int) -> _Spot | str:
    row, step = store.series_row(app.db, series), tf_ms(series.timeframe)
    lack = lacks_history(app.db, app.config, series)
    if lack or row is None or row.first_ms is None or row.last_ms is None:
        return lack or "no bars"
    first_ms = row.first_ms + _FIRST_BARS * step
    last_ms = min(row.last_ms, (settled_until_ms // step - 1) * step)
    if first_ms >= last_ms:
        return "too few settled bars, of it or of what it is read with"
    return _Spot(series=series, first_ms=first_ms, last_ms=last_ms)


def _one_of(spots: Sequence[_Spot], rng: np.random.Generator) -> _Spot:
    return spots[int(rng.integers(len(spots)))]


def _drawn(spot: _Spot, rng: np.random.Generator, *, n_after: int = 0) -> int:
    """Draw the open of a bar that has some bars after it, where the series is long enough."""
    step = tf_ms(spot.series.timeframe)
    n = (spot.last_ms - spot.first_ms) // step + 1
    return spot.first_ms + int(rng.integers(max(1, n - n_after))) * step


# --- causality -------------------------------------------------------------------------------


def _point(
    app: App, spot: _Spot, judge: Judge, rng: np.random.Generator
) -> tuple[int, list[Difference]]:
    """Check a random bar; returns how many candidates it holds, and what differs."""
    ts_ms = _drawn(spot, rng)
    if rng.random() < _SETUP_SHARE:
        ts_ms = _with_setup(app, spot, ts_ms, rng)
    return checked_bar(app, spot.series, ts_ms, rng, judged=judge.verdicts)


def _with_setup(app: App, spot: _Spot, ts_ms: int, rng: np.random.Generator) -> int:
    """Return a bar with a setup among those from a bar on; that bar where there is none."""
    step = tf_ms(spot.series.timeframe)
    last_ms = min(spot.last_ms, ts_ms + _SEEK_BARS * step)
    n_bars = (last_ms - ts_ms) // step + 1
    data = scan_input(app.db, app.config, spot.series, n_bars=n_bars, known_ms=last_ms + step)
    found = signals.decided(data, app.config, first_ms=ts_ms, last_ms=last_ms)
    opens = [*found.taken["ts_ms"].tolist(), *found.refused["ts_ms"].tolist()]
    return int(rng.choice(opens)) if opens else ts_ms


def checked_bar(
    app: App,
    series: Series,
    ts_ms: int,
    rng: np.random.Generator,
    *,
    judged: Judged | None = None,
) -> tuple[int, list[Difference]]:
    """Decide one bar as the live scan does, and again with all else spoilt."""
    db, config, step = app.db, app.config, tf_ms(series.timeframe)
    known_ms = ts_ms + step
    alone = scan_input(db, config, series, n_bars=1, known_ms=known_ms)
    wanted = facts_of(alone, config, ts_ms, judged=judged)
    later_ms = known_ms + _AROUND_BARS * step
    around = scan_input(db, config, series, n_bars=2 * _AROUND_BARS, known_ms=later_ms)
    found = causality_differences(around, config, ts_ms, rng, wanted=wanted, judged=judged)
    return sum(facts["decision"] == "candidate" for facts in wanted.values()), found


# --- parity ----------------------------------------------------------------------------------


def _lived(
    app: App, spot: _Spot, judge: Judge, rng: np.random.Generator
) -> tuple[Stretch, Compared]:
    """Compare both ways through a stretch, with whichever models could have spoken in it."""
    stretch, use_model = _stretch(app, spot, rng), judge.bundle is not None
    with TemporaryDirectory(prefix="trader-verify-") as folder:
        return stretch, compared(app, stretch, Path(folder), use_model=use_model)


def _stretch(app: App, spot: _Spot, rng: np.random.Generator) -> Stretch:
    """Draw a stretch; where the candles allow, its trades all come to their end."""
    step = tf_ms(spot.series.timeframe)
    tail = app.config.signals.validity_candles + app.config.execution.max_hold_candles + 1
    first_ms = _drawn(spot, rng, n_after=_STRETCH_BARS + tail)
    last_ms = min(spot.last_ms, first_ms + (_STRETCH_BARS - 1) * step)
    end_ms = min(spot.last_ms, last_ms + tail * step) + step
    return Stretch(series=spot.series, first_ms=first_ms, last_ms=last_ms, end_ms=end_ms)
