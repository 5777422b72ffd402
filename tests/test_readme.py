"""The newcomer's path: every command that README.md shows is typed, and prints what it shows."""

from __future__ import annotations

import html
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from core import candle_files
from core.config_edit import with_values
from core.domain import Candles
from core.timeframe import MINUTE_MS
from tests import readme
from tests.bitget_server import BitgetServer, serving
from tests.replay_world import market
from tests.telegram_server import bot_server

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "424242:loopback-bot-of-the-readme-test"
PATIENCE_S = 200.0

HERE = "this suite runs in it"
QUIET = "a quiet machine: it measures for minutes (CONTRIBUTING.md), and asserts nothing"
BROWSER = "Chromium; tests/test_browser.py opens the same pages where there is one"
NEWER = "a newer version to fetch"
INDEX = "minutes and a package index: test_a_fresh_environment_is_made_by_the_makefile"


@dataclass(frozen=True)
class Way:
    """How a command of the README is run here.

    `typed` is what is typed where the page has a placeholder, or where the real thing would not
    end; `prints` are lines it must print, figures masked; `lives`: it is stopped once it is up.
    `lacks` says what this machine has not, for one that is not run.
    """

    typed: str = ""
    prints: tuple[str, ...] = ()
    lives: str = ""
    lacks: str = ""
    quick: bool = False


# Every command of README.md, in the order in which they are typed here. The exchange and the Bot
# API are servers on this machine: `settings` below names all that differs from the shipped ones.
WAYS: Mapping[str, Way] = {
    "pip install -r requirements.txt": Way(lacks=INDEX),
    "make setup": Way(prints=("next make run",)),
    "python maintenance.py setup --yes --pairs BTC/USDT:USDT --equity 5000 --risk normal"
    " --telegram-token … --chat-id …": Way(
        typed="python maintenance.py setup --yes --pairs BTC/USDT:USDT ETH/USDT:USDT --equity 5000"
        f" --risk normal --telegram-token {TOKEN} --chat-id 42",
        quick=True,
    ),
    "python init_db.py": Way(quick=True),
    "python download_data.py": Way(quick=True),
    "python db_inspect.py": Way(quick=True),
    "python db_inspect.py --holes": Way(),
    "python retro_scan.py --start 2024-01-01 --end 2024-12-31": Way(),
    "python maintenance.py weekly": Way(),
    "python maintenance.py notify-test": Way(quick=True),
    "python scheduler_run.py": Way(lives="heartbeat"),
    "make run": Way(lives="heartbeat"),
    "streamlit run dashboard.py": Way(lives="page"),
    "make dashboard": Way(lives="page"),
    "python download_data.py --import FOLDER": Way(
        typed="python download_data.py --import candles"
    ),
    "python download_data.py --import FOLDER --origin binance": Way(
        typed="python download_data.py --import candles --origin binance"
    ),
    "python download_data.py --export FOLDER --format csv": Way(
        typed="python download_data.py --export out --format csv"
    ),
    "python retro_scan.py --symbols BTC/USDT ETH/USDT --start 2024-01-01 --end 2024-12-31": Way(),
    "python retro_scan.py --start 2021-01-01 --end 2021-12-31": Way(),
    "python analyze_results.py": Way(),
    "python scan_signals.py --dry-run --explain": Way(quick=True),
    "python maintenance.py doctor": Way(quick=True),
    "python maintenance.py verify": Way(
        prints=("decisions #/#, live = retro #/# rows, trades #/#",)
    ),
    "python maintenance.py verify --invariants": Way(),
    "python maintenance.py evaluate": Way(),
    "python maintenance.py summary": Way(),
    "git pull": Way(lacks=NEWER),
    "make upgrade": Way(prints=("#, as before",), quick=True),
    "python maintenance.py backup": Way(),
    "python maintenance.py restore --file": Way(
        typed="python maintenance.py restore --file $(ls data/backups/ohlcv-*.db | tail -1)"
    ),
    "python maintenance.py pack --file engine.pack": Way(quick=True),
    "python maintenance.py unpack --file engine.pack --force": Way(
        typed="cp engine.pack ../elsewhere && cd ../elsewhere"
        " && python maintenance.py unpack --file engine.pack --force",
        quick=True,
    ),
    "export TELEGRAM_BOT_TOKEN=…": Way(typed=f"export TELEGRAM_BOT_TOKEN={TOKEN}", quick=True),
    "python scheduler_run.py --take-over": Way(
        typed=f"cd ../elsewhere && TELEGRAM_BOT_TOKEN={TOKEN} python scheduler_run.py --take-over",
        lives="heartbeat elsewhere",
    ),
    "make evaluate DATA=FOLDER": Way(
        typed="make evaluate DATA=candles ASK='--train BTC --train-until 2024-02-20'"
    ),
    "make demo": Way(typed="make demo DEMO_SECONDS=20"),
    "make demo DATA=folder": Way(typed="make demo DATA=candles DEMO_SECONDS=5"),
    "python -m demo --seeds 20": Way(typed="python -m demo --seeds 1"),
    "make test": Way(lacks=HERE),
    "make test-long": Way(lacks=HERE),
    "make proof": Way(lacks=HERE),
    "make screenshots": Way(lacks=BROWSER),
    "python -m benchmarks latency": Way(lacks=QUIET),
    "python -m benchmarks resident": Way(lacks=QUIET),
    "python -m benchmarks scan": Way(lacks=QUIET),
}

