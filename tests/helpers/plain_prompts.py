"""Soft prompts in plain PyTorch: from a layer on they stand in front of every sequence's own text, one mask says who
sees whom, and a bias to it how much the gate has a sequence see of each group. Nothing is shared between sequences, and
every product is written out."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from tests.helpers.llamas import PlainLlama
from tests.helpers.plain_model import PlainModel, Routing, Setting, gelu, wide

GATE = ("hidden_weight", "hidden_bias", "output_weight", "output_bias")


def mask_of(groups: int, m: int, text: int) -> Tensor:
    """[P + T, P + T], true where a row's token sees a column's: a prompt those of its own group up to itself, a token
    of the text all prompts and the text up to itself."""
    prompts = groups * m
    seen = torch.zeros(prompts + text, prompts + text, dtype=torch.bool)
    for group in range(groups):
        own = slice(group * m, (group + 1) * m)
        seen[own, own] = torch.ones(m, m, dtype=torch.bool).tril()
    seen[prompts:, :prompts] = True
    seen[prompts:, prompts:] = torch.ones(text, text, dtype=torch.bool).tril()
    return seen


class WithPrompts(PlainModel):
    """`parameters`: "<l*>.expert.<e>.prompt" [m, C], "<l*>.router.hidden_weight" and the gate's three others."""

    bias: Tensor | None = None  # of the batch under way

    def reads(self, instruction: Tensor) -> None:
        self.instruction = instruction

    def _gate_logits(self, x: Tensor, layer: int) -> Tensor:
        """[B, E] from the stream x [B, T, C] that enters the layer."""
        means = torch.stack([row[:count].mean(0) for row, count in zip(x, self.instruction.tolist())])
        centred = means - means.mean(-1, keepdim=True)
        h = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5)
        gate = {name: self.parameters[f"{layer}.router.{name}"] for name in GATE}
        hidden = gelu(h @ gate["hidden_weight"].T + gate["hidden_bias"])
        return hidden @ gate["output_weight"].T + gate["output_bias"]

    def _bias(self, x: Tensor, layer: int, m: int, size: int) -> Tensor:
        """[B, 1, 1, P + T] of what a query of the text has added to its logits."""
        log_gate = self._gate_logits(x, layer).log_softmax(-1)
        of_prompts = (log_gate + math.log(log_gate.shape[-1])).repeat_interleave(m, dim=1)
        return torch.cat([of_prompts, of_prompts.new_zeros(len(x), size)], dim=1)[:, None, None]

    def warmup_loss(self, tokens: Tensor, category: Tensor) -> Tensor:
        """How badly the gate tells the categories apart."""
        layer, _ = self._prompts()
        log_gate = self._gate_logits(self._below(tokens, layer), layer).log_softmax(-1)
        return -log_gate.gather(-1, category.unsqueeze(-1)).mean()

    def _below(self, tokens: Tensor, layer: int) -> Tensor:
        """The stream that enters the layer, of text alone."""
        raise NotImplementedError

    def _prompts(self) -> tuple[int, Tensor]:
        """The layer that they enter, and all groups [E, m, C]."""
        layer = int(next(iter(self.parameters)).split(".")[0])
        groups = [
            self.parameters[f"{layer}.expert.{expert}.prompt"] for expert in range(self.setting.experts)
        ]
        return layer, torch.stack(groups)

    def _through(self, x: Tensor, positions: Tensor, text: Tensor) -> Tensor:
        """`positions` [T] of a text without prompts; `text` [T] of one behind them."""
        first, groups = self._prompts()
        E, m, width = groups.shape
        mask = torch.ones(len(text), len(text), dtype=torch.bool).tril()
        for layer in range(self.layers):
            if layer == first:
                own = groups + self._added_positions(m, first)
                x = torch.cat([own.reshape(1, E * m, width).expand(len(x), -1, -1), x], dim=1)
                positions = torch.cat([torch.arange(m).repeat(E), text])
                mask = mask_of(E, m, len(text))
                if f"{layer}.router.hidden_weight" in self.parameters:
                    bias = torch.zeros(len(x), 1, len(mask), len(mask), dtype=x.dtype)
                    bias[:, :, E * m :] = self._bias(x[:, E * m :], layer, m, len(text))
                    self.bias = bias
            x = self._block(x, layer, mask, positions)
        return x[:, -len(text) :]

    def _attended(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """[B, heads, S, d] each -> [B, S, heads d]."""
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if self.bias is not None and scores.shape[-1] == self.bias.shape[-1]:
            scores = scores + self.bias
        weights = wide(scores).masked_fill(~mask, -math.inf).softmax(-1).to(v.dtype)
        return (weights @ v).transpose(1, 2).flatten(2)


class PromptedGpt2(WithPrompts):
    def _below(self, tokens: Tensor, layer: int) -> Tensor:
        text = torch.arange(tokens.shape[1])
        mask = torch.ones(len(text), len(text), dtype=torch.bool).tril()
        behind = text + self._prompts()[1].shape[1]
        x = self.frozen["wte.weight"][tokens] + self.frozen["wpe.weight"][behind if layer == 0 else text]
        for below in range(layer):
            x = self._block(x, below, mask, text)
        return x

    def _plain(self, x: Tensor, name: str) -> Tensor:
        return x @ self.frozen[f"{name}.weight"] + self.frozen[f"{name}.bias"]

    def _added_positions(self, m: int, first: int) -> Tensor | float:
        return self.frozen["wpe.weight"][:m] if first == 0 else 0.0

    def _block(self, x: Tensor, layer: int, mask: Tensor, positions: Tensor) -> Tensor:
        place, heads = f"h.{layer}", self.setting.heads
        qkv = self._plain(self._norm(x, f"{place}.ln_1"), f"{place}.attn.c_attn").chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv)
        x = x + self._plain(self._attended(q, k, v, mask), f"{place}.attn.c_proj")
        inner = gelu(self._plain(self._norm(x, f"{place}.ln_2"), f"{place}.mlp.c_fc"))
        return x + self._plain(inner, f"{place}.mlp.c_proj")

    def logits(self, tokens: Tensor) -> tuple[Tensor, list[Routing]]:
        first, groups = self._prompts()
        text = torch.arange(tokens.shape[1])
        behind = text + groups.shape[1]
        x = self.frozen["wte.weight"][tokens] + self.frozen["wpe.weight"][behind if first == 0 else text]
        return self._norm(self._through(x, text, behind), "ln_f") @ self.frozen["wte.weight"].T, []


