"""`comigs prune` against transformers, safetensors with numpy, and the algorithms in plain PyTorch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.helpers.built_program import run_program
from tests.helpers.finished import asked
from tests.helpers.llamas import llama_folder
from tests.helpers.plain_pruning import BLOCK, PATTERNS, Sparsity, hessian_of, magnitude, sparsegpt, wanda
from tests.helpers.tiny import USERS, alone, gpt2_folder

SEQUENCES, CONTEXT = 40, 12
METHODS = ("magnitude", "wanda", "sparsegpt")
CALIBRATION = ("--calibration-sequences", SEQUENCES, "--context-tokens", CONTEXT, "--seed", 3)
SIZES: dict[str, dict[str, int]] = {
    "gpt2": {},
    # Inputs that 8 divides, and more than one block of 128 among them.
    "llama": {"intermediate_size": 136},
    "mistral": {"intermediate_size": 48},
    "qwen2": {"intermediate_size": 48},
    "qwen3": {"intermediate_size": 48},
}


def base_of(folder: Path, family: str) -> Path:
    return gpt2_folder(folder) if family == "gpt2" else llama_folder(folder, family, **SIZES[family])


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("bases")
    return {family: base_of(place / family, family) for family in SIZES}


def prune(base: Path, data: Path, output: Path, method: str, sparsity: Sparsity) -> Path:
    given = () if method == "magnitude" else ("--data", data, *CALIBRATION)
    words = ("--model", base, "--output", output, "--method", method, *sparsity.options, *given)
    done = alone("prune", *words, "--device", "cpu", "--threads", 1)
    assert done.code == 0 and not done.errors, done.errors
    return output


Pruned = Callable[[str, str, Sparsity], Path]


@pytest.fixture(scope="module")
def pruned(bases, tiny_data, tmp_path_factory) -> Pruned:
    """Family, method, sparsity -> folder, each made once; not to be written to."""
    place, made = tmp_path_factory.mktemp("pruned"), {}

    def folder(family: str, method: str, sparsity: Sparsity) -> Path:
        key = (family, method, sparsity)
        if key not in made:
            made[key] = prune(
                bases[family], tiny_data, place / f"{family} {method} {sparsity}", method, sparsity
            )
        return made[key]

    return folder


def calibration(data: Path, folder: Path) -> Tensor:
    """The text [sequences, T] that all of these tests are calibrated on."""
    options = ("--model", "-", "--output", "-", "--data", data, "--sparsity", 0.5, *CALIBRATION)
    run_program("reference_trace", "calibration", folder / "text.safetensors", *options)
    return load_file(folder / "text.safetensors")["tokens"]


def map_names(weights: dict[str, Tensor]) -> list[str]:
    """The linear maps inside blocks."""
    return [
        name
        for name, weight in weights.items()
        if weight.dim() == 2 and (".h." in name or ".layers." in name)
    ]


def by_output(name: str, weight: Tensor) -> Tensor:
    """[out, in]; GPT-2's lie the other way round."""
    return weight.T if ".h." in name else weight


def counts(zero: Tensor, method: str, sparsity: Sparsity) -> tuple[list[int], list[int]]:
    """How many zeros there are in the parts of a matrix, and how many there should be."""
    outputs, inputs = zero.shape
    if sparsity.of:
        parts: Sequence[Tensor] = zero.reshape(-1, sparsity.of).unbind()
        return [int(part.sum()) for part in parts], [sparsity.zeros] * len(parts)
    if method == "magnitude":
        parts = [zero]
    else:
        parts = zero.unbind() if method == "wanda" else zero.split(BLOCK, dim=1)
    return [int(part.sum()) for part in parts], [sparsity.count(part.numel()) for part in parts]


