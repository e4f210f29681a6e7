"""A mixture of LoRA experts on a frozen base as it is written in PyTorch today: modules, autograd, all logits.

Each expert is an MLP of its own around the frozen weights that all share; where not all experts are active,
each gets the tokens routed to it, as Mixtral in transformers does. What the families have of their own is in
plain_gpt2.py and plain_llama.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn


@dataclass(frozen=True)
class Sizes:
    """What decides the model beside its frozen weights."""

    heads: int
    experts: int
    top_k: int
    rank: int
    scale: float  # gamma = alpha / sqrt(rank)
    balancing_weight: float = 0.01


class LoraLinear(nn.Module):
    """y = x W^T + b + gamma (x A^T) B^T with W [out, in] and b, which may be missing, frozen."""

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None, sizes: Sizes) -> None:
        super().__init__()
        self.weight, self.bias, self.scale = weight, bias, sizes.scale
        self.A = nn.Parameter(torch.empty(sizes.rank, weight.shape[1], dtype=torch.float32))
        self.B = nn.Parameter(torch.empty(weight.shape[0], sizes.rank, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias) + self.scale * F.linear(F.linear(x, self.A), self.B)


class Mixture(nn.Module):
    """The experts of a layer and their router. Keeps the load-balancing loss of its last call."""

    def __init__(self, experts: list[nn.Module], width: int, sizes: Sizes) -> None:
        super().__init__()
        self.experts, self.top_k = nn.ModuleList(experts), min(sizes.top_k, sizes.experts)
        self.router = nn.Parameter(torch.empty(sizes.experts, width)) if sizes.experts > 1 else None
        others = sizes.experts - 1
        weights = torch.full((sizes.experts,), others / (others**2 + 1))
        weights[0] = 1 / (others**2 + 1)  # Eq. 6: the generalist is expert 0
        self.register_buffer("balancing_weights", weights)
        self.balancing: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.router is None:
            return self.experts[0](x)
        tokens = x.view(-1, x.shape[-1])
        with torch.autocast(x.device.type, enabled=False):  # routers stay float32, as in Switch Transformers
            logits = F.linear(tokens.float(), self.router)
        values, chosen = logits.topk(self.top_k, dim=-1)
        load = torch.zeros_like(logits).scatter_(1, chosen, 1.0).mean(0)
        self.balancing = (self.balancing_weights * load * logits.softmax(-1).mean(0)).sum()
        if self.top_k == len(self.experts):
            gate = logits.softmax(-1).to(x.dtype)
            mixed = sum(gate[:, e : e + 1] * expert(tokens) for e, expert in enumerate(self.experts))
            return mixed.view_as(x)
        # Switch Transformers: one expert alone is weighted with its probability among all.
        gate = values.softmax(-1) if self.top_k > 1 else logits.softmax(-1).gather(-1, chosen)
        gate = gate.to(x.dtype)
        mixed = torch.zeros_like(tokens)
        for e, expert in enumerate(self.experts):
            rows, slots = torch.where(chosen == e)
            mixed.index_add_(0, rows, expert(tokens[rows]) * gate[rows, slots, None])
        return mixed.view_as(x)


class Layer(nn.Module):
    """A block of either family: attention, then the experts, each behind its norm."""

    def __init__(self, norms: tuple[nn.Module, nn.Module], attention: nn.Module, mlp: Mixture) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = norms
        self.attention, self.mlp = attention, mlp

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm_1(x))
        return x + self.mlp(self.norm_2(x))


class PlainModel(nn.Module):
    """What a family inherits; it sets `layers` (of `Layer`), `norm`, `head` [V, C] and says how to embed."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.balancing_weight = sizes.balancing_weight

    def embed(self, tokens: Tensor) -> Tensor:
        """tokens [B, T] -> [B, T, C]"""
        raise NotImplementedError

    def initialise(self) -> None:
        """What is trained as comigs draws it: A and routers uniform in +-1/sqrt(in), B zero."""
        for name, parameter in self.named_parameters():
            if name.endswith((".A", "router")):
                bound = 1 / math.sqrt(parameter.shape[1])
                nn.init.uniform_(parameter, -bound, bound)
            elif name.endswith(".B"):
                nn.init.zeros_(parameter)

    def logits(self, tokens: Tensor) -> Tensor:
        """tokens [B, T] -> [B, T, V]"""
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        return F.linear(self.norm(x), self.head)

    def losses(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean cross entropy over the targets that are not negative; load balancing, where routed."""
        logits = self.logits(tokens).float()
        language_model = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
        balancing = [layer.mlp.balancing for layer in self.layers if layer.mlp.balancing is not None]
        return language_model, torch.stack(balancing).mean() if balancing else None

    def total(self, language_model: Tensor, balancing: Tensor | None) -> Tensor:
        return language_model if balancing is None else language_model + self.balancing_weight * balancing

    def trained(self, phase: str) -> dict[str, nn.Parameter]:
        """The parameters of the phase `experts` or `routers`; no others get a gradient."""
        result = {}
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.endswith("router" if phase == "routers" else (".A", ".B")))
            if parameter.requires_grad:
                result[name] = parameter
        return result


def frozen_weights(folder: Path, prefix: str, dtype: torch.dtype) -> dict[str, nn.Parameter]:
    """Of a Hugging Face folder, in `dtype`; names without `prefix`, which not every writer puts there."""
    # Copies: memory of its own is aligned better than a mapped file, and counts once.
    return {
        name.removeprefix(prefix): nn.Parameter(weight.to(dtype, copy=True), requires_grad=False)
        for name, weight in load_file(folder / "model.safetensors").items()
    }


def is_shared(name: str) -> bool:
    """Whether comigs-1g1s averages the tensor over users: attention LoRA and expert 0."""
    return name.endswith((".A", ".B")) and (".attention." in name or ".mlp.experts.0." in name)


def trained_name(name: str) -> str:
    """comigs' name of a trained tensor ("1.expert.3.up.B", "1.router", "1.attn.c_attn.A",
    "1.self_attn.q_proj.A") -> the one here."""
    layer, kind, *rest = name.split(".")
    place = {"expert": "mlp.experts", "router": "mlp.router", "attn": "attention", "self_attn": "attention"}
    return ".".join(["layers", layer, place[kind], *rest])
