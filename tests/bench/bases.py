"""The sizes of base models, by family: what is written down of them, and what a token is multiplied with."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

Projections = dict[str, tuple[int, int]]  # name in the layer: in, out
Product = tuple[str, int, int, bool, int]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Base(abc.ABC):
    """What all families have. The head is the embedding."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    positions: int

    out_in: ClassVar[bool]  # how a layer's matrices lie in the files: [out, in], else [in, out]

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Of its folder."""

    @property
    @abc.abstractmethod
    def attention(self) -> Projections: ...

    @property
    @abc.abstractmethod
    def mlp(self) -> Projections: ...

    @abc.abstractmethod
    def shapes(self) -> Shapes:
        """Every tensor of model.safetensors."""

    @abc.abstractmethod
    def config(self) -> dict[str, Any]:
        """config.json"""

    @property
    def frozen_in_products(self) -> int:
        """Weights that a token is multiplied with: attention, MLP and the tied head."""
        return sum(inputs * outputs * count for _, inputs, outputs, _, count in self.products())

    def products(self) -> list[Product]:
        """Name, in, out, whether the weight lies as [out, in], how many of them a forward pass has."""
        matrices = {**self.attention, **self.mlp}
        of_layers = [(name, *sizes, self.out_in, self.layers) for name, sizes in matrices.items()]
        return [*of_layers, ("head", self.width, self.vocabulary, True, 1)]

    def matrix(self, inputs: int, outputs: int) -> tuple[int, int]:
        return (outputs, inputs) if self.out_in else (inputs, outputs)


@dataclass(frozen=True)
class Gpt2(Base):
    """GPT-2 124M; inner width 4 `width`."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    vocabulary: int = 50257
    positions: int = 1024

    out_in = False

    @property
    def name(self) -> str:
        return f"gpt2-{self.layers}x{self.width}-{self.vocabulary}-{self.positions}"

    @property
    def attention(self) -> Projections:
        return {"attn.c_attn": (self.width, 3 * self.width), "attn.c_proj": (self.width, self.width)}

    @property
    def mlp(self) -> Projections:
        return {"mlp.c_fc": (self.width, 4 * self.width), "mlp.c_proj": (4 * self.width, self.width)}

    def shapes(self) -> Shapes:
        vector = (self.width,)
        shapes: Shapes = {
            "wte.weight": (self.vocabulary, self.width),
            "wpe.weight": (self.positions, self.width),
            "ln_f.weight": vector,
            "ln_f.bias": vector,
        }
        for layer in range(self.layers):
            for name, (inputs, outputs) in {**self.attention, **self.mlp}.items():
                shapes[f"h.{layer}.{name}.weight"] = self.matrix(inputs, outputs)
                shapes[f"h.{layer}.{name}.bias"] = (outputs,)
            for norm in ("ln_1", "ln_2"):
                shapes[f"h.{layer}.{norm}.weight"] = shapes[f"h.{layer}.{norm}.bias"] = vector
        return shapes

    def config(self) -> dict[str, Any]:
        return {
            "model_type": "gpt2",
            "architectures": ["GPT2LMHeadModel"],
            "n_layer": self.layers,
            "n_embd": self.width,
            "n_head": self.heads,
            "vocab_size": self.vocabulary,
            "n_positions": self.positions,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
        }


@dataclass(frozen=True)
class Llama(Base):
    """SmolLM2-135M: key and value heads by groups, gated MLP, rotary positions."""

    layers: int = 30
    width: int = 576
    heads: int = 9
    vocabulary: int = 49152
    positions: int = 8192
    key_value_heads: int = 3
    inner: int = 1536

    out_in = True

    @property
    def name(self) -> str:
        heads = f"{self.heads}of{self.key_value_heads}"
        return f"llama-{self.layers}x{self.width}-{heads}-{self.inner}-{self.vocabulary}-{self.positions}"

    @property
    def attention(self) -> Projections:
        shared = self.width // self.heads * self.key_value_heads
        outputs = {"q": self.width, "k": shared, "v": shared, "o": self.width}
        return {f"self_attn.{name}_proj": (self.width, out) for name, out in outputs.items()}

    @property
    def mlp(self) -> Projections:
        return {
            "mlp.gate_proj": (self.width, self.inner),
            "mlp.up_proj": (self.width, self.inner),
            "mlp.down_proj": (self.inner, self.width),
        }

    def shapes(self) -> Shapes:
        shapes: Shapes = {
            "model.embed_tokens.weight": (self.vocabulary, self.width),
            "model.norm.weight": (self.width,),
        }
        for layer in range(self.layers):
            for name, (inputs, outputs) in {**self.attention, **self.mlp}.items():
                shapes[f"model.layers.{layer}.{name}.weight"] = self.matrix(inputs, outputs)
            for norm in ("input_layernorm", "post_attention_layernorm"):
                shapes[f"model.layers.{layer}.{norm}.weight"] = (self.width,)
        return shapes

    def config(self) -> dict[str, Any]:
        return {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "num_hidden_layers": self.layers,
            "hidden_size": self.width,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads,
            "intermediate_size": self.inner,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.positions,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "rope_theta": 100000.0,
            "tie_word_embeddings": True,
        }