@pytest.mark.parametrize("family", SIZES)
@pytest.mark.parametrize("method", METHODS)
def test_zeros_are_exact_and_all_else_keeps_its_bits(family, method, bases, pruned):
    """Checks 17 and 18. Every pattern with the families of both layouts, two with the others."""
    dense = load_file(bases[family] / "model.safetensors")
    for sparsity in PATTERNS if family in ("gpt2", "llama") else (PATTERNS[0], PATTERNS[3]):
        folder = pruned(family, method, sparsity)
        weights = load_file(folder / "model.safetensors")
        assert weights.keys() == dense.keys()
        maps = map_names(dense)
        assert len(maps) == 2 * (4 if family == "gpt2" else 7)
        for name, weight in weights.items():
            if name not in maps:
                assert weight.dtype == dense[name].dtype and torch.equal(weight, dense[name]), name
                continue
            found, expected = counts(by_output(name, weight) == 0, method, sparsity)
            assert found == expected, (name, sparsity)
            if method != "sparsegpt":
                assert torch.equal(weight, torch.where(weight == 0, 0, dense[name])), name
        record = json.loads((folder / "comigs-pruning.json").read_text())
        prefix = "transformer." if family == "gpt2" else "model."
        zeros = {prefix + name: count for name, count in record["zeros_by_matrix"].items()}
        assert zeros == {name: int((weights[name] == 0).sum()) for name in maps}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_pruning_twice_changes_nothing(family, method, pruned, tiny_data, tmp_path):
    """Check 18. Wanda's second calibration sees other inputs of later layers, but none of its zeros can grow."""
    for sparsity in (PATTERNS[0], PATTERNS[3]):
        once = pruned(family, method, sparsity)
        twice = prune(once, tiny_data, tmp_path / f"twice {sparsity}", method, sparsity)
        one, two = (load_file(folder / "model.safetensors") for folder in (once, twice))
        assert all(torch.equal(one[name], two[name]) for name in one)


def inputs_of_maps(model: PreTrainedModel, tokens: Tensor, layer: int) -> dict[str, Tensor]:
    """By hooks: X [n, in] of each linear map of a block."""
    found: dict[str, Tensor] = {}
    inner = model.transformer.h if hasattr(model, "transformer") else model.model.layers
    prefix = "transformer.h" if hasattr(model, "transformer") else "model.layers"
    hooks = []
    for name, module in inner[layer].named_modules():
        if not list(module.children()) and getattr(module, "weight", torch.empty(0)).dim() == 2:

            def hook(
                _: object, given: tuple[Tensor, ...], name: str = f"{prefix}.{layer}.{name}.weight"
            ) -> None:
                found[name] = given[0].reshape(-1, given[0].shape[-1])

            hooks.append(module.register_forward_pre_hook(hook))
    with torch.no_grad():
        model(tokens)
    for handle in hooks:
        handle.remove()
    return found


def with_layers(model: PreTrainedModel, weights: dict[str, Tensor], layers: int) -> PreTrainedModel:
    """The dense model, its first layers with the pruned weights."""
    chosen = {n: w for n, w in weights.items() if any(f".{layer}." in n for layer in range(layers))}
    model.load_state_dict(chosen, strict=False)
    return model


@pytest.mark.parametrize("family", SIZES)
def test_sparsegpt_is_the_papers_behind_the_layers_that_are_pruned_already(
    family, bases, pruned, tiny_data, tmp_path
):
    """Checks 19 and 21: X of block l from transformers, in float64, with the blocks before it as they were pruned."""
    tokens = calibration(tiny_data, tmp_path)
    for sparsity in (Sparsity(share=0.75), Sparsity(zeros=3, of=4)):
        weights = load_file(pruned(family, "sparsegpt", sparsity) / "model.safetensors")
        dense = load_file(bases[family] / "model.safetensors")
        model = AutoModelForCausalLM.from_pretrained(bases[family], dtype=torch.float64).eval()
        for layer in (0, 1):
            inputs = inputs_of_maps(with_layers(model, weights, layer), tokens, layer)
            assert len(inputs) == (4 if family == "gpt2" else 7)
            for name, X in inputs.items():
                expected = sparsegpt(by_output(name, dense[name]), X, sparsity)
                found = by_output(name, weights[name]).double()
                agreement = ((found == 0) == (expected == 0)).double().mean().item()
                assert agreement >= 0.999, (name, agreement)
                alike = (found == 0) == (expected == 0)
                rows = alike.all(1)  # one other zero changes what follows it in its row
                worst = (found - expected)[rows].abs().max() / expected.abs().max()
                assert worst <= 1e-3, (name, worst)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_magnitude_is_the_smallest_of_a_matrix_or_a_run(family, bases, pruned):
    """Check 17: every number of every matrix."""
    dense = load_file(bases[family] / "model.safetensors")
    for sparsity in (PATTERNS[0], PATTERNS[3]):
        weights = load_file(pruned(family, "magnitude", sparsity) / "model.safetensors")
        for name in map_names(dense):
            expected = magnitude(by_output(name, dense[name]), sparsity)
            assert torch.equal(by_output(name, weights[name]), expected), (name, sparsity)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_wanda_is_the_papers_behind_the_layers_that_are_pruned_already(
    family, bases, pruned, tiny_data, tmp_path
):
    """Checks 17 and 21."""
    tokens = calibration(tiny_data, tmp_path)
    for sparsity in (Sparsity(share=0.75), Sparsity(zeros=2, of=4)):
        weights = load_file(pruned(family, "wanda", sparsity) / "model.safetensors")
        dense = load_file(bases[family] / "model.safetensors")
        model = AutoModelForCausalLM.from_pretrained(bases[family], dtype=torch.float64).eval()
        for layer in (0, 1):
            for name, X in inputs_of_maps(with_layers(model, weights, layer), tokens, layer).items():
                expected = wanda(by_output(name, dense[name]), X, sparsity)
                same = (by_output(name, weights[name]) == expected).double().mean().item()
                assert same >= 0.999, (name, same)


