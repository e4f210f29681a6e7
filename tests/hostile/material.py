"""The good inputs that are broken afterwards: a tiny base, a data set of one user, a job, a finished run."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from .trial import ROOT, run

sys.path.insert(0, str(ROOT / "tests" / "python"))

import tiny  # noqa: E402

TOKENISER = {
    "version": "1.0",
    "model": {"type": "BPE", "vocab": {chr(0x41 + i): i for i in range(tiny.VOCABULARY - 1)}, "merges": []},
    "decoder": {"type": "ByteLevel"},
    "added_tokens": [{"id": tiny.VOCABULARY - 1, "content": "<|endoftext|>", "special": True}],
}
PROBES = {
    "format": "comigs-probes",
    "format_version": 1,
    "vocabulary": tiny.VOCABULARY,
    "probes": [
        {"name": name, "ids": [1, 2, 3, 4], "text": ["a", " b", "c", "\n"]} for name in ("one", "two")
    ],
}
JOB = """[run]
output = {place}/out
rounds = 1
evaluate_every = 1
weights_every = 1
precision = float32
device = cpu
threads = 1
[data]
folder = {place}/data
[model]
folder = {place}/base
[method]
name = comigs-1g1s
router_every = 2
router_steps = 1
[user]
experts = 2
lora_rank = 2
batch_sequences = 2
context_tokens = 12
local_steps = 2
"""


@dataclass(frozen=True)
class Place:
    """A folder with a whole set of inputs."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def manifest(self) -> Path:
        return self.data / "manifest.json"

    @property
    def job(self) -> Path:
        return self.folder / "job.ini"

    @property
    def probes(self) -> Path:
        return self.folder / "probes.json"

    @property
    def output(self) -> Path:
        return self.folder / "out"

    @property
    def results(self) -> Path:
        return self.folder / "run" / "results.h5"

    def write_job(self) -> str:
        text = JOB.format(place=self.folder)
        self.job.write_text(text, encoding="utf-8")
        (self.folder / "other.ini").write_text("[job]\ninherit = job.ini\n", encoding="utf-8")
        return text

    def promise(self, shard: Path) -> None:
        """Makes the manifest promise what the token file now holds."""
        content = json.loads(self.manifest.read_text(encoding="utf-8"))
        for holder in (*content["users"], content["base"]):
            for split in holder["splits"].values():
                if self.data / split["file"] == shard:
                    data = shard.read_bytes()
                    split |= {"sha256": hashlib.sha256(data).hexdigest(), "tokens": len(data) // 2}
        self.manifest.write_text(json.dumps(content), encoding="utf-8")

    def copy(self, folder: Path) -> Place:
        shutil.copytree(self.folder, folder, symlinks=True)
        place = Place(folder)
        place.write_job()
        return place


def make(folder: Path, executable: Path) -> Place:
    """Everything, with a run that the program itself has made."""
    place = Place(folder)
    folder.mkdir(parents=True)
    tiny.gpt2_folder(place.base)
    tiny.data_set(place.data, users=("German",))
    (folder / "secret").write_bytes((place.data / "user0/train.bin").read_bytes())
    for holder in (place.base, place.data):
        (holder / "tokenizer.json").write_text(json.dumps(TOKENISER), encoding="utf-8")
    place.probes.write_text(json.dumps(PROBES), encoding="utf-8")
    place.write_job()
    ended = run([executable, "train", place.job], seconds=300, limited=False)
    if ended.code != 0:
        raise SystemExit(f"the good inputs do not run (exit code {ended.code}):\n{ended.errors}")
    place.output.rename(folder / "run")
    return place
