"""What a scheduler on a replay loads: imported by the server of forks, and by nobody else.

Importing it lives through an hour of a tiny market, so that the compiled functions are loaded too.
No model is fitted, and no thread is left that a fork would have to do without.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import core.jobs.scheduler  # noqa: F401 - loaded late by the script
import scheduler_run  # noqa: F401
from tests.engine_world import opened
from tests.replay_world import market, prepared, replayed

with tempfile.TemporaryDirectory() as _name:
    _app = opened(
        prepared(
            Path(_name) / "start", market(1, 12, 5), replay_days=1 / 24, timeframes=["5m"]
        ).copy("live")
    )
    replayed(_app)
    _app.close()
