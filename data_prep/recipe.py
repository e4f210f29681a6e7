"""What a data set is made by: its files, its reader and its rule; and the helpers that all readers share."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import readers
from .documents import Corpus, Document, Source
from .errors import DataError
from .names import shown
from .splits import Assigned, Plan, in_domain
from .templates import Template

RECIPE_VERSION = 2  # goes up when the same text and options give another data set
SAMPLE = Path(__file__).parent / "sample"
NOT_STATED = "not stated"
HUB_BYTES = 4_000_000  # of text a user, when nothing else says how much the hub is asked for


@dataclass
class Examples:
    """How documents that are examples are written: at most `context` tokens each, the instruction by a template.
    `dropped`: how many records were left out when they were read, by reason."""

    context: int
    template: Template
    dropped: dict[str, int]


@dataclass
class Recipe:
    """`files` and `identity` tell one input from another; nothing is read before `read` is called. `examples`:
    users hold examples, not plain text."""

    name: str
    files: list[Path]
    identity: dict[str, Any]
    read: Callable[[], Corpus]
    split: Callable[[Corpus, Plan], Assigned] = in_domain
    examples: Examples | None = None


def files_of(values: list[str], kinds: tuple[str, ...], option: str) -> list[Path]:
    """The files that the values name; a folder stands for all in and below it of these kinds, by name."""
    files: list[Path] = []
    for value in values:
        path = Path(value)
        if path.is_dir():
            inside = sorted(
                file for file in _below(path) if file.is_file() and readers.kind_of(file) in kinds
            )
            if not inside:
                raise DataError(f"{option} {path}: the folder holds no {' or '.join(kinds)} file")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise DataError(f"{option} {path}: no such file or folder")
    return files


def _below(folder: Path) -> Iterator[Path]:
    for inside, _, names in os.walk(folder):
        yield from (Path(inside) / name for name in names)


def up_to(documents: Iterable[Document], limit: int | None) -> list[Document]:
    """The first documents, until they hold `limit` bytes of text (None: all of them)."""
    result: list[Document] = []
    size = 0
    for document in documents:
        result.append(document)
        size += len(document.text.encode())
        if limit is not None and size >= limit:
            break
    return result


def file_source(path: Path, origin: str, licence: str, documents: int) -> Source:
    """The manifest's entry of a file."""
    return Source(shown(path), origin, licence, documents, readers.sha256_of(path))


def hub_source(name: str, repository: str, licence: str, documents: list[Document]) -> Source:
    """The manifest's entry of text from the hub; the digest is that of the texts read."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(document.text.encode() + b"\0")
    return Source(name, f"Hugging Face hub, {repository}", licence, len(documents), digest.hexdigest())


def with_base_text(options: argparse.Namespace, recipe: Recipe) -> Recipe:
    """The recipe with the documents of --base-text in its base, and a check that every user has text."""
    values = [str(SAMPLE / "en.jsonl.xz") if value == "sample" else value for value in options.base_text]
    files = files_of(values, (".jsonl", ".csv", ".txt"), "--base-text")
    read = recipe.read

    def read_both() -> Corpus:
        corpus = read()
        for user, documents in corpus.users.items():
            if not documents:
                raise DataError(f"too little text: user {user} has no document in the source")
        for path in files:
            texts = [record["text"] for record, _ in readers.records(path, "text", "blank-line")]
            corpus.base += [Document(text, text) for text in texts]
            licence = "MPL-2.0" if path.parent == SAMPLE else NOT_STATED
            corpus.sources.append(file_source(path, f"base text, file {shown(path)}", licence, len(texts)))
        return corpus

    return replace(recipe, files=recipe.files + files, read=read_both)
