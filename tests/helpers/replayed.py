"""A trace's local steps once more, by a plain model and PyTorch's own optimisers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch

from tests.helpers.plain_model import PlainModel, Setting
from tests.helpers.tiny import Trace

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
    decay: float = DECAY
    tail: float = 0.0  # weight of HetLoRA's norm of the ranks that may go next
    splits: dict[str, tuple[str, ...]] = field(
        default_factory=lambda: {"e": ("train",), "r": ("validation",)}
    )

    def trains(self, phase: str, name: str) -> bool:
        if ".router" in name:
            return phase in "rw" or self.joint
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


def replay(
    case: Case, trace: Trace, plain: Callable[[dict[str, torch.Tensor], Setting], PlainModel]
) -> Replay:
    """The same batches from the same start; two optimisers, gradients cleared before every step. `plain`: the
    model of such parameters."""
    start = trace.unpack(trace.tensors["values"][0])
    parameters = {name: value.double().clone().requires_grad_() for name, value in start.items()}
    model = plain(parameters, case.setting)
    routers = [leaf for name, leaf in parameters.items() if ".router" in name]
    lora = [leaf for name, leaf in parameters.items() if ".router" not in name and case.trains("e", name)]
    settings = {"betas": BETAS, "eps": 1e-8, "weight_decay": case.decay}
    expert_optimiser = torch.optim.AdamW(lora, lr=RATE, **settings)
    router_optimiser = torch.optim.AdamW(routers, lr=ROUTER_RATE, **settings) if routers else None
    result, expert_steps = Replay([], [], parameters), case.phases.count("e")
    warm, done = (expert_steps // 2 if "--warmup-fraction" in case.options else 0), 0
    for step, phase in enumerate(case.phases):
        tokens, targets = trace.tensors["tokens"][step], trace.tensors["targets"][step]
        if not case.carries:
            clear(parameters.values())
        model.reads(trace.tensors["instruction"][step])
        if phase == "w":
            loss = model.warmup_loss(tokens, trace.tensors["category"][step])
            language_model, balancing = loss, None
        else:
            language_model, balancing = losses_in_parts(model, tokens, targets, case.at_a_time)
        total = model.total(language_model, balancing)
        (total + case.tail * tail_norm(parameters) if case.tail else total).backward()
        result.losses.append((language_model.item(), None if balancing is None else balancing.item()))
        result.gradients.append(
            {
                name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad.clone()
                for name, leaf in parameters.items()
            }
        )
        if phase == "e":
            expert_optimiser.param_groups[0]["lr"] = learning_rate(done, expert_steps, warm)
            expert_optimiser.step()
            done += 1
            if case.carries:
                clear(lora)
        if phase in "rw" or case.joint:
            router_optimiser.step()
            if case.carries:
                clear(routers)
    return result


def losses_in_parts(
    model: PlainModel, tokens: torch.Tensor, targets: torch.Tensor, at_a_time: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The loss of the whole batch; that of load balancing is over each part, by its share of the sequences."""
    losses = [model.losses(*part) for part in zip(tokens.split(at_a_time), targets.split(at_a_time))]
    shares = [len(part) / len(tokens) for part in tokens.split(at_a_time)]
    language_model, balancing = model.losses(tokens, targets)
    if balancing is None:
        return language_model, None
    return language_model, sum(share * part for share, (_, part) in zip(shares, losses))


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
