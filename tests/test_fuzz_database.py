"""A damaged, foreign or odd database or pack: one line says so, and nothing of ours is lost."""

from __future__ import annotations

import importlib
import io
import json
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from core import cli
from core.app import App
from core.jobs import files, maintain, pack
from core.store.signals import record_strategy
from tests.engine_world import opened
from tests.history_world import SWAP, bits, engine, written
from tests.mutations import LONGEST_LINE, MORE, mutated, refused
from tests.sick_databases import SICK
from tests.tiny_database import T0, add

NOW_MS = 1_717_243_200_000
COMMANDS = (
    ("init_db",),
    ("db_inspect",),
    ("db_inspect", "--holes"),
    ("scan_signals", "--dry-run"),
    ("maintenance", "doctor"),
    ("maintenance", "backup"),
    ("maintenance", "checkpoint"),
)
UNKNOWN = "--log-level debug"  # what is said of an error that nobody foresaw
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an engine that holds candles, a hole and signals, and is not in use."""
    folder = tmp_path_factory.mktemp("database")
    app = engine(folder / "a")
    bars = bits(900, 3)
    files.import_paths(app, [written(folder / "in", (SWAP, bars[:400]), ("X/USDT", bars[500:]))])
    strategy = record_strategy(app.db, app.config, now_ms=T0)
    for day in range(5):
        add(app.db, strategy, day)
    (folder / "a" / "models").mkdir()
    app.close()
    return folder / "a"


def run(folder: Path, command: tuple[str, ...], capsys: Capture) -> str:
    """Run a command in this process as its script does; returns the line of its refusal or ''."""
    script, *arguments = command
    main = importlib.import_module(script).main
    argv = [*arguments, "--config", str(folder / "config.yaml"), "--log-level", "error"]
    code = cli.guarded(lambda _: int(main(argv)))
    said = capsys.readouterr().err.strip()
    assert code in (0, 1, 2)
    assert "Traceback" not in said
    refusal = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(refusal) <= 1
    assert all(len(line) < LONGEST_LINE for line in refusal), refusal
    return refusal[0] if refusal else ""


def damaged_pages(whole: Path, folder: Path, cases: range, capsys: Capture) -> tuple[int, int]:
    """Run a command on damaged copies; returns how many were refused, and how many unforeseen."""
    raw = (whole / "ohlcv.db").read_bytes()
    lines = []
    shutil.copy(whole / "config.yaml", folder)
    for number in cases:
        chance = random.Random(number)
        spoilt = bytearray(raw)
        for _ in range(chance.choice((1, 3, 30))):
            at = chance.randrange(0, len(raw), 4096) if chance.random() < 0.7 else 0
            at += chance.randrange(100) if chance.random() < 0.7 else chance.randrange(4096)
            spoilt[at : at + 8] = chance.randbytes(8)
        if chance.random() < 0.2:
            spoilt = spoilt[: chance.randrange(len(spoilt))]
        (folder / "ohlcv.db").write_bytes(spoilt[: len(raw)])
        for suffix in ("-wal", "-shm"):
            (folder / f"ohlcv.db{suffix}").unlink(missing_ok=True)
        lines.append(run(folder, chance.choice(COMMANDS), capsys))
    return sum(map(bool, lines)), sum(UNKNOWN in line for line in lines)


def test_damaged_pages_are_refused_or_not_needed(
    whole: Path, tmp_path: Path, capsys: Capture
) -> None:
    """A line with the file and the way back; or what was asked did not lie there."""
    n_refused, n_unforeseen = damaged_pages(whole, tmp_path, range(70), capsys)
    assert n_refused > 20
    assert n_unforeseen == 0


@pytest.mark.long
def test_many_damaged_pages_are_refused_or_not_needed(
    whole: Path, tmp_path: Path, capsys: Capture
) -> None:
    """The same with more of them; a value that SQLite cannot know to be wrong may surprise."""
    n_refused, n_unforeseen = damaged_pages(whole, tmp_path, range(70, 70 + 70 * 10), capsys)
    assert n_refused > 200
    assert n_unforeseen < 7


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("name", ["a folder", "a text file", "another program's", "newer schema"])
def test_what_is_not_ours_is_refused_and_left_as_it_was(
    tmp_path: Path, whole: Path, capsys: Capture, name: str, command: tuple[str, ...]
) -> None:
    """Not a byte of it is written."""
    path = tmp_path / "ohlcv.db"
    SICK[name][0](path)
    shutil.copy(whole / "config.yaml", tmp_path)
    before = path.read_bytes() if path.is_file() else b""
    said = run(tmp_path, command, capsys)
    assert "ohlcv.db" in said
    assert UNKNOWN not in said
    assert (path.read_bytes() if path.is_file() else b"") == before


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_table_that_is_gone_is_told(
    tmp_path: Path, whole: Path, capsys: Capture, command: tuple[str, ...]
) -> None:
    """The version fits, the tables do not: somebody's tool was here."""
    shutil.copytree(whole, tmp_path / "a")
    connection = apsw.Connection(str(tmp_path / "a" / "ohlcv.db"))
    for name in ("series", "signals", "job_runs", "gaps"):
        connection.execute(f"DROP TABLE {name}")
    connection.close()
    said = run(tmp_path / "a", command, capsys)
    assert UNKNOWN not in said
    assert "ohlcv.db" in said or command[-1] in ("backup", "checkpoint")


