"""What an owner would miss, in one verified file: database, models, settings without secrets."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path, PurePosixPath
from typing import IO, Any

import yaml

from core import drafts
from core.app import App
from core.config_edit import with_values
from core.errors import StoreError
from core.notify.redaction import CREDENTIALS, hide, secrets_of
from core.store.copies import want_whole
from core.store.db import WriterLock

VERSION = 1
MANIFEST, CONFIG, DATABASE, MODELS = "manifest.json", "config.yaml", "database.db", "models"
_CHUNK = 1 << 20
_MANIFEST_MAX = 16 << 20
_NAME_MAX = 200


def pack(app: App, target: Path, *, now_wall_ms: int) -> dict[str, Any]:
    """Write the file while the engine may run, and read it back. Raises StoreError."""
    places = {"db_path": app.db.path, "models_dir": app.models_dir}
    inside = {name: _inside(app.root, path) for name, path in places.items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    drafts.sweep([target.parent])
    partial = drafts.draft_of(target)
    try:
        with drafts.draft_folder(target) as folder:
            copy = folder / DATABASE
            app.db.backup_to(copy)
            want_whole(copy)
            settings = folder / CONFIG
            settings.write_text(config_without_secrets(app), encoding="utf-8")
            files = {CONFIG: settings, DATABASE: copy, **_models(app.models_dir)}
            manifest = {
                "version": VERSION,
                "packed": datetime.fromtimestamp(now_wall_ms / 1000, UTC).isoformat(),
                **inside,
                "files": {name: _fingerprint(path) for name, path in files.items()},
            }
            _write(partial, manifest, files)
        verified(partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return {"file": str(target), "bytes": target.stat().st_size, "files": len(files)}


def unpack(source: Path, root: Path, *, force: bool, now_wall_ms: int) -> dict[str, Any]:
    """Put what was packed into a folder; what is in its way is moved aside where `force` is set.

    Raises StoreError, and changes nothing, unless all of it is whole, nobody keeps the database
    and nothing else is in its way. The settings go first and come last: nothing can be started on
    what is half done.
    """
    manifest = verified(source)
    places = {
        DATABASE: root / _safe(manifest["db_path"]),
        MODELS: root / _safe(manifest["models_dir"]),
        CONFIG: root / CONFIG,
    }
    present = [place for place in places.values() if _holds_something(place)]
    if present and not force:
        raise StoreError(
            f"{present[0]} exists;", remedy="with --force it is kept aside, not overwritten"
        )
    lock = WriterLock(places[DATABASE].with_name(places[DATABASE].name + ".lock"))
    if not lock.acquire():
        raise StoreError(f"a scheduler (pid {lock.holder()}) runs here;", remedy="stop it first")
    try:
        with drafts.draft_folder(root / "unpack") as staged:
            try:
                _extract(source, staged)
                (staged / MODELS).mkdir(exist_ok=True)
            except (tarfile.TarError, OSError, ValueError) as error:
                raise _damaged(source, str(error)) from error
            want_whole(staged / DATABASE)
            stamp = datetime.fromtimestamp(now_wall_ms / 1000, UTC).strftime("%Y%m%d-%H%M%S")
            aside = drafts.unused(root / f"before-unpack-{stamp}")
            with drafts.moves() as move:
                for place in reversed(present):
                    _set_aside(place, root, aside, move)
                for name, place in places.items():
                    if name == MODELS and place.exists():
                        place.rmdir()  # empty, or it would have been moved aside
                    move(staged / name, place)
    finally:
        lock.release()
    kept = str(aside) if present else ""
    return {"unpacked": str(root), "old files kept in": kept, "files": len(manifest["files"])}


def verified(source: Path) -> dict[str, Any]:
    """Return the manifest of a file in which every byte is as it was packed. Raises StoreError."""
    try:
        with tarfile.open(source, "r:") as archive:
            members = iter(archive)
            first = next(members, None)
            if first is None or first.name != MANIFEST or first.size > _MANIFEST_MAX:
                raise _damaged(source, "it does not begin with a manifest")
            manifest = json.loads(_content(archive, first).read())
            found = {member.name: _checked(archive, member) for member in members}
    except FileNotFoundError as error:
        raise StoreError(
            f"{source} does not exist;", remedy="give its place with --file"
        ) from error
    except (tarfile.TarError, OSError, ValueError, RecursionError) as error:
        raise _damaged(source, str(error)) from error
    if not isinstance(manifest, dict) or manifest.get("version") != VERSION:
        raise StoreError(f"{source} is of another version;", remedy="update the program")
    if found != manifest.get("files") or not {CONFIG, DATABASE} <= found.keys():
        raise _damaged(source, f"{_differing(found, manifest.get('files'))} is not what was packed")
    _want_apart([CONFIG, *(_safe(manifest.get(name, "")) for name in ("db_path", "models_dir"))])
    return manifest


def _want_apart(names: list[str]) -> None:
    """Raise StoreError for two things in one place, or one inside of another."""
    for name, other in permutations(map(PurePosixPath, names), 2):
        if name.is_relative_to(other):
            raise StoreError(f"{name} and {other} are one place;", remedy="pack it again")


def _differing(found: dict[str, Any], wanted: Any) -> str:
    wanted = wanted if isinstance(wanted, dict) else {}
    names = [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]
    return min(names, default="its manifest")[:80]


def config_without_secrets(app: App) -> str:
    """Return the text of the settings; a token becomes ${TELEGRAM_BOT_TOKEN}, the rest is empty."""
    text, raw = app.config_text, yaml.safe_load(app.config_text) or {}
    blank: dict[str, Any] = {
        "notify.telegram.bot_token": "${TELEGRAM_BOT_TOKEN}",
        "notify.deadman_url": "",
        **{f"exchange.ccxt.{name}": "" for name in CREDENTIALS},
    }
    plain = {name: value for name, value in blank.items() if _is_plain(raw, name)}
    return hide(with_values(text, plain), secrets_of(app.config))


def _is_plain(raw: Any, name: str) -> bool:
    """Say whether a secret stands in the file itself, and is not taken from the environment."""
    for part in name.split("."):
        raw = raw.get(part) if isinstance(raw, dict) else None
    return bool(raw) and "${" not in str(raw)


def _inside(root: Path, path: Path) -> str:
    try:
        return path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError as error:
        raise StoreError(
            f"{path} lies outside of the folder of the settings;", remedy="write its path relative"
        ) from error


def _safe(name: Any) -> str:
    """Return a path that stays inside of where it is put. Raises StoreError."""
    path = PurePosixPath(str(name))
    is_odd = "\\" in str(name) or "\0" in str(name) or len(str(name)) > _NAME_MAX
    if path.is_absolute() or ".." in path.parts or not path.parts or is_odd:
        raise StoreError(f"{str(name)[:80]!r} leads out of the folder;", remedy="do not unpack it")
    return str(path)


def _models(folder: Path) -> dict[str, Path]:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {f"{MODELS}/{path.relative_to(folder).as_posix()}": path for path in found}


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"sha256": _digest(file), "bytes": path.stat().st_size}


def _digest(file: IO[bytes]) -> str:
    hashed = hashlib.sha256()
    while part := file.read(_CHUNK):
        hashed.update(part)
    return hashed.hexdigest()


def _write(target: Path, manifest: dict[str, Any], files: dict[str, Path]) -> None:
    raw = json.dumps(manifest, indent=1).encode()
    with tarfile.open(target, "w") as archive:
        head = tarfile.TarInfo(MANIFEST)
        head.size, head.mode = len(raw), 0o600
        archive.addfile(head, io.BytesIO(raw))
        for name, path in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = path.stat().st_size, 0o600
            with path.open("rb") as file:
                archive.addfile(member, file)
    target.chmod(0o600)


def _checked(archive: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, Any]:
    _safe(member.name)
    if not member.isreg():
        raise StoreError(f"{member.name[:80]!r} is no plain file;", remedy="do not unpack it")
    return {"sha256": _digest(_content(archive, member)), "bytes": member.size}


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(member)
    if file is None:
        raise tarfile.TarError(f"{member.name[:80]} has no content")
    return file


def _extract(source: Path, folder: Path) -> None:
    """Write the plain files of a verified archive; nothing of its owners, modes or links."""
    with tarfile.open(source, "r:") as archive:
        for member in archive:
            place = folder / _safe(member.name)
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as file:
                content = _content(archive, member)
                while part := content.read(_CHUNK):
                    file.write(part)
            place.chmod(0o600)


def _holds_something(place: Path) -> bool:
    return any(place.iterdir()) if place.is_dir() else place.exists()


def _set_aside(place: Path, root: Path, aside: Path, move: Callable[[Path, Path], None]) -> None:
    for suffix in ("", "-wal", "-shm"):
        old = place.with_name(place.name + suffix)
        if old.exists():
            move(old, aside / old.relative_to(root))


def _damaged(source: Path, why: str) -> StoreError:
    return StoreError(f"{source} is damaged: {why[:200]};", remedy="pack it again")
