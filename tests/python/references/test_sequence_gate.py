"""Mixtures of prompts with a gate by sequence, on examples: losses, every gradient and the parameters after steps
against plain PyTorch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.llamas import llama_folder
from tests.helpers.plain_model import Setting, frozen_weights
from tests.helpers.plain_prompts import PromptedGpt2, PromptedLlama
from tests.helpers.replayed import (
    BATCH,
    CONTEXT,
    DECAY,
    FINAL,
    IN_TURN,
    LOCAL_STEPS,
    RATE,
    ROUNDS,
    ROUTER_RATE,
    TAU,
    Case,
    S,
    relative,
    replay,
)
from tests.helpers.tiny import Trace, cut_into_examples, data_set, gpt2_folder, trace_steps

M = 3
PHASES = "erw"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Examples of three categories, of 2 to CONTEXT + 1 tokens."""
    folder = data_set(tmp_path_factory.mktemp("data"), users=["German", "Dutch", "French"])
    return cut_into_examples(folder, CONTEXT + 1, mixed=True)


def traced(file: Path, base: Path, data: Path, case: Case, layer: int) -> Trace:
    options = ["--data", data, "--model", base, "--output", "unused", "--method", case.method, "--seed", 3]
    options += ["--experts", case.experts, "--prompt-tokens", M, "--prompt-layer", layer, "--gate-width", 8]
    options += ["--batch-sequences", BATCH, "--context-tokens", CONTEXT, "--local-steps", LOCAL_STEPS]
    options += ["--rounds", ROUNDS, "--router-every", TAU, "--router-steps", S]
    options += ["--expert-learning-rate", RATE, "--router-learning-rate", ROUTER_RATE]
    options += ["--final-fraction", FINAL, "--weight-decay", case.decay, *case.parts, *case.options]
    return trace_steps(file, options, users=3, deviation=0.2)


JOINT = "e" * LOCAL_STEPS * ROUNDS
WARMED = "w" * LOCAL_STEPS + "e" * LOCAL_STEPS


def case_of(method: str, experts: int, phases: str, at_a_time: int = BATCH, decay: float = DECAY) -> Case:
    rounds = phases.count("w") // LOCAL_STEPS
    joint = "r" not in phases
    options = ("--gate-warmup-rounds", rounds) if joint else ()
    return Case(
        method,
        experts,
        routed=False,
        phases=phases,
        joint=joint,
        at_a_time=at_a_time,
        options=options,
        decay=decay,
    )


@pytest.mark.parametrize(
    ("member", "layer", "case"),
    [
        ("gpt2", 0, case_of("mop-local", 3, JOINT)),
        ("gpt2", 0, case_of("mop", 3, WARMED)),
        ("gpt2", 1, case_of("mop", 3, JOINT)),
        ("gpt2", 1, case_of("mop-own-gate", 3, JOINT, at_a_time=4)),
        ("gpt2", 1, case_of("mop-1gxs", 3, IN_TURN)),
        ("gpt2", 1, case_of("mop-local", 3, WARMED, decay=0.0)),
        ("llama", 0, case_of("mop", 3, JOINT)),
        ("llama", 1, case_of("mop", 3, WARMED, at_a_time=4)),
        ("qwen3", 1, case_of("mop-mgxs", 2, IN_TURN)),
    ],
    ids=lambda value: str(value),
)
def test_losses_gradients_and_parameters(member, layer, case, data, tmp_path):
    """Of examples of unlike lengths, in micro-batches too; a step touches what its phase trains, and nothing else."""
    base = gpt2_folder(tmp_path / "base") if member == "gpt2" else llama_folder(tmp_path / "base", member)
    trace = traced(tmp_path / "trace.safetensors", base, data, case, layer)
    assert [PHASES[int(phase)] for phase in trace.tensors["phases"]] == list(case.phases)

    def plain(parameters: dict[str, torch.Tensor], setting: Setting) -> PromptedGpt2 | PromptedLlama:
        if member == "gpt2":
            return PromptedGpt2(frozen_weights(base), parameters, setting)
        weights = {name: weight.double() for name, weight in load_file(base / "model.safetensors").items()}
        return PromptedLlama(base, weights, parameters, setting)

    reference = replay(case, trace, plain)
    assert len(trace.places) == case.experts + 4
    worst = 0.0
    for step, (phase, (loss, balancing)) in enumerate(zip(case.phases, reference.losses)):
        assert balancing is None
        found = trace.tensors["losses"][step][0].item()
        assert abs(found - loss) <= 1e-5 * abs(loss)
        gradients = trace.unpack(trace.tensors["gradients"][step])
        before, after = (trace.unpack(trace.tensors["values"][step + more]) for more in (0, 1))
        for name, gradient in reference.gradients[step].items():
            if not case.trains(phase, name):
                assert torch.equal(before[name], after[name]), f"step {step} ({phase}): {name}"
                continue
            assert gradient.norm() > 0
            worst = max(worst, relative(gradients[name], gradient))
    final = trace.unpack(trace.tensors["values"][-1])
    moved = max(relative(final[name], leaf.detach()) for name, leaf in reference.final.items())
    print(f"{member}, {case}, layer {layer}: gradients {worst:.1e}, parameters at the end {moved:.1e}")
    assert worst <= 1e-4 and moved <= 1e-4
