"""Looking at the seams of a series: what changes there, and whether it is another market at all."""

from __future__ import annotations

import numpy as np

from core.candle_law import finest_step
from core.domain import Candles, Series
from core.store import candles as store
from core.store import seams as seam_store
from core.store import sources as source_store
from core.store.db import Database
from core.store.seams import Change, Seam
from core.timeframe import tf_ms

ELSEWHERE = "?"  # the origin of files that were found not to be this exchange's
_N_LOOKED_AT = 500  # bars on either side, for the price step
LEAST_COMPARED = 3  # so many equal bars, volume included, are no coincidence


def check_seams(db: Database, series: Series) -> list[Seam]:
    """Write down where a series goes over to another market, and how the prices meet there.

    What an overlap showed earlier (`compare`) is kept. Changes with bars on one side only are none.
    """
    ranges = seam_store.ranges_of(db, series, step_ms=tf_ms(series.timeframe))
    known = {seam.at_ms: seam for seam in seam_store.seams_of(db, series)}
    found: list[Seam] = []
    for change in seam_store.changes(ranges, series.exchange):
        seam = _measured(db, series, change)
        if seam is None:
            continue
        if found and found[-1].at_ms == seam.at_ms:  # there is no bar between the two changes
            seam = seam._replace(before=found.pop().before)
        if seam.before != seam.after:
            older = known.get(seam.at_ms)
            found.append(older if older and older.n_compared else seam)
    if found or known:
        seam_store.replace_seams(db, series, found)
    return found


def _measured(db: Database, series: Series, change: Change) -> Seam | None:
    step = tf_ms(series.timeframe)
    reach = _N_LOOKED_AT * step
    after = store.read_candles(db, series, start_ms=change.at_ms, end_ms=change.at_ms + reach)
    before = store.last_candles(db, series, _N_LOOKED_AT, known_at_ms=change.at_ms)
    if not len(before) or not len(after):
        return None
    return Seam(
        at_ms=int(after.ts_ms[0]),
        before=change.before,
        after=change.after,
        basis_pct=100 * (float(after.open[0]) / float(before.close[-1]) - 1),
        n_compared=0,
        tick_before=_tick(before),
        tick_after=_tick(after),
    )


def _tick(bars: Candles) -> float:
    return finest_step(np.concatenate((bars.open, bars.high, bars.low, bars.close)))


def imported_bars(db: Database, series: Series, *, start_ms: int, end_ms: int) -> Candles:
    """Return the stored bars of a window that an import reaches into, before they are read anew."""
    if not source_store.imports_between(db, series, start_ms=start_ms, end_ms=end_ms):
        return Candles.empty(series.timeframe)
    return store.read_candles(db, series, start_ms=start_ms, end_ms=end_ms)


def record_download(db: Database, series: Series, bars: Candles) -> None:
    """Write down bars of the exchange that come to lie inside an import from elsewhere."""
    if not len(bars):
        return
    first, last = int(bars.ts_ms[0]), int(bars.ts_ms[-1])
    touched = source_store.imports_between(db, series, start_ms=first, end_ms=last + 1)
    if any(source.origin != series.exchange for source in touched):
        store.record_source(
            db,
            series,
            kind="download",
            name=f"{series.exchange} {first}",
            first_ms=first,
            last_ms=last,
            n_rows=len(bars),
        )


def compare(db: Database, series: Series, imported: Candles, fetched: Candles) -> None:
    """Learn from bars that an import and the exchange both have, before the latter replace them.

    All alike: the files hold this exchange's own candles, and there is no seam. Else they are
    another market's, and the seam gets the median step of the closes.
    """
    _, ours, theirs = np.intersect1d(
        imported.ts_ms, fetched.ts_ms, assume_unique=True, return_indices=True
    )
    if len(ours) < LEAST_COMPARED:
        check_seams(db, series)
        return
    first, last = int(imported.ts_ms[ours[0]]), int(imported.ts_ms[ours[-1]])
    pairs = zip(imported.columns(), fetched.columns(), strict=True)
    alike = all(np.array_equal(a[ours], b[theirs]) for a, b in pairs)
    for source in source_store.imports_between(db, series, start_ms=first, end_ms=last + 1):
        if not source.origin:
            source_store.say_origin(db, source, series.exchange if alike else ELSEWHERE)
    seams = check_seams(db, series)
    nearest = min(seams, key=lambda seam: abs(seam.at_ms - last), default=None)
    if alike or nearest is None or nearest.n_compared:
        return
    basis_pct = 100 * float(np.median(fetched.close[theirs] / imported.close[ours]) - 1)
    told = nearest._replace(basis_pct=basis_pct, n_compared=len(ours))
    seam_store.replace_seams(db, series, [told if s == nearest else s for s in seams])
