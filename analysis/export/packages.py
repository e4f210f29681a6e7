"""Packages that only the export needs: they come with requirements.txt, not with the analysis."""

from __future__ import annotations

import importlib
from types import ModuleType

from analysis.read.results import ResultsError


def needed(name: str, what: str) -> ModuleType:
    """The module. Raises ResultsError where it is not installed; `what` needs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ResultsError(f"{what} needs the Python package '{package}' (pip install {package})") from error
