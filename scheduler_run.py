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

from core import cli
from core.errors import StoreError


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
        from core.jobs import run, scheduler

        if not settle_home(app, take_over=args.take_over):
            cli.log.warning(
                "this database was copied from elsewhere: nothing is sent;"
                " run once with --take-over if its old place has stopped"
            )
        _, clock = app.market()
        if args.once:
            cli.show({"done": run.run_once(app)}, as_json=False)
        elif clock.speed == 0:
            cli.show({"done": run.run_stepped(app, stop=stop)}, as_json=False)
        else:
            scheduler.run_forever(app, stop=stop)
    return 0


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
