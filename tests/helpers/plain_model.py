"""GPT-2 with LoRA experts in plain PyTorch, from the methods' definition: it shares nothing with comigs.

Every expert runs in full, its own frozen products beside its own low-rank terms; attention, norms and GELU
are written out; gradients are PyTorch's own. float64, so that what differs is comigs' rounding; or, with frozen
weights in bfloat16 and parameters in float32, as PyTorch trains in mixed precision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor


@dataclass(frozen=True)
class Setting:
    """What decides a user's loss."""

    experts: int
    scale: float  # gamma = alpha / sqrt(rank)
    top_k: int = 2
    routed: bool = True
    balancing: str = "generalist"
    balancing_weight: float = 0.01
    heads: int = 2
    attention_scale: float | None = None  # where it is another one

    def scale_of(self, lora: str) -> float:
        return self.scale if lora.startswith("expert") or not self.attention_scale else self.attention_scale


@dataclass(frozen=True)
class Routing:
    """Of one layer, over all tokens [n, experts]. An entropy is that of the softmax that the gate is taken from."""

    probabilities: Tensor
    gate: Tensor
    chosen: Tensor
    distribution: Tensor


def frozen_weights(folder: Path, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    weights = load_file(folder / "model.safetensors")
    return {name.removeprefix("transformer."): weight.to(dtype) for name, weight in weights.items()}


def wide(x: Tensor) -> Tensor:
    """What is no product of matrices is worked out in float32 at least, and rounded once."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def gelu(x: Tensor) -> Tensor:
    z = wide(x)
    return (0.5 * z * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))).to(x.dtype)


def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = wide(x) - wide(x).mean(-1, keepdim=True)
    scaled = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5)
    return (scaled * wide(weight) + wide(bias)).to(x.dtype)


class PlainModel:
    """`parameters`: leaves named as in a trace, "0.attn.c_attn.A", "1.expert.3.up.B", "1.router"."""

    def __init__(self, frozen: dict[str, Tensor], parameters: dict[str, Tensor], setting: Setting) -> None:
        self.frozen, self.parameters, self.setting = frozen, parameters, setting
        self.layers = 1 + max(int(name.split(".")[1]) for name in frozen if name.startswith("h."))

    def _linear(self, x: Tensor, layer: int, projection: str, lora: str) -> Tensor:
        y = x @ self.frozen[f"h.{layer}.{projection}.weight"] + self.frozen[f"h.{layer}.{projection}.bias"]
        A, B = (self.parameters[f"{layer}.{lora}.{factor}"].to(x.dtype) for factor in "AB")
        return y + self.setting.scale_of(lora) * (x @ A.T) @ B.T

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return norm(x, self.frozen[f"{name}.weight"], self.frozen[f"{name}.bias"])

    def _attention(self, x: Tensor, layer: int) -> Tensor:
        batch, context, width = x.shape
        size = width // self.setting.heads
        qkv = self._linear(x, layer, "attn.c_attn", "attn.c_attn").split(width, dim=-1)
        q, k, v = (part.view(batch, context, self.setting.heads, size).transpose(1, 2) for part in qkv)
        scores = q @ k.transpose(-1, -2) / math.sqrt(size)
        future = torch.ones(context, context, dtype=torch.bool).triu(1)
        weights = wide(scores).masked_fill(future, -math.inf).softmax(-1).to(x.dtype)
        joined = (weights @ v).transpose(1, 2).reshape(batch, context, width)
        return self._linear(joined, layer, "attn.c_proj", "attn.c_proj")

    def _expert(self, x: Tensor, layer: int, expert: int) -> Tensor:
        inner = gelu(self._linear(x, layer, "mlp.c_fc", f"expert.{expert}.up"))
        return self._linear(inner, layer, "mlp.c_proj", f"expert.{expert}.down")

    def _route(self, x: Tensor, layer: int) -> Routing:
        logits = wide(x) @ self.parameters[f"{layer}.router"].T
        best = logits.topk(min(self.setting.top_k, self.setting.experts), dim=-1).indices
        chosen = torch.zeros_like(logits).scatter(-1, best, 1.0)
        probabilities = logits.softmax(-1)
        if self.setting.top_k == 1:  # Fedus et al. 2022
            return Routing(probabilities, probabilities * chosen, chosen, probabilities)
        unnormalised = logits.exp() * chosen
        gate = unnormalised / unnormalised.sum(-1, keepdim=True)
        return Routing(probabilities, gate, chosen, gate)

    def _mlp(self, x: Tensor, layer: int, routings: list[Routing]) -> Tensor:
        experts = self.setting.experts
        if self.setting.routed and experts > 1:
            routings.append(self._route(x, layer))
            gate = routings[-1].gate
        else:
            gate = torch.full((*x.shape[:-1], experts), 1 / experts, dtype=x.dtype)
        gate = gate.to(x.dtype)
        return sum(gate[..., e : e + 1] * self._expert(x, layer, e) for e in range(experts))

    def logits(self, tokens: Tensor) -> tuple[Tensor, list[Routing]]:
        """tokens [B, T] -> [B, T, V], and how each layer routed them."""
        routings: list[Routing] = []
        x = self.frozen["wte.weight"][tokens] + self.frozen["wpe.weight"][: tokens.shape[1]]
        for layer in range(self.layers):
            x = x + self._attention(self._norm(x, f"h.{layer}.ln_1"), layer)
            x = x + self._mlp(self._norm(x, f"h.{layer}.ln_2"), layer, routings)
        return self._norm(x, "ln_f") @ self.frozen["wte.weight"].T, routings

    def reads(self, instruction: Tensor) -> None:
        """Told how many tokens of each sequence of the next batch are its instruction [B]."""

    def balancing_loss(self, routings: list[Routing], counted: Tensor) -> Tensor:
        """Eqs. 6 and 7, over the tokens that are `counted` [B, T]."""
        n = self.setting.experts
        generalist = [1 / ((n - 1) ** 2 + 1)] + [(n - 1) / ((n - 1) ** 2 + 1)] * (n - 1)
        weights = [1 / n] * n if self.setting.balancing == "uniform" else generalist
        losses = []
        for routing in routings:
            f = routing.chosen[counted].mean(0)
            p = routing.probabilities[counted].mean(0)
            losses.append(sum(weights[j] * f[j] * p[j] for j in range(n)))
        return torch.stack(losses).mean()

    def losses(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
        """Language-model loss and, where tokens are routed and balanced, the load-balancing loss; of the tokens
        with a target (not negative)."""
        logits, routings = self.logits(tokens)
        counted = targets >= 0
        log_probabilities = wide(logits[counted]).log_softmax(-1).gather(-1, targets[counted].unsqueeze(-1))
        balanced = bool(routings) and self.setting.balancing != "none"
        return -log_probabilities.mean(), self.balancing_loss(routings, counted) if balanced else None

    def total(self, language_model: Tensor, balancing: Tensor | None) -> Tensor:
        """What both phases minimise."""
        return (
            language_model
            if balancing is None
            else language_model + self.setting.balancing_weight * balancing
        )


def windows(tokens: Tensor, context: int) -> list[tuple[Tensor, Tensor]]:
    """Every token but the first predicted once: (inputs, targets) of windows that do not overlap."""
    starts = range(0, len(tokens) - 1, context)
    return [(tokens[s : s + context][: len(tokens) - 1 - s], tokens[s + 1 : s + 1 + context]) for s in starts]


@torch.no_grad()
def evaluate(model: PlainModel, tokens: Tensor, context: int) -> tuple[float, list[dict[str, Tensor]]]:
    """Perplexity of a whole split; by layer its tokens' mean gate, top-k membership and gate entropy."""
    nats, parts = 0.0, []
    for inputs, targets in windows(tokens, context):
        logits, routings = model.logits(inputs.unsqueeze(0))
        nats -= logits[0].log_softmax(-1).gather(-1, targets.unsqueeze(-1)).sum().item()
        parts.append(routings)
    statistics = []
    for layer in range(len(parts[0])):
        gate = torch.cat([routings[layer].gate[0] for routings in parts])
        chosen = torch.cat([routings[layer].chosen[0] for routings in parts])
        distribution = torch.cat([routings[layer].distribution[0] for routings in parts])
        entropy = -torch.xlogy(distribution, distribution).sum(-1)
        statistics.append({"score": gate.mean(0), "load": chosen.mean(0), "entropy": entropy.mean()})
    return math.exp(nats / (len(tokens) - 1)), statistics
