"""Funding, open interest and records through the real ccxt client, and what waits for a rate."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ccxt
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.app import App
from core.clock import LiveClock
from core.domain import FundingRate, Series
from core.errors import DataError, ExchangeError, ExchangeUnavailable
from core.exchange import ccxt_adapter, ccxt_stats
from core.exchange.ccxt_adapter import CcxtExchange
from core.exchange.lanes import TRIES
from core.jobs import market_stats
from core.market_context import REACH_MS
from core.store import candles as candle_store
from core.store import markets as store
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from tests.bitget_server import DOWN, HTML, NULL, BitgetServer, Fault, serving
from tests.engine_world import opened, table, write_config
from tests.worlds import random_candles

ONE, TWO, SPOT = "BTC/USDT:USDT", "SOL/USDT:USDT", "ETH/USDT"
NOW_MS = 1_717_228_800_000  # 2024-06-01 08:00 UTC, a settlement
N_RATES = 1200  # 400 days
FILES = Path(__file__).parents[2] / "shared" / "data" / "funding"
REFUSED = Fault(400, '{"code":"40034","msg":"Parameter does not exist","data":null}')


def rates_until(end_ms: int, n: int, seed: int) -> list[FundingRate]:
    """N settlements, the last at an instant, some ms late as exchanges stamp them."""
    rng = np.random.default_rng(seed)
    stamps = range(end_ms - (n - 1) * 8 * HOUR_MS, end_ms + 1, 8 * HOUR_MS)
    return [FundingRate(ms + int(rng.integers(0, 9)), float(rng.normal(0, 1e-4))) for ms in stamps]


def minutes(rates: list[FundingRate]) -> list[tuple[int, float]]:
    """Settlements as they are stored."""
    return [(rate.ts_ms - rate.ts_ms % MINUTE_MS, rate.rate_frac) for rate in rates]


@dataclass
class World:
    """An engine on the real client; the server's time and rates are set by hand."""

    app: App
    server: BitgetServer
    at_ms: int
    n_lanes: int = 1  # one request at a time, so that a run can be repeated exactly

    def look(self, at_ms: int, due_ms: int | None = None) -> int:
        """Do the work due at an instant of the server's time, a second into its minute."""
        self.at_ms = at_ms + 1000
        return market_stats.refresh(self.app, due_ms=at_ms if due_ms is None else due_ms)

    def rates(self, symbol: str) -> list[tuple[int, float]]:
        """What is stored of a symbol's funding."""
        return self.app.db.rows(
            "SELECT ts_ms, rate_frac FROM funding WHERE symbol = ? ORDER BY ts_ms", (symbol,)
        )

    def asked(self, symbol: str) -> list[int]:
        """The pages of funding asked for of a symbol, since last looked at."""
        name = symbol.split(":", maxsplit=1)[0].replace("/", "")
        pages = [q for q in self.server.asked("history-fund-rate") if q["symbol"] == name]
        return [int(query["pageNo"]) for query in pages]


@contextmanager
def world(folder: Path, *, history_days: int = 350, n_rates: int = N_RATES) -> Iterator[World]:
    """Two perpetuals and a spot pair; the perpetuals' first candles lie so far back."""
    made: World | None = None
    bars = random_candles(60, seed=1, start_ms=NOW_MS)
    server = BitgetServer(
        dict.fromkeys((ONE, TWO, SPOT), bars),
        now_ms=lambda: made.at_ms if made else NOW_MS,
        funding={s: rates_until(NOW_MS, n_rates, seed) for seed, s in enumerate((ONE, TWO))},
        interest={ONE: 1000.0, TWO: 7.5},
    )
    with serving(server), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ccxt_adapter, "_wall_ms", server.now_ms)
        settings: dict[str, Any] = {
            "exchange": {"id": "bitget", "rate_limit_ms": 1, "ccxt": server.ccxt()},
            "symbols": [ONE, TWO, SPOT],
        }
        made = World(opened(write_config(folder, **settings)), server, NOW_MS)
        first = random_candles(3, seed=1, start_ms=NOW_MS - history_days * DAY_MS)
        for symbol in (ONE, TWO):
            candle_store.upsert_candles(made.app.db, Series("bitget", symbol, "1m"), first)
        connect(made)
        yield made
        made.app.close()


def connect(made: World) -> None:
    """A new client of the server."""
    exchange = CcxtExchange.open(made.app.config, sleep=lambda _: None, rng=random.Random(7))
    exchange.n_lanes = made.n_lanes
    clock = LiveClock(exchange.server_time_ms, monotonic=lambda: made.at_ms / 1000)
    made.app._market = exchange, clock


