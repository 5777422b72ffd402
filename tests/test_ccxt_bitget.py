"""The real ccxt client, through our adapter, against a server with Bitget's format and limits."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ccxt
import numpy as np
import pytest

from core.clock import LiveClock
from core.config import Config, config_from
from core.domain import Candles, FundingRate
from core.errors import ConfigError, ExchangeError, ExchangeUnavailable
from core.exchange import connect, open_exchange
from core.exchange.ccxt_adapter import CcxtExchange
from core.exchange.lanes import PACE_SLACK, TRIES, Pacer
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from tests.bitget_server import (
    CUT,
    DOWN,
    EMPTY,
    HTML,
    NULL,
    RESET,
    TOO_MANY,
    TOO_MANY_HTML,
    BitgetServer,
    Fault,
    serving,
)

SWAP, SPOT = "BTC/USDT:USDT", "ETH/USDT"
NOW_MS = 1_717_243_230_000  # 2024-06-01 12:00:30 UTC: a minute is forming
MINUTE_NOW_MS = 1_717_243_200_000
FIRST_MS = MINUTE_NOW_MS - 45 * DAY_MS


def walk(*, seed: int, first_ms: int = FIRST_MS, last_ms: int = NOW_MS + DAY_MS) -> Candles:
    """Return lawful 1m candles of a random walk with prices that need every bit."""
    rng = np.random.default_rng(seed)
    ts_ms = np.arange(first_ms, last_ms, MINUTE_MS, dtype=np.int64)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-3, len(ts_ms))))
    before = np.concatenate(([100.0], close[:-1]))
    reach = rng.uniform(0, 1e-3, (2, len(ts_ms)))
    high = np.maximum(before, close) * (1 + reach[0])
    low = np.minimum(before, close) * (1 - reach[1])
    return Candles("1m", ts_ms, before, high, low, close, rng.uniform(0, 50, len(ts_ms)))


def part(bars: Candles, start_ms: int, end_ms: int) -> Candles:
    """Return the bars that open in [start_ms, end_ms)."""
    first, last = np.searchsorted(bars.ts_ms, (start_ms, end_ms))
    return bars[int(first) : int(last)]


def without(bars: Candles, start_ms: int, end_ms: int) -> Candles:
    """Return bars with a hole in [start_ms, end_ms)."""
    kept = (bars.ts_ms < start_ms) | (bars.ts_ms >= end_ms)
    ts_ms, *prices = bars.columns()
    return Candles(bars.timeframe, ts_ms[kept], *(column[kept] for column in prices))


def same(left: Candles, right: Candles) -> bool:
    """Say whether two series are equal bit for bit."""
    pairs = zip(left.columns(), right.columns(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def truth() -> dict[str, Candles]:
    """45 days of 1m candles, and a day that has not happened yet."""
    return {SWAP: walk(seed=1), SPOT: walk(seed=2)}


@pytest.fixture
def server(truth: dict[str, Candles]) -> Iterator[BitgetServer]:
    """A Bitget that stands at NOW_MS."""
    with serving(BitgetServer(dict(truth), now_ms=lambda: NOW_MS)) as bitget:
        yield bitget


def config(server: BitgetServer, **exchange: Any) -> Config:
    """Return settings that point ccxt at the server."""
    settings = {"id": "bitget", "rate_limit_ms": 1, "ccxt": server.ccxt(), **exchange}
    return config_from({"exchange": settings, "symbols": [SWAP]})


def adapter(server: BitgetServer, waits: list[float] | None = None) -> CcxtExchange:
    """Return our adapter of the server; it notes its waits instead of waiting."""
    waited = waits if waits is not None else []
    return CcxtExchange.open(config(server), sleep=waited.append, rng=random.Random(7))


@pytest.mark.parametrize("end_counts", [False, True])
@pytest.mark.parametrize("symbol", [SWAP, SPOT])
def test_old_history_arrives_whole_and_bit_for_bit(
    server: BitgetServer, truth: dict[str, Candles], symbol: str, end_counts: bool
) -> None:
    """Days of 1m older than a month equal the truth, whether or not endTime counts."""
    server.end_counts = end_counts
    start_ms, end_ms = FIRST_MS + HOUR_MS, FIRST_MS + HOUR_MS + 3 * DAY_MS
    got = adapter(server).candles(symbol, "1m", start_ms=start_ms, end_ms=end_ms)
    assert len(got) == 3 * 1440
    assert same(got, part(truth[symbol], start_ms, end_ms))
    pages = server.asked("history-candles")
    assert len(pages) == len(server.asked("candles")) == 22  # 4320 bars, 199 new ones a page
    assert max(int(page["limit"]) for page in pages) <= 200


@pytest.mark.parametrize("end_counts", [False, True])
def test_windows_of_every_size_are_exact(
    server: BitgetServer, truth: dict[str, Candles], end_counts: bool
) -> None:
    """A window of n bars gives those n bars, on both sides of the endpoints' border in time."""
    server.end_counts = end_counts
    exchange = adapter(server)
    for age_days in (40, 29, 28, 1):
        for n_bars in (1, 2, 198, 199, 200, 201, 399):
            start_ms = MINUTE_NOW_MS - age_days * DAY_MS - 100 * MINUTE_MS
            end_ms = start_ms + n_bars * MINUTE_MS
            got = exchange.candles(SWAP, "1m", start_ms=start_ms, end_ms=end_ms)
            assert same(got, part(truth[SWAP], start_ms, end_ms)), (age_days, n_bars)
    assert server.asked("market/candles")
    assert server.asked("history-candles")


