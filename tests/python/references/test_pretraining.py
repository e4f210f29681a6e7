"""The weights that `comigs pretrain` makes against transformers' model and PyTorch's AdamW on the same batches."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.helpers.built_program import run_program
from tests.helpers.tiny import alone

LAYERS, WIDTH, CONTEXT = 2, 32, 14
STEPS, RATE, WARM, FINAL, DECAY = 8, 5e-3, 0.25, 0.1, 0.5
OPTIONS = [
    "--layers",
    LAYERS,
    "--width",
    WIDTH,
    "--heads",
    2,
    "--context-tokens",
    CONTEXT,
    "--batch-sequences",
    5,
]
OPTIONS += ["--learning-rate", RATE, "--warmup-fraction", WARM, "--final-fraction", FINAL, "--seed", 7]
OPTIONS += ["--weight-decay", DECAY]


@pytest.fixture(scope="module")
def made(tiny_data, tmp_path_factory) -> dict[int, Path]:
    """The folders after no step and after all, by the number of steps."""
    folder = tmp_path_factory.mktemp("bases")
    for steps in (0, STEPS):
        where = ("--data", tiny_data, "--output", folder / str(steps), "--steps", steps)
        done = alone("pretrain", *where, *OPTIONS, "--device", "cpu", "--threads", 1)
        assert done.code == 0, done.errors
    return {steps: folder / str(steps) for steps in (0, STEPS)}


def is_decayed(name: str) -> bool:
    """As GPT-2 is trained: embeddings and matrices; no biases, no norms."""
    return name.endswith(".weight") and ".ln_" not in name


def rate_of(step: int) -> float:
    """Half a cosine up over the first steps, and one down over the others."""
    warm = int(WARM * STEPS)
    if step < warm:
        height = (1 - math.cos(math.pi * (step + 1) / (warm + 1))) / 2
    else:
        height = (1 + math.cos(math.pi * (step - warm) / (STEPS - 1 - warm))) / 2
    return RATE * (FINAL + (1 - FINAL) * height)


def test_start_is_as_gpt2_is_drawn(made):
    """Radford et al. 2019: N(0, 0.02), what ends in the residual stream smaller by the root of its additions."""
    start = load_file(made[0] / "model.safetensors")
    for name, weight in start.items():
        if ".ln_" in name and name.endswith(".weight"):
            assert (weight == 1).all(), name
        elif name.endswith(".bias"):
            assert (weight == 0).all(), name
        else:
            deviation = 0.02 / math.sqrt(2 * LAYERS) if name.endswith("c_proj.weight") else 0.02
            error = 4 / math.sqrt(2 * weight.numel())  # four standard errors of a deviation
            assert weight.std().item() == pytest.approx(deviation, rel=error), name
            assert abs(weight.mean().item()) < 4 * deviation / math.sqrt(weight.numel()), name


def test_weights_are_those_of_adamw_with_two_groups(made, tiny_data, tmp_path):
    batches = tmp_path / "batches.safetensors"
    given = ("--data", tiny_data, "--output", "unused", "--steps", STEPS, *OPTIONS)
    run_program("reference_trace", "pretraining", batches, *given)
    drawn = load_file(batches)
    model = AutoModelForCausalLM.from_pretrained(made[0], dtype=torch.float64).eval()
    weights = dict(model.named_parameters())
    optimiser = torch.optim.AdamW(
        [
            {
                "params": [weight for name, weight in weights.items() if is_decayed(name)],
                "weight_decay": DECAY,
            },
            {
                "params": [weight for name, weight in weights.items() if not is_decayed(name)],
                "weight_decay": 0.0,
            },
        ],
        betas=(0.9, 0.95),
        eps=1e-8,
    )
    for step in range(STEPS):
        for settings in optimiser.param_groups:
            settings["lr"] = rate_of(step)
        optimiser.zero_grad()
        logits = model(drawn["tokens"][step]).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), drawn["targets"][step].flatten()).backward()
        optimiser.step()
    start, end = (load_file(made[steps] / "model.safetensors") for steps in (0, STEPS))
    assert len(end) == 28 and end.keys() <= weights.keys()
    worst = 0.0
    for name, found in end.items():
        moved = weights[name].detach() - start[name]
        difference = found - start[name] - moved
        if name.endswith("attn.c_attn.bias"):
            # A key's bias moves no attention weight: its gradient is rounding, which AdamW makes full steps of.
            moved[WIDTH : 2 * WIDTH] = difference[WIDTH : 2 * WIDTH] = 0
        worst = max(worst, (difference.norm() / moved.norm()).item())
    print(f"largest difference of a weight's way, relative {worst:.1e}")
    assert worst <= 1e-4
