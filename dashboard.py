"""The dashboard: what to do now, the record with its intervals, the engine's health.

Example: streamlit run dashboard.py -- --config config.yaml

It only reads. It listens on 127.0.0.1 (see .streamlit/config.toml); to reach it from elsewhere
use an SSH tunnel or a reverse proxy that asks for a login.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from core import pages

ICON = Path(__file__).resolve().parent / "docs" / "icon.png"


def config_path() -> Path:
    """Return the config file named after `--`, else by TRADER_CONFIG, else config.yaml."""
    parser = argparse.ArgumentParser(prog="dashboard.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--config", default=os.environ.get("TRADER_CONFIG", "config.yaml"))
    known, _ = parser.parse_known_args(sys.argv[1:])
    return Path(known.config)


pages.show(config_path(), icon=ICON)
