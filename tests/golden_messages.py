"""One message of every kind, as it is kept in tests/golden; the rows are written by hand.

Run `python -m tests.golden_messages` to write them anew after a change that is meant, and read each
one as it would stand on a phone before it is committed: `--sheet messages.html` makes a page of
phones, of some of them with their names after it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core import messages
from core.config import Execution
from core.messages import Day, Health, Look, Week, answers
from core.performance import Lift
from core.proof_state import degraded_reason
from core.timeframe import DAY_MS, HOUR_MS
from tests.message_world import BERLIN, DECIDED, LOOK, NOW, call, record, row, standing

FOLDER = Path(__file__).parent / "golden"
PAPER = {"delivery": "PAPER", "evidence": "UNCERTIFIED", "delivery_reason": "best_few"}
_STATE = '{"mfe_r": 1.82, "mae_r": 0.31}'
_WON: dict[str, Any] = {
    "tp1_hit": 1,
    "status": "TP1_TRAIL",
    "exit_reason": "trail",
    "exit_price": 64450.0,
    "pnl_pct": 0.98,
    "r_multiple": 1.04,
    "exec_state": _STATE,
}
_LOST: dict[str, Any] = {"status": "SL", "exec_state": '{"mfe_r": 0.4, "mae_r": 1.0}'}


def texts() -> dict[str, str]:
    """Return every kind of message by the name of its file."""
    return _calls() | _events() | _notices() | _answers()


def _calls() -> dict[str, str]:
    short: dict[str, Any] = {
        "id": 6674,
        "symbol": "1000PEPE/USDT:USDT",
        "timeframe": "4h",
        "setup": "reclaim",
        "direction": "short",
        "entry": 0.0123456,
        "sl": 0.0126,
        "tp1": 0.0119,
        "tp2": 0.0116,
        "atr": 0.0000912,
        "liquidation": 0.0146,
        "why": "",
        "ml_p": None,
        "ev_pct": None,
        "ml_model": None,
        "evidence": "UNGATED",
        "delivery": "PAPER",
    }
    small = Look(zone=BERLIN, decimals=7)
    return {
        "new_live": call(
            row(),
            now=NOW,
            latest=64_410.0,
            link_template="https://example.com/chart?s={base}{quote}&tf={timeframe}",
        ),
        "new_paper": call(row(**PAPER), now=NOW, latest=63_900.0),
        "new_ungated": call(row(**short), small, latest=0.01221),
        "too_late": messages.too_late(row(), LOOK),
    }


def _events() -> dict[str, str]:
    losing = record(run=9, total_r=-11.4, promised_r=float("nan"))
    return {
        "filled": messages.filled(row(), LOOK, price=63_988.5),
        "tp1": messages.tp1(row(tp1_hit=1), LOOK, execution=Execution()),
        "stop_moved": messages.stop_moved(row(stop_now=64_310.5), LOOK),
        "expired": messages.expired(row(status="EXPIRED"), LOOK),
        "expired_paper": messages.expired(row(status="EXPIRED", **PAPER), LOOK),
        "cancelled": messages.cancelled(
            row(status="CANCELLED", exit_reason="moved_before_you"), LOOK
        ),
        "closed": messages.closed(row(**_WON), LOOK, record=record()),
        "closed_paper_streak": messages.closed(row(**_LOST, **PAPER), LOOK, record=losing),
    }


def _notices() -> dict[str, str]:
    return {
        "digest": messages.digest(_day(), LOOK, standing=standing()),
        "digest_quiet": messages.digest(
            Day(start_ms=DECIDED - DAY_MS, end_ms=DECIDED, found=[], ended=[]),
            Look(zone=BERLIN, banner="GENERATED MARKET, EDGE PLANTED"),
            standing=standing(paused_ms=DECIDED - 5 * HOUR_MS, n_open=0, n_pending=0),
        ),
        "state": messages.state_changed(
            "DEGRADED",
            LOOK,
            before="CERTIFIED",
            reason=degraded_reason(e_peak=23.4, alpha=0.05, n=112, r=-0.081, promise_r=0.103),
            at_ms=DECIDED,
            bundle="20231105-0c1f6a9d2e",
        ),
        "weekly_work": messages.weekly_work(_TUNED, _METRICS, LOOK),
        "weekly_summary": messages.weekly_summary(
            _week(), LOOK, report="reports/weekly-2023-11-15.html"
        ),
    }


def _day() -> Day:
    rest: dict[str, Any] = {
        "delivery": "DIGEST",
        "evidence": "UNCERTIFIED",
        "status": "PENDING",
        "r_multiple": None,
    }
    found = [
        row(id=124, **PAPER),
        row(id=125, ev_lo_pct=-0.2, delivery_reason="negative_ev", **rest),
        row(id=126, ev_lo_pct=0.3, delivery_reason="cooldown", **rest | {"r_multiple": 1.31}),
        row(id=127, delivery="DIGEST", gate="REJECT", gate_reason="max_cost_r"),
    ]
    ended = [row(**_WON, **PAPER), row(**_LOST, **PAPER)]
    return Day(
        start_ms=DECIDED - DAY_MS,
        end_ms=DECIDED,
        found=found,
        ended=ended,
        records=[record(title="PAPER")],
    )


_TUNED: dict[str, Any] = {
    "bundle": "20231112-0330-3f9a2c",
    "mode": "ev",
    "n": 2559,
    "n_eff": 195.0,
    "n_certified": 1,
    "cells": {
        "* *": {"certified": True, "value": 0.31, "n": 412, "n_eff": 120.0},
        "* 15m": {"certified": False, "value": None, "n": 80, "n_eff": 22.0},
    },
    "promotion": {"promoted": False, "reason": "kept: n_eff 62 unseen by both, 100 are needed"},
}
_METRICS: dict[str, Any] = {
    "calibration": {
        "n": 2559,
        "n_eff": 195.0,
        "method": "platt",
        "brier": 0.2391,
        "brier_mart": 0.2433,
    }
}


def _week() -> Week:
    nothing = record(title="LIVE", n_closed=0, n=0)
    young = record(title="PAPER", n_closed=4, total_r=1.13, n=0)
    return Week(
        start_ms=DECIDED - 7 * DAY_MS,
        end_ms=DECIDED,
        standing=standing(),
        week=[nothing, young, record(title="All followed", n_closed=63, total_r=-4.1, n=12)],
        year=[nothing, record(title="PAPER", n_eff=40.0), record(title="All followed", n=2559)],
        lift=Lift(n_passed=610, n_rejected=1949, lift_r=0.07, lift_r_lo=-0.02, lift_r_hi=0.16),
        health=Health(
            model="20231112-0330-3f9a2c",
            model_age_ms=3 * DAY_MS + 4 * HOUR_MS,
            brier=0.2391,
            brier_mart=0.2433,
            n_missing=3,
            n_revised=1,
            n_errors=0,
            verified="decisions 60/60, live = retro 41/41 rows, trades 19/19",
            verified_ms=DECIDED - 2 * DAY_MS,
        ),
    )


def _answers() -> dict[str, str]:
    waiting = row(id=130, direction="short", symbol="ETH/USDT:USDT", status="PENDING", **PAPER)
    waiting |= {"entry": 2010.0, "sl": 2040.0, "tp1": 1960.0, "tp2": 1930.0, "stop_now": 2040.0}
    held = row(status="OPEN", tp1_hit=1, stop_now=64_000.0, r_multiple=None)
    why_rows = [row(id=131, delivery="DIGEST", delivery_reason="same_group"), held]
    return {
        "answer_help": answers.helped(LOOK, unknown="/stat"),
        "answer_status": answers.status(
            standing(), LOOK, extra=["Next close 23:15.", "2 messages wait to be sent."]
        ),
        "answer_signals": answers.signals([(held, LOOK, NOW), (waiting, LOOK, None)], LOOK),
        "answer_no_signals": answers.signals([], LOOK),
        "answer_signal": answers.signal(row(**_WON), LOOK),
        "answer_why": answers.why(
            "BTC/USDT:USDT",
            {"bars": 120, "setups": 5, "tp_net": 2, "candidates": 3},
            why_rows,
            LOOK,
            start_ms=DECIDED - DAY_MS,
            waiting={"4h": "history: 211 of 300 bars of 4h"},
        ),
        "answer_performance": answers.performance(
            [record(), record(title="All followed", n=2559, n_eff=195.0)], LOOK
        ),
        "answer_paused": answers.paused(LOOK, is_paused=True, changed=True),
        "answer_resumed": answers.paused(LOOK, is_paused=False, changed=True),
    }


_STYLE = """
body { background: #17212b; color: #f5f5f5; font: 15px/1.36 system-ui, sans-serif; margin: 16px;
  columns: 340px; column-gap: 16px; }
