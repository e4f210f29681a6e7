"""The good inputs that are broken afterwards: a tiny base, a data set of one user, a job, a finished run."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.helpers import tiny

from .trial import run, start

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


# Long enough to be stopped in its second round.
RESUMING = {"rounds": 2, "local_steps": 60}


@dataclass(frozen=True)
class Place:
    """A folder with a whole set of inputs."""

    folder: Path
    origin: Path | None = None  # of which this is a copy

    @property
    def origin_or_self(self) -> Place:
        return Place(self.origin or self.folder)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def pruned(self) -> Path:
        """The base with half of its weights zero, by Wanda, and the record of that."""
        return self.folder / "pruned"

    @property
    def adapter(self) -> Path:
        """One of PEFT, for the base."""
        return self.folder / "adapter"

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

    @property
    def stopped(self) -> Path:
        """The output folder of a run that was interrupted and left a checkpoint."""
        return self.folder / "stopped"

    def pruning(self) -> list[object]:
        """By which options of `comigs prune`."""
        text = ("--data", self.data, "--calibration-sequences", 4, "--context-tokens", 12)
        how = ("--model", self.base, "--method", "wanda", "--pattern", "zeros=2,of=4")
        return [*how, *text, "--device", "cpu", "--threads", 1]

    def write_job(self) -> str:
        text = JOB.format(place=self.folder)
        self.job.write_text(text, encoding="utf-8")
        (self.folder / "other.ini").write_text("[job]\ninherit = job.ini\n", encoding="utf-8")
        return text

    def write_adapter_job(self) -> None:
        """The job, begun as the adapter."""
        text = JOB.format(place=self.folder).replace("[model]", f"[model]\ninit_adapter = {self.adapter}")
        self.job.write_text(text, encoding="utf-8")

    def write_resuming_job(self) -> None:
        """The job that was stopped. Its data and base are where they were then: that is part of what must agree."""
        inputs = self.origin_or_self
        text = JOB.format(place=inputs.folder).replace(f"{inputs.output}", str(self.stopped))
        for name, value in RESUMING.items():
            text = re.sub(rf"(?m)^{name} = .*$", f"{name} = {value}", text)
        self.job.write_text(
            text.replace("[run]", "[run]\nresume = auto\ncheckpoint_every = 1"), encoding="utf-8"
        )

    def promise(self, shard: Path) -> None:
        """Makes the manifest promise what the token file, or an index of examples, now holds."""
        content = json.loads(self.manifest.read_text(encoding="utf-8"))
        for holder in (*content["users"], content["base"]):
            for split in holder["splits"].values():
                if self.data / split["file"] == shard:
                    data = shard.read_bytes()
                    split |= {"sha256": hashlib.sha256(data).hexdigest(), "tokens": len(data) // 2}
                elif "examples" in split and self.data / split["examples"]["file"] == shard:
                    data = shard.read_bytes()
                    split["examples"] |= {
                        "sha256": hashlib.sha256(data).hexdigest(),
                        "count": len(data) // 32,
                    }
        self.manifest.write_text(json.dumps(content), encoding="utf-8")

    def shard_base(self) -> Path:
        """Puts the base's weights into two files; returns their index."""
        whole = self.base / "model.safetensors"
        weights = load_file(whole)
        whole.unlink()
        shards = {
            name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(sorted(weights))
        }
        for shard in set(shards.values()):
            save_file({name: weights[name] for name in weights if shards[name] == shard}, self.base / shard)
        index = self.base / "model.safetensors.index.json"
        index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": shards}), encoding="utf-8")
        return index

    def copy(self, folder: Path) -> Place:
        shutil.copytree(self.folder, folder, symlinks=True)
        place = Place(folder, self.folder)
        place.write_job()
        return place


def _write_adapter(folder: Path) -> None:
    """Beside two projections of the first layer of the tiny GPT-2."""
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_dora": False, "modules_to_save": None}
    config |= {"bias": "none", "rank_pattern": {"c_attn": 1}, "alpha_pattern": {r".*\.mlp\.c_[a-z]+": 3}}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    draw, width = np.random.default_rng(0), tiny.WIDTH
    tensors = {}
    for module, rank, out in (("attn.c_attn", 1, 3 * width), ("mlp.c_fc", 2, 4 * width)):
        place = f"base_model.model.transformer.h.0.{module}"
        tensors[f"{place}.lora_A.weight"] = draw.normal(size=(rank, width)).astype(np.float32)
        tensors[f"{place}.lora_B.weight"] = draw.normal(size=(out, rank)).astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")


def make(folder: Path, executable: Path) -> Place:
    """Everything, with a run that the program itself has made."""
    place = Place(folder)
    folder.mkdir(parents=True)
    tiny.gpt2_folder(place.base)
    _write_adapter(place.adapter)
    tiny.data_set(place.data, users=("German",))
    (folder / "secret").write_bytes((place.data / "user0/train.bin").read_bytes())
    for holder in (place.base, place.data):
        (holder / "tokenizer.json").write_text(json.dumps(TOKENISER), encoding="utf-8")
    tiny.know_tokeniser(place.data)
    place.probes.write_text(json.dumps(PROBES), encoding="utf-8")
    place.write_job()
    _run(["train", place.job], folder, executable)
    place.output.rename(folder / "run")
    place.write_resuming_job()
    _stop(place, executable)
    place.write_job()
    _run(["prune", "--output", place.pruned, *place.pruning()], folder, executable)
    return place


def _run(words: Sequence[object], folder: Path, executable: Path) -> None:
    ended = run([executable, *words], folder, seconds=300, limited=False)
    if ended.code != 0:
        raise SystemExit(f"the good inputs do not run (exit code {ended.code}):\n{ended.errors}")


def _stop(place: Place, executable: Path) -> None:
    """Runs the job until it has written a checkpoint, and asks it to stop."""
    manifest = place.stopped / "checkpoints" / "000001" / "manifest.json"
    until = time.monotonic() + 300
    with tempfile.TemporaryFile() as errors:
        process = start([executable, "train", place.job], place.folder, False, errors)
        while process.poll() is None and not manifest.exists() and time.monotonic() < until:
            time.sleep(0.01)
        process.terminate()
        code = process.wait(timeout=300)
        errors.seek(0)
        if code != 3 or not manifest.exists():
            raise SystemExit(f"no run was interrupted (exit code {code}):\n{errors.read().decode()}")
