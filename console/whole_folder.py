"""Making a folder so that its name always stands for something whole."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path


@dataclass(frozen=True)
class Contents:
    """The names, as patterns, of the files that a program writes at the top of such a folder and in the folders of
    that. Nothing else is ever removed: other names, links, and what lies deeper stay."""

    top: tuple[str, ...]
    below: tuple[str, ...]


@contextmanager
def folder_beside(output: Path, contents: Contents) -> Iterator[Path]:
    """A temporary folder beside `output`, removed when the block ends. Raises OSError."""
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.parent / f"{_temporary_prefix(output)}{os.getpid()}"
    temporary.mkdir()
    try:
        yield temporary
    finally:
        _remove(temporary, contents)


@contextmanager
def whole_folder(output: Path, contents: Contents, check: Callable[[], None]) -> Iterator[Path]:
    """A temporary folder beside `output`: becomes `output` when the block ends well, else is removed. `check` is
    called before it does, and raises where what then has the name must stay. Raises OSError."""
    with folder_beside(output, contents) as temporary:
        old = temporary.with_name(temporary.name + ".old")
        try:
            yield temporary
            for folder, _, files in os.walk(temporary):
                for name in (*files, ""):
                    _sync(Path(folder, name))
            check()
            if output.exists():
                output.rename(old)
            temporary.rename(output)
            _sync(output.parent)
        finally:
            if old.exists() and not output.exists():
                old.rename(output)
            _remove(old, contents)


def clear_leftovers(output: Path, contents: Contents) -> None:
    """Removes temporary folders of processes on this machine that were killed. What such a process had put aside
    comes back where nothing has taken its place."""
    prefix = _temporary_prefix(output)
    for path in sorted(output.parent.iterdir()) if output.parent.is_dir() else ():
        process = path.name.removeprefix(prefix).removesuffix(".old")
        if not path.name.startswith(prefix) or not process.isdecimal() or _alive(int(process)):
            continue
        if path.name.endswith(".old") and not os.path.lexists(output):
            path.rename(output)
        else:
            _remove(path, contents)


def _temporary_prefix(output: Path) -> str:
    return f".{output.name}.partial-{socket.gethostname()}-"


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(folder: Path, contents: Contents) -> None:
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            _remove_files(path, contents.below)
    _remove_files(folder, contents.top)


def _remove_files(folder: Path, names: tuple[str, ...]) -> None:
    for path in folder.iterdir():
        is_ours = any(fnmatchcase(path.name, name) for name in names)
        if is_ours and path.is_file() and not path.is_symlink():
            path.unlink()
    with suppress(OSError):  # something else is there
        folder.rmdir()
