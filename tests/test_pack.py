"""Packed and unpacked an engine is the same elsewhere, without its secrets, or nothing changes."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.app import App, settle_home
from core.config_file import parse_config
from core.errors import StoreError
from core.jobs import maintain, pack
from core.jobs.invariants import POINTER
from core.store import open_reader, operation
from core.store.db import WriterLock
from tests.engine_world import opened, table
from tests.replay_world import market, prepared

ROOT = Path(__file__).parents[1]
NOW_MS = 1_717_243_200_000
TOKEN = "987654321:CANARYcanaryCANARYcanary-CANARY_ca"
SECRETS = (TOKEN, "hc.test/verysecretpath", "APIKEYapikey")
BTC = "BTC/USDT:USDT"
EXTRA = f"""
# the token was {TOKEN} once
notify:
  deadman_url: https://hc.test/verysecretpath  # mine
  telegram: {{enabled: true, chat_id: 1, bot_token: "{TOKEN}"}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine with history, a bundle's folder and secrets in its settings."""
    world = prepared(
        tmp_path_factory.mktemp("pack") / "w",
        {BTC: market(2, 14, 5)[BTC]},
        replay_days=0.1,
        exchange={"id": "bitget", "ccxt": {"apiKey": "APIKEYapikey"}},
    )
    config = world.folder / "config.yaml"
    raw = json.loads(config.read_text())
    config.write_text("\n".join(f"{k}: {json.dumps(v)}" for k, v in raw.items()) + EXTRA)
    bundle = world.folder / "models" / "b1"
    bundle.mkdir(parents=True)
    (bundle / "model.ubj").write_bytes(bytes(range(256)) * 40)
    (world.folder / "models" / "CURRENT").write_text('{"bundle": "b1"}')
    return world.folder


@pytest.fixture
def app(folder: Path) -> Iterator[App]:
    """It runs."""
    engine = opened(folder / "config.yaml")
    settle_home(engine, take_over=False)
    yield engine
    engine.close()


def everything(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables."""
    with open_reader(path) as db:
        names = db.rows("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        return {name: table(db, name) for (name,) in names}


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a folder, without the lock file."""
    files = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def test_elsewhere_it_is_the_same_and_muted(app: App, tmp_path: Path) -> None:
    """Rows, models and settings; but no secret, and nothing is sent before it is taken over."""
    file, there = tmp_path / "all.pack", tmp_path / "there"
    done = pack.pack(app, file, now_wall_ms=NOW_MS)
    assert done["files"] == 4
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    there.mkdir()
    pack.unpack(file, there, force=False, now_wall_ms=NOW_MS)
    assert everything(there / "ohlcv.db") == everything(app.db.path)
    assert tree(there / "models") == tree(app.models_dir)
    assert set(tree(there)) == {"config.yaml", "ohlcv.db", "models/CURRENT", "models/b1/model.ubj"}
    for secret in SECRETS:
        assert secret.encode() not in file.read_bytes()
    text = (there / "config.yaml").read_text()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TELEGRAM_BOT_TOKEN", TOKEN)
        config = parse_config(text)
    assert config.symbols == app.config.symbols
    assert config.notify.telegram.bot_token.get_secret_value() == TOKEN
    assert "# mine" in text
    (there / "config.yaml").write_text(text.replace("${TELEGRAM_BOT_TOKEN}", TOKEN))
    moved = opened(there / "config.yaml")
    assert not settle_home(moved, take_over=False)
    assert set(maintain.invariants(moved)["broken"]) == {POINTER}  # its bundle is a stand-in
    moved.close()


def test_what_is_in_the_way_is_refused_or_kept_aside(app: App, tmp_path: Path) -> None:
    """Without force nothing changes; with it the old files are all there, beside the new ones."""
    file, there = tmp_path / "all.pack", tmp_path / "there"
    pack.pack(app, file, now_wall_ms=NOW_MS)
    (there / "models").mkdir(parents=True)
    (there / "models" / "old").write_text("old")
    (there / "config.yaml").write_text("old: 1")
    (there / "ohlcv.db").write_bytes(b"old")
    (there / "ohlcv.db-wal").write_bytes(b"old wal")
    (there / "notes.txt").write_text("mine")
    before = tree(there)
    with pytest.raises(StoreError, match="exists"):
        pack.unpack(file, there, force=False, now_wall_ms=NOW_MS)
    assert tree(there) == before
    lock = WriterLock(there / "ohlcv.db.lock")
    assert lock.acquire()
    with pytest.raises(StoreError, match="stop it first"):
        pack.unpack(file, there, force=True, now_wall_ms=NOW_MS)
    lock.release()
    assert tree(there) == before
    done = pack.unpack(file, there, force=True, now_wall_ms=NOW_MS)
    aside = tree(Path(done["old files kept in"]))
    assert aside == {name: raw for name, raw in before.items() if name != "notes.txt"}
    assert (there / "notes.txt").read_text() == "mine"
    assert everything(there / "ohlcv.db") == everything(app.db.path)


def test_any_flipped_byte_is_found_before_anything_is_touched(app: App, tmp_path: Path) -> None:
    """In the manifest, a header, the database or a model; also a file that ends too early."""
    file, there = tmp_path / "all.pack", tmp_path / "there"
    pack.pack(app, file, now_wall_ms=NOW_MS)
    whole, rng = file.read_bytes(), random.Random(3)
    with tarfile.open(file) as archive:
        spans = [(m.offset_data, m.size) for m in archive if m.size]
    there.mkdir()
    places = [start + rng.randrange(size) for start, size in spans for _ in range(4)]
    for place in places:
        raw = bytearray(whole)
        raw[place] ^= 0x5A
        file.write_bytes(raw)
        with pytest.raises(StoreError):
            pack.unpack(file, there, force=True, now_wall_ms=NOW_MS)
    for n in (0, 100, 2000, len(whole) // 2):
        file.write_bytes(whole[:n])
        with pytest.raises(StoreError):
            pack.unpack(file, there, force=True, now_wall_ms=NOW_MS)
    with pytest.raises(StoreError, match="does not exist"):
        pack.unpack(tmp_path / "none", there, force=True, now_wall_ms=NOW_MS)
    assert tree(there) == {}


@pytest.mark.parametrize("kind", ["../evil", "/tmp/evil-pack", "models/../../evil", "link", "db"])
def test_nothing_gets_out_of_the_folder(app: App, tmp_path: Path, kind: str) -> None:
    """Neither by a name, nor by a link, nor by the place the manifest gives the database."""
    good, bad = tmp_path / "all.pack", tmp_path / "bad.pack"
    there = tmp_path / "in" / "there"
    there.mkdir(parents=True)
    pack.pack(app, good, now_wall_ms=NOW_MS)
    with tarfile.open(good) as source, tarfile.open(bad, "w") as target:
        for member in source:
            content = source.extractfile(member)
            assert content is not None
            raw = content.read()
            if member.name == pack.MANIFEST:
                manifest = json.loads(raw)
                if kind == "db":
                    manifest["db_path"] = "../../evil.db"
                else:
                    manifest["files"][kind] = manifest["files"]["models/CURRENT"]
                raw = json.dumps(manifest).encode()
                member.size = len(raw)
            target.addfile(member, io.BytesIO(raw))
        extra = tarfile.TarInfo(kind)
        if kind == "link":
            extra.type, extra.linkname = tarfile.SYMTYPE, "/etc/passwd"
        if kind != "db":
            target.addfile(extra)
    before = tree(tmp_path)
    with pytest.raises(StoreError):
        pack.unpack(bad, there, force=True, now_wall_ms=NOW_MS)
    assert tree(tmp_path) == before
    assert not Path("/tmp/evil-pack").exists()


def test_the_commands_do_it_while_a_writer_runs(app: App, tmp_path: Path) -> None:
    """Packed beside the holder of the lock, while it writes; unpacked into another folder."""
    file, there = tmp_path / "all.pack", tmp_path / "there" / "config.yaml"
    command = [sys.executable, str(ROOT / "maintenance.py")]
    packing = subprocess.Popen(
        [*command, "pack", "--file", str(file), "--config", str(app.config_path)],
        stdout=subprocess.DEVNULL,
    )
    n = 0
    while packing.poll() is None:
        n += 1
        operation.set_label(app.db, "n", str(n))
    assert packing.returncode == 0
    there.parent.mkdir()
    words = ["unpack", "--file", str(file), "--config", str(there), "--json"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    again = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "--force" in again.stderr
    with open_reader(there.with_name("ohlcv.db")) as db:
        assert db.value("PRAGMA integrity_check") == "ok"
        assert 1 <= int(operation.label_of(db, "n")) <= n
