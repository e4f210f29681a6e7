"""Losses and every gradient of alternating steps against PyTorch running each expert in full."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from tests.helpers.plain_model import PlainModel, Setting, frozen_weights
from tests.helpers.tiny import Trace, data_set, gpt2_folder, tokens_of, trace_steps

RANK, ALPHA, CONTEXT, BATCH = 4, 8.0, 12, 6
LOCAL_STEPS, ROUNDS, TAU, S = 3, 2, 2, 2
RATE, ROUTER_RATE, FINAL, BETAS, DECAY = 2e-3, 3e-3, 0.1, (0.9, 0.95), 0.1
IN_TURN = "eerreerreerr"  # of 6 expert steps in two rounds, routers after every second with two steps


@dataclass(frozen=True)
class Case:
    """A method with a number of experts, and which phase each step must be."""

    method: str
    experts: int
    balancing: str = "generalist"
    top_k: int = 2
    routed: bool = True
    phases: str = IN_TURN
    joint: bool = False
    favours: bool = True  # there is one generalist; eq. 6 is uniform where all or no experts are shared
    at_a_time: int = BATCH  # sequences that are run together
    options: tuple[object, ...] = ()
    carries: bool = False
    frozen_A: bool = False
    tail: float = 0.0  # weight of HetLoRA's norm of the ranks that may go next
    splits: dict[str, tuple[str, ...]] = field(
        default_factory=lambda: {"e": ("train",), "r": ("validation",)}
    )

    def trains(self, phase: str, name: str) -> bool:
        if name.endswith("router"):
            return phase == "r" or self.joint
        return phase == "e" and not (self.frozen_A and name.endswith(".A"))

    def __str__(self) -> str:
        words = (*self.options, *self.parts)
        return f"{self.method}-{self.experts}-top{self.top_k}-{self.balancing}" + "".join(map(str, words))

    @property
    def parts(self) -> tuple[object, ...]:
        return () if self.at_a_time == BATCH else ("--micro-batch-sequences", self.at_a_time)

    @property
    def setting(self) -> Setting:
        scale = ALPHA / math.sqrt(RANK)
        favoured = self.balancing if self.favours or self.balancing == "none" else "uniform"
        return Setting(self.experts, scale, self.top_k, self.routed, favoured, balancing_weight=0.3)


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
    options += ["--experts", case.experts, "--top-k", case.top_k, "--lora-rank", RANK, "--lora-alpha", ALPHA]
    options += ["--batch-sequences", BATCH, "--context-tokens", CONTEXT, "--local-steps", LOCAL_STEPS]
    options += ["--rounds", ROUNDS, "--router-every", TAU, "--router-steps", S, "--seed", 3]
    options += ["--load-balancing", case.balancing, "--load-balancing-weight", case.setting.balancing_weight]
    options += ["--expert-learning-rate", RATE, "--router-learning-rate", ROUTER_RATE]
    options += ["--final-fraction", FINAL, "--weight-decay", DECAY, *case.options, *case.parts]
    return case, trace_steps(tmp_path_factory.mktemp("trace") / "trace.safetensors", options)


def learning_rate(step: int, steps: int, warm: int) -> float:
    """The cosine from RATE to RATE * FINAL over all expert steps, after `warm` steps of a rising one."""
    if step < warm:
        height = (1 - math.cos(math.pi * (step + 1) / (warm + 1))) / 2
    else:
        height = (1 + math.cos(math.pi * (step - warm) / (steps - 1 - warm))) / 2
    return RATE * (FINAL + (1 - FINAL) * height)


@dataclass
class Replay:
    """What the reference finds at each step."""

    losses: list[tuple[float, float | None]]
    gradients: list[dict[str, torch.Tensor]]
    final: dict[str, torch.Tensor]


def replay(case: Case, trace: Trace, base: Path) -> Replay:
    """The same batches from the same start; two optimisers, gradients cleared before every step."""
    start = trace.unpack(trace.tensors["values"][0])
    parameters = {name: value.double().clone().requires_grad_() for name, value in start.items()}
    model = PlainModel(frozen_weights(base), parameters, case.setting)
    routers = [leaf for name, leaf in parameters.items() if name.endswith("router")]
    lora = [
        leaf for name, leaf in parameters.items() if not name.endswith("router") and case.trains("e", name)
    ]
    settings = {"betas": BETAS, "eps": 1e-8, "weight_decay": DECAY}
    expert_optimiser = torch.optim.AdamW(lora, lr=RATE, **settings)
    router_optimiser = torch.optim.AdamW(routers, lr=ROUTER_RATE, **settings) if routers else None
    result, expert_steps = Replay([], [], parameters), case.phases.count("e")
    warm, done = (expert_steps // 2 if "--warmup-fraction" in case.options else 0), 0
    for step, phase in enumerate(case.phases):
        tokens, targets = trace.tensors["tokens"][step], trace.tensors["targets"][step]
        if not case.carries:
            clear(parameters.values())
        language_model, balancing = losses_in_parts(model, tokens, targets, case.at_a_time)
        total = model.total(language_model, balancing)
        (total + case.tail * tail_norm(parameters) if case.tail else total).backward()
        result.losses.append((language_model.item(), None if balancing is None else balancing.item()))
        result.gradients.append({name: leaf.grad.clone() for name, leaf in parameters.items()})
        if phase == "e":
            expert_optimiser.param_groups[0]["lr"] = learning_rate(done, expert_steps, warm)
            expert_optimiser.step()
            done += 1
            if case.carries:
                clear(lora)
        if phase == "r" or case.joint:
            router_optimiser.step()
            if case.carries:
                clear(routers)
    return result


def losses_in_parts(
    model: PlainModel, tokens: torch.Tensor, targets: torch.Tensor, at_a_time: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The parts' losses by their share of the sequences: load balancing is over each part."""
    losses = [model.losses(*part) for part in zip(tokens.split(at_a_time), targets.split(at_a_time))]
    shares = [len(part) / len(tokens) for part in tokens.split(at_a_time)]
    language_model = sum(share * loss for share, (loss, _) in zip(shares, losses))
    if losses[0][1] is None:
        return language_model, None
    return language_model, sum(share * balancing for share, (_, balancing) in zip(shares, losses))


def clear(leaves: Iterable[torch.Tensor]) -> None:
    for leaf in leaves:
        leaf.grad = None


def tail_norm(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cho et al.: ||A[tail]|| ||B[tail]|| of every LoRA, the tail being what is beyond floor(0.6 RANK) = 2."""
    names = [name.removesuffix(".A") for name in parameters if name.endswith(".A")]
    return sum(parameters[f"{n}.A"][2:].norm() * parameters[f"{n}.B"][:, 2:].norm() for n in names)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Never NaN, which would pass for small: what ought to be zero (an unused expert) must be."""
    if expected.norm() == 0:
        return 0.0 if found.norm() == 0 else math.inf
    error = ((found.double() - expected).norm() / expected.norm()).item()
    return error if math.isfinite(error) else math.inf


def test_losses_gradients_and_parameters(traced, base):
    case, trace = traced
    phases = "".join("er"[phase] for phase in trace.tensors["phases"])
    assert phases == case.phases
    reference = replay(case, trace, base)
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
