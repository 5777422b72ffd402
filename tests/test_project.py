"""What the repository promises about itself: pins, pages and commands that exist."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import dealt

ROOT = Path(__file__).resolve().parents[1]
NAME = re.compile(r"^([A-Za-z0-9_.-]+)")


def names_in(file: str) -> set[str]:
    """Return the package names of a requirements file."""
    lines = (ROOT / file).read_text().splitlines()
    found = (NAME.match(line) for line in lines if line and not line.startswith("#"))
    return {match.group(1).lower().replace("_", "-") for match in found if match}


def test_every_requirement_is_pinned() -> None:
    """Each direct dependency has a bound above and a pin in the constraints."""
    pinned = names_in("constraints.txt")
    for file in ("requirements.txt", "requirements-dev.txt"):
        wanted = names_in(file) - {"xgboost"}  # stands in for xgboost-cpu where that has no wheels
        assert wanted
        assert wanted <= pinned, wanted - pinned
        for line in (ROOT / file).read_text().splitlines():
            if line and not line.startswith("#") and not line.startswith("apsw"):
                assert "<" in line, line


def test_scripts_in_the_readme_exist() -> None:
    """Every script the README names is there, and every top-level script is named."""
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"\b([a-z_]+\.py)\b", readme))
    top = {path.name for path in ROOT.glob("*.py")}
    assert top <= named, top - named
    assert {name for name in named if not (ROOT / name).exists()} <= {"schema.py"}


def test_what_shows_the_promises_exists() -> None:
    """Each test that docs/unattended.md names is there, by its file and a part of its name."""
    cells = [
        line.rsplit("|", 2)[1]
        for line in (ROOT / "docs" / "unattended.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and not line.startswith(("| promise", "| ---"))
    ]
    assert len(cells) >= 30
    for cell in cells:
        held, names = "", re.findall(r"`([^`]+)`", cell)
        assert names
        for name in names:
            path = ROOT / "tests" / f"test_{name}.py"
            if path.is_file():
                held = path.read_text(encoding="utf-8")
            else:
                part = name.removesuffix("*")
                assert re.search(rf"def test_\w*{part}", held), (cell, name)


def test_makefile_targets_in_the_readme_exist() -> None:
    """Every `make x` of the README is a target."""
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    wanted = set(re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", readme, re.MULTILINE))
    targets = {first or second for first, second in wanted}
    assert "demo" in targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("folder", ["core", "demo", "docs", "benchmarks", "proof"])
def test_nothing_names_a_machine(folder: str) -> None:
    """No absolute path of somebody's machine in code or docs."""
    texts = [
        path
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".md", ".toml", ".yaml"}
    ]
    assert texts
    for path in texts:
        assert not re.search(r"(/home/|/root/|/work/|/Users/)", path.read_text()), path


def said_by(code: str) -> str:
    """What a fresh interpreter prints, which ends well."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_importing_the_words_is_light() -> None:
    """The settings load without numerical or network libraries beyond numpy."""
    code = (
        "import sys, core.config, core.cli, core.errors;"
        "heavy = {'pandas', 'numba', 'ccxt', 'xgboost', 'streamlit', 'sklearn'} & set(sys.modules);"
        "print(sorted(heavy))"
    )
    assert said_by(code) == "[]"


def test_a_retro_scan_loads_no_more_than_it_uses() -> None:
    """Its modules and a compiled call leave out what costs tenths of a second, and harm nothing."""
    code = (
        "import sys, numpy as np, core.app, core.jobs.retro;"
        "from core.indicators import means;"
        "assert means(np.ones(3), np.array([0]), np.array([3])) == 1;"
        "heavy = {'pandas', 'scipy.linalg', 'cffi', 'requests', 'rich', 'joblib', 'xgboost'};"
        "print(sorted(heavy & set(sys.modules)));"
        "import scipy.linalg, cffi"
    )
    assert said_by(code) == "[]"


def test_a_score_takes_the_trees_without_the_frames_they_could_come_from() -> None:
    """Fitting, scoring and reasons load neither pandas nor scikit-learn; both work afterwards."""
    code = (
        "import sys, numpy as np; from core.ml import model;"
        "rng = np.random.default_rng(1); x = rng.normal(size=(400, 3)); half = np.full(400, .5);"
        "(tree,) = model.fits(x, x[:, 0] > 0, weight=np.ones(400), p_mart=half,"
        " sets=model.PARAMETER_SETS[:1], seed=1);"
        "assert model.predict(tree, x, half)[x[:, 0] > 1].mean() > .5;"
        "assert model.contributions(tree, x).shape == x.shape;"
        "print(sorted({'pandas', 'sklearn'} & set(sys.modules)));"
        "import pandas, sklearn, xgboost;"
        "assert xgboost.DMatrix(pandas.DataFrame(x)).num_row() == 400"
    )
    assert said_by(code) == "[]"


class Marked(NamedTuple):
    """A test with the minutes its mark says; 0 for a quick one."""

    name: str
    minutes: float

    def get_closest_marker(self, name: str) -> Any:
        """Return the mark of a long test."""
        return getattr(pytest.mark, name)(minutes=self.minutes).mark if self.minutes else None


@pytest.mark.parametrize("n_workers", [1, 2, 3])
def test_long_tests_are_dealt_out_first_and_evenly(n_workers: int) -> None:
    """No test is lost; each worker's part begins with long ones, the dearest first."""
    rng = random.Random(n_workers)
    tests = [Marked(str(i), rng.choice([0, 0, 0, 0, 1, 2, 5])) for i in range(200)]
    got: list[Any] = dealt(tests, n_workers=n_workers)  # type: ignore[arg-type]
    assert sorted(got) == sorted(tests)
    cuts = [len(got) * i // n_workers for i in range(n_workers + 1)]
    totals = []
    for first, end in pairwise(cuts):
        dear = [test.minutes for test in got[first:end]]
        n_long = sum(map(bool, dear))
        assert n_long
        assert dear[:n_long] == sorted(dear[:n_long], reverse=True)
        totals.append(sum(dear))
    assert max(totals) - min(totals) <= 5
    assert [test for test in got if not test.minutes] == [
        test for test in tests if not test.minutes
    ]
