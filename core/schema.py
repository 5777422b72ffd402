"""The database's shape: every table, every migration, in order and safe to repeat."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

KEY_SHIFT = 26  # an ohlcv key is series id << 26 | minutes since the epoch (enough until 2097)
MINUTE_MASK = (1 << KEY_SHIFT) - 1

_CANDLES = f"""
CREATE TABLE IF NOT EXISTS series (
  id INTEGER PRIMARY KEY,
  exchange TEXT NOT NULL, symbol TEXT NOT NULL, timeframe TEXT NOT NULL,
  n_rows INTEGER NOT NULL DEFAULT 0,          -- kept by the store at each write
  first_ms INTEGER, last_ms INTEGER,          -- opens of the first and last stored bar
  n_revised INTEGER NOT NULL DEFAULT 0,       -- bars the exchange changed after we had stored them
  derived_to_ms INTEGER,                      -- derived series: source bars before this are built
  rooted INTEGER NOT NULL DEFAULT 0,          -- 1: no older bar exists, or none is wanted
  UNIQUE (exchange, symbol, timeframe)
);
CREATE TABLE IF NOT EXISTS ohlcv (
  key INTEGER PRIMARY KEY,
  open REAL NOT NULL, high REAL NOT NULL, low REAL NOT NULL, close REAL NOT NULL,
  volume REAL NOT NULL
);
CREATE VIEW IF NOT EXISTS candles AS
  SELECT s.exchange, s.symbol, s.timeframe, (o.key & {MINUTE_MASK}) * 60000 AS ts_ms,
         o.open, o.high, o.low, o.close, o.volume
  FROM series s CROSS JOIN ohlcv o
    ON o.key BETWEEN (s.id << {KEY_SHIFT}) AND (s.id << {KEY_SHIFT}) + {MINUTE_MASK};
