"""The one exception that means 'the input is at fault': it becomes one line on stderr and exit code 2."""

from __future__ import annotations


class DataError(Exception):
    """Names the file or option, what was found there and what was expected."""