def wanted(world: World, symbol: str, days: int) -> list[tuple[int, float]]:
    """The published rates of the days that features of the first candle reach back to."""
    start_ms = NOW_MS - days * DAY_MS - REACH_MS
    return [(ms, r) for ms, r in minutes(world.server.funding[symbol]) if ms >= start_ms]


def test_all_history_is_stored_and_asked_for_once(tmp_path: Path) -> None:
    """Back to the first candle, page by page; then one page an hour, and none in between."""
    with world(tmp_path) as w:
        w.look(NOW_MS)
        for symbol in (ONE, TWO):
            assert w.rates(symbol) == wanted(w, symbol, 350)
            assert len(w.rates(symbol)) > 1000
        before = table(w.app.db, "funding")
        w.server.requests.clear()
        for minute in (1, 5, 10, 15, 30, 45):
            w.look(NOW_MS + minute * MINUTE_MS)
        assert w.asked(ONE) == []
        w.look(NOW_MS + HOUR_MS)
        assert w.asked(ONE) == w.asked(TWO) == [1]
        assert table(w.app.db, "funding") == before


def test_what_the_exchange_does_not_have_is_not_asked_for_each_hour(tmp_path: Path) -> None:
    """Candles of years, funding of weeks: the end of the list is remembered, also by a restart."""
    with world(tmp_path, history_days=900, n_rates=120) as w:
        w.look(NOW_MS)
        assert w.rates(ONE) == minutes(w.server.funding[ONE])
        assert store.funding_read_of(w.app.db, "bitget", ONE) == (0, w.at_ms)
        connect(w)
        w.server.requests.clear()
        for hour in range(1, 4):
            w.look(NOW_MS + hour * HOUR_MS)
        assert w.asked(ONE) == [1, 1, 1]


