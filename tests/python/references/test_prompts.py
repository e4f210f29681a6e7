"""Soft prompts: losses, every gradient and the parameters after steps against plain PyTorch, logits against PEFT."""

from __future__ import annotations

import math

import h5py
import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.helpers.llamas import llama_folder
from tests.helpers.plain_model import Setting, frozen_weights, windows
from tests.helpers.plain_prompts import PromptedGpt2, PromptedLlama
from tests.helpers.replayed import (
    BATCH,
    CONTEXT,
    LOCAL_STEPS,
    RATE,
    ROUNDS,
    Case,
    relative,
    replay,
)
from tests.helpers.tiny import Trace, alone, data_set, gpt2_folder, tokens_of, trace_steps

M = 3


def trace_of(folder, member: str, method: str, experts: int, layer: int | str) -> tuple[Trace, Case, object]:
    base = gpt2_folder(folder / "base") if member == "gpt2" else llama_folder(folder / "base", member)
    data = data_set(folder / "data", users=["German"])
    case = Case(method, experts, routed=False, phases="e" * LOCAL_STEPS * ROUNDS)
    options: list[object] = ["--data", data, "--model", base, "--output", "unused", "--method", method]
    if method == "mop-equal":
        options += ["--experts", experts]
    options += ["--prompt-tokens", M, "--prompt-layer", layer, "--seed", 3, "--batch-sequences", BATCH]
    options += ["--context-tokens", CONTEXT, "--local-steps", LOCAL_STEPS, "--rounds", ROUNDS]
    options += ["--final-fraction", 0.1, "--weight-decay", 0.1, "--expert-learning-rate", RATE]
    trace = trace_steps(folder / "trace.safetensors", options)

    def plain(parameters: dict[str, torch.Tensor], setting: Setting) -> PromptedGpt2 | PromptedLlama:
        if member == "gpt2":
            return PromptedGpt2(frozen_weights(base), parameters, setting)
        weights = {name: weight.double() for name, weight in load_file(base / "model.safetensors").items()}
        return PromptedLlama(base, weights, parameters, setting)

    return trace, case, plain


@pytest.mark.parametrize(
    ("member", "method", "experts", "layer"),
    [
        ("gpt2", "prompt-local", 1, 0),
        ("gpt2", "mop-equal", 3, 0),
        ("gpt2", "mop-equal", 3, 1),
        ("llama", "mop-equal", 3, 0),
        ("llama", "mop-equal", 3, 1),
        ("qwen3", "fedprompt", 1, "auto"),
    ],
)
def test_losses_gradients_and_parameters(member, method, experts, layer, tmp_path):
    trace, case, plain = trace_of(tmp_path, member, method, experts, layer)
    reference = replay(case, trace, plain)
    worst = 0.0
    for step, (language_model, _) in enumerate(reference.losses):
        found = trace.tensors["losses"][step][0].item()
        assert abs(found - language_model) <= 1e-5 * abs(language_model)
        gradients = trace.unpack(trace.tensors["gradients"][step])
        for name, gradient in reference.gradients[step].items():
            worst = max(worst, relative(gradients[name], gradient))
    final = trace.unpack(trace.tensors["values"][-1])
    assert len(final) == experts
    moved = max(relative(final[name], leaf.detach()) for name, leaf in reference.final.items())
    print(f"{member}, {method}, layer {layer}: gradients {worst:.1e}, parameters at the end {moved:.1e}")
    assert worst <= 1e-4 and moved <= 1e-4


@torch.no_grad()
def perplexity(model: torch.nn.Module, text: torch.Tensor) -> float:
    nats = 0.0
    for inputs, targets in windows(text, CONTEXT):
        logits = model(input_ids=inputs.unsqueeze(0)).logits[0][-len(inputs) :].double()
        nats -= logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).sum().item()
    return math.exp(nats / (len(text) - 1))


@pytest.mark.parametrize("member", ["gpt2", "llama"])
def test_one_group_in_front_of_the_first_layer_is_prompt_tuning(member, tmp_path):
    """As PEFT has it, on transformers' own model."""
    base = gpt2_folder(tmp_path / "base") if member == "gpt2" else llama_folder(tmp_path / "base", member)
    data = data_set(tmp_path / "data", users=["German"])
    options = [
        "--method",
        "prompt-local",
        "--prompt-layer",
        0,
        "--prompt-tokens",
        M,
        "--rounds",
        1,
        "--seed",
        3,
    ]
    options += ["--batch-sequences", BATCH, "--context-tokens", CONTEXT, "--expert-learning-rate", 0.1]
    options += ["--data", data, "--model", base, "--output", tmp_path / "run", "--weights-every", 1]
    done = alone("train", *options, "--device", "cpu", "--threads", 1)
    assert done.code == 0, done.errors
    results = tmp_path / "run" / "results.h5"
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=M),
    ).eval()
    text = torch.from_numpy(tokens_of(data, 0, "test"))
    with h5py.File(results) as file:
        recorded = file["perplexity/test"][:, 0]
        prompts = [file[f"expert/weights/{round_}/user_0/layer_0/expert_0/prompt"][()] for round_ in (0, 1)]
    assert abs(recorded[1] / recorded[0] - 1) > 0.01
    embedding = model.get_input_embeddings().weight
    for round_, prompt in enumerate(prompts):
        model.prompt_encoder["default"].embedding.weight.data = torch.from_numpy(prompt)
        assert perplexity(model, text) == pytest.approx(recorded[round_], rel=1e-4)
    # Prompts begin as tokens of the vocabulary.
    for row in torch.from_numpy(prompts[0]):
        assert (embedding == row).all(1).any()