def test_a_large_batch_limit_does_not_reach_the_trap(
    server: BitgetServer, truth: dict[str, Candles]
) -> None:
    """An owner may ask for pages of 1000; Bitget's old candles still come whole."""
    settings = config_from({**config(server).model_dump(), "backfill": {"batch_limit": 1000}})
    exchange = CcxtExchange.open(settings)
    end_ms = FIRST_MS + 1000 * MINUTE_MS
    assert exchange.page_bars("1m", start_ms=FIRST_MS, now_ms=NOW_MS) == 199
    got = exchange.candles(SWAP, "1m", start_ms=FIRST_MS, end_ms=end_ms)
    assert same(got, part(truth[SWAP], FIRST_MS, end_ms))


def test_a_large_limit_on_old_candles_is_the_trap_the_adapter_avoids(server: BitgetServer) -> None:
    """Asked for 1000 old bars, ccxt gives the last 200 of them, without a word."""
    client = ccxt.bitget(server.ccxt())
    start_ms = FIRST_MS + HOUR_MS
    client.milliseconds = lambda: NOW_MS
    rows = client.fetch_ohlcv(SWAP, "1m", start_ms, 1000, {"until": start_ms + 1000 * MINUTE_MS})
    assert len(rows) == 200
    assert rows[0][0] - start_ms >= 799 * MINUTE_MS
    got = adapter(server).candles(SWAP, "1m", start_ms=start_ms, end_ms=start_ms + 1000 * MINUTE_MS)
    assert len(got) == 1000


