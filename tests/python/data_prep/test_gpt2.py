"""data_prep with GPT-2's own kind of tokeniser: files of its sizes, and its published algorithm, written out."""

from __future__ import annotations

import json
import re
from functools import cache
from itertools import product
from pathlib import Path

import pytest

from tests.helpers.data_set_reader import DataSet, made, write_jsonl

BYTES, MERGES = 256, 50_000
TEXT = "hello world: the hen held the whole hull, he said \u00e9\u4e16 and hello again"


def byte_names() -> list[str]:
    """OpenAI's bytes_to_unicode: printable bytes are themselves, the others count on from 256."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(BYTES)]


@cache
def merges() -> list[tuple[str, str]]:
    """Some that build on each other, and as many pairs of bytes as GPT-2 has merges beside them."""
    names = byte_names()
    space = names[ord(" ")]
    first = [
        ("h", "e"),
        ("l", "l"),
        ("he", "ll"),
        ("hell", "o"),
        (space, "w"),
        (space, "t"),
        (f"{space}t", "he"),
    ]
    return [*first, *(pair for pair in product(names, names) if pair not in first)][:MERGES]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("gpt2")
    tokens = [*sorted(byte_names()), *map("".join, merges()), "<|endoftext|>"]
    assert len(set(tokens)) == len(tokens) == 50_257
    encoder, bpe = folder / "encoder.json", folder / "vocab.bpe"
    encoder.write_text(json.dumps({token: number for number, token in enumerate(tokens)}), encoding="utf-8")
    lines = ["#version: 0.2", *map(" ".join, merges()), ""]
    bpe.write_text("\n".join(lines), encoding="utf-8")
    return encoder, bpe


def encoded(text: str, files: tuple[Path, Path]) -> list[int]:
    """Radford et al. 2019: in each word the pair of the lowest rank is merged everywhere until there is none."""
    ids = json.loads(files[0].read_text(encoding="utf-8"))
    rank = {pair: number for number, pair in enumerate(merges())}
    names, found = byte_names(), []
    for word in re.findall(r" ?[^\W\d_]+| ?\d+| ?[^\s\w]+|\s+", text):
        parts = [names[byte] for byte in word.encode()]
        while pairs := [pair for pair in zip(parts, parts[1:]) if pair in rank]:
            best = min(pairs, key=rank.__getitem__)
            merged, i = [], 0
            while i < len(parts):
                step = 2 if tuple(parts[i : i + 2]) == best else 1
                merged.append("".join(parts[i : i + step]))
                i += step
            parts = merged
        found += [ids[part] for part in parts]
    return found


def test_gpt2_files_make_gpt2_s_tokens(files, tmp_path):
    texts = [f"{TEXT} {number}" for number in range(40)]
    one = write_jsonl(tmp_path / "one.jsonl", [{"text": text} for text in texts])
    options = ["--tokeniser", "gpt2", "--gpt2-files", *files]
    made("text", "--user", f"One={one}", "--base-share", 0, *options, "--output", tmp_path / "data")
    data = DataSet(tmp_path / "data")
    data.check_against_manifest()
    assert data.manifest["tokeniser"]["kind"] == "gpt2"
    assert data.manifest["tokeniser"]["vocabulary"] == 50_257 and data.end == 50_256
    found = {}
    for split in ("train", "validation", "test"):
        ids = data.ids("One", split).tolist()
        for text in data.documents("One", split):
            end = ids.index(data.end)
            found[text], ids = ids[:end], ids[end + 1 :]
    assert sorted(found) == sorted(texts)
    for text, ids in found.items():
        assert ids == encoded(text, files)
    hello = encoded("hello the", files)
    assert len(hello) == 2  # merges do build on each other
