"""Run the whole engine on markets made for it, or on your own recorded candles.

Two generated markets from one seed: one without an edge, one with a known one planted in its
prices. Both are scanned and trained on, side by side; then the planted one goes on as a replay
through the real scheduler, with the dashboard on this machine. On the way the scheduler is killed
once, and what that lost or doubled is counted.

Examples:
  python -m demo
  python -m demo --seconds 60
  python -m demo --data folder_of_parquet --seconds 120
  python -m demo --seeds 20
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import cli
from core.errors import TraderError
from demo.market import PLANTED_DRIFT_SIGMAS, describe
from demo.report import lost_or_doubled, market_rows
from demo.seeds import HEADER, line_of, over_seeds, prepared, summary
from demo.stage import (
    Stage,
    fresh_folder,
    generated_stages,
    recorded_stage,
    spec_of,
    write_config,
)

ROOT = Path(__file__).resolve().parents[1]
TIMEFRAMES = ("15m", "1h", "4h")
PAPER_PER_DAY = 12
_KILL_AFTER_S, _KILL_SHARE = 15.0, 1 / 3


def main(argv: Sequence[str] | None = None) -> int:
    """Set the stage, show the figures, run the scheduler, and count what a kill cost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of 1m Parquet or CSV candles")
    parser.add_argument("--seconds", type=float, default=0.0, help="end after so long (0: never)")
    parser.add_argument("--speed", type=float, default=1800.0, help="market seconds a second")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--seeds",
        type=int,
        default=0,
        help="instead: train on both markets of so many seeds, and count what was certified",
    )
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="of --seeds: write the figures")
    parser.add_argument(
        "--drift",
        type=float,
        default=PLANTED_DRIFT_SIGMAS,
        help="planted drift, in standard deviations a day",
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "data" / "demo")
    parser.add_argument("--port", type=int, default=8501)
    args = parser.parse_args(argv)
    if args.seeds:
        return _count(args)
    begun = time.monotonic()
    fresh_folder(args.folder)
    show = _recorded(args) if args.data else _generated(args)
    for stage in show.stages.values():
        write_config(stage, speed=args.speed, timeframes=TIMEFRAMES, paper=PAPER_PER_DAY)
    with _dashboard(show.stage, _free_port(args.port)) as address:
        _say(f"the dashboard opens at {address} and fills as the market is prepared")
        _say("importing, scanning, following, training")
        figures = _prepare_all(show)
        cli.show(market_rows(figures), as_json=False, title=f"\n{show.title}")
        _say(f"ready after {time.monotonic() - begun:.0f} s; the replay starts at {args.speed:g}x")
        return _live(show, args, address)


def _count(args: argparse.Namespace) -> int:
    """Print what each market of each seed came to, and how many of each kind were certified."""
    seeds, rows = range(args.first_seed, args.first_seed + args.seeds), list[dict[str, Any]]()
    _say(HEADER)
    for row in over_seeds(seeds, drift_sigmas=args.drift, timeframes=TIMEFRAMES):
        rows.append(row)
        _say(line_of(row))
    _say(summary(rows))
    if args.json:
        found = {"summary": summary(rows), "markets": rows}
        args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


@dataclass(frozen=True, slots=True)
class Show:
    """The markets to prepare, by name; the one that goes on; the files to import, if given."""

    title: str
    stages: dict[str, Stage]
    stage: Stage
    paths: list[Path]

    def sources(self, stage: Stage) -> list[Path]:
        """Return what a market's history is imported from."""
        return self.paths or [stage.folder / "history"]


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _generated(args: argparse.Namespace) -> Show:
    """Both generated markets; the planted one goes on."""
    null, edge = generated_stages(args.folder, seed=args.seed, drift_sigmas=args.drift)
    facts = describe(spec_of(edge))
    _say(
        f"two generated markets of {len(facts['symbols'])} pairs x {facts['days']} days,"
        f" seed {args.seed}\n  PLANTED: hidden trends (mean {facts['mean_trend_days']:g} days,"
        f" {facts['share_in_trend']:.0%} of the time) drift by {facts['drift_sigmas_per_day']:g}"
        " daily standard deviations a day\n  NULL: the same shocks, no drift"
    )
    stages = {"NULL": null, "PLANTED": edge}
    return Show("Two generated markets, side by side", stages, edge, [])


