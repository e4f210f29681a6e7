"""multilingual: German, Dutch, French and Italian users; English and a share of the pages make the base."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from . import debian, hub, option_groups, readers
from .documents import Corpus, Document
from .errors import DataError
from .names import shown
from .recipe import HUB_BYTES, NOT_STATED, SAMPLE, Recipe, file_source, hub_source, up_to, with_base_text

LANGUAGES = {"German": "de", "Dutch": "nl", "French": "fr", "Italian": "it"}
USERS = tuple(LANGUAGES)
BASE_LANGUAGE = "en"
HUB_REPOSITORY = "wikimedia/wikipedia"
HUB_DATE = "20231101"
# The licence of a document by the first word of its key.
LICENCES = {"libreoffice-help": "MPL-2.0", "installation-guide": "GPL-2"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Its own options."""
    parser.add_argument(
        "--source",
        default="sample",
        metavar="{sample,debian,hub,FOLDER}",
        help=(
            "the shipped sample, Debian's packages (downloaded with apt-get), Wikipedia on the"
            " Hugging Face hub, or a folder with de, nl, fr, it and perhaps en.jsonl (default:"
            " sample)"
        ),
    )
    option_groups.add_users(parser, USERS)


def language_files(folder: Path) -> dict[str, Path]:
    """The file of every language, also compressed; English may be missing."""
    if not folder.is_dir():
        raise DataError(f"--source {folder}: no such folder (sample, debian, hub or a folder is expected)")
    found = {}
    for language in [*LANGUAGES.values(), BASE_LANGUAGE]:
        names = [f"{language}.jsonl{ending}" for ending in ("", *readers.COMPRESSIONS)]
        paths = [folder / name for name in names if (folder / name).is_file()]
        if paths:
            found[language] = paths[0]
        elif language != BASE_LANGUAGE:
            raise DataError(
                f"--source {folder}: no {language}.jsonl there (de, nl, fr and it needed, en optional)"
            )
    return found


def _licence(documents: list[Document]) -> str:
    kinds = {document.key.partition(":")[0] for document in documents}
    if not kinds or not kinds <= set(LICENCES):
        return NOT_STATED
    return " and ".join(licence for kind, licence in LICENCES.items() if kind in kinds)


def _read(files: dict[str, Path], origin: str | None, limit: int | None) -> Corpus:
    """`source` of a record names the page: translations share it. Without it a text stands for itself."""
    corpus = Corpus({}, aligned=True)
    by_language = {}
    for language, path in files.items():
        rows = readers.jsonl(path)
        found = (Document(row["text"], str(row.get("source") or row["text"])) for row, _ in rows)
        by_language[language] = documents = up_to(found, limit)
        origin_here = origin or f"file {shown(path)}"
        corpus.sources.append(file_source(path, origin_here, _licence(documents), len(documents)))
    corpus.users = {user: by_language[language] for user, language in LANGUAGES.items()}
    corpus.base = by_language.get(BASE_LANGUAGE, [])
    return corpus


def _read_debian(limit: int | None) -> Corpus:
    with tempfile.TemporaryDirectory(prefix="comigs-multilingual-") as folder:
        versions = debian.fetch(Path(folder))
        origin = "Debian packages " + ", ".join(
            f"{name} {version}" for name, version in sorted(versions.items())
        )
        return _read(language_files(Path(folder)), origin, limit)


def _read_hub(repository: str, limit: int) -> Corpus:
    """Wikipedia as in the paper (its Dutch came from Wiki-40B); its articles are no translations."""
    corpus = Corpus({})
    for user, language in [*LANGUAGES.items(), ("", BASE_LANGUAGE)]:
        part = f"{HUB_DATE}.{language}"
        what = "the articles as de, nl, fr, it and en.jsonl"
        rows = hub.rows(repository, part, "train", what, {"text": str})
        documents = up_to((Document(row["text"], row["text"]) for row in rows), limit)
        corpus.sources.append(hub_source(language, f"{repository} {part}", "CC BY-SA", documents))
        if user:
            corpus.users[user] = documents
        else:
            corpus.base = documents
    return corpus


def recipe(options: argparse.Namespace) -> Recipe:
    """From the shipped sample, a folder, Debian's packages or the hub."""
    source, limit = options.source, options.read_bytes
    if source == "hub":
        repository = options.hub_name or HUB_REPOSITORY
        result = Recipe(
            "multilingual", [], {"hub": repository}, lambda: _read_hub(repository, limit or HUB_BYTES)
        )
    elif source == "debian":
        result = Recipe("multilingual", [], {"debian": debian.PACKAGES}, lambda: _read_debian(limit))
    else:
        folder = SAMPLE if source == "sample" else Path(source)
        files = language_files(folder)
        origin = (
            "LibreOffice 7.4.7 help as in Debian 12 (data_prep/sample/README.md)"
            if folder == SAMPLE
            else None
        )
        result = Recipe("multilingual", list(files.values()), {}, lambda: _read(files, origin, limit))
    return with_base_text(options, result)
