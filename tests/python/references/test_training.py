"""Losses and every gradient of alternating steps against PyTorch running each expert in full."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

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
from tests.helpers.tiny import Trace, data_set, gpt2_folder, tokens_of, trace_steps

CASES = [
    Case("comigs-1g1s", 2),
    Case("comigs-1g1s", 2, "uniform"),
    Case("comigs-1gxs", 4),
    Case("comigs-1gxs", 4, "uniform"),
    Case("comigs-1gxs", 3, top_k=1),
    Case("comigs-1g1s", 2, "none", top_k=1),
    Case("local-moe", 4, "none", top_k=1, phases="eeeeee", joint=True),
    Case("comigs-1gxs", 1, phases="eeeeee"),
    Case("fedavg", 2, routed=False, phases="eeeeee"),
    Case("fedavg-moe", 3, phases="eeeeee", joint=True, favours=False),
    Case("local-moe", 3, phases="eeeeee", joint=True, favours=False),
    Case("comigs-1gxs", 4, "none", at_a_time=4),
    Case("comigs-1gxs", 4, at_a_time=4),
    Case("comigs-1g1s", 2, options=("--warmup-fraction", 0.5)),
    Case("comigs-1g1s", 2, options=("--carry-phase-gradients",), carries=True),
    Case("ffa-lora", 2, routed=False, phases="eeeeee", frozen_A=True),
    Case(
        "hetlora",
        1,
        routed=False,
        phases="eeeeee",
        options=("--rank-regulariser", 0.3, "--pruning-strength", 0.6),
        tail=0.3,
    ),
    Case(
        "hetlora",
        1,
        routed=False,
        phases="eeeeee",
        options=("--rank-regulariser", 0.3, "--pruning-strength", 0.6),
        tail=0.3,
        at_a_time=4,
    ),
    Case(
        "comigs-1g1s",
        2,
        options=("--train-on", "train+validation"),
        splits={"e": ("train", "validation"), "r": ("validation",)},
    ),
    Case("comigs-1g1s-tr", 2, splits={"e": ("train",), "r": ("train",)}),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return gpt2_folder(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return data_set(tmp_path_factory.mktemp("data"), users=["German"])


@pytest.fixture(scope="module", params=CASES, ids=str)
def traced(request, base, data, tmp_path_factory) -> tuple[Case, Trace]:
    case = request.param
    options = ["--data", data, "--model", base, "--output", "unused", "--method", case.method]
    options += [
        "--experts",
        case.experts,
        "--top-k",
        min(case.top_k, case.experts),
        "--lora-rank",
        RANK,
        "--lora-alpha",
        ALPHA,
    ]
    options += ["--batch-sequences", BATCH, "--context-tokens", CONTEXT, "--local-steps", LOCAL_STEPS]
    options += ["--rounds", ROUNDS, "--router-every", TAU, "--router-steps", S, "--seed", 3]
    options += ["--load-balancing", case.balancing, "--load-balancing-weight", case.setting.balancing_weight]
    options += ["--expert-learning-rate", RATE, "--router-learning-rate", ROUTER_RATE]
    options += ["--final-fraction", FINAL, "--weight-decay", DECAY, *case.options, *case.parts]
    return case, trace_steps(tmp_path_factory.mktemp("trace") / "trace.safetensors", options)


def test_losses_gradients_and_parameters(traced, base):
    case, trace = traced
    phases = "".join("er"[phase] for phase in trace.tensors["phases"])
    assert phases == case.phases
    reference = replay(case, trace, lambda *found: PlainModel(frozen_weights(base), *found))
    worst_loss, worst_gradient, compared = 0.0, 0.0, 0
    for step, phase in enumerate(phases):
        for found, expected in zip(trace.tensors["losses"][step].tolist(), reference.losses[step]):
            assert math.isnan(found) == (expected is None)
            if expected is not None:
                worst_loss = max(worst_loss, abs(found - expected) / abs(expected))
        gradients = trace.unpack(trace.tensors["gradients"][step])
        for name, expected in reference.gradients[step].items():
            if case.trains(phase, name):
                worst_gradient = max(worst_gradient, relative(gradients[name], expected))
                compared += 1
    final = trace.unpack(trace.tensors["values"][-1])
    worst_parameter = max(relative(final[name], leaf.detach()) for name, leaf in reference.final.items())
    print(f"{case}: losses {worst_loss:.1e}, gradients {worst_gradient:.1e}, end {worst_parameter:.1e}")
    assert compared >= len(phases) * 2
    assert worst_loss <= 1e-5
    assert worst_gradient <= 1e-4
    assert worst_parameter <= 1e-4


def test_every_step_moves_what_it_trains(traced):
    """Else agreement would say nothing: parameters leave their start by far more than the tolerance."""
    case, trace = traced
    first, last = (trace.unpack(trace.tensors["values"][i]) for i in (0, -1))
    for name, start in first.items():
        if case.frozen_A and name.endswith(".A"):
            continue
        assert relative(last[name], start.double()) > 1e-3, (case, name)


def test_a_phase_leaves_the_other_phase_s_parameters_alone(traced):
    """Bit for bit: a step moves all that its phase trains and nothing else."""
    case, trace = traced
    for step, phase in enumerate(case.phases):
        before, after = (trace.unpack(trace.tensors["values"][i]) for i in (step, step + 1))
        for name, value in before.items():
            assert torch.equal(after[name], value) != case.trains(phase, name), (step, name)


def test_batches_come_from_the_phase_s_splits(traced, data):
    """Expert steps see windows of the training split, alternating router steps of the validation split."""
    case, trace = traced

    def windows(split: str) -> set[tuple[int, ...]]:
        text = tokens_of(data, 0, split).tolist()
        return {tuple(text[i : i + CONTEXT + 1]) for i in range(len(text) - CONTEXT)}

    found = {split: windows(split) for split in ("train", "validation")}
    seen: dict[str, set[str]] = {phase: set() for phase in case.phases}
    for step, phase in enumerate(case.phases):
        for row, targets in zip(
            trace.tensors["tokens"][step].tolist(), trace.tensors["targets"][step].tolist()
        ):
            assert row[1:] == targets[:-1]
            origin = [split for split in found if (*row, targets[-1]) in found[split]]
            assert origin
            seen[phase] |= set(origin)
    assert seen == {phase: set(case.splits[phase]) for phase in seen}


def test_centralized_draws_from_the_texts_of_all_users(base, tmp_path):
    """Every rank takes its own part of batches over the union of all users' training splits."""
    data = data_set(tmp_path / "data", users=["German", "Dutch"])
    options = ["--data", data, "--model", base, "--output", "unused", "--method", "centralized", "--seed", 3]
    options += ["--batch-sequences", BATCH, "--context-tokens", CONTEXT, "--local-steps", 3, "--rounds", 2]
    texts = [tokens_of(data, user, "train").tolist() for user in (0, 1)]
    found = [{tuple(text[i : i + CONTEXT]) for i in range(len(text) - CONTEXT)} for text in texts]
    rows = []
    for user in (0, 1):
        trace = trace_steps(tmp_path / f"{user}.safetensors", options, users=2, user=user)
        rows.append([tuple(row) for step in trace.tensors["tokens"].tolist() for row in step])
        assert {row in found[0] for row in rows[-1]} == {True, False}
        assert all(row in found[0] or row in found[1] for row in rows[-1])
    assert rows[0] != rows[1]
