"""bare: token ids of others in files without a header, as the authors' programs take them, become a data set."""

from __future__ import annotations

import argparse
import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy

from . import option_groups, option_values, readers, tokenisers
from .dataset import (
    FORMAT,
    FORMAT_VERSION,
    Writer,
    dtype_for,
    folder_names,
    sources_of,
    taking_the_place_of,
    write_manifest,
)
from .documents import Source
from .errors import DataError
from .names import checked_name

WORDS = {"train": "train", "validation": "valid", "test": "test"}  # of a split's files: train_0.bin
RULE = "as the bare files have it: where documents end, and that none is in two splits, is not known of them"
CHUNK = 1 << 22  # ids read at a time
LEAST_PAIRS = 16  # that tell uint32 from uint16
_NAME = re.compile(rf"({'|'.join(WORDS.values())})_([0-9]+)\.bin")


@dataclass(frozen=True)
class BareFiles:
    """The files by user and split. `files` and `identity` as those of a Recipe."""

    users: dict[str, dict[str, Path]]
    identity: dict[str, Any] = field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        return [path for splits in self.users.values() for path in splits.values()]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Its own options."""
    parser.add_argument(
        "--source",
        required=True,
        metavar="FOLDER",
        help="with train_0.bin, valid_0.bin, test_0.bin, train_1.bin, ...: a number is a user",
    )
    parser.add_argument(
        "--dtype",
        choices=("uint16", "uint32"),
        required=True,
        help="of the ids in the files, little-endian; the data set has the same",
    )
    parser.add_argument(
        "--tokeniser",
        "--tokenizer",
        required=True,
        metavar="{gpt2,FILE}",
        help="what made the ids: GPT-2's own vocabulary, or a tokenizer.json, such as the base model's",
    )
    option_groups.add_tokeniser_files(parser)
    parser.add_argument(
        "--names",
        type=option_values.names,
        metavar="NAME,NAME",
        help="of the users (default: user-0,user-1,...)",
    )
    option_groups.add_licence(parser)


def recipe(options: argparse.Namespace) -> BareFiles:
    """Finds the files, and whose they are; reads none of them."""
    found = _found(Path(options.source))
    names = options.names
    if names is None:
        names = [f"user-{number}" for number in range(len(found))]
    for name in names:
        checked_name(name, "--names")
    if len(names) != len(found):
        raise DataError(
            f"--names {','.join(names)}: {len(names)} names found, {len(found)} expected, one for each"
            f" user in {options.source}"
        )
    return BareFiles(dict(zip(names, found)))


def _found(folder: Path) -> list[dict[str, Path]]:
    """The three files of each user, by number."""
    if not folder.is_dir():
        raise DataError(f"--source {folder}: no such folder")
    numbered: dict[int, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        if named := _NAME.fullmatch(path.name):
            word, number = named[1], int(named[2])
            if path.name != f"{word}_{number}.bin":
                raise DataError(f"{path}: {word}_{number}.bin is expected, without leading zeros")
            if not path.is_file():
                raise DataError(f"{path}: is not a regular file")
            readers.refuse_pointer(path)
            numbered.setdefault(number, {})[word] = path
    if not numbered:
        raise DataError(f"--source {folder}: no train_0.bin, valid_0.bin and test_0.bin in it")
    users = []
    for expected, (number, files) in enumerate(sorted(numbered.items())):
        for word in WORDS.values():
            if number != expected or word not in files:
                raise DataError(
                    f"{folder / f'{word}_{expected}.bin'}: is missing beside {next(iter(files.values())).name};"
                    " users are numbered 0, 1, 2, ..., and each has train, valid and test"
                )
        users.append({split: files[word] for split, word in WORDS.items()})
    return users


def make(
    options: argparse.Namespace, recipe: BareFiles, made_by: dict[str, Any], replaced: dict[str, Any] | None
) -> dict[str, Any]:
    """Checks the ids and copies them, in the place of `replaced`; gives the manifest."""
    tokeniser = tokenisers.given(options.tokeniser, options.gpt2_files, options.end_of_text)
    dtype = dtype_for(tokeniser.vocabulary, options.dtype)
    with taking_the_place_of(Path(options.output).resolve(), replaced) as folder:
        writer = Writer(folder, tokeniser, dtype, {})
        users = [
            {"name": user, "splits": _copied(folder / name, recipe.users[user], dtype, tokeniser.vocabulary)}
            for user, name in folder_names(list(recipe.users)).items()
        ]
        manifest = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "name": options.name or "bare",
            "tokeniser": writer.tokenizer(),
            "dtype": dtype.name,
            "users": users,
            "base": None,
            "sources": sources_of(_sources(recipe, options.licence)),
            "splits": {"rule": RULE},
            "made_by": made_by,
        }
        write_manifest(folder, manifest)
    return manifest


def _sources(recipe: BareFiles, licence: str) -> list[Source]:
    return [
        Source(path.name, f"{user}, bare file {path.name}", licence, None, readers.sha256_of(path))
        for user, splits in recipe.users.items()
        for path in splits.values()
    ]


def _copied(
    folder: Path, splits: dict[str, Path], dtype: numpy.dtype, vocabulary: int
) -> dict[str, dict[str, Any]]:
    """A user's splits; gives their entries in the manifest."""
    folder.mkdir()
    entries: dict[str, dict[str, Any]] = {}
    first_with: dict[str, Path] = {}
    for split, path in splits.items():
        target = folder / f"{split}.bin"
        entry = _copy(path, target, dtype, vocabulary)
        same = first_with.setdefault(entry["sha256"], path)
        if same != path:
            raise DataError(f"{path}: the same ids as {same.name}; splits that share no text are expected")
        entries[split] = {"file": f"{folder.name}/{target.name}"} | entry
    return entries


def _copy(path: Path, target: Path, dtype: numpy.dtype, vocabulary: int) -> dict[str, Any]:
    """Copies a file of ids, each of which must be of the type and of the vocabulary."""
    digest = hashlib.sha256()
    count, halves = 0, 0
    with path.open("rb") as source, target.open("wb") as copy:
        while data := source.read(CHUNK * dtype.itemsize):
            ids = _checked(data, path, count, dtype, vocabulary)
            halves += int(numpy.count_nonzero(ids[1::2]))
            digest.update(data)
            copy.write(data)
            count += len(ids)
    if count == 0:
        raise DataError(f"{path}: 0 bytes, {dtype.name} ids are expected")
    if dtype.itemsize == 2 and halves == 0 and count >= 2 * LEAST_PAIRS and count % 2 == 0:
        raise DataError(
            f"{path}: bytes 2 and 3 of every four are 0, as in a file of uint32; --dtype uint32 is expected"
        )
    return {"tokens": count, "documents": None, "sha256": digest.hexdigest()}


def _checked(data: bytes, path: Path, before: int, dtype: numpy.dtype, vocabulary: int) -> numpy.ndarray:
    """The ids of a part of a file, which `before` ids precede."""
    width, begin = dtype.itemsize, before * dtype.itemsize
    if over := len(data) % width:
        size = begin + len(data)
        raise DataError(
            f"{path}: {size:,} bytes, the id from byte {size - over:,} on is cut short; a multiple of {width}"
            f" is expected of {dtype.name}"
        )
    ids = numpy.frombuffer(data, dtype)
    if int(ids.max()) >= vocabulary:
        place = int(numpy.argmax(ids >= vocabulary))
        raise DataError(
            f"{path}: id {int(ids[place]):,} at byte {begin + place * width:,} as {dtype.name}; ids below"
            f" {vocabulary:,} are expected, which the tokeniser has"
        )
    return ids
