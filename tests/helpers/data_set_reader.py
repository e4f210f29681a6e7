"""Reads a data-set folder back with nothing of data_prep: numpy for the tokens, `tokenizers` for the text."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import subprocess
import sys
from pathlib import Path

import numpy
from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
SAMPLE = ROOT / "data_prep" / "sample"
LANGUAGES = {"German": "de", "Dutch": "nl", "French": "fr", "Italian": "it"}


def data_prep(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the real command line from the repository's root."""
    command = [sys.executable, "-m", "data_prep", *map(str, arguments)]
    variables = {**os.environ, **environment}
    return subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False, timeout=300
    )


def made(*arguments: object, **environment: str) -> str:
    """Runs it, expects success, gives what it printed."""
    done = data_prep(*arguments, **environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def refused(*arguments: object, **environment: str) -> str:
    """Runs it, expects one error line and exit code 2; gives that line."""
    done = data_prep(*arguments, **environment)
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def records(path: Path) -> list[dict[str, str]]:
    """The records of a .jsonl or .jsonl.xz file."""
    data = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    return [json.loads(line) for line in data.decode("utf-8").split("\n") if line]


def write_jsonl(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


class DataSet:
    """The manifest, and every split as ids and as decoded documents; `files` are (owner, split) -> entry."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.end = self.manifest["tokeniser"]["end_of_text"]
        self.dtype = {"uint16": "<u2", "uint32": "<u4"}[self.manifest["dtype"]]
        self.users = [user["name"] for user in self.manifest["users"]]
        self.files = {
            (user["name"], split): entry
            for user in self.manifest["users"]
            for split, entry in user["splits"].items()
        }
        if self.manifest["base"]:
            for split, entry in self.manifest["base"]["splits"].items():
                self.files["base", split] = entry

    def ids(self, owner: str, split: str) -> numpy.ndarray:
        return numpy.fromfile(self.folder / self.files[owner, split]["file"], dtype=self.dtype)

    def documents(self, owner: str, split: str) -> list[str]:
        ids = self.ids(owner, split)
        ends = numpy.flatnonzero(ids == self.end)
        pieces = numpy.split(ids, ends + 1)
        assert len(pieces[-1]) == 0, "the last document has no end of text"
        return [self.tokenizer.decode(list(map(int, piece[:-1]))) for piece in pieces[:-1]]

    def everything(self) -> dict[tuple[str, str], list[str]]:
        return {key: self.documents(*key) for key in self.files}

    def check_against_manifest(self) -> None:
        """Counts, digests, ids within the vocabulary, paths inside the folder, nothing else in it."""
        tokeniser = self.manifest["tokeniser"]
        text = (self.folder / tokeniser["file"]).read_bytes()
        assert hashlib.sha256(text).hexdigest() == tokeniser["sha256"]
        assert max(self.tokenizer.get_vocab().values()) + 1 == tokeniser["vocabulary"]
        for (owner, split), entry in self.files.items():
            path = (self.folder / entry["file"]).resolve()
            assert path.is_relative_to(self.folder.resolve())
            ids = self.ids(owner, split)
            assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]
            assert len(ids) == entry["tokens"] > 0
            assert int((ids == self.end).sum()) == entry["documents"] > 0
            assert int(ids.max()) < tokeniser["vocabulary"]
            assert ids[-1] == self.end
        listed = {"manifest.json", "tokenizer.json", *(entry["file"] for entry in self.files.values())}
        found = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}
        assert found == listed

    def check_disjoint(self) -> None:
        """No text twice: not in two splits, not with two users, not with a user and the base."""
        texts = [text for documents in self.everything().values() for text in documents]
        assert len(texts) == len(set(texts))