def test_a_hole_wider_than_a_page_is_walked_over(truth: dict[str, Candles]) -> None:
    """What lies beyond an outage of hours arrives; nothing is invented inside it."""
    hole_ms = FIRST_MS + 2 * HOUR_MS
    holed = without(truth[SWAP], hole_ms, hole_ms + 10 * HOUR_MS)
    with serving(BitgetServer({SWAP: holed}, now_ms=lambda: NOW_MS)) as server:
        end_ms = FIRST_MS + DAY_MS
        got = adapter(server).candles(SWAP, "1m", start_ms=FIRST_MS - DAY_MS, end_ms=end_ms)
        n_requests = len(server.asked("candles"))
    assert len(got) == 14 * 60
    assert n_requests <= 2 * (2 * 1440 // 199 + 3)  # an empty page costs two requests
    assert same(got, part(holed, FIRST_MS, end_ms))


def test_unlawful_rows_do_not_become_bars(truth: dict[str, Candles]) -> None:
    """A row whose high lies under its low is left out; its neighbours stay."""
    bars = part(truth[SWAP], FIRST_MS, FIRST_MS + HOUR_MS)
    high = bars.high.copy()
    high[10] = bars.low[10] / 2
    broken = dataclasses.replace(bars, high=high)
    with serving(BitgetServer({SWAP: broken}, now_ms=lambda: NOW_MS)) as server:
        got = adapter(server).candles(SWAP, "1m", start_ms=FIRST_MS, end_ms=FIRST_MS + HOUR_MS)
    assert len(got) == 59
    assert FIRST_MS + 10 * MINUTE_MS not in got.ts_ms


def test_the_forming_bar_is_served_raw_and_only_it(
    server: BitgetServer, truth: dict[str, Candles]
) -> None:
    """A window past now ends with the forming bar; every bar before it is final."""
    start_ms = MINUTE_NOW_MS - 10 * MINUTE_MS
    exchange = adapter(server)
    got = exchange.candles(SWAP, "1m", start_ms=start_ms, end_ms=NOW_MS + HOUR_MS)
    want = part(truth[SWAP], start_ms, NOW_MS)
    assert len(got) == 11
    assert got.closed_by(exchange.server_time_ms()) == 10
    assert same(got[:10], want[:10])
    assert got.close[10] == want.open[10] != want.close[10]
    assert len(server.asked("market/candles")) == 1


def test_ccxt_goes_by_the_clock_of_the_exchange(
    truth: dict[str, Candles],
) -> None:
    """With the server in 2024 and the machine today, recent bars come from the recent endpoint."""
    with serving(BitgetServer(dict(truth), now_ms=lambda: NOW_MS)) as server:
        start_ms = MINUTE_NOW_MS - 5 * MINUTE_MS
        got = adapter(server).candles(SWAP, "1m", start_ms=start_ms, end_ms=MINUTE_NOW_MS)
        assert same(got, part(truth[SWAP], start_ms, MINUTE_NOW_MS))
        assert not server.asked("history-candles")


def test_the_future_is_empty_without_a_request(server: BitgetServer) -> None:
    """A window that starts after the forming bar is empty; Bitget would refuse it."""
    start_ms = MINUTE_NOW_MS + 2 * MINUTE_MS
    got = adapter(server).candles(SWAP, "1m", start_ms=start_ms, end_ms=start_ms + HOUR_MS)
    assert len(got) == 0
    assert not server.asked("candles")


def test_markets_carry_tick_step_minimums_and_fees(server: BitgetServer) -> None:
    """Swap and spot records become ours; a symbol that is not listed is absent."""
    found = adapter(server).markets((SWAP, SPOT, "NO/USDT", "NO/USDT:USDT"))
    assert set(found) == {SWAP, SPOT}
    swap, spot = found[SWAP], found[SPOT]
    assert (swap.kind, swap.tick, swap.step, swap.min_qty) == ("swap", 0.5, 0.01, 0.01)
    assert (swap.min_cost_usd, swap.maker_frac, swap.taker_frac) == (5.0, 0.0002, 0.0006)
    assert (spot.kind, spot.tick, spot.step, spot.min_qty) == ("spot", 0.01, 1e-6, 1e-4)
    assert (spot.min_cost_usd, spot.maker_frac, spot.taker_frac) == (1.0, 0.001, 0.002)
    assert swap.active
    assert not swap.fallback


def test_only_the_market_lists_that_are_needed_are_asked_for(server: BitgetServer) -> None:
    """With perpetuals alone neither spot nor currency lists are read, and each list once."""
    exchange = adapter(server)
    exchange.markets((SWAP,))
    exchange.candles(SWAP, "1m", start_ms=FIRST_MS, end_ms=FIRST_MS + HOUR_MS)
    assert not server.asked("spot")
    assert len(server.asked("contracts")) == 6  # one per product type
    assert len(server.asked("public/time")) == 1
    exchange.markets((SPOT,))
    assert len(server.asked("spot/public/symbols")) == 1


def test_an_exchange_without_fixed_steps_gets_the_step_its_prices_show(
    truth: dict[str, Candles],
) -> None:
    """Where precision means significant digits, the tick is observed and the record says so."""
    bars = part(truth[SWAP], FIRST_MS, NOW_MS)
    o, high, low, close = (np.round(column * 20) / 20 for column in bars.columns()[1:5])
    known = Candles("1m", bars.ts_ms, o, high, low, close, bars.volume)
    with serving(BitgetServer({SWAP: known}, now_ms=lambda: NOW_MS)) as server:
        exchange = adapter(server)
        exchange._client.precisionMode = ccxt.SIGNIFICANT_DIGITS
        market = exchange.markets((SWAP,))[SWAP]
    assert (market.tick, market.fallback) == (0.05, True)


def test_funding_comes_from_all_pages_in_order(truth: dict[str, Candles]) -> None:
    """Settlements of 60 days, more than a page, arrive once each; spot has none."""
    rates = [FundingRate(MINUTE_NOW_MS - i * 8 * HOUR_MS, 1e-5 * i) for i in range(300)][::-1]
    bitget = BitgetServer(dict(truth), now_ms=lambda: NOW_MS, funding={SWAP: rates})
    with serving(bitget) as server:
        exchange = adapter(server)
        start_ms, end_ms = NOW_MS - 60 * DAY_MS, NOW_MS - DAY_MS
        got = exchange.funding(SWAP, start_ms=start_ms, end_ms=end_ms)
        assert exchange.funding(SPOT, start_ms=start_ms, end_ms=end_ms) == []
    assert got == [rate for rate in rates if start_ms <= rate.ts_ms < end_ms]
    assert len(got) == 59 * 3


@pytest.mark.parametrize(
    "fault",
    [TOO_MANY, TOO_MANY_HTML, DOWN, RESET, HTML, EMPTY, CUT, NULL],
    ids=["429", "429-html", "503", "reset", "html", "empty", "cut", "null"],
)
def test_a_disturbance_that_passes_is_retried(
    server: BitgetServer, truth: dict[str, Candles], fault: Fault
) -> None:
    """Two bad answers, then the truth: the caller sees only the truth, after growing waits."""
    waits: list[float] = []
    exchange = adapter(server, waits)
    exchange.markets((SWAP,))
    waits.clear()
    server.disturb(fault, fault, where="candles")
    got = exchange.candles(SWAP, "1m", start_ms=FIRST_MS, end_ms=FIRST_MS + HOUR_MS)
    assert same(got, part(truth[SWAP], FIRST_MS, FIRST_MS + HOUR_MS))
    assert len(server.asked("candles")) == 3
    backoffs = [wait for wait in waits if wait >= 0.25]
    assert len(backoffs) == 2
    assert 0.25 <= backoffs[0] <= 0.5 <= backoffs[1] <= 1.0


@pytest.mark.parametrize("fault", [DOWN, TOO_MANY, RESET, CUT], ids=["503", "429", "reset", "cut"])
def test_a_disturbance_that_stays_is_unavailable(server: BitgetServer, fault: Fault) -> None:
    """After the last try the caller learns that the exchange cannot be reached, and why."""
    exchange = adapter(server)
    exchange.markets((SWAP,))
    server.disturb(*[fault] * TRIES, where="candles")
    with pytest.raises(ExchangeUnavailable) as caught:
        exchange.candles(SWAP, "1m", start_ms=FIRST_MS, end_ms=FIRST_MS + HOUR_MS)
    assert isinstance(caught.value.__cause__, ccxt.NetworkError)
    assert len(server.asked("candles")) == TRIES


def test_a_damaged_market_list_is_not_kept(server: BitgetServer) -> None:
    """A cut market list is read again, instead of making every symbol unknown."""
    server.disturb(CUT, where="contracts")
    assert SWAP in adapter(server).markets((SWAP,))


@pytest.mark.parametrize("symbol", ["NO/USDT", "NO/USDT:USDT"])
def test_an_unknown_symbol_is_named(server: BitgetServer, symbol: str) -> None:
    """A symbol that is not listed is an error with its name, not worth a retry."""
    waits: list[float] = []
    with pytest.raises(ExchangeError, match=symbol) as caught:
        adapter(server, waits).candles(symbol, "1m", start_ms=FIRST_MS, end_ms=FIRST_MS + HOUR_MS)
    assert not isinstance(caught.value, ExchangeUnavailable)
    assert not [wait for wait in waits if wait >= 0.25]


def test_a_delisted_symbol_is_an_error(server: BitgetServer) -> None:
    """A refusal by code (removed since the market list was read) is not retried."""
    exchange = adapter(server)
    exchange.markets((SPOT,))
    server.truth = {SWAP: server.truth[SWAP]}
    with pytest.raises(ExchangeError, match="40034") as caught:
        exchange.candles(SPOT, "1m", start_ms=FIRST_MS, end_ms=FIRST_MS + HOUR_MS)
    assert not isinstance(caught.value, ExchangeUnavailable)


def test_server_time_and_the_live_clock(server: BitgetServer) -> None:
    """The market's time is the exchange's, whatever this machine's clock says."""
    exchange, clock = connect(config(server), resume_ms=None)
    assert exchange.server_time_ms() == NOW_MS
    assert isinstance(clock, LiveClock)
    assert 0 <= clock.now_ms() - NOW_MS < MINUTE_MS


def test_a_live_exchange_that_is_down_at_the_start_is_unavailable(server: BitgetServer) -> None:
    """Without a first reading of the exchange's time there is no clock."""
    server.disturb(*[DOWN] * TRIES)
    exchange = adapter(server)
    with pytest.raises(ExchangeUnavailable):
        LiveClock(exchange.server_time_ms)


def test_threads_share_one_adapter(server: BitgetServer, truth: dict[str, Candles]) -> None:
    """Four threads on one client get their own windows, and the market list is read once."""
    exchange = adapter(server)
    starts = [FIRST_MS + i * DAY_MS for i in range(12)]

    def window(start_ms: int) -> Candles:
        return exchange.candles(SWAP, "1m", start_ms=start_ms, end_ms=start_ms + 12 * HOUR_MS)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(window, starts))
    assert len(found) == 12
    for start_ms, got in zip(starts, found, strict=True):
        assert same(got, part(truth[SWAP], start_ms, start_ms + 12 * HOUR_MS))
    assert len(server.asked("contracts")) == 6


