"""Makes the shipped sample: `python -m data_prep.make_sample SOURCE FOLDER`.

SOURCE holds de, fr, it, nl and en.jsonl as `python -m data_prep.debian` writes them. The sample takes whole
pages of LibreOffice's help (MPL-2.0) without the installation guide; pages are chosen by a hash of their
name, the same in every language, and English goes on with further pages for the base.
"""

from __future__ import annotations

import json
import lzma
import sys
from pathlib import Path

from .documents import Document, rank
from .errors import DataError
from .multilingual import BASE_LANGUAGE, LANGUAGES, language_files
from .readers import jsonl

LANGUAGE_BYTES = 600_000  # of text in each users' language, on average
ENGLISH_BYTES = 1_200_000
WANTED = "libreoffice-help:"


def _pages(path: Path) -> dict[str, Document]:
    rows = ((row["source"], row["text"]) for row, _ in jsonl(path))
    return {source: Document(text, source) for source, text in rows if source.startswith(WANTED)}


def _size(documents: list[Document]) -> int:
    return sum(len(document.text.encode()) for document in documents)


def _chosen(pages: dict[str, dict[str, Document]]) -> dict[str, list[str]]:
    """The keys of every language: pages that exist in all of them, then for English further ones."""
    languages = list(LANGUAGES.values())
    order = sorted(pages[BASE_LANGUAGE], key=lambda key: rank(0, "sample", key))
    common = [key for key in order if all(key in pages[language] for language in languages)]
    size = count = 0
    while count < len(common) and size < LANGUAGE_BYTES * len(languages):
        size += _size([pages[language][common[count]] for language in languages])
        count += 1
    shared = common[:count]
    english = list(shared)
    for key in (key for key in order if key not in set(shared)):
        if _size([pages[BASE_LANGUAGE][key] for key in english]) >= ENGLISH_BYTES:
            break
        english.append(key)
    return {**{language: shared for language in languages}, BASE_LANGUAGE: english}


def make(source: Path, folder: Path) -> None:
    """Writes the compressed files of the sample into `folder`."""
    pages = {language: _pages(path) for language, path in language_files(source).items()}
    if BASE_LANGUAGE not in pages:
        raise DataError(f"{source}: no en.jsonl there")
    folder.mkdir(parents=True, exist_ok=True)
    for language, keys in _chosen(pages).items():
        documents = [pages[language][key] for key in sorted(keys)]
        lines = [
            json.dumps({"text": item.text, "source": item.key}, ensure_ascii=False) + "\n"
            for item in documents
        ]
        packed = lzma.compress("".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME)
        (folder / f"{language}.jsonl.xz").write_bytes(packed)
        print(
            f"{language}: {len(documents)} pages, {_size(documents):,} bytes of text, {len(packed):,}"
            " compressed"
        )


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("usage: python -m data_prep.make_sample SOURCE FOLDER")
        return 2
    try:
        make(Path(arguments[0]), Path(arguments[1]))
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
