"""slimpajama: StackExchange, GitHub, ArXiv and Book users, by token budgets."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from . import hub, option_groups, readers
from .documents import Corpus, Document
from .errors import DataError
from .names import shown
from .recipe import HUB_BYTES, Recipe, file_source, files_of, hub_source, with_base_text

# User: its name in the records, and how its file's name begins where there is one file a user.
PARTS = {
    "StackExchange": ("RedPajamaStackExchange", "stackexchange"),
    "GitHub": ("RedPajamaGithub", "github"),
    "ArXiv": ("RedPajamaArXiv", "arxiv"),
    "Book": ("RedPajamaBook", "book"),
}
USERS = tuple(PARTS)
USER_OF = {part: user for user, (part, _) in PARTS.items()}
LICENCE = "the terms of SlimPajama's sources, see its data card"
HUB_REPOSITORY = "cerebras/SlimPajama-627B"
BYTES_A_TOKEN = 8  # more than text has on average with any usual tokeniser, so that a token budget can be met


def _user_of(record: dict[str, object], path: Path, line: int) -> str | None:
    """The user of a record by its meta.redpajama_set_name, else by the file's name; None: another part."""
    meta = record.get("meta")
    part = meta.get("redpajama_set_name") if isinstance(meta, dict) else None
    if part is not None:
        return USER_OF.get(part)
    for user, (_, word) in PARTS.items():
        if path.name.lower().startswith(word):
            return user
    names = ", ".join(f"{word}.jsonl" for _, word in PARTS.values())
    raise DataError(f"{path}:{line}: no meta.redpajama_set_name, and the file is none of {names}")


def _rows(files: list[Path]) -> Iterator[tuple[str, str | None, str]]:
    """(file name, user, text)."""
    for path in files:
        for record, line in readers.jsonl(path):
            yield path.name, _user_of(record, path, line), record["text"]


def _hub_rows(repository: str) -> Iterator[tuple[str, str | None, str]]:
    columns = {"text": str, "meta": dict}
    for row in hub.rows(repository, None, "train", "SlimPajama's JSONL files", columns):
        part = row["meta"].get("redpajama_set_name")
        if part is None:
            found = ", ".join(row["meta"]) or "nothing"
            raise DataError(
                f"--source hub: {repository} has {found} in its column 'meta'; redpajama_set_name expected"
            )
        yield "train", USER_OF.get(part), row["text"]


def _collect(rows: Iterator[tuple[str, str | None, str]], limit: int | None) -> tuple[Corpus, dict[str, int]]:
    """Documents by user, each at most about `limit` bytes, and how many came from each file."""
    corpus = Corpus({user: [] for user in USERS})
    sizes = dict.fromkeys(USERS, 0)
    counts: dict[str, int] = {}
    for name, user, text in rows:
        if user is None or (limit is not None and sizes[user] >= limit):
            continue
        corpus.users[user].append(Document(text, text))
        sizes[user] += len(text.encode())
        counts[name] = counts.get(name, 0) + 1
        if limit is not None and min(sizes.values()) >= limit:
            break
    return corpus, counts


def _read(files: list[Path], limit: int | None) -> Corpus:
    corpus, counts = _collect(_rows(files), limit)
    corpus.sources = [
        file_source(path, f"file {shown(path)}", LICENCE, counts.get(path.name, 0)) for path in files
    ]
    return corpus


def _read_hub(repository: str, limit: int) -> Corpus:
    corpus, _ = _collect(_hub_rows(repository), limit)
    corpus.sources = [hub_source(user, repository, LICENCE, found) for user, found in corpus.users.items()]
    return corpus


def add_options(parser: argparse.ArgumentParser) -> None:
    """Its own options."""
    option_groups.add_hub_source(parser, "JSONL files, a folder of them")
    option_groups.add_users(parser, USERS)


def recipe(options: argparse.Namespace) -> Recipe:
    """From JSONL files or the hub; reading stops when there is enough text for the budgets."""
    wanted = options.train_tokens + options.validation_tokens + options.test_tokens
    limit = options.read_bytes or max(HUB_BYTES, int(BYTES_A_TOKEN * wanted / (1.0 - options.base_share)))
    if options.source == ["hub"]:
        repository = options.hub_name or HUB_REPOSITORY
        result = Recipe("slimpajama", [], {"hub": repository}, lambda: _read_hub(repository, limit))
    else:
        files = files_of(options.source, (".jsonl",), "--source")
        result = Recipe("slimpajama", files, {}, lambda: _read(files, limit))
    return with_base_text(options, result)
