"""The runs, and the digests of all that they leave: arrays of results.h5, and blocks of a checkpoint."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
from safetensors.numpy import load_file

from tests.helpers.broken_runs import MEASURED, Running, arguments
from tests.helpers.tiny import GATED, cut_into_examples, data_set, gpt2_folder

USERS = 4
# The checkpoint is that of the second round; the third is there so that somebody can take it.
ROUNDS, CHECKPOINT_ROUND = 3, 2
DIGITS = 12

COMMON = ("--rounds", ROUNDS, "--checkpoint-every", CHECKPOINT_ROUND, "--weights-every", 1, "--seed", 5)
COMMON += ("--router-every", 2, "--router-steps", 2, "--context-tokens", 12, "--lora-alpha", 8)
UNEQUAL = ("--local-steps", "5,4,3,4", "--batch-sequences", "4,3,2,4")
EQUAL = ("--local-steps", 4, "--batch-sequences", 4)
RANK_4, RANKS = ("--lora-rank", 4), ("--lora-rank", "6,4,4,2")
GATE = ("--prompt-tokens", 2, "--gate-width", 6, "--gate-warmup-rounds", 1)
ROUTED = (*UNEQUAL, *RANK_4, "--load-balancing-weight", 0.1)

# Name of the run: its options. Users have unequal resources wherever the method takes them.
RUNS: dict[str, Sequence[object]] = {
    "pretrained": (),
    "centralized": (*EQUAL, *RANK_4),
    "local": (*UNEQUAL, *RANKS),
    "fedavg": (*UNEQUAL, *RANK_4, "--averaging", "tokens"),
    "ffa-lora": (*UNEQUAL, *RANK_4),
    "fedsa-lora": (*UNEQUAL, *RANK_4),
    "hetlora": (*UNEQUAL, *RANKS, "--rank-regulariser", 10),
    "flexlora": (*UNEQUAL, *RANKS),
    "pcl": (*UNEQUAL, *RANK_4, "--rounds", 6),  # it judges in the fifth
    "fdlora": (*UNEQUAL, *RANK_4),
    "local-moe": (*ROUTED,),
    "fedavg-moe": (*ROUTED,),
    "pfedmoe": (*ROUTED,),
    "local-moe-tr": (*ROUTED,),
    "fedavg-moe-tr": (*ROUTED,),
    "comigs-1g1s-tr": (*ROUTED,),
    "comigs-2s": (*ROUTED,),
    "comigs-2g": (*ROUTED,),
    "comigs-1g1s": (*ROUTED,),
    "comigs-1gxs": (*ROUTED, "--experts", "4,3,2,1"),
    "comigs-mgxs": (*ROUTED, "--experts", "4,3,2,2", "--generalists", "0+1"),
    "prompt-local": (*UNEQUAL, "--prompt-tokens", "3,2,4,3"),
    "fedprompt": (*UNEQUAL, "--prompt-tokens", 3),
    "prompt-centralized": (*EQUAL, "--prompt-tokens", 3, "--prompt-layer", 0),
    "mop-equal": (*UNEQUAL, "--prompt-tokens", 3, "--experts", "4,3,2,1"),
    "mop-centralized": (*EQUAL, *GATE, "--experts", 4),
    "mop": (*UNEQUAL, *GATE, "--experts", 4, "--averaging", "examples"),
    "mop-local": (*UNEQUAL, *GATE, "--experts", 4),
    "mop-own-gate": (*UNEQUAL, *GATE, "--experts", 4),
    "mop-1g1s": (*UNEQUAL, *GATE),
    "mop-1gxs": (*UNEQUAL, *GATE, "--experts", "4,3,2,1"),
    "mop-mgxs": (*UNEQUAL, *GATE, "--experts", "4,3,2,2", "--generalists", "0+1"),
    # Other paths through the same code.
    "comigs-1gxs, top-1": (*ROUTED, "--experts", "4,3,2,1", "--top-k", 1),
    "comigs-1g1s, bf16": (*ROUTED, "--precision", "bf16"),
    "comigs-1g1s, parts of a batch": (*ROUTED, "--micro-batch-sequences", 2),
}


UNTRAINED = ("pretrained",)


def method_of(name: str) -> str:
    return name.partition(",")[0]


def digest(values: np.ndarray) -> str:
    """Of an array's type, shape and bits."""
    if values.dtype == object:
        content = "\0".join(str(value) for value in values.ravel()).encode()
    else:
        content = np.ascontiguousarray(values).tobytes()
    head = f"{values.dtype.str} {values.shape}\0".encode()
    return hashlib.sha256(head + content).hexdigest()[:DIGITS]


def of_results(path: Path) -> dict[str, str]:
    """Of every array but times and memory; what a user has trained in a round has one for all its tensors."""
    found: dict[str, str] = {}
    trained: dict[str, list[str]] = {}

    def visit(name: str, item: object) -> None:
        if not isinstance(item, h5py.Dataset) or name.startswith(MEASURED):
            return
        weights = re.match(r"\w+/weights/\d+/user_\d+", name)
        if weights:
            trained.setdefault(weights[0], []).append(f"{name} {digest(item[()])}")
        else:
            found[name] = digest(np.asarray(item[()]))

    with h5py.File(path) as file:
        file.visititems(visit)
    return found | {place: digest(np.array(sorted(of_tensors))) for place, of_tensors in trained.items()}


def of_checkpoint(folder: Path) -> dict[str, str]:
    """Of every user's blocks; what else its file holds are times and the numbers of results.h5."""
    return {
        f"{file.stem}/{name}": digest(values)
        for file in sorted(folder.glob("user_*.safetensors"))
        for name, values in load_file(file).items()
        if name not in ("record", "start")
    }


class Material:
    """A base and a data set, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._base = gpt2_folder(folder / "base")
        self._texts = data_set(folder / "data")
        self._examples = cut_into_examples(data_set(folder / "examples"), 13, mixed=True)

    def digests(self, name: str) -> dict[str, str]:
        output = self._folder / name.replace(" ", "-")
        options = ("--method", method_of(name), *COMMON, *RUNS[name])
        data = self._examples if method_of(name) in GATED else self._texts
        command = arguments("--data", data, "--model", self._base, "--output", output, *options)
        kept = self._folder / f"{output.name}-checkpoint"
        with Running(*command, ranks=USERS) as run:
            while not run.is_over():
                _keep(output / "checkpoints", kept)
                time.sleep(0.002)
            done = run.end()
        if done.code != 0:
            raise SystemExit(f"{name}: exit code {done.code}\n{done.errors}")
        if not kept.exists() and name not in UNTRAINED:
            raise SystemExit(f"{name}: its checkpoint of round {CHECKPOINT_ROUND} was not met")
        return of_results(output / "results.h5") | of_checkpoint(kept)


def _keep(checkpoints: Path, kept: Path) -> None:
    """Second names for the files of the checkpoint, which goes when the run is done."""
    manifest = checkpoints / "000001" / "manifest.json"
    if kept.exists() or not manifest.exists():
        return
    partial = kept.with_suffix(".partial")
    partial.mkdir(exist_ok=True)
    with contextlib.suppress(FileNotFoundError):  # it goes just now
        for file in manifest.parent.glob("user_*.safetensors"):
            os.link(file, partial / file.name)
        partial.rename(kept)


def made(
    names: Sequence[str] = tuple(RUNS), tell: Callable[[str], None] = lambda _: None
) -> dict[str, dict[str, str]]:
    """The digests of the runs, by their names."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="comigs-golden-") as folder:
        material = Material(Path(folder))
        for name in names:
            tell(name)
            found[name] = material.digests(name)
    return found