figure { margin: 0 0 16px; break-inside: avoid; }
div { background: #182533; border: 1px solid #2b3a4a; border-radius: 12px; padding: 10px 12px;
  white-space: pre-wrap; }
figcaption { color: #7d8b99; font-size: 12px; margin: 0 0 4px 4px; }
code { color: #7cc4ff; font: 14px monospace; } a { color: #6ab3f3; }
"""


def sheet(wanted: Mapping[str, str]) -> str:
    """Return messages as a page of phones."""
    phones = "".join(
        f"<figure><figcaption>{name}</figcaption><div>{text}</div></figure>"
        for name, text in wanted.items()
    )
    return f'<!doctype html><meta charset="utf-8"><style>{_STYLE}</style>{phones}\n'


def main(argv: Sequence[str] | None = None) -> int:
    """Write every file; those of messages that are no more go."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sheet", type=Path, help="write a page of phones instead")
    parser.add_argument("names", nargs="*", help="which messages the page shows")
    args = parser.parse_args(argv)
    wanted = texts()
    if args.sheet:
        chosen = {name: wanted[name] for name in args.names or wanted}
        args.sheet.write_text(sheet(chosen), encoding="utf-8")
        return 0
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.txt"):
        if path.stem not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (FOLDER / f"{name}.txt").write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(f"{len(wanted)} messages in {FOLDER}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
