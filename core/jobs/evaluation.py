"""The meta-model judged on candles that no choice was made on: `maintenance.py evaluate --data`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core import evaluation_page, views
from core.app import App
from core.config import Config
from core.config_file import load_config, replace_text
from core.domain import Progress
from core.jobs import learning
from core.jobs.evaluation_data import Question, fingerprint, imported, question_of, scanned, scratch
from core.jobs.evaluation_figures import CLAIMS, certificates, figures_of, parts_of
from core.jobs.evaluation_goals import certificate_row, goal_rows
from core.jobs.evaluation_scores import Ledger, ledger
from core.jobs.training import prospect_of
from core.ml import model
from core.ml.sample import Sample
from core.store import models as store
from core.store.db import Database
from core.strict_json import plain

WAYS = tuple(evaluation_page.WAYS)
PAGE, FIGURES = "evaluation.html", "evaluation.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked for; instants are UTC ms, the end excluded, None: until the candles end."""

    data: Sequence[Path]
    train: tuple[str, ...]
    unseen: tuple[str, ...]
    report_ms: int
    end_ms: int | None
    out: Path


def evaluate(
    config_path: Path, request: Request, *, workers: int = 0, progress: Progress
) -> dict[str, Any]:
    """Import, scan, train as of then, judge; write the page and the figures, and return these.

    Nothing of the owner's database is read or written.
    """
    config = load_config(config_path)
    name = fingerprint(request.data, config)
    folder = config_path.parent / config.app.data_dir / "evaluation" / name
    with scratch(config, folder) as app:
        reach = imported(app, request.data, progress)
        question = question_of(
            reach,
            train=request.train,
            unseen=request.unseen,
            report_ms=request.report_ms,
            end_ms=request.end_ms,
        )
        sample = scanned(app, question, progress)
        prospect = prospect_of(app.db, config, sample)
        made = ledger(
            sample, question, config, prospect=prospect, workers=workers, progress=progress
        )
        n_trials = _logged(app.db, question, made, folder=name)
    found = report_of(sample, made, question, config, n_trials=n_trials)
    found = {"data": name, "cache": str(folder), **found}
    _write(request.out, found)
    return found


def record(app: App, *, in_words: bool) -> dict[str, Any]:
    """Return the record of the owner's own model and of the gate as it spoke at the time.

    `in_words` gives the gate's as a sentence and a table. Raises ModelError where no model was
    ever trained.
    """
    found = learning.evaluate(app.db, app.config)
    gate = views.gate_record(views.results(app.db.path, strategy=app.strategy))
    if not in_words:
        return {**found, "gate": views.gate_as_json(gate)}
    if gate is None:
        return {**found, "gate": "no candidate that carried a score has matured yet"}
    table = views.gate_table(gate).to_dict("records")
    return {**found, "gate": gate.sentence, "what it passed, beside what it rejected": table}


def report_of(
    sample: Sample, made: Ledger, question: Question, config: Config, *, n_trials: int
) -> dict[str, Any]:
    """Return every figure of both ways of judging, the goals and the certificates, as JSON."""
    figures = {
        way: {
            part.name: figures_of(
                sample, told, part, config, report_ms=question.report_ms, n_trials=n_trials
            )
            for part in parts_of(sample, question)
        }
        for way, told in zip(WAYS, (made.frozen, made.as_run), strict=True)
    }
    granted = certificates(sample, made.as_run, question, config)
    headline = figures["frozen"].get(CLAIMS, {})
    return {
        "verdict": headline.get("sentence", "Nothing in the report could be scored."),
        "edge_after_costs": headline.get("edge_after_costs"),
        "question": asdict(question) | {"unseen_ms": question.unseen_ms},
        "n_trials": n_trials,
        "model": _model(made),
        **figures,
        "certificates": granted,
        "goals": [*goal_rows(figures["frozen"]), certificate_row(granted)],
    }


def _model(made: Ledger) -> dict[str, Any]:
    """What the frozen model is: its parameters, its calibration, and each set's log-loss."""
    stage = made.frozen_stage
    calibration = (
        None
        if stage is None
        else {
            "kind": stage.calibrator.kind,
            "source": stage.source,
            "ev_slope": stage.payoff.slope,
            "n_eff": stage.n_eff,
        }
    )
    return dict(
        plain(
            {
                "params": dict(model.PARAMETER_SETS[made.frozen_set]),
                "calibration": calibration,
                "trials": [{**params, **figures} for params, figures in made.trials],
            }
        )
    )


def _logged(db: Database, question: Question, made: Ledger, *, folder: str) -> int:
    """Log the sets tried, once for each question, and return how many these candles have seen."""
    asked = f"evaluation {folder} {question}"
    if not db.value("SELECT count(*) FROM trials WHERE bundle = ?", (asked,)):
        with db.write():
            store.insert_trials(db, asked, made.trials, now_ms=question.end_ms)
    return int(db.value("SELECT count(*) FROM trials"))


def _write(out: Path, found: Mapping[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    replace_text(out / FIGURES, json.dumps(found, indent=1) + "\n")
    replace_text(out / PAGE, evaluation_page.html_page(found))
