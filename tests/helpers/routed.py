"""A finished run whose users have unlike experts, texts for it, and `comigs route` on them."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray as xr
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.helpers.built_program import ROOT
from tests.helpers.data_set_reader import made
from tests.helpers.plain_model import PlainModel, Setting, frozen_weights
from tests.helpers.tiny import (
    Done,
    data_set,
    executable,
    gpt2_folder,
    know_tokeniser,
    run,
    train,
)

EXPERTS, CONTEXTS = [4, 2, 1, 1], [12, 12, 10, 16]
RANK, ALPHA, ROUNDS, TOKENS, VOCABULARY = 4, 8.0, 2, 50, 300
TEXT = "Grüße aus 日本, with <|endoftext|> inside 🙂\n\tand naïve 12 + 3 = 15; the the the cat\x01.\n"
OPTIONS = ["--rounds", ROUNDS, "--lora-rank", RANK, "--lora-alpha", ALPHA, "--batch-sequences", 4]
OPTIONS += ["--local-steps", 4, "--router-every", 2, "--router-steps", 4, "--seed", 5]
# Large steps, so that a forgotten factor shows.
OPTIONS += ["--expert-learning-rate", 0.05, "--router-learning-rate", 0.05]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with `base` and `data` that share a byte-level tokeniser of VOCABULARY entries."""
    folder = tmp_path_factory.mktemp("route")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    words = (ROOT / "README.md").read_text(encoding="utf-8")
    tokenizer.train_from_iterator([words, "日本 日本 🙂 🙂 über über"], trainer)
    assert tokenizer.get_vocab_size() == VOCABULARY
    gpt2_folder(folder / "base", vocabulary=VOCABULARY)
    data_set(folder / "data", vocabulary=VOCABULARY)
    for holder in ("base", "data"):
        tokenizer.save(str(folder / holder / "tokenizer.json"))
    know_tokeniser(folder / "data")
    return folder


def trained(place: Path, name: str, method: str, *options: object) -> Path:
    """The folder of a run, made once."""
    output = place / name
    if not output.exists():
        given = ["--data", place / "data", "--model", place / "base", "--output", output]
        train(*given, "--method", method, *OPTIONS, *options)
    return output


@pytest.fixture
def mixed(place, tmp_path) -> Path:
    """A run of its own for each test, in which users have different numbers of experts and contexts."""
    options = ["--experts", ",".join(map(str, EXPERTS)), "--context-tokens", ",".join(map(str, CONTEXTS))]
    shutil.copytree(trained(place, "mixed", "comigs-1gxs", *options), tmp_path / "run")
    return tmp_path / "run"


def route(*arguments: object, code: int = 0) -> Done:
    """Without mpirun."""
    done = run([executable(), "route", *arguments, "--device", "cpu", "--threads", 1])
    assert done.code == code, done.output + done.errors
    return done


def probe(folder: Path, name: str) -> xr.Dataset:
    with xr.open_dataset(folder / "results.h5", group=f"tokens/{name}", engine="h5netcdf") as dataset:
        return dataset.load()


@pytest.fixture
def probes(place, tmp_path) -> Path:
    """What data_prep makes of TEXT."""
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    text = f"out of domain={tmp_path / 'text.txt'}"
    output = tmp_path / "probes.json"
    made("probes", "--tokeniser", place / "data" / "tokenizer.json", "--text", text, "--output", output)
    return output


def stored_parameters(path: Path, round_: int, user: int) -> dict[str, torch.Tensor]:
    """The user's numbers in results.h5, named as in a trace, in float64."""
    found: dict[str, torch.Tensor] = {}

    def add(name: str, item: h5py.Dataset) -> None:
        if not isinstance(item, h5py.Dataset) or item.is_scale:
            return
        layer, *rest = name.replace("layer_", "").split("/")
        key = ".".join(rest).replace("expert_", "expert.")
        key = "router" if key == "weight" else f"{key[:-2]}.{key[-1]}"
        found[f"{layer}.{key}"] = torch.from_numpy(item[()]).double()

    with h5py.File(path) as file:
        for role in ("attention", "expert", "router"):
            group = file.get(f"{role}/weights/{round_}/user_{user}")
            if group is not None:
                group.visititems(add)
    return found


def stored_model(path: Path, base: Path, user: int, *, lora: bool = True) -> PlainModel:
    """The user's model at the last round from the numbers in results.h5; `lora`: or with all B zero."""
    found = stored_parameters(path, ROUNDS, user)
    if not lora:
        found |= {name: 0 * value for name, value in found.items() if name.endswith(".B")}
    return PlainModel(frozen_weights(base), found, Setting(EXPERTS[user], ALPHA / math.sqrt(RANK)))


@torch.no_grad()
def reference_gates(model: PlainModel, ids: Sequence[int], context: int) -> np.ndarray:
    """[token, layer, expert], each token after those before it in its window."""
    rows = []
    for begin in range(0, len(ids), context):
        _, routings = model.logits(torch.tensor([ids[begin : begin + context]]))
        rows.append(torch.stack([routing.gate[0] for routing in routings], 1))
    return torch.cat(rows).numpy()
