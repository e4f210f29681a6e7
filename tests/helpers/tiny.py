"""Tiny base models, data sets and runs: what the tests of the whole program need, in a second or two each."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from tests.helpers.built_program import ROOT, built_program

VOCABULARY, POSITIONS, LAYERS, WIDTH = 97, 16, 2, 32
USERS = ("German", "Français", "日本語", "Dutch")
TOKENISER = '{"version": "1.0", "made": "for tests", "model": {"vocab": {"a": 0}}}\n'

# Several ranks on any machine, also as root in a container; one thread a rank keeps bits and times steady.
MPI_ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "OMP_NUM_THREADS": "1",
}


# mpirun frames what it says about a rank's exit code in lines of dashes.
FRAMED = re.compile(r"^-{60,}\n.*?^-{60,}\n", re.MULTILINE | re.DOTALL)

# Base models ------------------------------------------------------------------------------------------------


def gpt2(
    layers: int = LAYERS,
    width: int = WIDTH,
    heads: int = 2,
    vocabulary: int = VOCABULARY,
    positions: int = POSITIONS,
    seed: int = 0,
) -> GPT2LMHeadModel:
    """A GPT-2 in which every weight is random, biases and norms too, so that none can be forgotten unseen."""
    config = GPT2Config(
        n_layer=layers,
        n_embd=width,
        n_head=heads,
        vocab_size=vocabulary,
        n_positions=positions,
        bos_token_id=0,
        eos_token_id=0,
    )
    config.resid_pdrop = config.embd_pdrop = config.attn_pdrop = 0.0
    model = GPT2LMHeadModel(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(
                1 + 0.2 * noise
                if name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight"))
                else 0.2 * noise
            )
    return model


def gpt2_folder(folder: Path, **sizes: int) -> Path:
    gpt2(**sizes).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(TOKENISER, encoding="utf-8")
    return folder


# Data sets --------------------------------------------------------------------------------------------------


def text(count: int, language: int, draw: int, vocabulary: int = VOCABULARY) -> np.ndarray:
    """Tokens that can be learnt: in a `language` each has a favourite successor; `draw` is the document."""
    follow = np.random.default_rng(language).permutation(vocabulary)
    random = np.random.default_rng((language, draw))
    tokens = random.integers(0, vocabulary, size=count)
    for i in np.flatnonzero(random.random(count - 1) < 0.7):
        tokens[i + 1] = follow[tokens[i]]
    return tokens.astype(np.uint16)


def _write_split(folder: Path, file: str, tokens: np.ndarray) -> dict[str, object]:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tokens.astype("<u2").tobytes())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"file": file, "tokens": len(tokens), "documents": 1, "sha256": digest}


def data_set(
    folder: Path,
    users: Sequence[str] = USERS,
    lengths: Mapping[str, int] | None = None,
    vocabulary: int = VOCABULARY,
) -> Path:
    """A data-set folder in the manifest's format; user i's splits are a few tokens longer than i-1's."""
    lengths = {"train": 400, "validation": 150, "test": 120} | dict(lengths or {})
    entries = []
    for i, name in enumerate(users):
        splits = {}
        for s, (split, count) in enumerate(lengths.items()):
            tokens = text(count + 7 * i, i, s, vocabulary)
            splits[split] = _write_split(folder, f"user{i}/{split}.bin", tokens)
        entries.append({"name": name, "splits": splits})
    base = {
        split: _write_split(folder, f"base/{split}.bin", text(count, 1000, count, vocabulary))
        for split, count in (("train", 600), ("validation", 200))
    }
    manifest = {
        "format": "comigs-dataset",
        "format_version": 1,
        "name": "tiny",
        "seed": 0,
        "tokeniser": {
            "kind": "byte-level-bpe",
            "file": "tokenizer.json",
            "vocabulary": vocabulary,
            "end_of_text": 0,
            "sha256": hashlib.sha256(TOKENISER.encode()).hexdigest(),
        },
        "dtype": "uint16",
        "users": entries,
        "base": {"splits": base},
        "sources": [],
        "splits": {"rule": "random tokens"},
    }
    (folder / "tokenizer.json").write_text(TOKENISER, encoding="utf-8")
    (folder / "manifest.json").write_text(json.dumps(manifest, ensure_ascii=False), encoding="utf-8")
    return folder


