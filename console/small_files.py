"""Reading what is small by nature (settings, manifests, indexes), whatever lies under its name."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

LARGEST_JOB_FILE = 1 << 20  # bytes, as comigs takes them
LARGEST_JSON = 1 << 26


class Unreadable(ValueError):
    """Why a file is not what it should be; the caller names it."""


def text_of(path: Path, most_bytes: int) -> str:
    """The text of a regular file of UTF-8. Raises OSError, and Unreadable where it is something else."""
    # Without waiting: nobody may ever write into a named pipe.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("it is not a regular file")
        data = stream.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise Unreadable(f"it is larger than {most_bytes:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Unreadable(
            f"line {line}: not UTF-8 text (byte {error.start} is 0x{data[error.start]:02x})"
        ) from None


def json_of(path: Path) -> Any:
    """What a JSON file holds. Raises OSError, and Unreadable with line and column where it is none."""
    text = text_of(path, LARGEST_JSON)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise Unreadable(f"not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not JSON: {error}") from None
