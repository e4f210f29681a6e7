"""Text and models from the Hugging Face hub; its libraries are imported only here and only when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
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
        raise DataError(
            f"{_unreachable('data set', repository, error)}; download {what} elsewhere and pass --source FOLDER"
        ) from None


def snapshot(repository: str, patterns: Sequence[str]) -> Path:
    """The files of a hub model whose names match, in the hub library's own cache, which goes on with a download
    that was interrupted."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise DataError(
            "the hub needs the Python package 'huggingface_hub' (pip install huggingface_hub, or run setup.sh)"
        ) from None
    try:
        return Path(snapshot_download(repository, allow_patterns=list(patterns)))
    except Exception as error:  # as above
        raise DataError(
            f"{_unreachable('model', repository, error)}; on a machine with a network run `hf download {repository}"
            " --local-dir FOLDER` and pass that folder by --model"
        ) from None


def _unreachable(kind: str, repository: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or ["no message"])[0][:200]
    return (
        f"the Hugging Face hub cannot be reached or has no such {kind} ({repository}:"
        f" {type(error).__name__}: {reason})"
    )
