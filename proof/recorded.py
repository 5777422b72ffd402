"""What the setups gave on recorded candles: import, retro-scan of 2024, record; as README.md says.

BTC and ETH spot minutes of 2020 to 2024, shipped settings, in a scratch folder.

Examples:
  python -m proof.recorded FOLDER --json figures.json
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from core import cli
from core.errors import TraderError

ROOT = Path(__file__).resolve().parents[1]
PAIRS = ("BTC_USDT", "ETH_USDT")
YEARS = range(2020, 2025)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the three commands and keep what the last one says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="FOLDER")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    args = parser.parse_args(argv)
    files = [args.data / f"{pair}-1m-{year}.parquet" for pair in PAIRS for year in YEARS]
    with tempfile.TemporaryDirectory() as name:
        config = Path(name) / "config.yaml"
        config.write_text((ROOT / "config.yaml").read_text(encoding="utf-8"), encoding="utf-8")
        _run(config, "download_data.py", "--import", *map(str, files))
        span = ("--start", "2024-01-01", "--end", "2024-12-31")
        _run(config, "retro_scan.py", "--symbols", "BTC/USDT", "ETH/USDT", *span)
        said = _run(config, "analyze_results.py", "--out", f"{name}/reports", "--json")
    args.json.write_text(said, encoding="utf-8")
    return 0


def _run(config: Path, script: str, *options: str) -> str:
    command = [sys.executable, str(ROOT / script), "--config", str(config), *options]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise TraderError(f"{script} failed (code {done.returncode})")
    return done.stdout


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
