"""An evaluation on paper: one self-contained HTML page, and its tables for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from core import page
from core.selection import Estimate
from core.views import evaluation_figures as plots

Figures = Mapping[str, Any]
WAYS = {
    "frozen": "Frozen: one model and calibrator of before the report, nothing refitted",
    "as_run": "As run: refitted each month on what had matured",
}
_NOTE = (
    "Intervals are 90 %, from runs of whole weeks (win-rates: Wilson on the effective n). Shares"
    " are cut inside half-years over all candidates, filled or not, by expected value; only then"
    " fills are looked at. The coin flip is the chance that a driftless walk meets TP1 before the"
    " stop. n_eff is what overlapping trades are worth."
)


def html_page(found: Figures) -> str:
    """Return the page of an evaluation's figures; it needs no network."""
    parts = [
        "<h1>Trader_AI: the model on candles it never saw</h1>",
        f'<p class="banner">{page.safe(found["verdict"])}</p>',
        f"<p>{page.safe(_subject(found))}</p>",
        "<h2>Goals</h2>",
        _frame(goal_table(found)),
        f'<p class="note">{page.safe(_NOTE)}</p>',
    ]
    for way, title in WAYS.items():
        parts += [f"<h2>{page.safe(title)}</h2>", _frame(summary_table(found, way))]
        parts += [_part(way, name, figures) for name, figures in _judged(found[way])]
    parts += [
        "<h2>Certificates that would have been in force</h2>",
        page.plot(plots.certificates_figure(found["certificates"]), "certificates"),
        _frame(certificate_table(found)),
    ]
    return page.html_page("Trader_AI evaluation", parts)


def terminal(found: Figures) -> dict[str, Any]:
    """Return what a terminal shows: the verdict, and a few tables."""
    return {
        "verdict": found["verdict"],
        "asked": _subject(found),
        **{name: part["title"] for name, part in _judged(found["frozen"])},
        **{WAYS[way]: summary_table(found, way) for way in WAYS},
        **{
            f"{name}, frozen: the best share by expected value": coverage_table(figures)
            for name, figures in _judged(found["frozen"])
            if name != "before"
        },
        "goals, on the frozen figures": goal_table(found),
        "certificates at the start of each month": certificate_table(found),
    }


def _judged(figures: Figures) -> list[tuple[str, Figures]]:
    return [(name, part) for name, part in figures.items() if part["n"]]


def _subject(found: Figures) -> str:
    asked, model = found["question"], found["model"]
    calibration = model["calibration"] or {"kind": "none", "source": "model", "ev_slope": 0.0}
    return (
        f"Trained on {', '.join(asked['train'])}; never on {', '.join(asked['unseen']) or 'none'}."
        f" Report {_day(asked['report_ms'])} to {_day(asked['end_ms'] - 1)}."
        f" {found['n_trials']} parameter sets tried; frozen model: {model['params']}, calibrated by"
        f" {calibration['kind']} ({calibration['source']}), expected value shrunk by"
        f" {calibration['ev_slope']:.2f}. Candles {found['data']}."
    )


def _day(instant_ms: int) -> str:
    return f"{pd.Timestamp(instant_ms, unit='ms'):%Y-%m-%d}"


def _part(way: str, name: str, figures: Figures) -> str:
    label, is_open = f"{way}-{name}", " open" if way == "frozen" else ""
    return "".join(
        [
            f"<details{is_open}><summary><b>{page.safe(name)}: {page.safe(figures['title'])}</b>",
            f"</summary><p>{page.safe(figures['sentence'])}</p>",
            "<h3>What taking fewer paid</h3>",
            page.plot(plots.paid_figure(figures["coverage"]), f"paid-{label}"),
            _frame(coverage_table(figures)),
            f"<p>{page.safe(figures['gate']['sentence'])}</p>",
            "<h3>Probabilities: said and come, before and after calibration</h3>",
            page.plot(plots.reliability_figure(figures["reliability"]), f"reliability-{label}"),
            "<h3>Net R: promised and come</h3>",
            page.plot(plots.promise_figure(figures["promise"]), f"promise-{label}"),
            "</details>",
        ]
    )


def _frame(rows: Sequence[Mapping[str, Any]]) -> str:
    return page.table(pd.DataFrame(rows))


def _text(values: Sequence[float | None], *, scale: float = 1.0, digits: int = 3) -> str:
    numbers = (float("nan") if value is None else value for value in values)
    return Estimate(*numbers).text(scale=scale, digits=digits)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def summary_table(found: Figures, way: str) -> list[dict[str, str]]:
    """Return the figures down, the samples across, in words."""
    judged = _judged(found[way])
    return [
        {"figure": figure, **{name: tell(part) for name, part in judged}}
        for figure, tell in _SUMMARY.items()
    ]