# The blocks of the page that show an output, by their first words, and whose output that is.
SHOWN: Mapping[str, str] = {
    "two generated markets": "make demo",
    "After one SIGKILL": "make demo",
    "10 symbols, history from": "python download_data.py",
    "schema ": "make upgrade",
}
GOLDEN: Mapping[str, str] = {"🟢 SIGNAL": "new_live.txt", "CLOSED": "closed.txt"}


def test_every_command_of_the_readme_has_its_way() -> None:
    """One added to the page that is neither run nor said why not fails; so does a relic here."""
    shown = readme.commands(readme.text())
    assert len(shown) > 40
    assert set(shown) == set(WAYS)
    assert all(way.lacks == "" or way == Way(lacks=way.lacks) for way in WAYS.values())


def test_every_output_of_the_readme_is_known() -> None:
    """Each block without a language is an output checked here, a message, or the tree of files."""
    first = [*SHOWN, *GOLDEN, "config.yaml "]
    for block in readme.outputs(readme.text()):
        assert sum(block.startswith(words) for words in first) == 1, block


@pytest.mark.parametrize("begin", GOLDEN)
def test_the_messages_of_the_readme_are_those_that_are_sent(begin: str) -> None:
    """Line for line as in the golden ones, whatever the figures."""
    golden = (ROOT / "tests" / "golden" / GOLDEN[begin]).read_text(encoding="utf-8")
    plain = html.unescape(re.sub(r"<[^>]+>", "", golden))
    known = [readme.masked(line) for line in plain.splitlines()]
    for line in readme.output_that_begins(readme.text(), begin):
        assert readme.masked(line) in known, line


def test_the_tree_of_the_readme_is_the_tree() -> None:
    """Every file and folder it names is there."""
    for line in readme.output_that_begins(readme.text(), "config.yaml "):
        for name in re.findall(r"\b[\w.]+(?:\.py|\.yaml)|\b\w+/", line):
            assert (ROOT / name).exists(), name


# --- an empty folder, and what a newcomer types there ----------------------------------------


