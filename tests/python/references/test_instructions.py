"""Steps and evaluation on instruction data: transformers and PEFT with labels of -100, and the plain model."""

from __future__ import annotations

import math
from pathlib import Path

import h5py
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.helpers.plain_model import PlainModel, frozen_weights
from tests.helpers.replayed import (
    ALPHA,
    BATCH,
    CONTEXT,
    DECAY,
    FINAL,
    LOCAL_STEPS,
    RANK,
    RATE,
    ROUNDS,
    ROUTER_RATE,
    TAU,
    Case,
    S,
    relative,
    replay,
)
from tests.helpers.tiny import (
    LAYERS,
    Trace,
    cut_into_examples,
    data_set,
    examples_of,
    trace_steps,
    train,
)

IGNORED = -100  # by transformers


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Examples of up to CONTEXT + 1 tokens: the longest are as long as they may be."""
    return cut_into_examples(
        data_set(tmp_path_factory.mktemp("data"), users=["German", "Dutch"]), CONTEXT + 1
    )


def batch_of(examples: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded ids, and labels of the responses alone, as transformers takes them."""
    longest = max(len(n) + len(r) for n, r in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for row, (n, r) in enumerate(examples):
        ids[row, : len(n) + len(r)] = torch.tensor(n + r)
        labels[row, len(n) : len(n) + len(r)] = torch.tensor(r)
    return ids, labels


def row_of(example: tuple[list[int], list[int]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Inputs and targets of an example in a batch, by the definition."""
    n, r = example
    inputs, targets = (n + r)[:-1], [-1] * (len(n) - 1) + r
    padding = CONTEXT - len(inputs)
    return tuple(inputs + [0] * padding), tuple(targets + [-1] * padding)


def steps(file: Path, base: Path, data: Path, case: Case, balancing_weight: float = 0.3) -> Trace:
    options = ["--data", data, "--model", base, "--output", "unused", "--method", case.method, "--seed", 3]
    options += ["--experts", case.experts, "--top-k", min(case.top_k, case.experts)]
    options += ["--lora-rank", RANK, "--lora-alpha", ALPHA, "--batch-sequences", BATCH]
    options += ["--context-tokens", CONTEXT, "--local-steps", LOCAL_STEPS, "--rounds", ROUNDS]
    options += ["--router-every", TAU, "--router-steps", S, "--load-balancing", case.balancing]
    options += ["--load-balancing-weight", balancing_weight, "--expert-learning-rate", RATE]
    options += ["--router-learning-rate", ROUTER_RATE, "--final-fraction", FINAL, "--weight-decay", DECAY]
    return trace_steps(file, [*options, *case.parts], users=2)


def rows_of(trace: Trace, step: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    pair = (trace.tensors[name][step].tolist() for name in ("tokens", "targets"))
    return [(tuple(tokens), tuple(targets)) for tokens, targets in zip(*pair)]


# comigs' names of what PEFT trains in GPT-2's layers.
PLACES = {
    "attn.c_attn": "attn.c_attn",
    "attn.c_proj": "attn.c_proj",
    "expert.0.up": "mlp.c_fc",
    "expert.0.down": "mlp.c_proj",
}


def peft_model(base: Path) -> torch.nn.Module:
    config = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        use_rslora=True,
        target_modules=["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"],
        fan_in_fan_out=True,
        lora_dropout=0.0,
    )
    return get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).double().eval()


def factors(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    named = dict(model.named_parameters())
    stem = "base_model.model.transformer.h"
    return {
        f"{layer}.{ours}.{factor}": named[f"{stem}.{layer}.{theirs}.lora_{factor}.default.weight"]
        for layer in range(LAYERS)
        for ours, theirs in PLACES.items()
        for factor in "AB"
    }


@pytest.mark.parametrize("at_a_time", [1, 2, 4, BATCH])
def test_steps_are_those_of_peft_on_the_same_examples(at_a_time, tiny_base, data, tmp_path):
    """However many sequences are run together: 4 leaves parts of unlike size."""
    case = Case("fedavg", 1, "none", top_k=1, routed=False, phases="eeeeee", at_a_time=at_a_time)
    trace = steps(tmp_path / "trace.safetensors", tiny_base, data, case)
    examples = {row_of(example): example for example in examples_of(data, 0, "train")}
    model = peft_model(tiny_base)
    leaves = factors(model)
    assert leaves.keys() == trace.places.keys()
    worst_loss = worst_gradient = 0.0
    unlike = set()
    for step in range(len(case.phases)):
        drawn = [examples[row] for row in rows_of(trace, step)]
        unlike |= {len(response) for _, response in drawn}
        with torch.no_grad():
            for name, value in trace.unpack(trace.tensors["values"][step]).items():
                leaves[name].copy_(value)
        model.zero_grad()
        ids, labels = batch_of(drawn)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        found = trace.tensors["losses"][step][0].item()
        worst_loss = max(worst_loss, abs(found - loss.item()) / loss.item())
        for name, gradient in trace.unpack(trace.tensors["gradients"][step]).items():
            worst_gradient = max(worst_gradient, relative(gradient, leaves[name].grad.double()))
    print(f"{at_a_time} at a time: losses {worst_loss:.1e}, gradients {worst_gradient:.1e}")
    assert len(unlike) > 4  # else shares by sequences would do
    assert worst_loss <= 1e-5
    assert worst_gradient <= 1e-5


@pytest.mark.parametrize(
    "case",
    [
        Case("comigs-1g1s", 2),
        Case("comigs-1gxs", 3, "uniform", at_a_time=4),
        Case("local-moe", 3, phases="eeeeee", joint=True, favours=False),
    ],
    ids=str,
)
def test_mixtures_are_balanced_over_responses(case, tiny_base, data, tmp_path):
    """Steps of experts and routers with load balancing, which neither instructions nor padding enter."""
    trace = steps(tmp_path / "trace.safetensors", tiny_base, data, case)
    assert "".join("er"[phase] for phase in trace.tensors["phases"]) == case.phases
    splits = {phase: {row_of(one) for one in examples_of(data, 0, case.splits[phase][0])} for phase in "er"}
    reference = replay(case, trace, lambda *found: PlainModel(frozen_weights(tiny_base), *found))
    worst = 0.0
    for step, phase in enumerate(case.phases):
        assert set(rows_of(trace, step)) <= splits[phase]
        for found, expected in zip(trace.tensors["losses"][step].tolist(), reference.losses[step]):
            assert expected is not None and abs(found - expected) <= 1e-5 * abs(expected)
        for name, gradient in trace.unpack(trace.tensors["gradients"][step]).items():
            if case.trains(phase, name):
                worst = max(worst, relative(gradient, reference.gradients[step][name]))
    print(f"{case}: gradients {worst:.1e}")
    assert worst <= 1e-5


@torch.no_grad()
def response_loss(model: PreTrainedModel, examples: list[tuple[list[int], list[int]]]) -> float:
    ids, labels = batch_of(examples)
    return model(input_ids=ids, labels=labels).loss.item()


def test_perplexity_is_over_responses(tiny_base, data, tmp_path):
    train(
        *("--data", data, "--model", tiny_base, "--output", tmp_path / "run", "--method", "pretrained"),
        *("--context-tokens", CONTEXT, "--train-evaluation-tokens", 100),
        ranks=2,
    )
    model = AutoModelForCausalLM.from_pretrained(tiny_base).eval()
    with h5py.File(tmp_path / "run" / "results.h5") as file:
        found = {split: file[f"perplexity/{split}"][0] for split in ("train", "validation", "test")}
    for user in (0, 1):
        for split in ("validation", "test"):
            expected = math.exp(response_loss(model, examples_of(data, user, split)))
            assert found[split][user] == pytest.approx(expected, rel=1e-5)
        leading, tokens = [], 0
        for n, r in examples_of(data, user, "train"):
            tokens += len(n) + len(r)
            if tokens <= 100:
                leading.append((n, r))
        assert found["train"][user] == pytest.approx(math.exp(response_loss(model, leading)), rel=1e-5)
