"""GPT-2 with LoRA experts in plain PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .plain import Layer, LoraLinear, Mixture, PlainModel, Sizes, frozen_weights


class Norm(nn.Module):
    def __init__(self, weight: nn.Parameter, bias: nn.Parameter) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias)


class Attention(nn.Module):
    def __init__(self, c_attn: LoraLinear, c_proj: LoraLinear, heads: int) -> None:
        super().__init__()
        self.c_attn, self.c_proj, self.heads = c_attn, c_proj, heads

    def forward(self, x: Tensor) -> Tensor:
        batch, context, width = x.shape
        q, k, v = (
            part.view(batch, context, self.heads, -1).transpose(1, 2)
            for part in self.c_attn(x).split(width, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(mixed.transpose(1, 2).reshape(batch, context, width))


class Expert(nn.Module):
    def __init__(self, up: LoraLinear, down: LoraLinear) -> None:
        super().__init__()
        self.up, self.down = up, down

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class PlainGpt2(PlainModel):
    """From a Hugging Face folder. `dtype` is that of the frozen weights; what is trained is float32."""

    def __init__(self, folder: Path, sizes: Sizes, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(sizes)
        layers = json.loads((folder / "config.json").read_text(encoding="utf-8"))["n_layer"]
        frozen = frozen_weights(folder, "transformer.", dtype)
        self.head, self.wpe = frozen["wte.weight"], frozen["wpe.weight"]
        self.norm = Norm(frozen["ln_f.weight"], frozen["ln_f.bias"])
        # The files have [in, out]: seen the other way round, where they lie; experts share the parameter.
        turned = {
            name: nn.Parameter(weight.t(), requires_grad=False)
            for name, weight in frozen.items()
            if name.startswith("h.") and weight.dim() == 2
        }

        def norm(name: str) -> Norm:
            return Norm(frozen[f"{name}.weight"], frozen[f"{name}.bias"])

        def linear(name: str) -> LoraLinear:
            return LoraLinear(turned[f"{name}.weight"], frozen[f"{name}.bias"], sizes)

        def layer(h: str) -> Layer:
            attention = Attention(linear(f"{h}.attn.c_attn"), linear(f"{h}.attn.c_proj"), sizes.heads)
            experts = [
                Expert(linear(f"{h}.mlp.c_fc"), linear(f"{h}.mlp.c_proj")) for _ in range(sizes.experts)
            ]
            mixture = Mixture(experts, self.head.shape[1], sizes)
            return Layer((norm(f"{h}.ln_1"), norm(f"{h}.ln_2")), attention, mixture)

        self.layers = nn.ModuleList(layer(f"h.{index}") for index in range(layers))

    def embed(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.head) + self.wpe[: tokens.shape[1]]
