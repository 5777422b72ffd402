"""A bundle's folder and the pointer to the current one: whole or absent, checked byte by byte."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core import drafts
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
    with drafts.draft_folder(models_dir / name) as draft:
        for file, content in {**files, MANIFEST: as_json(whole)}.items():
            drafts.write_synced(draft / file, content, mode=0o644)
        draft.chmod(0o755)
        drafts.replace_folder(models_dir / name, draft)


def remove_folder(models_dir: Path, name: str) -> None:
    """Remove a bundle; a reader sees the whole folder or none."""
    target = models_dir / name
    if not _NAME.fullmatch(name) or not target.exists():
        return
    aside = drafts.draft_of(target)
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
    drafts.replace_file(path, content, mode=0o644)


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
