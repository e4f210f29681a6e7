"""What the values of options may be: one line says what was found and what was expected."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from console.mistakes import JobError
from console.name_lists import names_of


def share(text: str) -> float:
    """A part of a whole."""
    return _checked(text, float, lambda value: 0.0 <= value < 1.0, "a share from 0 up to, not including, 1")


def positive(text: str) -> float:
    """A number above 0."""
    return _checked(text, float, lambda value: 0.0 < value < float("inf"), "a number above 0")


def count(text: str) -> int:
    """A whole number of at least 2."""
    return _checked(text, int, lambda value: value >= 2, "a whole number of at least 2")


def at_least_one(text: str) -> int:
    """A whole number above 0."""
    return _checked(text, int, lambda value: value >= 1, "a whole number of at least 1")


def seed(text: str) -> int:
    """As `comigs` takes seeds: results and manifests hold them as signed numbers of 64 bits."""
    return _checked(text, int, lambda value: 0 <= value < 2**63, "an integer from 0 to 2^63 - 1")


def names(text: str) -> list[str]:
    """Names joined by commas, each once; no text, no names."""
    try:
        return names_of(text, f"'{text}'") if text.strip() else []
    except JobError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _checked(text: str, convert: Callable[[str], Any], fits: Callable[[Any], bool], expected: str) -> Any:
    try:
        value = convert(text.replace(",", ""))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' found, {expected} expected") from None
    if not fits(value):
        raise argparse.ArgumentTypeError(f"'{text}' found, {expected} expected")
    return value
