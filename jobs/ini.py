"""Reads the INI files of this folder, and says plainly what is wrong with them."""

from __future__ import annotations

import configparser
import difflib
import re
from collections.abc import Collection
from pathlib import Path

from .small_files import LARGEST_JOB_FILE, Unreadable, text_of

MOST_SEEDS = 1000


class JobError(Exception):
    """The input is at fault: names the file or option, what was found and what was expected."""


def read_ini(path: Path) -> dict[str, dict[str, str]]:
    """The settings by section. Comments begin with '#', also behind a value, as in the files of comigs."""
    parser = configparser.ConfigParser(
        interpolation=None,
        delimiters=("=",),
        inline_comment_prefixes=("#",),
        empty_lines_in_values=False,
        default_section="",  # no section's settings are everyone's
    )
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # names as they are written
    try:
        parser.read_string(text_of(path, LARGEST_JOB_FILE), source=str(path))
    except configparser.DuplicateSectionError as error:
        raise JobError(f"{path}:{error.lineno}: section [{error.section}] stands there twice") from None
    except configparser.DuplicateOptionError as error:
        raise JobError(f"{path}:{error.lineno}: '{error.option}' stands twice in [{error.section}]") from None
    except configparser.MissingSectionHeaderError as error:
        raise JobError(f"{path}:{error.lineno}: found '{error.line.strip()}' before any [section]") from None
    except configparser.ParsingError as error:
        line, text = error.errors[0]
        raise JobError(f"{path}:{line}: found {text}, expected [section] or name = value") from None
    except (OSError, Unreadable) as error:
        raise JobError(f"{path}: {getattr(error, 'strerror', None) or error}, expected an INI file") from None
    return {name: dict(parser[name]) for name in parser.sections()}


def check_one_line(place: str, value: str) -> None:
    """For comigs an indented line is an option of its own, here it goes on with the value above it."""
    if "\n" in value:
        first, second, *_ = value.split("\n")
        raise JobError(f"{place}: found '{first}' and an indented line '{second}', expected one line")


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
