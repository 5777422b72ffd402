"""What README.md shows: the commands it tells people to type, and the outputs it promises."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`]+)`")
_PROGRAM = re.compile(r"(python|pip|make|streamlit|export|git)\s|(\w+)\.py\s+\S")
_NUMBER = re.compile(r"[+-]?\d+(,\d{3})*(\.\d+)?")


def text() -> str:
    """The whole of it."""
    return (ROOT / "README.md").read_text(encoding="utf-8")


def commands(readme: str) -> list[str]:
    """Every command of the bash blocks and of the text, each once, in the order of the page.

    A script named with arguments is one too: the `python` before it is left out in running text.
    """
    found: dict[str, None] = {}
    place = 0
    for block in _FENCE.finditer(readme):
        found |= dict.fromkeys(_in_words(readme[place : block.start()]))
        if block[1] == "bash":
            found |= dict.fromkeys(_in_lines(block[2]))
        place = block.end()
    return list(found | dict.fromkeys(_in_words(readme[place:])))


def _in_lines(block: str) -> list[str]:
    lines = (line.partition(" #")[0] for line in block.splitlines())
    return [" ".join(line.split()) for line in lines if line.strip()]


def _in_words(words: str) -> list[str]:
    spans = (" ".join(span.split()) for span in _SPAN.findall(words))
    return [
        f"python {span}" if re.match(r"\w+\.py ", span) else span
        for span in spans
        if _PROGRAM.match(span)
    ]


def outputs(readme: str) -> list[str]:
    """The blocks without a language: what is printed, sent, or lies in the folder."""
    return [block[2] for block in _FENCE.finditer(readme) if not block[1]]


def output_that_begins(readme: str, begin: str) -> list[str]:
    """The lines of the one block in which a text stands first."""
    (found,) = [block for block in outputs(readme) if block.startswith(begin)]
    return [line for line in found.splitlines() if line.strip()]


def masked(line: str) -> str:
    """A line with its figures taken out: every number is a #, columns one space apart.

    >>> masked("net R   -0.055 ± 0.032  1,234 (56 %)")
    'net R # ± # # (# %)'
    """
    return " ".join(_NUMBER.sub("#", line).split())
