"""Whether a process of comigs writes into a folder: it locks it, and leaves a note of itself there for the file
systems on which a lock is not seen by everybody (io::FolderLock)."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

OWNER_FILE = ".comigs-owner"
_SECONDS_OF_SILENCE = 60  # of a machine whose processes are not to be seen from here; half of it comigs waits


def is_held(folder: Path) -> bool:
    return _is_locked(folder) or _is_noted(folder / OWNER_FILE)


def _is_locked(folder: Path) -> bool:
    """As far as the file system tells."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _is_noted(file: Path) -> bool:
    try:
        owner = json.loads(file.read_text(encoding="utf-8"))
        touched = file.stat().st_mtime
        machine, process, started = owner["machine"], int(owner["process"]), int(owner["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if machine == _machine():
        return _start(process) == started
    return time.time() - touched < _SECONDS_OF_SILENCE


def _machine() -> str:
    """One boot of one kernel, and the process numbers that are seen in it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _start(process: int) -> Any:
    """When a process began, in clock ticks; None where there is none or it has ended."""
    try:
        words = (
            Path(f"/proc/{process}/stat")
            .read_text(encoding="utf-8", errors="replace")
            .rpartition(")")[2]
            .split()
        )
    except OSError:
        return None
    return None if words[0] in ("Z", "X") else int(words[19])
