"""The demo's markets over many seeds: how often an edge is found where it is, and where it is not.

One seed shows that the engine can find an edge; only many show how often it finds one, and how
often it finds one that is not there.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import TraderError
from demo.stage import NULL_BANNER, Stage, generated_stages, write_config

ROOT = Path(__file__).resolve().parents[1]
HEADER = (
    f"{'seed':>6} {'market':<8} {'certified':<10} {'net R of the best 30 %':>24}"
    f" {'AUC':>6} {'coin':>6} {'candidates':>11}"
)


def over_seeds(
    seeds: Sequence[int], *, drift_sigmas: float, timeframes: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield the figures of both markets of each seed, as `figures_of` names them, as they come."""
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="trader-seed-") as name:
            stages = generated_stages(Path(name), seed=seed, drift_sigmas=drift_sigmas)
            for stage in stages:
                write_config(stage, speed=0, timeframes=timeframes, paper=0)
            for stage, found in zip(stages, prepared(stages), strict=True):
                yield {"seed": seed, "market": market_of(stage)} | figures_of(found)


def market_of(stage: Stage) -> str:
    """Return the short name of a generated market."""
    return "NULL" if stage.banner == NULL_BANNER else "PLANTED"


def prepared(
    stages: Sequence[Stage], sources: Mapping[Path, Sequence[Path]] | None = None
) -> list[dict[str, Any]]:
    """Prepare markets side by side, in a process each, and return their figures.

    `sources` are the files of each stage's folder to import; its own history where none are named.
    Raises TraderError where one fails.
    """
    running = []
    for stage in stages:
        paths = (sources or {}).get(stage.folder) or [stage.folder / "history"]
        command = [sys.executable, "-m", "demo.prepare", json.dumps(stage.as_json())]
        running.append(
            subprocess.Popen(
                [*command, *map(str, paths)], cwd=ROOT, stdout=subprocess.PIPE, text=True
            )
        )
    answers = [process.communicate()[0] for process in running]
    for stage, process in zip(stages, running, strict=True):
        if process.returncode:
            raise TraderError(f"preparing {stage.banner} failed (code {process.returncode})")
    return [json.loads(out.splitlines()[-1]) for out in answers]


def figures_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what one prepared market came to; NaN where too little was scored.

    `certified` asks for the root alone: no limit of a part stands without it.
    """
    lift, root = found.get("lift") or {}, _root(found)
    shares = {round(row["coverage"], 3): row for row in lift.get("coverage", ())}
    return {
        "certified": bool(root.get("certified")),
        "reason": root.get("reason", found["model"].get("missing", "")),
        "mean_r_30": _number(shares.get(0.3, {}).get("mean_r")),
        "auc": _number(lift.get("auc")),
        "auc_mart": _number(lift.get("auc_mart")),
        "candidates": int(found["scan"]["stored"]),
    }


def _root(found: Mapping[str, Any]) -> Mapping[str, Any]:
    cells = found["model"].get("tune", {}).get("cells", {})
    return dict(cells.get("* *", {}))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def line_of(row: Mapping[str, Any]) -> str:
    """Return one market's figures as a line under `HEADER`."""
    certified = "yes" if row["certified"] else "no"
    return (
        f"{row['seed']:>6} {row['market']:<8} {certified:<10} {row['mean_r_30']:>+24.3f}"
        f" {row['auc']:>6.3f} {row['auc_mart']:>6.3f} {row['candidates']:>11,}"
    )


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return how many markets of each kind were certified."""
    said = list[str]()
    for market in ("PLANTED", "NULL"):
        mine = [row for row in rows if row["market"] == market]
        n = sum(row["certified"] for row in mine)
        said.append(f"{market} {'certified ' if not said else ''}{n} of {len(mine)}")
    return ", ".join(said)
