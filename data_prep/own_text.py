"""text: any number of users, each from files of its own."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from . import option_groups, readers
from .documents import Corpus, Document
from .errors import DataError
from .names import checked_name, shown
from .recipe import Recipe, file_source, files_of, up_to, with_base_text
from .splits import in_domain, mixture


def _named_files(values: list[str]) -> dict[str, list[Path]]:
    users: dict[str, list[Path]] = {}
    for value in values:
        name, _, files = value.partition("=")
        if not name.strip() or not files:
            raise DataError(f"--user {value}: NAME=FILE[,FILE] is expected")
        name = checked_name(name.strip(), "--user")
        users.setdefault(name, []).extend(
            files_of(files.split(","), (".jsonl", ".csv", ".txt"), f"--user {name}:")
        )
    return users


def _documents(path: Path, options: argparse.Namespace) -> Iterator[Document]:
    for record, line in readers.records(path, options.field, options.separator):
        text = record[options.field]
        if options.group is None:
            yield Document(text, text)
        elif record.get(options.group) is None:
            raise DataError(f"{path}:{line}: no field '{options.group}', which --group names")
        else:
            yield Document(text, str(record[options.group]))


def _read(users: dict[str, list[Path]], options: argparse.Namespace) -> Corpus:
    corpus = Corpus({}, aligned=options.group is not None)
    for user, paths in users.items():
        found: list[Document] = []
        for path in paths:
            documents = list(_documents(path, options))
            corpus.sources.append(
                file_source(path, f"{user}, file {shown(path)}", options.licence, len(documents))
            )
            found += documents
        corpus.users[user] = up_to(found, options.read_bytes)
    return corpus


def add_options(parser: argparse.ArgumentParser) -> None:
    """Its own options."""
    parser.add_argument(
        "--user",
        action="append",
        required=True,
        metavar="NAME=FILE[,FILE]",
        help=(
            "a user and its .txt, .jsonl or .csv files or folders of them (also .xz, .gz, .bz2, .zst); repeat"
        ),
    )
    parser.add_argument(
        "--field", default="text", help="field of JSONL records, column of CSV files (default: text)"
    )
    parser.add_argument(
        "--separator",
        choices=readers.SEPARATORS,
        default="blank-line",
        help="what parts the documents of a .txt file (default: blank-line)",
    )
    parser.add_argument(
        "--group", metavar="FIELD", help="records with the same value here stay together, for all users"
    )
    parser.add_argument(
        "--mixture", action="store_true", help="validation and test mix all users' kinds, as AG News does"
    )
    option_groups.add_licence(parser)


def recipe(options: argparse.Namespace) -> Recipe:
    """From .jsonl, .csv and .txt files; in domain, or with equal mixtures for validation and test."""
    users = _named_files(options.user)
    files = [path for paths in users.values() for path in paths]
    identity = {"users": {user: [path.name for path in paths] for user, paths in users.items()}}
    rule = mixture if options.mixture else in_domain
    return with_base_text(options, Recipe("text", files, identity, lambda: _read(users, options), rule))
