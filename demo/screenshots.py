"""Take the README's pictures of the dashboard: `python -m demo.screenshots`.

Of the demo's planted market, which `make demo` leaves in data/demo, unless --config names another
configuration. A generated market says so on every page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from core import cli
from core.errors import UsageError
from demo.browser import NARROW, ROOT, WIDE, browser, serving, visit

# name, query, width and greatest height in pixels, dark
PICTURES: tuple[tuple[str, dict[str, str], int, int, bool], ...] = (
    ("dashboard", {}, WIDE, 1900, False),
    ("dashboard-results", {"page": "Results"}, WIDE, 1700, True),
    ("dashboard-phone", {}, NARROW, 1300, True),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Open each page and save its picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    planted = ROOT / "data" / "demo" / "planted" / "config.yaml"
    parser.add_argument("--config", type=Path, default=planted)
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    args = parser.parse_args(argv)
    if not args.config.is_file():
        raise UsageError(f"{args.config} is not there;", remedy="run: make demo, or name --config")
    with serving(args.config) as (address, _), browser() as made:
        for name, query, width, tallest, dark in PICTURES:
            with visit(made, address, width=width, dark=dark) as seen:
                seen.open(query)
                seen.picture(args.out / f"{name}.png", tallest=tallest)
                sys.stdout.write(f"{args.out / name}.png\n")
    return 0


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
