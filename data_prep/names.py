"""Names and words that go into files which `comigs` reads: text, printable and short, or refused when given."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import DataError

LONGEST_NAME = 64  # bytes, as `comigs train` takes them


def checked_words(words: str, option: str) -> str:
    """The words, which must be text; those of a terminal that is not set to UTF-8 may be none."""
    try:
        words.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(f"{option} {words}: is not UTF-8 text; what does the terminal send?") from None
    return words


def checked_name(name: str, option: str) -> str:
    """A name of a data set, a user or a text."""
    checked_words(name, option)
    if not name.isprintable() or not 0 < len(name.encode()) <= LONGEST_NAME:
        raise DataError(
            f"{option} {name}: a printable name of at most {LONGEST_NAME} bytes is expected;"
            f" this one has {len(name.encode())}"
        )
    return name


def shown(path: Path) -> str:
    """A file's name as text, whatever its bytes are."""
    return os.fsencode(path.name).decode("utf-8", "backslashreplace")
