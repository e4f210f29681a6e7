"""Reading JSONL, CSV and plain text, also compressed, with errors that name the file and the line."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import hashlib
import io
import json
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .errors import DataError

COMPRESSIONS = (".xz", ".gz", ".bz2", ".zst")
SEPARATORS = ("blank-line", "line", "file")
POINTERS = (b"version https://git-lfs.github.com/spec/", b"# xet version")
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
BYTE_ORDER_MARK = "\ufeff"


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


def _zstd(path: Path) -> BinaryIO:
    import pyarrow

    return pyarrow.input_stream(str(path), compression="zstd")


def refuse_pointer(path: Path) -> None:
    """What git leaves in the place of a large file that it has not fetched."""
    with path.open("rb") as stream:
        if stream.read(64).startswith(POINTERS):
            raise DataError(
                f"{path}: is a pointer of Git LFS, not the file itself; run 'git lfs pull' in the repository"
                " that it is from, or download it"
            )


def _open_binary(path: Path) -> BinaryIO:
    """The file's bytes, decompressed."""
    if path.is_dir():
        raise DataError(f"{path}: is a folder, a file was expected")
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if not path.is_file():
        raise DataError(f"{path}: is not a regular file")
    openers: dict[str, Callable[[Path], Any]] = {
        ".xz": lzma.open,
        ".gz": gzip.open,
        ".bz2": bz2.open,
        ".zst": _zstd,
    }
    opener = openers.get(path.suffix.lower(), lambda file: file.open("rb"))
    try:
        refuse_pointer(path)
        return opener(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _numbered_lines(path: Path) -> Iterator[tuple[str, int]]:
    """(line with its end, number) of a text file: UTF-8, or UTF-16 with a byte-order mark.

    Files that were joined have such marks in the middle, too: at the start of a line they are dropped.
    """
    with _open_binary(path) as stream:
        start = stream.read(len(codecs.BOM_UTF16_LE))
    utf16 = start in UTF16_MARKS
    # Latin-1 gives each byte back: lines are parted first, so that what is no UTF-8 has a place.
    encoding = "utf-16" if utf16 else "latin-1"
    before = 0
    with io.TextIOWrapper(_open_binary(path), encoding=encoding, newline="") as stream:
        for number, line in enumerate(stream, start=1):
            if not utf16:
                raw = line.encode("latin-1")
                line = _decoded(raw, path, number, before)
                before += len(raw)
            if "\0" in line:
                raise DataError(
                    f"{path}:{number}: holds a NUL character, which text does not (UTF-16 without a"
                    " byte-order mark? iconv -f UTF-16LE -t UTF-8 makes it UTF-8)"
                )
            yield line.removeprefix(BYTE_ORDER_MARK), number


def _decoded(raw: bytes, path: Path, number: int, before: int) -> str:
    """A line as text; `before`: how many bytes of the file come before it."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}:{number}: is not UTF-8 text ({error.reason}: 0x{raw[error.start]:02x} at byte"
            f" {before + error.start}); if it comes from Windows, iconv -f WINDOWS-1252 -t UTF-8 makes it UTF-8"
        ) from None


def _lines(path: Path) -> Iterator[str]:
    return (line for line, _ in _numbered_lines(path))


def _guarded(path: Path, rows: Iterator[Any]) -> Iterator[Any]:
    """The rows; what goes wrong with the file's bytes on the way becomes a DataError that names it."""
    try:
        yield from rows
    except DataError:
        raise
    except UnicodeError as error:
        raise DataError(f"{path}: its byte-order mark says UTF-16, but it is none ({error})") from None
    except Exception as error:  # every compression has errors of its own
        raise DataError(f"{path}: cannot be decompressed or read: {error}") from None


def check_unicode(text: str, path: Path, number: int) -> None:
    """JSON can spell half of a surrogate pair, which is no text."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(f"{path}:{number}: the text holds a lone surrogate (\\ud800 to \\udfff)") from None


def _json_of(line: str, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} (column {error.colno})"
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, lists in lists in lists
        reason = str(error)
    raise DataError(f"{path}:{number}: not a JSON object: {reason}; one object a line is expected")


def jsonl(path: Path, field: str = "text") -> Iterator[tuple[dict[str, Any], int]]:
    """(record, line) of every line that is not blank; `record[field]` is a string."""

    def rows() -> Iterator[tuple[dict[str, Any], int]]:
        for line, number in _numbered_lines(path):
            if not line.strip():
                continue
            record = _json_of(line, path, number)
            if not isinstance(record, dict) or not isinstance(record.get(field), str):
                raise DataError(f"{path}:{number}: expected an object with a string '{field}'")
            check_unicode(record[field], path, number)
            yield record, number

    return _guarded(path, rows())


def csv_rows(path: Path) -> Iterator[tuple[list[str], int]]:
    """(row, line) of an RFC 4180 file; every row must have as many columns as the first."""

    def rows() -> Iterator[tuple[list[str], int]]:
        csv.field_size_limit(2**31 - 1)
        columns = None
        reader = csv.reader(_lines(path), strict=True)
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
        lines = (line.rstrip("\r\n") for line in _lines(path))
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
            f"{path}: unknown kind of file; .jsonl, .csv or .txt (also .xz, .gz, .bz2, .zst) is expected"
        )
