"""How much of the permitted request rate a download uses: the exchange answers after 200 ms.

A loopback exchange in a process of its own notes when each request arrives; the yardstick is the
limit, and one request after the other.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request

from benchmarks import yard
from core.config import config_from
from core.domain import Series
from core.exchange.ccxt_adapter import CcxtExchange
from core.jobs.fetching import Want, final_candles
from core.timeframe import HOUR_MS, floor_ms

DELAY_MS = 200
PER_SECOND = 20
N_REQUESTS = 300
_SYMBOL = "BTC/USDT:USDT"


def tables() -> list[yard.Table]:
    """Measure with all lanes and with one."""
    rows = []
    for name, n_lanes, n in (("all lanes", 0, N_REQUESTS), ("one lane", 1, N_REQUESTS // 6)):
        rate = _rate(n, n_lanes=n_lanes)
        rows.append(
            {
                "figure": name,
                "ours": f"{rate:.1f} requests/s",
                "yardstick": f"{PER_SECOND} requests/s",
                "ratio": f"{rate / PER_SECOND:.0%}",
                "beside": "what the exchange permits",
            }
        )
    return [yard.Table(f"the permitted rate at {DELAY_MS} ms a reply", rows)]


def _rate(n: int, *, n_lanes: int) -> float:
    """Return the requests a second that reached the exchange."""
    command = [sys.executable, "-m", "tests.bitget_server", "--symbols", "1", "--days", "15"]
    command += ["--delay-ms", str(DELAY_MS)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().strip() if server.stdout else ""
        settings = {
            "id": "bitget",
            "rate_limit_ms": 1000 // PER_SECOND,
            "ccxt": {"urls": {"api": dict.fromkeys(("spot", "mix", "common", "margin"), url)}},
        }
        exchange = CcxtExchange.open(config_from({"exchange": settings, "symbols": [_SYMBOL]}))
        exchange.n_lanes = n_lanes or exchange.n_lanes
        now_ms = floor_ms(time.time_ns() // 1_000_000, HOUR_MS)
        starts = [now_ms - (i + 1) * HOUR_MS for i in range(n)]
        wants = [Want(Series("bitget", _SYMBOL, "1m"), at, at + HOUR_MS) for at in starts]
        list(final_candles(exchange, wants, now_ms=now_ms))
        exchange.close()
        with urllib.request.urlopen(f"{url}/_requests", timeout=10) as answer:
            asked = [row["at_s"] for row in json.load(answer) if "candles" in row["path"]]
        return float((len(asked) - 1) / (max(asked) - min(asked)))
    finally:
        server.terminate()
        server.wait(10)