def know_tokeniser(folder: Path) -> None:
    """The manifest gets the digest of the tokeniser that lies in the data set's folder now."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    file = folder / manifest["tokeniser"]["file"]
    manifest["tokeniser"]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest, ensure_ascii=False), encoding="utf-8")


def signed(checkpoint_manifest: Mapping[str, object]) -> str:
    """A checkpoint's manifest as text, with the digest of what it says: SHA-256 of all other entries, sorted."""
    content = {name: value for name, value in checkpoint_manifest.items() if name != "sha256"}

    def text() -> str:
        return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    content["sha256"] = hashlib.sha256(text().encode()).hexdigest()
    return text()


def cut_into_examples(folder: Path, longest: int, mixed: bool = False) -> Path:
    """The texts of a data set's users as examples of 2 to `longest` tokens; a user's category is its number, or,
    where they are mixed, any user has examples of all."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    random = np.random.default_rng(longest)
    for number, user in enumerate(manifest["users"]):
        for split, entry in user["splits"].items():
            rows, begin = [], 0
            while begin < entry["tokens"]:
                left = entry["tokens"] - begin
                length = left if left <= longest else int(random.integers(2, min(longest, left - 2) + 1))
                instruction = int(random.integers(1, length))
                category = len(rows) % len(manifest["users"]) if mixed else number
                rows.append((begin, instruction, length - instruction, category))
                begin += length
            index = np.array(rows, dtype="<i8")
            file = f"user{number}/{split}.examples.bin"
            (folder / file).write_bytes(index.tobytes())
            entry["examples"] = {
                "file": file,
                "count": len(rows),
                "longest": int((index[:, 1] + index[:, 2]).max()),
                "sha256": hashlib.sha256(index.tobytes()).hexdigest(),
            }
    categories = [user["name"] for user in manifest["users"]]
    manifest |= {"format_version": 2, "reading": "examples", "categories": categories}
    (folder / "manifest.json").write_text(json.dumps(manifest, ensure_ascii=False), encoding="utf-8")
    return folder


def examples_of(folder: Path, user: int, split: str) -> list[tuple[list[int], list[int]]]:
    """Instruction and response of each example, read with nothing of comigs."""
    tokens = tokens_of(folder, user, split).tolist()
    index = np.fromfile(folder / f"user{user}/{split}.examples.bin", dtype="<i8").reshape(-1, 4)
    return [(tokens[b : b + n], tokens[b + n : b + n + r]) for b, n, r, _ in index.tolist()]


def tokens_of(folder: Path, user: int, split: str) -> np.ndarray:
    return np.fromfile(folder / f"user{user}/{split}.bin", dtype="<u2").astype(np.int64)


# Runs -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Done:
    """A program that has ended. `errors` has what it wrote itself, without mpirun's framed `epilogue`."""

    code: int
    output: str
    errors: str
    epilogue: str


def executable() -> str:
    named = os.environ.get("COMIGS_EXECUTABLE")
    program = Path(named) if named else ROOT / "build" / "dev" / "comigs"
    if not program.exists():
        if named:
            pytest.fail(f"COMIGS_EXECUTABLE names '{named}', which is not there")
        pytest.skip(f"{program} is not built (set COMIGS_EXECUTABLE to another one)")
    return str(program.resolve())


def run(command: Sequence[object], seconds: float = 120) -> Done:
    """Runs a command to its end; one that hangs is killed with all its ranks and fails the test."""
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | MPI_ENVIRONMENT,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)  # mpirun ends its ranks, which have sessions of their own
        output, errors = process.communicate(timeout=30)
        pytest.fail(f"hangs: {' '.join(map(str, command))}\n{output}\n{errors}")
    return Done(process.returncode, output, FRAMED.sub("", errors), "".join(FRAMED.findall(errors)))


def comigs(*arguments: object, ranks: int = 1, seconds: float = 120) -> Done:
    return run(["mpirun", "-n", ranks, executable(), *arguments], seconds)


