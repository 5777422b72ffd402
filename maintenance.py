"""The owner's tools, and the wrappers the scheduler calls.

  train, calibrate, tune   the three steps of the meta-model      weekly    all three, in order
  checkpoint               merge the WAL into the database        vacuum    reclaim space, if any
  backup                   a verified copy, old ones rotated      restore   put one back (--file)
  setup                    the first settings, asked for one by one, and what they cost
  pack                     all there is in one verified file (--file)    unpack    the way back
  upgrade [--days N]       after an update of the program: copy, migration, the same decisions?
  doctor                   is everything all right?
  verify [--invariants]    live = retro and no look-ahead, checked on your own candles
  rollback                 back to the bundle before this one     config    the settings in force
  notify-test              send a test message                    evaluate  the model's record
  evaluate --data FOLDER   the model on candles no choice was made on: it learns from some pairs
                           until a day, and is judged afterwards and on pairs it never saw; your
                           database is left alone
  summary                  the week as a message, and as a page in reports/

Examples:
  python maintenance.py weekly
  python maintenance.py restore --file data/backups/ohlcv-20260101-000000-000.db
  python maintenance.py verify --points 200
  python maintenance.py evaluate --data candles --train BTC,ETH --unseen SUI
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from core import cli

_DAY_MS = 86_400_000
STEPS = (
    "train",
    "calibrate",
    "tune",
    "weekly",
    "evaluate",
    "summary",
    "rollback",
    "checkpoint",
    "vacuum",
    "backup",
    "restore",
    "pack",
    "unpack",
    "upgrade",
    "verify",
    "doctor",
    "notify-test",
    "config",
    "setup",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one tool and print its figures."""
    parser = cli.parser(__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--file", type=Path, help="restore, pack, unpack: the file")
    parser.add_argument(
        "--points", type=cli.positive, default=60, help="verify: bars to check; each 20, a stretch"
    )
    parser.add_argument("--seed", type=int, default=7, help="verify: which bars")
    parser.add_argument(
        "--days", type=cli.positive, default=30, help="upgrade: of decisions to take again"
    )
    parser.add_argument("--invariants", action="store_true", help="verify: the tables too")
    parser.add_argument(
        "--force",
        action="store_true",
        help="vacuum: even with nothing to gain; unpack: keep aside what is in the way",
    )
    _add_setup(parser)
    _add_evaluation(parser)
    args = parser.parse_args(argv)
    if args.data and args.step != "evaluate":
        parser.error(f"--data is for evaluate, not for {args.step}")
    if args.data:
        return _evaluate(args)
    if args.step in ("restore", "pack", "unpack") and args.file is None:
        parser.error(f"{args.step} needs --file FILE")
    if args.step in ("restore", "unpack"):
        put_back = cli.restored if args.step == "restore" else cli.unpacked
        cli.show(put_back(args), as_json=args.json)
        return 0
    with cli.app(args) as app, cli.progress() as progress:
        from core.jobs import tools

        result, ok = tools.run_tool(app, args, progress=progress)
        cli.show(result, as_json=args.json)
    return 0 if ok else 1


def _add_evaluation(parser: argparse.ArgumentParser) -> None:
    """Add what only `evaluate --data` takes."""
    add = parser.add_argument_group("evaluate --data").add_argument
    add("--data", type=Path, metavar="DIR", help="folder of candle files")
    for name, text in (
        ("--train", "pairs to learn from; else those with two years before the report"),
        ("--unseen", "pairs never to learn from; else all others"),
    ):
        add(name, type=_names, default=(), metavar="S[,S..]", help=text)
    add("--train-until", type=cli.day, default="2023-12-31", help="last day learnt from, UTC")
    add("--report-until", type=cli.day, help="last day judged; else that of the candles")
    add("--out", type=Path, default=Path("reports/evaluation"), metavar="DIR")


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _evaluate(args: argparse.Namespace) -> int:
    from core.jobs import tools

    cli.setup_logging(args.log_level)
    until = args.report_until
    with cli.progress() as progress:
        found, shown = tools.evaluated(
            args,
            report_ms=cli.day_ms(args.train_until) + _DAY_MS,
            end_ms=cli.day_ms(until) + _DAY_MS if until else None,
            progress=progress,
        )
    cli.show(found if args.json else shown, as_json=args.json)
    return 0


def _add_setup(parser: argparse.ArgumentParser) -> None:
    """What `setup` asks for, for those who rather say it."""
    of = parser.add_argument_group("setup: answers given beforehand")
    of.add_argument("--pairs", nargs="+", metavar="S")
    of.add_argument("--equity", type=float, metavar="USD")
    of.add_argument("--risk", metavar="MODE", help="conservative, normal or aggressive")
    of.add_argument("--telegram-token", metavar="T", help="else TELEGRAM_BOT_TOKEN")
    of.add_argument("--chat-id", metavar="ID", help="else whoever writes to the bot")
    of.add_argument("--no-telegram", action="store_true")
    of.add_argument("--yes", action="store_true", help="ask nothing; keep what is not given")


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
