"""Bad input, and how it is told: what was found, what was expected, what may have been meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection

MOST_SEEDS = 1000


class JobError(Exception):
    """The input is at fault: names the file or option, what was found and what was expected."""


def check_seeds(count: int) -> None:
    """How many seeds a sweep or an array has; a folder is made and a job planned for each."""
    if not 1 <= count <= MOST_SEEDS:
        raise JobError(f"--seeds {count}: expected 1 to {MOST_SEEDS:,}")


def in_natural_order(names: Collection[str]) -> list[str]:
    """figure9 before figure10."""
    return sorted(names, key=lambda name: re.sub(r"\d+", lambda digits: digits[0].zfill(9), name))


def check_known(what: str, name: str, known: Collection[str]) -> None:
    """Raises JobError with the nearest of the known names."""
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    meant = f"did you mean '{near[0]}'? " if near else ""
    raise JobError(f"unknown {what} '{name}'; {meant}known: {', '.join(in_natural_order(known)) or '(none)'}")