def test_an_unknown_exchange_is_refused_with_the_nearest_name(server: BitgetServer) -> None:
    """A misspelt id is a configuration error."""
    with pytest.raises(ConfigError, match="bitget"):
        open_exchange(config(server, id="bitgett"))


def test_the_pacer_gives_each_request_its_own_slot() -> None:
    """Five requests at once are spread one interval apart; after a pause none waits."""
    now_s, waits = [100.0], []

    def sleep(for_s: float) -> None:
        waits.append(round(for_s, 9))
        now_s[0] += for_s + 0.001  # no sleep ends on time, and none is made up for

    pacer = Pacer(0.05, monotonic=lambda: now_s[0], sleep=sleep)
    for _ in range(5):
        pacer.take()
    apart_s = 0.05 * PACE_SLACK
    assert waits == [pytest.approx(apart_s)] * 4
    now_s[0] = 200.0
    pacer.take()
    assert len(waits) == 4
    pacer.hold(3.0)
    pacer.take()
    assert waits[4] == pytest.approx(3.0)


def test_every_request_is_paced(server: BitgetServer) -> None:
    """The limiter sees each HTTP request, those of the market list included."""
    waits: list[float] = []
    settings = config(server, rate_limit_ms=60_000)
    exchange = CcxtExchange.open(settings, sleep=waits.append)
    exchange.markets((SWAP,))
    assert len(server.requests) == 7
    assert len(waits) == 6


def test_a_limit_that_pages_show_is_learnt_for_its_timeframe_alone(
    truth: dict[str, Candles],
) -> None:
    """Cut to 90 bars, twice: windows grow shorter, all bars arrive, and 1d is asked as ever."""
    bitget = BitgetServer(dict(truth), now_ms=lambda: NOW_MS)
    whole = bitget.bars

    def cut(symbol: str, timeframe: str, *, at_most: int, **window: int) -> Candles:
        return whole(symbol, timeframe, at_most=min(at_most, 90), **window)

    bitget.bars = cut  # type: ignore[method-assign]
    with serving(bitget) as server:
        exchange = adapter(server)
        days = exchange.page_bars("1d", start_ms=FIRST_MS, now_ms=NOW_MS)
        end_ms = FIRST_MS + 2 * DAY_MS
        got = exchange.candles(SWAP, "1m", start_ms=FIRST_MS, end_ms=end_ms)
        assert same(got, part(truth[SWAP], FIRST_MS, end_ms))
        assert 80 <= exchange.page_bars("1m", start_ms=FIRST_MS, now_ms=NOW_MS) <= 90
        assert exchange.page_bars("1d", start_ms=FIRST_MS, now_ms=NOW_MS) == days