class PromptedLlama(WithPrompts, PlainLlama):
    def __init__(
        self, folder: Path, frozen: dict[str, Tensor], parameters: dict[str, Tensor], setting: Setting
    ) -> None:
        PlainLlama.__init__(self, folder, frozen, parameters, setting)

    def _below(self, tokens: Tensor, layer: int) -> Tensor:
        text = torch.arange(tokens.shape[1])
        mask = torch.ones(len(text), len(text), dtype=torch.bool).tril()
        x = self.frozen["embed_tokens.weight"][tokens]
        for below in range(layer):
            x = self._block(x, below, mask, text)
        return x

    def _plain(self, x: Tensor, name: str) -> Tensor:
        y = x @ self.frozen[f"{name}.weight"].T
        return y + self.frozen[f"{name}.bias"] if f"{name}.bias" in self.frozen else y

    def _added_positions(self, m: int, first: int) -> float:
        return 0.0

    def _turned(self, x: Tensor, positions: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        rates = self.config["rope_theta"] ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = torch.outer(positions.double(), rates)
        c, s = angles.cos(), angles.sin()
        low, high = x[..., :half], x[..., half:]
        return torch.cat([low * c - high * s, high * c + low * s], dim=-1)

    def _block(self, x: Tensor, layer: int, mask: Tensor, positions: Tensor) -> Tensor:
        place, z = f"layers.{layer}", self._norm(x, f"layers.{layer}.input_layernorm")

        def heads(name: str, count: str) -> Tensor:
            y = self._plain(z, f"{place}.self_attn.{name}_proj").unflatten(-1, (self.config[count], -1))
            if f"{place}.self_attn.{name}_norm.weight" in self.frozen:
                y = self._norm(y, f"{place}.self_attn.{name}_norm")
            return y.transpose(1, 2)

        q = self._turned(heads("q", "num_attention_heads"), positions)
        k = self._turned(heads("k", "num_key_value_heads"), positions)
        v = heads("v", "num_key_value_heads")
        k, v = (part.repeat_interleave(q.shape[1] // part.shape[1], dim=1) for part in (k, v))
        x = x + self._plain(self._attended(q, k, v, mask), f"{place}.self_attn.o_proj")
        z = self._norm(x, f"{place}.post_attention_layernorm")
        gate, up = self._plain(z, f"{place}.mlp.gate_proj"), self._plain(z, f"{place}.mlp.up_proj")
        return x + self._plain(gate * torch.sigmoid(gate) * up, f"{place}.mlp.down_proj")

    def logits(self, tokens: Tensor) -> tuple[Tensor, list[Routing]]:
        text = torch.arange(tokens.shape[1])
        x = self._through(
            self.frozen["embed_tokens.weight"][tokens], text, text + self._prompts()[1].shape[1]
        )
        head = self.frozen.get("lm_head.weight", self.frozen["embed_tokens.weight"])
        return self._norm(x, "norm") @ head.T, []
