"""Llama with LoRA experts in plain PyTorch: tied head, no biases, rotary positions without scaling."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .plain import Layer, LoraLinear, Mixture, PlainModel, Sizes, frozen_weights


class Norm(nn.Module):
    def __init__(self, weight: nn.Parameter, epsilon: float) -> None:
        super().__init__()
        self.weight, self.epsilon = weight, epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.epsilon)


class Rotary(nn.Module):
    """Turns number i of a head's first half with number i of the second, by an angle a position."""

    def __init__(self, positions: int, head_size: int, theta: float, dtype: torch.dtype) -> None:
        super().__init__()
        frequencies = theta ** (-torch.arange(0, head_size, 2, dtype=torch.float64) / head_size)
        angles = torch.outer(torch.arange(positions, dtype=torch.float64), frequencies).repeat(1, 2)
        self.register_buffer("cosines", angles.cos().to(dtype))
        self.register_buffer("sines", angles.sin().to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, heads, T, d]"""
        context = x.shape[-2]
        first, second = x.chunk(2, dim=-1)
        turned = torch.cat((-second, first), dim=-1)
        return x * self.cosines[:context] + turned * self.sines[:context]


class Attention(nn.Module):
    """Heads in groups: several heads of queries have one of keys and one of values."""

    def __init__(self, projections: dict[str, LoraLinear], rotary: Rotary, heads: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj = projections["q_proj"], projections["k_proj"]
        self.v_proj, self.o_proj = projections["v_proj"], projections["o_proj"]
        self.rotary, self.head_size = rotary, self.q_proj.weight.shape[0] // heads

    def forward(self, x: Tensor) -> Tensor:
        batch, context, _ = x.shape
        q, k, v = (
            projection(x).view(batch, context, -1, self.head_size).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = self.rotary(q), self.rotary(k)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, context, -1))


class Expert(nn.Module):
    def __init__(self, gate: LoraLinear, up: LoraLinear, down: LoraLinear) -> None:
        super().__init__()
        self.gate, self.up, self.down = gate, up, down

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class PlainLlama(PlainModel):
    """From a Hugging Face folder. `dtype` is that of the frozen weights; what is trained is float32."""

    def __init__(self, folder: Path, sizes: Sizes, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(sizes)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        frozen = frozen_weights(folder, "model.", dtype)
        self.head = frozen["embed_tokens.weight"]

        def norm(name: str) -> Norm:
            return Norm(frozen[f"{name}.weight"], config["rms_norm_eps"])

        def linear(name: str) -> LoraLinear:
            return LoraLinear(frozen[f"{name}.weight"], None, sizes)

        head_size = frozen["layers.0.self_attn.q_proj.weight"].shape[0] // sizes.heads
        rotary = Rotary(config["max_position_embeddings"], head_size, config["rope_theta"], dtype)

        def layer(place: str) -> Layer:
            names = ("q_proj", "k_proj", "v_proj", "o_proj")
            projections = {name: linear(f"{place}.self_attn.{name}") for name in names}
            experts = [
                Expert(*(linear(f"{place}.mlp.{name}_proj") for name in ("gate", "up", "down")))
                for _ in range(sizes.experts)
            ]
            norms = (norm(f"{place}.input_layernorm"), norm(f"{place}.post_attention_layernorm"))
            attention = Attention(projections, rotary, sizes.heads)
            return Layer(norms, attention, Mixture(experts, self.head.shape[1], sizes))

        self.norm = norm("norm")
        self.layers = nn.ModuleList(layer(f"layers.{index}") for index in range(config["num_hidden_layers"]))

    def embed(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.head)