_SUMMARY: Mapping[str, Callable[[Figures], str]] = {
    "candidates, fill rate": lambda f: f"{f['n_candidates']:,}, {_number(f['fill_rate'], 2)}",
    "trades (effective)": lambda f: f"{f['n']:,} ({f['n_eff']:,.0f})",
    "AUC | coin flip": lambda f: f"{_number(f['auc'], 3)} | {_number(f['auc_mart'], 3)}",
    "raw model's AUC over coin flip": lambda f: _text(f["auc_over_mart"]),
    "Brier skill over base rate": lambda f: f"{f['brier_skill_base']:+.4f}",
    "Brier skill over coin flip": lambda f: _text(f["brier_skill_mart"], digits=4),
    "calibration slope": lambda f: _text(f["calibration_slope"], digits=2),
    "gross R, all": lambda f: _text(f["gross_r"]),
    "net R, all": lambda f: _text(f["net_r"]),
    "win-rate less coin flip, all, points": lambda f: _text(f["over_mart"], scale=100, digits=1),
    "lift of the best 30 %: net R": lambda f: _lift(f, "model", "net_r"),
    "… by cost alone": lambda f: _lift(f, "cost", "net_r"),
    "… win-rate, points": lambda f: _lift(f, "model", "win_rate"),
    "… coin flip's own, by its rank": lambda f: _lift(f, "mart", "win_rate"),
    "… win-rate less coin flip, points": lambda f: _lift(f, "model", "over_mart"),
    "gate: share passed": lambda f: f"{100 * f['gate']['coverage']:.1f} %, n {f['gate']['n']:,}",
    "gate: promised R": lambda f: _text([f["gate"]["promised_r"]]),
    "gate: realised R": lambda f: _passed(f, f["gate"]["net_r"]),
    "gate: promised less realised": lambda f: _passed(f, f["gate"]["promised_less_realised_r"]),
    "gate: passed less rejected, R": lambda f: _passed(f, f["gate"]["lift"]["net_r"]),
    "… among those not too dear": lambda f: _passed(f, f["gate"]["lift_affordable"]["net_r"]),
    "… as many by cost alone": lambda f: _passed(f, f["gate"]["lift_cheapest"]["net_r"]),
    "slope of realised on promised R": lambda f: _text(f["gate"]["ev_slope"], digits=2),
}


def _passed(figures: Figures, values: Sequence[float | None]) -> str:
    return _text(values) if figures["gate"]["n"] else "-"


def _lift(figures: Figures, ranked: str, name: str) -> str:
    scale, digits = (1.0, 3) if name == "net_r" else (100.0, 1)
    return _text(figures["lift_30"][ranked][name], scale=scale, digits=digits)


def coverage_table(figures: Figures) -> list[dict[str, str]]:
    """Return what each share gave, beside as many by cost, by the coin flip and by chance."""
    rows = [*figures["coverage"], figures["gate"]]
    return [_share(row) for row in rows if row["n"]]


def _share(row: Figures) -> dict[str, str]:
    controls = row.get("controls", {})
    return {
        "share": f"{row['coverage']:.0%}" if controls else "gate",
        "n (n_eff)": f"{row['n']:,} ({row['n_eff']:,.0f})",
        "filled": _number(row["fill_rate"], 2),
        "net R": _text(row["net_r"]),
        "promised": _text([row["promised_r"]]),
        "gross R": _text(row["gross_r"]),
        "win-rate %": _rate(row["win_rate"]),
        "less coin flip": _text(row["over_mart"], scale=100, digits=1),
        "net R by cost": _text(controls["cost"]["net_r"]) if controls else "-",
        "by coin flip": _text(controls["mart"]["net_r"]) if controls else "-",
        "at random": _text(controls["random"]["net_r"]) if controls else "-",
        "deflated Sharpe": _number(row["deflated_sharpe"], 3),
    }


def _rate(values: Sequence[float | None]) -> str:
    rate, low, high = ("-" if value is None else f"{100 * value:.1f}" for value in values)
    return f"{rate} [{low}, {high}]"


def goal_table(found: Figures) -> list[dict[str, str]]:
    """Return every goal beside what came: does it hold, is the ambitious one reached?"""
    words = {True: "yes", False: "NO", None: "-"}
    return [
        {
            "goal": row["goal"],
            "sample": row["sample"],
            "came": row["figure"],
            "must": row["must"],
            "holds": words[row["holds"]],
            "ambitious": row["ambitious"],
            "reached": words[row["reached"]].lower(),
            "the study saw": row["study"],
        }
        for row in found["goals"]
    ]


def certificate_table(found: Figures) -> list[dict[str, str]]:
    """Return, month by month, whether a limit would have been certified, and on what."""
    return [
        {
            "month": row["month"],
            "certified": "yes" if row["certified"] else "no",
            "n (n_eff)": f"{row['n']:,} ({row['n_eff']:,.0f})",
            "limit": _number(row["value"], 4),
            "why": row["reason"].removeprefix("not certified: "),
            "then, in the month": (
                f"{row['then_r']:+.3f} R (n {row['then_n']})" if row["then_n"] else "-"
            ),
        }
        for row in found["certificates"]
    ]
