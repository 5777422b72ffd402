"""The dashboard in a real browser over 10 pairs, 5 years, 4 timeframes and 300 000 candidates.

Beside each figure the same page over 60 days and 50 candidates: what Streamlit, the plotting code
and the browser take in the same run. Cold is the first visit of a server; warm are later ones, each
by a browser that has never been there; returning is a browser that has, as an owner's is.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from benchmarks import crowd, yard
from core import cli
from demo.browser import Visit, browser, lacking, serving, visit

_VISITS, _RERUNS = 5, 200
_TABS = "[data-testid=stTabs]"
_TABLE = "[data-testid=stDataFrame] canvas"
_CHART = ".js-plotly-plot .main-svg .cartesianlayer"


def tables() -> list[yard.Table]:
    """Make both databases, look at them, and return the table."""
    if lacking():
        cli.show(f"pages: left out, {lacking()}", as_json=False)
        return []
    with tempfile.TemporaryDirectory() as name, browser() as made:
        crowded = _database(Path(name) / "crowded", yard.FIVE_YEARS, crowd.N_CANDIDATES)
        small = _database(Path(name) / "small", 60, 50)
        ours, bare = _measured(made, crowded), _measured(made, small)
    rows = [
        {"figure": what, "ours": ours[what], "the same page, next to empty": bare[what]}
        for what in ours
    ]
    busy = psutil.getloadavg()[1] / psutil.cpu_count()  # above 1 others waited for the cores, too
    title = (
        f"pages over {crowd.N_CANDIDATES:,} candidates, in Chromium, at a load of {busy:.1f} a core"
    )
    return [yard.Table(title, rows)]


def _database(folder: Path, n_days: int, n_candidates: int) -> Path:
    folder.mkdir()
    crowd.fill(folder / "market.db", n_days=n_days, n_candidates=n_candidates)
    config = folder / "config.yaml"
    config.write_text("app: {db_path: market.db}\n", encoding="utf-8")
    return config


def _measured(made: Any, config: Path) -> dict[str, str]:
    with serving(config) as (address, pid):
        cold = _first_screen(made, address)
        warm = [_first_screen(made, address) for _ in range(_VISITS)]
        with visit(made, address) as seen:
            seen.open()
            back = [_arrived(seen) for _ in range(_VISITS)]
            seen.settle()
            moves = _interactions(seen)
            memory = _memory(seen, pid)
    out = {f"cold: {name} after": f"{took:.2f} s" for name, took in cold.items()}
    for kind, times in (("warm", warm), ("returning", back)):
        for name in cold:
            out[f"{kind}: {name} after"] = _median([one[name] for one in times])
    return out | moves | memory


def _median(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} s"


def _first_screen(made: Any, address: str) -> dict[str, float]:
    """Seconds from the address to the headline, the table and the chart, in one visit."""
    with visit(made, address) as seen:
        return _arrived(seen)


def _arrived(seen: Visit) -> dict[str, float]:
    begun = time.perf_counter()
    seen.page.goto(seen.address)
    out = {}
    for name, place in (("headline", _TABS), ("table", _TABLE), ("chart", _CHART)):
        seen.page.locator(place).first.wait_for(state="attached", timeout=120_000)
        out[name] = time.perf_counter() - begun
    return out


def _interactions(seen: Visit) -> dict[str, str]:
    """Seconds until another candidate's chart is there, and until the other pages are."""
    chosen = [_show(seen, i % 2) for i in range(2 * _VISITS)]

    def turn(tab: str) -> Callable[[], None]:
        def go() -> None:
            seen.page.get_by_role("tab", name=tab).click()
            seen.page.wait_for_timeout(50)
            seen.settle()

        return go

    out = {"another candidate": _median(chosen)}
    out["Results, first time"] = f"{_took(turn('Results')):.2f} s"
    back = [(_took(turn("Signals & Candles")), _took(turn("Results"))) for _ in range(_VISITS)]
    out["Results, again"] = _median([there for _, there in back])
    out["back to the first screen"] = _median([home for home, _ in back])
    for tab in ("Gate and scores", "In its parts"):
        out[f"{tab}, first time"] = f"{_took(turn(tab)):.2f} s"
        turn("Record")()
    turn("Signals & Candles")()
    return out


def _took(act: Callable[[], None]) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def _show(seen: Visit, i: int) -> float:
    """Press `Show` of one of the first two calls and wait until its chart is there."""
    buttons = seen.page.get_by_role("button", name="Show", exact=True)

    def act() -> None:
        buttons.nth(i).click()
        seen.page.wait_for_timeout(20)
        seen.settle()

    return _took(act)


def _memory(seen: Visit, pid: int) -> dict[str, str]:
    """The server's resident memory before and after many reruns."""
    process = psutil.Process(pid)
    for i in range(10):
        _show(seen, i % 2)
    before = process.memory_info().rss
    for i in range(_RERUNS):
        _show(seen, i % 2)
    after = process.memory_info().rss
    return {
        "server's memory": f"{before / 1e6:.0f} MB",
        f"after {_RERUNS} reruns": f"{after / 1e6:.0f} MB ({after / before - 1:+.1%})",
    }
