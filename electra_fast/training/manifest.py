"""The manifest of a checkpoint: the step, the run's settings, and the size and checksum of every other file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..disk import read_json_object, written
from .json_files import differences

NAME = "manifest.json"
_VERSION = 1


def write_manifest(directory: Path, step: int, settings: Mapping[str, Any]) -> None:
    """Writes the manifest of the files that are in the directory, as the last one."""
    files = {
        path.name: {"size": path.stat().st_size, "sha256": _checksum(path)} for path in sorted(directory.iterdir())
    }
    manifest = {"version": _VERSION, "step": step, "settings": dict(settings), "files": files}
    with written(directory / NAME) as file:
        file.write(json.dumps(manifest, indent=1) + "\n")


def check_manifest(directory: Path, step: int, settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Compares a checkpoint with its manifest, and the manifest with the run.

    Args:
        settings, defaults: as in `json_files.differences`.

    Raises:
        ValueError: what does not fit.
        OSError: a file that cannot be read.
    """
    manifest = read_json_object(directory / NAME)
    try:
        version, found_step, found_settings = manifest["version"], manifest["step"], dict(manifest["settings"])
        files = {name: (facts["size"], facts["sha256"]) for name, facts in manifest["files"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{NAME} is damaged: {error!r}") from error
    if version != _VERSION:
        raise ValueError(f"{NAME} must have version {_VERSION}, got {version!r}")
    if found_step != step:
        raise ValueError(f"it is that of step {found_step}")
    if changes := differences(found_settings, settings, defaults):
        raise ValueError(f"it is that of a run with other settings ({changes})")
    there = {path.name: path for path in directory.iterdir() if path.name != NAME}
    for name in sorted(there.keys() | files.keys()):
        if name not in there or not there[name].is_file():
            raise ValueError(f"{name} must be a file of it, and is missing or none")
        if name not in files:
            raise ValueError(f"{name} is no file of it")
        if (size := there[name].stat().st_size) != files[name][0]:
            raise ValueError(f"{name} must have {files[name][0]} bytes, got {size}")
    for name, (_, checksum) in files.items():
        if _checksum(there[name]) != checksum:
            raise ValueError(f"{name} is damaged: its checksum is another")


def _checksum(path: Path) -> str:
    # Processors have instructions for SHA-256, which make it twice as fast as BLAKE2.
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
