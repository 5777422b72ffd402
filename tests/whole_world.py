"""The whole product in a world where everything goes wrong at times, and the child that runs it."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from core import candle_files
from core.candle_law import holes_in
from core.domain import Candles, FundingRate
from core.jobs import files, market_stats, retro, sync
from core.store import open_reader
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from tests.bitget_server import DOWN, BitgetServer, Fault, serving
from tests.engine_world import opened, part, write_config
from tests.outbox_world import CANARY
from tests.replay_world import market
from tests.shared_time import SharedTime
from tests.telegram_server import Bot, bot_server
from tests.vices import Story, holed
from tests.vices_world import BTC, ETH, SPOT, wild

ROOT = Path(__file__).parents[1]
WAIT_S = 300.0  # for anything that must come in the end
CALM_MS = 90 * MINUTE_MS  # at the end nothing more goes wrong
HISTORY_DAYS = 12
COOLDOWN_MINUTES = 30  # the guards' only memory here
LATE_MAX_MS = 25 * MINUTE_MS
SETTINGS: dict[str, Any] = {
    "symbols": [BTC, ETH, SPOT],
    "timeframes": ["15m"],
    "incremental": {"run_seconds": 1, "overlap_candles": 50},
    "signals": {
        "lookback_candles": 60,
        "min_tp_net_pct": 0.1,
        "max_cost_r": 5.0,
        "fibo": {"piv_window": 2, "min_impulse_atr": 1.0},
    },
    "execution": {"delivery_delay_s": 240},
    "guards": {
        "cooldown_minutes": COOLDOWN_MINUTES,
        **dict.fromkeys(
            ("max_open", "max_open_per_side", "max_drawdown_r", "max_consecutive_stops"), 0
        ),
    },
    "models": {"meta": {"enabled": False}},
}
BOT_FAULTS = ("429:1", "429:3", "500", "html", "reset", "late_reset", "hang", "hang_lost")


class Weather:
    """A Disturber that is calm, bad or down."""

    def __init__(self, seed: int) -> None:
        self.vices = wild(seed, p_transport=0.2, p_page=0.3)
        self.vices.is_on = False
        self.is_down = False
        self.n_down = 0

    def strike(self, path: str, query: Mapping[str, str]) -> Fault | None:
        """Return what the vices say, or that nobody is there."""
        if self.is_down:
            self.n_down += 1
            return DOWN
        return self.vices.strike(path, query)

    def spoil(self, path: str, query: Mapping[str, str], rows: list[Any]) -> list[Any]:
        """Return what the vices leave of some rows."""
        return self.vices.spoil(path, query, rows)


@dataclass
class Engine:
    """The scheduler's process, started again whenever it ends: what systemd does."""

    config: Path
    time_file: Path
    shared: SharedTime
    process: subprocess.Popen[bytes] | None = None
    n_starts: int = 0
    died: Counter[str] = field(default_factory=Counter)

    @property
    def log(self) -> Path:
        """What it wrote on stderr."""
        return self.config.parent / "stderr.txt"

    def start(self) -> None:
        """Start it."""
        command = [sys.executable, "-m", "tests.fast_scheduler", str(self.time_file)]
        command += ["--config", str(self.config), "--log-level", "warning"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=log, cwd=ROOT
            )
        self.n_starts += 1

    def tended(self) -> None:
        """Start it again where it ended by itself; a wrong configuration it must not end of."""
        assert self.process is not None
        code = self.process.poll()
        if code is None:
            return
        assert code == 1, self.said()
        self.died[self.said().strip().rpartition("\n")[2][:100]] += 1
        self.start()

    def end(self, number: int) -> int:
        """Send it a signal; returns its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(WAIT_S)
        self.shared["is_busy"] = 0
        return code

    def said(self) -> str:
        """The last of what it wrote."""
        return self.log.read_text(errors="replace")[-4000:]


@dataclass
class Whole:
    """A prepared engine, its exchange, its owner's phone and its time; `split_ms`: now.

    `story` is what the market will have been. `injected` counts what was done to it all, by kind.
    """

    config: Path
    server: BitgetServer
    weather: Weather
    bot: Bot
    shared: SharedTime
    engine: Engine
    story: Story
    funding: dict[str, list[FundingRate]]
    split_ms: int
    end_ms: int
    skew_ms: int = 0
    guards_edited_ms: int = 1 << 60
    injected: Counter[str] = field(default_factory=Counter)

    @property
    def database(self) -> Path:
        """Where the database lies."""
        return self.config.with_name("ohlcv.db")

    @property
    def twin(self) -> Path:
        """The settings of a copy that nothing has happened to yet."""
        return self.config.parent.parent / "clean" / "config.yaml"

    def asked(self, sql: str) -> Any:
        """Return a value of the database, as a reader beside the scheduler sees it."""
        with open_reader(self.database) as db:
            db.rows("PRAGMA busy_timeout = 5000")
            return db.value(sql)

    def until(self, holds: Callable[[], Any], what: str) -> None:
        """Wait until something holds while the engine is looked after."""
        deadline = time.monotonic() + WAIT_S
        while not holds():
            self.engine.tended()
            assert time.monotonic() < deadline, (what, self.engine.said())
            time.sleep(0.01)

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the settings as an editor does: the file is replaced."""
        settings = json.loads(self.config.read_text())
        change(settings)
        self.write(json.dumps(settings))

    def write(self, text: str) -> None:
        """Replace the settings."""
        partial = self.config.with_name("config.new")
        partial.write_text(text)
        partial.replace(self.config)


