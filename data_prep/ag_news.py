"""ag_news: every user trains on one category; validation and test are an equal mixture of all four."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from . import hub, readers
from .documents import Corpus, Document
from .errors import DataError
from .recipe import Recipe, file_source, files_of, hub_source, with_base_text
from .splits import mixture

USERS = ("World", "Sports", "Business", "Sci/Tech")
CLASSES = dict(zip(("1", "2", "3", "4"), USERS))
LICENCE = "AG's corpus of news articles: research and other non-commercial activity"
HUB_REPOSITORY = "fancyzhx/ag_news"


def _header(row: list[str], path: Path, line: int) -> tuple[list[str], bool]:
    """The columns, and whether the row is itself an article: AG News was published without a header row."""
    if len(row) == 3 and row[0].strip() in CLASSES:
        return ["class", "title", "description"], True
    if "class" in row and ("text" in row or {"title", "description"} <= set(row)):
        return row, False
    raise DataError(
        f"{path}:{line}: columns class and text, or class, title and description expected; found"
        f" {', '.join(row)}"
    )


def _articles(path: Path) -> Iterator[tuple[str, str]]:
    """(category, text) of every article; the text is title, blank, description where they are two columns."""
    header: list[str] = []
    for row, line in readers.csv_rows(path):
        if not header:
            header, is_article = _header(row, path, line)
            if not is_article:
                continue
        article = dict(zip(header, row))
        category = CLASSES.get(article["class"].strip())
        if category is None:
            meaning = ", ".join(f"{number} ({name})" for number, name in CLASSES.items())
            raise DataError(f"{path}:{line}: class is '{article['class']}', expected one of {meaning}")
        text = article["text"] if "text" in article else f"{article['title']} {article['description']}"
        yield category, text.strip()
    if not header:
        raise DataError(f"{path}: the file is empty; articles with class, title, description are expected")


def _read(files: list[Path]) -> Corpus:
    corpus = Corpus({category: [] for category in USERS})
    for path in files:
        count = 0
        for category, text in _articles(path):
            corpus.users[category].append(Document(text, text))
            count += 1
        corpus.sources.append(file_source(path, f"AG News, file {path.name}", LICENCE, count))
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


def recipe(options: argparse.Namespace) -> Recipe:
    """From CSV files, all pooled, or the hub."""
    if options.source == ["hub"]:
        repository = options.hub_name or HUB_REPOSITORY
        result = Recipe("ag_news", [], {"hub": repository}, lambda: _read_hub(repository), mixture)
    else:
        files = files_of(options.source, (".csv",), "--source")
        result = Recipe("ag_news", files, {}, lambda: _read(files), mixture)
    return with_base_text(options, result)
