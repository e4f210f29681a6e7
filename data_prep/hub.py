"""Text from the Hugging Face hub through `datasets`, which is imported only here and only when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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


def rows(
    repository: str, configuration: str | None, split: str, what: str, columns: Mapping[str, type]
) -> Iterator[dict[str, Any]]:
    """The rows of a hub data set, streamed: only what is read is downloaded. All have the columns."""
    for row in _streamed(repository, configuration, split, what):
        if not set(columns) <= set(row):
            raise DataError(
                f"--source hub: {repository} has the columns {', '.join(row) or '(none)'};"
                f" {', '.join(columns)} expected"
            )
        for column, kind in columns.items():
            if not isinstance(row[column], kind):
                raise DataError(
                    f"--source hub: {repository} has a {type(row[column]).__name__} in its column '{column}';"
                    f" {kind.__name__} expected"
                )
        yield row


def _streamed(repository: str, configuration: str | None, split: str, what: str) -> Iterator[dict[str, Any]]:
    datasets = _library(what)
    try:
        yield from datasets.load_dataset(repository, configuration, split=split, streaming=True)
    except Exception as error:  # the library raises many kinds, of its own and of its HTTP client's
        reason = (str(error).strip().splitlines() or ["no message"])[0][:200]
        raise DataError(
            f"the Hugging Face hub cannot be reached or has no such data set ({repository}:"
            f" {type(error).__name__}: {reason}); download {what} elsewhere and pass --source FOLDER"
        ) from None
