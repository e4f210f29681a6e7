"""Examples on disk: one after the other in the token file, and an index of where each of them lies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from .dataset import BATCH, INDEX_COLUMNS, Writer
from .documents import Document, Example
from .recipe import Examples
from .tokenisers import Tokeniser


@dataclass
class Encoded:
    """The ids of an example, and whether some did not fit."""

    instruction: list[int]
    response: list[int]
    instruction_cut: bool = False
    response_cut: bool = False


def fitted(instruction: list[int], response: list[int], context: int) -> Encoded:
    """At most `context` ids. A response that is longer than half of it, and than what the instruction leaves,
    loses its last ids but the end of text; then the instruction loses its first: its question stands last."""
    room = max(context // 2, context - len(instruction))
    kept = response if len(response) <= room else response[: room - 1] + response[-1:]
    over = max(0, len(instruction) + len(kept) - context)
    return Encoded(instruction[over:], kept, over > 0, len(kept) < len(response))


class ExamplesWriter(Writer):
    """Writes users' splits as examples, the base as plain text."""

    def __init__(
        self,
        folder: Path,
        tokeniser: Tokeniser,
        dtype: numpy.dtype,
        examples: Examples,
        categories: list[str],
    ):
        super().__init__(folder, tokeniser, dtype, {})
        self.examples = examples
        self.categories = {name: number for number, name in enumerate(categories)}

    def _encoded(self, documents: list[Document]) -> Iterator[tuple[Example, Encoded]]:
        templated = self.examples.template.source is not None
        for start in range(0, len(documents), BATCH):
            batch = [one for one in documents[start : start + BATCH] if isinstance(one, Example)]
            instructions = self.tokeniser.encode_parts([one.instruction for one in batch], templated)
            responses = self.tokeniser.encode([one.response for one in batch])
            for one, instruction, response in zip(batch, instructions, responses):
                yield one, fitted(instruction, response, self.examples.context)

    def user_split(
        self, name: str, owner: str, documents: list[Document], budget: int | None
    ) -> dict[str, Any]:
        """Writes a token file and its index; gives their entry in the manifest."""
        rows: list[tuple[int, int, int, int]] = []
        cut = {"instructions_cut": 0, "responses_cut": 0}
        digest, begin = hashlib.sha256(), 0
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            for example, encoded in self._encoded(documents):
                ids = encoded.instruction + encoded.response
                data = numpy.array(ids, dtype=self.dtype).tobytes()
                stream.write(data)
                digest.update(data)
                category = self.categories[example.category]
                rows.append((begin, len(encoded.instruction), len(encoded.response), category))
                cut["instructions_cut"] += encoded.instruction_cut
                cut["responses_cut"] += encoded.response_cut
                begin += len(ids)
        index = name.removesuffix(".bin") + ".examples.bin"
        entry = {"file": name, "tokens": begin, "documents": len(rows), "sha256": digest.hexdigest()}
        return entry | {"examples": self._index(index, rows) | cut}

    def _index(self, name: str, rows: list[tuple[int, int, int, int]]) -> dict[str, Any]:
        table = numpy.array(rows, dtype="<i8").reshape(-1, INDEX_COLUMNS)
        data = table.tobytes()
        (self.folder / name).write_bytes(data)
        return {
            "file": name,
            "count": len(rows),
            "longest": int((table[:, 1] + table[:, 2]).max()),
            "response_tokens": int(table[:, 2].sum()),
            "by_category": numpy.bincount(table[:, 3], minlength=len(self.categories)).tolist(),
            "sha256": hashlib.sha256(data).hexdigest(),
        }


def told(manifest: dict[str, Any]) -> str:
    """The template, what was cut and what was left out, for the terminal."""
    splits = (split for user in manifest["users"] for split in user["splits"].values())
    parts = {split["sha256"]: split["examples"] for split in splits}.values()  # clients have splits in common
    total = {
        name: sum(part[name] for part in parts) for name in ("count", "instructions_cut", "responses_cut")
    }
    dropped = manifest["splits"]
    return _dealt(dropped.get("clients")) + (
        f"template: {manifest['template']['from']}\n"
        f"{total['count']:,} examples of at most {manifest['context']:,} tokens: {total['instructions_cut']:,}"
        f" instructions lost their first tokens, {total['responses_cut']:,} responses their last; left out:"
        f" {dropped['duplicates_dropped']:,} duplicates, {dropped['dropped']['without_response']:,} without a"
        f" response, {dropped['dropped']['special_tokens']:,} that spell special tokens"
    )


def _dealt(clients: dict[str, Any] | None) -> str:
    """How samples were dealt to clients, where they were; true sizes, as a division leaves something."""
    if clients is None:
        return ""
    asked = (
        f" ({clients['samples_asked']:,} asked for)" if clients["samples"] < clients["samples_asked"] else ""
    )
    parts = ", ".join(
        f"{name} {sizes['partition']}, one {sizes['heavy']} ({sizes['ratio']:.1f} times)"
        for name, sizes in clients["categories"].items()
    )
    return f"{clients['samples']:,} samples{asked} to {clients['count']} clients, of each category: {parts}\n"
