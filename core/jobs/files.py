"""Candle files into the database, and out again."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from core import candle_files, funding_files
from core.app import App, wall_ms
from core.candle_files import CandleFile
from core.candle_law import ALL_TIME_MS
from core.domain import Progress, Series, no_progress
from core.errors import DataError
from core.jobs.export import export_files
from core.jobs.market_stats import import_funding
from core.jobs.readings import write_bars
from core.jobs.seams import check_seams
from core.jobs.sync import derived_timeframes, resample_symbol
from core.store import candles as store
from core.store import gaps as gap_store
from core.store import sources as source_store
from core.store.sources import Mark
from core.timeframe import DAY_MS, MINUTE_MS, tf_ms

__all__ = ["export_files", "finish_import", "import_files"]

ALREADY = "already imported"
_ENOUGH_BARS = 12  # so many, and all on a coarser grid, are no coincidence
Window = tuple[int, int]


@dataclass(slots=True)
class _Tally:
    """What was read of one series of a file: rows, faults, range, and the step its opens keep."""

    n_rows: int = 0
    fallen: Counter[str] = field(default_factory=Counter)
    first_ms: int | None = None
    last_ms: int | None = None
    apart_ms: int = 0

    def add(self, part: candle_files.Part) -> None:
        """Count one part."""
        self.fallen.update(part.fallen)
        if not len(part.bars):
            return
        ts_ms = part.bars.ts_ms
        first, last = int(ts_ms[0]), int(ts_ms[-1])
        origin = first if self.first_ms is None else self.first_ms
        self.apart_ms = int(np.gcd.reduce(np.append(ts_ms - origin, self.apart_ms)))
        self.n_rows += len(part.bars)
        self.first_ms = min(origin, first)
        self.last_ms = last if self.last_ms is None else max(self.last_ms, last)

    @property
    def refused(self) -> dict[str, int]:
        """Rows that are no lawful bars, by reason; those outside the window are not refused."""
        return {why: n for why, n in self.fallen.items() if why != "outside"}


Found = Mapping[str, _Tally]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """A file as it was when it was looked at; `found` is None where it need not be read."""

    file: CandleFile
    window: Window
    state: str
    found: Found | None


def import_files(
    app: App,
    paths: Sequence[Path],
    *,
    start_ms: int | None = None,
    until_ms: int | None = None,
    origin: str = "",
    market: str | None = None,
    progress: Progress = no_progress,
) -> list[dict[str, Any]]:
    """Store every candle of some Parquet or CSV files, and what is made from them.

    All files are read through before the first bar is stored, so that an unusable one is a
    DataError and nothing else. With a window, only bars that open in [start_ms, until_ms).
    `origin` is the exchange the candles were traded on, where the files do not say; `market`
    ('spot', 'swap') is what an archive's files hold, where their path does not say.

    Repeating it changes nothing: a file read to its end is skipped, an interrupted one goes on
    after its last stored chunk. Holes between an import's bars are `missing` at once. Returns a
    row per file (per series of a file of many): rows read, rows new, rows refused by reason, first
    and last bar.
    """
    first, last = ALL_TIME_MS
    window = (first if start_ms is None else start_ms, last if until_ms is None else until_ms)
    files = candle_files.find_all(paths, market=market)
    looks = []
    for i, file in enumerate(files):
        progress(f"check {file.path.name}", i, len(files))
        looks.append(_look(app, file, window))
    report, names = [], set[str]()
    for i, look in enumerate(looks):
        progress(f"import {look.file.path.name}", i, len(files))
        report += _import_file(app, look, told=origin, but=names)
        names.add(look.file.path.name)
    _finish(app, {(row["symbol"], row["timeframe"]) for row in report}, progress)
    progress("import", len(files), len(files))
    return report


def import_paths(app: App, paths: Sequence[Path], **named: Any) -> list[dict[str, Any]]:
    """Store the candles and the funding rates of some files and folders; a row per file.

    A funding file that cannot be used keeps the candles out too. The arguments are those of
    `import_files`. Raises DataError for a path that holds neither.
    """
    funding = {path: funding_files.find([path]) for path in paths}
    for file, _ in chain.from_iterable(funding.values()):
        funding_files.read(file)
    with_candles = [p for p in paths if not funding[p] or _holds_candles(p, named.get("market"))]
    rows = import_files(app, with_candles, **named) if with_candles else []
    return rows + import_funding(app, [path for path in paths if funding[path]])


def _holds_candles(path: Path, market: str | None) -> bool:
    try:
        return bool(candle_files.find_all([path], market=market))
    except DataError:
        return False


def _look(app: App, file: CandleFile, window: Window) -> _Look:
    """Look at a file, and read it through where it is not known. Raises DataError."""
    state = _state_of(file, window)
    found = None if _is_whole(_known(app, file, state)) else _check(file, window)
    return _Look(file=file, window=window, state=state, found=found)


def _check(file: CandleFile, window: Window) -> Found:
    """Read a file through without storing anything. Raises DataError where it is unusable."""
    candle_files.want_checksum(file.path)
    found: defaultdict[str, _Tally] = defaultdict(_Tally)
    for parts in candle_files.chunks(file, start_ms=window[0], end_ms=window[1]):
        for part in parts:
            found[part.symbol].add(part)
    if candle_files.is_empty(file) or (not found and file.path.suffix != ".parquet"):
        raise DataError(f"{file.path} holds no rows;", remedy="export or download it again")
    refused: Counter[str] = sum((Counter(tally.refused) for tally in found.values()), Counter())
    is_outside = any(tally.fallen["outside"] for tally in found.values())
    if refused and not is_outside and not any(tally.n_rows for tally in found.values()):
        reasons = ", ".join(f"{why} {n}" for why, n in refused.items())
        raise DataError(
            f"{file.path}: every row is refused ({reasons});",
            remedy=f"give {file.timeframe} candles: timestamp, open, high, low, close, volume",
        )
    for tally in found.values():
        _want_grid(file, tally)
        _want_past(file, tally)
    return found


def _want_grid(file: CandleFile, tally: _Tally) -> None:
    """Raise DataError for bars of another timeframe than the file's name says."""
    step = tf_ms(file.timeframe)
    remedy = "name the file by the timeframe of its candles"
    if tally.fallen["off_grid"] > tally.n_rows:
        raise DataError(
            f"{file.path}: most rows do not open on the {file.timeframe} grid;", remedy=remedy
        )
    if tally.n_rows >= _ENOUGH_BARS and tally.apart_ms > step:
        raise DataError(
            f"{file.path}: its bars are {tally.apart_ms // MINUTE_MS} minutes apart, its name says"
            f" {file.timeframe};",
            remedy=remedy,
        )


