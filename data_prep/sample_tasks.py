"""Eight small tasks made of the shipped sample: instruction data where none is at hand, for trials and tests.

A paragraph is in one task alone, so that hardly two examples are about the same passage.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .documents import rank
from .readers import jsonl
from .recipe import SAMPLE

LANGUAGES = {"de": "German", "nl": "Dutch", "fr": "French", "it": "Italian", "en": "English"}
FILES = [SAMPLE / f"{language}.jsonl.xz" for language in LANGUAGES]
LICENCE = "MPL-2.0"
LONGEST, SHORTEST = 24, 8  # words of a text
# Of a category, of a file; the languages' names are asked for in all five.
LARGEST, LARGEST_OF_ALL = 500, 100

Record = dict[str, str]


def records(path: Path) -> Iterator[tuple[Record, int]]:
    """The records of a language's file and the line that each is from."""
    language = path.name.partition(".")[0]
    found: dict[str, list[tuple[str, Record, int]]] = {}
    for page, line in jsonl(path):
        for record in _of_page(page["text"], language):
            order = rank(0, "task", record["context"])
            found.setdefault(record["category"], []).append((order, record, line))
    for category, rows in found.items():
        rows.sort(key=lambda row: row[0])
        most = LARGEST_OF_ALL if category == "language" else LARGEST
        yield from ((record, line) for _, record, line in rows[:most])


def _of_page(text: str, language: str) -> Iterator[Record]:
    heading, *paragraphs = text.strip().split("\n")
    for place, paragraph in enumerate(paragraphs):
        words = paragraph.split()[:LONGEST]
        if len(words) < SHORTEST:
            continue
        choice = int(rank(0, "task", " ".join(words)), 16)
        if choice % 8 == 0:
            yield _record("language", "Which language is this?", words, LANGUAGES[language])
        elif language != "en":
            yield _continued(language, words)
        elif place == 0:
            yield _record("heading", "Write a heading.", words, heading)
        elif choice % 2:
            yield _record("last_word", "Repeat the last word.", words, words[-1])
        else:
            yield _with_gap(words, choice)


def _record(category: str, instruction: str, words: list[str], response: str) -> Record:
    return {
        "category": category,
        "instruction": instruction,
        "context": " ".join(words),
        "response": response,
    }


def _continued(language: str, words: list[str]) -> Record:
    half = len(words) // 2
    return _record(LANGUAGES[language].lower(), "Continue the text.", words[:half], " ".join(words[half:]))


def _with_gap(words: list[str], choice: int) -> Record:
    place = choice // 16 % len(words)
    return _record(
        "gap", "Which word is missing?", [*words[:place], "___", *words[place + 1 :]], words[place]
    )