def _recorded(args: argparse.Namespace) -> Show:
    """Recorded candles: all but the last 30 days as history."""
    stage, paths, left_out = recorded_stage(args.folder / "recorded", args.data)
    for text in left_out:
        _say(f"left out {text}")
    _say(f"{len(paths)} files of {', '.join(stage.symbols)}, all but the last 30 days as history")
    return Show("Recorded market, last year of history", {"RECORDED": stage}, stage, paths)


def _prepare_all(show: Show) -> dict[str, Any]:
    """Prepare the markets in a process each; returns their figures by name."""
    stages = list(show.stages.values())
    found = prepared(stages, {stage.folder: show.sources(stage) for stage in stages})
    return dict(zip(show.stages, found, strict=True))


def _live(show: Show, args: argparse.Namespace, address: str) -> int:
    """Run the scheduler, kill it once, end as asked, and count what the kill cost."""
    stage, code = show.stage, 0
    scheduler = _start_scheduler(stage)
    started = time.monotonic()
    try:
        if not _is_up(address):
            _say("=== the dashboard does not answer; see dashboard.log in the demo's folder ===")
            code = 1
        _say(f"\n=== dashboard: {address} ===\n")
        kill_at = started + min(_KILL_AFTER_S, (args.seconds or 1e9) * _KILL_SHARE)
        scheduler = _kill_and_restart(stage, scheduler, kill_at)
        _wait(scheduler, until=started + args.seconds if args.seconds else None)
    except KeyboardInterrupt:
        pass
    finally:
        _stop(scheduler)
    result = lost_or_doubled(stage, show.sources(stage), args.folder / "check")
    cli.show(result, as_json=False, title="\nAfter one SIGKILL of the scheduler: lost or doubled?")
    return code if result["ok"] else 1


@contextlib.contextmanager
def _dashboard(stage: Stage, port: int) -> Iterator[str]:
    """Run the dashboard beside everything else; yields its address."""
    command = [sys.executable, "-m", "streamlit", "run", "dashboard.py", "--server.port", str(port)]
    with (stage.folder / "dashboard.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--", "--config", str(stage.config_path)],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            _stop(process)


def _start_scheduler(stage: Stage) -> subprocess.Popen[bytes]:
    command = [sys.executable, "scheduler_run.py", "--config", str(stage.config_path)]
    return subprocess.Popen([*command, "--log-level", "warning"], cwd=ROOT)


def _free_port(wanted: int) -> int:
    for port in range(wanted, wanted + 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise TraderError(f"no free port from {wanted} on;", remedy="name another --port")


def _is_up(address: str) -> bool:
    """Say whether the dashboard answers, within half a minute."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"{address}/_stcore/health", timeout=2) as answer,
        ):
            return bool(answer.status == 200)
        time.sleep(0.25)
    return False


def _kill_and_restart(
    stage: Stage, scheduler: subprocess.Popen[bytes], kill_at: float
) -> subprocess.Popen[bytes]:
    while time.monotonic() < kill_at and scheduler.poll() is None:
        time.sleep(0.1)
    if scheduler.poll() is not None:
        raise TraderError(f"the scheduler ended by itself (code {scheduler.returncode})")
    scheduler.send_signal(signal.SIGKILL)
    scheduler.wait()
    again = _start_scheduler(stage)
    _say(f"\n=== killed the scheduler (SIGKILL, pid {scheduler.pid}) and started it again ===\n")
    return again


def _wait(scheduler: subprocess.Popen[bytes], *, until: float | None) -> None:
    while until is None or time.monotonic() < until:
        if scheduler.poll() is not None:
            raise TraderError(f"the scheduler ended by itself (code {scheduler.returncode})")
        time.sleep(0.2)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
