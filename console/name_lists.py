"""Lists of names, as options and INI files have them: joined by commas, each name once."""

from __future__ import annotations

from .mistakes import JobError


def names_of(text: str, place: str) -> list[str]:
    """Raises JobError, which begins with the place, where a name is empty or stands there twice."""
    names = [name.strip() for name in text.split(",")]
    if "" in names:
        raise JobError(f"{place}: expected names separated by commas")
    for number, name in enumerate(names):
        if name in names[:number]:
            raise JobError(f"{place}: '{name}' stands there twice, expected once")
    return names
