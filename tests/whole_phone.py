"""What differed after all, as counts by reason; and what arrived on the owner's phone."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.app import App
from core.messages import plain
from core.notify import REPEAT
from tests.outbox_world import CANARY, unmarked
from tests.whole_world import Whole


@dataclass
class Result:
    """Counts of what was compared, and of what differed by kind and recorded reason."""

    compared: Counter[str] = field(default_factory=Counter)
    differed: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def unlike(self, kind: str, reason: str, what: object) -> None:
        """Note a difference; without a reason it is a fault of the product."""
        self.differed[f"{kind}: {reason or 'UNEXPLAINED'}"] += 1
        if not reason:
            self.unexplained.append(f"{kind}: {what}")

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "compared": dict(self.compared),
            "differed": dict(sorted(self.differed.items())),
            "unexplained": self.unexplained,
            "facts": self.facts,
        }


def compare_messages(world: Whole, live: App, result: Result) -> None:
    """Each row is on the phone once; more often only where it is marked, and in its order."""
    rows = live.db.dicts("SELECT * FROM outbox ORDER BY id")
    got = [plain(payload["text"]) for payload in world.bot.accepted]
    arrived: dict[str, list[int]] = defaultdict(list)
    for i, text in enumerate(got):
        arrived[unmarked(text)].append(i)
    _rows(rows, arrived, result)
    n_sent = Counter(unmarked(plain(row["text"])) for row in rows if row["state"] == "sent")
    for text, places in arrived.items():
        n_marked = sum(got[i].startswith(REPEAT) for i in places)
        for _ in range(n_marked):
            result.unlike("message repeated", "marked as a possible repeat", text)
        if len(places) - n_marked > n_sent[text]:
            result.unlike("message besides", _superseded(text, rows), text)
    for text, n in n_sent.items():
        if len(arrived[text]) < n:
            result.unlike("message lost", "", text)
    assert CANARY not in world.engine.log.read_text(errors="replace")


def _rows(rows: list[dict[str, Any]], arrived: Mapping[str, list[int]], result: Result) -> None:
    """Count the messages given up, and look at the order of what was told of each signal."""
    first: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        text = unmarked(plain(row["text"]))
        result.compared["messages"] += 1
        if row["state"] == "dead":
            is_silent = "no answer twice" in (row["last_error"] or "")
            result.unlike("message given up", "no answer twice" if is_silent else "", text)
        if row["signal_id"] is not None and text in arrived:
            first[row["signal_id"]].append(arrived[text][0])
    for number, places in first.items():
        result.compared["stories"] += 1
        if places != sorted(places):
            result.unlike("order of a story", "", number)


def _superseded(text: str, rows: list[dict[str, Any]]) -> str:
    """Return why a text arrived that no row holds any more: in doubt, it was said otherwise."""
    numbers = {int(number) for number in re.findall(r"#S(\d+)", text)}
    for row in rows:
        if row["state"] == "dead" and unmarked(plain(row["text"])) == text:
            return "no answer twice"
        is_call = row["kind"] == "new_signal" and row["signal_id"] in numbers
        if is_call and row["text"].startswith(REPEAT) and row["attempts"] > 1:
            return "repeated as expired, marked"
    return ""


def report(done: Mapping[str, Any], result: Result, **more: Any) -> str:
    """Return what was done and what differed, for people."""
    lines = ["# The whole product in bad conditions", ""]
    lines += [f"{name}: {value}" for name, value in more.items()]
    for title, counts in {**done, **result.as_dict()}.items():
        lines += ["", f"## {title}", ""]
        if isinstance(counts, dict):
            lines += [
                f"- {name}: {n if not isinstance(n, dict) else json.dumps(n)}"
                for name, n in counts.items()
            ]
        else:
            lines.append(f"{counts or 'none'}")
    return "\n".join(lines) + "\n"
