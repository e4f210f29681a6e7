"""Base models of random weights and data sets of random tokens, made where they are missing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from data_prep.dataset import FORMAT, FORMAT_VERSION, dtype_for, taking_the_place_of, write_manifest

from .bases import Base

TOKENISER = '{"version": "1.0", "made": "random tokens", "model": {"vocab": {"a": 0}}}\n'


def random_base(folder: Path, base: Base) -> Path:
    """A Hugging Face folder in `folder`, float32: the family's initial spread, also in biases and norms."""
    made = folder / base.name
    if made.exists():
        return made
    random = np.random.default_rng(0)
    weights = {}
    for name, shape in base.shapes().items():
        noise = 0.02 * random.standard_normal(shape, dtype=np.float32)
        is_scale = len(shape) == 1 and name.endswith("weight")
        weights[name] = noise + np.float32(1) if is_scale else noise
    with taking_the_place_of(made, None) as temporary:
        save_file(weights, temporary / "model.safetensors", metadata={"format": "pt"})
        (temporary / "config.json").write_text(json.dumps(base.config(), indent=1), encoding="utf-8")
    return made


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