def tale(days: float, seed: int, split_ms: int, *, until_ms: int) -> tuple[Story, int]:
    """Return the market of some days with its holes, and the first instant of its history."""
    n_days = HISTORY_DAYS + int(days) + 2
    bars = market(3, n_days, seed)
    names = {"SOL/USDT:USDT": SPOT}
    truth = {names.get(symbol, symbol): one for symbol, one in bars.items()}
    shift = split_ms - (int(truth[BTC].ts_ms[0]) + HISTORY_DAYS * DAY_MS)
    truth = {s: _moved(one, shift) for s, one in truth.items()}
    rng = random.Random(seed)
    every_ms = 4 * HOUR_MS
    for slot_ms in range(split_ms + HOUR_MS, until_ms - CALM_MS - every_ms, every_ms):
        low = slot_ms + rng.randrange(180) * MINUTE_MS
        if rng.random() < 0.7:
            some, n = [rng.choice(list(truth))], rng.randrange(1, 4)
        else:
            some, n = list(truth), rng.randrange(1, 21)
        run = low, low + n * MINUTE_MS
        truth = {s: holed(one, run) if s in some else one for s, one in truth.items()}
    truth = {s: part(one, 0, until_ms + HOUR_MS) for s, one in truth.items()}
    return Story(truth, {s: _holes(truth, s, split_ms, until_ms) for s in truth}), (
        split_ms - HISTORY_DAYS * DAY_MS
    )


def _moved(bars: Candles, by_ms: int) -> Candles:
    return Candles(bars.timeframe, bars.ts_ms + by_ms, *bars.columns()[1:])


def _holes(
    truth: Mapping[str, Candles], symbol: str, start_ms: int, end_ms: int
) -> list[tuple[int, int, str]]:
    """Return the holes of a symbol, and what each is: five minutes while others trade, or worse."""
    found = []
    others = np.concatenate([bars.ts_ms for name, bars in truth.items() if name != symbol])
    for low, high in holes_in(truth[symbol], start_ms=start_ms, end_ms=end_ms):
        traded = all(ts_ms in others for ts_ms in range(low, high, MINUTE_MS))
        is_quiet = traded and high - low <= 5 * MINUTE_MS
        found.append((low, high, "no_trades" if is_quiet else "missing"))
    return found


def rates(start_ms: int, end_ms: int, seed: int) -> dict[str, list[FundingRate]]:
    """Return the settlements of the perpetuals."""
    rng = random.Random(seed)
    settled = range(start_ms - start_ms % (8 * HOUR_MS), end_ms, 8 * HOUR_MS)
    return {
        symbol: [FundingRate(ts_ms, round(rng.gauss(1e-4, 1e-4), 6)) for ts_ms in settled]
        for symbol in (BTC, ETH)
    }


@contextmanager
def whole_world(folder: Path, *, days: float, seed: int) -> Iterator[Whole]:
    """Prepare a database that knows the past, twice, and the servers beside it."""
    split_ms = int(datetime(2024, 6, 3, tzinfo=UTC).timestamp()) * 1000
    end_ms = split_ms + int(days * DAY_MS) + CALM_MS
    story, first_ms = tale(days, seed, split_ms, until_ms=end_ms)
    folder.mkdir(parents=True, exist_ok=True)
    shared, weather = SharedTime(folder / "time"), Weather(seed)
    shared["market_ms"] = split_ms + 1000
    funding = rates(first_ms, end_ms + DAY_MS, seed)
    server = BitgetServer(story.truth, funding=funding, vices=weather)
    with ExitStack() as stack:
        stack.enter_context(serving(server))
        bot = stack.enter_context(bot_server(CANARY))
        config = _prepared(folder / "live", server, bot, funding, first_ms, split_ms, shared)
        shutil.copytree(folder / "live", folder / "clean")
        engine = Engine(config, folder / "time", shared)
        made = Whole(config, server, weather, bot, shared, engine, story, funding, split_ms, end_ms)
        server.now_ms = lambda: shared["market_ms"] + made.skew_ms
        try:
            yield made
        finally:
            if engine.process is not None and engine.process.poll() is None:
                engine.end(signal.SIGKILL)


def _prepared(
    folder: Path,
    server: BitgetServer,
    bot: Bot,
    funding: Mapping[str, list[FundingRate]],
    first_ms: int,
    split_ms: int,
    shared: SharedTime,
) -> Path:
    """Import and scan what lies before `split_ms`."""
    server.now_ms = lambda: shared["market_ms"]
    path = _configured(folder, server, bot, first_ms=first_ms)
    history = folder.parent / "history"
    for symbol, bars in server.truth.items():
        candle_files.write(history / candle_files.name_of(symbol, "1m"), part(bars, 0, split_ms))
    app = opened(path)
    sync.refresh_markets(app, now_ms=split_ms)
    files.import_files(app, [history], origin="bitget")
    with app.db.write():
        for symbol, settled in funding.items():
            known = [one for one in settled if one.ts_ms < split_ms]
            market_stats.store_funding(app.db, "bitget", symbol, known)
    retro.retro_scan(app, start_ms=first_ms, end_ms=split_ms, workers=1)
    app.close()
    return path


def _configured(folder: Path, server: BitgetServer, bot: Bot, *, first_ms: int) -> Path:
    """Write the settings."""
    telegram = {
        "enabled": True, "bot_token": CANARY, "chat_id": 42, "api_base": bot.base, "send": "all",
    }  # fmt: skip
    client = {**server.ccxt(), "timeout": 500}
    return write_config(
        folder,
        exchange={"id": "bitget", "rate_limit_ms": 20, "ccxt": client},
        backfill={"start_date": str(datetime.fromtimestamp(first_ms / 1000, UTC).date())},
        notify={"console": False, "digest_hour": 18, "telegram": telegram},
        **SETTINGS,
    )
