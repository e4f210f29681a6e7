"""LoRAs as folders of PEFT: adapter_config.json and adapter_model.safetensors.

Names and the formula of the scale are those of peft 0.21 (`LoraConfig`, `get_peft_model_state_dict`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.export.base import Base
from analysis.export.packages import needed
from analysis.export.trained import Lora, Loras

FILES = ("adapter_config.json", "adapter_model.safetensors")


def write_adapter(folder: Path, layers: Sequence[Loras], base: Base, rslora: bool) -> None:
    """An adapter of the LoRAs of every layer. PEFT adds lora_alpha / r times B A, or lora_alpha / sqrt(r) with
    `use_rslora`; rank and lora_alpha are those of the last projection, and patterns where others differ."""
    *_, common = layers[0].values()
    others = {
        _target(base, name): lora
        for name, lora in layers[0].items()
        if (lora.rank, lora.scale) != (common.rank, common.scale)
    }
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base.folder),
        "r": common.rank,
        "lora_alpha": _alpha(common, rslora),
        "rank_pattern": {name: lora.rank for name, lora in others.items()},
        "alpha_pattern": {name: _alpha(lora, rslora) for name, lora in others.items()},
        "use_rslora": rslora,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": [_target(base, name) for name in layers[0]],
        "fan_in_fan_out": base.family.is_in_out,
        "inference_mode": True,
    }
    folder.mkdir()
    for name, data in zip(FILES, (json.dumps(config, indent=2).encode() + b"\n", _tensors(layers, base))):
        (folder / name).write_bytes(data)


def _alpha(lora: Lora, rslora: bool) -> float:
    return _tidy(lora.scale * (math.sqrt(lora.rank) if rslora else lora.rank))


def _tensors(layers: Sequence[Loras], base: Base) -> bytes:
    tensors: dict[str, np.ndarray] = {}
    for layer, loras in enumerate(layers):
        for name, lora in loras.items():
            place = f"base_model.model.{base.family.layers}.{layer}.{_module(base, name)}"
            tensors |= {f"{place}.lora_A.weight": lora.A, f"{place}.lora_B.weight": lora.B}
    save = needed("safetensors.numpy", "export").save
    return save(tensors, metadata={"format": "pt"})


def _module(base: Base, name: str) -> str:
    """The module, within a block, beside which a LoRA is that results.h5 has under the name."""
    return base.family.mlp.get(name, name)


def _target(base: Base, name: str) -> str:
    """PEFT takes every module whose name ends so; GPT-2 has two that are called c_proj."""
    module = _module(base, name)
    return module if base.kind == "gpt2" else module.rpartition(".")[2]


def _tidy(number: float) -> float:
    """A whole number as one, whatever a root has rounded: some programs take no other lora_alpha."""
    return round(number) if math.isclose(number, round(number), rel_tol=1e-12) else number