@dataclass
class Newcomer:
    """Somebody with the program in an empty folder, and all that was printed to them."""

    folder: Path
    env: dict[str, str]
    said: dict[str, str] = field(default_factory=dict)
    took_s: dict[str, float] = field(default_factory=dict)

    def types(self, command: str, way: Way) -> None:
        """Type a command; it must end well, or live until it is stopped."""
        typed = _with_make(way.typed or command)
        log, begun_s = self.folder.parent / "said.txt", time.monotonic()
        with log.open("w") as out:
            process = subprocess.Popen(
                ["bash", "-c", typed],
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                self._wait(process, way)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.took_s[command] = round(time.monotonic() - begun_s, 1)
        self.said[command] = log.read_text(encoding="utf-8")
        tail = self.said[command][-3000:]
        assert process.returncode == 0 or way.lives, f"{typed}: {process.returncode}\n{tail}"
        assert "Traceback" not in self.said[command], f"{typed}\n{tail}"
        for line in way.prints:
            assert line in readme.masked(self.said[command]), f"{typed}\n{tail}"

    def _wait(self, process: subprocess.Popen[bytes], way: Way) -> None:
        deadline, begun = time.monotonic() + PATIENCE_S, time.time()
        while process.poll() is None and time.monotonic() < deadline:
            if way.lives and self._is_up(way.lives, since_s=begun):
                os.killpg(process.pid, signal.SIGINT)
                process.wait(timeout=30)
                return
            time.sleep(0.05)
        said = (self.folder.parent / "said.txt").read_text(encoding="utf-8")[-3000:]
        assert process.poll() is not None, f"it does not end:\n{said}"
        assert not way.lives, f"it ended by itself:\n{said}"

    def _is_up(self, what: str, *, since_s: float) -> bool:
        if what == "page":
            address = f"http://127.0.0.1:{self.env['STREAMLIT_SERVER_PORT']}/_stcore/health"
            with suppress(OSError), urllib.request.urlopen(address, timeout=2) as answer:
                return bool(answer.status == 200)
            return False
        folder = self.folder.parent / "elsewhere" if "elsewhere" in what else self.folder
        with suppress(OSError):
            return (folder / "data" / "heartbeat").stat().st_mtime > since_s
        return False


def _with_make(typed: str) -> str:
    """The environment is the one of these tests: make must not make it anew."""
    kept = "make -o .venv/.installed -o .venv/.compiled "
    return re.sub(r"^make ", kept, typed)


def copied_tree(target: Path) -> Path:
    """The program as it is in version control, with the compiled kernels, which take a minute."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\n")
    kernels = [str(path.relative_to(ROOT)) for path in ROOT.glob("core/**/__pycache__/*.nb?")]
    kernels += [str(path.relative_to(ROOT)) for path in ROOT.glob("demo/__pycache__/*.nb?")]
    for name in (*filter(None, listed), *kernels):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


@contextmanager
def newcomer(folder: Path, truth: Mapping[str, Candles]) -> Iterator[Newcomer]:
    """The program in an empty folder; an exchange and a Bot API at the other end of the wire."""
    program = copied_tree(folder / "program")
    shutil.copytree(program, folder / "elsewhere")
    for place in (program, folder / "elsewhere"):
        (place / ".venv").symlink_to(sys.prefix)
    end_ms = min(int(bars.ts_ms[-1]) for bars in truth.values()) - 60 * MINUTE_MS
    begun = time.monotonic()
    server = BitgetServer(
        dict(truth), now_ms=lambda: end_ms + int((time.monotonic() - begun) * 1000)
    )
    with serving(server), bot_server(TOKEN) as bot:
        settings = {
            "exchange.ccxt": server.ccxt(),
            "exchange.rate_limit_ms": 5,
            "incremental.run_seconds": 1,
            "symbols": [*truth],
            "backfill.start_date": "2024-01-01",
            "notify.telegram.api_base": bot.base,
        }
        shipped = (program / "config.yaml").read_text(encoding="utf-8")
        (program / "config.yaml").write_text(with_values(shipped, settings), encoding="utf-8")
        yield Newcomer(program, _environment())


def _environment() -> dict[str, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    kept = {k: v for k, v in os.environ.items() if k not in ("TELEGRAM_BOT_TOKEN", "PYTHONPATH")}
    path = f"{sys.prefix}/bin:{os.environ['PATH']}"
    return kept | {
        "PATH": path,
        "STREAMLIT_SERVER_PORT": port,
        "STREAMLIT_SERVER_HEADLESS": "true",
    }


def check_shown(one: Newcomer, begins: Iterable[str]) -> None:
    """Each line that the page shows of an output is a line of the real one, figures masked."""
    for begin in begins:
        said = {_units(readme.masked(line)) for line in one.said[SHOWN[begin]].splitlines()}
        for line in readme.output_that_begins(readme.text(), begin):
            assert _units(readme.masked(line)) in said, f"{line}\nis not in\n{said}"


def _units(line: str) -> str:
    """Take out what hangs on the figures themselves: units of time, and where a file lies."""
    line = re.sub(r"# (s|min|h # min)\b", "# s", line)
    line = re.sub(r"^strategy \S+$", "strategy ID", line)
    line = line.replace("schema #, as before", "schema # -> #")  # nothing to migrate here
    return re.sub(r"\S*/backups/\S+", "FILE", line)


def test_the_first_steps_of_the_readme(tmp_path: Path) -> None:
    """Settings, history, a look at it, the doctor, an upgrade, the move: each as it is written."""
    with newcomer(tmp_path, {s: bars[-3 * 1440 :] for s, bars in market(2, 16, 5).items()}) as one:
        for command, way in WAYS.items():
            if way.quick:
                one.types(command, way)
        check_shown(one, ["10 symbols, history from", "schema "])


@pytest.mark.long(minutes=3)
def test_the_whole_readme(tmp_path: Path) -> None:
    """Everything that it shows, from the empty folder to the moved engine and the demo."""
    truth = market(2, 75, 9)
    with newcomer(tmp_path, truth) as one:
        for symbol, bars in truth.items():
            name = candle_files.name_of(symbol.partition(":")[0], "1m")
            candle_files.write(one.folder / "candles" / name, bars)
        for command, way in WAYS.items():
            if not way.lacks:
                one.types(command, way)
        check_shown(one, SHOWN)


@pytest.mark.long
@pytest.mark.skipif(not os.environ.get("CI"), reason="takes minutes and a package index; CI=1")
def test_a_fresh_environment_is_made_by_the_makefile(tmp_path: Path) -> None:
    """`make install` in an empty folder, and the first command works in what it made."""
    folder = copied_tree(tmp_path / "program")
    env = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
    for command in ("make install", ".venv/bin/python init_db.py", "make upgrade"):
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "0 of 0 decisions changed" in done.stdout
