"""Text from the Hugging Face hub through `datasets`, which is imported only here and only when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .errors import DataError


def _library(what: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError(
            f"--source hub needs the Python package 'datasets' (pip install datasets); or download {what}"
            " elsewhere and pass --source FOLDER"
        ) from None
    return datasets


def rows(repository: str, configuration: str | None, split: str, what: str) -> Iterator[dict[str, Any]]:
    """The rows of a hub data set, streamed: only what is read is downloaded."""
    datasets = _library(what)
    try:
        yield from datasets.load_dataset(repository, configuration, split=split, streaming=True)
    except Exception as error:  # the library raises many kinds, of its own and of its HTTP client's
        reason = (str(error).strip().splitlines() or ["no message"])[0][:200]
        raise DataError(
            f"the Hugging Face hub cannot be reached or has no such data set ({repository}:"
            f" {type(error).__name__}: {reason}); download {what} elsewhere and pass --source FOLDER"
        ) from None
