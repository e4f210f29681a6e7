"""Small texts for data_prep, made by chance and a seed."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import pytest

from tests.helpers.data_set_reader import (
    write_jsonl,
)

CATEGORIES = ["World", "Sports", "Business", "Sci/Tech"]


def toy_rows(count: int, seed: int) -> list[dict[str, str]]:
    """Records of random words; `page` names them, and a text's length depends on nothing but its number."""
    chance = random.Random(seed)
    words = ["".join(chance.choices("abcdefghij", k=5)) for _ in range(60)]
    return [
        {"text": " ".join(chance.choices(words, k=20 + number % 7)), "page": f"page {number}"}
        for number in range(count)
    ]


def ag_news_csv(path: Path, rows: int) -> list[tuple[str, str]]:
    """An RFC 4180 file with quotes, commas and line ends in fields; gives (category, text)."""
    chance = random.Random(5)
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(["class", "title", "description"])
    articles = []
    for number in range(rows):
        title, body = (
            f'Title {number}, "quoted"',
            " ".join(chance.choices("one two three four five".split(), k=12)),
        )
        body += "\nsecond line"
        writer.writerow([number % 4 + 1, title, body])
        articles.append((CATEGORIES[number % 4], f"{title} {body}"))
    path.write_bytes(stream.getvalue().encode())
    return articles


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "one.jsonl", toy_rows(60, 1))


def nothing_left(folder: Path) -> bool:
    """No data set and no temporary folder."""
    return not any(path.is_dir() for path in folder.iterdir())
