"""A user's mixture of experts merged into its base: one model as transformers writes it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from analysis.export.base import INDEX, Base, token_ids, weight_files
from analysis.export.moe import SHARED_EXPERT, SHARED_GATE, SHARED_WIDTH, MoeKind, moe_config, moe_kind
from analysis.export.packages import needed
from analysis.export.trained import Lora, Loras, TrainedUser
from analysis.read.results import ResultsError

FILES = ("config.json", "tokenizer.json", "model-*.safetensors", INDEX)
_PREFIX, _EMBEDDING, _HEAD = "model.", "embed_tokens.weight", "lm_head.weight"

Tensors = dict[str, Any]


def write_mixture(folder: Path, user: TrainedUser, base: Base) -> None:
    """Weights in the base's own types, merged in float32 and rounded once, a shard a layer: no more than that is
    in memory. Raises ResultsError where transformers has no such model."""
    kind = moe_kind(base, user)
    torch, save = needed("torch", "--mixture"), needed("safetensors.torch", "--mixture").save
    folder.mkdir()
    shards, index, size = 1 + len(user.attention), dict[str, str](), 0
    with ExitStack() as opened:
        merger = _Merger(user, base, kind, _BaseWeights(base, opened), torch)
        for number, tensors in enumerate(merger.shards(), start=1):
            name = f"model-{number:05}-of-{shards:05}.safetensors"
            (folder / name).write_bytes(save(tensors, metadata={"format": "pt"}))
            index |= dict.fromkeys(tensors, name)
            size += sum(tensor.nbytes for tensor in tensors.values())
    _write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": index})
    config = moe_config(kind, base, user) | token_ids(base) | {"dtype": merger.type_name}
    _write_json(folder / "config.json", config)
    if (base.folder / "tokenizer.json").is_file():
        shutil.copyfile(base.folder / "tokenizer.json", folder / "tokenizer.json")


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


class _BaseWeights:
    """The base's tensors by name, without the prefix that not all files have; read when they are asked for."""

    def __init__(self, base: Base, opened: ExitStack) -> None:
        safe_open = needed("safetensors", "--mixture").safe_open
        self._base, self._files = base, dict[str, Any]()
        for path in weight_files(base.folder):
            file = opened.enter_context(safe_open(path, "pt"))
            self._files |= {name: file for name in file.keys()}

    def names(self, beginning: str) -> list[str]:
        names = (name.removeprefix(_PREFIX) for name in self._files)
        return sorted(name for name in names if name.startswith(beginning))

    def get(self, *names: str) -> Any:
        """The first of the names that is there."""
        for name in names:
            for spelled in (name, _PREFIX + name):
                if spelled in self._files:
                    return self._files[spelled].get_tensor(spelled)
        raise ResultsError(f"{self._base.folder}: its weights lack '{names[0]}'")


class _Merger:
    def __init__(
        self, user: TrainedUser, base: Base, kind: MoeKind, weights: _BaseWeights, torch: Any
    ) -> None:
        self._user, self._base, self._kind, self._weights, self._torch = user, base, kind, weights, torch
        self._dtype = weights.get(_EMBEDDING, _HEAD).dtype

    @property
    def type_name(self) -> str:
        return str(self._dtype).removeprefix("torch.")

    def shards(self) -> Iterator[Tensors]:
        """What lies outside the layers, then layer by layer."""
        yield self._outside()
        for layer in range(len(self._user.attention)):
            place = f"layers.{layer}."
            tensors = self._attention(place, self._user.attention[layer])
            tensors |= self._router(f"{place}{self._kind.block}.gate.weight", layer)
            for expert, layers in enumerate(self._user.experts):
                tensors |= self._expert(place, expert, layers[layer])
            if self._kind.has_shared_expert:
                tensors |= self._shared_expert(place)
            yield {_PREFIX + name: tensor for name, tensor in tensors.items()}

    def _outside(self) -> Tensors:
        tensors = {_PREFIX + _EMBEDDING: self._weights.get(_EMBEDDING, _HEAD)}
        tensors[f"{_PREFIX}norm.weight"] = self._weights.get("norm.weight")
        if not self._base.setting("tie_word_embeddings"):
            tensors[_HEAD] = self._weights.get(_HEAD)
        return tensors

    def _attention(self, place: str, loras: Loras) -> Tensors:
        """All of the block but its MLP."""
        passed = (f"{place}mlp.", f"{place}self_attn.rotary_emb.")
        names = (name for name in self._weights.names(place) if not name.startswith(passed))
        tensors = {name: self._weights.get(name) for name in names}
        for module, lora in loras.items():
            tensors[f"{place}{module}.weight"] = self._merged(f"{place}{module}.weight", lora)
        return tensors

    def _router(self, name: str, layer: int) -> Tensors:
        if self._user.routers:
            return {name: self._torch.from_numpy(self._user.routers[layer]).to(self._dtype)}
        shape = (len(self._user.experts), self._base.setting("hidden_size"))
        return {name: self._torch.zeros(shape, dtype=self._dtype)}

    def _expert(self, place: str, expert: int, loras: Loras) -> Tensors:
        home = f"{place}{self._kind.block}.experts.{expert}"
        return {
            f"{home}.{self._kind.projections[name]}.weight": self._merged(
                f"{place}{self._base.family.mlp[name]}.weight", lora
            )
            for name, lora in loras.items()
        }

    def _shared_expert(self, place: str) -> Tensors:
        width = self._base.setting("hidden_size")
        shapes = {
            f"{place}{SHARED_EXPERT}.{name}_proj.weight": (SHARED_WIDTH, width) for name in ("gate", "up")
        }
        shapes[f"{place}{SHARED_EXPERT}.down_proj.weight"] = (width, SHARED_WIDTH)
        shapes[f"{place}{SHARED_GATE}"] = (1, width)
        return {name: self._torch.zeros(shape, dtype=self._dtype) for name, shape in shapes.items()}

    def _merged(self, name: str, lora: Lora) -> Any:
        """W + gamma B A with W [out, in]."""
        weight = self._weights.get(name)
        update = np.float32(lora.scale) * (lora.B @ lora.A)
        if update.shape != tuple(weight.shape):
            raise ResultsError(
                f"{self._base.folder}: '{name}' has the shape {tuple(weight.shape)}, the run's LoRA that of "
                f"{update.shape}"
            )
        return (weight.float() + self._torch.from_numpy(update)).to(weight.dtype)
