"""The systemd unit as shipped: what it names exists, and its limits fit the engine's own."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from core import cli
from core.app import database_path
from core.config_file import load_config
from core.jobs import child, market_stats, recorded, sync

ROOT = Path(__file__).parents[1]
UNIT = ROOT / "docs" / "trader-ai.service"


def unit() -> configparser.ConfigParser:
    """The unit, its keys as they are written."""
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read(UNIT)
    return parsed


def seconds(name: str) -> float:
    """A length of time of the service."""
    return float(unit()["Service"][name])


def test_what_the_unit_names_is_there() -> None:
    """The script in its folder, the interpreter of its environment; options the script knows."""
    service = unit()["Service"]
    home = PurePosixPath(service["WorkingDirectory"])
    python, script, *options = shlex.split(service["ExecStart"])
    assert PurePosixPath(python).is_relative_to(home / ".venv" / "bin")
    assert (ROOT / script).is_file()
    asked = subprocess.run(
        [sys.executable, script, *options, "-h"], cwd=ROOT, check=False, capture_output=True
    )
    assert asked.returncode == 0
    assert service["EnvironmentFile"].removeprefix("-").startswith(str(home))


def test_the_engine_may_write_where_it_writes() -> None:
    """Database, models, backups, heartbeat, reports and settings, in a sealed system."""
    service, config = unit()["Service"], load_config(ROOT / "config.yaml")
    assert service["ProtectSystem"] == "strict"
    home = PurePosixPath(service["WorkingDirectory"])
    open_to = [PurePosixPath(place) for place in service["ReadWritePaths"].split()]
    written = [
        str(database_path(config, Path())),
        config.models.meta.model_path,
        config.backup.dir,
        config.app.data_dir,
        "reports",
        "config.yaml",
    ]
    for place in written:
        assert any((home / place).is_relative_to(one) for one in open_to), place


def test_its_limits_leave_room_for_the_engines_own() -> None:
    """Memory for a child beside it; no watchdog within a slow minute; time to end cleanly."""
    service = unit()["Service"]
    assert service["Type"] == "notify"
    assert int(service["MemoryMax"].removesuffix("G")) << 30 >= child.LIMIT_BYTES + (1 << 30)
    slowest_s = max(sync.LIMIT_S, market_stats.BUDGET_S, recorded.LIMIT_S)
    assert seconds("WatchdogSec") >= 2 * slowest_s
    assert seconds("TimeoutStopSec") >= cli.PATIENCE_S + 5


def test_it_is_started_again_however_often() -> None:
    """A night without a network at the start is no reason to stay down for good."""
    parsed = unit()
    assert parsed["Service"]["Restart"] == "always"
    assert float(parsed["Service"]["RestartSec"]) >= 5
    assert parsed["Unit"]["StartLimitIntervalSec"] == "0"
    assert seconds("TimeoutStartSec") >= 600


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_takes_it(tmp_path: Path) -> None:
    """With its paths as on this machine, `systemd-analyze verify` finds nothing to say."""
    home = unit()["Service"]["WorkingDirectory"]
    text = UNIT.read_text().replace(f"{home}/.venv/bin/python", sys.executable)
    copy = tmp_path / UNIT.name
    copy.write_text(text.replace(home, str(ROOT)))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], check=False, capture_output=True, text=True
    )
    assert [line for line in done.stderr.splitlines() if UNIT.name in line] == []
    assert done.returncode == 0
