"""Writing a data-set folder: files go into a temporary folder beside it that takes its name when complete."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy

from console import whole_folder
from console.small_files import json_of

from .documents import Document, Source
from .errors import DataError
from .splits import SPLITS, Assigned
from .tokenisers import Tokeniser

FORMAT = "comigs-dataset"
FORMAT_VERSION = 1
EXAMPLES_VERSION = 2  # of data sets whose users hold examples
INDEX_COLUMNS = 4  # of an index of examples, int64: begin, instruction tokens, response tokens, category
MANIFEST = "manifest.json"
UINT16_LARGEST_VOCABULARY = 65_535
BATCH = 256  # documents encoded in one call
# What lies at the top of a folder that data_prep makes: a data set's, or a base's (data_prep.base).
_CONTENTS = whole_folder.Contents(
    top=(
        MANIFEST,
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "comigs-base.json",
        "config.json",
        "LICENSE*",
        "*.safetensors*",
    ),
    below=tuple(f"{split}{kind}.bin" for split in SPLITS for kind in ("", ".examples")),
)


def dtype_for(vocabulary: int, wanted: str) -> numpy.dtype:
    """Little-endian uint16 when it holds every id, else uint32; `wanted` may ask for one of them."""
    if wanted == "uint16" and vocabulary > UINT16_LARGEST_VOCABULARY:
        raise DataError(
            f"--dtype uint16: the vocabulary has {vocabulary:,} ids, uint16 is for at most"
            f" {UINT16_LARGEST_VOCABULARY:,}"
        )
    small = vocabulary <= UINT16_LARGEST_VOCABULARY and wanted != "uint32"
    return numpy.dtype("<u2" if small else "<u4")


def folder_names(users: list[str]) -> dict[str, str]:
    """The folder of each user's files."""
    names: dict[str, str] = {}
    for user in users:
        name = re.sub(r"[^\w]+", "-", user.lower()).strip("-") or "user"
        if name in names.values() or name == "base":
            raise DataError(
                f"user {user}: its folder '{name}' is taken; give the users names that differ more"
            )
        names[user] = name
    return names


class Writer:
    """Writes token files below a folder; `tokens` are budgets by split (absent: no limit)."""

    def __init__(self, folder: Path, tokeniser: Tokeniser, dtype: numpy.dtype, tokens: dict[str, int]):
        self.folder, self.tokeniser, self.dtype, self.tokens = folder, tokeniser, dtype, tokens

    def split(self, name: str, owner: str, documents: list[Document], budget: int | None) -> dict[str, Any]:
        """Writes one token file; gives its entry in the manifest."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        tokens = count = 0
        with path.open("wb") as stream:
            for encoded in self._within(documents, budget):
                data = numpy.concatenate([numpy.array(ids, dtype=self.dtype) for ids in encoded]).tobytes()
                stream.write(data)
                digest.update(data)
                tokens += len(data) // self.dtype.itemsize
                count += len(encoded)
        if budget is not None and tokens < budget - 1:
            raise DataError(
                f"too little text: {owner}, {path.stem}: {tokens:,} tokens, {budget:,} wanted; give more text"
                f" or lower --{path.stem}-tokens (or raise this split's share with --fractions)"
            )
        return {"file": name, "tokens": tokens, "documents": count, "sha256": digest.hexdigest()}

    def _within(self, documents: list[Document], budget: int | None) -> Iterator[list[list[int]]]:
        """Batches of encoded documents; the one that would pass the budget is cut and ends the split."""
        left = budget
        for start in range(0, len(documents), BATCH):
            encoded = self.tokeniser.encode([document.text for document in documents[start : start + BATCH]])
            taken: list[list[int]] = []
            for ids in encoded:
                if left is not None and len(ids) > left:
                    ids = ids[: left - 1] + ids[-1:] if left > 1 else []
                if ids:
                    taken.append(ids)
                left = None if left is None else left - max(len(ids), 1)
                if left is not None and left <= 0:
                    break
            if taken:
                yield taken
            if left is not None and left <= 0:
                return

    def user_split(
        self, name: str, owner: str, documents: list[Document], budget: int | None
    ) -> dict[str, Any]:
        """The same of a split that a user holds."""
        return self.split(name, owner, documents, budget)

    def users(self, assigned: Assigned) -> list[dict[str, Any]]:
        """All splits of all users."""
        names = folder_names(list(assigned.users))
        return [
            {
                "name": user,
                "splits": {
                    split: self.user_split(
                        f"{names[user]}/{split}.bin", user, splits[split], self.tokens.get(split)
                    )
                    for split in SPLITS
                },
            }
            for user, splits in assigned.users.items()
        ]

    def base(self, assigned: Assigned) -> dict[str, Any] | None:
        """Both splits of the base corpus."""
        if assigned.base is None:
            return None
        splits = assigned.base
        return {
            "splits": {name: self.split(f"base/{name}.bin", "base", splits[name], None) for name in splits}
        }

    def tokenizer(self) -> dict[str, Any]:
        """tokenizer.json, also for GPT-2's own vocabulary."""
        path = self.folder / "tokenizer.json"
        path.write_text(self.tokeniser.tokenizer.to_str(pretty=False), encoding="utf-8")
        return {
            "kind": self.tokeniser.kind,
            "file": path.name,
            "vocabulary": self.tokeniser.vocabulary,
            "end_of_text": self.tokeniser.end_of_text,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }


