"""Small random models of the Llama family, one for each flag, and the family with LoRA experts in plain PyTorch."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.helpers.plain_model import PlainModel, Routing, Setting, wide
from tests.helpers.tiny import POSITIONS, TOKENISER, VOCABULARY

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,
}
# Of each: what its config.json says beside the sizes.
MEMBERS: dict[str, dict[str, object]] = {
    "llama": {"model_type": "llama", "tie_word_embeddings": True},
    "llama, untied, no groups": {"model_type": "llama", "num_key_value_heads": 4},
    "llama, one key head": {"model_type": "llama", "num_key_value_heads": 1},
    "llama, biases": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "llama, head_dim": {"model_type": "llama", "head_dim": 6},
    "llama, linear": {"model_type": "llama", "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    "llama, old spelling": {"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2.0}},
    "llama, llama3": {"model_type": "llama", "rope_scaling": LLAMA3},
    "llama, rope_parameters": {
        "model_type": "llama",
        "rope_theta": None,
        "rope_parameters": {"rope_theta": 500.0, **LLAMA3},
    },
    "mistral": {"model_type": "mistral", "sliding_window": None},
    "mistral, window": {"model_type": "mistral", "sliding_window": POSITIONS},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 8},
    "qwen3, biases": {"model_type": "qwen3", "head_dim": 12, "attention_bias": True},
}


def config(member: str, **settings: object) -> dict[str, object]:
    sizes: dict[str, object] = {
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 44,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 4 * POSITIONS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 300.0,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    return sizes | MEMBERS[member] | settings


def llama(member: str, seed: int = 0, **settings: object) -> PreTrainedModel:
    """Every weight is random, biases and norms too, so that none can be forgotten unseen."""
    values = {name: value for name, value in config(member, **settings).items() if name != "model_type"}
    made = AutoConfig.for_model(str(MEMBERS[member]["model_type"]), **values)
    model = AutoModelForCausalLM.from_config(made).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(1 + 0.2 * noise if "norm" in name else 0.2 * noise)
    return model


def llama_folder(folder: Path, member: str, **settings: object) -> Path:
    """With the config.json as its own spelling has it, not as transformers would write it today."""
    llama(member, **settings).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config(member, **settings)), encoding="utf-8")
    (folder / "tokenizer.json").write_text(TOKENISER, encoding="utf-8")
    return folder


class PlainLlama(PlainModel):
    """Attention by groups, rotary positions, RMS norms and SwiGLU written out."""

    def __init__(
        self, folder: Path, frozen: dict[str, Tensor], parameters: dict[str, Tensor], setting: Setting
    ) -> None:
        self.frozen = {name.removeprefix("model."): weight for name, weight in frozen.items()}
        self.parameters, self.setting = parameters, setting
        self.config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.layers = self.config["num_hidden_layers"]

    def _linear(self, x: Tensor, layer: int, projection: str, lora: str) -> Tensor:
        place = f"layers.{layer}.{projection}"
        y = x @ self.frozen[f"{place}.weight"].T
        if f"{place}.bias" in self.frozen:
            y = y + self.frozen[f"{place}.bias"]
        A, B = (self.parameters[f"{layer}.{lora}.{factor}"].to(x.dtype) for factor in "AB")
        return y + self.setting.scale_of(lora) * (x @ A.T) @ B.T

    def _norm(self, x: Tensor, name: str) -> Tensor:
        z = wide(x)
        scaled = z / torch.sqrt((z**2).mean(-1, keepdim=True) + self.config["rms_norm_eps"])
        return (scaled * wide(self.frozen[f"{name}.weight"])).to(x.dtype)

    def _rotate(self, x: Tensor) -> Tensor:
        """x [B, heads, T, d]: number i of the first half turns with number i of the second."""
        half = x.shape[-1] // 2
        angles = torch.outer(
            torch.arange(x.shape[-2], dtype=torch.float64),
            self.config["rope_theta"] ** (-torch.arange(half, dtype=torch.float64) / half),
        )
        c, s = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        return torch.cat(
            [x[..., :half] * c - x[..., half:] * s, x[..., half:] * c + x[..., :half] * s], dim=-1
        )

    def _attention(self, x: Tensor, layer: int) -> Tensor:
        batch, context, _ = x.shape
        place = f"layers.{layer}.self_attn"

        def heads(name: str) -> Tensor:
            y = self._linear(x, layer, f"self_attn.{name}_proj", f"self_attn.{name}_proj")
            count = self.config["num_attention_heads" if name == "q" else "num_key_value_heads"]
            y = y.view(batch, context, count, -1)
            if f"{place}.{name}_norm.weight" in self.frozen:
                y = self._norm(y, f"{place}.{name}_norm")
            y = y.transpose(1, 2)
            return y if name == "v" else self._rotate(y)

        q, k, v = heads("q"), heads("k"), heads("v")
        groups = q.shape[1] // k.shape[1]
        k, v = (part.repeat_interleave(groups, dim=1) for part in (k, v))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        future = torch.ones(context, context, dtype=torch.bool).triu(1)
        weights = wide(scores).masked_fill(future, -math.inf).softmax(-1).to(x.dtype)
        joined = (weights @ v).transpose(1, 2).reshape(batch, context, -1)
        return self._linear(joined, layer, "self_attn.o_proj", "self_attn.o_proj")

    def _expert(self, x: Tensor, layer: int, expert: int) -> Tensor:
        gate = self._linear(x, layer, "mlp.gate_proj", f"expert.{expert}.gate")
        up = self._linear(x, layer, "mlp.up_proj", f"expert.{expert}.up")
        inner = (wide(gate) * torch.sigmoid(wide(gate)) * wide(up)).to(x.dtype)
        return self._linear(inner, layer, "mlp.down_proj", f"expert.{expert}.down")

    def logits(self, tokens: Tensor) -> tuple[Tensor, list[Routing]]:
        routings: list[Routing] = []
        x = self.frozen["embed_tokens.weight"][tokens]
        for layer in range(self.layers):
            place = f"layers.{layer}"
            x = x + self._attention(self._norm(x, f"{place}.input_layernorm"), layer)
            x = x + self._mlp(self._norm(x, f"{place}.post_attention_layernorm"), layer, routings)
        head = self.frozen.get("lm_head.weight", self.frozen["embed_tokens.weight"])
        return self._norm(x, "norm") @ head.T, routings
