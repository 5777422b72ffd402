"""What the owner gets: the guards and the picks, one causal pass over decisions in time order."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from core.config import Guards
from core.domain import Delivery, Evidence, Gate, Side
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS, floor_ms

WINDOW_MS = 30 * DAY_MS  # what the paper quantile and the drawdown look back on
SENT = (Delivery.LIVE, Delivery.PAPER)
_BURST = 2  # at most this many times `paper_per_day` on one UTC day
Pause = tuple[int, int | None]  # [from, to) in market time; None: it lasts
_MICRO = 1_000_000  # R is summed in millionths: whole numbers add up alike from any start


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One candidate as the pass sees it; percentages of notional, net of costs.

    `identity` (exchange, symbol, timeframe, setup, direction, p0_ms, p1_ms) breaks ties. `ev_pct`
    is the shrunken EV that PAPER is picked by; None: `ev_lo_pct` stands for it, and None there
    too means no model. `delivery` is set for rows decided before, which are taken as they are.
    `closed_ts_ms` is the end of a trade, or of an order that never filled; then `r_multiple` is
    None. `stopped`: closed at its stop without TP1.
    """

    identity: tuple[str | int, ...]
    symbol: str
    side: Side
    decided_ms: int
    gate: Gate
    evidence: Evidence
    ev_lo_pct: float | None
    cost_r: float
    ev_pct: float | None = None
    late: bool = False
    delivery: Delivery | None = None
    delivery_reason: str = ""
    opened_ts_ms: int | None = None
    closed_ts_ms: int | None = None
    r_multiple: float | None = None
    stopped: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be ordered."""
        for number in (self.ev_lo_pct, self.ev_pct, self.cost_r, self.r_multiple):
            if number is not None and math.isnan(number):
                raise ValueError(f"want numbers or None, no NaN: {self}")

    @property
    def order(self) -> tuple[int, bool, bool, float, tuple[str | int, ...]]:
        """The place in the pass; at one instant, rows decided before come first."""
        scored = self.ev_lo_pct is not None
        best_first = -self.ev_lo_pct if self.ev_lo_pct is not None else self.cost_r
        return (self.decided_ms, self.delivery is None, not scored, best_first, self.identity)

    @property
    def is_certified(self) -> bool:
        """Whether it is LIVE unless something keeps it back."""
        return self.gate is Gate.PASS and self.evidence is Evidence.CERTIFIED

    @property
    def is_paper_candidate(self) -> bool:
        """Whether it competes for PAPER."""
        return self.gate is Gate.PASS and self.evidence is not Evidence.CERTIFIED


def deliver(
    decisions: Sequence[Decision],
    *,
    guards: Guards,
    send: str,
    paper_per_day: int,
    muted: bool = False,
    pauses: Sequence[Pause] = (),
) -> list[tuple[Delivery, str]]:
    """Return what each decision's owner gets and why, in the order of the input.

    A decision depends on rows decided at or before it and on exits before its instant alone. To
    decide new rows give, with their deliveries, all rows decided in the `WINDOW_MS` before them
    and, of the older ones that were LIVE or PAPER, those not closed before that window, those a
    cooldown still counts from, and the last `max_consecutive_stops` to close with a result before
    it: the result is that of one pass over everything.
    """
    flow = Pass(guards=guards, send=send, paper_per_day=paper_per_day, muted=muted, pauses=pauses)
    return flow.go_on(decisions)


def is_paused(pauses: Sequence[Pause], at_ms: int) -> bool:
    """Say whether the owner wanted no signals at an instant of market time."""
    return any(start <= at_ms and (end is None or at_ms < end) for start, end in pauses)


@dataclass(slots=True)
class _Ranks:
    """The merits of the paper candidates of the trailing window, sorted."""

    rows: deque[tuple[int, float]] = field(default_factory=deque)
    merits: list[float] = field(default_factory=list)

    def forget_before(self, start_ms: int) -> None:
        while self.rows and self.rows[0][0] < start_ms:
            _, merit = self.rows.popleft()
            del self.merits[bisect_left(self.merits, merit)]

    def add(self, decided_ms: int, merit: float) -> None:
        self.rows.append((decided_ms, merit))
        insort(self.merits, merit)

    def is_among_best(self, now_ms: int, merit: float, *, per_day: int) -> bool:
        """Say whether fewer than `per_day` a day of the window were at least as good."""
        span_ms = max(DAY_MS, now_ms - self.rows[0][0] if self.rows else 0)
        n_wanted = -(-per_day * span_ms // DAY_MS)
        return len(self.merits) - bisect_left(self.merits, merit) < n_wanted


@dataclass(slots=True)
class _Losses:
    """The closed trades so far: stops in a row, and the R curve of the trailing window."""

    n_stops: int = 0
    last_ms: int = 0
    sum_r: int = 0
    curve: deque[tuple[int, int]] = field(default_factory=deque)  # falling maxima of the sum

    def close(self, closed_ms: int, r_multiple: float, *, stopped: bool) -> None:
        self.n_stops = self.n_stops + 1 if stopped else 0
        self.last_ms = closed_ms
        self._raise_curve(closed_ms, self.sum_r)
        self.sum_r += round(r_multiple * _MICRO)
        self._raise_curve(closed_ms, self.sum_r)

    def _raise_curve(self, closed_ms: int, level: int) -> None:
        while self.curve and self.curve[-1][1] <= level:
            self.curve.pop()
        self.curve.append((closed_ms, level))

    def drawdown_r(self, now_ms: int) -> float:
        """Return how far the sum lies below its peak within the window, its start included."""
        while self.curve and self.curve[0][0] < now_ms - WINDOW_MS:
            self.curve.popleft()
        return (self.curve[0][1] - self.sum_r) / _MICRO if self.curve else 0.0


@dataclass(slots=True, kw_only=True)
class Pass:
    """The pass itself: what it remembers is what later decisions depend on, of any history."""

    guards: Guards
    send: str
    paper_per_day: int
    muted: bool
    pauses: Sequence[Pause] = ()
    ranks: dict[bool, _Ranks] = field(default_factory=lambda: {True: _Ranks(), False: _Ranks()})
    losses: _Losses = field(default_factory=_Losses)
    pending: list[tuple[int, int, Decision]] = field(default_factory=list)  # heap by closed_ts_ms
    n_sent: int = 0
    n_open: dict[Side, int] = field(default_factory=lambda: dict.fromkeys(Side, 0))
    last_of: dict[str, int] = field(default_factory=dict)
    group: tuple[int, set[Side]] = (-1, set())
    papers: tuple[int, int] = (-1, 0)  # UTC day, how many that day

    def go_on(self, decisions: Sequence[Decision]) -> list[tuple[Delivery, str]]:
        """Return what becomes of some decisions; none of them may lie before an earlier call's."""
        given: list[tuple[Delivery, str]] = [(Delivery.NONE, "")] * len(decisions)
        for i in sorted(range(len(decisions)), key=lambda i: decisions[i].order):
            given[i] = self._decide(decisions[i])
        return given

    def _decide(self, row: Decision) -> tuple[Delivery, str]:
        self._close_before(row.decided_ms)
        ranks = self.ranks[row.ev_lo_pct is not None]
        ranks.forget_before(row.decided_ms - WINDOW_MS)
        given = (row.delivery, row.delivery_reason) if row.delivery else self._choice(row, ranks)
        if row.is_paper_candidate:
            ranks.add(row.decided_ms, _merit(row))
        if given[0] in SENT:
            self._count(row, given[0])
        return given

    def _choice(self, row: Decision, ranks: _Ranks) -> tuple[Delivery, str]:
        if self.muted:
            return Delivery.NONE, "muted"
        if is_paused(self.pauses, row.decided_ms):
            return Delivery.NONE, "paused"
        if row.gate is not Gate.PASS or row.late:
            return Delivery.DIGEST, "late" if row.gate is Gate.PASS else "rejected"
        kept_back = "" if row.is_certified else self._not_paper(row, ranks)
        kept_back = kept_back or self._guard(row)
        if kept_back:
            return Delivery.DIGEST, kept_back
        if row.is_certified:
            return Delivery.LIVE, "certified"
        return Delivery.PAPER, "all" if self.send == "all" else "best_few"

    def _not_paper(self, row: Decision, ranks: _Ranks) -> str:
        """Return why an uncertified row is not among the best few, or ''."""
        if self.send == "all":
            return ""
        if self.send == "certified":
            return "uncertified"
        if row.ev_lo_pct is not None and _merit(row) < 0:
            return "negative_ev"
        if not ranks.is_among_best(row.decided_ms, _merit(row), per_day=self.paper_per_day):
            return "not_best"
        day, n = self.papers
        today = floor_ms(row.decided_ms, DAY_MS) == day
        return "budget" if today and n >= _BURST * self.paper_per_day else ""

    def _guard(self, row: Decision) -> str:
        """Return the name of the first guard that holds a row back, or ''."""
        now_ms, guards, losses = row.decided_ms, self.guards, self.losses
        side_open, all_open = self.n_open[row.side], sum(self.n_open.values())
        quiet_ms = guards.cooldown_minutes * MINUTE_MS
        pause_ms = guards.stop_pause_hours * HOUR_MS
        checks = (
            ("locked", row.symbol in guards.locked_symbols),
            ("same_group", self.group[0] == now_ms and row.side in self.group[1]),
            ("cooldown", now_ms - self.last_of.get(row.symbol, now_ms - quiet_ms) < quiet_ms),
            ("max_open", 0 < guards.max_open <= all_open),
            ("max_open_per_side", 0 < guards.max_open_per_side <= side_open),
            (
                "stop_streak",
                0 < guards.max_consecutive_stops <= losses.n_stops
                and now_ms - losses.last_ms < pause_ms,
            ),
            ("drawdown", 0 < guards.max_drawdown_r <= losses.drawdown_r(now_ms)),
        )
        return next((name for name, holds in checks if holds), "")

    def _count(self, row: Decision, given: Delivery) -> None:
        """Remember a delivered row for the rows after it."""
        self.last_of[row.symbol] = row.decided_ms
        self.n_open[row.side] += 1
        self.n_sent += 1
        if row.closed_ts_ms is not None:
            heapq.heappush(self.pending, (row.closed_ts_ms, self.n_sent, row))
        if self.group[0] != row.decided_ms:
            self.group = (row.decided_ms, set())
        self.group[1].add(row.side)
        if given is Delivery.PAPER:
            day = floor_ms(row.decided_ms, DAY_MS)
            self.papers = (day, self.papers[1] + 1 if self.papers[0] == day else 1)

    def _close_before(self, now_ms: int) -> None:
        """Take note of the delivered rows that ended before an instant."""
        while self.pending and self.pending[0][0] < now_ms:
            closed_ms, _, row = heapq.heappop(self.pending)
            self.n_open[row.side] -= 1
            if row.r_multiple is not None:
                self.losses.close(closed_ms, row.r_multiple, stopped=row.stopped)


def _merit(row: Decision) -> float:
    """What PAPER rows are ranked by: the EV, or the lowest cost without a model."""
    if row.ev_lo_pct is None:
        return -row.cost_r
    return row.ev_lo_pct if row.ev_pct is None else row.ev_pct
