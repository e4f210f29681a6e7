"""Reads the INI files of sweeps: items, and how data is prepared. Job files are read by comigs alone."""

from __future__ import annotations

import configparser
from pathlib import Path

from console.mistakes import JobError
from console.small_files import LARGEST_JOB_FILE, Unreadable, text_of


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
