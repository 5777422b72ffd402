"""A bundle's folder and the pointer to the current one: whole or absent, checked byte by byte."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.errors import ModelError

MANIFEST, POINTER = "manifest.json", "CURRENT"
_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,79}")
_REMEDY = "restore it from a backup, or run: python maintenance.py weekly"


def as_json(value: Any) -> bytes:
    """Return JSON bytes that depend on nothing but the value."""
    return (json.dumps(value, sort_keys=True, indent=1) + "\n").encode()


def digest(content: bytes) -> str:
    """Return the SHA-256 of some bytes, in hex."""
    return hashlib.sha256(content).hexdigest()


def write_folder(
    models_dir: Path, name: str, files: Mapping[str, bytes], manifest: Mapping[str, Any]
) -> None:
    """Put a bundle in place of what had its name; a reader sees a whole folder or none.

    The manifest gets the SHA-256 of every other file.
    """
    models_dir.mkdir(parents=True, exist_ok=True)
    whole = {**manifest, "files": {file: digest(content) for file, content in files.items()}}
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}.tmp-", dir=models_dir))
    try:
        for file, content in {**files, MANIFEST: as_json(whole)}.items():
            _write_synced(temporary / file, content)
        temporary.chmod(0o755)
        target = models_dir / name
        old = temporary.with_name(temporary.name + ".old")
        if target.exists():
            target.rename(old)
        temporary.rename(target)
        _sync_folder(models_dir)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def remove_folder(models_dir: Path, name: str) -> None:
    """Remove a bundle; a reader sees the whole folder or none."""
    target = models_dir / name
    if not _NAME.fullmatch(name) or not target.exists():
        return
    aside = models_dir / f".{name}.tmp-removed"
    shutil.rmtree(aside, ignore_errors=True)
    target.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def read_folder(models_dir: Path, name: str) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return a bundle's files and manifest. Raises ModelError unless every digest fits."""
    if not _NAME.fullmatch(name):
        raise ModelError(f"{name[:80]!r} is no name of a bundle;", remedy=_REMEDY)
    folder = models_dir / name
    manifest = _read_json(folder / MANIFEST)
    listed = manifest.get("files")
    if not isinstance(listed, dict) or "model.ubj" not in listed:
        raise ModelError(f"bundle {name}: its manifest lists no model.ubj;", remedy=_REMEDY)
    files = {}
    for file, wanted in listed.items():
        content = _read(folder / Path(file).name)
        if digest(content) != wanted:
            raise ModelError(
                f"bundle {name}: {file[:80]} does not match its SHA-256;", remedy=_REMEDY
            )
        files[str(file)] = content
    return files, manifest


def read_pointer(models_dir: Path) -> dict[str, str] | None:
    """Return {bundle, strategy_id} of the current bundle, or None where there is none."""
    path = models_dir / POINTER
    if not path.exists():
        return None
    raw = _read_json(path)
    if not isinstance(raw.get("bundle"), str) or not isinstance(raw.get("strategy_id"), str):
        raise ModelError(f"{path} names no bundle;", remedy=_REMEDY)
    return {"bundle": raw["bundle"], "strategy_id": raw["strategy_id"]}


def write_pointer(models_dir: Path, *, bundle: str, strategy: str) -> None:
    """Make a bundle the current one, atomically."""
    replace_bytes(models_dir / POINTER, as_json({"bundle": bundle, "strategy_id": strategy}))


def replace_bytes(path: Path, content: bytes) -> None:
    """Replace a file so that a reader sees the old bytes or the new, never a mixture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.tmp-", dir=path.parent)
    os.close(descriptor)
    try:
        _write_synced(Path(name), content)
        Path(name).chmod(0o644)
        Path(name).replace(path)
        _sync_folder(path.parent)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # a name may hold what no file's name can
        said = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"cannot read {str(path)[:200]}: {said};", remedy=_REMEDY) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is damaged: {error};", remedy=_REMEDY) from error
    if not isinstance(raw, dict):
        raise ModelError(f"{path} is damaged: want a mapping;", remedy=_REMEDY)
    return raw


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
