"""Removing what a run has left in its folder, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path


def _written(name: str) -> str:
    """Files of that name, and what io::AtomicFile or write_whole leaves beside one where it is killed."""
    name = name.replace(".", r"\.")
    return rf"{name}|\.(?:{name})\.[0-9a-f]{{16}}\.tmp"


_RESULTS = _written("results.h5")
# Before version 0.2 sweeps wrote their notes by way of run.json.new and ended.json.new.
_NOTES = "|".join(
    ["run\\.log", r"(?:run|ended)\.json\.new"]
    + [_written(name) for name in ("run.json", "ended.json", "slurm-job", ".comigs-owner")]
)
_SET = rf"{_written('manifest.json')}|{_written('user_[0-9]+.safetensors')}"
_WEIGHTS = _written("model.safetensors")


def remove_run(folder: Path) -> None:
    """Removes results, checkpoints and notes of a run."""
    if not folder.is_dir():
        return
    for checkpoint in _folders(folder / "checkpoints", r"[0-9]{6,12}"):
        if not _others(checkpoint, _SET):
            _remove_files(checkpoint, _SET)
    if not (folder / "checkpoints").is_symlink():
        _remove_empty(folder / "checkpoints")
    for base in _folders(folder, r"\.base-[0-9a-f]{16}"):
        if not _others(base, _WEIGHTS):
            _remove_files(base, _WEIGHTS)
    _remove_files(folder, f"{_RESULTS}|{_NOTES}")


def _folders(folder: Path, pattern: str) -> Collection[Path]:
    if not folder.is_dir():
        return []
    return [
        path
        for path in folder.iterdir()
        if re.fullmatch(pattern, path.name) and path.is_dir() and not path.is_symlink()
    ]


def _others(folder: Path, pattern: str) -> bool:
    """Whether it holds anything but regular files of such names."""
    return any(
        not re.fullmatch(pattern, path.name) or path.is_symlink() or not path.is_file()
        for path in folder.iterdir()
    )


def _remove_files(folder: Path, pattern: str) -> None:
    for path in folder.iterdir():
        if re.fullmatch(pattern, path.name) and path.is_file() and not path.is_symlink():
            path.unlink()
    _remove_empty(folder)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # somebody else's things are there
        folder.rmdir()
