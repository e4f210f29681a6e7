"""`comigs pretrain`: the same weights on any number of ranks, a folder that transformers reads."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import TOKENISER, VOCABULARY, Done, alone, comigs
from transformers import AutoModelForCausalLM

CONTEXT, WIDTH, STEPS = 14, 32, 6
# Five sequences: two ranks get unequal shares.
OPTIONS = ["--layers", 2, "--width", WIDTH, "--heads", 2, "--context-tokens", CONTEXT, "--batch-sequences", 5]
OPTIONS += ["--steps", STEPS, "--learning-rate", 1e-2, "--evaluate-every", 4, "--seed", 7]
OPTIONS += ["--device", "cpu", "--threads", 1]


def pretrain(data: Path, output: Path, *options: object, ranks: int = 1) -> Done:
    words = ("pretrain", "--data", data, "--output", output, *OPTIONS, *options)
    return alone(*words) if ranks == 1 else comigs(*words, ranks=ranks)


@pytest.fixture(scope="module")
def made(tiny_data, tmp_path_factory) -> dict[int, tuple[Path, Done]]:
    """The folder and what was printed, by the number of ranks."""
    folders = {ranks: tmp_path_factory.mktemp("bases") / f"of {ranks}" for ranks in (1, 2)}
    runs = {ranks: (folder, pretrain(tiny_data, folder, ranks=ranks)) for ranks, folder in folders.items()}
    for _, done in runs.values():
        assert done.code == 0, done.errors
    return runs


def printed_perplexity(done: Done) -> float:
    """That after the last step."""
    found = re.findall(
        r"^step +(\d+) +loss +[\d.]+ +validation perplexity +([\d.]+)", done.output, re.MULTILINE
    )
    assert [int(step) for step, _ in found] == [4, STEPS]
    return float(found[-1][1])


def test_ranks_change_rounding_only(made):
    one, two = (load_file(made[ranks][0] / "model.safetensors") for ranks in (1, 2))
    assert one.keys() == two.keys() and len(one) == 28
    for weights in (one, two):
        # A key's bias moves no attention weight: its gradient is rounding, which AdamW makes full steps of.
        for layer in (0, 1):
            weights[f"transformer.h.{layer}.attn.c_attn.bias"][WIDTH : 2 * WIDTH] = 0
    worst = max(((two[name] - one[name]).norm() / one[name].norm()).item() for name in one)
    print(f"largest relative difference of a weight {worst:.1e}")
    assert worst <= 1e-4
    assert printed_perplexity(made[2][1]) == pytest.approx(printed_perplexity(made[1][1]), rel=1e-3)


def test_training_changed_every_weight(made, tiny_data, tmp_path):
    options = [0 if option == STEPS else option for option in OPTIONS]
    done = alone("pretrain", "--data", tiny_data, "--output", tmp_path / "start", *options)
    assert done.code == 0, done.errors
    start, end = load_file(tmp_path / "start/model.safetensors"), load_file(made[1][0] / "model.safetensors")
    for name, value in start.items():
        assert ((end[name] - value).norm() > 1e-3 * end[name].norm()).item(), name


@torch.no_grad()
def test_transformers_reads_the_folder_and_finds_the_printed_perplexity(made, tiny_data):
    folder, done = made[1]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert model.config.vocab_size == VOCABULARY and model.config.n_positions == CONTEXT
    tokens = torch.from_numpy(np.fromfile(tiny_data / "base/validation.bin", dtype="<u2").astype(np.int64))
    nats = 0.0
    for position in range(1, len(tokens)):
        begin = (position - 1) // CONTEXT * CONTEXT
        logits = model(tokens[begin:position].unsqueeze(0)).logits[0, -1].double()
        nats -= logits.log_softmax(-1)[tokens[position]].item()
    expected = math.exp(nats / (len(tokens) - 1))
    assert printed_perplexity(done) == pytest.approx(expected, abs=0.006)
    assert expected < VOCABULARY  # it has learnt something


def test_tokeniser_lies_beside_the_weights(made):
    names = {"config.json", "model.safetensors", "tokenizer.json", "comigs_pretrain.txt"}
    for folder, _ in made.values():
        assert (folder / "tokenizer.json").read_text(encoding="utf-8") == TOKENISER
        assert {entry.name for entry in folder.iterdir()} == names


@pytest.mark.parametrize("ranks", [1, 2])
def test_second_call_does_nothing(made, tiny_data, ranks):
    folder, _ = made[1]
    before = {entry: entry.stat().st_mtime_ns for entry in folder.iterdir()}
    done = pretrain(tiny_data, folder, ranks=ranks)
    assert (
        done.code == 0
        and done.output.strip() == f"{folder}: there already, made by the same options from the same data"
    )
    assert {entry: entry.stat().st_mtime_ns for entry in folder.iterdir()} == before


@pytest.mark.parametrize("ranks", [1, 2])
def test_other_options_do_not_overwrite(made, tiny_data, ranks):
    folder, _ = made[1]
    before = {entry: entry.stat().st_mtime_ns for entry in folder.iterdir()}
    done = pretrain(tiny_data, folder, "--weight-decay", 0.3, ranks=ranks)
    assert done.code == 2 and done.output == ""
    assert (
        done.errors.count("\n") == 1
        and str(folder) in done.errors
        and "remove it or name another" in done.errors
    )
    assert {entry: entry.stat().st_mtime_ns for entry in folder.iterdir()} == before


def test_weights_that_are_not_the_recorded_ones_are_no_model_of_this_call(made, tiny_data, tmp_path):
    """A record beside the weights of another call must not speak for them."""
    folder = shutil.copytree(made[1][0], tmp_path / "base")
    weights = folder / "model.safetensors"
    other = bytearray(weights.read_bytes())
    other[-1] ^= 0x40
    weights.write_bytes(other)
    done = pretrain(tiny_data, folder)
    assert done.code == 2 and "remove it or name another" in done.errors
    assert weights.read_bytes() == other


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "comigs_pretrain.txt"])
def test_files_of_others_are_not_overwritten(tiny_data, tmp_path, name):
    (tmp_path / name).write_text("precious")
    done = pretrain(tiny_data, tmp_path)
    assert done.code == 2 and done.errors.count("\n") == 1 and name in done.errors, done.errors
    assert {entry.name for entry in tmp_path.iterdir()} == {name}
    assert (tmp_path / name).read_text() == "precious"


@pytest.mark.parametrize(
    ("ranks", "spoilt", "words"),
    [
        (1, {"--stepz": 5}, "did you mean '--steps'?"),
        (2, {"--stepz": 5}, "did you mean '--steps'?"),
        (2, {"--data": "absent"}, "absent: no such data-set folder"),
        (1, {"--width": 33}, "expected a multiple of heads, which is 2"),
        (2, {"--context-tokens": 600}, "600 tokens, expected at least 601 (context_tokens = 600)"),
    ],
)
def test_bad_options(tiny_data, tmp_path, ranks, spoilt, words):
    given = (
        dict(zip(OPTIONS[::2], OPTIONS[1::2])) | {"--data": tiny_data, "--output": tmp_path / "base"} | spoilt
    )
    arguments = ("pretrain", *(word for option in given.items() for word in option))
    done = alone(*arguments) if ranks == 1 else comigs(*arguments, ranks=ranks)
    assert done.code == 2 and done.output == ""
    assert done.errors.count("\n") == 1 and words in done.errors, done.errors
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize("steps", [1, 3])
def test_two_ranks_leave_when_numbers_are_not_finite(tiny_data, tmp_path, steps):
    """Also when only the last step spoilt the weights: a base that predicts nothing is not written."""
    options = [{STEPS: steps, 1e-2: 1e30}.get(option, option) for option in OPTIONS]
    done = comigs("pretrain", "--data", tiny_data, "--output", tmp_path / "base", *options, ranks=2)
    assert done.code == 1, done.output
    assert done.errors.count("\n") == 1 and "not finite" in done.errors and "--learning-rate" in done.errors
    assert "MPI_ABORT" not in done.epilogue
    # The folder was claimed before the work; what says that there is a model is not in it.
    assert {entry.name for entry in (tmp_path / "base").iterdir()} == {"comigs_pretrain.txt"}
