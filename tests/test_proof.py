"""What is claimed names what shows it, and README.md says what docs/proof.md says."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from benchmarks.__main__ import NAMES as TABLES
from proof import __main__ as command
from proof import page, runs
from proof.claim import Bench, Cases, Claim, Figures, Subject
from proof.claims import SUBJECTS
from proof.quoted import at_odds, claims_of
from proof.verdicts import is_among, of_places, of_tests, row_of

ROOT = Path(__file__).resolve().parents[1]
CLAIMS = claims_of(SUBJECTS)
SOME = Claim(says="It holds.", by=Cases(ids=["tests/a.py::test_x"]))
README = "All is well: it takes 1.4 s,\nand holds."
TIMED = Claim(
    says="It takes.", by=Bench(name="rate", column="ours"), readme="it takes 1.4 s", quotes="1.4 s"
)


def functions_of(path: Path) -> dict[str, list[str]]:
    """Return the tests of a file, with the names of their marks."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {node.name: [ast.unparse(mark) for mark in node.decorator_list] for node in found}


def test_every_claim_names_what_exists_and_runs_in_full() -> None:
    """Tests by file and function, none of a small size; tables and runs by their names."""
    assert len(CLAIMS) > 50
    assert len({claim.says for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        if isinstance(claim.by, Bench):
            assert claim.by.name in TABLES
        elif isinstance(claim.by, Figures):
            assert claim.by.run in runs.COMMANDS
        else:
            assert claim.by.ids
            for name in claim.by.ids:
                file, _, function = name.partition("::")
                marks = functions_of(ROOT / file)[function]
                assert "pytest.mark.small" not in marks, name


def test_the_readme_says_what_is_claimed_with_the_figures_of_the_proof() -> None:
    """Each passage stands in README.md; each number it quotes stands in docs/proof.md."""
    readme, proof = ((ROOT / name).read_text("utf-8") for name in ("README.md", "docs/proof.md"))
    assert sum(bool(claim.readme) for claim in CLAIMS) > 40
    assert list(at_odds(SUBJECTS, readme, proof)) == []


def ended(name: str, outcome: str = "passed", **more: object) -> str:
    """A line of a test that ended."""
    row = {"id": name, "outcome": outcome, "reason": "", "seconds": 1, "figures": {}}
    return json.dumps({**row, **more}) + "\n"


def shelf_with(folder: Path, *lines: str) -> runs.Shelf:
    """Stored outputs of tests."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tests.jsonl").write_text("".join(lines), encoding="utf-8")
    return runs.Shelf(folder=folder)


@pytest.mark.parametrize(
    ("lines", "figure", "verdict"),
    [
        ([], "", "not run"),
        ([ended("tests/a.py::test_x")], "1 passed", "passed"),
        ([ended("tests/a.py::test_x[1]"), ended("tests/a.py::test_x[2]")], "2 passed", "passed"),
        (
            [ended("tests/a.py::test_x[1]"), ended("tests/a.py::test_x[2]", "failed", reason="no")],
            "1 passed",
            "FAILED: no",
        ),
        ([ended("tests/a.py::test_x", "skipped", reason="no data")], "", "skipped: no data"),
        ([ended("tests/a.py::test_x", figures={"found": "3 of 4"})], "found 3 of 4", "passed"),
        (
            [ended("tests/a.py::test_x", "failed"), ended("tests/a.py::test_x")],
            "1 passed",
            "passed",
        ),
        ([ended("tests/a.py::test_xy")], "", "not run"),
        (['{"id": "tests/a.py::te'], "", "not run"),
    ],
)
def test_a_claim_holds_when_every_case_of_its_tests_passed(
    tmp_path: Path, lines: list[str], figure: str, verdict: str
) -> None:
    """The newest result of each case counts; a line that was cut off does not."""
    row = row_of(SOME, shelf_with(tmp_path, *lines))
    assert (row.figure, row.verdict) == (figure, verdict)


def test_one_test_of_several_that_did_not_run_is_said() -> None:
    """A claim is not shown by half of what shows it."""
    ran = {"tests/a.py::test_x": json.loads(ended("tests/a.py::test_x"))}
    both = Cases(ids=["tests/a.py::test_x", "tests/a.py::test_y"])
    assert of_tests(both, ran) == ("1 passed", "not run: some of them")


def test_figures_are_read_from_their_places() -> None:
    """Names, rows by a value, intervals as lists or beside their figure, and what is no number."""
    output = {
        "rows": [{"share": 0.1, "r": [1.0, 0.5, 1.5]}, {"share": 0.3, "r": [-0.07, -0.12, 0.0]}],
        "book": {"n": 3433, "rate": 0.377, "rate_lo": 0.34, "rate_hi": 0.41},
        "said": "nothing",
        "none": [None, None, None],
    }
    by = Figures(run="x", places=["rows/share=0.3/r", "book/n", "book/rate", "said", "none"])
    want = "-0.07 [-0.12, 0.00], 3,433, 0.38 [0.34, 0.41], nothing, - [-, -]"
    assert of_places(by, output) == want


def timed(folder: Path, took: str, **entry: object) -> runs.Shelf:
    """Stored output of a benchmark."""
    shelf = shelf_with(folder)
    tables = [{"title": "t", "rows": [{"figure": "one", "ours": took}]}]
    shelf.path("bench:rate").write_text(json.dumps({"rate": {"tables": tables}}), encoding="utf-8")
    shelf.note("bench:rate", **{"code": 0, "seconds": 2.0, "ended": "2026-01-02", **entry})
    return shelf


@pytest.mark.parametrize(
    ("at_most", "verdict"),
    [(None, "measured"), (2.0, "reached (must: 2)"), (1.0, "MISSED (must: 1)")],
)
def test_a_figure_is_told_with_its_mark(
    tmp_path: Path, at_most: float | None, verdict: str
) -> None:
    """A benchmark asserts nothing; where there is a mark the page says whether it was reached."""
    claim = Claim(says="It takes.", by=Bench(name="rate", column="ours", at_most=at_most))
    row = row_of(claim, timed(tmp_path, "1.43 s"))
    assert (row.figure, row.verdict) == ("1.43 s", verdict)


def test_a_run_that_failed_or_was_left_out_is_shown_as_that(tmp_path: Path) -> None:
    """Never with the figure of another run."""
    failed = row_of(TIMED, timed(tmp_path / "a", "1.4 s", code=3))
    assert (failed.figure, failed.verdict) == ("", "FAILED: code 3")
    page_of_it = page.page(
        [Subject(title="Speed", claims=[TIMED])], timed(tmp_path / "a", "", code=3)
    )
    lines = list(at_odds([Subject(title="Speed", claims=[TIMED])], README, page_of_it))
    assert lines == ["README.md says what failed: it takes 1.4 s"]
    left = row_of(TIMED, timed(tmp_path / "b", "1.4 s", code=None, reason="no candles"))
    assert (left.figure, left.verdict) == ("", "not run: no candles")


@pytest.mark.parametrize(
    ("took", "lines"),
    [
        ("1.43 s", []),
        ("1.46 s", ["README.md says '1.4 s', docs/proof.md '1.46 s'"]),
        ("", []),
    ],
)
def test_a_quoted_figure_is_that_of_the_page(tmp_path: Path, took: str, lines: list[str]) -> None:
    """Rounded as it is quoted; what was not measured yet cannot be at odds."""
    subjects = [Subject(title="Speed", claims=[TIMED])]
    said = page.page(subjects, timed(tmp_path, took))
    assert list(at_odds(subjects, README, said)) == lines
    silent = at_odds(subjects, "Nothing.", said)
    assert next(silent) == "README.md does not say: it takes 1.4 s"


def test_numbers_are_compared_as_they_are_quoted() -> None:
    """Signs, separators of thousands and decimals."""
    assert is_among("0.05", ["0.046", "0.1"])
    assert not is_among("0.05", ["0.044", "-0.05"])
    assert is_among("3433", ["3433.2"])


def test_a_page_reads_back_and_says_what_else_failed(tmp_path: Path) -> None:
    """Rows with bars in their cells, too; a failure that no claim names stands at the end."""
    shelf = shelf_with(
        tmp_path,
        ended("tests/a.py::test_x", figures={"a | b": "1"}),
        ended("tests/b.py::test_z", "failed"),
    )
    subjects = [Subject(title="All", claims=[SOME])]
    text = page.page(subjects, shelf)
    assert page.rows_of(text)["It holds."] == row_of(SOME, shelf)
    assert page.failed_elsewhere(subjects, shelf) == ["tests/b.py::test_z"]
    assert "- `tests/b.py::test_z`" in text


def test_the_page_is_of_this_code(tmp_path: Path) -> None:
    """A changed file or library is another state; a changed page of docs is not."""
    (tmp_path / "core").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "core" / "a.py").write_text("1")
    first = runs.fingerprint(tmp_path, {"numpy": "1"})
    (tmp_path / "docs" / "a.md").write_text("words")
    assert runs.fingerprint(tmp_path, {"numpy": "1"}) == first
    assert runs.fingerprint(tmp_path, {"numpy": "2"}) != first
    (tmp_path / "core" / "a.py").write_text("2")
    assert runs.fingerprint(tmp_path, {"numpy": "1"}) != first


TINY = """
import pytest

def test_good(record_property):
    record_property("found", "3 of 4")

def test_bad():
    assert 1 == 2

@pytest.mark.skip(reason="not here")
def test_left_out():
    pass
"""


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that passed are not run again, those that did not are; the command fails with them."""
    (tmp_path / "test_tiny.py").write_text(TINY)
    (tmp_path / "README.md").write_text("nothing")
    shelf = runs.Shelf(folder=tmp_path / "shelf")
    names = [f"test_tiny.py::test_{name}" for name in ("good", "bad", "left_out")]
    claims = [Claim(says=name, by=Cases(ids=[name])) for name in names]
    monkeypatch.setattr(command, "SUBJECTS", [Subject(title="Tiny", claims=claims)])
    monkeypatch.setattr(command, "README", tmp_path / "README.md")
    monkeypatch.setattr(command, "shelf_of_now", lambda: shelf)
    monkeypatch.setattr(
        runs, "command_of", lambda *a, **k: [*of_runs(*a, **k), "--rootdir", str(tmp_path)]
    )
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert runs.carry_out(shelf, runs.TESTS, data=None, chosen=["test_tiny.py"]) == 1
    first = (shelf.folder / "tests.jsonl").read_text().count("\n")
    (tmp_path / "test_tiny.py").write_text(TINY.replace("1 == 2", "1 == 1"))
    assert command.main(["--page-only", "--page", str(tmp_path / "p.md")]) == 1
    assert runs.carry_out(shelf, runs.TESTS, data=None, chosen=["test_tiny.py"]) == 0
    second = (shelf.folder / "tests.jsonl").read_text().count("\n")
    assert (first, second) == (3, 5)
    assert command.main(["--page-only", "--page", str(tmp_path / "p.md")]) == 0
    rows = page.rows_of((tmp_path / "p.md").read_text())
    assert [rows[name].verdict for name in names] == ["passed", "passed", "skipped: not here"]
    assert rows[names[0]].figure == "found 3 of 4"


of_runs = runs.command_of
