"""The loopback exchange itself: what the tests of the real client stand on."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.domain import Candles
from core.errors import ExchangeError
from core.exchange.ccxt_adapter import CcxtExchange
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS, tf_ms
from tests.bitget_pages import Draft
from tests.bitget_server import DOWN, BitgetServer, serving
from tests.bitget_world import NOW_MS, world
from tests.engine_world import part, same
from tests.vices import PAGES, TRANSPORT, Vices, come_late, holed
from tests.worlds import picked, random_candles

SWAP = "BTC/USDT:USDT"
MIDNIGHT_MS = NOW_MS - 12 * HOUR_MS
LISTED_MS = MIDNIGHT_MS - 3 * DAY_MS + 777 * MINUTE_MS
BARS = random_candles(6 * 1440, seed=3, start_ms=LISTED_MS)
HOLE = (MIDNIGHT_MS - 90 * MINUTE_MS, MIDNIGHT_MS - 7 * MINUTE_MS)


def by_hand(minutes: Candles, timeframe: str) -> list[tuple[float, ...]]:
    """Longer bars of whatever minutes there are, one after the other."""
    bars: list[list[float]] = []
    for ts_ms, o, high, low, close, volume in zip(*minutes.columns(), strict=True):
        open_ms = ts_ms // tf_ms(timeframe) * tf_ms(timeframe)
        if not bars or bars[-1][0] != open_ms:
            bars.append([open_ms, o, high, low, close, 0.0])
        bar = bars[-1]
        bar[2], bar[3], bar[4] = max(bar[2], high), min(bar[3], low), close
        bar[5] += volume
    return [tuple(bar) for bar in bars]


@contextmanager
def asking(folder: Path, bars: Candles = BARS) -> Iterator[tuple[BitgetServer, CcxtExchange]]:
    """A server thirty seconds into a minute, and our client of it."""
    with world(folder, {SWAP: bars}) as w:
        w.at_ms = NOW_MS + 30_000
        exchange, _ = w.app.market()
        assert isinstance(exchange, CcxtExchange)
        exchange.server_time_ms()
        yield w.server, exchange


@pytest.mark.parametrize("timeframe", ["5m", "15m", "1h", "4h", "1d"])
def test_bars_of_every_timeframe_are_made_of_the_minutes_there_are(
    tmp_path: Path, timeframe: str
) -> None:
    """The listing's first bar, one with a hole and the forming one are shown as far as they go."""
    holes = holed(BARS, HOLE)
    minutes = picked(holes, holes.ts_ms <= NOW_MS)
    for column in (minutes.high, minutes.low, minutes.close):
        column[-1] = minutes.open[-1]
    minutes.volume[-1] /= 2
    want = by_hand(minutes, timeframe)
    with asking(tmp_path, holes) as (server, exchange):
        got = exchange.candles(
            SWAP, timeframe, start_ms=MIDNIGHT_MS - 9 * DAY_MS, end_ms=NOW_MS + DAY_MS
        )
        assert server.asked("candles")
    assert [bar[:5] for bar in zip(*got.columns(), strict=True)] == [bar[:5] for bar in want]
    np.testing.assert_allclose(got.volume, [bar[5] for bar in want], rtol=1e-12)


@pytest.mark.parametrize("limit", [1, 3, 50])
def test_the_end_of_a_long_window_is_given(limit: int) -> None:
    """However many minutes a bar has, the last bars are whole."""
    server = BitgetServer({SWAP: holed(BARS, HOLE)}, now_ms=lambda: NOW_MS + 30_000)
    for timeframe in ("1m", "5m", "1h", "1d"):
        every = server.bars(SWAP, timeframe, start_ms=0, end_ms=NOW_MS, at_most=100_000)
        last = server.bars(SWAP, timeframe, start_ms=0, end_ms=NOW_MS, at_most=limit)
        assert len(last) == min(limit, len(every))
        assert same(last, every[len(every) - len(last) :])


def test_a_timeframe_that_is_not_sold_is_refused(tmp_path: Path) -> None:
    """An unknown granularity is an error, not an empty page."""
    with asking(tmp_path) as (_, exchange), pytest.raises(ExchangeError, match="400172"):
        exchange.candles(SWAP, "30m", start_ms=MIDNIGHT_MS, end_ms=NOW_MS)


