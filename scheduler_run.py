"""Run the engine: sync, resample, scan, follow, notify, checkpoint and the weekly training.

Stop it with Ctrl-C. With `exchange.id: replay` recorded candles are the market; at speed 0 it runs
as fast as it can and exits when the data ends.

Examples:
  python scheduler_run.py
  python scheduler_run.py --once            # one pass over whatever is due, then exit
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from core import cli
from core.errors import StoreError

if TYPE_CHECKING:
    from core.app import App


def main(argv: Sequence[str] | None = None) -> int:
    """Hold the writer lock and run what is due until stopped."""
    parser = cli.parser(__doc__, json_flag=False)
    parser.add_argument("--once", action="store_true", help="one pass, then exit")
    parser.add_argument(
        "--take-over", action="store_true", help="go on with a database copied from elsewhere"
    )
    args = parser.parse_args(argv)
    stop = threading.Event()
    cli.on_stop(stop.set)
    with cli.app(args) as app:
        if not app.holds_lock:
            raise StoreError(
                f"another process (pid {app.lock_file.holder()}) keeps {app.db.path};",
                remedy="stop it first",
            )
        from core.app import settle_home

        if not settle_home(app, take_over=args.take_over):
            cli.log.warning(
                "this database was copied from elsewhere: nothing is sent;"
                " run once with --take-over if its old place has stopped"
            )
        done = cli.until_stopped(partial(_work, app, stop, once=args.once), stop)
        if done is not None:
            cli.show({"done": done}, as_json=False)
    if stop.is_set():
        cli.leave(0)  # a request that was given up may keep a thread for a while
    return 0


def _work(app: App, stop: threading.Event, *, once: bool) -> int | None:
    """Do what is asked for; returns how many pieces that were, where it ends by itself."""
    from core.jobs import run, scheduler

    _, clock = app.market()
    if once:
        return run.run_once(app, stop=stop)
    if clock.speed == 0:
        return run.run_stepped(app, stop=stop)
    scheduler.run_forever(app, stop=stop)
    return None


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