def _want_past(file: CandleFile, tally: _Tally) -> None:
    """Raise DataError for bars still to come: what is up to there would never be asked for."""
    if tally.last_ms is not None and tally.last_ms > wall_ms() + DAY_MS:
        day = datetime.fromtimestamp(tally.last_ms / 1000, UTC).date()
        raise DataError(
            f"{file.path}: its last bar opens on {day}, which is still to come;",
            remedy="remove the row, or set this machine's clock",
        )


def _state_of(file: CandleFile, window: Window) -> str:
    """Return what tells a file, as it is now and in this window, from any other state of it."""
    try:
        stat = file.path.stat()
    except OSError as error:
        raise DataError(f"{file.path} cannot be read: {error};", remedy="import again") from error
    return f"{stat.st_size} {stat.st_mtime_ns} {window[0]} {window[1]}"


def _known(app: App, file: CandleFile, state: str) -> list[source_store.Source]:
    """Return what was imported of exactly this state of a file, a source per series."""
    sources = source_store.imports_named(
        app.db, app.config.exchange.id, file.timeframe, file.path.name
    )
    return [
        source
        for source in sources
        if source.mark is not None
        and source.mark.file == state
        and file.symbol in ("", source.series.symbol)
    ]


def _is_whole(known: Sequence[source_store.Source]) -> bool:
    """Say whether a file of which this is known was read to its end."""
    return bool(known) and all(source.mark is not None and source.mark.is_whole for source in known)


def _import_file(app: App, look: _Look, *, told: str, but: set[str]) -> list[dict[str, Any]]:
    """Store one file; returns a row per series.

    Where its bars replace others, the files those came from are to be read again, `but` the ones
    that came before it in this call.
    """
    file = look.file
    known = _known(app, file, look.state)
    if look.found is None and not _is_whole(known):  # another file of this call has replaced bars
        look = replace(look, found=_check(file, look.window))
    if look.found is None:
        for source in known:
            if told not in ("", source.origin):
                source_store.say_origin(app.db, source, told)
        return [_row_of_known(file, source, told) for source in known]
    origin = told or candle_files.origin_of(file)
    n_stored = {source.series.symbol: source.n_rows for source in known}
    n_new = _store_file(
        app, look, look.found, n_stored=n_stored, origin=origin, but={*but, file.path.name}
    )
    return [
        _row(file, symbol, tally, n_new=n_new[symbol], origin=origin)
        for symbol, tally in (look.found or {file.symbol: _Tally()}).items()
    ]