@pytest.fixture(scope="module")
def packed(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An engine in one file."""
    app: App = opened(whole / "config.yaml")
    target = tmp_path_factory.mktemp("packed") / "all.pack"
    pack.pack(app, target, now_wall_ms=NOW_MS)
    app.close()
    return target.read_bytes()


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A place where somebody else's things lie."""
    root = tmp_path / "root" / "there"
    (root / "models" / "b0").mkdir(parents=True)
    (root / "models" / "b0" / "model.ubj").write_bytes(b"old")
    (root / "config.yaml").write_text("old: 1")
    (root / "ohlcv.db").write_bytes(b"old")
    return root


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a folder but locks."""
    found = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def unpacked(raw: bytes, there: Path) -> str:
    """Unpack over what is there; returns the refusal, after which all is as it was, or ''."""
    file = there.parent.parent / "x.pack"
    file.write_bytes(raw)
    before = tree(there.parent)
    said = refused(lambda: pack.unpack(file, there, force=True, now_wall_ms=NOW_MS))
    if said:
        assert tree(there.parent) == before
    else:  # then every byte that counts is as it was packed, and what was there is kept
        after = tree(there.parent)
        assert set(before.values()) <= set(after.values())
        assert any(raw.startswith(b"SQLite format 3") for raw in after.values())
    return said


def mutated_packs(packed: bytes, there: Path, cases: range) -> int:
    """Unpack mutilated copies; returns how many were refused."""
    n_refused = 0
    for number in cases:
        raw = mutated(packed, random.Random(number), other=packed)
        n_refused += bool(unpacked(raw, there))
        for kept in there.glob("before-unpack-*"):
            shutil.rmtree(kept)
    return n_refused


def test_mutilated_packs_change_nothing(packed: bytes, there: Path) -> None:
    """Flips, cuts and splices anywhere."""
    assert mutated_packs(packed, there, range(60)) > 40


@pytest.mark.long
def test_many_mutilated_packs_change_nothing(packed: bytes, there: Path) -> None:
    """The same with more of them."""
    assert mutated_packs(packed, there, range(60, 60 + 60 * MORE)) > 800


def forged(packed: bytes, forge: Callable[[dict[str, Any], dict[str, bytes]], None]) -> bytes:
    """A pack whose manifest and members somebody has changed, with hashes that fit."""
    members: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for member in archive:
            content = archive.extractfile(member)
            assert content is not None
            members[member.name] = content.read()
    manifest = json.loads(members.pop(pack.MANIFEST))
    forge(manifest, members)
    fits = {
        name: {"sha256": pack._digest(io.BytesIO(raw)), "bytes": len(raw)}
        for name, raw in members.items()
    }
    manifest["files"] = fits
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, raw in {pack.MANIFEST: json.dumps(manifest).encode(), **members}.items():
            head = tarfile.TarInfo(name)
            head.size = len(raw)
            archive.addfile(head, io.BytesIO(raw))
    return sink.getvalue()


ODD_MEMBERS = (
    *("../up", "/tmp/up", "models/../../up", "a/./../../up", "config.yaml/x", "..\\up", "./../up"),
    *("models/" + "x" * 300, "models", "models/a\x00b"),
)
ODD_PLACES: tuple[Any, ...] = (
    *("../up", "/tmp/up.db", "", ".", "config.yaml", "config.yaml/x", "ohlcv.db", "models"),
    *(None, 5, [], {"a": 1}, "x" * 5000, "a\x00b", "a\\b", "models/CURRENT"),
)
KINDS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE)


@pytest.mark.parametrize("name", ODD_MEMBERS)
def test_a_member_leads_nowhere_but_into_its_place(packed: bytes, there: Path, name: str) -> None:
    """Upwards, absolute, below a file, longer than a name may be."""
    raw = forged(packed, lambda _, members: members.update({name: b"evil"}))
    assert unpacked(raw, there)


@pytest.mark.parametrize("key", ["db_path", "models_dir"])
@pytest.mark.parametrize("place", ODD_PLACES)
def test_a_manifest_leads_to_places_of_their_own(
    packed: bytes, there: Path, key: str, place: Any
) -> None:
    """Inside of the folder, and no two things in one place."""
    unpacked(forged(packed, lambda manifest, _: manifest.update({key: place})), there)


@pytest.mark.parametrize("kind", KINDS)
def test_links_and_devices_are_not_unpacked(packed: bytes, there: Path, kind: bytes) -> None:
    """Nothing but plain files."""
    sink = io.BytesIO(packed)
    with tarfile.open(fileobj=sink, mode="a") as archive:
        head = tarfile.TarInfo("models/link")
        head.type, head.linkname = kind, "/etc/passwd"
        archive.addfile(head)
    assert unpacked(sink.getvalue(), there)


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "null", "[]", '{"version": 1}', "NaN"])
def test_a_manifest_that_is_none_is_refused(there: Path, text: str) -> None:
    """Too deep, a number, nothing."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        head = tarfile.TarInfo(pack.MANIFEST)
        head.size = len(text)
        archive.addfile(head, io.BytesIO(text.encode()))
    assert unpacked(sink.getvalue(), there)


def test_what_was_kept_aside_stays_whatever_comes_after(
    packed: bytes, there: Path, whole: Path, tmp_path: Path
) -> None:
    """Unpacked twice in one second, restored twice: the first of all is still there."""
    assert unpacked(packed, there) == ""
    assert unpacked(packed, there) == ""
    assert (there / "ohlcv.db").read_bytes() != b"old"
    target = tmp_path / "ohlcv.db"
    target.write_bytes(b"the first")
    for _ in range(2):
        maintain.restore(whole / "ohlcv.db", target)
    assert (tmp_path / "ohlcv.db.before-restore").read_bytes() == b"the first"
    assert (tmp_path / "ohlcv.db.before-restore-2").read_bytes()[:6] == b"SQLite"
