"""What a gate's warm-up tells apart with gate_targets = clusters: what the gate reads of every example against plain
PyTorch, the clusters against k-means in numpy, the warm-up's steps against plain PyTorch with these labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.llamas import llama_folder
from tests.helpers.plain_model import Setting, frozen_weights
from tests.helpers.plain_prompts import PromptedGpt2, PromptedLlama
from tests.helpers.replayed import BATCH, CONTEXT, LOCAL_STEPS, RATE, ROUTER_RATE, Case, relative, replay
from tests.helpers.tiny import Trace, cut_into_examples, data_set, examples_of, gpt2_folder, trace_steps

USER = 1
M = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Three categories, so that no number of groups below is theirs."""
    folder = data_set(tmp_path_factory.mktemp("data"), users=["German", "Dutch", "French"])
    return cut_into_examples(folder, CONTEXT + 1, mixed=True)


def traced(file: Path, base: Path, data: Path, groups: int, layer: int, *options: object) -> Trace:
    given = ["--data", data, "--model", base, "--output", "unused", "--method", "mop-local", "--seed", 3]
    given += ["--experts", groups, "--prompt-tokens", M, "--prompt-layer", layer, "--gate-width", 8]
    given += ["--batch-sequences", BATCH, "--context-tokens", CONTEXT, "--local-steps", LOCAL_STEPS]
    given += ["--rounds", 2, "--gate-warmup-rounds", 1, "--gate-targets", "clusters", "--weight-decay", 0.1]
    given += ["--expert-learning-rate", RATE, "--router-learning-rate", ROUTER_RATE, *options]
    return trace_steps(file, given, users=3, user=USER, deviation=0.2)


def plain(member: str, base: Path, groups: int, parameters: dict) -> PromptedGpt2 | PromptedLlama:
    setting = Setting(groups, 1.0, routed=False)
    if member == "gpt2":
        return PromptedGpt2(frozen_weights(base), parameters, setting)
    weights = {name: weight.double() for name, weight in load_file(base / "model.safetensors").items()}
    return PromptedLlama(base, weights, parameters, setting)


def read_by_gate(model: PromptedGpt2 | PromptedLlama, instruction: list[int], layer: int) -> np.ndarray:
    """The mean over the instruction, which is run alone, to mean 0 and variance 1."""
    x = model._below(torch.tensor([instruction]), layer)[0].mean(0).detach().numpy()
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5)


def moved_on(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """One step of Lloyd's algorithm: the nearest of the labels' means."""
    means = np.stack([features[labels == group].mean(0) for group in range(labels.max() + 1)])
    return ((features[:, None] - means[None]) ** 2).sum(2).argmin(1)


@pytest.mark.parametrize(
    ("member", "layer", "groups", "options"),
    [
        ("gpt2", 0, 4, ()),
        ("gpt2", 1, 2, ()),
        ("gpt2", 1, 5, ("--train-on", "train+validation")),
        ("llama", 1, 4, ()),
    ],
    ids=str,
)
def test_features_clusters_and_steps(member, layer, groups, options, data, tmp_path):
    base = gpt2_folder(tmp_path / "base") if member == "gpt2" else llama_folder(tmp_path / "base", member)
    trace = traced(tmp_path / "trace.safetensors", base, data, groups, layer, *options)
    start = trace.unpack(trace.tensors["values"][0].double())
    splits = ["train", "validation"] if options else ["train"]
    examples = [example for split in splits for example in examples_of(data, USER, split)]
    model = plain(member, base, groups, start)
    expected = np.stack([read_by_gate(model, instruction, layer) for instruction, _ in examples])
    found, labels = trace.tensors["features"].numpy(), trace.tensors["groups"].numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-5)
    # Labels are those that Lloyd's algorithm stays at, with all clusters in use.
    assert sorted(set(labels.tolist())) == list(range(groups))
    np.testing.assert_array_equal(moved_on(expected, labels), labels)
    # The warm-up's targets are the labels of the examples in its batches.
    label_of = {
        tuple(instruction + response[:-1]): label for (instruction, response), label in zip(examples, labels)
    }
    for step in range(LOCAL_STEPS):
        for tokens, category in zip(trace.tensors["tokens"][step].tolist(), trace.tensors["category"][step]):
            own = [label for text, label in label_of.items() if tokens == padded(text)]
            assert own == [category]
    case = Case("mop-local", groups, routed=False, phases="w" * LOCAL_STEPS + "e" * LOCAL_STEPS, joint=True)
    reference = replay(case, trace, lambda parameters, _: plain(member, base, groups, parameters))
    for step, (loss, _) in enumerate(reference.losses[:LOCAL_STEPS]):
        assert trace.tensors["losses"][step][0].item() == pytest.approx(loss, rel=1e-5)
        gradients = trace.unpack(trace.tensors["gradients"][step])
        for name, gradient in reference.gradients[step].items():
            if ".router" in name:
                assert relative(gradients[name], gradient) <= 1e-4, (step, name)


def padded(text: tuple[int, ...]) -> list[int]:
    return [*text, *([0] * (CONTEXT - len(text)))]
