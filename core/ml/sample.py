"""Stored candidates as arrays: what the meta-model learns from and is judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.domain import CLOSED, Bools, Floats, Ints
from core.expected_value import Prospect
from core.splits import matures_ms, uniqueness
from core.timeframe import tf_ms

_WORDS = ("symbol", "timeframe", "regime")
_CLOSED = frozenset(status.value for status in CLOSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Candidates in decision order, shapes (n,), `features` (n, n_features).

    `closed` marks filled trades with a result; `r` and `gross_r` are NaN elsewhere. `t1_ms` is
    when a trade closed, or an unfilled order lapsed; `known_ms` is when a row matures.
    """

    ids: Ints
    symbol: tuple[str, ...]
    timeframe: tuple[str, ...]
    regime: tuple[str, ...]
    t0_ms: Ints
    t1_ms: Ints
    known_ms: Ints
    closed: Bools
    r: Floats
    gross_r: Floats
    p_mart: Floats
    cost_r: Floats
    entry: Floats
    stop: Floats
    tp1: Floats
    features: Floats

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def won(self) -> Bools:
        """A win is a closed trade with a net result above 0."""
        return np.asarray(self.r > 0)

    @property
    def symbol_code(self) -> Ints:
        """Symbols as numbers."""
        codes = np.unique(np.array(self.symbol, dtype=str), return_inverse=True)[1]
        return codes.astype(np.int64)

    def of(self, rows: Ints | Bools) -> Sample:
        """Return some of the rows."""
        places = np.arange(len(self))[rows]
        arrays = {
            name: getattr(self, name)[places] for name in self.__slots__ if name not in _WORDS
        }
        columns: dict[str, Any] = {
            name: tuple(getattr(self, name)[i] for i in places.tolist()) for name in _WORDS
        }
        return Sample(**columns, **arrays)

    def weight(self, rows: Ints | Bools) -> Floats:
        """Return the uniqueness of some rows among themselves; it sums to their n_eff."""
        return uniqueness(self.t0_ms[rows], self.t1_ms[rows], self.symbol_code[rows])

    def prospect(self, extra_r: tuple[Floats, Floats] | None = None) -> Prospect:
        """Return the plans as the valuation wants them."""
        win, loss = extra_r if extra_r is not None else (np.zeros(len(self)), np.zeros(len(self)))
        return Prospect(
            entry=self.entry,
            stop=self.stop,
            tp1=self.tp1,
            cost_r=self.cost_r,
            extra_win_r=win,
            extra_loss_r=loss,
        )


def sample_of(rows: Sequence[Mapping[str, Any]], features: Floats, *, hold_bars: int) -> Sample:
    """Return stored rows, in decision order, as arrays."""

    def column(name: str) -> Floats:
        return np.array([np.nan if row[name] is None else row[name] for row in rows], np.float64)

    def instants(name: str) -> Ints:
        return np.array([row[name] for row in rows], np.int64)

    r, gross, cost = column("r_multiple"), column("gross_r"), column("cost_r")
    closed = np.array([row["status"] in _CLOSED for row in rows], bool) & np.isfinite(r)
    valid = instants("valid_until_ms")
    ended = np.array([row["closed_ts_ms"] or 0 for row in rows], np.int64)
    hold = np.array([hold_bars * tf_ms(row["timeframe"]) for row in rows], np.int64)
    return Sample(
        ids=instants("id"),
        symbol=tuple(row["symbol"] for row in rows),
        timeframe=tuple(row["timeframe"] for row in rows),
        regime=tuple(row["regime"] for row in rows),
        t0_ms=instants("decided_ms"),
        t1_ms=np.where(ended > 0, ended, valid),
        known_ms=matures_ms(valid, hold),
        closed=closed,
        r=np.where(closed, r, np.nan),
        gross_r=np.where(closed, np.where(np.isfinite(gross), gross, r + cost), np.nan),
        p_mart=column("p_mart"),
        cost_r=cost,
        entry=column("entry"),
        stop=column("sl"),
        tp1=column("tp1"),
        features=features,
    )
