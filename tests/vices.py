"""What an exchange does to its candles and answers, seeded; and what must be left of it.

Whether and how a request is disturbed is drawn from the seed, the request and how often it was
sent before: not from the order in which threads happen to arrive. So that honesty wins in the end,
no request fails more than `most_in_a_row` times running and no candle is withheld more than
`most_hidden` times: a hole is believed at its third reading.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.domain import Candles
from core.timeframe import DAY_MS, MINUTE_MS
from tests.bitget_pages import Book, Draft, market_id
from tests.bitget_server import (
    CUT,
    DOWN,
    EMPTY,
    HTML,
    NULL,
    RESET,
    TOO_MANY,
    TOO_MANY_HTML,
    Fault,
)
from tests.worlds import picked

Row = list[Any]
Run = tuple[int, int]
PageVice = Callable[[list[Row], random.Random], list[Row]]

TIMEOUT_MS = 300  # give it to ccxt
_SLOT_MS = 30 * MINUTE_MS

TRANSPORT: dict[str, Fault] = {
    "429": TOO_MANY,
    "429-html": TOO_MANY_HTML,
    "500": Fault(500, "<html><h1>500 Internal Server Error</h1></html>", "text/html"),
    "502": Fault(502, "<html><h1>502 Bad Gateway</h1></html>", "text/html"),
    "503": DOWN,
    "504": Fault(504, "<html><h1>504 Gateway Time-out</h1></html>", "text/html"),
    "520": Fault(520, "<html><h1>520 Web server returned an error</h1></html>", "text/html"),
    "reset": RESET,
    "cut-body": Fault(manner="cut"),
    "time-out": Fault(manner="hold", for_s=2 * TIMEOUT_MS / 1000),
    "trickle": Fault(manner="trickle", for_s=1.0),
    "cut-json": CUT,
    "html": HTML,
    "no-body": EMPTY,
    "null": NULL,
}


def _at(rows: Sequence[Row], rng: random.Random) -> int:
    return rng.randrange(len(rows))


def _changed(rows: list[Row], i: int, **columns: Any) -> list[Row]:
    """Return the rows with some columns of one of them replaced: c0 is the time, c4 the close."""
    row = list(rows[i])
    for name, value in columns.items():
        row[int(name[1:])] = value
    return [*rows[:i], row, *rows[i + 1 :]]


def _without_head(rows: list[Row], rng: random.Random) -> list[Row]:
    return rows[1 + _at(rows, rng) :]


def _without_tail(rows: list[Row], rng: random.Random) -> list[Row]:
    return rows[: _at(rows, rng)]


def _doubled(rows: list[Row], rng: random.Random) -> list[Row]:
    i = _at(rows, rng)
    return [*rows[: i + 1], *rows[max(0, i - 3) :]]


def _shuffled(rows: list[Row], rng: random.Random) -> list[Row]:
    return rng.sample(rows, len(rows))


def _wrong_type(rows: list[Row], rng: random.Random) -> list[Row]:
    column = rng.randrange(6)
    value: Any = rng.choice((None, "", "abc", "NaN", [], {}))
    return _changed(rows, _at(rows, rng), **{f"c{column}": value})


def _short_row(rows: list[Row], rng: random.Random) -> list[Row]:
    i = _at(rows, rng)
    return [*rows[:i], rows[i][: rng.randrange(6)], *rows[i + 1 :]]


def _as_numbers(rows: list[Row], rng: random.Random) -> list[Row]:
    return [[int(row[0]), *map(float, row[1:])] for row in rows]


def _off_grid(rows: list[Row], rng: random.Random) -> list[Row]:
    """A lawful candle of no minute, whose prices are of none either."""
    i = _at(rows, rng)
    open_ms = int(rows[i][0]) + rng.randrange(1, 60) * 1000
    prices = [repr(1.5 * float(price)) for price in rows[i][1:5]]
    return [*rows[:i], [str(open_ms), *prices, *rows[i][5:]], *rows[i + 1 :]]


def _upside_down(rows: list[Row], rng: random.Random) -> list[Row]:
    i = _at(rows, rng)
    return _changed(rows, i, c2=repr(float(rows[i][3]) / 2))


def _negative_volume(rows: list[Row], rng: random.Random) -> list[Row]:
    return _changed(rows, _at(rows, rng), c5="-1.5")


def _stranger(rows: list[Row], rng: random.Random) -> list[Row]:
    """A candle from outside the window, with prices of another time."""
    row = list(rows[_at(rows, rng)])
    away_ms = rng.choice((-1, 1)) * 20 * DAY_MS
    row[0] = str(int(row[0]) + away_ms)
    return [row, *rows] if away_ms < 0 else [*rows, row]


PAGES: dict[str, PageVice] = {
    "empty-page": lambda *_: [],
    "no-tail": _without_tail,
    "no-head": _without_head,
    "duplicates": _doubled,
    "shuffled": _shuffled,
    "reversed": lambda rows, _: rows[::-1],
    "wrong-type": _wrong_type,
    "short-row": _short_row,
    "numbers": _as_numbers,
    "off-grid": _off_grid,
    "high-below-low": _upside_down,
    "negative-volume": _negative_volume,
    "stranger": _stranger,
}


@dataclass
class Vices:
    """A Disturber: `transport` and `pages` are the names drawn from, with their chances."""

    seed: int
    transport: Sequence[str] = ()
    pages: Sequence[str] = ()
    p_transport: float = 0.3
    p_page: float = 0.3
    most_in_a_row: int = 4  # one fewer than the adapter's tries
    most_hidden: int = 2
    where: str = ""
    is_on: bool = True
    n_done: Counter[str] = field(default_factory=Counter)
    _sent: Counter[str] = field(default_factory=Counter)
    _running: Counter[str] = field(default_factory=Counter)
    _hidden: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def strike(self, path: str, query: Mapping[str, str]) -> Fault | None:
        """Return a fault for some of the requests."""
        if not (self.is_on and self.transport and self.where in path):
            return None
        with self._lock:
            what = _named(path, query)
            rng = self._rng("strike", what)
            if self._running[what] >= self.most_in_a_row or rng.random() >= self.p_transport:
                self._running[what] = 0
                return None
            self._running[what] += 1
            name = rng.choice(self.transport)
            self.n_done[name] += 1
            return TRANSPORT[name]

    def spoil(self, path: str, query: Mapping[str, str], rows: list[Row]) -> list[Row]:
        """Return some pages disturbed."""
        if not (self.is_on and self.pages and rows and self.where in path):
            return rows
        with self._lock:
            rng = self._rng("spoil", _named(path, query))
            if rng.random() >= self.p_page:
                return rows
            name = rng.choice(self.pages)
            spoilt = PAGES[name](rows, rng)
            of = query["symbol"], query["granularity"]
            lost = [(*of, row[0]) for row in _lost(rows, spoilt)]
            if any(self._hidden[candle] >= self.most_hidden for candle in lost):
                return rows
            self._hidden.update(lost)
            self.n_done[name] += 1
            return spoilt

    def _rng(self, why: str, what: str) -> random.Random:
        self._sent[why + what] += 1
        return random.Random(f"{self.seed} {why} {what} {self._sent[why + what]}")


class Withheld:
    """A Disturber that keeps some minutes of symbols back, the first few times each is asked."""

    def __init__(self, *symbols: str, run: Run, n_times: int) -> None:
        self._window = range(*run)
        self._n_left = dict.fromkeys(map(market_id, symbols), n_times)

    def strike(self, path: str, query: Mapping[str, str]) -> Fault | None:
        """Let every request pass."""
        del path, query
        return None

    def spoil(self, path: str, query: Mapping[str, str], rows: list[Row]) -> list[Row]:
        """Leave the minutes out of a page that holds any."""
        del path
        left = [row for row in rows if int(row[0]) not in self._window]
        of, is_minutes = query["symbol"], query["granularity"] in ("1m", "1min")
        if len(left) == len(rows) or not is_minutes or not self._n_left.get(of):
            return rows
        self._n_left[of] -= 1
        return left


def _named(path: str, query: Mapping[str, str]) -> str:
    return f"{path} {sorted(query.items())}"


def _lost(rows: list[Row], spoilt: list[Row]) -> list[Row]:
    """Return the rows a reader may not find; each row too many may push out one at the end."""
    told = {tuple(map(str, row)) for row in spoilt}
    lost = [row for row in rows if tuple(map(str, row)) not in told]
    return lost + rows[len(rows) - max(0, len(spoilt) - len(rows)) :]


def holed(bars: Candles, *runs: Run) -> Candles:
    """Return the bars without those that open in some runs [start, end)."""
    kept = np.ones(len(bars), np.bool_)
    for start_ms, end_ms in runs:
        kept &= (bars.ts_ms < start_ms) | (bars.ts_ms >= end_ms)
    return picked(bars, kept)


@dataclass
class Story:
    """What happens to a market: its candles as they will stand, and its holes with their states."""

    truth: dict[str, Candles]
    holes: dict[str, list[tuple[int, int, str]]]

    def quiet_ms(self, symbol: str) -> list[int]:
        """Return the minutes in which nobody traded."""
        quiet = [(low, high) for low, high, state in self.holes[symbol] if state == "no_trades"]
        return [ts_ms for low, high in quiet for ts_ms in range(low, high, MINUTE_MS)]


def story(truth: Mapping[str, Candles], start_ms: int, end_ms: int, *, seed: int) -> Story:
    """Return a market with holes in a window: in one slot of half an hour at most one.

    One symbol is quiet for one to three minutes while the others trade, or all are silent for one
    to twenty: what nobody traded and what is missing.
    """
    rng = random.Random(seed)
    symbols = list(truth)
    holes: dict[str, list[tuple[int, int, str]]] = {symbol: [] for symbol in symbols}
    for slot_ms in range(start_ms, end_ms - _SLOT_MS, _SLOT_MS):
        low = slot_ms + rng.randrange(1, 9) * MINUTE_MS
        kind = rng.random()
        if kind < 0.5:
            high = low + rng.randrange(1, 4) * MINUTE_MS
            holes[rng.choice(symbols)].append((low, high, "no_trades"))
        elif kind < 0.6:
            high = low + rng.randrange(1, 21) * MINUTE_MS
            for symbol in symbols:
                holes[symbol].append((low, high, "missing"))
    left = {s: holed(bars, *(hole[:2] for hole in holes[s])) for s, bars in truth.items()}
    return Story(left, holes)


def quiet(truth: Mapping[str, Candles], run: Run) -> Story:
    """Return a market in which the first symbol is not traded for a while."""
    first = next(iter(truth))
    left = {**truth, first: holed(truth[first], run)}
    return Story(left, {symbol: [(*run, "no_trades")] * (symbol == first) for symbol in truth})


def come_late(book: Book, symbol: str, open_ms: int, *, minutes: int) -> None:
    """Have a candle shown only some minutes after its close."""
    book.late_ms[symbol, open_ms] = open_ms + (1 + minutes) * MINUTE_MS


def revise(book: Book, symbol: str, open_ms: int, *, until_ms: int) -> None:
    """Have a candle shown with another close and volume until an instant."""
    bars = book.truth[symbol]
    i = int(np.flatnonzero(bars.ts_ms == open_ms)[0])
    o, high, low, close, volume = (column[i].item() for column in bars.columns()[1:])
    other = low if close > (low + high) / 2 else high
    book.drafts[symbol, open_ms] = Draft(until_ms, o, high, low, other, volume / 3)
