"""The multilingual data set from Debian's packages: LibreOffice's help and the installation guide.

`python -m data_prep.debian FOLDER` writes de, fr, it, nl and en.jsonl there; `--source debian` does the same
on the way. Packages are downloaded and unpacked, not installed: the help depends on all of LibreOffice.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .errors import DataError
from .html_prose import blocks, keep_paragraph

HELP_LOCALES = {"de": "de", "fr": "fr", "it": "it", "nl": "nl", "en": "en-US"}
HELP_PACKAGES = {language: f"libreoffice-help-{locale.lower()}" for language, locale in HELP_LOCALES.items()}
GUIDE_PACKAGE = "installation-guide-amd64"
PACKAGES = [*HELP_PACKAGES.values(), GUIDE_PACKAGE]
HELP_PERCENT = 65  # of the help pages, the same pages in every language
SMALLEST_DOCUMENT_BYTES = 200


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise DataError(
            f"{command[0]} is not here (--source debian needs a Debian or Ubuntu machine): use the shipped"
            " sample, or make the files on such a machine with `python -m data_prep.debian FOLDER` and pass"
            " --source FOLDER"
        ) from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith(("E:", "dpkg-deb:"))]
        reason = lines[0] if lines else (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(
            f"`{' '.join(command[:2])}` failed for Debian's packages: {reason}; run `apt-get update` first,"
            " or use the shipped sample or --source FOLDER"
        )


def download(folder: Path) -> Path:
    """Fetches and unpacks the packages below `folder`; gives the root they were unpacked to."""
    _run(["apt-get", "download", "-o", "APT::Sandbox::User=root", *PACKAGES], folder)
    root = folder / "root"
    for package in sorted(folder.glob("*.deb")):
        _run(["dpkg-deb", "-x", str(package), str(root)], folder)
    return root


def _pages(root: Path, language: str) -> list[tuple[str, str, Path]]:
    """(kind, source, file) of a language's pages: the help pages that the hash keeps, then the guide."""
    text = root / "usr/share/libreoffice/help" / HELP_LOCALES[language] / "text"
    guide = root / "usr/share/doc/installation-guide-amd64" / language
    for folder in (text, guide):
        if not folder.is_dir():
            raise DataError(
                f"Debian's packages hold no folder {folder.relative_to(root)}: another layout than expected"
            )
    pages = []
    for path in sorted(text.rglob("*.html"), key=str):
        name = path.relative_to(text).with_suffix("").as_posix()
        if int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % 100 < HELP_PERCENT:
            pages.append(("help", f"libreoffice-help:{name}", path))
    pages += [("guide", f"installation-guide:{path.stem}", path) for path in sorted(guide.glob("*.html"))]
    return pages


def documents(root: Path, language: str) -> list[dict[str, str]]:
    """One record a page: its heading and its prose paragraphs, each paragraph once in the whole language."""
    seen_paragraphs: set[str] = set()
    seen_documents: set[str] = set()
    records = []
    for kind, source, path in _pages(root, language):
        page = blocks(path.read_text(encoding="utf-8", errors="replace"), kind)
        kept = []
        for tag, text in page:
            if tag == "p" and text not in seen_paragraphs and keep_paragraph(text, language):
                seen_paragraphs.add(text)
                kept.append(text)
        if sum(len(text.encode()) for text in kept) < SMALLEST_DOCUMENT_BYTES:
            continue
        heading = [text for tag, text in page if tag == "h1" and len(text) >= 3][:1]
        document = "\n".join(heading + kept)
        if document not in seen_documents:
            seen_documents.add(document)
            records.append({"text": document, "source": source})
    return records


def fetch(folder: Path) -> dict[str, str]:
    """Writes de, fr, it, nl and en.jsonl into `folder`; gives the version of every package by its name."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in (folder / f"{language}.jsonl" for language in HELP_LOCALES):
        if os.path.lexists(file):
            raise DataError(f"{file}: is there already and would be lost; choose another folder or remove it")
    with tempfile.TemporaryDirectory(prefix="comigs-debian-") as temporary:
        if shutil.disk_usage(temporary).free < 500_000_000:
            raise DataError(
                f"Debian's packages need 500 MB while they are unpacked; there is less in {temporary}"
            )
        root = download(Path(temporary))
        for language in HELP_LOCALES:
            lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in documents(root, language)]
            (folder / f"{language}.jsonl").write_text("".join(lines), encoding="utf-8")
        names = [path.name.split("_") for path in Path(temporary).glob("*.deb")]
    return {package: version.replace("%3a", ":") for package, version, _ in names}


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m data_prep.debian FOLDER    (writes de, fr, it, nl and en.jsonl there)")
        return 0 if arguments in (["-h"], ["--help"]) else 2
    try:
        fetch(Path(arguments[0]))
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
