"""Damaged, swapped and re-hashed bundles are refused in one line, or speak with numbers."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from core.config import strategy_id
from core.jobs import learning
from core.jobs.promotion import tuner_entries
from core.jobs.training import load_sample
from core.ml import load_current
from core.ml.folder import POINTER, as_json, digest
from core.ml.sample import Sample
from tests.candidate_world import World, world
from tests.mutations import MORE, bent, mutated, refused


@dataclass(frozen=True)
class Given:
    """A promoted bundle, and candidates to be asked about."""

    made: World
    models: Path
    name: str
    sample: Sample


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Given]:
    """A small world with a promoted bundle."""
    made = world(tmp_path_factory.mktemp("bundles"), n=500, skill=0.9)
    name = learning.weekly(made.db, made.config, **made.all_places)["train"]["bundle"]
    if not (made.models_dir / POINTER).exists():
        (made.models_dir / POINTER).write_bytes(
            as_json({"bundle": name, "strategy_id": strategy_id(made.config)})
        )
    sample = load_sample(made.db, made.config, now_ms=made.now_ms).of(np.arange(8))
    yield Given(made, made.models_dir, name, sample)
    made.db.close()


@pytest.fixture
def models(given: Given, tmp_path: Path) -> Path:
    """A copy of its folder, to be spoilt."""
    return Path(shutil.copytree(given.models, tmp_path / "models"))


def spoken(given: Given, models: Path) -> str:
    """Load what is current and let it speak; returns what was said of a refused one.

    One that is not refused tells probabilities, values and limits that can be compared.
    """
    made, sample = given.made, given.sample
    strategy = strategy_id(made.config)

    def speak() -> None:
        bundle = load_current(models, strategy)
        if bundle is None:  # then the pointer is of another strategy
            assert json.loads((models / POINTER).read_bytes())["strategy_id"] != strategy
            return
        for speaker in (bundle, *(bundle.at(stage.cutoff_ms) for stage in bundle.stages)):
            assert speaker.cutoff_before(made.now_ms) is not None
            said = speaker.score(sample.features, sample.p_mart, prospect=sample.prospect())
            for score in said:
                assert 0 <= score.p_lo <= score.p <= score.p_hi <= 1
                assert np.isfinite([score.p_raw, score.ev_r, score.ev_lo_r, score.ev_pct]).all()
                json.dumps(score.why, allow_nan=False)
            for limit in speaker.certificates.values():
                assert limit.mode in ("ev", "p")
                assert limit.value is None or np.isfinite(limit.value)
            tuner_entries(speaker)

    return refused(speak)


def files_of(models: Path, name: str) -> list[Path]:
    """Every file of the bundle, and the pointer."""
    return sorted([*(models / name).iterdir(), models / POINTER])


def rehash(folder: Path) -> None:
    """Make the manifest say of every file what is there now: whoever edits by hand does so."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["files"] = {file: digest((folder / file).read_bytes()) for file in manifest["files"]}
    path.write_bytes(as_json(manifest))


def damage(given: Given, models: Path, cases: range) -> int:
    """Flip, cut and splice the files one by one; returns how many were refused."""
    n_refused = 0
    names = [path.relative_to(models) for path in files_of(models, given.name)]
    for number in cases:
        chance = random.Random(number)
        path = models / chance.choice(names)
        whole = path.read_bytes()
        path.write_bytes(mutated(whole, chance, other=(models / chance.choice(names)).read_bytes()))
        is_same = path.read_bytes() == whole
        said = spoken(given, models)
        if path.name not in (POINTER, "manifest.json"):
            assert said or is_same  # what the manifest holds of it no longer fits
        n_refused += bool(said)
        path.write_bytes(whole)
    assert spoken(given, models) == ""
    return n_refused


def test_any_damage_is_refused(given: Given, models: Path) -> None:
    """In each file; and the folder mended speaks again."""
    assert damage(given, models, range(60)) > 45