def sources_of(sources: list[Source]) -> list[dict[str, Any]]:
    """The sources as the manifest lists them."""
    return [asdict(source) for source in sources]


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """The last file: a folder without it is no data set."""
    path = folder / MANIFEST
    path.write_text(json.dumps(manifest, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def clear_leftovers(output: Path) -> None:
    """Removes what killed calls on this machine left beside a data set or a base."""
    whole_folder.clear_leftovers(output, _CONTENTS)


def folder_beside(output: Path) -> AbstractContextManager[Path]:
    """A temporary folder beside a data set or a base, removed when the block ends."""
    return whole_folder.folder_beside(output, _CONTENTS)


def taking_the_place_of(output: Path, expected: dict[str, Any] | None) -> AbstractContextManager[Path]:
    """A temporary folder beside `output`: becomes `output` when the block ends well, else is removed.
    `expected`: the manifest of what was to be replaced. Raises DataError, and leaves what is there, where that
    is another one by then: another call has made it, or somebody has put something there."""

    def check() -> None:
        if manifest_of(output) != expected:
            raise DataError(f"--output {output}: changed while this call was at work; nothing was replaced")

    return whole_folder.whole_folder(output, _CONTENTS, check)


def manifest_of(folder: Path) -> dict[str, Any] | None:
    """The manifest of an existing data set, None when nothing is there; anything else is an error."""
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise DataError(f"--output {folder}: is a file, a folder is expected")
    if not any(folder.iterdir()):
        return None
    try:
        manifest = json_of(folder / MANIFEST)
        files = [file for file, _ in sizes_of(manifest)]
        if manifest["format"] != FORMAT:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise DataError(
            f"--output {folder}: exists and is no data set of comigs; choose another folder"
        ) from None
    known = {MANIFEST, "tokenizer.json", *files}
    found = (
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or not path.is_dir()
    )
    strange = [name for name in found if name not in known]
    if strange:
        raise DataError(
            f"--output {folder}: holds {strange[0]}, which is no part of the data set there; move it first"
        )
    return manifest


def token_files(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The entry of every token file."""
    owners = [*manifest["users"], *([manifest["base"]] if manifest["base"] else [])]
    for owner in owners:
        yield from owner["splits"].values()


def sizes_of(manifest: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Every file of tokens, and every index, and how many bytes it has."""
    size = numpy.dtype(manifest["dtype"]).itemsize
    for tokens in token_files(manifest):
        yield tokens["file"], tokens["tokens"] * size
        if "examples" in tokens:
            yield tokens["examples"]["file"], tokens["examples"]["count"] * INDEX_COLUMNS * 8


def is_whole(folder: Path, manifest: dict[str, Any]) -> bool:
    """Whether every file is there with the size that the manifest tells."""
    files = [(folder / name, length) for name, length in sizes_of(manifest)]
    whole = all(path.is_file() and path.stat().st_size == length for path, length in files)
    return whole and (folder / manifest["tokeniser"]["file"]).is_file()
