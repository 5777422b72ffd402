"""The nouns of the engine: sides, series, candles, markets, plans, candidates and verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from core.timeframe import tf_ms

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Price = TypeVar("Price", float, Floats)  # one price, or a column of them
Progress = Callable[[str, int, int], None]  # what is worked on, how much is done, of how much


def no_progress(what: str, done: int, total: int) -> None:
    """A Progress that shows nothing."""


class Side(IntEnum):
    """+1 long, -1 short, so that both share one line of arithmetic."""

    LONG = 1
    SHORT = -1

    @property
    def direction(self) -> str:
        """The word stored in the database."""
        return "long" if self is Side.LONG else "short"

    @classmethod
    def of(cls, direction: str) -> Side:
        """Return the side of a stored word."""
        return cls.LONG if direction == "long" else cls.SHORT


class Setup(StrEnum):
    """The two setups the engine knows."""

    LIMIT = "limit"
    RECLAIM = "reclaim"


class Origin(StrEnum):
    """How a candidate was found."""

    LIVE = "live"
    RETRO = "retro"


class Status(StrEnum):
    """The life of a candidate; the last six are final."""

    PENDING = "PENDING"
    OPEN = "OPEN"
    TP = "TP"
    SL = "SL"
    TP1_TRAIL = "TP1_TRAIL"
    TIMEOUT = "TIMEOUT"
    EXPIRED = "EXPIRED"
    CANCELLED = "CANCELLED"


CLOSED = (Status.TP, Status.SL, Status.TP1_TRAIL, Status.TIMEOUT)
UNFILLED = (Status.EXPIRED, Status.CANCELLED)
FOLLOWED = (Status.PENDING, Status.OPEN)


class Gate(StrEnum):
    """The verdict of plan and model."""

    PASS = "PASS"
    REJECT = "REJECT"


class Evidence(StrEnum):
    """The proof behind a verdict."""

    CERTIFIED = "CERTIFIED"
    UNCERTIFIED = "UNCERTIFIED"
    UNGATED = "UNGATED"


class Delivery(StrEnum):
    """What the owner gets."""

    LIVE = "LIVE"
    PAPER = "PAPER"
    DIGEST = "DIGEST"
    NONE = "NONE"


class Series(NamedTuple):
    """One stored candle series."""

    exchange: str
    symbol: str
    timeframe: str


@dataclass(frozen=True, slots=True)
class Candles:
    """Bars of one series as parallel arrays, oldest first.

    `ts_ms` (n,) int64 opens in UTC ms, strictly increasing, on the grid; prices in quote currency
    and volume in base units, (n,) float64. A missing bar is absent, never NaN.
    """

    timeframe: str
    ts_ms: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats

    def __len__(self) -> int:
        return len(self.ts_ms)

    def __getitem__(self, rows: slice) -> Candles:
        """Return a view on some of the bars; no copy."""
        ts_ms, *prices = self.columns()
        return Candles(self.timeframe, ts_ms[rows], *(column[rows] for column in prices))

    def columns(self) -> tuple[Ints, Floats, Floats, Floats, Floats, Floats]:
        """Return ts_ms, open, high, low, close, volume."""
        return self.ts_ms, self.open, self.high, self.low, self.close, self.volume

    @classmethod
    def of_matrix(cls, timeframe: str, rows: Floats) -> Candles:
        """Return bars from a (n, 6) matrix of ts_ms, open, high, low, close, volume."""
        ts_ms = rows[:, 0].astype(np.int64)
        o, h, low, c, v = np.ascontiguousarray(rows[:, 1:].T)
        return cls(timeframe, ts_ms, o, h, low, c, v)

    def closed_by(self, instant_ms: int) -> int:
        """Return how many bars are known at an instant: those with open + timeframe <= it."""
        return int(np.searchsorted(self.ts_ms, instant_ms - tf_ms(self.timeframe), side="right"))

    @classmethod
    def empty(cls, timeframe: str) -> Candles:
        """Return a series without bars."""
        none = np.empty(0)
        return cls(timeframe, np.empty(0, np.int64), none, none, none, none, none)


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """What an exchange says of one symbol. Fees as fractions; steps in price and base units.

    `fallback` marks a record made up for want of exchange metadata.
    """

    symbol: str
    kind: str  # 'spot' | 'swap'
    tick: float
    step: float = 0.0
    min_qty: float = 0.0
    min_cost_usd: float = 0.0
    contract_size: float = 1.0
    maker_frac: float = 0.0002
    taker_frac: float = 0.0006
    active: bool = True
    fallback: bool = False


class FundingRate(NamedTuple):
    """One settlement: instant and the fraction that longs pay shorts."""

    ts_ms: int
    rate_frac: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TradePlan:
    """What we do if the setup is taken; prices in quote currency, rounded to the tick."""

    side: Side
    entry: float
    stop: float
    tp1: float
    tp2: float
    atr: float
    leverage: float
    risk_pct: float
    notional_usd: float
    liquidation: float
    cost_r: float
    p_mart: float
    decided_ms: int
    actionable_ms: int
    valid_until_ms: int

    def __post_init__(self) -> None:
        """Refuse prices that are not ordered along the side."""
        s = self.side
        if not s * self.stop < s * self.entry < s * self.tp1 < s * self.tp2:
            raise ValueError(f"want stop, entry, tp1, tp2 in order along the side: {self}")

    @property
    def risk(self) -> float:
        """Distance from entry to stop, in price units (1 R)."""
        return abs(self.entry - self.stop)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A setup found at the close of one bar, with its plan and the features known then.

    `features` is (n_features,) float64 in the order of `features.NAMES`; NaN where no earlier
    history exists. `p0_ms` and `p1_ms` are the opens of the pivot bars.
    """

    series: Series
    setup: Setup
    p0_ms: int
    p1_ms: int
    ts_ms: int
    plan: TradePlan
    regime: str
    rationale: str
    features: Floats

    @property
    def decided_ms(self) -> int:
        """The close of the signal bar."""
        return self.plan.decided_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A setup we decline, with the reason that is counted. It is not an error."""

    series: Series
    setup: Setup
    side: Side
    p1_ms: int
    ts_ms: int
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What the meta-model says of a candidate. Percentages are of notional, net of costs.

    `p_lo` and `p_hi` bound 90 % of what p may be; `why` is what the score rests on, as
    `signals.why` keeps it.
    """

    p_raw: float
    p: float
    p_lo: float
    p_hi: float
    ev_pct: float
    ev_lo_pct: float
    ev_r: float
    ev_lo_r: float
    model: str
    why: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Gate, its reason, and the evidence behind it."""

    gate: Gate
    reason: str
    evidence: Evidence
    score: Score | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message to be queued in the outbox; `dedupe_key` makes queueing it twice harmless."""

    dedupe_key: str
    kind: str
    text: str
    signal_id: int | None = None
    silent: bool = False
    meta: Mapping[str, Any] = field(default_factory=dict)