def test_history_goes_on_where_it_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after any chunk, or out of time: no settlement is missing in the end, few are re-read.

    Older chunks begin at their own page, not at the newest.
    """
    with world(tmp_path) as w:
        monkeypatch.setattr(market_stats, "_CHUNK_MS", 60 * DAY_MS)
        exchange = w.app.market()[0]
        newest = market_stats._recent(w.app, exchange, ONE, now_ms=w.at_ms)
        assert newest is not None
        market_stats._read(w.app, exchange, [newest], {})

        def chunk() -> int:
            span = market_stats._older(w.app, exchange, ONE)
            return market_stats._read(w.app, exchange, [span], {}) if span else 0

        assert [chunk(), chunk()] == [180, 180]
        w.server.requests.clear()
        assert [chunk() for _ in range(5)] == [180, 180, 180, 150, 0]
        assert w.rates(ONE) == wanted(w, ONE, 350)
        assert w.asked(ONE)[0] == 3
        assert len(w.asked(ONE)) <= 16


def test_older_candles_bring_older_funding(tmp_path: Path) -> None:
    """A backfill of candles after the fact is followed by that of funding."""
    with world(tmp_path, history_days=10) as w:
        w.look(NOW_MS)
        assert w.rates(TWO) == wanted(w, TWO, 10)
        older = random_candles(3, seed=1, start_ms=NOW_MS - 200 * DAY_MS)
        candle_store.upsert_candles(w.app.db, Series("bitget", TWO, "1m"), older)
        stored = market_stats.backfill_funding(w.app, symbols=[ONE, TWO, SPOT])
        assert stored == {ONE: 0, TWO: 190 * 3}
        assert w.rates(TWO) == wanted(w, TWO, 200)


def test_a_rate_published_late_is_asked_for_each_minute_until_it_is_there(tmp_path: Path) -> None:
    """16:00 appears at 16:03; a corrected one replaces what was stored."""
    with world(tmp_path, history_days=1) as w:
        w.look(NOW_MS)
        at_ms = NOW_MS + 8 * HOUR_MS
        w.server.requests.clear()
        for minute in range(3):
            w.look(at_ms + minute * MINUTE_MS)
        assert len(w.asked(ONE)) == 3
        fresh = FundingRate(at_ms + 4, 3e-4)
        for symbol in (ONE, TWO):
            w.server.funding = {**w.server.funding, symbol: [*w.server.funding[symbol], fresh]}
        for minute in range(3, 11):
            w.look(at_ms + minute * MINUTE_MS)
        assert len(w.asked(ONE)) == 4
        assert w.rates(ONE)[-1] == (at_ms, 3e-4)
        corrected = FundingRate(at_ms + 4, 2e-4)
        w.server.funding = {**w.server.funding, ONE: [*w.server.funding[ONE][:-1], corrected]}
        w.look(at_ms + HOUR_MS)
        assert w.rates(ONE)[-1] == (at_ms, 2e-4)


@pytest.mark.parametrize("faults", [[DOWN] * TRIES, [REFUSED], [NULL] * TRIES, [HTML] * TRIES])
def test_a_symbol_that_fails_is_tried_again_and_stops_no_other(
    tmp_path: Path, faults: list[Fault]
) -> None:
    """The error is said when all were tried; the next look stores what was missing."""
    with world(tmp_path, history_days=1) as w:
        w.app.market()[0].markets((ONE, TWO))
        w.server.disturb(*faults, where="history-fund-rate")
        with pytest.raises(ExchangeError, match="funding of BTC"):
            w.look(NOW_MS)
        assert w.rates(ONE) == []
        assert w.rates(TWO) == wanted(w, TWO, 1)
        w.look(NOW_MS + MINUTE_MS)
        assert w.rates(ONE) == wanted(w, ONE, 1)


def interest(w: World) -> list[tuple[str, int, float]]:
    """What is stored of open interest."""
    return w.app.db.rows(
        "SELECT symbol, ts_ms, open_interest_qty FROM open_interest ORDER BY ts_ms, symbol"
    )


def test_open_interest_is_read_once_in_a_quarter_with_the_instant_it_was_read(
    tmp_path: Path,
) -> None:
    """In base units; looks in between and late ones for quarters that are over read nothing."""
    with world(tmp_path, history_days=1) as w:
        for minute in (0, 0, 1, 10, 15):
            w.look(NOW_MS + minute * MINUTE_MS)
        assert interest(w) == [
            (symbol, NOW_MS + minute * MINUTE_MS + 1000, qty)
            for minute in (0, 15)
            for symbol, qty in ((ONE, 1000.0), (TWO, 7.5))
        ]
        back_ms = NOW_MS + 5 * HOUR_MS + 3 * MINUTE_MS
        for quarter in (2, 3, 4):  # after hours away the quarters that were missed come due
            w.look(back_ms, due_ms=NOW_MS + quarter * 15 * MINUTE_MS)
        assert [ms for _, ms, _ in interest(w)[4:]] == [back_ms + 1000] * 2


def test_a_failed_read_of_open_interest_is_skipped(tmp_path: Path) -> None:
    """Whatever comes instead of a number: nothing is stored, nothing is raised, others go on."""
    with world(tmp_path, history_days=1) as w:
        w.look(NOW_MS + MINUTE_MS)
        empty = Fault(200, json.dumps({"code": "00000", "data": {"openInterestList": []}}))
        odd = {"openInterestList": [{"symbol": "BTCUSDT", "size": "-1"}], "ts": "1"}
        below = Fault(200, json.dumps({"code": "00000", "data": odd}))
        for n, faults in enumerate(([DOWN] * TRIES, [REFUSED], [empty], [below]), start=1):
            w.server.disturb(*faults, where="open-interest")
            w.look(NOW_MS + n * 15 * MINUTE_MS)
        assert {symbol for symbol, _, _ in interest(w)} == {TWO}
        assert len(interest(w)) == 4


def test_contracts_are_counted_in_base_units() -> None:
    """Where a contract is a hundredth of a coin, so is its open interest."""
    client = ccxt.bitget({"has": {"fetchCurrencies": False}})
    client.markets = {ONE: {"contractSize": 0.01}}

    def call(what: str, request: Any) -> Any:
        assert ONE in what
        return request(client)

    client.fetch_open_interest = lambda _: {"openInterestAmount": 500.0}

    assert ccxt_stats.open_interest_qty(client, call, ONE) == 5.0


def test_records_are_stored_once_a_day_and_a_change_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list is asked for anew, not taken from what the client remembers."""
    from tests import bitget_pages

    with world(tmp_path, history_days=1) as w:
        w.look(NOW_MS)
        first = store.market_of(w.app.db, "bitget", ONE)
        assert (first.tick, first.min_qty, first.taker_frac) == (0.5, 0.01, 0.0006)
        plain = bitget_pages._swap_record
        monkeypatch.setattr(
            bitget_pages, "_swap_record", lambda s: {**plain(s), "takerFeeRate": "0.0008"}
        )
        w.server.requests.clear()
        w.look(NOW_MS + 15 * HOUR_MS)
        assert w.server.asked("contracts") == []
        w.look(NOW_MS + 16 * HOUR_MS)  # midnight
        assert store.market_of(w.app.db, "bitget", ONE).taker_frac == 0.0008
        kept = w.app.db.rows(
            "SELECT symbol, json_extract(before, '$.taker_frac') FROM market_changes ORDER BY 1"
        )
        assert kept == [(ONE, 0.0006), (TWO, 0.0006)]