CREATE TABLE IF NOT EXISTS sync_checkpoint (
  exchange TEXT NOT NULL, symbol TEXT NOT NULL, timeframe TEXT NOT NULL,
  next_ms INTEGER NOT NULL,                   -- every final bar before this was asked for
  updated_ms INTEGER NOT NULL,
  PRIMARY KEY (exchange, symbol, timeframe)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS gaps (
  exchange TEXT NOT NULL, symbol TEXT NOT NULL, timeframe TEXT NOT NULL,
  start_ms INTEGER NOT NULL, end_ms INTEGER NOT NULL,     -- missing bars open in [start, end)
  state TEXT NOT NULL CHECK (state IN ('unknown', 'no_trades', 'missing')),
  n_reads INTEGER NOT NULL DEFAULT 1, seen_ms INTEGER NOT NULL,
  PRIMARY KEY (exchange, symbol, timeframe, start_ms)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sources (
  id INTEGER PRIMARY KEY,
  exchange TEXT NOT NULL, symbol TEXT NOT NULL, timeframe TEXT NOT NULL,
  kind TEXT NOT NULL, name TEXT NOT NULL,
  first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, n_rows INTEGER NOT NULL,
  UNIQUE (exchange, symbol, timeframe, kind, name)
);
CREATE TABLE IF NOT EXISTS markets (
  exchange TEXT NOT NULL, symbol TEXT NOT NULL, record TEXT NOT NULL, updated_ms INTEGER NOT NULL,
  PRIMARY KEY (exchange, symbol)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS funding (
  exchange TEXT NOT NULL, symbol TEXT NOT NULL, ts_ms INTEGER NOT NULL, rate_frac REAL NOT NULL,
  PRIMARY KEY (exchange, symbol, ts_ms)
) WITHOUT ROWID;
"""

_SIGNALS = """
CREATE TABLE IF NOT EXISTS strategies (
  strategy_id TEXT PRIMARY KEY, settings TEXT NOT NULL, seen_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS scan_positions (
  exchange TEXT NOT NULL, symbol TEXT NOT NULL, timeframe TEXT NOT NULL, strategy_id TEXT NOT NULL,
  position_ms INTEGER NOT NULL,               -- open of the last bar that was scanned
  PRIMARY KEY (exchange, symbol, timeframe, strategy_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS signals (
  id INTEGER PRIMARY KEY,
  exchange TEXT NOT NULL, symbol TEXT NOT NULL, timeframe TEXT NOT NULL, setup TEXT NOT NULL,
  direction TEXT NOT NULL CHECK (direction IN ('long', 'short')),
  p0_ms INTEGER NOT NULL, p1_ms INTEGER NOT NULL, strategy_id TEXT NOT NULL,
  scan_stride INTEGER NOT NULL DEFAULT 1,
  origin TEXT NOT NULL CHECK (origin IN ('live', 'retro')),
  ts_ms INTEGER NOT NULL, decided_ms INTEGER NOT NULL, actionable_ms INTEGER NOT NULL,
  entry REAL NOT NULL, sl REAL NOT NULL, tp1 REAL NOT NULL, tp2 REAL NOT NULL, atr REAL NOT NULL,
  leverage REAL NOT NULL, risk_pct REAL NOT NULL, position_notional REAL NOT NULL,
  liquidation REAL NOT NULL, cost_r REAL NOT NULL, valid_until_ms INTEGER NOT NULL,
  rationale TEXT NOT NULL, regime TEXT NOT NULL,
  ml_p_raw REAL, ml_p REAL, p_mart REAL NOT NULL,
  ev_pct REAL, ev_lo_pct REAL, ev_r REAL, ev_lo_r REAL, ml_model TEXT,
  gate TEXT NOT NULL, gate_reason TEXT NOT NULL, evidence TEXT NOT NULL,
  delivery TEXT NOT NULL, delivery_reason TEXT NOT NULL,
  status TEXT NOT NULL, opened_ts_ms INTEGER, closed_ts_ms INTEGER,
  exit_price REAL, exit_reason TEXT, tp1_hit INTEGER NOT NULL DEFAULT 0, tp1_ts_ms INTEGER,
  pnl_pct REAL, pnl_usd REAL, r_multiple REAL, gross_r REAL,
  ambiguous INTEGER NOT NULL DEFAULT 0, data_revised INTEGER NOT NULL DEFAULT 0,
  base_timeframe TEXT NOT NULL, stop_now REAL,
  exec_state TEXT NOT NULL,                   -- the execution's state, exact, as JSON
  UNIQUE (exchange, symbol, timeframe, setup, direction, p0_ms, p1_ms, strategy_id)
);
CREATE INDEX IF NOT EXISTS signals_followed ON signals (exchange, symbol)
  WHERE status IN ('PENDING', 'OPEN');
CREATE INDEX IF NOT EXISTS signals_decided ON signals (strategy_id, decided_ms);
CREATE INDEX IF NOT EXISTS signals_closed ON signals (closed_ts_ms) WHERE closed_ts_ms IS NOT NULL;
CREATE TABLE IF NOT EXISTS features (
  signal_id INTEGER PRIMARY KEY REFERENCES signals (id),
  version INTEGER NOT NULL, vector BLOB NOT NULL             -- little-endian float64
);
CREATE TABLE IF NOT EXISTS funnel (
  exchange TEXT NOT NULL, symbol TEXT NOT NULL, timeframe TEXT NOT NULL, strategy_id TEXT NOT NULL,
  day_ms INTEGER NOT NULL, reason TEXT NOT NULL, n INTEGER NOT NULL,
  PRIMARY KEY (exchange, symbol, timeframe, strategy_id, day_ms, reason)
) WITHOUT ROWID;
"""

_MODELS = """
CREATE TABLE IF NOT EXISTS bundles (
  id TEXT PRIMARY KEY, strategy_id TEXT NOT NULL, parent TEXT,
  state TEXT NOT NULL CHECK (state IN ('draft', 'champion', 'retired', 'kept_out')),
  reason TEXT NOT NULL DEFAULT '', created_ms INTEGER NOT NULL, promoted_ms INTEGER,
  data_until_ms INTEGER NOT NULL, metrics TEXT NOT NULL DEFAULT '{}'
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS scores (
  signal_id INTEGER NOT NULL REFERENCES signals (id), bundle TEXT NOT NULL,
  fold_cutoff_ms INTEGER NOT NULL,            -- the scoring fold's data ended before this
  p_raw REAL NOT NULL, p REAL, ev_pct REAL, ev_lo_pct REAL, ev_r REAL, ev_lo_r REAL,
  PRIMARY KEY (bundle, signal_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS trials (
  id INTEGER PRIMARY KEY, bundle TEXT NOT NULL, params TEXT NOT NULL, metrics TEXT NOT NULL,
  created_ms INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS tunings (
  id INTEGER PRIMARY KEY, bundle TEXT NOT NULL, cell TEXT NOT NULL, mode TEXT NOT NULL,
  threshold REAL, n INTEGER NOT NULL, n_eff REAL NOT NULL, certified INTEGER NOT NULL,
  detail TEXT NOT NULL, created_ms INTEGER NOT NULL
);
"""

_OPERATION = """
CREATE TABLE IF NOT EXISTS outbox (
  id INTEGER PRIMARY KEY,
  dedupe_key TEXT NOT NULL, channel TEXT NOT NULL, kind TEXT NOT NULL,
  signal_id INTEGER REFERENCES signals (id),
  text TEXT NOT NULL, silent INTEGER NOT NULL DEFAULT 0, created_ms INTEGER NOT NULL,
  expires_ms INTEGER,                         -- after this the message is history, not a call
  state TEXT NOT NULL DEFAULT 'pending'
    CHECK (state IN ('pending', 'sending', 'sent', 'ambiguous', 'dead')),
  attempts INTEGER NOT NULL DEFAULT 0, next_wall_ms INTEGER NOT NULL DEFAULT 0,
  last_error TEXT, sent_id TEXT, sent_wall_ms INTEGER,
  UNIQUE (dedupe_key, channel)
);
CREATE INDEX IF NOT EXISTS outbox_waiting ON outbox (channel, id)
  WHERE state IN ('pending', 'sending', 'ambiguous');
CREATE TABLE IF NOT EXISTS job_marks (
  job TEXT PRIMARY KEY, done_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS job_runs (
  id INTEGER PRIMARY KEY, job TEXT NOT NULL, due_ms INTEGER NOT NULL,
  started_wall_ms INTEGER NOT NULL, took_ms REAL NOT NULL,
  outcome TEXT NOT NULL CHECK (outcome IN ('ok', 'error', 'missed', 'overrun')),
  n INTEGER NOT NULL DEFAULT 0, detail TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS job_runs_by_job ON job_runs (job, id);
CREATE TABLE IF NOT EXISTS clock (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  market_ms INTEGER NOT NULL, wall_ms INTEGER NOT NULL, speed REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS labels (
  name TEXT PRIMARY KEY, value TEXT NOT NULL  -- what every page and message is headed with, etc.
) WITHOUT ROWID;
"""

_SKIPPED = """
CREATE TABLE IF NOT EXISTS skipped_bars (     -- a hole kept these from being when the scan passed
  exchange TEXT NOT NULL, symbol TEXT NOT NULL, timeframe TEXT NOT NULL, strategy_id TEXT NOT NULL,
  ts_ms INTEGER NOT NULL,
  PRIMARY KEY (exchange, symbol, timeframe, strategy_id, ts_ms)
) WITHOUT ROWID;
"""

_PROVENANCE = """
CREATE TABLE IF NOT EXISTS seams (            -- where a series goes over to another market's prices
  exchange TEXT NOT NULL, symbol TEXT NOT NULL, timeframe TEXT NOT NULL,
  at_ms INTEGER NOT NULL,                     -- open of the first bar of the later source
  before TEXT NOT NULL, after TEXT NOT NULL,  -- exchanges; '' is a file that does not say
  basis_pct REAL,                             -- step of the price across it, after against before
  n_compared INTEGER NOT NULL,                -- bars both sources had; 0: last close against open
  tick_before REAL, tick_after REAL,          -- finest price step on either side
  PRIMARY KEY (exchange, symbol, timeframe, at_ms)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS open_interest (
  exchange TEXT NOT NULL, symbol TEXT NOT NULL,
  ts_ms INTEGER NOT NULL,                     -- when it was read, market time
  open_interest_qty REAL NOT NULL,            -- base units
  PRIMARY KEY (exchange, symbol, ts_ms)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS funding_reads (
  exchange TEXT NOT NULL, symbol TEXT NOT NULL,
  from_ms INTEGER NOT NULL,                   -- 0: the exchange has none older than is stored
  to_ms INTEGER NOT NULL,                     -- settlements of [from, to) were asked for
  PRIMARY KEY (exchange, symbol)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS market_changes (
  exchange TEXT NOT NULL, symbol TEXT NOT NULL,
  at_ms INTEGER NOT NULL,                     -- when the change was met
  before TEXT NOT NULL,                       -- the record until then; now: see markets
  PRIMARY KEY (exchange, symbol, at_ms)
) WITHOUT ROWID;
"""
_BASIS = f"""
CREATE VIEW IF NOT EXISTS basis AS            -- a perpetual's close against its spot pair's
  SELECT p.exchange, p.symbol, p.timeframe, (a.key & {MINUTE_MASK}) * 60000 AS ts_ms,
         100 * (a.close / b.close - 1) AS basis_pct
  FROM series p
  JOIN series s ON s.exchange = p.exchange AND s.timeframe = p.timeframe
    AND s.symbol = substr(p.symbol, 1, instr(p.symbol, ':') - 1)
    AND p.symbol = s.symbol || ':' || substr(s.symbol, instr(s.symbol, '/') + 1)
  CROSS JOIN ohlcv a
    ON a.key BETWEEN (p.id << {KEY_SHIFT}) AND (p.id << {KEY_SHIFT}) + {MINUTE_MASK}
  CROSS JOIN ohlcv b ON b.key = (s.id << {KEY_SHIFT}) + (a.key & {MINUTE_MASK});
"""

_JUDGED = """
CREATE TABLE IF NOT EXISTS promotions (       -- who spoke from when on: a pure append
  id INTEGER PRIMARY KEY,
  at_ms INTEGER NOT NULL,                     -- market time; it scores decisions after it
  strategy_id TEXT NOT NULL, bundle TEXT NOT NULL, reason TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS states (           -- how far the champion is proven, and since when
  id INTEGER PRIMARY KEY,
  at_ms INTEGER NOT NULL,                     -- market time; it holds for decisions after it
  strategy_id TEXT NOT NULL, bundle TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('CERTIFIED', 'UNCERTIFIED', 'DEGRADED')),
  reason TEXT NOT NULL, figures TEXT NOT NULL DEFAULT '{}'
);
"""

_MONITOR = """
CREATE TABLE IF NOT EXISTS monitor_figures (  -- the newest look at the champion's record
  strategy_id TEXT PRIMARY KEY, bundle TEXT NOT NULL,
  at_ms INTEGER NOT NULL,                     -- market time; it knows what had ended by then
  figures TEXT NOT NULL                       -- JSON, see jobs/monitor.py
) WITHOUT ROWID;
"""

_TOLD = """
CREATE TABLE IF NOT EXISTS pauses (           -- when the owner wanted no signals
  id INTEGER PRIMARY KEY,
  from_ms INTEGER NOT NULL,                   -- market time; decisions of [from, to) are not told
  to_ms INTEGER                               -- NULL: until further notice
);
CREATE TABLE IF NOT EXISTS commands (         -- what the owner wrote, each taken once
  update_id INTEGER PRIMARY KEY,              -- Telegram's number of it
  command TEXT NOT NULL, taken_wall_ms INTEGER NOT NULL
);
"""

_UNATTENDED = """
CREATE TABLE IF NOT EXISTS episodes (         -- a kind of failure, until its job goes well again
  id INTEGER PRIMARY KEY, job TEXT NOT NULL, kind TEXT NOT NULL,
  began_wall_ms INTEGER NOT NULL, last_wall_ms INTEGER NOT NULL,
  n INTEGER NOT NULL DEFAULT 1, detail TEXT NOT NULL DEFAULT '',
  told INTEGER NOT NULL DEFAULT 0,            -- 1: the owner has been told
  ended_wall_ms INTEGER                       -- NULL: it goes on
);
CREATE UNIQUE INDEX IF NOT EXISTS episodes_open ON episodes (job, kind)
  WHERE ended_wall_ms IS NULL;
CREATE TABLE IF NOT EXISTS bootstrap (        -- how far the work on a new database is, for people
  step TEXT PRIMARY KEY,                      -- '1 backfill' … '5 tune'
  state TEXT NOT NULL CHECK (state IN ('waiting', 'running', 'done', 'failed')),
  done INTEGER NOT NULL DEFAULT 0, total INTEGER NOT NULL DEFAULT 0,
  eta_s REAL,                                 -- wall seconds left; NULL: unknown
  detail TEXT NOT NULL DEFAULT '', at_wall_ms INTEGER NOT NULL
) WITHOUT ROWID;
"""

_LOOKED_AT = """
CREATE INDEX IF NOT EXISTS signals_newest ON signals (decided_ms);  -- the first page: newest first
CREATE INDEX IF NOT EXISTS signals_told ON signals (delivery, decided_ms)
  WHERE delivery IN ('LIVE', 'PAPER');
"""


class Column(NamedTuple):
    """A column that a later schema added to a table."""

    table: str
    name: str
    kind: str


class Step(NamedTuple):
    """One migration: statements that may be repeated, columns added where they are absent.

    `gone` are (table, column) dropped where they are there.
    """

    sql: str
    columns: tuple[Column, ...] = ()
    gone: tuple[tuple[str, str], ...] = ()


_THIRD = Step(
    _PROVENANCE + _BASIS,
    (
        # the exchange a file's candles were traded on; '' where nobody said
        Column("sources", "origin", "TEXT NOT NULL DEFAULT ''"),
        # how a file looked when it was read, and how far: it need not be read again
        Column("sources", "fingerprint", "TEXT NOT NULL DEFAULT ''"),
        # derived series: behind derived_to_ms, source bars in [from, to) have changed since
        Column("series", "redo_from_ms", "INTEGER"),
        Column("series", "redo_to_ms", "INTEGER"),
        # a hole is not asked for again before this instant of market time
        Column("gaps", "next_ms", "INTEGER NOT NULL DEFAULT 0"),
    ),
)


MIGRATIONS: tuple[Step, ...] = (
    Step(_CANDLES + _SIGNALS + _MODELS + _OPERATION),
    Step(_SKIPPED),
    _THIRD,
    Step(
        _JUDGED,
        (
            # the 90 % interval of ml_p
            Column("signals", "p_lo", "REAL"),
            Column("signals", "p_hi", "REAL"),
            # JSON of what the score rests on, '' without one: `for` and `against`, the strongest
            # [feature, value, log-odds]; `band`, the out-of-sample record of scores like this
            # (n, n_eff, win_rate, win_rate_lo, win_rate_hi, mean_r, mean_r_lo, mean_r_hi), absent
            # where none is older than the decision; `data_until_ms`, how far the model's data reach
            Column("signals", "why", "TEXT NOT NULL DEFAULT ''"),
        ),
    ),
    Step(_MONITOR),
    Step(
        _TOLD,
        # a row in `sending` belongs to its sender until then; later nobody knows what became of it
        (Column("outbox", "lease_wall_ms", "INTEGER NOT NULL DEFAULT 0"),),
    ),
    Step(_UNATTENDED),
    Step(_LOOKED_AT),
    # Schema 3 grew while it was the newest: the databases of its first days lack what it came to
    # have, and say of every seam that it is one.
    _THIRD._replace(gone=(("seams", "is_market"),)),
)
VERSION = len(MIGRATIONS)


def migrate(execute: Callable[[str], Iterable[Any]], *, version: int) -> int:
    """Bring a database from `version` to VERSION inside the caller's transaction.

    Every step may be repeated; `user_version` moves with the statements it stands for.
    Returns the number of steps taken.
    """

    def has(table: str, column: str) -> bool:
        return column in {row[1] for row in execute(f"PRAGMA table_info({table})")}

    for number, step in enumerate(MIGRATIONS[version:], version + 1):
        execute(step.sql)
        for table, name, kind in step.columns:
            if not has(table, name):
                execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")
        for table, name in step.gone:
            if has(table, name):
                execute(f"ALTER TABLE {table} DROP COLUMN {name}")
        execute(f"PRAGMA user_version = {number}")
    return VERSION - version
