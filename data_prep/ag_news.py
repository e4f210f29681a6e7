"""ag_news: every user trains on one category; validation and test are an equal mixture of all four."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import hub, option_groups, readers
from .documents import Corpus, Document
from .errors import DataError
from .names import shown
from .recipe import Recipe, file_source, files_of, hub_source, with_base_text
from .splits import mixture

USERS = ("World", "Sports", "Business", "Sci/Tech")
CLASSES = dict(zip(("1", "2", "3", "4"), USERS))
LICENCE = "AG's corpus of news articles: research and other non-commercial activity"
HUB_REPOSITORY = "fancyzhx/ag_news"


# What the columns are called in the copies that people have, in lower case.
COLUMNS = {
    "class": ("class", "class index", "class_index", "label", "category"),
    "title": ("title", "headline"),
    "description": ("description",),
    "text": ("text", "content"),
}
LABELS = tuple(str(label) for label in range(len(USERS)))  # of the hub, whose copies count from 0


@dataclass(frozen=True)
class _Header:
    """Where the columns are; `is_article`: the first row is itself one, as AG News was published."""

    places: dict[str, int]
    named: str  # what the file calls the class
    is_article: bool = False

    def text(self, row: list[str]) -> str:
        parts = ("text",) if "text" in self.places else ("title", "description")
        return " ".join(row[self.places[part]] for part in parts).strip()


def _header(row: list[str], path: Path, line: int) -> _Header:
    if len(row) == 3 and row[0].strip() in CLASSES:
        return _Header({"class": 0, "title": 1, "description": 2}, "class", True)
    names = [name.strip().lower() for name in row]
    places = {
        column: names.index(name)
        for column, usual in COLUMNS.items()
        for name in usual[::-1]
        if name in names
    }
    if "class" in places and ("text" in places or {"title", "description"} <= set(places)):
        return _Header(places, names[places["class"]])
    raise DataError(
        f"{path}:{line}: columns class (or label) and text, or class, title and description expected; found"
        f" {', '.join(row)}"
    )


def _classes(found: set[str], header: _Header, path: Path) -> dict[str, str]:
    """What the class column's values mean: 1 to 4 or names; a `label` may also count from 0, as on the hub."""
    names = {user.lower(): user for user in USERS}
    if found <= set(names):
        return names
    if header.named == "label" and "0" in found and found <= set(LABELS):
        return dict(zip(LABELS, USERS))
    if header.named == "label" and "4" not in found and found <= set(CLASSES):
        raise DataError(
            f"{path}: the column label has {', '.join(sorted(found))} only: of 0 to 3 or of 1 to 4? Name it"
            " class where it counts from 1"
        )
    return CLASSES


def _articles(path: Path) -> Iterator[tuple[str, str]]:
    """(category, text) of every article; the text is title, blank, description where they are two columns."""
    rows = readers.csv_rows(path)
    first, line = next(rows, ([], 0))
    if not first:
        raise DataError(f"{path}: the file is empty; articles with class, title, description are expected")
    header = _header(first, path, line)
    articles = [(first, line)] if header.is_article else []
    articles += rows
    values = [row[header.places["class"]].strip().lower() for row, _ in articles]
    classes = _classes(set(values), header, path)
    for (row, line), value in zip(articles, values):
        if value not in classes:
            meaning = ", ".join(f"{number} ({name})" for number, name in CLASSES.items())
            raise DataError(f"{path}:{line}: {header.named} is '{value}', expected one of {meaning}")
        yield classes[value], header.text(row)


def _read(files: list[Path]) -> Corpus:
    corpus = Corpus({category: [] for category in USERS})
    for path in files:
        count = 0
        for category, text in _articles(path):
            corpus.users[category].append(Document(text, text))
            count += 1
        corpus.sources.append(file_source(path, f"AG News, file {shown(path)}", LICENCE, count))
    return corpus


def _read_hub(repository: str) -> Corpus:
    corpus = Corpus({category: [] for category in USERS})
    for split in ("train", "test"):
        documents = []
        columns = {"text": str, "label": int}
        for row in hub.rows(repository, None, split, "AG News' train.csv and test.csv", columns):
            if not 0 <= row["label"] < len(USERS):
                raise DataError(
                    f"--source hub: {repository} has the label {row['label']}; 0 to {len(USERS) - 1}"
                    f" ({', '.join(USERS)}) expected"
                )
            documents.append(Document(row["text"].strip(), row["text"].strip()))
            corpus.users[USERS[row["label"]]].append(documents[-1])
        corpus.sources.append(hub_source(split, repository, LICENCE, documents))
    return corpus


def add_options(parser: argparse.ArgumentParser) -> None:
    """Its own options."""
    option_groups.add_hub_source(parser, "CSV files, a folder of them")
    option_groups.add_users(parser, USERS)


def recipe(options: argparse.Namespace) -> Recipe:
    """From CSV files, all pooled, or the hub."""
    if options.source == ["hub"]:
        repository = options.hub_name or HUB_REPOSITORY
        result = Recipe("ag_news", [], {"hub": repository}, lambda: _read_hub(repository), mixture)
    else:
        files = files_of(options.source, (".csv",), "--source")
        result = Recipe("ag_news", files, {}, lambda: _read(files), mixture)
    return with_base_text(options, result)
