"""The long-lived process stays small: what it loads, what it gives back, what it holds for long."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from core.absent import unopened
from core.errors import StoreError
from core.jobs import run
from core.store import open_reader, operation
from core.timeframe import MINUTE_MS
from tests import bitget_world
from tests.bitget_server import walks
from tests.champion import enthrone
from tests.held import Held, held_by
from tests.replay_world import market, prepared

ROOT = Path(__file__).parents[1]


def said_by(code: str, *arguments: str, path: Path = ROOT) -> str:
    """What a fresh process prints; modules of `path` come first."""
    env = {"PATH": "", "PYTHONPATH": f"{path}:{ROOT}"}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def package(folder: Path, name: str, **modules: str) -> Path:
    """Write a package of some modules; `init` is its `__init__`."""
    (folder / name).mkdir(parents=True)
    for module, text in modules.items():
        file = "__init__" if module == "init" else module
        (folder / name / f"{file}.py").write_text(text)
    return folder


def test_parts_load_without_the_init_and_are_those_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Imported later, the package runs its `__init__` and holds the very classes."""
    init = "from large_one.part import Part\n"
    monkeypatch.syspath_prepend(package(tmp_path, "large_one", init=init, part="class Part: ..."))
    with unopened("large_one") as hollow:
        part = importlib.import_module("large_one.part")
    assert not hasattr(hollow, "Part")
    assert "large_one" not in sys.modules
    large_one = importlib.import_module("large_one")
    assert large_one.Part is part.Part
    with unopened("large_one") as same:
        assert same is large_one
    assert sys.modules["large_one"] is large_one


def test_a_failure_leaves_no_hollow_package_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is raised meanwhile; and what is not installed is said as Python says it."""
    package(tmp_path, "small_one", init="whole = True")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AttributeError), unopened("small_one") as hollow:
        hollow.whole  # noqa: B018
    assert "small_one" not in sys.modules
    with pytest.raises(ModuleNotFoundError, match="no_such_one"), unopened("no_such_one"):
        pass


HEAVY = ("pandas", "sklearn", "pyarrow", "matplotlib", "scipy.linalg", "scipy.stats", "ccxt")
BEGUN = """
import sys
import core.jobs.scheduler
from core.exchange.ccxt_adapter import client_class
from core.ml import model
model.library_version()
kinds = {name: client_class(name) for name in ("bitget", "okxus", "binanceusdm")}
others = [n for n in sys.modules if n.startswith("ccxt.") and n.count(".") == 1]
print(sorted(others), [name for name in sys.argv[1:] if name in sys.modules])
from ccxt.base import errors
import ccxt
assert all(kind is getattr(ccxt, name) for name, kind in kinds.items())
assert (errors.NetworkError, errors.BadSymbol) == (ccxt.NetworkError, ccxt.BadSymbol)
assert all(client_class(name) is getattr(ccxt, name) for name in ccxt.exchanges)
"""


def test_a_scheduler_loads_its_exchange_alone_and_nothing_heavy() -> None:
    """With the model's library; every class of ccxt, errors too, is that of `import ccxt`."""
    loaded = said_by(BEGUN, *HEAVY)
    parts = ["abstract", "base", "binance", "binanceusdm", "bitget", "okx", "okxus"]
    assert loaded == f"{[f'ccxt.{part}' for part in parts]} []"


FAKE = {
    "init": "from fresh import *\nexchanges = ['one', 'two']\n",
    "one": "import ccxt\nclass one(ccxt.Exchange): ...\n",
}
FRESH = "class Exchange: ...\nclass one(Exchange): ...\nclass two(Exchange): ...\n"
FALLEN = """
from core.errors import ConfigError
from core.exchange.ccxt_adapter import client_class
import sys
for name in ("one", "two", "tow", "base.x"):
    try:
        print(client_class(name).__module__, "ccxt" in sys.modules)
    except ConfigError as error:
        print(error)
"""