def test_the_text_is_the_recorded_one(pruned, tiny_data, tmp_path):
    tokens = calibration(tiny_data, tmp_path)
    folder = pruned("gpt2", "wanda", PATTERNS[0])
    recorded = json.loads((folder / "comigs-pruning.json").read_text())["calibration"]
    assert recorded == {
        "sequences": SEQUENCES,
        "context_tokens": CONTEXT,
        "seed": 3,
        "digest": hashlib.sha256(tokens.contiguous().numpy().astype("<i8").tobytes()).hexdigest(),
        "precision": "float32",
    }


def test_sparsegpt_lies_between_least_squares_and_the_others(bases, pruned, tiny_data, tmp_path):
    """Check 20, over the maps of the first block, whose inputs are the same for all methods."""
    tokens = calibration(tiny_data, tmp_path)
    dense = load_file(bases["llama"] / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(bases["llama"], dtype=torch.float64).eval()
    inputs = inputs_of_maps(model, tokens, 0)
    for sparsity in PATTERNS:
        totals, below = dict.fromkeys(METHODS, 0.0), 0
        made = {
            method: load_file(pruned("llama", method, sparsity) / "model.safetensors") for method in METHODS
        }
        for name, X in inputs.items():
            root = torch.linalg.cholesky(hessian_of(X)).T  # ||d root^T||^2 = d H d^T
            W = dense[name].double()
            errors = {
                method: (((W - made[method][name].double()) @ root.T) ** 2).sum(1) for method in METHODS
            }
            for row, (weight, found) in enumerate(zip(W, made["sparsegpt"][name].double(), strict=True)):
                kept = found != 0
                least = torch.linalg.lstsq(root[:, kept], (root @ weight)[:, None])
                residual = root[:, kept] @ least.solution - (root @ weight)[:, None]
                assert errors["sparsegpt"][row] >= (residual**2).sum() * (1 - 1e-6), (name, row)
            for method, error in errors.items():
                totals[method] += error.sum().item()
            below += errors["sparsegpt"].sum() < errors["magnitude"].sum()
        print(f"{sparsity}: " + ", ".join(f"{method} {total:.4g}" for method, total in totals.items()))
        if sparsity.of:  # of shares it is told, as random matrices need not have it so
            assert totals["sparsegpt"] < totals["magnitude"] and below >= 0.9 * len(inputs), sparsity
        if (sparsity.zeros, sparsity.of) in ((2, 4), (4, 8)):
            assert totals["sparsegpt"] < totals["wanda"], sparsity


# Which folders transformers opens: every family pruned by SparseGPT, the families of both layouts in all other ways.
OPENED = [(family, "sparsegpt", PATTERNS[3]) for family in SIZES] + [
    (family, method, sparsity)
    for family in ("gpt2", "llama")
    for method in METHODS
    for sparsity in (PATTERNS[3], PATTERNS[0])
    if (method, sparsity) != ("sparsegpt", PATTERNS[3])
]


@torch.no_grad()
@pytest.mark.parametrize(("family", "method", "sparsity"), OPENED, ids=lambda value: str(value))
def test_transformers_opens_the_folder_and_gives_the_same_loss(
    family, method, sparsity, bases, pruned, tiny_data
):
    """Check 22, without its order, which takes a trained base."""
    folder = pruned(family, method, sparsity)
    assert (folder / "config.json").read_bytes() == (bases[family] / "config.json").read_bytes()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    losses = [window_loss(model, tiny_data / f"user{user}/test.bin") for user in range(len(USERS))]
    where = ("--data", tiny_data, "--context-tokens", CONTEXT)
    found = {one["texts"]: one["loss"] for one in asked("evaluate", "--model", folder, *where)["evaluations"]}
    assert found == pytest.approx(dict(zip(USERS, losses)), rel=1e-4)


def window_loss(model: PreTrainedModel, file: Path) -> float:
    """Mean over all tokens but the first, each after those before it in its window."""
    ids, loss = torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.int16).long(), 0.0
    for begin in range(0, len(ids) - 1, CONTEXT):
        window = ids[begin : begin + CONTEXT + 1]
        logits = model(window[None, :-1]).logits[0].double()
        loss += torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum").item()
    return loss / (len(ids) - 1)
