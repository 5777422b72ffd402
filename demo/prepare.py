"""Prepare one market in a process of its own: `python -m demo.prepare STAGE_JSON PATH...`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from core import cli
from demo.stage import Stage, prepare


def main() -> int:
    """Prepare the stage and print its figures as one line of JSON."""
    cli.setup_logging("warning")
    stage = Stage.of_json(json.loads(sys.argv[1]))
    figures = prepare(stage, [Path(name) for name in sys.argv[2:]])
    sys.stdout.write(json.dumps(figures, default=str) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(cli.guarded(lambda _: main()))