def test_another_layout_of_ccxt_is_loaded_as_a_whole(tmp_path: Path) -> None:
    """Modules that want all of it, or no module for an exchange; the unknown is named as ever."""
    (tmp_path / "fresh.py").write_text(FRESH)
    whole = said_by(FALLEN, path=package(tmp_path, "ccxt", **FAKE))
    assert whole.splitlines()[:2] == ["fresh True"] * 2
    assert "exchange.id 'tow' is not known to ccxt; did you mean 'two'?" in whole
    assert "exchange.id 'base.x' is not known to ccxt; write one like 'bitget'" in whole


LOOSE = {
    "min_tp_net_pct": 0.0,
    "lookback_candles": 100,
    "atr_mult_sl": 2.0,
    "max_cost_r": 5.0,
    "fees": {"maker_pct": 0.0, "taker_pct": 0.0},
    "fibo": {"piv_window": 2, "min_impulse_atr": 0.5},
}
"""A strategy that finds something to judge in every few minutes of a walk."""


def minutes_pass(made: bitget_world.World, n: int) -> None:
    """Let the engine live through some minutes, its messages included."""
    for _ in range(n):
        made.at_ms += MINUTE_MS
        run.run_once(made.app)
        made.server.requests.clear()  # its memory is this process's, too


def check(folder: Path, *, n_pairs: int, n_minutes: int) -> None:
    """Live through minutes with a champion; at the end no more is held than at a third."""
    truth = walks(n_pairs, days=2, seed=2, now_ms=bitget_world.NOW_MS)
    with bitget_world.world(folder, truth, timeframes=["1m"], signals=LOOSE) as made:
        champion = f"{enthrone(made.app.config_path)}%"
        minutes_pass(made, n_minutes // 3)
        early = held_by(os.getpid())
        minutes_pass(made, n_minutes - n_minutes // 3)
        late = held_by(os.getpid())
        judged = made.app.db.value(
            "SELECT count(*) FROM signals WHERE ml_model LIKE ?", (champion,)
        )
        failed = made.app.db.value("SELECT count(*) FROM job_runs WHERE outcome <> 'ok'")
    assert judged >= n_minutes // 30
    assert failed == 0
    assert early.is_steady(late), (early, late)


def test_live_minutes_hold_no_more_than_the_first(tmp_path: Path) -> None:
    """Memory within a tenth, no further open file or thread: the real client, a champion."""
    check(tmp_path, n_pairs=3, n_minutes=60)


@pytest.mark.long
def test_most_of_a_day_holds_no_more_than_its_beginning(tmp_path: Path) -> None:
    """The same over 900 minutes."""
    check(tmp_path, n_pairs=3, n_minutes=900)


@pytest.mark.long
def test_a_scheduler_holds_no_more_after_a_day_than_after_a_third(tmp_path: Path) -> None:
    """A real process, all its threads, a champion, a day of a market that waits for nothing."""
    replay = {"id": "replay", "replay": {"path": "replay", "speed": 1e9}}
    made = prepared(tmp_path / "a", market(2, 14, 9), replay_days=1, exchange=replay, signals=LOOSE)
    config = made.folder / "config.yaml"
    champion = f"{enthrone(config)}%"
    command = [sys.executable, str(ROOT / "scheduler_run.py"), "--config", str(config)]
    log = (tmp_path / "stderr.txt").open("ab")
    with log, subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log) as process:
        try:
            early = held_at(process, config, made.split_ms + (made.end_ms - made.split_ms) // 3)
            late = held_at(process, config, made.end_ms - MINUTE_MS)
        finally:
            process.terminate()
    assert process.returncode == 0
    assert early.is_steady(late), (early, late)
    with open_reader(config.with_name("ohlcv.db")) as db:
        assert db.value("SELECT count(*) FROM signals WHERE ml_model LIKE ?", (champion,)) > 5
        assert db.value("SELECT count(*) FROM job_runs WHERE outcome <> 'ok'") == 0


def held_at(process: subprocess.Popen[bytes], config: Path, at_ms: int) -> Held:
    """What a scheduler holds once its market has come to an instant."""
    until_s = time.monotonic() + 240
    while time.monotonic() < until_s and process.poll() is None:
        with suppress(StoreError), open_reader(config.with_name("ohlcv.db")) as db:
            row = operation.clock_row(db)
            if row is not None and row[0] >= at_ms:
                return held_by(process.pid)
        time.sleep(0.1)
    raise AssertionError(f"it did not come to {at_ms}")
