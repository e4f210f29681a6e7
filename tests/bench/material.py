"""Base models of random weights and data sets of random tokens, made where they are missing."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from data_prep.dataset import FORMAT, FORMAT_VERSION, dtype_for, taking_the_place_of, write_manifest

TOKENISER = '{"version": "1.0", "made": "random tokens", "model": {"vocab": {"a": 0}}}\n'


@dataclass(frozen=True)
class Gpt2:
    """The sizes of a GPT-2; inner width 4 `width`."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    vocabulary: int = 50257
    positions: int = 1024

    @property
    def name(self) -> str:
        return f"gpt2-{self.layers}x{self.width}-{self.vocabulary}-{self.positions}"

    @property
    def frozen_in_products(self) -> int:
        """Weights that a token is multiplied with: attention, MLP and the tied head."""
        return self.layers * 12 * self.width**2 + self.vocabulary * self.width

    def shapes(self) -> dict[str, tuple[int, ...]]:
        c = self.width
        shapes: dict[str, tuple[int, ...]] = {
            "wte.weight": (self.vocabulary, c),
            "wpe.weight": (self.positions, c),
            "ln_f.weight": (c,),
            "ln_f.bias": (c,),
        }
        products = (
            ("attn.c_attn", c, 3 * c),
            ("attn.c_proj", c, c),
            ("mlp.c_fc", c, 4 * c),
            ("mlp.c_proj", 4 * c, c),
        )
        for layer in range(self.layers):
            for name, rows, columns in products:
                shapes[f"h.{layer}.{name}.weight"], shapes[f"h.{layer}.{name}.bias"] = (
                    (rows, columns),
                    (columns,),
                )
            for norm in ("ln_1", "ln_2"):
                shapes[f"h.{layer}.{norm}.weight"] = shapes[f"h.{layer}.{norm}.bias"] = (c,)
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


def random_base(folder: Path, gpt2: Gpt2) -> Path:
    """A Hugging Face folder in `folder`, float32: GPT-2's initial spread, also in biases and norms."""
    base = folder / gpt2.name
    if base.exists():
        return base
    random = np.random.default_rng(0)
    weights = {}
    for name, shape in gpt2.shapes().items():
        noise = 0.02 * random.standard_normal(shape, dtype=np.float32)
        is_scale = "ln_" in name and name.endswith("weight")
        weights[name] = noise + np.float32(1) if is_scale else noise
    with taking_the_place_of(base, None) as temporary:
        save_file(weights, temporary / "model.safetensors", metadata={"format": "pt"})
        (temporary / "config.json").write_text(json.dumps(gpt2.config(), indent=1), encoding="utf-8")
    return base


def _write_split(folder: Path, file: str, tokens: np.ndarray) -> dict[str, Any]:
    path = folder / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(tokens.tobytes())
    digest = hashlib.sha256(tokens.tobytes()).hexdigest()
    return {"file": file, "tokens": len(tokens), "documents": 1, "sha256": digest}


def random_data(
    folder: Path,
    vocabulary: int,
    users: int = 4,
    train: int = 200_000,
    validation: int = 2000,
    test: int = 200,
) -> Path:
    """A data set in `folder` whose tokens come as often as words do (Zipf: the k-th in 1/k of places)."""
    data = folder / f"zipf-{vocabulary}-{users}-{train}-{validation}-{test}"
    if data.exists():
        return data
    dtype = dtype_for(vocabulary, "auto")
    shares = 1.0 / np.arange(1, vocabulary + 1)
    limits = np.cumsum(shares / shares.sum())
    lengths = {"train": train, "validation": validation, "test": test}
    with taking_the_place_of(data, None) as temporary:
        entries = []
        for user in range(users):
            splits = {}
            for s, (split, count) in enumerate(lengths.items()):
                draws = np.random.default_rng((user, s)).random(count)
                tokens = np.minimum(np.searchsorted(limits, draws), vocabulary - 1).astype(dtype)
                splits[split] = _write_split(temporary, f"user{user}/{split}.bin", tokens)
            entries.append({"name": f"User {user}", "splits": splits})
        (temporary / "tokenizer.json").write_text(TOKENISER, encoding="utf-8")
        write_manifest(temporary, _manifest(vocabulary, dtype, entries))
    return data


def _manifest(vocabulary: int, dtype: np.dtype, users: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": "random tokens",
        "seed": 0,
        "tokeniser": {
            "kind": "byte-level-bpe",
            "file": "tokenizer.json",
            "vocabulary": vocabulary,
            "end_of_text": 0,
            "sha256": hashlib.sha256(TOKENISER.encode()).hexdigest(),
        },
        "dtype": dtype.name,
        "users": users,
        "base": None,
        "sources": [],
        "splits": {"rule": "random tokens"},
    }