def test_swapped_and_missing_files_are_refused(given: Given, models: Path) -> None:
    """Any file in place of any other, also re-hashed; a folder, a pipe or nothing in its place."""
    folder = models / given.name
    paths = sorted(folder.iterdir())
    wholes = {path: path.read_bytes() for path in paths}
    for path in paths:
        for other in paths:
            path.write_bytes(wholes[other])
            assert spoken(given, models) or path == other
            if path.name != "manifest.json" and not _are_alike(path, other):
                rehash(folder)
                assert spoken(given, models), (path, other)
            for file, whole in wholes.items():
                file.write_bytes(whole)
        path.unlink()
        assert spoken(given, models)
        path.mkdir()
        assert spoken(given, models)
        path.rmdir()
        path.write_bytes(wholes[path])


def _are_alike(path: Path, other: Path) -> bool:
    """Say whether a file may stand for another, or is read by nobody before it is wanted."""
    return path == other or path.name.startswith("fold-") or path.suffix == other.suffix == ".ubj"


def rehashed(given: Given, models: Path, cases: range) -> int:
    """Bend the JSON files, with hashes that fit; returns how many were refused."""
    folder, n_refused = models / given.name, 0
    files = [path for path in files_of(models, given.name) if path.suffix != ".ubj"]
    wholes = {path: path.read_bytes() for path in files}
    for number in cases:
        chance = random.Random(number)
        path = chance.choice(files)
        path.write_bytes(json.dumps(bent(json.loads(wholes[path]), chance)).encode())
        if path.parent == folder and path.name != "manifest.json":
            rehash(folder)
        n_refused += bool(spoken(given, models))
        for file, whole in wholes.items():
            file.write_bytes(whole)
    return n_refused


def test_rehashed_nonsense_is_refused_or_speaks_with_numbers(given: Given, models: Path) -> None:
    """NaN, texts, lists and holes in calibrator, thresholds, manifest and pointer."""
    assert rehashed(given, models, range(60)) > 15


@pytest.mark.long
def test_any_of_many_damages_is_refused(given: Given, models: Path) -> None:
    """The same with more of them."""
    assert damage(given, models, range(60, 60 + 60 * MORE)) > 900


@pytest.mark.long
def test_much_rehashed_nonsense_is_refused_or_speaks_with_numbers(
    given: Given, models: Path
) -> None:
    """The same with five times as much: each case reads XGBoost's models and lets them speak."""
    assert rehashed(given, models, range(60, 360)) > 75


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff" * 500, b"{L\x00\x00", b"null"])
def test_a_rehashed_model_that_is_none_is_refused(
    given: Given, models: Path, content: bytes
) -> None:
    """What XGBoost cannot read is refused before anybody is scored."""
    folder = models / given.name
    (folder / "model.ubj").write_bytes(content)
    rehash(folder)
    assert "model.ubj" in spoken(given, models)


@pytest.mark.parametrize("name", ["../models/x", "/etc", "x/../y", "\x00", "9" * 5000, "é", ""])
def test_a_pointer_leads_to_bundles_only(given: Given, models: Path, name: str) -> None:
    """Not out of the folder, not to a name no bundle has."""
    pointer = {"bundle": name, "strategy_id": strategy_id(given.made.config)}
    (models / POINTER).write_bytes(as_json(pointer))
    assert "name of a bundle" in spoken(given, models)


@pytest.mark.parametrize("file", [POINTER, "manifest.json"])
@pytest.mark.parametrize("content", [b"[" * 100_000, b"9" * 5000, b"\xff\xfe{\x00}\x00", b"NaN"])
def test_json_without_an_end_is_refused(
    given: Given, models: Path, file: str, content: bytes
) -> None:
    """Nesting without end, a number of 5000 digits, another encoding."""
    path = models / POINTER if file == POINTER else models / given.name / file
    path.write_bytes(content)
    assert spoken(given, models)
