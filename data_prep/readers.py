"""Reading JSONL, CSV and plain text, also compressed, with errors that name the file and the line."""

from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import io
import json
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from .errors import DataError

COMPRESSIONS = (".xz", ".gz", ".bz2")
SEPARATORS = ("blank-line", "line", "file")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def kind_of(path: Path) -> str:
    """The file's ending without that of a compression: '.jsonl' for 'de.jsonl.xz'."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def open_text(path: Path) -> TextIO:
    """A text stream of UTF-8 (a byte-order mark is dropped), decompressed; line ends are left as they are."""
    if path.is_dir():
        raise DataError(f"{path}: is a folder, a file was expected")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    openers: dict[str, Callable[[Path], Any]] = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}
    opener = openers.get(path.suffix.lower(), lambda file: file.open("rb"))
    try:
        return io.TextIOWrapper(opener(path), encoding="utf-8-sig", newline="")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _guarded(path: Path, rows: Iterator[Any]) -> Iterator[Any]:
    """The rows; what goes wrong with the file's bytes on the way becomes a DataError that names it."""
    try:
        yield from rows
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error.reason})") from None
    except Exception as error:  # every compression has errors of its own
        raise DataError(f"{path}: cannot be decompressed or read: {error}") from None


def _check_unicode(text: str, path: Path, number: int) -> None:
    """JSON can spell half of a surrogate pair, which is no text."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(f"{path}:{number}: the text holds a lone surrogate (\\ud800 to \\udfff)") from None


def jsonl(path: Path, field: str = "text") -> Iterator[tuple[dict[str, Any], int]]:
    """(record, line) of every line that is not blank; `record[field]` is a string."""

    def rows() -> Iterator[tuple[dict[str, Any], int]]:
        with open_text(path) as stream:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                except json.JSONDecodeError as error:
                    raise DataError(
                        f"{path}:{number}: not a JSON object: {error.msg} (column {error.colno})"
                    ) from None
                if not isinstance(record, dict) or not isinstance(record.get(field), str):
                    raise DataError(f"{path}:{number}: expected an object with a string '{field}'")
                _check_unicode(record[field], path, number)
                yield record, number

    return _guarded(path, rows())


def csv_rows(path: Path) -> Iterator[tuple[list[str], int]]:
    """(row, line) of an RFC 4180 file; every row must have as many columns as the first."""

    def rows() -> Iterator[tuple[list[str], int]]:
        csv.field_size_limit(2**31 - 1)
        columns = None
        with open_text(path) as stream:
            reader = csv.reader(stream, strict=True)
            first_line = 1
            while True:
                try:
                    row = next(reader, None)
                except csv.Error as error:
                    raise DataError(f"{path}:{first_line}: malformed CSV: {error}") from None
                if row is None:
                    return
                columns = columns or len(row)
                if row and len(row) != columns:
                    raise DataError(
                        f"{path}:{first_line}: {len(row)} columns, {columns} expected as in the first row"
                    )
                if row:
                    yield row, first_line
                first_line = reader.line_num + 1

    return _guarded(path, rows())


def csv_records(path: Path, field: str = "text") -> Iterator[tuple[dict[str, str], int]]:
    """(record, line) of a CSV file with a header row that names `field`."""
    rows = csv_rows(path)
    header, _ = next(rows, ([], 0))
    if field not in header:
        raise DataError(f"{path}:1: no column '{field}' in the header ({', '.join(header) or 'empty file'})")
    for row, number in rows:
        yield dict(zip(header, row)), number


def text_documents(path: Path, separator: str) -> Iterator[str]:
    """The documents of a plain text file: parted by blank lines, one a line, or the whole file as one."""

    def rows() -> Iterator[str]:
        with open_text(path) as stream:
            lines = (line.rstrip("\r\n") for line in stream)
            if separator == "file":
                yield "\n".join(lines)
                return
            part: list[str] = []
            for line in lines:
                if line.strip() and separator == "blank-line":
                    part.append(line)
                elif separator == "line":
                    yield line
                elif part:
                    yield "\n".join(part)
                    part = []
            if part:
                yield "\n".join(part)

    return _guarded(path, (document for document in rows() if document.strip()))


def records(path: Path, field: str, separator: str) -> Iterator[tuple[dict[str, Any], int]]:
    """(record with `field`, line) of a .jsonl, .csv or .txt file, told by its ending."""
    kind = kind_of(path)
    if kind in (".jsonl", ".ndjson"):
        yield from jsonl(path, field)
    elif kind == ".csv":
        yield from csv_records(path, field)
    elif kind in (".txt", ".text", ".md"):
        for number, document in enumerate(text_documents(path, separator), start=1):
            yield {field: document}, number
    else:
        raise DataError(
            f"{path}: unknown kind of file; .jsonl, .csv or .txt (also .xz, .gz, .bz2) is expected"
        )
