"""A mixture of prompts on a Llama as it is written in PyTorch today: the prompts are expanded to every sequence and go
through the upper layers as tokens of it, and a float mask says who sees whom and how much the gate adds."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .plain import frozen_weights
from .plain_llama import Norm, Rotary


class Block(nn.Module):
    """A frozen layer."""

    def __init__(
        self, frozen: dict[str, nn.Parameter], place: str, heads: int, epsilon: float, rotary: Rotary
    ) -> None:
        super().__init__()
        self.attention = {name: frozen[f"{place}.self_attn.{name}_proj.weight"] for name in "qkvo"}
        self.mlp = {name: frozen[f"{place}.mlp.{name}_proj.weight"] for name in ("gate", "up", "down")}
        self.norms = [
            Norm(frozen[f"{place}.{name}.weight"], epsilon)
            for name in ("input_layernorm", "post_attention_layernorm")
        ]
        self.rotary, self.head_size = rotary, self.attention["q"].shape[0] // heads

    def forward(self, x: Tensor, mask: Tensor | None, positions: Tensor | None) -> Tensor:
        batch, length, _ = x.shape
        z = self.norms[0](x)
        q, k, v = (
            F.linear(z, self.attention[name]).view(batch, length, -1, self.head_size).transpose(1, 2)
            for name in "qkv"
        )
        q, k = self.turned(q, positions), self.turned(k, positions)
        mixed = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, enable_gqa=True)
        x = x + F.linear(mixed.transpose(1, 2).reshape(batch, length, -1), self.attention["o"])
        z = self.norms[1](x)
        return x + F.linear(
            F.silu(F.linear(z, self.mlp["gate"])) * F.linear(z, self.mlp["up"]), self.mlp["down"]
        )

    def turned(self, x: Tensor, positions: Tensor | None) -> Tensor:
        if positions is None:
            return self.rotary(x)
        first, second = x.chunk(2, dim=-1)
        cosines, sines = self.rotary.cosines[positions], self.rotary.sines[positions]
        return x * cosines + torch.cat((-second, first), dim=-1) * sines


class PlainPrompts(nn.Module):
    """`prompts` [E, m, C] before layer `first`, and the gate."""

    def __init__(self, folder: Path, heads: int, first: int, shape: tuple[int, int], gate_width: int) -> None:
        super().__init__()
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        frozen = frozen_weights(folder, "model.", torch.float32)
        self.head, self.first = frozen["embed_tokens.weight"], first
        self.frozen_numbers = sum(weight.numel() for weight in frozen.values())
        groups, width = shape[0], self.head.shape[1]
        head_size = frozen["layers.0.self_attn.q_proj.weight"].shape[0] // heads
        rotary = Rotary(config["max_position_embeddings"], head_size, config["rope_theta"], torch.float32)
        epsilon = config["rms_norm_eps"]
        self.blocks = [
            Block(frozen, f"layers.{index}", heads, epsilon, rotary)
            for index in range(config["num_hidden_layers"])
        ]
        self.norm = Norm(frozen["norm.weight"], epsilon)
        self.prompts = nn.Parameter(torch.empty(groups, shape[1], width))
        self.gate = nn.Sequential(
            nn.Linear(width, gate_width), nn.GELU(approximate="tanh"), nn.Linear(gate_width, groups)
        )

    def place(self, name: str, values: Tensor) -> None:
        """Takes what comigs has of this name: "9.expert.3.prompt", "9.router.hidden_weight"."""
        _, kind, *rest = name.split(".")
        with torch.no_grad():
            if kind == "expert":
                self.prompts[int(rest[0])].copy_(values)
                return
            layer, what = rest[0].split("_")
            linear = self.gate[0 if layer == "hidden" else 2]
            getattr(linear, what).copy_(values.view_as(getattr(linear, what)))

    def masked(self, gate: Tensor, text: int) -> Tensor:
        """[B, 1, P + T, P + T], with the gate's logarithm where text sees prompts."""
        groups, m, _ = self.prompts.shape
        P = groups * m
        mask = torch.full((P + text, P + text), -math.inf)
        for group in range(groups):
            own = slice(group * m, (group + 1) * m)
            mask[own, own] = torch.full((m, m), -math.inf).triu(1)
        mask[P:, P:] = torch.full((text, text), -math.inf).triu(1)
        mask[P:, :P] = 0
        bias = (gate.log_softmax(-1) + math.log(groups)).repeat_interleave(m, 1)  # [B, P]
        seen = F.pad(bias, (0, text))[:, None, None, :].expand(-1, 1, text, -1)
        return mask + torch.cat([torch.zeros_like(seen[:, :, :1]).expand(-1, -1, P, -1), seen], dim=2)

    def losses(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, None]:
        x = F.embedding(tokens, self.head)
        with torch.no_grad():
            for block in self.blocks[: self.first]:
                x = block(x, None, None)
            feature = F.layer_norm(x.mean(1), x.shape[-1:])
        groups, m, width = self.prompts.shape
        text = tokens.shape[1]
        mask = self.masked(self.gate(feature), text)
        positions = torch.cat([torch.arange(m).repeat(groups), torch.arange(text) + m])
        x = torch.cat([self.prompts.view(1, -1, width).expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks[self.first :]:
            x = block(x, mask, positions)
        logits = F.linear(self.norm(x[:, -text:]), self.head)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1), None

    def total(self, language_model: Tensor, balancing: None) -> Tensor:
        return language_model