def test_late_and_draft_candles_change_at_their_instant() -> None:
    """Before it a candle is hidden or other; from then on it is the truth, in longer bars too."""
    now = [0]
    server = BitgetServer({SWAP: BARS}, now_ms=lambda: now[0])
    late_ms, draft_ms = NOW_MS, NOW_MS + MINUTE_MS
    come_late(server, SWAP, late_ms, minutes=5)
    server.drafts[SWAP, draft_ms] = Draft(NOW_MS + 7 * MINUTE_MS, 1.0, 2.0, 0.5, 1.5, 9.0)

    def shown(timeframe: str, at_ms: int) -> Candles:
        now[0] = at_ms
        end_ms = NOW_MS + 3 * MINUTE_MS
        return server.bars(SWAP, timeframe, start_ms=NOW_MS, end_ms=end_ms, at_most=9)

    end_ms = NOW_MS + 7 * MINUTE_MS
    early = shown("1m", NOW_MS + 6 * MINUTE_MS - 1)
    assert early.ts_ms.tolist() == [draft_ms, NOW_MS + 2 * MINUTE_MS]
    assert early.close[0] == 1.5
    assert shown("1m", NOW_MS + 6 * MINUTE_MS).ts_ms.tolist()[0] == late_ms
    assert shown("5m", end_ms - 1).low[0] == 0.5
    assert same(shown("1m", end_ms), part(BARS, NOW_MS, NOW_MS + 3 * MINUTE_MS))
    assert shown("5m", end_ms).low[0] > 0.5


def test_every_request_is_counted_and_every_fault_spent_once() -> None:
    """Thirty threads at once: none lost, none twice."""
    with serving(BitgetServer({SWAP: BARS}, delay_s=0.01)) as server:
        server.disturb(*[DOWN] * 40, where="time")

        def status(n: int) -> int:
            try:
                with urllib.request.urlopen(f"{server.url}/api/v2/public/time?n={n}") as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                return error.code

        with ThreadPoolExecutor(30) as pool:
            found = list(pool.map(status, range(120)))
        assert (found.count(503), found.count(200)) == (40, 80)
        assert sorted(int(query["n"]) for query in server.asked("time")) == list(range(120))
        times = [request.at_s for request in server.requests]
        assert times[0] < times[-1]


def test_vices_are_drawn_from_the_request_not_from_the_order() -> None:
    """The same requests in another order meet the same vices; another seed, others."""
    paths = [("/api/v2/mix/market/candles", {"startTime": str(n)}) for n in range(200)]

    def met(seed: int, order: list[tuple[str, dict[str, str]]]) -> dict[str, Any]:
        vices = Vices(seed, transport=list(TRANSPORT))
        return {query["startTime"]: vices.strike(path, query) for path, query in order}

    assert met(1, paths) == met(1, paths[::-1]) != met(2, paths)


@pytest.mark.parametrize("name", PAGES)
def test_no_candle_is_withheld_more_often_than_allowed(name: str) -> None:
    """At the third reading at the latest every row of a page has been seen."""
    rows = [[str(n * MINUTE_MS), "2", "3", "1", "2", "5", "10"] for n in range(20)]
    vices = Vices(1, pages=[name], p_page=1.0)
    query = {"symbol": "BTCUSDT", "granularity": "1m"}
    seen = {row[0]: 0 for row in rows}
    for _ in range(40):
        spoilt = vices.spoil("candles", query, rows)
        told = {tuple(map(str, map(_number, row))) for row in spoilt[: len(rows)]}
        for row in rows:
            seen[row[0]] += tuple(map(str, map(_number, row))) in told
    assert min(seen.values()) >= 38
    assert vices.n_done[name] >= 2
    assert all(row[1:] == ["2", "3", "1", "2", "5", "10"] for row in rows)


def _number(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def test_it_runs_in_a_process_of_its_own() -> None:
    """The address is on stdout; what it was asked, and when, can be read from outside."""
    command = [sys.executable, "-m", "tests.bitget_server", "--symbols", "2", "--days", "2"]
    command += ["--delay-ms", "20", "--clock-offset-ms", str(-DAY_MS)]
    folder = Path(__file__).parents[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()

            def read(path: str) -> Any:
                with urllib.request.urlopen(url + path) as answer:
                    return json.load(answer)

            page = "/api/v2/mix/market/candles?symbol=ETHUSDT&granularity=1m&limit=50"
            assert len(read(page)["data"]) == 50
            server_ms = int(read("/api/v2/public/time")["data"]["serverTime"])
            assert int(read(page)["data"][-1][0]) <= server_ms
            asked = read("/_requests")
            assert [request["path"].rsplit("/", 1)[1] for request in asked] == [
                "candles",
                "time",
                "candles",
            ]
            assert asked[0]["query"]["limit"] == "50"
            assert asked[0]["at_s"] < asked[1]["at_s"] < asked[2]["at_s"]
            assert len(read("/_requests?from=2")) == 1
        finally:
            process.terminate()
