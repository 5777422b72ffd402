"""The template that reports share: one self-contained HTML page of text, tables and plots."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
from plotly.offline import get_plotlyjs

_CHART = {"displaylogo": False, "displayModeBar": "hover"}
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; margin: .6rem 0; font-size: .82rem;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8a8f9844; }
.wide { overflow-x: auto; }
summary { cursor: pointer; margin: .8rem 0; }
tr.thin td { color: #8a8f98; }
.banner { border: 2px solid #d18b16; padding: .6rem 1rem; font-weight: 600; }
.note { color: #8a8f98; }
"""


def html_page(title: str, parts: Iterable[str]) -> str:
    """Return a page that needs no network; `parts` are markup, the plotting code stands inside."""
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{safe(title)}</title><style>{_STYLE}</style>"
    )
    return (
        f'<!doctype html><html lang="en"><head>{head}<script>{get_plotlyjs()}</script></head>'
        f"<body>{''.join(parts)}</body></html>"
    )


def safe(text: object) -> str:
    """Return a text that cannot become markup."""
    return html.escape(str(text))


def table(frame: pd.DataFrame, thin: Sequence[bool] = ()) -> str:
    """Return a frame as a table; the rows that `thin` marks are grey."""
    head = "".join(f"<th>{safe(name)}</th>" for name in frame.columns)
    marks = list(thin) or [False] * len(frame)
    rows = "".join(
        ('<tr class="thin">' if mark else "<tr>")
        + "".join(f"<td>{safe(value)}</td>" for value in row)
        + "</tr>"
        for row, mark in zip(frame.itertuples(index=False), marks, strict=True)
    )
    inner = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="wide">{inner}</div>'


def plot(figure: Any, name: str) -> str:
    """Return a Plotly figure as markup; `name` is its own on the page."""
    return str(
        figure.to_html(
            full_html=False, include_plotlyjs=False, div_id=f"plot-{name}", config=_CHART
        )
    )
