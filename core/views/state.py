"""What state the database is in: an answer for every sickness, never an exception."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import apsw

from core import schema
from core.domain import Evidence
from core.errors import StoreError
from core.messages.answers import working_up
from core.store import Database, open_reader
from core.store.models import bundles
from core.store.operation import bootstrap_steps, clock_row, label_of
from core.timeframe import tf_ms
from core.views.reading import BUSY_MS, reading


class Health(StrEnum):
    """The states of a database, from absent to ready."""

    MISSING = "missing"
    EMPTY = "empty"
    LOCKED = "locked"
    MIGRATING = "migrating"
    NEWER = "newer"
    FOREIGN = "foreign"
    DAMAGED = "damaged"
    UNREADABLE = "unreadable"
    NO_CANDLES = "no_candles"
    NO_SIGNALS = "no_signals"
    READY = "ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceState:
    """How far the proof of an edge has come for a strategy, with the sentence that says it.

    `degraded`: a certificate there was is withdrawn. `since_ms` is when this began, if known.
    """

    evidence: Evidence
    sentence: str
    bundle: str | None = None
    degraded: bool = False
    since_ms: int | None = None

    @property
    def word(self) -> str:
        """The state in one word: without a certificate in force nothing is certified."""
        if self.degraded:
            return "DEGRADED"
        certified = self.evidence is Evidence.CERTIFIED
        return "CERTIFIED" if certified else "UNCERTIFIED"


_UNPROVEN = EvidenceState(
    evidence=Evidence.UNGATED, sentence="No proven edge: no model has been promoted yet."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The database in one look.

    `market_ms` is the last tick's market time, else the close of the newest candle; `ticked` says
    which. `next_close_ms` is that of the next bar to be scanned. `data_ms` is the close of the
    newest candle, `lagging_ms` that of the series furthest behind. All None while unknown.
    `sentence` explains every state but READY, and says how far a new database is worked up.
    """

    health: Health
    sentence: str = ""
    banner: str = ""
    market_ms: int | None = None
    ticked: bool = False
    wall_ms: int | None = None
    speed: float | None = None
    data_ms: int | None = None
    lagging_ms: int | None = None
    n_series: int = 0
    n_signals: int = 0
    next_close_ms: int | None = None
    strategy: str | None = None
    evidence: EvidenceState = _UNPROVEN

    @property
    def is_readable(self) -> bool:
        """Whether the other views can be asked."""
        return self.health in (Health.READY, Health.NO_CANDLES, Health.NO_SIGNALS)


def state(path: Path) -> State:
    """Return what the database is fit for; a sick one explains itself in `sentence`."""
    try:
        return _file(path) or _opened(path)
    except apsw.BusyError:
        words = "is locked by another process: wait for it to finish; this page tries again."
        return _sick(Health.LOCKED, f"{path} {words}")
    except apsw.NotADBError:
        return _foreign(path)
    except (apsw.CorruptError, apsw.SQLError):
        # The version said the tables are there: one that cannot be asked is damage.
        words = "is damaged: stop the scheduler and run python maintenance.py restore."
        return _sick(Health.DAMAGED, f"{path} {words}")
    except (apsw.Error, StoreError, OSError) as error:
        return _sick(Health.UNREADABLE, f"{path} cannot be read: {error}.")


def _file(path: Path) -> State | None:
    """Return the sickness of the file, if it has one that shows without opening it."""
    if not path.exists():
        return _sick(Health.MISSING, f"There is no database at {path} yet: run python init_db.py.")
    if not path.is_file():
        return _sick(Health.FOREIGN, f"{path} is not a file: set app.db_path in config.yaml.")
    if path.stat().st_size == 0:
        return _sick(Health.EMPTY, f"{path} is an empty file: run python init_db.py.")
    return None


def _opened(path: Path) -> State:
    with open_reader(path) as db:
        db.rows(f"PRAGMA busy_timeout = {BUSY_MS}")
        return _shape(db) or _content(db)


def _sick(health: Health, sentence: str) -> State:
    return State(health=health, sentence=sentence)


def _foreign(path: Path) -> State:
    return _sick(
        Health.FOREIGN,
        f"{path} is not a database of this program: move it away, or set app.db_path in"
        " config.yaml.",
    )