def alone(*arguments: object, seconds: float = 120) -> Done:
    """One rank without mpirun, which takes two seconds longer to pass on that a rank has failed."""
    return run([executable(), *arguments], seconds)


def train(*arguments: object, ranks: int = 4, code: int = 0) -> Done:
    done = comigs("train", *arguments, "--device", "cpu", "--threads", 1, ranks=ranks)
    assert done.code == code, done.output + done.errors
    return done


# The run of four users that tests of the whole program share; `run_of` in conftest.py makes each once.
RUN = {"--rounds": 2, "--local-steps": 3, "--router-every": 2, "--router-steps": 2, "--seed": 5}
RUN |= {"--batch-sequences": 4, "--context-tokens": 12, "--lora-rank": 4, "--lora-alpha": 8}
RUN |= {"--train-evaluation-tokens": 0}
# One step, where a run only has to be one.
ONE_STEP = (
    "--rounds",
    1,
    "--local-steps",
    1,
    "--batch-sequences",
    2,
    "--context-tokens",
    12,
    "--lora-rank",
    2,
)
# Without weight decay nothing but a gradient moves a number.
PLAIN = ("--weights-every", 1, "--weight-decay", 0)
# Of the methods that leave these to the user.
CHOICES = {"comigs-1gxs": ("--experts", 3), "comigs-mgxs": ("--experts", 3, "--generalists", "0+1")}
# Of the base's 16 positions 12 are the text's.
CHOICES |= dict.fromkeys(
    ("prompt-local", "fedprompt", "prompt-centralized", "mop-equal"), ("--prompt-tokens", 2)
)
# Those with a gate need examples, of four categories.
GATED = ("mop-centralized", "mop", "mop-local", "mop-own-gate", "mop-1g1s", "mop-1gxs", "mop-mgxs")
CHOICES |= dict.fromkeys(
    GATED, ("--prompt-tokens", 2, "--gate-width", 8, "--experts", 4, "--gate-warmup-rounds", 1)
)
CHOICES["mop-1g1s"] = ("--prompt-tokens", 2, "--gate-width", 8)
CHOICES["mop-1gxs"] = (*CHOICES["mop-1g1s"], "--experts", 3)
CHOICES["mop-mgxs"] = (*CHOICES["mop-1gxs"], "--generalists", "0+1")


def run_options(*options: object) -> list[object]:
    """The options, and those of RUN that are not among them."""
    rest = (word for name, value in RUN.items() if name not in options for word in (name, value))
    return [*options, *rest]


# What comigs computes on the way ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Trace:
    """Every local step of one user; see tests/reference/trace.cpp."""

    tensors: dict[str, torch.Tensor]
    places: dict[str, tuple[int, int, int]]  # name of a parameter: offset, rows, columns

    def unpack(self, block: torch.Tensor) -> dict[str, torch.Tensor]:
        return {
            name: block[offset : offset + rows * columns].view(rows, columns)
            for name, (offset, rows, columns) in self.places.items()
        }


def traced_logits(folder: Path, ids: torch.Tensor, precision: str = "float32") -> torch.Tensor:
    """comigs' logits [*ids.shape, V] of the model in the folder."""
    save_file({"tokens": ids}, folder / "tokens.safetensors")
    out = folder / "logits.safetensors"
    trace = built_program("reference_trace")
    done = run([trace, "logits", folder, folder / "tokens.safetensors", out, precision])
    assert done.code == 0, done.errors
    return load_file(out)["logits"].view(*ids.shape, -1)


def trace_steps(
    file: Path,
    options: Sequence[object],
    users: int = 1,
    user: int = 0,
    deviation: float = 0.05,
    activations: str = "float32",
) -> Trace:
    trace = [built_program("reference_trace"), "steps", file, users, user, deviation, activations]
    done = run([*trace, *options])
    assert done.code == 0, done.errors
    with safe_open(file, "pt") as opened:
        places = {name: tuple(map(int, place.split())) for name, place in opened.metadata().items()}
        return Trace({name: opened.get_tensor(name) for name in opened.keys()}, places)
