"""`comigs train` and `comigs prune` on a GPU; skipped where there is none, which COMIGS_REQUIRE_GPU=1 makes a failure."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.helpers.llamas import llama_folder
from tests.helpers.tiny import Done, alone, comigs

CARD = "cuda"
OPTIONS = ("--rounds", 2, "--local-steps", 4, "--seed", 5, "--batch-sequences", 4, "--context-tokens", 12)
EXPERTS = (*OPTIONS, "--method", "comigs-1g1s", "--lora-rank", 4, "--router-every", 2, "--router-steps", 3)
# A group for each of four categories, in front of the second block's attention; the first round is the gate's warm-up.
PROMPTS = (*OPTIONS, "--method", "mop", "--experts", 4, "--prompt-tokens", 2, "--prompt-layer", 1)
PROMPTS += ("--gate-width", 8, "--gate-warmup-rounds", 1)
# What is pruned in one way only, whatever the last bits.
AGREEMENT = {"block 0": 0.999, "all": 0.95}


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def base(request, tiny_base, tmp_path_factory) -> Path:
    """Of either family; not to be written to."""
    if request.param == "gpt2":
        return tiny_base
    return llama_folder(tmp_path_factory.mktemp("base") / "llama", "llama", intermediate_size=48)


def done_on_a_card(done: Done) -> None:
    if done.code == 2 and "--device cuda" in done.errors:
        reason = next(line for line in done.errors.splitlines() if "--device cuda" in line)
        (pytest.fail if os.environ.get("COMIGS_REQUIRE_GPU") == "1" else pytest.skip)(reason)
    assert done.code == 0, done.output + done.errors
    assert "CUDA graphs" not in done.errors


def trained(output: Path, device: str, *options: object) -> dict[str, np.ndarray]:
    """What is measured in each round."""
    done_on_a_card(comigs("train", "--output", output, *options, "--device", device, ranks=4))
    with h5py.File(output / "results.h5") as results:
        names = ("perplexity/test", "perplexity/validation", "category/perplexity_test", "prompt/weight")
        return {name: results[name][:] for name in names if name in results}


def check_alike(trained_on: Callable[[str, str], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Twice the same on a card, and what the CPU computes."""
    there, again, here = trained_on("a", CARD), trained_on("b", CARD), trained_on("c", "cpu")
    for name, expected in here.items():
        np.testing.assert_array_equal(there[name], again[name])
        np.testing.assert_allclose(there[name], expected, rtol=1e-3, atol=1e-5)
    return there


def test_ranks_of_a_gpu_compute_what_the_cpu_computes(tiny_base, tiny_data, tmp_path):
    given = ("--data", tiny_data, "--model", tiny_base, *EXPERTS)
    check_alike(lambda name, device: trained(tmp_path / name, device, *given))


def test_prompts_and_their_gate_on_a_gpu_are_those_of_the_cpu(base, tiny_examples, tmp_path):
    given = ("--data", tiny_examples, "--model", base, *PROMPTS)
    found = check_alike(lambda name, device: trained(tmp_path / name, device, *given))
    assert {"prompt/weight", "category/perplexity_test"} <= found.keys()


def pruned(output: Path, device: str, *options: object) -> dict[str, np.ndarray]:
    done_on_a_card(alone("prune", "--output", output, *options, "--device", device))
    return load_file(output / "model.safetensors")


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_a_base_that_a_gpu_prunes_is_the_cpu_s(method, base, tiny_data, tmp_path):
    given = ("--model", base, "--data", tiny_data, "--method", method, "--pattern", "zeros=2,of=4")
    given += ("--calibration-sequences", 40, "--context-tokens", 12)
    there, again, here = (
        pruned(tmp_path / name, device, *given) for name, device in (("a", CARD), ("b", CARD), ("c", "cpu"))
    )
    records = [json.loads((tmp_path / name / "comigs-pruning.json").read_text()) for name in ("a", "c")]
    assert records[0] | {"weights_digest": ""} == records[1] | {"weights_digest": ""}
    maps = [name for name in here if any(name.endswith(matrix) for matrix in records[0]["zeros_by_matrix"])]
    for name, expected in here.items():
        np.testing.assert_array_equal(there[name], again[name])
        if name not in maps:
            np.testing.assert_array_equal(there[name], expected)
            continue
        alike = (there[name] == 0) == (expected == 0)
        first = ".h.0." in name or ".layers.0." in name
        assert alike.mean() >= AGREEMENT["block 0" if first else "all"], name
        if first:  # one other zero changes what follows it in its row
            rows = alike.all(axis=0 if ".h." in name else 1)
            worst = np.abs(there[name] - expected).compress(rows, axis=1 if ".h." in name else 0).max()
            assert worst <= 1e-3 * np.abs(expected).max(), name
