"""Any folder of candles, scanned whole: a scratch database of its own, kept by fingerprint.

It lies under the data folder and may be deleted at any time. An interrupted run goes on where it
was; the same candles under the same settings are imported and scanned once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core import candle_files
from core import features as feature_law
from core.app import App
from core.config import Config, strategy_id
from core.domain import Progress
from core.errors import StoreError, UsageError
from core.jobs.files import import_files
from core.jobs.retro import retro_scan
from core.jobs.training import load_sample
from core.ml.sample import Sample
from core.store import candles as store
from core.store import operation
from core.store.db import WriterLock, open_database
from core.timeframe import DAY_MS, tf_ms

YEAR_MS = 365 * DAY_MS
_TAUGHT_MS = 2 * YEAR_MS  # a pair with so much before the report may teach, unless told otherwise
_READ = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which pairs teach and which never do, and when the report begins and ends, UTC ms."""

    train: tuple[str, ...]
    unseen: tuple[str, ...]
    report_ms: int
    end_ms: int

    @property
    def unseen_ms(self) -> int:
        """The instant from which pairs never trained on are judged: a year before the report."""
        return self.report_ms - YEAR_MS

    @property
    def symbols(self) -> tuple[str, ...]:
        """Every pair, those that teach first."""
        return (*self.train, *self.unseen)


def fingerprint(paths: Sequence[Path], config: Config) -> str:
    """Return 12 digits for the content of candle files, the strategy and the features' version."""
    whole = hashlib.sha256(f"{strategy_id(config)} {feature_law.VERSION}".encode())
    for file in candle_files.find_all(paths):
        whole.update(file.path.name.encode())
        with file.path.open("rb") as content:
            while block := content.read(_READ):
                whole.update(block)
    return whole.hexdigest()[:12]


@contextmanager
def scratch(config: Config, folder: Path) -> Iterator[App]:
    """Open the database of an evaluation, alone. Raises StoreError where another run has it."""
    path = folder / "ohlcv.db"
    lock = WriterLock(path.with_name("ohlcv.db.lock"))
    if not lock.acquire():
        raise StoreError(
            f"{folder} is in use by another evaluation (pid {lock.holder()});",
            remedy="wait for it, or end it",
        )
    app = App(
        config=config,
        config_path=folder / "config.yaml",
        config_text="",
        db=open_database(path, checkpointer=True),
        lock_file=lock,
        holds_lock=True,
    )
    try:
        yield app
    finally:
        app.close()


def imported(app: App, paths: Sequence[Path], progress: Progress) -> dict[str, tuple[int, int]]:
    """Store the candles of some files; return each symbol's first open and last close, UTC ms."""
    import_files(app, paths, origin=app.config.exchange.id, progress=progress)
    reach: dict[str, tuple[int, int]] = {}
    for row in store.series_rows(app.db):
        if row.first_ms is None or row.last_ms is None:
            continue
        end = row.last_ms + tf_ms(row.series.timeframe)
        first, last = reach.get(row.series.symbol, (row.first_ms, end))
        reach[row.series.symbol] = (min(first, row.first_ms), max(last, end))
    return reach


def question_of(
    reach: dict[str, tuple[int, int]],
    *,
    train: Sequence[str],
    unseen: Sequence[str],
    report_ms: int,
    end_ms: int | None,
) -> Question:
    """Return what is asked of the candles there are.

    Names may be whole symbols or their first part (BTC). Without any, pairs with two years of
    candles before the report teach and all others are unseen; the report ends with the candles.
    Raises UsageError for a name that is not there, or twice, and for an empty report.
    """
    taught = _named(train, reach) or [
        symbol for symbol, (first, _) in reach.items() if first <= report_ms - _TAUGHT_MS
    ]
    others = _named(unseen, reach) or [symbol for symbol in reach if symbol not in taught]
    both = set(taught) & set(others)
    if both:
        raise UsageError(
            f"{', '.join(sorted(both))} cannot both teach and be unseen;", remedy="name it once"
        )
    last = max((reach[symbol][1] for symbol in (*taught, *others)), default=0)
    end = min(last, end_ms) if end_ms is not None else last
    if not taught or end <= report_ms:
        raise UsageError(
            "no pair has two years of candles before the report, or none has candles in it;",
            remedy="give --train, or another --train-until and --report-until",
        )
    return Question(train=tuple(taught), unseen=tuple(others), report_ms=report_ms, end_ms=end)


def _named(names: Sequence[str], reach: dict[str, tuple[int, int]]) -> list[str]:
    found = []
    for name in names:
        fits = [symbol for symbol in reach if name in (symbol, symbol.partition("/")[0])]
        if len(fits) != 1:
            known = ", ".join(sorted(reach))
            raise UsageError(
                f"{name!r} names {len(fits)} of the pairs;", remedy=f"these are there: {known}"
            )
        found += fits
    return found


def scanned(app: App, question: Question, progress: Progress) -> Sample:
    """Scan the whole history of every pair once, and return its matured candidates."""
    done = set(json.loads(operation.label_of(app.db, "evaluated") or "[]"))
    wanted = {f"{symbol} {timeframe}" for symbol in question.symbols for timeframe in _frames(app)}
    if not wanted <= done:
        symbols = [s for s in question.symbols if any(f"{s} {t}" not in done for t in _frames(app))]
        retro_scan(
            app,
            start_ms=0,
            end_ms=_data_end_ms(app),
            symbols=symbols,
            timeframes=_frames(app),
            progress=progress,
        )
        with app.db.write():
            operation.set_label(app.db, "evaluated", json.dumps(sorted(done | wanted)))
    sample = load_sample(app.db, app.config, now_ms=_data_end_ms(app))
    wanted_symbols = np.isin(np.array(sample.symbol, dtype=str), question.symbols)
    return sample.of(wanted_symbols & np.isin(np.array(sample.timeframe, dtype=str), _frames(app)))


def _frames(app: App) -> list[str]:
    return list(app.config.timeframes)


def _data_end_ms(app: App) -> int:
    rows = store.series_rows(app.db)
    return max(row.last_ms + tf_ms(row.series.timeframe) for row in rows if row.last_ms is not None)