def test_what_is_not_read_in_time_is_left_for_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next minute does not wait for a slow exchange; newest funding that is missing is said."""
    with world(tmp_path) as w:
        with monkeypatch.context() as patch:
            patch.setattr(market_stats, "BUDGET_S", 0.0)
            with pytest.raises(ExchangeUnavailable, match="funding of 2 symbols"):
                w.look(NOW_MS)
        assert w.server.asked("history-fund-rate") == w.server.asked("open-interest") == []
        w.look(NOW_MS + MINUTE_MS)
        assert w.rates(ONE) == wanted(w, ONE, 350)


def test_many_lanes_read_what_one_reads(tmp_path: Path) -> None:
    """Several requests at once: the same rates, interest and records; nothing is asked twice."""
    found = []
    for n_lanes in (1, 8):
        with world(tmp_path / str(n_lanes)) as w:
            w.n_lanes = n_lanes
            connect(w)
            for minute in (0, 1, 15, 16):
                w.look(NOW_MS + minute * MINUTE_MS)
            asked = [sorted(w.asked(symbol)) for symbol in (ONE, TWO)]
            found.append((w.rates(ONE), w.rates(TWO), interest(w), asked))
    assert found[0] == found[1]
    assert len(found[0][0]) >= 1000


def test_a_silent_perpetual_costs_the_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one hangs the rest is read, the minute goes on, and the one is said."""
    monkeypatch.setattr(market_stats, "BUDGET_S", 1.0)
    with world(tmp_path, history_days=1) as w:
        w.n_lanes = 8
        connect(w)
        w.app.market()[0].markets((ONE, TWO))
        w.server.vices = Silent("BTCUSDT")
        with pytest.raises(ExchangeUnavailable, match="funding of 1 symbols"):
            w.look(NOW_MS)
        assert w.rates(TWO) == wanted(w, TWO, 0)
        w.server.closing.set()


class Silent:
    """Never answers for the funding of one symbol."""

    def __init__(self, name: str) -> None:
        self.name = name

    def strike(self, path: str, query: Any) -> Fault | None:
        is_meant = "history-fund-rate" in path and query.get("symbol") == self.name
        return Fault(manner="hold", for_s=60.0) if is_meant else None

    def spoil(self, path: str, query: Any, rows: list[Any]) -> list[Any]:  # noqa: ARG002
        return rows


def funding_file(folder: Path, rates: list[tuple[int, float]]) -> Path:
    """A file of rates of ONE."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "BTC_USDT_USDT-funding.parquet"
    columns = {"timestamp": [t for t, _ in rates], "funding_rate": [rate for _, rate in rates]}
    pq.write_table(pa.table(columns), path)
    return path


def test_files_of_funding_are_imported_once_beside_what_the_exchange_said(tmp_path: Path) -> None:
    """Unsorted and with damaged rows; the exchange's own rates stay."""
    with world(tmp_path / "engine", history_days=1) as w:
        w.look(NOW_MS)
        own = w.rates(ONE)
        old = [(NOW_MS - 40 * DAY_MS - i * 8 * HOUR_MS, 1e-4 * i) for i in range(5)]
        path = funding_file(tmp_path / "files", [*old, (own[0][0], 0.1), (NOW_MS, 0.3)])
        report = market_stats.import_funding(w.app, [tmp_path / "files"])
        assert [(row["rows"], row["new"], row["refused"]) for row in report] == [
            (6, 5, {"no_rate": 1})
        ]
        assert report[0]["first_ms"] == old[-1][0]
        assert w.rates(ONE) == [*old[::-1], *own]
        assert market_stats.import_funding(w.app, [path])[0]["new"] == 0
        path.write_bytes(b"no parquet")
        with pytest.raises(DataError, match="cannot be read"):
            market_stats.import_funding(w.app, [path])


@pytest.mark.skipif(not FILES.is_dir(), reason="no recorded funding beside the project")
def test_recorded_funding_is_imported_whole(tmp_path: Path) -> None:
    """Four perpetuals, none refused."""
    app = opened(write_config(tmp_path))
    report = market_stats.import_funding(app, [FILES])
    assert [row["symbol"].split("/")[0] for row in report] == ["BNB", "BTC", "ETH", "SOL"]
    assert [row["new"] for row in report] == [962, 5819, 962, 962]
    assert [row["refused"] for row in report] == [{}] * 4
    app.close()