def _store_file(
    app: App,
    look: _Look,
    found: Found,
    *,
    n_stored: Mapping[str, int],
    origin: str,
    but: set[str],
) -> Counter[str]:
    """Store a file chunk by chunk, each in a transaction with how far it goes; returns new bars.

    The first `n_stored` rows of a series are there from a call that was interrupted.
    """
    file, window = look.file, look.window
    n_total = sum(tally.n_rows for tally in found.values())
    seen: defaultdict[str, _Tally] = defaultdict(_Tally)
    n_new: Counter[str] = Counter()
    for parts in candle_files.chunks(file, start_ms=window[0], end_ms=window[1]):
        with app.db.write():
            for part in parts:
                seen[part.symbol].add(part)
                if seen[part.symbol].n_rows > n_stored.get(part.symbol, 0):
                    n_new[part.symbol] += _store(app, file, part, but=but)
            if _state_of(file, window) != look.state:
                raise DataError(f"{file.path} changed while it was read;", remedy="import again")
            is_whole = sum(tally.n_rows for tally in seen.values()) == n_total
            read = found if is_whole else {part.symbol: seen[part.symbol] for part in parts}
            _remember(app, file, read, state=look.state, is_whole=is_whole, origin=origin)
    return n_new


def _store(app: App, file: CandleFile, part: candle_files.Part, *, but: set[str]) -> int:
    """Store the bars of one part; returns how many are new."""
    bars = part.bars
    if not len(bars):
        return 0
    series = Series(app.config.exchange.id, part.symbol, file.timeframe)
    before = store.series_row(app.db, series)
    n_new = write_bars(app, series, bars)
    after = store.series_row(app.db, series)
    if before is not None and after is not None and after.n_revised > before.n_revised:
        first, last = int(bars.ts_ms[0]), int(bars.ts_ms[-1])
        source_store.forget_marks(app.db, series, first_ms=first, last_ms=last, but=but)
    return n_new


def _remember(
    app: App, file: CandleFile, read: Found, *, state: str, is_whole: bool, origin: str
) -> None:
    """Write down what was read of a file; in the transaction of its bars."""
    for symbol, tally in read.items():
        if tally.first_ms is None or tally.last_ms is None:
            continue
        store.record_source(
            app.db,
            Series(app.config.exchange.id, symbol, file.timeframe),
            kind="import",
            name=file.path.name,
            first_ms=tally.first_ms,
            last_ms=tally.last_ms,
            n_rows=tally.n_rows,
            origin=origin,
            fingerprint=Mark(file=state, is_whole=is_whole, refused=tally.refused).as_text(),
        )


def _row(
    file: CandleFile, symbol: str, tally: _Tally, *, n_new: int, origin: str, note: str = ""
) -> dict[str, Any]:
    return {
        "file": file.path.name,
        "symbol": symbol,
        "timeframe": file.timeframe,
        "rows": tally.n_rows,
        "new": n_new,
        "refused": tally.refused,
        "first_ms": tally.first_ms,
        "last_ms": tally.last_ms,
        "origin": origin,
        "note": note,
    }


def _row_of_known(file: CandleFile, source: source_store.Source, told: str) -> dict[str, Any]:
    refused = source.mark.refused if source.mark else {}
    tally = _Tally(source.n_rows, Counter(refused), source.first_ms, source.last_ms)
    origin = told or source.origin
    return _row(file, source.series.symbol, tally, n_new=0, origin=origin, note=ALREADY)


def _finish(app: App, names: set[tuple[str, str]], progress: Progress) -> None:
    """Finish every series of an import, finest first."""
    ordered = sorted(names, key=lambda name: (tf_ms(name[1]), name))
    for i, (symbol, timeframe) in enumerate(ordered):
        progress(f"build from {symbol} {timeframe}", i, len(ordered))
        series = Series(app.config.exchange.id, symbol, timeframe)
        row = store.series_row(app.db, series)
        if row is not None:
            finish_import(app, row)


def finish_import(app: App, row: store.SeriesRow) -> None:
    """Write down the holes of an imported series, move its checkpoint, build derived bars."""
    series = row.series
    if row.first_ms is None or row.last_ms is None:
        raise DataError(f"{series.symbol} {series.timeframe}: the files hold no candles")
    end = row.last_ms + tf_ms(series.timeframe)
    with app.db.write():
        if not _holes_are_known(app, row, start_ms=row.first_ms, end_ms=end):
            holes = gap_store.stored_holes(app.db, series, start_ms=row.first_ms, end_ms=end)
            gap_store.record_gaps(app.db, series, holes, state="missing", now_ms=end)
        store.move_checkpoint(app.db, series, next_ms=end, now_ms=end)
        store.set_rooted(app.db, series)
    resample_symbol(app.db, series, derived_timeframes(app, series.timeframe), until_ms=end)
    check_seams(app.db, series)


def _holes_are_known(app: App, row: store.SeriesRow, *, start_ms: int, end_ms: int) -> bool:
    """Say whether bars and gaps fill a window between them: then no hole needs looking for."""
    gaps = gap_store.gaps_between(app.db, row.series, start_ms=start_ms, end_ms=end_ms)
    missing_ms = sum(min(gap.end_ms, end_ms) - max(gap.start_ms, start_ms) for gap in gaps)
    return missing_ms + row.n_rows * tf_ms(row.series.timeframe) == end_ms - start_ms
