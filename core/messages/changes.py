"""What changed: how far the model is proven, and what the weekly work came to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.messages.phone import GREEN, Look, clean, escaped, message, when, wrapped

_MOST_CELLS = 12
_MEANS = {
    "CERTIFIED": "What passes its limit comes as a SIGNAL from now on.",
    "UNCERTIFIED": "No proven edge: the best few come as PAPER, size 0.",
    "DEGRADED": "The certificate is withdrawn until another model is promoted: the best few come as"
    " PAPER, size 0. Open trades are followed to their end.",
}


def state_changed(
    state: str, look: Look, *, reason: str, at_ms: int, bundle: str, before: str = ""
) -> str:
    """Return the news that the proof of an edge was won or lost, why, and what that means."""
    mark = f"{GREEN} " if state == "CERTIFIED" else ""
    lines = [
        f"{mark}<b>{escaped(state, 14)}</b>",
        *([f"until now {escaped(before, 14)}"] if before else []),
        f"From {when(at_ms, look.zone)}",
        "",
        *wrapped(clean(reason[:1].upper() + reason[1:], 300)),
        "",
        *wrapped(_MEANS[state]),
        f"Model {escaped(bundle, 30)}",
    ]
    return message(lines, look)


def weekly_work(tuned: Mapping[str, Any], metrics: Mapping[str, Any], look: Look) -> str:
    """Return what training, calibration and tuning changed.

    `tuned` is what the tuner says, `metrics` what is stored with its bundle; a step that did not
    run is left out.
    """
    lines = ["<b>WEEKLY WORK</b>"]
    if "bundle" in tuned:
        lines.append(f"Model {escaped(tuned['bundle'], 30)}")
    lines += ["", *_calibrated(metrics.get("calibration") or {}), *_limits(tuned)]
    decided = tuned.get("promotion") or {}
    done = "PROMOTED: it speaks from now on" if decided.get("promoted") else "KEPT as it was"
    reason = clean(str(decided.get("reason", "")).removeprefix("kept: "), 240)
    lines += ["", f"<b>{done}</b>", *wrapped(reason)]
    note = decided.get("note") or decided.get("config_note")
    return message([*lines, *(wrapped(clean(note, 240)) if note else [])], look)


def _calibrated(facts: Mapping[str, Any]) -> list[str]:
    if "brier" not in facts:
        return []
    return [
        f"Trades {facts['n']} (n_eff {facts['n_eff']:.0f})",
        f"Calibration {escaped(facts['method'], 20)}",
        f"Brier {facts['brier']:.4f}",
        f"coin flip's {facts['brier_mart']:.4f}",
        *wrapped(clean(facts.get("note", ""), 160)),
    ]


def _limits(tuned: Mapping[str, Any]) -> list[str]:
    if "n_certified" not in tuned:
        return []
    n, n_cells = int(tuned["n_certified"]), len(tuned["cells"])
    lines = [f"Limits proven: {n} of {n_cells}"]
    proven = [(c, f) for c, f in sorted(tuned["cells"].items()) if f.get("certified")]
    for cell, found in proven[:_MOST_CELLS]:
        value = float(found["value"])
        unit = f"EV from {value:+.2f} %" if tuned["mode"] == "ev" else f"p from {value:.2f}"
        name = "all" if cell == "* *" else cell.replace("* ", "all ")
        lines += [escaped(name, 36), f"  {unit}, n {found['n']} ({found['n_eff']:.0f})"]
    n_more = len(proven) - _MOST_CELLS
    return [*lines, f"and {n_more} more"] if n_more > 0 else lines
