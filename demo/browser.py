"""The dashboard in a real browser: a server of its own, pages opened, what went wrong, pictures.

It drives the system's Chromium through Playwright, which is a development requirement only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from core.errors import UsageError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

ROOT = Path(__file__).resolve().parents[1]
WIDE, NARROW = 1440, 390
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_UP_S, _SHOWN_MS = 60.0, 60_000
_TALLEST = 6000
_PHONE = "Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 Chrome/131.0 Mobile Safari/537.36"


def lacking() -> str:
    """Return what a browser test lacks on this machine, '' where it has all."""
    if find_spec("playwright") is None:
        return "playwright is not installed: pip install -r requirements-dev.txt"
    if _chromium() is None:
        return "no Chromium on the PATH: apt-get install chromium"
    return ""


def _chromium() -> str | None:
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


@contextlib.contextmanager
def serving(config_path: Path) -> Iterator[tuple[str, int]]:
    """Run the dashboard of a configuration; yield its address and its process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "dashboard.py", "--server.port", str(port)]
    command += ["--", "--config", str(config_path.resolve())]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=ROOT, stdout=quiet, stderr=quiet) as server:
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_until_up(address, server)
            yield address, server.pid
        finally:
            server.terminate()


def _wait_until_up(address: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _UP_S
    while time.monotonic() < deadline and server.poll() is None:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"{address}/_stcore/health", timeout=2),
        ):
            return
        time.sleep(0.2)
    raise UsageError("the dashboard did not start;", remedy="run: streamlit run dashboard.py")


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Start headless Chromium. Raises UsageError where the machine has none."""
    if lacking():
        raise UsageError("no browser;", remedy=lacking())
    from playwright.sync_api import sync_playwright

    # Without root Chromium keeps its sandbox; as root it would not start with it.
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=_chromium(), args=flags)
        try:
            yield made
        finally:
            made.close()


@dataclass(slots=True)
class Visit:
    """One open page; `problems` holds console errors, `hosts` every host it asked."""

    page: Page
    address: str
    problems: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def open(self, query: dict[str, Any] | None = None) -> None:
        """Go to the dashboard with a query and wait until it has come to rest."""
        self.page.goto(f"{self.address}/?{urlencode(query or {}, doseq=True)}")
        self.settle()

    def settle(self) -> None:
        """Wait until the tabs are there, the script has run and every chart is drawn."""
        page = self.page
        page.locator("[data-testid=stTabs]").first.wait_for(timeout=_SHOWN_MS)
        page.wait_for_function(_AT_REST, timeout=_SHOWN_MS, polling=100)

    def picture(self, path: Path, *, tallest: int = _TALLEST) -> None:
        """Save the page, as tall as it is and no taller than `tallest` pixels."""
        path.parent.mkdir(parents=True, exist_ok=True)
        width = (self.page.viewport_size or {"width": WIDE})["width"]
        tall = int(self.page.evaluate(f"document.querySelector('{_MAIN}').scrollHeight"))
        self.page.set_viewport_size({"width": width, "height": min(tall + 40, tallest)})
        self.page.wait_for_timeout(400)
        self.page.screenshot(path=path)


_MAIN = "[data-testid=stMain]"
_AT_REST = """() => {
  const app = document.querySelector('[data-testid=stApp]');
  const charts = [...document.querySelectorAll('[data-testid=stPlotlyChart]')];
  const drawn = charts.every(c => c.querySelector('.main-svg .cartesianlayer'));
  const stale = document.querySelector('[data-stale=true], [data-testid=stSkeleton]');
  return app.dataset.testScriptState === 'notRunning' && drawn && !stale;
}"""


@contextlib.contextmanager
def visit(made: Browser, address: str, *, width: int = WIDE, dark: bool = False) -> Iterator[Visit]:
    """Open a window of its own, as a reader with that screen and those settings has it."""
    context = made.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if dark else "light",
        user_agent=_PHONE if width <= NARROW else None,
    )
    seen = Visit(page=context.new_page(), address=address)

    def note(message: ConsoleMessage) -> None:
        if message.type == "error":
            seen.problems.append(message.text)

    def ask(request: Request) -> None:
        host = urlsplit(request.url).hostname
        if host:
            seen.hosts.add(host)

    seen.page.on("console", note)
    seen.page.on("pageerror", lambda error: seen.problems.append(str(error)))
    seen.page.on("request", ask)
    try:
        yield seen
    finally:
        context.close()