def _shape(db: Database) -> State | None:
    """Return the sickness of the schema, if it has one."""
    version = int(db.value("PRAGMA user_version"))
    tables = {name for (name,) in db.rows("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if version == 0 and not tables:
        return _sick(Health.EMPTY, f"{db.path} has no tables yet: run python init_db.py.")
    if not {"ohlcv", "signals", "series"} <= tables:
        return _foreign(db.path)
    if version < schema.VERSION:
        return _sick(
            Health.MIGRATING,
            f"{db.path} has schema {version} and this program wants {schema.VERSION}: it is being"
            " migrated, or run python init_db.py.",
        )
    if version > schema.VERSION:
        return _sick(
            Health.NEWER,
            f"{db.path} has schema {version}, this program knows {schema.VERSION}: update it.",
        )
    return None


def _content(db: Database) -> State:
    clock = clock_row(db)
    series = db.rows("SELECT timeframe, last_ms, exchange, symbol FROM series WHERE n_rows > 0")
    data_ms, lagging_ms = _newest(series)
    n_signals = int(db.value("SELECT count(*) FROM signals"))
    strategy = newest_strategy(db)
    health, sentence = Health.READY, ""
    if not series:
        health = Health.NO_CANDLES
        sentence = "The database is empty: run python download_data.py or start the scheduler."
    elif not n_signals:
        health = Health.NO_SIGNALS
        sentence = "There are candles but no candidates yet: run python retro_scan.py, or wait."
    steps = working_up(bootstrap_steps(db))
    sentence = " ".join([sentence, *(f"{step}." for step in steps)]).strip()
    return State(
        health=health,
        sentence=sentence,
        banner=label_of(db, "banner"),
        market_ms=clock[0] if clock else data_ms,
        ticked=clock is not None,
        wall_ms=clock[1] if clock else None,
        speed=clock[2] if clock else None,
        data_ms=data_ms,
        lagging_ms=lagging_ms,
        n_series=len(series),
        n_signals=n_signals,
        next_close_ms=_next_close(db, clock[0] if clock else data_ms),
        strategy=strategy,
        evidence=_evidence(db, strategy),
    )


def _newest(series: list[tuple[str, int, str, str]]) -> tuple[int | None, int | None]:
    """Return the newest close of all, and that of the symbol furthest behind."""
    closes: dict[tuple[str, str], int] = {}
    for timeframe, last_ms, exchange, symbol in series:
        key = (exchange, symbol)
        closes[key] = max(closes.get(key, 0), last_ms + tf_ms(timeframe))
    return max(closes.values(), default=None), min(closes.values(), default=None)


def _next_close(db: Database, now_ms: int | None) -> int | None:
    """When the next bar that is scanned closes: of the timeframes that have been scanned."""
    frames = [name for (name,) in db.rows("SELECT DISTINCT timeframe FROM scan_positions")]
    if now_ms is None or not frames:
        return None
    return min((now_ms // tf_ms(name) + 1) * tf_ms(name) for name in frames)


def newest_strategy(db: Database) -> str | None:
    """Return the strategy_id seen last, or None before the first."""
    found = db.value("SELECT strategy_id FROM strategies ORDER BY seen_ms DESC LIMIT 1")
    if found is None:
        found = db.value("SELECT strategy_id FROM signals ORDER BY id DESC LIMIT 1")
    return None if found is None else str(found)


def market_now(db: Database) -> int | None:
    """Return the market time of the last tick, else the close of the newest candle."""
    clock = clock_row(db)
    if clock:
        return clock[0]
    series = db.rows("SELECT timeframe, last_ms, exchange, symbol FROM series WHERE n_rows > 0")
    return _newest(series)[0]


def _evidence(db: Database, strategy: str | None) -> EvidenceState:
    if strategy is None:
        return _UNPROVEN
    said = db.rows(
        "SELECT state, reason, bundle, at_ms FROM states WHERE strategy_id = ?"
        " ORDER BY id DESC LIMIT 1",
        (strategy,),
    )
    if not said:
        return _derived(db, strategy)
    word, reason, bundle, at_ms = said[0]
    certified = word == Evidence.CERTIFIED
    sentence = f"{reason[:1].upper()}{reason[1:].rstrip('.')}."
    return EvidenceState(
        evidence=Evidence.CERTIFIED if certified else Evidence.UNCERTIFIED,
        sentence=sentence if certified else f"No proven edge. {sentence}",
        bundle=str(bundle),
        degraded=word == "DEGRADED",
        since_ms=int(at_ms),
    )


def _derived(db: Database, strategy: str) -> EvidenceState:
    """The state as the newest tuning of the champion gives it, where none was written down."""
    champions = bundles(db, strategy=strategy, state="champion")
    if not champions:
        return _UNPROVEN
    name = champions[0]["id"]
    # Each tuning logs all cells at once, so the newest instant is the newest tuning.
    n_certified, n_cells = db.rows(
        "SELECT coalesce(sum(certified), 0), count(*) FROM tunings WHERE bundle = ?1"
        " AND created_ms = (SELECT max(created_ms) FROM tunings WHERE bundle = ?1)",
        (name,),
    )[0]
    if n_certified:
        return EvidenceState(
            evidence=Evidence.CERTIFIED,
            sentence=f"{n_certified} of {n_cells} cells hold a certificate.",
            bundle=name,
        )
    return EvidenceState(
        evidence=Evidence.UNCERTIFIED,
        sentence="No proven edge: no threshold of the present model could be certified.",
        bundle=name,
    )


def version(path: Path) -> tuple[object, ...]:
    """Return a value that changes whenever a figure of the record may have changed.

    Raises StoreError as `reading` does. Market time enters by the hour: trades mature.
    """
    # An exit lowers the count of those followed unless a new id makes up for it.
    with reading(path) as db:
        numbers = db.rows(
            "SELECT (SELECT max(id) FROM signals),"
            " (SELECT count(*) FROM signals WHERE status IN ('PENDING', 'OPEN')),"
            " (SELECT max(created_ms) FROM bundles), (SELECT max(promoted_ms) FROM bundles),"
            " (SELECT max(rowid) FROM tunings), (SELECT count(*) FROM bundles),"
            " (SELECT max(id) FROM states), (SELECT count(*) FROM trials),"
            " (SELECT market_ms / 3600000 FROM clock)"
        )[0]
    return (str(path), *numbers)
